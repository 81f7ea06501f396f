"""The measurements of speed run, and their parts add up."""

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from linocut.codec.codec import Codec
from linocut.entropy.choice import DEFAULT_EFFORT, EFFORTS
from linocut.lab.config.params import load_params
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.evaluation.anchors import ANCHORS
from linocut.lab.evaluation.rd import PictureCurves
from linocut.lab.networks.store import load_model
from linocut.lab.training.recipes import generator_of
from linocut.models.folders import folder_of
from linocut.pictures.image import read_image, write_png
from readme_blocks import block
from tiny import OPTIONS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import (
    beside_classical,
    codec_speed,
    compare_models,
    effort_levels,
    large_pictures,
    middles,
    perception_plane,
    throughput,
)

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
        params, arch=OPTIONS, train=train, grid=dataclasses.replace(params.grid, arch=(*OPTIONS,))
    )
    device = torch.device("cpu")
    frozen, joint = throughput.measure(small, "generative", device, 0.0)
    assert (frozen.phase, joint.phase) == ("frozen", "joint")
    assert frozen.flop_per_pixel < joint.flop_per_pixel
    assert min(frozen.pixels_per_s, joint.pixels_per_s) > 0


def test_codecs_stand_side_by_side_at_one_size(capsys, tmp_path):
    write_png(tmp_path / "leaves.png", dead_leaves(176, 168, 0))
    options = ["--models", str(GOLDEN / "wavelet"), "--pictures", str(tmp_path / "leaves.png")]
    assert beside_classical.main([*options, "--bpp", "1.5"]) == 0
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in capsys.readouterr().out.splitlines()
    ]
    assert rows[0] == list(beside_classical.HEAD)
    names = [row[0] for row in rows[2:]]
    assert names[1:] == [anchor.title for anchor in ANCHORS.values()]
    rates = [float(row[2]) for row in rows[2:]]
    assert rates[0] == pytest.approx(1.5, rel=0.02)
    assert max(abs(rate / rates[0] - 1) for rate in rates) < 0.06
    assert all(float(row[3]) > 15 for row in rows[2:])


def test_the_page_holds_the_table_that_readme_repeats():
    assert block(beside_classical.page("| a |", ["one", "two"]), "table") == "| a |"


def test_costs_of_a_process_are_measured_with_its_memory():
    cost = large_pictures.cost_of(["--help"])
    assert 0 < cost.seconds < 60
    assert 5 < cost.mebibytes < 2000


def test_a_seam_shows_in_the_error_along_the_borders(tmp_path):
    large_pictures.write_mosaic(tmp_path / "a.png", 1100, 1700)
    picture = read_image(tmp_path / "a.png")
    assert picture.shape == (1100, 1700, 3)
    write_png(tmp_path / "a.png", np.clip(picture, 60, 190))
    noise = np.random.default_rng(0).integers(-9, 10, picture.shape)
    noisy = (np.clip(picture, 60, 190) + noise).astype(np.uint8)
    for height in (0, 40):
        noisy[:, 1022:1026] += np.uint8(height)
        write_png(tmp_path / "b.png", noisy)
        borders, elsewhere = large_pictures.seam_psnr_db(tmp_path / "a.png", tmp_path / "b.png")
        assert (borders < elsewhere - 3) == (height > 0)
    write_png(tmp_path / "small.png", picture[:64, :64])
    assert large_pictures.seam_psnr_db(tmp_path / "small.png", tmp_path / "small.png") is None


def test_effort_levels_are_measured_against_the_default(tmp_path, capsys):
    paths = []
    for seed in range(2):
        paths.append(tmp_path / f"{seed}.png")
        write_png(paths[-1], dead_leaves(176, 192, seed))
    options = ["--models", str(GOLDEN / "wavelet"), "--steps", "12", "40", "90", "--pictures"]
    assert effort_levels.main([*options, *map(str, paths)]) == 0
    head, rule, *rows = capsys.readouterr().out.splitlines()
    assert head.count("|") == rule.count("|")
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [int(row[1]) for row in cells] == list(EFFORTS)
    by_effort = {int(row[1]): row for row in cells}
    assert by_effort[DEFAULT_EFFORT][2:] == ["+0.0 [+0.0, +0.0]", "+0.0 [+0.0, +0.0]", "1.00"]
    assert float(by_effort[0][2].split()[0]) > 2.0  # plain rounding costs bits
    assert float(by_effort[3][4]) > 2.0  # refinement costs time


def test_models_are_measured_against_the_first(tmp_path, capsys):
    paths = []
    for seed in range(2):
        paths.append(str(tmp_path / f"{seed}.png"))
        write_png(paths[-1], dead_leaves(176, 192, seed))
    options = ["cae-l2", "cae-ms_ssim", "--steps", "5", "12", "30", "80", "--pictures", *paths]
    assert compare_models.main(options) == 0
    head, rule, first, second = capsys.readouterr().out.splitlines()
    assert head.count("|") == rule.count("|") == first.count("|") == second.count("|")
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (first, second)]
    assert cells[0][2:] == 5 * ["+0.0 [+0.0, +0.0]"]
    psnr, absolute, _, ms_ssim, _ = (float(cell.split()[0]) for cell in cells[1][2:])
    assert min(psnr, absolute) > 5.0  # what a network for MS-SSIM pays in pixels
    assert ms_ssim < -5.0


