"""Learned image compression trained for a chosen loss, from pictures to bytes and back."""

__version__ = "0.1.0"
