"""Reading pictures of every kind, and refusing what is not one picture."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.Image import Exif
from PIL.PngImagePlugin import PngInfo

from linocut.errors import DataError
from linocut.pictures.image import (
    Picture,
    busiest_corner,
    centre,
    crop,
    encode_picture,
    read_image,
    read_picture,
    write_png,
)

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3), np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY_PROFILE = SRGB[:16] + b"GRAY" + SRGB[20:]


def file_of(image: Image.Image, kind: str = "PNG", **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


def png_of_sixteen_bits(samples: np.ndarray) -> io.BytesIO:
    """A 16-bit RGB PNG, which Pillow reads but cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return io.BytesIO(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def test_rgb_is_read_as_it_is() -> None:
    picture = read_picture(file_of(Image.fromarray(RGB)))
    assert np.array_equal(picture.rgb, RGB)
    assert picture.alpha is None
    assert not picture.grey
    assert picture.notes == ()


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_is_replicated_and_said(mode: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    picture = read_picture(file_of(image))
    assert picture.grey
    assert np.array_equal(picture.rgb, np.asarray(image.convert("RGB")))


def test_grey_with_alpha_keeps_both() -> None:
    samples = RNG.integers(0, 256, (5, 4, 2), np.uint8)
    picture = read_picture(file_of(Image.fromarray(samples, "LA")))
    assert picture.grey
    assert picture.alpha is not None
    assert np.array_equal(picture.rgb[..., 0], samples[..., 0])
    assert np.array_equal(picture.alpha, samples[..., 1])


def test_rgba_keeps_colour_and_alpha_apart() -> None:
    samples = RNG.integers(0, 256, (5, 4, 4), np.uint8)
    picture = read_picture(file_of(Image.fromarray(samples)))
    assert picture.alpha is not None
    assert np.array_equal(picture.rgb, samples[..., :3])
    assert np.array_equal(picture.alpha, samples[..., 3])


def test_palette_is_expanded() -> None:
    image = Image.fromarray(RGB).convert("P", palette=Image.Palette.ADAPTIVE)
    picture = read_picture(file_of(image))
    assert np.array_equal(picture.rgb, np.asarray(image.convert("RGB")))
    assert "palette expanded" in picture.notes


def test_transparent_palette_entry_becomes_alpha() -> None:
    image = Image.new("P", (4, 3))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 1), 1)
    picture = read_picture(file_of(image, transparency=1))
    assert picture.alpha is not None
    assert (picture.alpha == 0).sum() == 1


