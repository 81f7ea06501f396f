"""Short trainings for processes that train together; they find these functions by name."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import unittest.mock
from typing import Any

import numpy as np
import torch

from linocut.lab.config.params import ScheduleConfig, TrainConfig
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.networks.networks import Network
from linocut.lab.training import game, parallel
from linocut.lab.training.game import JointAdversary, decodable, teach
from linocut.lab.training.guards import ResumeState
from linocut.lab.training.ncode import Generation
from linocut.lab.training.trainer import Coding, Log, Row, Trainer
from tiny import GAME, awake, loss_of, untrained

CPU = torch.device("cpu")
SIDE = 64
SCHEDULE = ScheduleConfig(
    megapixels=6 * 2 * SIDE**2 / 1e6, frozen_analysis_share=0.5, batch_size=2, crop_px=SIDE,
    learning_rate=2e-3, optimiser="adam", precision="float32",
)  # fmt: skip
CONFIG = TrainConfig(
    **dataclasses.asdict(SCHEDULE), init="scratch", base=SCHEDULE, ema_decay=0.9,
    gradient_clip=1.0, step_range=(4.0, 160.0),
)  # fmt: skip
WITHOUT_NOISE = ("adam", "muon", "game")  # an analysis that does not learn needs none
WITH_NOISE = ("joint", "generative")
TRAININGS = (*WITHOUT_NOISE, *WITH_NOISE, "ncode")
INTERRUPTED = ("generative", "game")

Weights = dict[str, torch.Tensor]


def crops() -> np.ndarray[Any, Any]:
    """uint8 (4, 64, 64, 3)."""
    return np.stack([dead_leaves(SIDE, SIDE, seed) for seed in range(4)])


def start(name: str) -> Network:
    """The network that a training starts with."""
    if name == "game":
        return awake("cae")
    return untrained(name if name in ("generative", "ncode") else "cae")


def train(
    name: str, resume: ResumeState | None = None, log: Log | None = None
) -> tuple[Weights, list[Row]]:
    """Weights and history of a training of six iterations, two pictures each."""
    network: Any = start(name)
    torch.manual_seed(0)
    if name == "game":
        seen = decodable(network, crops(), (20.0, 80.0), np.random.default_rng(0), 3)
        silent = dict.fromkeys(("FIRST_NOISE", "LEAST_NOISE", "MOST_NOISE"), 0.0)
        with unittest.mock.patch.multiple(game, **silent):  # it is another for each process
            history = teach(
                network, seen, loss_of("l2"), GAME, adversarial=True, seed=0, device=CPU,
                resume=resume, log=log,
            )  # fmt: skip
        return network.state_dict(), history
    share = 1.0 if name in WITHOUT_NOISE else 0.5
    optimiser = "muon" if name == "muon" else "adam"
    adversary = JointAdversary(GAME, network) if name == "generative" else None
    out_of_nothing = name == "ncode"
    history = Trainer(
        network=network,
        distortion=(lambda x_hat, _: x_hat.square().mean((1, 2, 3))) if out_of_nothing
        else loss_of("l2"),
        crops=crops(), validation=crops()[:1], config=CONFIG,
        schedule=dataclasses.replace(
            SCHEDULE, frozen_analysis_share=share, optimiser=optimiser
        ),
        seed=0, device=CPU,
        objective=Generation(network) if out_of_nothing else Coding(network, CONFIG.step_range),
        adversary=adversary, resume=resume, log=log,
    ).run()  # fmt: skip
    return network.state_dict(), history


class PowerCutError(Exception):
    """Of a training that is interrupted."""


def train_all(folder: pathlib.Path) -> None:
    """What each process does: every training, some a second time with an interruption."""
    mine = folder / f"rank{parallel.rank()}" / "state"
    found = {name: train(name) for name in TRAININGS}
    for name in INTERRUPTED:
        rows: list[float] = []

        def cut(row: Any, megapixels: float, rows: list[float] = rows) -> None:
            rows.append(megapixels)
            if len(rows) == 4:
                raise PowerCutError

        resume = ResumeState(mine)
        try:
            train(name, resume, cut)
        except PowerCutError:
            assert mine.exists() == parallel.is_first()
        found[f"{name} again"] = train(name, resume)
        assert len(rows) == 4
        assert not mine.exists()
    torch.save(found, folder / f"{parallel.rank()}.pt")


def kill(number: int) -> None:
    """One process is killed, as for want of memory; the other waits for it."""
    if parallel.rank() == number:
        os.kill(os.getpid(), signal.SIGKILL)
    parallel.average_numbers({"loss": 1.0})


def split(batch: int) -> None:
    """Ask for a part of a batch."""
    parallel.part_of(batch)
