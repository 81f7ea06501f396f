"""The errors a caller of this package may want to catch.

Each message is one line: what was found, what was expected, where.
"""


class LinocutError(Exception):
    """Base of every error that this package raises on purpose."""


class BitstreamError(LinocutError):
    """A compressed file that is damaged, foreign, or made by another model."""


class CheckpointError(LinocutError):
    """Weights that are missing, damaged, or do not fit the network described beside them."""


class ConfigError(LinocutError):
    """A parameter that is unknown, missing, of the wrong type or out of range."""


class DataError(LinocutError):
    """A picture or a data source that cannot be used as it is."""
