"""What a GPU changes, seen without one: short numbers, where tensors lie, how often it waits."""

import contextlib
import dataclasses
import functools
from collections import Counter
from unittest import mock

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from linocut.errors import ConfigError
from linocut.lab.config.params import ScheduleConfig, TrainConfig
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.training import trainer as trainer_module
from linocut.lab.training.ncode import BlockAdversary, Discriminator, Encoding, Generation
from linocut.lab.training.rate import Exchange
from linocut.lab.training.trainer import Coding, Trainer
from tiny import LOSSES, awake, loss_of

CPU = torch.device("cpu")
SIDE = 192  # five scales of MS-SSIM
CODECS = ("cae", "generative", "cae2018")
TRAININGS = (*CODECS, "generation", "encoding")


def schedule(precision: str = "float32", optimiser: str = "adam") -> ScheduleConfig:
    """Two iterations; the analysis is frozen in the first."""
    return ScheduleConfig(
        megapixels=2 * SIDE**2 / 1e6, frozen_analysis_share=0.5, batch_size=1, crop_px=SIDE,
        learning_rate=1e-3, optimiser=optimiser, precision=precision,
    )  # fmt: skip


def training(kind: str, loss: str = "l2", device: torch.device = CPU, **changes: str) -> Trainer:
    """Every training step that there is: three codecs, and the two stages of NCode."""
    torch.manual_seed(0)
    own = schedule(**changes)
    crops = dead_leaves(SIDE, SIDE, 0)[None]
    network = awake(kind if kind in CODECS else "ncode")
    adversary, objective = None, None
    if kind == "generative":
        objective = Coding(network, (4.0, 160.0), cascade=True)
    if kind == "generation":
        adversary, objective = BlockAdversary(4, 1e-3), Generation(network)
    if kind == "encoding":
        objective = Encoding(network, Discriminator(4), 1.0)
    config = TrainConfig(
        **dataclasses.asdict(own), init="scratch", base=own, ema_decay=0.9, gradient_clip=1.0,
        step_range=(4.0, 160.0),
    )  # fmt: skip
    return Trainer(
        network=network, distortion=loss_of(loss), crops=crops, validation=crops, config=config,
        schedule=own, seed=0, device=device, adversary=adversary, objective=objective,
    )  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", TRAININGS)
def test_what_trains_in_short_numbers_meets_pixels_and_latents_in_float32(kind, loss):
    """For every network and loss: the pictures that a distortion sees, bands, and weights."""
    one = training(kind, loss, precision="bfloat16")
    types = set()
    distortion, analysis, synthesis = one.distortion, one.network.analysis, one.network.synthesis

    def watched_synthesis(y_hat, step, **options):
        types.update(band.dtype for band in y_hat)
        return synthesis(y_hat, step, **options)

    def watched_analysis(x):
        latent = analysis(x)
        types.update(band.dtype for band in latent)
        return latent

    def watched_distortion(x_hat, x):
        types.update((x_hat.dtype, x.dtype))
        return distortion(x_hat, x)

    one.distortion = watched_distortion
    one.network.analysis, one.network.synthesis = watched_analysis, watched_synthesis
    history = one.run()
    assert types == {torch.float32}
    assert {value.dtype for value in one.network.state_dict().values()} == {torch.float32}
    assert all(np.isfinite(row["loss"]) for row in history[1:])


def test_the_output_of_short_numbers_is_not_on_their_grid():
    """The last layers compute in float32; rounding their results would leave 8 bits of mantissa."""
    network = awake("cae2018")
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        latent = network.analysis(x)
        x_hat = network.synthesis(latent, torch.ones(1))
    for values in (latent[0], network.colour(x_hat)):
        assert not torch.equal(values, values.bfloat16().float())


class Watch(TorchDispatchMode):
    """Counts operations that start a kernel on a GPU, and those that wait for one."""

    VIEWS = (
        "view", "expand", "permute", "transpose", "slice", "select", "unsqueeze", "squeeze", "t",
        "detach", "alias", "as_strided", "split", "split_with_sizes", "_unsafe_view", "unbind",
        "empty", "_reshape_alias", "unfold", "lift_fresh",
    )  # fmt: skip
    WAITS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in self.WAITS:
            self.counts["waits"] += 1
        elif name not in self.VIEWS:
            self.counts["kernels"] += 1
        return function(*args, **(kwargs or {}))


def unwatched(function):
    """An optimiser's step: on a GPU it takes all weights at once, here one by one."""

    def call(*arguments):
        with _disable_current_modes():
            return function(*arguments)

    return call


