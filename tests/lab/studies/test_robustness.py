"""Bit errors: files of equal rate, the right bits flipped, and every arm read to its end."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from linocut.codec.codec import Codec
from linocut.errors import BitstreamError, ConfigError, DataError
from linocut.lab.config.params import Chosen, RobustnessConfig, load_params
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.evaluation.rows import CLASSICAL, LEARNED, ErrorRow, read_rows
from linocut.lab.studies import robustness
from linocut.lab.studies.robustness import (
    decode_classical,
    decode_fixed,
    encode_fixed,
    flip_bits,
    header_bytes,
    jpeg_near,
    run_robustness,
)
from linocut.pictures.image import write_png
from linocut.pictures.quality import psnr_db

GOLDEN = Path(__file__).parents[2] / "golden"
PICTURE = dead_leaves(192, 224, 21)
SIZE = 12_000
CONFIG = RobustnessConfig({"l2": Chosen()}, 1, 192, 2.0, (1e-5, 1e-2), 1, (1e-2,))


@pytest.fixture(scope="module")
def codec(codec_folder):
    return Codec.load(codec_folder)


def test_flips_are_as_many_as_the_rate_says_and_spare_the_header():
    data = bytes(50_000)
    damaged, wrong = flip_bits(data, 1000, 1e-2, np.random.default_rng(0))
    assert damaged[:1000] == data[:1000]
    assert sum(byte.bit_count() for byte in damaged) == wrong
    assert wrong == pytest.approx(8 * 49_000 * 1e-2, rel=0.1)
    assert flip_bits(data, 1000, 1e-2, np.random.default_rng(0)) == (damaged, wrong)


@pytest.mark.parametrize("restart", [False, True])
def test_jpeg_files_are_the_best_that_fit(restart):
    data = jpeg_near(PICTURE, SIZE, restart=restart)
    assert 0.9 * SIZE < len(data) <= SIZE
    assert (b"\xff\xd0" in data) == restart
    with pytest.raises(DataError, match="no JPEG of this picture has 100 bytes"):
        jpeg_near(PICTURE, 100, restart=restart)


def test_headers_end_where_the_entropy_coded_data_begins():
    data = jpeg_near(PICTURE, SIZE, restart=True)
    start = robustness.classical_header_bytes(data)
    assert (
        data[start - 10 : start - 8] == b"\x03\x01"[:2] or b"\xff\xda" in data[start - 20 : start]
    )
    assert b"\xff\xd0" in data[start:]
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, "JPEG2000", no_jp2=True)
    start = robustness.classical_header_bytes(file.getvalue())
    assert file.getvalue()[start - 2 : start] == b"\xff\x93"


def test_a_classical_file_of_another_size_or_of_none_is_refused():
    data = jpeg_near(PICTURE, SIZE, restart=False)
    assert decode_classical(data, (192, 224)).shape == PICTURE.shape
    assert decode_classical(data, (192, 225)) is None
    assert decode_classical(b"nonsense" * 9, (192, 224)) is None
    assert decode_classical(data[: len(data) // 2], (192, 224)) is not None


def test_fixed_length_latents_fill_their_budget_and_come_back(codec):
    quality = []
    for size in (6_000, 12_000, 24_000):
        data = encode_fixed(codec, PICTURE, size)
        assert 0.97 * size < len(data) <= size
        quality.append(psnr_db(PICTURE, decode_fixed(codec, data, (192, 224))))
    assert quality[0] > 15
    assert quality == sorted(quality)


def test_a_wrong_bit_of_a_fixed_length_latent_stays_small(codec):
    data = encode_fixed(codec, PICTURE, SIZE)
    clean = psnr_db(PICTURE, decode_fixed(codec, data, (192, 224)))
    damaged, _ = flip_bits(data, header_bytes(codec), 1e-4, np.random.default_rng(1))
    assert psnr_db(PICTURE, decode_fixed(codec, damaged, (192, 224))) > clean - 6


def test_a_wrong_header_of_a_fixed_length_latent_is_refused(codec):
    data = encode_fixed(codec, PICTURE, SIZE)
    with pytest.raises(BitstreamError, match="header promises"):
        decode_fixed(codec, b"\xff" * 30 + data[30:], (192, 224))


def test_all_arms_are_measured_at_one_rate(codec_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(robustness, "map_in_processes", lambda f, tasks, label: list(map(f, tasks)))
    (tmp_path / "test").mkdir()
    write_png(tmp_path / "test" / "leaves.png", PICTURE)
    out = tmp_path / "out"
    run_robustness(codec_folder, tmp_path / "test", out / "cae-l2", CONFIG, 0)
    run_robustness(None, tmp_path / "test", out / "classical", CONFIG, 0)
    for cell, arms in (("cae-l2", LEARNED), ("classical", CLASSICAL)):
        rows = read_rows(out / cell / "errors.csv", ErrorRow)
        assert {row.arm for row in rows} == set(arms)
        assert len(rows) == len(arms) * (1 + 2 * 2)
        assert all(1.8 < row.bpp <= 2.0 for row in rows)
        clean = {row.arm: row.psnr_db for row in rows if row.errors_in == "none"}
        for row in rows:
            assert row.psnr_db <= clean[row.arm] + 0.5
            assert row.decoded in (0, 1)
        pictures = sorted(path.name for path in (out / cell / "pictures").glob("*.png"))
        assert pictures == sorted(
            f"leaves-{arm}-{rate}.png" for arm in arms for rate in ("0", "0.01")
        )
    rows = read_rows(out / "cae-l2" / "errors.csv", ErrorRow)
    worst = {row.arm: row for row in rows if row.errors_in == "payload" and row.ber == 1e-2}
    assert worst["resilient"].decoded == 1
    assert worst["resilient"].concealed > 0


def test_a_model_that_fits_rotations_to_pictures_has_no_arm_of_fixed_length():
    codec = Codec.load(GOLDEN / "personal")
    arms = robustness.learned_arms(codec, PICTURE, SIZE)
    assert [arm.name for arm in arms] == ["lino", "resilient"]
    for arm in arms:
        picture, lost = arm.decode(arm.data)
        assert picture.shape == PICTURE.shape
        assert lost == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [({"rates": (1e-3, 1e-4)}, "numbers that rise"), ({"shown": (0.5,)}, "expected some of")],
)
def test_impossible_rates_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        RobustnessConfig(**{**vars(CONFIG), **change})


def test_the_default_measures_every_decade_that_is_asked_for():
    rates = load_params(Path(__file__).resolve().parents[3] / "params.yaml").robustness.rates
    assert [round(np.log10(rate)) for rate in rates] == [-6, -5, -4, -3, -2]
