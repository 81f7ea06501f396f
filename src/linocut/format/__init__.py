"""Fields <-> bytes: the .lino file in its two layouts, and its blocks.

alpha, metadata, correction, a picture without loss --bitstream--> blocks
size, step, model, payloads, blocks --bitstream--> bytes of the plain layout
                                    --resilient--> bytes that survive bit errors
"""