MOST_KERNELS = {
    # training: (frozen analysis, joint), of one picture and the tiny networks of these tests
    "cae": (610, 2700),
    "generative": (610, 2700),
    "cae2018": (355, 920),
    "generation": (680, 690),
    "encoding": (235, 235),
}
WAITS = {"cae": 1, "generative": 1, "cae2018": 1, "generation": 2, "encoding": 1}


@pytest.mark.parametrize("kind", TRAININGS)
def test_a_step_starts_no_more_kernels_and_waits_no_more_often_than_written_down(kind, monkeypatch):
    """Each wait of a GPU's host costs it the lead that it has: one, or two with an adversary.

    A list of n numbers reaches the host in one copy, which the CPU's count shows as one `tolist`.
    """
    copies = []
    on_host = trainer_module.on_host
    monkeypatch.setattr(
        trainer_module, "on_host", lambda numbers: copies.append(1) or on_host(numbers)
    )
    one = training(kind)
    one.start()
    for holder in filter(None, (one, one.adversary)):
        monkeypatch.setattr(holder.optimiser, "step", unwatched(holder.optimiser.step))
    for iteration, joint in enumerate((False, True)):
        copies.clear()
        with Watch() as watch:
            one.step(iteration, joint=joint)
        assert len(copies) == WAITS[kind]
        assert watch.counts["waits"] == 0, "something but on_host waits"
        assert watch.counts["kernels"] <= MOST_KERNELS[kind][joint]


@pytest.fixture
def elsewhere(monkeypatch):
    """A device without values: what mixes it with the host, or asks it for a number, fails.

    Fake CUDA tensors (`FakeTensorMode`) would be a second one, but a build of torch without CUDA
    aborts at their first gradient: "not linked with support for cuda devices".
    """
    monkeypatch.setattr(trainer_module, "on_host", lambda numbers: dict.fromkeys(numbers, 0.5))
    monkeypatch.setattr(Trainer, "_report", lambda self, row, done: "")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    return torch.device("meta")


def started(kind, loss, device):
    """A training before its first step; what the start hands on by the host is let by."""
    one = training(kind, loss, device)
    one.asks.calibrate = lambda *_: Exchange((0.0,), (0.0,))
    with mock.patch.object(torch.Tensor, "cpu", lambda value: value):
        one.start()
    return one


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", TRAININGS)
def test_every_tensor_of_a_step_lies_on_the_device(kind, loss, elsewhere):
    one = started(kind, loss, elsewhere)
    for iteration, joint in enumerate((False, True)):
        one.step(iteration, joint=joint)
    assert {value.device for value in one.network.state_dict().values()} == {elsewhere}


def test_what_was_left_on_the_host_is_found(elsewhere):
    one = started("cae", "l2", elsewhere)
    host = torch.rand(1, 3, SIDE, SIDE)
    one.distortion = lambda x_hat, x: (x_hat - host).square().mean((1, 2, 3))
    with pytest.raises(RuntimeError, match="meta"):
        one.step(0, joint=True)
    one.distortion = lambda x_hat, x: (x_hat - float(x.mean())).square().mean((1, 2, 3))
    with pytest.raises(RuntimeError, match="meta"):
        one.step(0, joint=True)


def plainly(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history[1:]]


@pytest.mark.filterwarnings("ignore")  # of the tracing itself
@pytest.mark.parametrize("kind", ["cae2018", "encoding"])
def test_compiled_transforms_train_as_plain_ones(kind, monkeypatch, capsys):
    """By the compiler's own tracing; what it makes of the trace is another machine's matter."""
    plain = training(kind).run()
    monkeypatch.setenv("LINOCUT_COMPILE", "on")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    one = training(kind)
    assert plainly(one.run()) == plainly(plain)
    assert set(one.fused) == {"analysis", "synthesis"}
    assert "torch.compile" not in capsys.readouterr().err


def test_what_cannot_be_compiled_is_said_once_and_trains_as_it_is(monkeypatch, capsys):
    plain = training("encoding").run()
    monkeypatch.setenv("LINOCUT_COMPILE", "on")

    def broken(*_, **__):
        raise RuntimeError("no C++\ncompiler")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    assert plainly(training("encoding").run()) == plainly(plain)
    said = "torch.compile: no C++ compiler; the training goes on without it"
    assert capsys.readouterr().err.count(said) == 1
    monkeypatch.setenv("LINOCUT_COMPILE", "maybe")
    with pytest.raises(ConfigError, match="LINOCUT_COMPILE is 'maybe', expected off or on"):
        training("encoding").run()
