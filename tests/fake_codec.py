"""A codec of one line, for tests of what surrounds a codec."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from linocut.errors import BitstreamError

Rgb = NDArray[np.uint8]


class FakeCodec:
    """The letter L, then a file that Pillow reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def load(cls, folder: Path) -> FakeCodec:
        return cls(folder)

    def compress(self, image: Rgb, quality: int) -> bytes:
        file = io.BytesIO(b"L")
        file.seek(1)
        Image.fromarray(image).save(file, "WEBP", quality=quality)
        return file.getvalue()

    def decompress(self, data: bytes) -> Rgb:
        if data[:1] != b"L":
            raise BitstreamError("starts with another byte, expected L")
        return np.array(Image.open(io.BytesIO(data[1:])).convert("RGB"))