def test_models_are_measured_against_a_classical_codec(tmp_path, capsys):
    path = str(tmp_path / "a.png")
    write_png(path, dead_leaves(192, 208, 0))
    options = ["jpeg2000", "jpeg", "cae-l2", "--steps", "8", "30", "110", "--pictures", path]
    assert compare_models.main(options) == 0
    _, _, anchor, jpeg, ours = capsys.readouterr().out.splitlines()
    assert "+0.0 [+0.0, +0.0]" in anchor
    assert float(jpeg.split("|")[3].split()[0]) > 10.0
    assert float(ours.split("|")[3].split()[0]) < -5.0


def test_a_curve_that_does_not_rise_leaves_the_other_measures(capsys):
    bpp = np.array([[0.2, 0.5, 1.0]])
    rising = PictureCurves(("a",), bpp, np.array([[30.0, 34.0, 38.0]]))
    falling = PictureCurves(("a",), bpp, np.array([[30.0, 34.0, 33.0]]))
    row = compare_models.line("model", 5 * [rising], [falling, *4 * [rising]])
    assert [cell.strip() for cell in row.split("|")[3:8]] == ["-", *4 * ["+0.0 [+0.0, +0.0]"]]
    assert "model, PSNR: test curve does not rise" in capsys.readouterr().err


def test_the_plane_goes_from_the_plain_decoder_to_the_adversarial_one(tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    for seed in range(2):
        write_png(tmp_path / "pictures" / f"{seed}.png", dead_leaves(96, 112, seed))
    options = ["cae-l2", "generative-l2", "--steps", "96", "24", "--shares", "0.5", "1"]
    places = ["--pictures", str(tmp_path / "pictures"), "--out", str(tmp_path / "out")]
    assert perception_plane.main([*options, *places]) == 0
    head, rule, *rows = capsys.readouterr().out.splitlines()
    assert head.count("|") == rule.count("|") == rows[0].count("|")
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[1] for row in cells] == 2 * ["plain", "0.5", "1"]
    assert float(cells[0][0]) < float(cells[3][0])  # the coarser step first
    for _, group in perception_plane.table_of(tmp_path / "out").groupby("point"):
        assert group["psnr_db"].iloc[0] > group["psnr_db"].iloc[-1]  # what the adversary costs
        assert group["psnr_db"].nunique() == len(group)
    assert (tmp_path / "out" / "plane.png").stat().st_size > 10_000
    ends = [load_model(folder_of(name)) for name in ("cae-l2", "generative-l2")]
    way = perception_plane.between(generator_of(ends[0]), generator_of(ends[1]), 1.0)
    for name, value in generator_of(ends[1]).named_parameters():
        if name.startswith("synthesis_net"):
            assert torch.allclose(way.state_dict()[name], value, atol=1e-6), name


def test_the_plane_has_several_trained_decoders_under_the_names_of_their_folders(tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    write_png(tmp_path / "pictures" / "a.png", dead_leaves(96, 112, 0))
    for name, shipped in (("0.1", "generative-l2"), ("0.4", "generative-l1")):
        shutil.copytree(folder_of(shipped), tmp_path / name)
    trained = [str(tmp_path / name) for name in ("0.1", "0.4")]
    places = ["--pictures", str(tmp_path / "pictures"), "--out", str(tmp_path / "out")]
    assert perception_plane.main(["cae-l2", *trained, "--steps", "48", *places]) == 0
    cells = [row.strip("|").split("|") for row in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1].strip() for row in cells] == ["plain", "0.1", "0.4"]
    assert len({row[2] for row in cells}) == 3  # three decoders, not one thrice
    assert perception_plane.main(["cae-l2", trained[0], trained[0], *places]) == 1
    (tmp_path / "0.4").rename(tmp_path / "plain")
    assert perception_plane.main(["cae-l2", trained[0], str(tmp_path / "plain"), *places]) == 1
    assert capsys.readouterr().err.count("\n") == 2


def test_a_model_that_is_none_is_one_line(tmp_path, capsys):
    write_png(tmp_path / "a.png", dead_leaves(64, 64, 0))
    with pytest.raises(SystemExit):
        compare_models.main(["zzz", "--pictures", str(tmp_path / "a.png")])
    assert "'zzz' is neither a folder" in capsys.readouterr().err


def test_middles_are_of_the_fourth_picture_and_of_one_in_so_many(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for number in range(9):
        write_png(tmp_path / "in" / f"{number}.png", dead_leaves(40, 50, number))
    options = ["--every", "5", "--size", "32", "--out", str(tmp_path / "out")]
    assert middles.main([str(tmp_path / "in"), *options]) == 0
    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == ["3.png", "8.png"]
    assert (read_image(written[0]) == dead_leaves(40, 50, 3)[4:36, 9:41]).all()
    with pytest.raises(SystemExit):
        middles.main([str(tmp_path / "none"), *options])
    assert "not a folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        middles.main([str(tmp_path / "out"), *options])  # two pictures, and no fourth
    assert "fewer than 4 pictures" in capsys.readouterr().err
