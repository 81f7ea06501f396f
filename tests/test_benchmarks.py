"""The measurements of speed run, and their parts add up."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from linocut.codec import Codec
from linocut.config import load_params
from linocut.dead_leaves import dead_leaves
from linocut.image import write_png
from linocut.rate_distortion import EFFORTS
from tiny import CONFIGS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import codec_speed, throughput

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"


@pytest.mark.parametrize("name", ["wavelet", "personal"])
def test_parts_of_both_directions_add_up(name):
    codec, picture = Codec.load(GOLDEN / name), dead_leaves(48, 40, 0)
    rows, data, decoded = codec_speed.measure(codec, picture, 10.0, 1, 1)
    assert list(rows) == ["compress", "decompress"]
    for seconds in rows.values():
        assert sum(seconds[part] for part in codec_speed.PARTS) == pytest.approx(seconds["total"])
        assert min(seconds["network"], seconds["rotation"], seconds["coding"]) > 0
    assert rows["compress"]["choice"] > 0
    assert rows["decompress"]["choice"] == 0
    assert (codec.decompress(data) == decoded).all()


def test_the_table_has_a_line_for_every_codec_and_direction(capsys, tmp_path):
    write_png(tmp_path / "leaves.png", dead_leaves(64, 64, 0))
    options = ["--model", str(GOLDEN / "wavelet"), "--repeats", "1"]
    assert codec_speed.main([*options, "--picture", str(tmp_path / "leaves.png")]) == 0
    lines = capsys.readouterr().out.splitlines()[3:]
    names = [line[:24].split("(")[0].strip() for line in lines]
    assert names == len(EFFORTS) * ["compress", "decompress"] + [
        f"{codec} {part}" for codec in ("AVIF", "JPEG 2000") for part in ("compress", "decompress")
    ]


def test_throughput_counts_pixels_and_operations_of_both_phases():
    params = load_params(ROOT / "params.yaml")
    base = dataclasses.replace(params.train.base, batch_size=1, crop_px=64)
    train = dataclasses.replace(params.train, base=base)
    small = dataclasses.replace(
        params, arch=CONFIGS, train=train, grid=dataclasses.replace(params.grid, arch=(*CONFIGS,))
    )
    device = torch.device("cpu")
    frozen, joint = throughput.measure(small, "generative", device, 0.0)
    assert (frozen.phase, joint.phase) == ("frozen", "joint")
    assert frozen.flop_per_pixel < joint.flop_per_pixel
    assert min(frozen.pixels_per_s, joint.pixels_per_s) > 0
