"""A whole picture goes through a .lino file: any size, any mode, with everything it carries."""

from __future__ import annotations

import numpy as np
import pytest

import reference_decoder
from linocut.codec import picture_files
from linocut.codec.codec import Codec
from linocut.codec.picture_files import (
    MOST_METADATA_BYTES,
    Target,
    compress_picture,
    decompress_picture,
    describe_file,
    metadata,
)
from linocut.codec.rate_control import quality_step
from linocut.errors import BitstreamError, ConfigError
from linocut.format import bitstream
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.pictures.image import Picture
from linocut.pictures.image import RgbArray as Rgb
from linocut.pictures.quality import psnr_db

RNG = np.random.default_rng(0)
LEAVES = dead_leaves(60, 90, seed=4)


@pytest.fixture(scope="module")
def codec(codec_folder):
    return Codec.load(codec_folder, threads=1)


def compressed(codec: Codec, picture: Picture, kind: str = "quality", value: float = 60) -> bytes:
    data, lost = compress_picture(codec, picture, Target(kind, value))
    assert lost == ()
    return data


@pytest.mark.parametrize("with_alpha", [False, True])
@pytest.mark.parametrize("grey", [False, True])
def test_colour_grey_and_alpha_survive(codec: Codec, grey: bool, with_alpha: bool) -> None:
    rgb = LEAVES[..., :1].repeat(3, axis=2) if grey else LEAVES
    alpha = RNG.integers(0, 256, rgb.shape[:2], np.uint8) if with_alpha else None
    picture = Picture(rgb, alpha, grey, b"a profile", b"some exif")
    decoded = decompress_picture(codec, compressed(codec, picture))
    assert psnr_db(rgb, decoded.rgb) > 25
    assert decoded.grey == grey
    assert (decoded.icc, decoded.exif) == (b"a profile", b"some exif")
    if grey:
        assert np.array_equal(decoded.rgb[..., 0], decoded.rgb[..., 2])
    if with_alpha:
        assert decoded.alpha is not None
        assert np.array_equal(decoded.alpha, alpha)
    else:
        assert decoded.alpha is None


def test_metadata_can_be_left_out(codec: Codec) -> None:
    picture = Picture(LEAVES, icc=b"a profile", exif=b"some exif")
    data, _ = compress_picture(codec, picture, Target("quality", 30), strip=True)
    assert data == compressed(codec, Picture(LEAVES), value=30)


def test_metadata_beyond_the_limit_is_dropped_and_said(codec: Codec) -> None:
    picture = Picture(LEAVES, icc=bytes(MOST_METADATA_BYTES + 1), exif=b"some exif")
    data, lost = compress_picture(codec, picture, Target("quality", 30))
    assert lost == (f"ICC profile of {MOST_METADATA_BYTES + 1} bytes dropped",)
    assert decompress_picture(codec, data).icc is None


def test_every_side_from_1_to_40_survives_in_both_directions(codec: Codec) -> None:
    for height in range(1, 41):
        width = height * 7 % 41  # every width once, far from and near to the height
        data = compressed(codec, Picture(LEAVES[:height, :width]))
        assert decompress_picture(codec, data).rgb.shape == (height, width, 3)


@pytest.mark.parametrize("bpp", [1.5, 4.0])
def test_the_rate_asked_for_is_kept_with_everything_counted(codec: Codec, bpp: float) -> None:
    picture = Picture(LEAVES, exif=bytes(range(100)))
    found = 8 * len(compressed(codec, picture, "bpp", bpp)) / (60 * 90)
    assert 0.93 * bpp < found <= bpp


def test_the_size_asked_for_is_kept(codec: Codec) -> None:
    assert 2000 * 0.93 < len(compressed(codec, Picture(LEAVES), "max_bytes", 2000)) <= 2000
    with pytest.raises(ConfigError, match=r"smallest file of this model has \d+ bytes, not 20"):
        compressed(codec, Picture(LEAVES), "max_bytes", 20)


def test_the_psnr_asked_for_is_reached_by_the_decoder(codec: Codec) -> None:
    decoded = decompress_picture(codec, compressed(codec, Picture(LEAVES), "psnr", 30))
    assert 30 <= psnr_db(LEAVES, decoded.rgb) < 30.5


