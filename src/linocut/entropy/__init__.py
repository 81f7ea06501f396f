"""Symbols <-> bytes, in whole numbers only.

latent --quantise--> symbols --planes, passes--> contexts --tables--> range coder --> bytes
"""
