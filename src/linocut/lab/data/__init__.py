"""Pictures for training, choosing and testing.

sources --> prepare: read, split, refuse copies --> crops, validation and test pictures
dead_leaves: pictures that are made here
"""
