"""Pictures for training, choosing and testing.

sources --> prepare: read, split, refuse copies --> crops, validation and test pictures
dead_leaves, degradation: pictures that are made, or made worse, here
"""
