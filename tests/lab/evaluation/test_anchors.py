"""Reference codecs: their settings, their files, and their curves on the Kodak pictures."""

from __future__ import annotations

import json
import os
from importlib import resources
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from linocut.errors import DataError
from linocut.lab.config.params import AnchorsConfig
from linocut.lab.evaluation.anchors import ANCHORS, decode, encode, encode_near, ladder, run_anchors
from linocut.lab.evaluation.rows import AnchorRow, read_rows
from linocut.pictures.image import read_image, write_png
from linocut.pictures.quality import psnr_db, ssimulacra2

Rgb = NDArray[np.uint8]

MEASURED = {
    "jpeg": "MEASURED JPEG 4:2:0 progressive+optimize (Pillow 13.0.0)",
    "jpeg2000": "MEASURED J2K 9/7 + MCT (Pillow 13.0.0)",
    "webp": "MEASURED WebP m6 (Pillow 13.0.0)",
    "avif_420": "MEASURED AVIF 4:2:0 speed6 (Pillow 13.0.0)",
    "avif_444": "MEASURED AVIF 4:4:4 speed6 (Pillow 13.0.0)",
}


@pytest.fixture(scope="module")
def photo() -> Rgb:
    return np.ascontiguousarray(skimage.data.astronaut()[:181, 100:301])


@pytest.mark.parametrize("codec", ANCHORS)
def test_more_rate_buys_more_quality(codec: str, photo: Rgb) -> None:
    files = [encode(codec, photo, setting) for setting in ladder(codec, 3)]
    assert all(len(one) < len(two) for one, two in pairwise(files))
    decoded = [decode(file) for file in files]
    assert {picture.shape for picture in decoded} == {photo.shape}
    quality = [psnr_db(photo, picture) for picture in decoded]
    assert quality == sorted(quality)


def test_ladders_keep_both_ends_and_rise() -> None:
    assert ladder("jpeg", 2) == (5, 95)
    assert ladder("jpeg2000", 100) == ANCHORS["jpeg2000"].ladder
    for codec, anchor in ANCHORS.items():
        picked = ladder(codec, 9)
        assert len(picked) == len(set(picked)) == 9
        assert (picked[0], picked[-1]) == (anchor.ladder[0], anchor.ladder[-1])


def test_jpeg_is_progressive_4_2_0_with_optimised_tables(photo: Rgb) -> None:
    data = encode("jpeg", photo, 60)
    opened = Image.open(BytesIO(data))
    assert opened.info.get("progressive")
    assert [component[1:3] for component in opened.layer] == [(2, 2), (1, 1), (1, 1)]
    plain = BytesIO()
    Image.fromarray(photo).save(plain, format="JPEG", quality=60)
    assert len(data) < len(plain.getvalue())


def test_jpeg_2000_is_a_bare_codestream_with_9_7_wavelet_and_colour_transform(photo: Rgb) -> None:
    data = encode("jpeg2000", photo, 40)
    assert data[:4] == b"\xff\x4f\xff\x51"
    cod = data.index(b"\xff\x52")
    assert data[cod + 8] == 1  # multiple component transform
    assert data[cod + 13] == 0  # irreversible 9/7
    default = BytesIO()
    Image.fromarray(photo).save(default, "JPEG2000", quality_mode="rates", quality_layers=[40])
    gain_db = psnr_db(photo, decode(data)) - psnr_db(photo, decode(default.getvalue()))
    assert gain_db > 1.5


@pytest.mark.parametrize("codec", ["avif_420", "avif_444"])
def test_avif_is_written_on_one_thread(codec: str) -> None:
    """Pillow would take all cores of the machine, and two cores give another file."""
    options = ANCHORS[codec].options(50, 6)
    assert options["max_threads"] == 1
    assert options["subsampling"].replace(":", "") == codec[-3:]


