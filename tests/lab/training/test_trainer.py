"""Trainings repeat exactly, resume exactly, and learn only what their phase says."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch

from linocut.lab.config.params import ScheduleConfig, TrainConfig
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.training.game import JointAdversary
from linocut.lab.training.guards import DivergedError, ResumeState
from linocut.lab.training.rate import Exchange
from linocut.lab.training.trainer import Coding, CropSampler, Trainer
from tiny import CONFIGS, LOSSES, awake, loss_of, untrained

CPU = torch.device("cpu")
SIDE = 64
SCHEDULE = ScheduleConfig(
    megapixels=6 * 2 * SIDE**2 / 1e6,
    frozen_analysis_share=0.5,
    batch_size=2,
    crop_px=SIDE,
    learning_rate=2e-3,
    optimiser="adam",
    precision="float32",
)
CONFIG = TrainConfig(
    **dataclasses.asdict(SCHEDULE),
    init="scratch",
    base=SCHEDULE,
    ema_decay=0.9,
    gradient_clip=1.0,
    step_range=(4.0, 160.0),
)


@cache
def crops():
    return dead_leaves(128, 128, 0).reshape(2, 64, 2, 64, 3).swapaxes(1, 2).reshape(4, 64, 64, 3)


@pytest.fixture(autouse=True)
def checkpoints_all_the_time(monkeypatch):
    monkeypatch.setenv("LINOCUT_CHECKPOINT_S", "0")


def trainer(architecture="cae", *, seed=0, game="joint", loss="l2", **changes):
    """A training of six iterations, three of them with a frozen analysis."""
    network = changes.pop("network", None) or untrained(architecture, seed)
    torch.manual_seed(seed)
    adversary = None
    if architecture == "generative" and game == "joint":
        adversary = JointAdversary(CONFIGS[architecture].game, network)
    options = {
        "network": network, "objective": Coding(network, CONFIG.step_range, game == "cascade"),
        "distortion": loss_of(loss), "crops": crops(),
        "validation": crops()[:1], "config": CONFIG, "schedule": SCHEDULE, "seed": seed,
        "device": CPU, "adversary": adversary,
    }  # fmt: skip
    return Trainer(**(options | changes))


def weights_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=0, rtol=0)


@cache
def finished(architecture):
    """Weights and history of an uninterrupted training."""
    whole = trainer(architecture)
    history = whole.run()
    return weights_of(whole.network), history


ARCHITECTURES = ("cae", "generative", "cae2018")


@pytest.mark.parametrize("architecture", ["cae", "generative"])
def test_the_same_seed_gives_the_same_weights_and_another_one_does_not(architecture):
    again = trainer(architecture)
    again.run()
    assert_same(weights_of(again.network), finished(architecture)[0])
    other = trainer(architecture, seed=1, network=untrained(architecture))
    other.run()
    name = "synthesis_net.leave.weight"
    assert not torch.equal(weights_of(other.network)[name], finished(architecture)[0][name])


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize("architecture", ["cae", "generative"])
@pytest.mark.parametrize("at", [2, 5])  # in either phase
def test_a_killed_training_resumes_to_the_weights_of_an_uninterrupted_one(
    architecture, at, tmp_path
):
    rows = []

    def log(row, megapixels):
        rows.append(megapixels)
        if len(rows) == at + 1:
            raise PowerCutError

    resume = ResumeState(tmp_path / "state")
    with pytest.raises(PowerCutError):
        trainer(architecture, resume=resume, log=log).run()
    assert resume.load()["done"] == at - 1
    second = trainer(architecture, resume=resume)
    history = second.run()
    weights, whole_history = finished(architecture)
    assert_same(weights_of(second.network), weights)
    for a, b in zip(history, whole_history, strict=True):
        np.testing.assert_equal({**a, "seconds": 0}, {**b, "seconds": 0})
    assert resume.load() is None


def test_a_training_by_muon_in_short_numbers_resumes_to_the_same_weights(tmp_path):
    schedule = dataclasses.replace(SCHEDULE, optimiser="muon", precision="bfloat16")
    whole = trainer(schedule=schedule)
    whole.run()
    rows = []

    def log(row, megapixels):
        rows.append(megapixels)
        if len(rows) == 5:
            raise PowerCutError

    resume = ResumeState(tmp_path / "state")
    with pytest.raises(PowerCutError):
        trainer(schedule=schedule, resume=resume, log=log).run()
    again = trainer(schedule=schedule, resume=resume)
    again.run()
    assert_same(weights_of(again.network), weights_of(whole.network))
    plain = finished("cae")[0]
    assert not torch.equal(
        plain["synthesis_net.leave.weight"], weights_of(again.network)["synthesis_net.leave.weight"]
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_history_has_rising_pixels_and_finite_numbers(architecture):
    history = finished(architecture)[1]
    assert [row["megapixels"] for row in history] == pytest.approx(
        [i * 2 * SIDE**2 / 1e6 for i in range(7)], abs=1e-3
    )
    columns = {
        "megapixels",
        "loss",
        "distortion",
        "learning_rate",
        "rate_bpp",
        "psnr_db",
        "seconds",
    }
    for row in history[1:]:
        assert columns <= set(row)
        assert all(np.isfinite(value) for value in row.values())
    assert "discriminator_loss" in history[-1] or architecture != "generative"


def test_the_end_is_the_moving_average_in_evaluation_mode_on_the_cpu():
    network = trainer().network
    training = trainer(network=network)
    training.run()
    assert_same(weights_of(network), training.average)
    assert not network.training


PHASES = [
    # architecture, schedule of its adversary, joint phase: what learns
    ("cae", "", False, {"synthesis_net"}),
    ("cae", "", True, {"analysis_net", "analysis_pyramid", "synthesis_net", "synthesis_pyramid"}),
    ("generative", "cascade", False, {"synthesis_net"}),
    ("generative", "cascade", True, {"analysis_net", "analysis_pyramid"}),
    ("generative", "joint", False, {"synthesis_net"}),
    ("generative", "joint", True,
     {"analysis_net", "analysis_pyramid", "synthesis_net", "synthesis_pyramid"}),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "game", "joint", "learning"), PHASES)
def test_each_phase_moves_its_own_side_only(architecture, game, joint, learning):
    one = dataclasses.replace(
        SCHEDULE, megapixels=2 * SIDE**2 / 1e6, frozen_analysis_share=0.0 if joint else 1.0
    )
    training = trainer(architecture, game=game, schedule=one, network=awake(architecture))
    before = weights_of(training.network)
    training.run()
    after = weights_of(training.network)
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == learning


def test_the_discriminator_learns_in_both_phases():
    training = trainer("generative")
    before = weights_of(training.adversary.discriminator)
    training.run()
    after = weights_of(training.adversary.discriminator)
    assert not torch.equal(
        before["heads.0.0.parametrizations.weight.original"],
        after["heads.0.0.parametrizations.weight.original"],
    )


def test_learning_rates_warm_up_fall_and_are_scaled_by_group():
    training = trainer()
    rates = [training.learning_rate(i) for i in range(training.iterations)]
    assert max(rates) <= SCHEDULE.learning_rate
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.02 * SCHEDULE.learning_rate)
    long = trainer()
    long.iterations = 1000
    assert long.learning_rate(0) == pytest.approx(SCHEDULE.learning_rate / 50, rel=0.01)


@cache
def exchange_of(loss):
    """Measured on an untrained network and crops large enough for five scales."""
    pictures = dead_leaves(192, 384, 1).reshape(192, 2, 192, 3).swapaxes(0, 1).copy()
    schedule = dataclasses.replace(SCHEDULE, crop_px=192, megapixels=0.0)
    training = trainer(loss=loss, crops=pictures, validation=pictures[:1], schedule=schedule)
    training.run()
    return training.exchange


STEPS = torch.from_numpy(np.geomspace(*CONFIG.step_range, 20))


@pytest.mark.parametrize("loss", LOSSES)
def test_exchange_weights_are_positive_and_fall_with_the_step(loss):
    weight, rate = exchange_of(loss)(STEPS)
    assert torch.isfinite(weight).all()
    assert (weight > 0).all()
    assert (weight[1:] < weight[:-1]).all()
    assert (rate[1:] < rate[:-1]).all()


def test_every_loss_starts_over_the_same_range_of_rates():
    """The reference rates are those of the shared start, whatever the unit of the distortion."""
    rates = torch.stack([exchange_of(loss)(STEPS)[1] for loss in LOSSES])
    torch.testing.assert_close(rates, rates[:1].expand_as(rates), rtol=1e-3, atol=0)
    assert float(rates[0, 0] / rates[0, -1]) > 8


def test_a_training_repairs_what_is_wrong():
    """A constant added to every decoded picture is learned away by the side that learns."""
    schedule = dataclasses.replace(
        SCHEDULE, megapixels=40 * 2 * SIDE**2 / 1e6, frozen_analysis_share=1.0, learning_rate=1e-2
    )
    network = untrained("cae")
    with torch.no_grad():
        network.synthesis_net.leave.bias.fill_(0.3)
    history = trainer(network=network, schedule=schedule).run()
    assert history[-1]["psnr_db"] > history[0]["psnr_db"] + 0.5


def test_random_weights_learn_to_send_pictures_rather_than_nothing():
    """Priced by what they decode at first, bits would never be worth their cost."""
    schedule = dataclasses.replace(
        SCHEDULE, megapixels=60 * 2 * SIDE**2 / 1e6, frozen_analysis_share=0.0
    )
    history = trainer("cae2018", schedule=schedule).run()
    spread = crops()[:1].astype(float).std((0, 1, 2)) / 255
    constant_db = -10 * np.log10(np.square(spread).mean())
    assert history[-1]["psnr_db"] > constant_db + 0.5
    assert history[-1]["rate_bpp"] > 0.3


def test_validation_leaves_the_training_weights_alone():
    training = trainer(schedule=dataclasses.replace(SCHEDULE, megapixels=0.0))
    training.run()
    before = weights_of(training.network)
    training.average = {name: value + 1.0 for name, value in training.average.items()}
    training.validate()
    assert_same(weights_of(training.network), before)
    assert training.network.training


CPU = torch.device("cpu")
CROPS = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)


def test_the_same_seed_and_iteration_give_the_same_batch_and_draws():
    first, second = (CropSampler(CROPS, 4, 5, 7, CPU) for _ in range(2))
    for iteration in (0, 3, 2**31):
        (a, rng_a), (b, rng_b) = first(iteration), second(iteration)
        torch.testing.assert_close(a, b, atol=0, rtol=0)
        assert rng_a.uniform() == rng_b.uniform()
    assert not torch.equal(first(0)[0], first(1)[0])
    assert not torch.equal(first(0)[0], CropSampler(CROPS, 4, 5, 8, CPU)(0)[0])


def test_batches_are_channels_last_pictures_between_0_and_1():
    batch, _ = CropSampler(CROPS, 6, 2, 0, CPU)(0)
    assert batch.shape == (2, 3, 6, 6)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert 0 <= float(batch.min()) < float(batch.max()) <= 1


def test_sides_longer_than_the_crops_are_the_crops_side():
    assert CropSampler(CROPS, 999, 2, 0, CPU)(0)[0].shape == (2, 3, 8, 8)


def test_all_eight_turns_of_the_square_occur_and_nothing_else():
    square = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    sampler = CropSampler(square, 2, 1, 0, CPU)
    seen = {
        (255 * sampler(i)[0][0]).round().to(torch.uint8).permute(1, 2, 0).numpy().tobytes()
        for i in range(200)
    }
    turns = {
        np.rot90(flipped, quarter).tobytes()
        for flipped in (square[0], square[0][:, ::-1])
        for quarter in range(4)
    }
    assert seen == turns


@pytest.mark.parametrize("rate", [1.0, 1e3, 1e9])
def test_a_training_that_diverges_says_where_and_keeps_the_checkpoint_from_before(rate, tmp_path):
    resume = ResumeState(tmp_path / "state")
    wild = trainer(
        schedule=dataclasses.replace(
            SCHEDULE, megapixels=40 * 2 * SIDE**2 / 1e6, learning_rate=rate
        ),
        resume=resume,
    )
    said = r"diverged: .+ is (nan|inf) in iteration \d+ of 40 \((steps .+, )?learning rate .+\);"
    with pytest.raises(DivergedError, match=said) as stopped:
        wild.run()
    assert "\n" not in str(stopped.value)
    state = resume.load()
    if state is not None:  # the first iteration may be the one
        numbers = [*state["network"].values(), *state["average"].values()]
        assert all(torch.isfinite(value).all() for value in numbers)


def test_a_loss_that_is_no_number_never_reaches_the_weights():
    broken = trainer(distortion=lambda x_hat, x: (x_hat - x).square().mean((1, 2, 3)) * torch.nan)
    broken.asks.calibrate = lambda *_: Exchange((0.0,), (0.0,))
    before = weights_of(broken.network)
    with pytest.raises(DivergedError, match="loss is nan in iteration 1 of 6"):
        broken.run()
    assert_same(weights_of(broken.network), before)
