"""What a picture file carries besides its samples: EXIF, colour profile, transparency key, notes.

    PNG   --png_of--> its bare form for Pillow, transparency key, chunks
    chunks | what Pillow opened --carried_by--> ICC, EXIF, orientation, notes

Metadata never makes a good picture bad: what is damaged or cannot be kept is left out, and a note
of a few words says so. Chunks of a PNG are read here and not by Pillow, which refuses the whole
picture where a text is long or a profile damaged.
"""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_MOST_INFLATED_BYTES = 1 << 24
"""Of one chunk: longer texts and profiles are dropped."""

_ANIMATION = {b"acTL", b"fcTL", b"fdAT"}
"""Chunks that Pillow sees besides the critical ones."""

_XMP, _OLD_EXIF = b"XML:com.adobe.xmp", b"Raw profile type exif"
_READ_TEXTS = {_XMP, _OLD_EXIF}

_ORIENTATION, _SUB_IFDS, _EXIF_IFD, _GPS_IFD, _MAKER_NOTE = 0x0112, 0x014A, 0x8769, 0x8825, 0x927C
_THUMBNAIL_IFD = 1
_PREVIEWS = {_SUB_IFDS, 0x0111, 0x0117, 0x0201, 0x0202}
"""Tags of the first directory that point at pictures elsewhere in the file."""

_TIFF_EXIF_TAGS = {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, _EXIF_IFD, _GPS_IFD}
"""Description, camera, software, date, artist, copyright, EXIF and GPS: what is not layout."""

_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])\b')
_REC709_CHROMATICITIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
_SPACES = {b"RGB ": "RGB", b"GRAY": "grey", b"CMYK": "CMYK", b"Lab ": "Lab"}


