"""Learned image compression trained for a chosen loss, from pictures to bytes and back.

    from linocut import Codec
    codec = Codec.load()
    data = codec.compress(picture, step=24.0)    # picture: uint8 (h, w, 3)
    decoded = codec.decompress(data)

Importing this imports nothing else: names are looked up when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from linocut.codec.codec import Codec
    from linocut.errors import (
        BitstreamError,
        CheckpointError,
        ConfigError,
        DataError,
        LinocutError,
    )

__version__ = "0.1.0"

__all__ = [
    "BitstreamError", "CheckpointError", "Codec", "ConfigError", "DataError", "LinocutError",
    "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'linocut' has no attribute {name!r}")
    module = "linocut.codec.codec" if name == "Codec" else "linocut.errors"
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted(__all__)
