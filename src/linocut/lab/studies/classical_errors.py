"""JPEG and JPEG 2000 under bit errors, read as leniently as Pillow can."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, ImageFile

from linocut.errors import DataError
from linocut.pictures.image import RgbArray


def encode_jpeg(picture: RgbArray, quality: int, *, restart: bool) -> bytes:
    """Baseline JPEG, 4:2:0, optimised tables; `restart` puts a marker after each row of units."""
    file = io.BytesIO()
    rows = {"restart_marker_rows": 1} if restart else {}
    Image.fromarray(picture).save(
        file, "JPEG", quality=quality, optimize=True, subsampling="4:2:0", **rows
    )
    return file.getvalue()


def jpeg_near(picture: RgbArray, size: int, *, restart: bool) -> bytes:
    """The best JPEG of at most `size` bytes.

    Raises:
        DataError: the coarsest has more.
    """
    low, high = 0, 101
    best = None
    while high - low > 1:
        quality = (low + high) // 2
        data = encode_jpeg(picture, quality, restart=restart)
        if len(data) <= size:
            low, best = quality, data
        else:
            high = quality
    if best is None:
        raise DataError(f"no JPEG of this picture has {size} bytes or less")
    return best


def header_bytes(data: bytes) -> int:
    """Length of what precedes the entropy-coded data of a JPEG file or a JPEG 2000 codestream."""
    if data[:4] == b"\xff\x4f\xff\x51":
        return data.index(b"\xff\x93") + 2
    place = 2
    while data[place + 1] != 0xDA:
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return place + 2 + int(struct.unpack_from(">H", data, place + 2)[0])


def decode_classical(data: bytes, shape: tuple[int, int]) -> RgbArray | None:
    """The picture (h, w, 3) as far as it goes, or None where the decoder refuses.

    Args:
        data: a damaged file.
        shape: height and width that the receiver expects; another size counts as refused.
    """
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "JPEG2000")) as opened:
            if opened.size != shape[::-1]:
                return None
            return np.array(opened.convert("RGB"))
    except Exception:  # whatever a decoder of Pillow raises on nonsense
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
