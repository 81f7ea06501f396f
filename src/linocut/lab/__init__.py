"""The lab: the pipeline that trains, completes, measures and compares codecs.

config -> data, networks -> training -> fitting -> evaluation -> studies -> report -> tracking
"""
