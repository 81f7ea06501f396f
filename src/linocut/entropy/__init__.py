"""Symbols <-> bytes, in whole numbers only.

    latent r (c, h, w) per band
      | the path that weighs bits against error (choice, trellis)
    symbols, whole numbers -----> planes coarse to fine, each in passes (planes)
      |                             | what is known around each symbol (contexts)
      |                           levels
      |                             | context networks (contexts)
      |                           which table each symbol has (tables)
      v                             |
    tokens, extra bits, signs <-----+-- which of two quantisers is in force (trellis)
      | range coder: numpy and constriction, pass by pass (passes)
    bytes

`coder` is the face of it: `Coder` is what codecs ask of `EntropyCoder` and of `fixed_codes`.
"""
