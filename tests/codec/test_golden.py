"""Version 1 is frozen: files written once decode to the same symbols and pixels for ever.

A failure here means that the format or the meaning of a model has changed. The files are never
written again; see docs/bitstream.md.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import reference_decoder
import reference_synthesis
from linocut.codec.codec import Codec
from linocut.codec.picture_files import decompress_picture
from linocut.errors import BitstreamError
from linocut.format.bitstream import unpack
from linocut.models import folders
from linocut.pictures.image import read_image

GOLDEN = Path(__file__).parents[1] / "golden"
DIGESTS = json.loads((GOLDEN / "symbols.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def codecs():
    return {name: Codec.load(GOLDEN / name) for name in ("wavelet", "personal")}


def folder_of(name):
    return GOLDEN / name.split("-")[0]


def data_of(name):
    return (GOLDEN / f"{name}.lino").read_bytes()


def digest(planes):
    """Of symbols as 16-bit little-endian numbers."""
    sums = hashlib.sha256()
    for plane in planes:
        sums.update(np.asarray(plane).astype("<i2").tobytes())
    return sums.hexdigest()


def test_every_golden_file_has_a_digest():
    assert {path.stem for path in GOLDEN.glob("*.lino")} == set(DIGESTS)


@pytest.mark.parametrize("name", DIGESTS)
def test_symbols_are_exactly_those_written_down(codecs, name):
    tiles = codecs[folder_of(name).name].decode_symbols(data_of(name))
    assert digest(band for tile in tiles for band in tile) == DIGESTS[name]


@pytest.mark.parametrize("name", DIGESTS)
def test_the_second_decoder_agrees(name):
    tiles = reference_decoder.decode(data_of(name), folder_of(name))
    assert digest(plane for tile in tiles for plane in tile) == DIGESTS[name]


@pytest.mark.parametrize("name", DIGESTS)
def test_pixels_are_those_written_down_but_for_the_last_bit(codecs, name):
    decoded = codecs[folder_of(name).name].decompress(data_of(name))
    expected = read_image(GOLDEN / f"{name}.png")
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("name", [name for name in DIGESTS if "resilient" not in name])
def test_the_second_decoder_finds_these_pixels_too(name):
    decoded = reference_synthesis.picture(data_of(name), folder_of(name))
    expected = read_image(GOLDEN / f"{name}.png")
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("name", ["cae-eyes", "generative-l2", "cae2018-l2"])
def test_the_second_decoder_reads_files_of_shipped_networks(name):
    picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    picture = picture.repeat(16, axis=0).repeat(16, axis=1)
    codec = Codec.load(name)
    data = codec.compress(picture, step=20.0)
    decoded = reference_synthesis.picture(data, folders.folder_of(name))
    assert np.abs(decoded.astype(int) - codec.decompress(data)).max() <= 1
    assert np.abs(decoded.astype(int) - picture).mean() < 8


def test_blocks_of_a_golden_file_are_read(codecs):
    picture = decompress_picture(codecs["wavelet"], data_of("wavelet-blocks"))
    rows, columns = np.arange(16)[:, None], np.arange(18)[None]
    np.testing.assert_array_equal(picture.alpha, rows * 10 + columns * 3)
    assert (picture.icc, picture.exif, picture.grey) == (b"not a profile", b"Exif", True)
    assert unpack(data_of("wavelet-blocks")).extras[200] == b"a block of the future"


def test_a_golden_lossless_file_decodes_to_every_sample_without_a_model():
    data = (GOLDEN / "lossless" / "page.lino").read_bytes()
    expected = read_image(GOLDEN / "lossless" / "page.png")
    picture = decompress_picture(None, data)
    np.testing.assert_array_equal(picture.rgb, expected)
    np.testing.assert_array_equal(picture.alpha, np.add.outer(np.arange(21), np.arange(34)) + 1)
    np.testing.assert_array_equal(reference_decoder.lossless(data), expected)


def test_golden_files_name_their_model(codecs):
    for name in DIGESTS:
        assert unpack(data_of(name)).model_id.hex() == codecs[folder_of(name).name].model_id
    with pytest.raises(BitstreamError, match="the file was made by model"):
        codecs["personal"].decompress(data_of("wavelet-odd"))
