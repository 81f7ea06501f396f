"""The command `linocut`: files in, files out.

arguments --main--> commands --files, batches--> codec, pictures, format
"""
