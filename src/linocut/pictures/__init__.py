"""Any file that Pillow opens <-> arrays, and how good a decoded picture is.

PNG, JPEG, TIFF, ... --metadata--> ICC, EXIF, orientation, what is dropped and said
                     --image--> Picture: rgb uint8 (h, w, 3), alpha, ICC, EXIF, notes
Picture              --image--> PNG, TIFF, WebP, ... without loss
Picture              --image--> rgb whose invisible pixels cost nothing
original, decoded    --quality--> PSNR, SSIM, MS-SSIM, SSIMULACRA 2
picture              --image--> its middle, its busiest square
"""
