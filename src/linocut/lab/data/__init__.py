"""Pictures for training, choosing and testing.

sources --prepare--> crops, validation and test pictures;  dead_leaves, degradation: made here
"""
