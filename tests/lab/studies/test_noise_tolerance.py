"""Noise at the input of codecs, at a fixed rate."""

import pathlib

from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.studies.noise_tolerance import noise_tolerance
from linocut.pictures.image import write_png


def test_every_codec_gets_the_same_noise_and_the_same_bytes(
    codec_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    picture = tmp_path / "leaves.png"
    write_png(picture, dead_leaves(96, 96, 0))
    rows = noise_tolerance({"small": codec_folder}, [picture], (0.0, 30.0), bpp=1.5, seed=0)
    assert [(row.codec, row.sigma) for row in rows] == [
        ("JPEG 2000", 0.0),
        ("small", 0.0),
        ("JPEG 2000", 30.0),
        ("small", 30.0),
    ]
    assert all(row.bpp < 1.65 for row in rows), [row.bpp for row in rows]
    assert rows[2].input_psnr_db == rows[3].input_psnr_db < 20
    assert all(clean.psnr_db > noisy.psnr_db for clean, noisy in zip(rows, rows[2:], strict=False))