def test_jpeg_xl_is_a_bare_codestream_that_serves_eyes_better_than_jpeg(photo: Rgb) -> None:
    data = encode("jpegxl", photo, 20)
    assert data[:2] == b"\xff\x0a"
    assert decode(data).dtype == np.uint8
    near = encode_near("jpeg", photo, len(data))
    assert ssimulacra2(photo, decode(data)) > ssimulacra2(photo, decode(near)) + 10


@pytest.mark.parametrize("codec", ["jpeg", "jpeg2000", "avif_444", "jpegxl"])
def test_a_file_near_a_size_is_near_it(codec: str, photo: Rgb) -> None:
    target = 4000
    data = encode_near(codec, photo, target, avif_speed=10)
    assert abs(len(data) - target) < 0.1 * target


def test_every_picture_codec_and_setting_becomes_a_row(
    tmp_path: Path, photo: Rgb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINOCUT_WORKERS", "1")
    (tmp_path / "test").mkdir()
    write_png(tmp_path / "test" / "one.png", photo)
    write_png(tmp_path / "test" / "two.png", photo[:170, ::-1])
    run_anchors(tmp_path / "test", tmp_path / "out", AnchorsConfig(("jpeg", "avif_420"), 3, 10))
    rows = read_rows(tmp_path / "out" / "anchors.csv", AnchorRow)
    expected = {
        (codec, picture, setting)
        for codec in ("jpeg", "avif_420")
        for picture in ("one", "two")
        for setting in ladder(codec, 3)
    }
    assert {(row.codec, row.picture, row.setting) for row in rows} == expected
    assert len(rows) == len(expected)
    for row in rows:
        pixels = photo.shape[1] * (181 if row.picture == "one" else 170)
        assert row.bpp == pytest.approx(8 * row.bytes / pixels)
        assert 0.5 < row.ms_ssim < 1
        assert row.ssimulacra2 < 100
    header = (tmp_path / "out" / "anchors.csv").read_text().splitlines()[0]
    assert (
        header
        == "codec,picture,setting,bytes,bpp,psnr_db,ssim,ms_ssim,ssimulacra2,encode_s,decode_s"
    )
    recorded = json.loads((tmp_path / "out" / "versions.json").read_text())
    assert set(recorded) == {"pillow", "jpeg", "avif_420"}
    assert "aom" in recorded["avif_420"]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no PNG"):
        run_anchors(tmp_path, tmp_path / "out", AnchorsConfig(("jpeg",), 2, 10))


def published() -> dict[str, dict[str, Any]]:
    file = resources.files("linocut.lab.evaluation") / "kodak_curves.json"
    return dict(json.loads(file.read_text(encoding="utf-8")))


def test_every_published_curve_names_its_source_and_rises() -> None:
    for name, curve in published().items():
        assert len(curve["source"]) > 20, name
        assert curve["bpp"] == sorted(curve["bpp"]), name
        for metric in ("psnr_db", "ms_ssim"):
            assert len(curve.get(metric, curve["bpp"])) == len(curve["bpp"]), name


@pytest.mark.slow
@pytest.mark.parametrize("codec", MEASURED)
def test_kodak_curve_lies_within_one_per_cent_of_the_measured_one(codec: str) -> None:
    """One setting of each curve; `make verify` compares all of them where Kodak is the test set."""
    folder = os.environ.get("LINOCUT_KODAK")
    if not folder:
        pytest.skip("LINOCUT_KODAK does not name a folder with the 24 Kodak pictures")
    curve = published()[MEASURED[codec]]
    index = len(curve["settings"]) // 4
    pictures = [read_image(path) for path in sorted(Path(folder).glob("kodim*.png"))]
    files = [encode(codec, picture, curve["settings"][index]) for picture in pictures]
    bpp = [8 * len(file) / (512 * 768) for file in files]
    quality = [psnr_db(one, decode(two)) for one, two in zip(pictures, files, strict=True)]
    assert len(pictures) == 24
    assert np.mean(bpp) == pytest.approx(curve["bpp"][index], rel=0.01)
    assert np.mean(quality) == pytest.approx(curve["psnr_db"][index], abs=0.05)