def test_cmyk_is_converted_and_said() -> None:
    image = Image.fromarray(RGB).convert("CMYK")
    picture = read_picture(file_of(image, "TIFF"))
    assert np.array_equal(picture.rgb, np.asarray(image.convert("RGB")))
    assert "CMYK converted to RGB" in picture.notes


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_other_colour_spaces_are_converted_and_said(mode: str) -> None:
    flat = Image.new("RGB", (5, 5), (200, 100, 50))
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.applyTransform(flat, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
        assert image is not None
    else:
        image = flat.convert(mode)
    picture = read_picture(file_of(image, "TIFF"))
    assert np.abs(picture.rgb.astype(int) - (200, 100, 50)).max() <= 3
    if mode == "LAB":
        assert picture.notes == ("LAB converted to sRGB",)


def test_sixteen_bit_grey_is_rounded_to_eight_and_said() -> None:
    samples = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    picture = read_picture(file_of(Image.fromarray(samples)))
    assert np.array_equal(picture.rgb[..., 0], np.rint(samples / 257).astype(np.uint8))
    assert picture.notes == ("16 bits a sample reduced to 8",)


def test_sixteen_bit_colour_is_reduced_and_said() -> None:
    samples = RNG.integers(0, 65536, (4, 5, 3), np.uint16)
    picture = read_picture(png_of_sixteen_bits(samples))
    assert np.abs(picture.rgb - samples / 257).max() <= 1
    assert picture.notes == ("16 bits a sample reduced to 8",)


def test_floating_point_samples_are_refused() -> None:
    image = Image.fromarray(np.ones((4, 4), np.float32))
    with pytest.raises(DataError, match="floating-point samples have no agreed range"):
        read_picture(file_of(image, "TIFF"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_removed(orientation: int) -> None:
    exif = Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "a description"
    picture = read_picture(file_of(Image.fromarray(RGB), exif=exif))
    turned = [
        RGB, RGB[:, ::-1], RGB[::-1, ::-1], RGB[::-1],
        RGB.transpose(1, 0, 2), np.rot90(RGB, -1),
        np.rot90(RGB, 2).transpose(1, 0, 2), np.rot90(RGB),
    ][orientation - 1]  # fmt: skip
    assert np.array_equal(picture.rgb, turned)
    assert picture.exif is not None
    left = Exif()
    left.load(picture.exif)
    assert left.get(0x0112, 1) == 1
    assert left[0x010E] == "a description"


def test_colour_profile_is_kept() -> None:
    picture = read_picture(file_of(Image.fromarray(RGB), icc_profile=SRGB))
    assert picture.icc == SRGB


def test_what_is_not_kept_is_said() -> None:
    text = PngInfo()
    text.add_text("Title", "a title")
    text.add_itxt("XML:com.adobe.xmp", "<x/>")
    assert read_picture(file_of(Image.fromarray(RGB), pnginfo=text)).notes == (
        "XMP not kept", "text comments not kept",
    )  # fmt: skip
    jpeg = file_of(Image.fromarray(RGB), "JPEG", comment=b"hello")
    assert read_picture(jpeg).notes == ("text comments not kept",)
    linear = PngInfo()
    linear.add(b"gAMA", struct.pack(">I", 100_000))
    assert read_picture(file_of(Image.fromarray(RGB), pnginfo=linear)).notes == (
        "gamma of 1 not kept",
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_written_pictures_keep_everything(kind: str) -> None:
    alpha = RNG.integers(0, 256, RGB.shape[:2], np.uint8)
    exif = Exif()
    exif[0x010E] = "a description"
    picture = Picture(RGB, alpha, icc=SRGB, exif=exif.tobytes())
    data, lost = encode_picture(picture, kind)
    read = read_picture(io.BytesIO(data))
    assert lost == ()
    assert np.array_equal(read.rgb, RGB)
    assert read.alpha is not None
    assert np.array_equal(read.alpha, alpha)
    assert read.icc == SRGB
    assert read.exif is not None
    again = Exif()
    again.load(read.exif)
    assert again[0x010E] == "a description"


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "BMP", "PPM"])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_what_a_format_cannot_hold_is_said(kind: str, grey: bool, with_alpha: bool) -> None:
    alpha = RNG.integers(1, 255, RGB.shape[:2], np.uint8) if with_alpha else None
    rgb = RGB[..., :1].repeat(3, axis=2) if grey else RGB
    icc = SRGB if not grey or kind == "WEBP" else GREY_PROFILE
    data, lost = encode_picture(Picture(rgb, alpha, grey, icc=icc), kind)
    read = read_picture(io.BytesIO(data))
    assert np.array_equal(read.rgb, rgb)
    assert (read.alpha is None) == (not with_alpha or any("alpha" in word for word in lost))
    assert (read.icc is None) == any("ICC" in word for word in lost)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animations_are_refused_with_their_number_of_frames(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), (40 * i, 0, 0)) for i in range(3)]
    file = file_of(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="an animation of 3 pictures"):
        read_picture(file, name="moving")


def test_multi_page_files_are_refused() -> None:
    pages = [Image.fromarray(RGB), Image.fromarray(RGB)]
    with pytest.raises(DataError, match="multi-page file of 2 pictures"):
        read_picture(file_of(pages[0], "TIFF", save_all=True, append_images=pages[1:]))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_truncated_files_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    whole = file_of(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)), kind).getvalue()
    path = tmp_path / "cut.bin"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.bin: (damaged|not a picture)"):
        read_picture(path)


def test_other_files_and_missing_files_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "words.png"
    text.write_text("not a picture")
    with pytest.raises(DataError, match=r"words\.png: not a picture"):
        read_picture(text)
    with pytest.raises(DataError, match="no such file"):
        read_picture(tmp_path / "absent.png")


def test_read_image_drops_opaque_alpha_and_refuses_transparency() -> None:
    opaque = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    assert np.array_equal(read_image(file_of(Image.fromarray(opaque))), RGB)
    opaque[2, 2, 3] = 254
    with pytest.raises(DataError, match="transparent pixels"):
        read_image(file_of(Image.fromarray(opaque)))


def test_png_round_trip(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", RGB)
    assert np.array_equal(read_image(tmp_path / "a.png"), RGB)


def test_write_png_refuses_other_arrays(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"float64, expected \(h, w, 3\) of uint8"):
        write_png(tmp_path / "a.png", RGB.astype(float))  # type: ignore[arg-type]


def test_the_middle_has_as_much_around_it_on_every_side() -> None:
    picture = np.arange(9 * 12 * 3, dtype=np.uint8).reshape(9, 12, 3)
    np.testing.assert_array_equal(centre(picture, 5, 4), picture[2:7, 4:8])
    np.testing.assert_array_equal(centre(picture, 50, 4), picture[:, 4:8])


def test_the_crop_is_where_the_gradients_are() -> None:
    picture = np.full((300, 400, 3), 128, np.uint8)
    picture[40:140:2, 250:350] = 0
    y, x = busiest_corner(picture, side=100)
    assert (abs(y - 40) <= 1, abs(x - 250) <= 1) == (True, True)
    assert busiest_corner(picture[:50, :60], side=100) == (0, 0)
    assert crop(picture, (250, 350), side=100).shape == (50, 50, 3)
