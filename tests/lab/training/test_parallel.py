"""Two processes train what one does: the same weights in both, and its curve but for the noise."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from linocut.errors import ConfigError
from linocut.lab.training import parallel
from linocut.lab.training.trainer import CropSampler
from parallel_trainings import (
    CPU,
    INTERRUPTED,
    TRAININGS,
    WITH_NOISE,
    WITHOUT_NOISE,
    crops,
    kill,
    split,
    start,
    train,
    train_all,
)
from small_checkout import small_checkout
from test_smoke import environment, run

NOISE = 0.05
"""How far losses may differ: the noise that stands for rounding is another in each process."""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What two processes found, by rank."""
    folder = tmp_path_factory.mktemp("parallel")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(parallel.PROCESSES_VARIABLE, "2")
        patch.setenv("LINOCUT_CHECKPOINT_S", "0")
        parallel.run(train_all, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


def largest_difference(first, second):
    """Of two sets of weights, as a share of the root mean square of each tensor."""
    return max(
        float((first[name] - second[name]).abs().max() / first[name].square().mean().sqrt())
        for name in first
        if first[name].any()
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_both_processes_end_with_the_same_weights_and_history(both, name):
    (weights, history), (others, other_history) = (found[name] for found in both)
    assert all(torch.equal(weights[key], others[key]) for key in weights)
    for row, other in zip(history, other_history, strict=True):
        np.testing.assert_equal({**row, "seconds": 0}, {**other, "seconds": 0})


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT_NOISE)
def test_without_noise_two_processes_take_the_steps_of_one(both, name):
    alone, history = train(name)
    assert largest_difference(alone, start(name).state_dict()) > 0.01
    assert largest_difference(alone, both[0][name][0]) < 1e-3
    for row, other in zip(history, both[0][name][1], strict=True):
        for key in row.keys() - {"seconds"}:
            assert other[key] == pytest.approx(row[key], rel=1e-3, abs=1e-4, nan_ok=True), key


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_NOISE)
def test_with_noise_the_curve_is_that_of_one_process(both, name):
    _, history = train(name)
    for row, other in zip(history[1:], both[0][name][1][1:], strict=True):
        for key in ("loss", "distortion", "rate_bpp"):
            assert other[key] == pytest.approx(row[key], rel=NOISE), key
    assert history[-1]["loss"] != both[0][name][1][-1]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("name", INTERRUPTED)
def test_processes_that_were_interrupted_go_on_from_the_checkpoint_of_the_first(both, name):
    for found in both:
        weights, again = found[name][0], found[f"{name} again"][0]
        assert all(torch.equal(weights[key], again[key]) for key in weights)


@pytest.mark.slow
def test_a_process_that_dies_or_complains_ends_the_training_with_one_line(monkeypatch):
    monkeypatch.setenv(parallel.PROCESSES_VARIABLE, "2")
    with pytest.raises(parallel.RankError, match="process 1 of 2 ended with SIGKILL"):
        parallel.run(kill, 1)
    with pytest.raises(ConfigError, match="a batch of 3 pictures cannot be split evenly over 2"):
        parallel.run(split, 3)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_the_number_of_processes_is_a_number(text, monkeypatch):
    monkeypatch.setenv(parallel.PROCESSES_VARIABLE, text)
    with pytest.raises(ConfigError, match=f"LINOCUT_PROCESSES is '{text}', expected a number"):
        parallel.run(print)


def test_there_is_one_process_for_a_gpu(monkeypatch):
    monkeypatch.setenv(parallel.PROCESSES_VARIABLE, "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="is 3, expected at most 2, one for each GPU"):
        parallel.run(print)


def test_the_parts_of_a_batch_are_the_batch():
    sample = CropSampler(crops(), 32, 4, 0, CPU)
    whole, rng = sample(7)
    first, rng_of_first = sample(7, slice(0, 2))
    second, _ = sample(7, slice(2, 4))
    assert torch.equal(whole, torch.cat([first, second]))
    assert rng.integers(2**60) == rng_of_first.integers(2**60)


def test_with_one_process_nothing_is_averaged():
    assert (parallel.count(), parallel.rank(), parallel.is_first()) == (1, 0, True)
    assert parallel.part_of(3) == slice(0, 3)
    assert parallel.of_first("mine") == "mine"
    numbers = torch.arange(3.0)
    parallel.average([numbers])
    assert numbers.tolist() == [0.0, 1.0, 2.0]


@pytest.mark.slow
def test_the_stage_trains_with_two_processes_of_its_own_or_of_torchrun(tmp_path):
    checkout = small_checkout(tmp_path / "checkout", "arch=cae", "loss=l2")
    trained = checkout / "artifacts/trained/cae-l2"
    run(checkout, "dvc", "repro", "train@cae-l2")
    losses = {"one": pd.read_csv(trained / "history.csv")["loss"]}
    command = ["stages/train.py", "--arch", "cae", "--loss", "l2"]
    run(checkout, "python", *command, LINOCUT_PROCESSES="2")
    losses["own"] = pd.read_csv(trained / "history.csv")["loss"]
    weights = (trained / "model.safetensors").read_bytes()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run(checkout, "python", *launcher, *command)
    assert (trained / "model.safetensors").read_bytes() == weights
    np.testing.assert_allclose(losses["own"], losses["one"], rtol=NOISE)
    assert not losses["own"].equals(losses["one"])
    done = subprocess.run(
        [sys.executable, *command], cwd=checkout, capture_output=True, text=True, check=False,
        env=environment() | {"LINOCUT_PROCESSES": "7"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("train.py cae-l2:")]
    assert "cannot be split evenly over 7 processes" in line