def test_higher_quality_gives_larger_files(codec: Codec) -> None:
    sizes = [len(compressed(codec, Picture(LEAVES), value=q)) for q in (1, 20, 40, 60, 80, 100)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == len(sizes)


def test_the_description_adds_up(codec: Codec) -> None:
    alpha = np.full(LEAVES.shape[:2], 7, np.uint8)
    data = compressed(codec, Picture(LEAVES, alpha, icc=b"profile"), value=40)
    facts = describe_file(data)
    assert (facts["width"], facts["height"], facts["bytes"]) == (90, 60, len(data))
    assert facts["quality"] == pytest.approx(40, abs=0.2)
    assert facts["model_id"] == codec.model_id
    assert facts["alpha_bytes"] == 2
    assert facts["icc_bytes"] > 0
    assert facts["payload_bytes"] < len(data)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (b"", "claims 0 bytes"),
        (b"\xff\xff\xff\xff", "claims 4294967295 bytes"),
        (b"\1\0\0\0nozlib", "damaged"),
        (b"\1\0\0\0x", "does not hold exactly"),
    ],
)
def test_damaged_metadata_is_refused(block: bytes, message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        metadata({bitstream.ICC_PROFILE: block})


def test_resilient_files_lose_metadata_before_pixels(codec: Codec) -> None:
    picture = Picture(LEAVES, icc=b"profile" * 9)
    data, _ = compress_picture(codec, picture, Target("quality", 60), effort=1, resilient=True)
    assert decompress_picture(codec, data).icc == picture.icc
    start = bitstream.header_bytes(data)
    wrong = data[:start] + bytes(60) + data[start + 60 :]
    found = decompress_picture(codec, wrong)
    assert found.icc is None
    assert found.notes == ("lost: ICC profile",)
    np.testing.assert_array_equal(found.rgb, decompress_picture(codec, data).rgb)


def test_the_rate_asked_for_includes_the_protection(codec: Codec) -> None:
    data, _ = compress_picture(codec, Picture(LEAVES), Target("max_bytes", 2500), resilient=True)
    assert 2000 < len(data) <= 2500


def drawing(height: int = 96, width: int = 128) -> Rgb:
    """Boxes and lines of a few colours, as in a screenshot."""
    page = np.full((height, width, 3), 250, np.uint8)
    for y in range(4, height - 12, 16):
        page[y : y + 9, 8 + y % 7 : width - y % 31 : 3] = (30, 40, 60)
    page[: height // 3, : width // 4] = (200, 80, 60)
    return page


@pytest.mark.parametrize("kind", ["quality", "psnr", "bpp", "max_bytes"])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_a_screenshot_is_kept_exactly_where_that_is_smaller(
    codec: Codec, kind: str, with_alpha: bool
) -> None:
    value = {"quality": 60, "psnr": 35, "bpp": 1.5, "max_bytes": 2000}[kind]
    alpha = np.add.outer(np.arange(96), np.arange(1, 129)).astype(np.uint8) if with_alpha else None
    picture = Picture(drawing(), alpha, False, b"a profile", b"some exif")
    data = compressed(codec, picture, kind, value)
    facts = describe_file(data)
    assert (facts["lossless"], facts["step"], facts["model_id"]) == (True, None, None)
    assert len(data) < len(codec.compress(drawing(), step=quality_step(60)))
    for reader in (codec, None):
        decoded = decompress_picture(reader, data)
        assert np.array_equal(decoded.rgb, picture.rgb)
        assert (decoded.icc, decoded.exif) == (b"a profile", b"some exif")
        assert (decoded.alpha is None) == (alpha is None)
        assert alpha is None or np.array_equal(decoded.alpha, alpha)
    assert np.array_equal(codec.decompress(data), picture.rgb)


def test_the_second_decoder_finds_the_same_exact_picture(codec: Codec) -> None:
    data = compressed(codec, Picture(drawing()))
    assert np.array_equal(reference_decoder.lossless(data), drawing())


def test_a_grey_screenshot_stays_grey(codec: Codec) -> None:
    grey = drawing()[..., :1].repeat(3, axis=2)
    decoded = decompress_picture(None, compressed(codec, Picture(grey, None, True)))
    assert decoded.grey
    assert np.array_equal(decoded.rgb, grey)


def test_photographs_are_not_even_tried(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = np.clip(dead_leaves(80, 90, 4) + RNG.normal(0, 4, (80, 90, 3)), 0, 255)
    monkeypatch.setattr(picture_files, "pack_lossless", lambda rgb: pytest.fail("was tried"))
    data = compressed(codec, Picture(noisy.astype(np.uint8)))
    assert not describe_file(data)["lossless"]


def test_a_limit_that_a_photograph_meets_exactly_is_met_exactly(codec: Codec) -> None:
    data = compressed(codec, Picture(LEAVES), "bpp", 24)
    assert np.array_equal(decompress_picture(codec, data).rgb, LEAVES)


def test_a_psnr_beyond_the_network_is_reached_without_loss(codec: Codec) -> None:
    data = compressed(codec, Picture(LEAVES), "psnr", 70)
    assert np.array_equal(decompress_picture(codec, data).rgb, LEAVES)
    with pytest.raises(ConfigError, match="best file of this model"):
        compress_picture(codec, Picture(LEAVES), Target("psnr", 70), resilient=True)


def test_a_resilient_file_is_never_lossless(codec: Codec) -> None:
    data, _ = compress_picture(codec, Picture(drawing()), Target("quality", 90), resilient=True)
    assert not describe_file(data)["lossless"]


@pytest.mark.parametrize("flat", [False, True])
def test_invisible_pixels_cost_next_to_nothing(codec: Codec, flat: bool) -> None:
    colours = drawing(120, 160) if flat else dead_leaves(120, 160, 4)
    alpha = np.zeros((120, 160), np.uint8)
    alpha[40:80, 50:110] = 255
    noise = np.where(alpha[..., None] > 0, colours, RNG.integers(0, 256, colours.shape, np.uint8))
    black = np.where(alpha[..., None] > 0, colours, 0).astype(np.uint8)
    data = compressed(codec, Picture(noise, alpha))
    assert 5 * len(data) < len(codec.compress(noise, step=quality_step(60)))
    assert len(data) <= len(compressed(codec, Picture(black, alpha)))
    assert describe_file(data)["lossless"] == flat
    decoded = decompress_picture(codec, data)
    seen = alpha > 0
    assert psnr_db(colours[seen][None], decoded.rgb[seen][None]) > 25


def test_the_psnr_asked_for_is_that_of_visible_pixels(codec: Codec) -> None:
    alpha = np.full(LEAVES.shape[:2], 255, np.uint8)
    alpha[:, 50:] = 0
    noise = LEAVES.copy()
    noise[:, 50:] = RNG.integers(0, 256, (60, 40, 3), np.uint8)
    data = compressed(codec, Picture(noise, alpha), "psnr", 33)
    assert len(data) < len(compressed(codec, Picture(LEAVES), "psnr", 33))
