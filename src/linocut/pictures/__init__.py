"""Any file that Pillow opens <-> arrays, and how good a decoded picture is.

file --image--> uint8 (h, w, 3), alpha, notes;  two pictures --metrics--> PSNR, SSIM, ...
"""
