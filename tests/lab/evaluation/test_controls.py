"""The controls are codecs of their own: without networks, and without contexts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from linocut.codec.codec import Codec
from linocut.lab.config.params import CodeConfig, CompareConfig, TuningConfig
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.evaluation import controls
from linocut.lab.evaluation.rows import CONTROLS, EvaluationRow, read_rows
from linocut.lab.networks.store import load_model, round_to_half
from linocut.models import folders
from linocut.pictures.image import write_png

CONFIG = CodeConfig(
    rates_bpp=(0.3, 1.2),
    effort=0,
    contexts="release",
    context_iterations=10,
    crops=2,
    tuning=TuningConfig(0.0, 2, 2, 1e-3),
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """controls/ of one small picture."""
    root = tmp_path_factory.mktemp("controls")
    for split, seed in (("validation", 1), ("test", 2)):
        (root / split).mkdir()
        write_png(root / split / "leaves.png", dead_leaves(96, 96, seed))
    np.save(root / "train.npy", np.stack([dead_leaves(64, 64, seed) for seed in range(4)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "CROPS", 4)
        patch.setenv("LINOCUT_WORKERS", "1")
        shown = CompareConfig(bootstrap_draws=10, shown_pictures=0, shown_bpp=0.5)
        controls.run_controls(root, root / "controls", CONFIG, shown, (4.0, 130.0), 0)
    return root / "controls"


def test_every_control_is_measured_by_its_files(measured: Path) -> None:
    for name in CONTROLS:
        rows = read_rows(measured / name / "evaluation.csv", EvaluationRow)
        files = {path.stat().st_size for path in (measured / name / "files").iterdir()}
        assert {row.bytes for row in rows} == files
        assert all(20.0 < row.psnr_db < 60.0 for row in rows)


def test_without_networks_analysis_and_synthesis_undo_each_other(measured: Path) -> None:
    """What a wavelet does and networks do not."""
    picture = dead_leaves(64, 64, 9)
    worst = {}
    for name, folder in (
        ("wavelet", measured / "wavelet/codec"),
        ("release", folders.folder_of(controls.SOURCE)),
    ):
        transforms = Codec.load(folder).transforms
        back = transforms.synthesis(transforms.analysis(picture), 130.0)
        worst[name] = int(np.abs(back.astype(int) - picture).max())
    assert worst["wavelet"] <= 1 < worst["release"]


def test_the_weights_that_reach_no_picture_are_those_of_the_seed(measured: Path) -> None:
    found = load_model(measured / "wavelet/codec")
    torch.manual_seed(0)
    seeded = type(found)(found.config)
    round_to_half(seeded)
    expected = seeded.state_dict()
    for name, value in found.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_without_contexts_every_symbol_of_a_plane_has_the_same_price(measured: Path) -> None:
    network = Codec.load(measured / "no_contexts/codec").coder.tables.magnitude
    assert not network.first[..., 1:].any()
    assert network.first[..., 0].any()