@dataclass(frozen=True)
class Carried:
    """What a file says about its samples.

    Attributes:
        icc: the colour profile, of any colour space, or None.
        exif: the EXIF block without thumbnail and orientation, or None.
        orientation: 1 to 8; 1 where there is none, or none that can be read.
        notes: what is left out, a few words each.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    orientation: int = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Png:
    """A PNG file, taken apart.

    Attributes:
        bare: the file without what Pillow need not see.
        bit_depth, colour_type: of the header.
        key: the transparent sample or samples of a grey or RGB picture, or None.
        chunks: the first body of each other ancillary chunk but texts.
        text: keyword -> text as bytes; None where it is not looked at, damaged or too long.
    """

    bare: bytes
    bit_depth: int
    colour_type: int
    key: tuple[int, ...] | None = None
    chunks: dict[bytes, bytes] = field(default_factory=dict)
    text: dict[bytes, bytes | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def png_of(content: bytes) -> Png | None:
    """A PNG taken apart, or None for another kind of file."""
    if content[:8] != PNG_SIGNATURE or content[12:16] != b"IHDR" or len(content) < 33:
        return None
    bit_depth, colour_type = content[24], content[25]
    bare, notes = [PNG_SIGNATURE], []
    chunks: dict[bytes, bytes] = {}
    text: dict[bytes, bytes | None] = {}
    key = None
    place = 8
    for name, body, end in _chunks(content):
        opacities = name == b"tRNS" and colour_type == 3 and 1 <= len(body) <= 256
        if name[:1].isupper() or name in _ANIMATION or opacities:
            bare.append(content[place:end])
        elif name == b"tRNS" and colour_type in {0, 2}:
            if len(body) == (2 if colour_type == 0 else 6):
                most = (1 << bit_depth) - 1
                key = tuple(sample & most for (sample,) in struct.iter_unpack(">H", body))
            else:
                notes.append("damaged transparency key ignored")
        elif name in {b"tEXt", b"zTXt", b"iTXt"}:
            keyword = body.partition(b"\0")[0]
            text[keyword] = _text(name, body) if keyword in _READ_TEXTS else None
        else:
            chunks.setdefault(name, body)
        place = end
    bare.append(content[place:])
    return Png(b"".join(bare), bit_depth, colour_type, key, chunks, text, tuple(notes))


def carried_by(opened: Image.Image, png: Png | None) -> Carried:
    """What a file carries, before Pillow loads its samples.

    Args:
        opened: by Pillow; of a PNG its bare form.
        png: the whole PNG, or None for another kind of file.
    """
    notes: list[str] = []
    if png is None:
        icc = _icc_of(opened, notes)
        exif, orientation = _exif_of(opened, notes)
        xmp = opened.info.get("xmp")
        if xmp:
            notes.append("XMP not kept")
        if opened.info.get("comment"):
            notes.append("text comments not kept")
        if opened.info.get("photoshop"):
            notes.append("Photoshop blocks not kept")
    else:
        notes += png.notes
        icc = _icc_of_png(png, notes)
        exif, orientation = _exif_of_png(png, notes)
        xmp = png.text.get(_XMP)
        notes += _notes_of_png(png)
    if orientation is None:
        found = _XMP_ORIENTATION.search(xmp) if isinstance(xmp, bytes) else None
        orientation = int(found[1]) if found else 1
    if png is None:
        notes += _resolution(opened, exif)
    return Carried(icc, exif, orientation, tuple(notes))


def space_of_profile(icc: bytes) -> bytes | None:
    """The colour space of an ICC profile, four bytes, or None where it is no profile."""
    whole = len(icc) >= 128 and int.from_bytes(icc[:4]) <= len(icc)
    return icc[16:20] if whole and icc[36:40] == b"acsp" else None


def fitting_profile(icc: bytes | None, space: bytes, notes: list[str]) -> bytes | None:
    """A profile that describes samples of a colour space; another one is dropped and said."""
    found = space_of_profile(icc) if icc else None
    if icc is None or found == space:
        return icc
    if found is None:
        notes.append("unreadable ICC profile dropped")
    else:
        notes.append(f"ICC profile for {name_of_space(found)} dropped")
    return None


def name_of_space(space: bytes) -> str:
    """The colour space of a profile for people."""
    return _SPACES.get(space) or space.decode("ascii", "replace").strip()


def clean_exif(raw: bytes) -> tuple[bytes | None, int | None, bool]:
    """EXIF without thumbnail and orientation.

    Returns:
        The block, or None where nothing is left of it; its orientation, 1 to 8, or None; and
        whether it is damaged, in which case none of it is kept.
    """
    from PIL import Image

    exif = Image.Exif()
    orientation = None
    with warnings.catch_warnings(record=True) as damage:
        warnings.simplefilter("always")
        try:
            exif.load(raw)
            orientation = _valid_orientation(exif.get(_ORIENTATION))
            kept = _without_previews(exif, raw)
        except Exception:  # Pillow raises anything at all on damaged tags
            return None, orientation, True
    return (None, orientation, True) if damage else (kept, orientation, False)


def _without_previews(exif: Image.Exif, raw: bytes) -> bytes | None:
    """The block as it was where it needs no change, so that offsets in maker notes stay right."""
    if not len(exif):
        return None
    details = exif.get_ifd(_EXIF_IFD)
    unwanted = {tag for tag in (*_PREVIEWS, _ORIENTATION) if tag in exif}
    if exif.get(_ORIENTATION) == 1:
        unwanted -= {_ORIENTATION}  # which is true
    changed = bool(unwanted) or bool(exif.get_ifd(_THUMBNAIL_IFD)) or b"\xff\xd8\xff" in raw
    for tag in unwanted:
        del exif[tag]
    if b"\xff\xd8\xff" in bytes(details.get(_MAKER_NOTE, b"")):
        del details[_MAKER_NOTE]
    written = exif.tobytes() if len(exif) else None  # raises where a value is damaged
    return written if changed else raw


def _valid_orientation(value: Any) -> int | None:
    return value if isinstance(value, int) and 1 <= value <= 8 else None


def _exif_of(opened: Image.Image, notes: list[str]) -> tuple[bytes | None, int | None]:
    """EXIF and orientation of anything but a PNG."""
    if opened.format == "TIFF":
        return _exif_of_tiff(opened, notes)
    raw = opened.info.get("exif")
    if not isinstance(raw, bytes) or not raw:
        return None, None
    exif, orientation, damaged = clean_exif(raw)
    if damaged:
        notes.append("damaged EXIF dropped")
    return exif, orientation


def _exif_of_tiff(opened: Image.Image, notes: list[str]) -> tuple[bytes | None, int | None]:
    """A TIFF file's own tags hold its EXIF among those of its layout."""
    orientation = None
    with warnings.catch_warnings(record=True) as damage:
        warnings.simplefilter("always")
        try:
            own = opened.getexif()
            orientation = _valid_orientation(own.get(_ORIENTATION))
            from PIL import Image

            kept = Image.Exif()
            for tag in _TIFF_EXIF_TAGS & set(own):
                kept[tag] = own.get_ifd(tag) if tag in {_EXIF_IFD, _GPS_IFD} else own[tag]
            exif = kept.tobytes() if len(kept) else None
        except Exception:  # as above
            exif, damage = None, [*damage, None]  # type: ignore[list-item]
    if damage:
        notes.append("damaged EXIF dropped")
    return (None if damage else exif), orientation


