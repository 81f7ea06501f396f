"""Pillow reads and writes .lino files after `import linocut.pillow`.

    import linocut.pillow
    from PIL import Image

    Image.open("photo.png").save("photo.lino", quality=60)
    Image.open("photo.lino").show()

Options of `save`: one of `quality` (1 to 100), `bpp`, `psnr`, `max_bytes`; `model`, `effort`,
`resilient`, `icc_profile`, `exif`. The picture's own ICC profile is kept, its EXIF only where it
is given, as with Pillow's other formats. `open` reads the file and its header; the network runs
when pixels are asked for. An opened picture can be pickled and copied as Pillow's own can: its
pixels go along.
"""

from __future__ import annotations

import warnings
from functools import cache
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image, ImageFile

from linocut.codec.picture_files import (
    Target,
    compress_picture,
    decompress_picture,
    is_grey,
    metadata,
)
from linocut.codec.rate_control import DEFAULT_QUALITY
from linocut.errors import ConfigError, LinocutError
from linocut.format import bitstream
from linocut.models import folders
from linocut.pictures.image import from_pillow

if TYPE_CHECKING:
    from linocut.codec.codec import Codec

FORMAT = "LINOCUT"
_TARGETS = ("quality", "bpp", "psnr", "max_bytes")


class LinoImageFile(ImageFile.ImageFile):
    """A .lino file, decoded at the first look at its pixels."""

    format = FORMAT
    format_description = "linocut learned image codec"

    _file: bitstream.LinoFile | None = None
    """What is still to be decoded; nothing in copies and after unpickling, which hold pixels."""

    def _open(self) -> None:
        try:
            file = bitstream.unpack(self.fp.read() if self.fp else b"")
            icc, exif = metadata(file.extras)
        except LinocutError as error:
            raise OSError(str(error)) from error
        alpha = bitstream.ALPHA in file.extras
        self._mode = (
            ("LA" if alpha else "L") if is_grey(file.extras) else "RGBA" if alpha else "RGB"
        )
        self._size = (file.width, file.height)
        if icc is not None:
            self.info["icc_profile"] = icc
        if exif is not None:
            self.info["exif"] = exif
        self._file = file
        self.tile = []

    def load(self) -> Any:
        """Decode, once."""
        if self._file is not None:
            try:
                known = self._file.is_lossless
                codec = None if known else _codec(str(folders.by_id(self._file.model_id)))
                picture = decompress_picture(codec, self._file)
            except LinocutError as error:
                raise OSError(str(error)) from error
            for note in picture.notes:
                warnings.warn(note, stacklevel=2)
            samples = picture.rgb[..., :1] if picture.grey else picture.rgb
            if picture.alpha is not None:
                samples = np.dstack([samples, picture.alpha])
            if self.fp is not None and self._exclusive_fp:
                self.fp.close()
            self.fp = BytesIO(np.ascontiguousarray(samples).tobytes())
            self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]
            self._file = None
        return super().load()


def _accept(prefix: bytes) -> bool:
    return bitstream.looks_like_lino(prefix)


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    options: dict[str, Any] = image.encoderinfo
    chosen = [name for name in _TARGETS if options.get(name) is not None]
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} given, expected one of them")
    name = chosen[0] if chosen else "quality"
    target = Target(cast("Any", name), float(options.get(name, DEFAULT_QUALITY)))
    exif = options.get("exif")
    if isinstance(exif, Image.Exif):
        exif = exif.tobytes()
    icc = options.get("icc_profile", image.info.get("icc_profile"))
    picture = from_pillow(image, icc or None, exif or None)
    codec = _codec(str(options.get("model", folders.DEFAULT)))
    data, lost = compress_picture(
        codec,
        picture,
        target,
        effort=int(options.get("effort", 2)),
        resilient=bool(options.get("resilient", False)),
    )
    for note in (*picture.notes, *lost):
        warnings.warn(f"{filename!s}: {note}", stacklevel=3)
    file.write(data)


@cache
def _codec(model: str) -> Codec:
    from linocut.codec.codec import Codec

    return Codec.load(model)


Image.register_open(FORMAT, LinoImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, ".lino")
Image.register_mime(FORMAT, "image/x-linocut")
