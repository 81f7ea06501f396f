"""Metadata never makes a good picture bad: what cannot be kept is dropped and said."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from linocut.errors import DataError
from linocut.pictures.image import (
    PICTURE_SUFFIXES,
    Picture,
    encode_picture,
    fill_invisible,
    largest_alpha_difference,
    read_picture,
    seen_alike,
)
from raw_files import Samples, exif, icc, png, tiff

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3), np.uint8)
ORIENTATION, DESCRIPTION, X_RESOLUTION = 0x0112, 0x010E, 0x011A
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TIFF_KINDS = [
    *((photometric, depth) for photometric in (0, 1) for depth in (1, 2, 4, 8, 16)),
    (0, 12), (1, 12), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8), (5, 8), (6, 8),
]  # fmt: skip
PNG_KINDS = [
    *((0, depth) for depth in (1, 2, 4, 8, 16)), (2, 8), (2, 16),
    *((3, depth) for depth in (1, 2, 4, 8)), (4, 8), (4, 16), (6, 8), (6, 16),
]  # fmt: skip


def read(content: bytes) -> Picture:
    return read_picture(io.BytesIO(content))


def jpeg(picture: Image.Image | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    (picture or Image.fromarray(RGB)).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def short(tag: int, value: int) -> tuple[int, int, int, bytes]:
    return tag, 3, 1, struct.pack("<H", value)


def eight_bits(samples: Samples, depth: int) -> Samples:
    return (samples.astype(np.int64) * 255 + ((1 << depth) - 1) // 2) // ((1 << depth) - 1)


@pytest.mark.parametrize("damage", [
    (X_RESOLUTION, 10, 1, struct.pack("<ii", -1, 0)),
    (X_RESOLUTION, 5, 9, struct.pack("<II", 300, 1)),    # nine numbers, of which one is there
    (DESCRIPTION, 2, 1 << 30, b"abcdefgh"),              # longer than the block
    (0x8769, 4, 1, struct.pack("<I", 1 << 31)),          # a directory beyond the end
])  # fmt: skip
def test_damaged_exif_is_dropped_and_said_and_still_turns_the_picture(
    damage: tuple[int, int, int, bytes],
) -> None:
    found = read(png(RGB, 8, 2, [(b"eXIf", exif([short(ORIENTATION, 6), damage])[6:])]))
    assert np.array_equal(found.rgb, np.rot90(RGB, -1))
    assert found.exif is None
    assert found.notes == ("damaged EXIF dropped", "orientation applied")


@pytest.mark.parametrize("value", [0, 9, 255])
def test_an_orientation_that_does_not_exist_is_none(value: int) -> None:
    found = read(png(RGB, 8, 2, [(b"eXIf", exif([short(ORIENTATION, value)])[6:])]))
    assert np.array_equal(found.rgb, RGB)
    assert found.notes == ()


def test_an_orientation_in_words_is_none() -> None:
    found = read(png(RGB, 8, 2, [(b"eXIf", exif([(ORIENTATION, 2, 6, b"top up")])[6:])]))
    assert np.array_equal(found.rgb, RGB)
    assert found.notes == ()


@pytest.mark.parametrize("orientation", [None, 1, 6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_thumbnails_are_never_kept(kind: str, orientation: int | None) -> None:
    entries = [(DESCRIPTION, 2, 8, b"a lake.\0")]
    entries += [] if orientation is None else [short(ORIENTATION, orientation)]
    block = exif(entries, jpeg(Image.effect_noise((60, 60), 90)))
    content = jpeg(exif=block) if kind == "JPEG" else png(RGB, 8, 2, [(b"eXIf", block[6:])])
    kept = read(content).exif
    assert kept is not None
    assert b"\xff\xd8" not in kept
    assert len(kept) < 120
    again = Image.Exif()
    again.load(kept)
    assert again[DESCRIPTION] == "a lake."


@pytest.mark.parametrize("more", [[], [short(ORIENTATION, 1)]])
def test_exif_that_needs_no_change_stays_as_it_is(more: list[tuple[int, int, int, bytes]]) -> None:
    block = exif([(DESCRIPTION, 2, 8, b"a lake.\0"), *more])
    assert read(jpeg(exif=block)).exif == block


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_level_is_one_at_every_depth(depth: int) -> None:
    samples = RNG.integers(0, 1 << depth, (40, 30, 1)) & ~(3 if depth > 4 else 0)
    key = int(samples[3, 4, 0])
    found = read(png(samples, depth, 0, [(b"tRNS", struct.pack(">H", key))]))
    assert found.grey
    assert np.array_equal(found.alpha, np.where(samples[..., 0] == key, 0, 255))
    assert np.array_equal(found.rgb[..., 1], eight_bits(samples[..., 0], depth))


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_is_compared_at_its_full_depth(depth: int) -> None:
    samples = RNG.integers(0, 3, (40, 30, 3)) + (1 << depth) // 2
    key = samples[3, 4]
    found = read(png(samples, depth, 2, [(b"tRNS", struct.pack(">3H", *key))]))
    expected = np.where((samples == key).all(axis=2), 0, 255)
    assert 0 < (expected == 0).sum() < expected.size
    assert np.array_equal(found.alpha, expected)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_every_palette_entry_has_its_opacity(depth: int) -> None:
    samples = RNG.integers(0, 1 << depth, (20, 31, 1))
    palette = RNG.integers(0, 256, (1 << depth, 3), np.uint8)
    opacities = RNG.integers(0, 256, 1 << depth, np.uint8)
    opacities[-1] = 255
    chunks = [(b"tRNS", opacities[:-1].tobytes())]
    found = read(png(samples, depth, 3, chunks, palette.tobytes()))
    assert np.array_equal(found.rgb, palette[samples[..., 0]])
    assert np.array_equal(found.alpha, opacities[samples[..., 0]])


def test_grey_with_alpha_of_sixteen_bits_comes_back_grey() -> None:
    samples = RNG.integers(0, 1 << 16, (9, 8, 2))
    found = read(png(samples, 16, 4))
    assert found.grey
    assert np.array_equal(found.rgb[..., 0], samples[..., 0] >> 8)
    assert np.array_equal(found.alpha, samples[..., 1] >> 8)
    data, _ = encode_picture(found)
    assert Image.open(io.BytesIO(data)).mode == "LA"


def test_a_damaged_transparency_key_is_ignored_and_said() -> None:
    found = read(png(RGB, 8, 2, [(b"tRNS", b"\0")]))
    assert found.alpha is None
    assert found.notes == ("damaged transparency key ignored",)


@pytest.mark.parametrize(("photometric", "depth"), TIFF_KINDS)
def test_tiff_has_the_tones_that_another_reader_finds(photometric: int, depth: int) -> None:
    channels = {2: 3, 5: 4, 6: 3}.get(photometric, 1)
    samples = RNG.integers(0, 1 << depth, (12, 16, channels))
    colours = RNG.integers(0, 1 << 16, (1 << depth, 3)) if photometric == 3 else None
    extra = [(530, 3, [1, 1])] if photometric == 6 else []
    content = tiff(samples, depth, photometric, colours, extra)
    if depth >= 8 and depth != 12:
        assert np.array_equal(tifffile.imread(io.BytesIO(content)).reshape(samples.shape), samples)
    found = read(content)
    if photometric == 0:
        expected = eight_bits((1 << depth) - 1 - samples, depth)
    elif photometric == 3:
        assert colours is not None
        expected = colours[samples[..., 0]] >> 8
    elif photometric == 5:
        expected = (255 - samples[..., :3]) * (255 - samples[..., 3:]) / 255
    elif photometric == 6:
        expected = np.array(Image.fromarray(samples.astype(np.uint8), "YCbCr").convert("RGB"))
    else:
        expected = eight_bits(samples, depth)
    tolerance = 1 if photometric == 5 or (photometric, depth) == (2, 16) else 0
    assert found.grey == (photometric < 2)
    assert np.abs(found.rgb.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", ["miniswhite", "minisblack"])
def test_sixteen_bit_grey_of_another_writer_has_its_tones(
    photometric: str, order: str, compression: str | None
) -> None:
    samples = RNG.integers(0, 1 << 16, (12, 16)).astype(np.uint16)
    file = io.BytesIO()
    tifffile.imwrite(
        file, samples, photometric=photometric, byteorder=order, compression=compression
    )
    expected = 65535 - samples if photometric == "miniswhite" else samples
    assert np.array_equal(read(file.getvalue()).rgb[..., 0], eight_bits(expected, 16))


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"tEXt"])
def test_long_texts_are_dropped_and_said(name: bytes) -> None:
    text = bytes(2_000_000) if name != b"tEXt" else b"x" * 2_000_000
    body = {
        b"zTXt": b"Comment\0\0" + zlib.compress(text),
        b"iTXt": b"Comment\0\1\0\0\0" + zlib.compress(text),
        b"tEXt": b"Comment\0" + text,
    }[name]
    found = read(png(RGB, 8, 2, [(name, body)] * 3))
    assert np.array_equal(found.rgb, RGB)
    assert found.notes == ("text comments not kept",)


def test_profiles_of_megabytes_are_read() -> None:
    profile = icc(length=3_000_000)
    assert read(png(RGB, 8, 2, [(b"iCCP", b"x\0\0" + zlib.compress(profile))])).icc == profile


@pytest.mark.parametrize("body", [b"", b"x", b"x\0\0junk", b"x\0\0" + zlib.compress(b"short")])
def test_damaged_profiles_are_dropped_and_said(body: bytes) -> None:
    found = read(png(RGB, 8, 2, [(b"iCCP", body)]))
    assert np.array_equal(found.rgb, RGB)
    assert found.notes == ("unreadable ICC profile dropped",)


@pytest.mark.parametrize(("grey", "space", "kept"), [
    (True, b"GRAY", True), (True, b"RGB ", False), (False, b"RGB ", True),
    (False, b"GRAY", False), (False, b"CMYK", False), (True, b"Lab ", False),
])  # fmt: skip
def test_profiles_of_another_colour_space_are_dropped_and_said(
    grey: bool, space: bytes, kept: bool
) -> None:
    chunks = [(b"iCCP", b"x\0\0" + zlib.compress(icc(space)))]
    found = read(png(RGB[..., :1] if grey else RGB, 8, 0 if grey else 2, chunks))
    assert (found.icc is not None) == kept
    assert bool(found.notes) == (not kept)
    assert all("ICC profile for" in note for note in found.notes)


@pytest.mark.parametrize(("profile", "said"), [
    (b"garbage" * 30, "CMYK converted to RGB, unreadable profile ignored"),
    (icc(b"CMYK"), "CMYK converted to RGB, unreadable profile ignored"),
    (SRGB, "CMYK converted to RGB, profile for RGB ignored"),
    (None, "CMYK converted to RGB"),
])  # fmt: skip
def test_cmyk_is_converted_whatever_its_profile_and_said(profile: bytes | None, said: str) -> None:
    image = Image.fromarray(RGB).convert("CMYK")
    content = jpeg(image, **({} if profile is None else {"icc_profile": profile}))
    found = read(content)
    assert np.array_equal(found.rgb, np.array(Image.open(io.BytesIO(content)).convert("RGB")))
    assert found.notes == (said,)
    assert found.icc is None


@pytest.mark.parametrize(("chunks", "notes"), [
    ([(b"gAMA", struct.pack(">I", 100_000))], ("gamma of 1 not kept",)),
    ([(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000))], ()),
    ([(b"gAMA", struct.pack(">I", 45455))], ()),
    ([(b"cICP", b"\x09\x10\x00\x01")], ("cICP (colour space) not kept",)),
    ([(b"cICP", b"\x01\x0d\x00\x01")], ()),
    ([(b"cHRM", struct.pack(">8I", *range(8)))], ("cHRM (primaries) not kept",)),
    ([(b"sRGB", b"\0"), (b"cHRM", struct.pack(">8I", *range(8)))], ()),
    ([(b"pHYs", struct.pack(">IIB", 2835, 2835, 1))], ("pHYs (resolution) not kept",)),
    ([(b"sRGB", b""), (b"gAMA", b"\1"), (b"cHRM", b"")], ()),
])  # fmt: skip
def test_what_a_png_says_of_its_samples_is_kept_or_said(
    chunks: list[tuple[bytes, bytes]], notes: tuple[str, ...]
) -> None:
    found = read(png(RGB, 8, 2, chunks))
    assert np.array_equal(found.rgb, RGB)
    assert found.notes == notes


def test_the_resolution_of_a_jpeg_is_said_where_its_exif_does_not_hold_it() -> None:
    assert read(jpeg()).notes == ()
    assert read(jpeg(dpi=(300, 300))).notes == ("resolution not kept",)


def test_the_limit_of_pixels_is_that_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    content = png(RGB, 8, 2)
    assert np.array_equal(read(content).rgb, RGB)
    with pytest.raises(DataError, match="9x6 px are 54 pixels, the limit is 53"):
        read_picture(io.BytesIO(content), max_pixels=53)


@pytest.mark.parametrize("suffix", [".jfif", ".ico", ".qoi"])
def test_rarer_files_are_found_and_read(suffix: str, tmp_path: Path) -> None:
    assert suffix in PICTURE_SUFFIXES
    image = Image.new("RGB", (32, 32), (200, 30, 40))
    image.save(tmp_path / f"a{suffix}", {".jfif": "JPEG", ".ico": "ICO", ".qoi": "QOI"}[suffix])
    found = read_picture(tmp_path / f"a{suffix}")
    assert found.rgb.shape == (32, 32, 3)
    assert np.abs(found.rgb.astype(int) - (200, 30, 40)).max() <= 2


def test_invisible_pixels_are_made_up_smoothly_and_visible_ones_stay() -> None:
    alpha = np.zeros((64, 80), np.uint8)
    alpha[20:30, 30:50] = 9
    noise = RNG.integers(0, 256, (64, 80, 3), np.uint8)
    noise[alpha > 0] = (10, 200, 90)
    filled = fill_invisible(Picture(noise, alpha))
    assert np.array_equal(np.unique(filled.reshape(-1, 3), axis=0), [[10, 200, 90]])
    assert not fill_invisible(Picture(noise, alpha * 0)).any()
    opaque = Picture(noise, np.full_like(alpha, 255))
    assert fill_invisible(opaque) is noise


def test_opacities_are_compared_and_unseen_colours_are_not() -> None:
    alpha = np.full(RGB.shape[:2], 128, np.uint8)
    alpha[0, 0] = 0
    original = Picture(RGB, alpha)
    assert largest_alpha_difference(original, original) == 0
    assert largest_alpha_difference(original, Picture(RGB)) == 255
    changed = RGB.copy()
    changed[0, 0] ^= 255
    assert np.array_equal(seen_alike(original, Picture(changed, alpha)), RGB)
    assert not np.array_equal(seen_alike(original, Picture(changed)), RGB)


def carried(rng: np.random.Generator) -> list[tuple[bytes, bytes]]:
    """Chunks of every kind, whole or with wrong bytes."""
    thumbnail = jpeg(Image.effect_noise((20, 20), 90))
    block = exif([
        (DESCRIPTION, 2, 8, b"a lake.\0"), short(ORIENTATION, int(rng.integers(0, 12))),
        (X_RESOLUTION, 5, 1, struct.pack("<II", 300, 1)), (0x8769, 4, 1, struct.pack("<I", 26)),
    ], thumbnail if rng.random() < 0.5 else b"")  # fmt: skip
    profile = icc(rng.choice([b"RGB ", b"GRAY", b"CMYK", b"Lab "]).ljust(4))
    bodies = {
        b"eXIf": block[6:],
        b"iCCP": b"name\0\0" + zlib.compress(profile),
        b"zTXt": b"Raw profile type exif\0\0" + zlib.compress(block.hex().encode()),
        b"iTXt": b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation='3'/>",
        b"tEXt": b"Comment\0some words",
        b"gAMA": struct.pack(">I", 60_000),
        b"pHYs": struct.pack(">IIB", 1, 2, 0),
        b"cHRM": bytes(32),
        b"sRGB": b"\0",
        b"cICP": b"\x09\x10\x00\x01",
        b"bKGD": b"\0\1",
        b"tIME": bytes(7),
        b"sBIT": b"\x08",
        b"prVt": b"private",
    }
    result = []
    for name, body in bodies.items():
        if rng.random() < 0.5:
            end = int(rng.integers(0, len(body) + 1)) if rng.random() < 0.2 else len(body)
            changed = bytearray(body[:end])
            for _ in range(int(rng.integers(0, 4))):
                if changed:
                    changed[rng.integers(len(changed))] = rng.integers(256)
            result.append((name, bytes(changed)))
    return result


def turns(samples: Samples) -> list[Samples]:
    """All eight ways to lay out a picture."""
    both = [samples, samples.swapaxes(0, 1)]
    return [part[::y, ::x] for part in both for y in (1, -1) for x in (1, -1)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("colour_type", "depth"), PNG_KINDS)
def test_no_metadata_changes_a_sample_of_a_png(colour_type: int, depth: int, seed: int) -> None:
    rng = np.random.default_rng([colour_type, depth, seed])
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    samples = rng.integers(0, 1 << depth, (5, 7, channels))
    palette = rng.integers(0, 256, (1 << depth, 3), np.uint8) if colour_type == 3 else samples[:0]
    chunks = carried(rng)
    opacity = np.full((5, 7), 255)
    if colour_type in {0, 2} and rng.random() < 0.7:
        key = samples[2, 3]
        chunks.append((b"tRNS", struct.pack(f">{channels}H", *key)))
        opacity = np.where((samples == key).all(axis=2), 0, 255)
    # of 16 bits the high bytes are taken, plain grey is rounded
    full = eight_bits(samples, depth) if depth < 16 or colour_type == 0 else samples >> 8
    colours = palette[samples[..., 0]] if colour_type == 3 else full[..., : 1 | channels - 1]
    opacity = full[..., -1] if colour_type in {4, 6} else opacity
    found = read(png(samples, depth, colour_type, chunks, palette.tobytes()))
    assert (found.alpha is not None) == (colour_type in {4, 6} or b"tRNS" in dict(chunks))
    expected = np.dstack([np.broadcast_to(colours, (5, 7, 3)), opacity])
    shown = np.dstack([found.rgb, np.full(found.rgb.shape[:2], 255)])
    if found.alpha is not None:
        shown[..., 3] = found.alpha
    assert any(np.array_equal(shown, turned) for turned in turns(expected))
    for kind in ("PNG", "TIFF", "WEBP"):
        written, _ = encode_picture(found, kind)
        assert np.array_equal(read(written).rgb, found.rgb)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_no_metadata_changes_a_sample_of_a_jpeg(mode: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    chunks = dict(carried(rng))
    image = Image.fromarray(RGB).convert(mode)
    options: dict[str, bytes] = {}
    if b"eXIf" in chunks:
        options["exif"] = b"Exif\0\0" + chunks[b"eXIf"]
    if b"iCCP" in chunks:
        options["icc_profile"] = icc(rng.choice([b"RGB ", b"GRAY", b"CMYK"]).ljust(4))
        options["icc_profile"] = options["icc_profile"][: rng.integers(1, 250)]
    if b"tEXt" in chunks:
        options["comment"] = chunks[b"tEXt"]
    plain = np.array(Image.open(io.BytesIO(jpeg(image))).convert("RGB"))
    found = read(jpeg(image, **options))
    assert any(np.array_equal(found.rgb, turned) for turned in turns(plain))
    encode_picture(found)


@pytest.mark.parametrize("seed", range(40))
def test_no_tag_makes_a_tiff_unreadable(seed: int) -> None:
    rng = np.random.default_rng(seed)
    photometric, depth = TIFF_KINDS[seed % len(TIFF_KINDS)]
    channels = {2: 3, 5: 4, 6: 3}.get(photometric, 1)
    samples = rng.integers(0, 1 << depth, (12, 16, channels))
    colours = rng.integers(0, 1 << 16, (1 << depth, 3)) if photometric == 3 else None
    layout = [(530, 3, [1, 1])] if photometric == 6 else []
    plain = read(tiff(samples, depth, photometric, colours, layout))
    tags = [(int(tag), 3, rng.integers(0, 1 << 16, rng.integers(1, 5)).tolist())
            for tag in rng.choice([270, 271, 274, 282, 305, 306, 315, 700, 34665, 34675, 34853],
                                  4, replace=False)]  # fmt: skip
    found = read(tiff(samples, depth, photometric, colours, [*layout, *tags]))
    assert any(np.array_equal(found.rgb, turned) for turned in turns(plain.rgb))


def test_pillow_is_left_as_it_was() -> None:
    before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
    read(png(RGB, 8, 2, [(b"zTXt", b"a\0\0" + zlib.compress(bytes(2_000_000)))]))
    assert before == (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK)