def _exif_of_png(png: Png, notes: list[str]) -> tuple[bytes | None, int | None]:
    """Of the eXIf chunk, or of the text that ImageMagick wrote before there was one."""
    raw = png.chunks.get(b"eXIf")
    if raw is None:
        lines = (png.text.get(_OLD_EXIF) or b"").split(b"\n")
        try:
            raw = bytes.fromhex(b"".join(lines[3:]).decode("ascii"))
        except ValueError:
            raw = None
    if not raw:
        return None, None
    if not raw.startswith(b"Exif\0\0"):
        raw = b"Exif\0\0" + raw
    exif, orientation, damaged = clean_exif(raw)
    if damaged:
        notes.append("damaged EXIF dropped")
    return exif, orientation


def _icc_of(opened: Image.Image, notes: list[str]) -> bytes | None:
    icc = opened.info.get("icc_profile") or None
    segments = getattr(opened, "applist", ())
    in_parts = any(name == "APP2" and body.startswith(b"ICC_PROFILE\0") for name, body in segments)
    if isinstance(icc, bytes) or (icc is None and not in_parts):
        return icc
    notes.append("unreadable ICC profile dropped")
    return None


def _icc_of_png(png: Png, notes: list[str]) -> bytes | None:
    body = png.chunks.get(b"iCCP")
    if body is None:
        return None
    _, end, packed = body.partition(b"\0")
    icc = _inflated(packed[1:]) if end and packed[:1] == b"\0" else None
    if not icc:
        notes.append("unreadable ICC profile dropped")
    return icc or None


def _notes_of_png(png: Png) -> list[str]:
    """What the chunks say and a .lino file does not."""
    notes = []
    if _XMP in png.text:
        notes.append("XMP not kept")
    if set(png.text) - _READ_TEXTS:
        notes.append("text comments not kept")
    cicp = png.chunks.get(b"cICP")
    if cicp is not None and cicp != b"\x01\x0d\x00\x01":  # sRGB in so many words
        notes.append("cICP (colour space) not kept")
    if not {b"cICP", b"sRGB", b"iCCP"} & set(png.chunks):
        gamma = png.chunks.get(b"gAMA", b"")
        if len(gamma) == 4 and abs(int.from_bytes(gamma) - 45455) > 1000:
            notes.append(f"gamma of {int.from_bytes(gamma) / 1e5:.3g} not kept")
        primaries = png.chunks.get(b"cHRM", b"")
        if len(primaries) == 32 and any(
            abs(found - expected) > 100
            for found, expected in zip(
                struct.unpack(">8I", primaries), _REC709_CHROMATICITIES, strict=True
            )
        ):
            notes.append("cHRM (primaries) not kept")
    if b"pHYs" in png.chunks:
        notes.append("pHYs (resolution) not kept")
    return notes


def _resolution(opened: Image.Image, exif: bytes | None) -> list[str]:
    """Pixels per inch or centimetre, where the file states them and its EXIF does not."""
    stated = opened.info.get("jfif_unit") in {1, 2} and exif is None
    if opened.format == "TIFF":
        tags = getattr(opened, "tag_v2", {})
        stated = 282 in tags and tags.get(296, 2) != 1
    return ["resolution not kept"] if stated else []


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Name, body and end of every whole chunk."""
    place = 8
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4])
        end = place + 12 + length
        if end > len(content):
            return
        name = content[place + 4 : place + 8]
        yield name, content[place + 8 : end - 4], end
        if name == b"IEND":
            return
        place = end


def _text(name: bytes, body: bytes) -> bytes | None:
    """The text of a chunk, None where it is damaged or too long."""
    _, _, rest = body.partition(b"\0")
    if name == b"tEXt":
        return rest
    if name == b"zTXt":
        return _inflated(rest[1:])
    text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    return _inflated(text) if rest[:1] == b"\1" else text


def _inflated(packed: bytes) -> bytes | None:
    """A zlib stream of at most `_MOST_INFLATED_BYTES`, else None."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(packed, _MOST_INFLATED_BYTES)
    except zlib.error:
        return None
    return plain if stream.eof else None
