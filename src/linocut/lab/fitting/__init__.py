"""From a trained network to a complete codec.

network, crops --> rotation, context networks, tables, tuned decoder --> model folder
"""
