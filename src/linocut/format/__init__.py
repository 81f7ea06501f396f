"""Fields <-> bytes: the .lino file in its two layouts, and its blocks.

size, step, model, payloads, blocks --bitstream | resilient--> bytes
"""
