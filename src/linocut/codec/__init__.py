"""A picture <-> the bytes of a .lino file.

picture --tiles--> windows --networks--> latents --rotation--> r --effort--> symbols
symbols --linocut.entropy, linocut.format--> bytes, and all the way back
"""
