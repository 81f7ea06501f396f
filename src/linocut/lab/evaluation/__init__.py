"""What a codec is worth: files, decoded and measured, beside the classical codecs.

codec, pictures --encode--> .lino --decode--> rows --rd, comparison--> BD-rates, intervals
"""
