"""The one training loop, for every architecture and loss: rate + distortion at random steps.

    loss = mean over pictures of (R + w(step) D) / R_ref(step)     step: log-uniform, one a picture

R is the proxy's rate in bits per pixel, D the distortion. w(step) is measured, not chosen: it is
the exchange rate -(dR / d ln step) / (dD / d ln step) of the starting network, at which the step is
neither too fine nor too coarse. Distortions of different kinds and units thus all cover the same
rates with the same steps.

Two phases. First the analysis is frozen and only the synthesis learns, which is three times faster;
then both learn (joint), or, for a generative cascade, the analysis learns against the frozen
synthesis.

What a batch goes through, and what takes the place of R, is the training's objective: `Coding` for
codecs; NCode and restorations bring their own.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from linocut.lab.config.params import CaeConfig, ScheduleConfig, TrainConfig
from linocut.lab.networks.layers import BatchNorm
from linocut.lab.networks.networks import Cae, Network
from linocut.lab.training import parallel
from linocut.lab.training.guards import ResumeState, largest, on_host, require_finite
from linocut.lab.training.machine import (
    checkpoint_interval_s,
    compiles,
    keep_freed_memory,
    picture_batch,
    to_device,
)
from linocut.lab.training.optimiser import build_optimiser
from linocut.lab.training.rate import Exchange, RateProxy, calibrate, round_straight_through

Distortion = Callable[[Tensor, Tensor], Tensor]
Log = Callable[[Mapping[str, float], float], None]
Row = dict[str, float]

REPORTS = 24
VALIDATION_STEP = 24.0
WAVELET = CaeConfig(
    levels=3, gain_channels=1, analysis_channels=1, analysis_layers=1,
    synthesis_channels=1, synthesis_deep_channels=1, synthesis_blocks=1,
)  # fmt: skip
"""A network that is nothing else before it learns."""


class Outcome(NamedTuple):
    """What a batch comes to.

    Attributes:
        paid: (n,), the cost beside the distortion.
        x_hat: (n, 3, h, w).
        y_hat: the bands that x_hat was decoded from.
    """

    paid: Tensor
    x_hat: Tensor
    y_hat: Sequence[Tensor]


class Adversary(Protocol):
    """Who judges x_hat, and learns beside the network."""

    def to(self, device: torch.device) -> Any:
        """Move it."""

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, with its optimiser."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Undo `state_dict`."""

    def generator_cost(
        self, x: Tensor, outcome: Outcome, step: Tensor, distortion: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What each x_hat pays beside its weighed distortion (n,), and numbers for the history."""

    def learn(
        self, x: Tensor, outcome: Outcome, step: Tensor, learning_rate: float
    ) -> dict[str, Tensor]:
        """One step of its own, for which x_hat is given; single numbers for the history."""


class Objective(Protocol):
    """What a training asks of its network.

    Attributes:
        learned: what learns beside the network, and is saved with it.
    """

    learned: nn.Module

    def to(self, device: torch.device) -> None:
        """Move what belongs to the objective alone."""

    def calibrate(self, sample: CropSampler, distortion: Distortion, seed: int) -> Exchange:
        """Get ready with the starting network; what the distortion weighs."""

    def draw_steps(self, rng: np.random.Generator, count: int) -> Tensor:
        """Steps (count,) of a batch, grey levels."""

    def forward(self, x: Tensor, step: Tensor, joint: bool) -> Outcome:
        """What x (n, 3, h, w) comes to at steps (n,).

        Unless `joint`, the analysis is frozen, and a cost that it alone could lower may be 0.
        """

    def choose_learning(self, joint: bool) -> None:
        """Set what learns in this phase."""

    def validate(self, pictures: NDArray[np.uint8], seed: int) -> Row:
        """rate_bpp and psnr_db on pictures (n, s, s, 3), NaN where there is none."""


@dataclasses.dataclass
class Trainer:
    """Everything one training needs.

    Attributes:
        network: trained in place; ends with the moving average of its weights.
        distortion: (x_hat, x) -> (n,), 0 for equal pictures.
        crops: uint8 (n, s, s, 3).
        validation: uint8 (n, s, s, 3), for the reported PSNR.
        config: numbers that all trainings share.
        schedule: length and pace of this training.
        seed: of everything random.
        device: where to train.
        objective: None for that of a codec.
        adversary: who judges x_hat, if anybody does.
        resume: where checkpoints go; None for nowhere.
        log: called with every row of the history.
    """

    network: Network
    distortion: Distortion
    crops: NDArray[np.uint8]
    validation: NDArray[np.uint8]
    config: TrainConfig
    schedule: ScheduleConfig
    seed: int
    device: torch.device
    objective: Objective | None = None
    adversary: Adversary | None = None
    resume: ResumeState | None = None
    log: Log | None = None

    def __post_init__(self) -> None:
        self.sample = CropSampler(
            self.crops, self.schedule.crop_px, self.schedule.batch_size, self.seed, self.device
        )
        self.pixels = self.schedule.batch_size * self.sample.side_px**2
        self.part = parallel.part_of(self.schedule.batch_size)
        self.iterations = max(1, round(self.schedule.megapixels * 1e6 / self.pixels))
        self.frozen_iterations = round(self.schedule.frozen_analysis_share * self.iterations)
        self.asks = self.objective or Coding(self.network, self.config.step_range)
        self.history: list[Row] = []
        self.seconds = 0.0

    def run(self) -> list[Row]:
        """Train to the end, from the last checkpoint if there is one. Returns the history.

        Raises:
            DivergedError: a loss, a gradient or a weight is not finite. The last checkpoint, from
                before, is kept.
        """
        start = self.start()
        began = time.monotonic() - self.seconds
        saved, interval_s = time.monotonic(), checkpoint_interval_s()
        every = max(1, self.iterations // REPORTS)
        total, done_before = self.iterations * self.pixels, start * self.pixels
        with progress(total, done_before) as bar:
            for iteration in range(start, self.iterations):
                row = self.step(iteration, joint=iteration >= self.frozen_iterations)
                bar.update(self.pixels)
                done = iteration + 1
                if done % every == 0 or done == self.iterations:
                    self.seconds = time.monotonic() - began
                    bar.set_postfix_str(self._report(row, done))
                if self.resume and time.monotonic() - saved > interval_s:
                    self.seconds = time.monotonic() - began
                    self._save(done)
                    saved = time.monotonic()
        self.network.load_state_dict(self.average)
        self.network.to("cpu").eval()
        if self.resume:
            self.resume.clear()
        return self.history

    def start(self) -> int:
        """Set everything up, from the last checkpoint if there is one.

        Returns:
            The number of iterations that are done.
        """
        keep_freed_memory()
        torch.manual_seed(self.seed)
        layout = torch.channels_last
        self.network.to(self.device, memory_format=layout).train()  # type: ignore[call-overload]
        self.asks.to(self.device)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimiser = build_optimiser(
            self.schedule.optimiser,
            self.network,
            self.asks.learned,
            self.schedule.learning_rate,
        )
        if self.adversary:
            self.adversary.to(self.device)
        self.exchange = Exchange((), ())
        start = self._restore()
        self.averaged = list(self.average.values())
        self.live = list(self.network.state_dict().values())  # they change in place only
        norms = (one for one in self.network.modules() if isinstance(one, BatchNorm))
        self.statistics = [buffer for one in norms for buffer in one.buffers()]
        if start == 0:
            self.exchange = self.asks.calibrate(self.sample, self.distortion, self.seed)
            learned = {k: v.cpu() for k, v in self.asks.learned.state_dict().items()}
            self.exchange, learned = parallel.of_first((self.exchange, learned))
            self.asks.learned.load_state_dict(learned)
            self._report({"loss": math.nan, "distortion": math.nan, "learning_rate": 0.0}, 0)
        self.fused: dict[str, Any] = {}
        if compiles():
            self._compile()
        return start

    def step(self, iteration: int, *, joint: bool) -> Row:
        """One iteration: a batch, and a step of the optimisers.

        Args:
            iteration: with the seed it decides everything random.
            joint: whether the analysis learns.

        Returns:
            loss, distortion, learning rate, and what the adversary says.
        """
        parallel.seed_noise(self.seed * 1_000_003 + iteration)
        x, rng = self.sample(iteration, self.part)
        steps = self.asks.draw_steps(rng, self.schedule.batch_size)
        step = to_device(steps[self.part], self.device)
        rate_scale = self.learning_rate(iteration)
        for group in self.optimiser.param_groups:
            group["lr"] = rate_scale * group["scale"]
        self.asks.choose_learning(joint)
        outcome = self._forward(x, step, joint)
        outcome = outcome._replace(x_hat=outcome.x_hat.float())  # who judges it is not approximate
        distortion = self.distortion(outcome.x_hat, x)
        weight, reference = self.exchange(step)
        cost = outcome.paid + weight * distortion
        numbers: dict[str, Tensor] = {}
        if self.adversary:
            extra, numbers = self.adversary.generator_cost(x, outcome, step, weight * distortion)
            cost = cost + extra
        loss = (cost / (reference + 0.05)).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parallel.average_gradients(p for g in self.optimiser.param_groups for p in g["params"])
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        first = {"loss": loss, "distortion": distortion.mean()}
        found = on_host(first | numbers | {"gradient norm": norm})
        self._require_finite(found, iteration, step)
        row = {name: found[name] for name in first} | {"learning_rate": rate_scale}
        row |= {name: found[name] for name in numbers}
        self.optimiser.step()
        parallel.average(self.statistics)
        if self.adversary:
            given = outcome._replace(x_hat=outcome.x_hat.detach())
            learned = on_host(self.adversary.learn(x, given, step, rate_scale))
            self._require_finite(learned, iteration, step)
            row |= learned
        decay = min(self.config.ema_decay, (iteration + 1) / (iteration + 10))
        torch._foreach_lerp_(self.averaged, self.live, 1.0 - decay)
        return row

    def _forward(self, x: Tensor, step: Tensor, joint: bool) -> Outcome:
        """What the objective makes of a batch, in short numbers, by compiled transforms if any."""
        half = self.device.type == "cuda" or self.schedule.precision == "bfloat16"
        vars(self.network).update(self.fused)
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                return self.asks.forward(x, step, joint)
        finally:
            for name in self.fused:
                del vars(self.network)[name]

    def _compile(self) -> None:
        """Let torch.compile fuse the small kernels of the transforms, if it can.

        Compilers fail when they are first used: both phases are tried, there and back, on pictures
        that no iteration sees. Validation keeps to the transforms as they are.
        """
        before = {name: value.clone() for name, value in self.network.state_dict().items()}
        x, rng = self.sample(2**31, self.part)
        step = to_device(self.asks.draw_steps(rng, len(x)), self.device)
        try:
            for name in ("analysis", "synthesis"):
                self.fused[name] = torch.compile(getattr(self.network, name), dynamic=False)
            for joint in (False, True):
                self.asks.choose_learning(joint)
                outcome = self._forward(x, step, joint)
                cost = outcome.x_hat.float().mean() + outcome.paid.mean()
                cost.backward()  # type: ignore[no-untyped-call]
        except Exception as error:  # dynamo, inductor, a C compiler: each has its own
            self.fused = {}
            why = " ".join(str(error).split())[:200]
            sys.stderr.write(f"torch.compile: {why}; the training goes on without it\n")
        self.optimiser.zero_grad(set_to_none=True)
        self.network.load_state_dict(before)

    def learning_rate(self, iteration: int) -> float:
        """Warm-up over the first 5 %, then half a cosine down to 2 % of the peak."""
        share = (iteration + 1) / self.iterations
        cosine = 0.02 + 0.98 * (1.0 + math.cos(math.pi * share)) / 2.0
        return self.schedule.learning_rate * float(min(1.0, share / 0.05) * cosine)

    @torch.no_grad()
    def validate(self) -> Row:
        """What the objective says of the averaged weights on the validation crops."""
        trained = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        self.network.eval()
        row = self.asks.validate(self.validation, self.seed)
        self.network.load_state_dict(trained)
        self.network.train()
        return row

    def _report(self, row: Row, done: int) -> str:
        """Validate, extend the history, log; returns a summary for the progress bar."""
        megapixels = round(done * self.pixels / 1e6, 3)
        found = self.validate()
        if self.history:  # a rate or a PSNR that is NaN from the start is one that does not exist
            there = {k: v for k, v in found.items() if math.isfinite(self.history[0][k])}
            self._require_finite(there | {"largest weight": self._largest_weight()}, done - 1)
        row = {"megapixels": megapixels, **row, **found, "seconds": round(self.seconds, 1)}
        self.history.append(row)
        if self.log:
            numbers = {k: v for k, v in row.items() if k != "megapixels" and not math.isnan(v)}
            self.log(numbers, megapixels)
        return f"loss {row['loss']:.3f}, {row['rate_bpp']:.3f} bpp, {row['psnr_db']:.2f} dB"

    def _require_finite(self, numbers: Row, iteration: int, step: Tensor | None = None) -> None:
        rate = self.learning_rate(iteration)
        require_finite(numbers, iteration, self.iterations, rate, step)

    def _largest_weight(self) -> float:
        return largest([*self.network.state_dict().values(), *self.asks.learned.parameters()])

    def _state(self, done: int) -> dict[str, Any]:
        return {
            "done": done,
            "network": self.network.state_dict(),
            "average": self.average,
            "learned": self.asks.learned.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "adversary": self.adversary.state_dict() if self.adversary else {},
            "exchange": dataclasses.asdict(self.exchange),
            "history": self.history,
            "seconds": self.seconds,
        }

    def _save(self, done: int) -> None:
        self._require_finite({"largest weight": self._largest_weight()}, done - 1)
        if self.resume:
            self.resume.save(self._state(done))

    def _restore(self) -> int:
        """Load the last checkpoint; returns the number of iterations done."""
        state = self.resume.load() if self.resume else None
        if state is None:
            return 0
        self.network.load_state_dict(state["network"])
        self.average = {k: v.to(self.device) for k, v in state["average"].items()}
        self.asks.learned.load_state_dict(state["learned"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.adversary:
            self.adversary.load_state_dict(state["adversary"])
        self.exchange = Exchange(**{k: tuple(v) for k, v in state["exchange"].items()})
        self.history = state["history"]
        self.seconds = state["seconds"]
        return int(state["done"])


class Coding:
    """The objective of a codec: the proxy's rate is paid for beside the distortion.

    Args:
        network: the one that is trained.
        step_range: finest and coarsest step, grey levels.
        cascade: of a generator that has learned already: once the analysis learns, it alone does.
    """

    def __init__(
        self, network: Network, step_range: tuple[float, float], cascade: bool = False
    ) -> None:
        self.network = network
        self.step_range = step_range
        self.cascade = cascade
        self.proxy = RateProxy(network.bands)
        self.learned: nn.Module = self.proxy

    def to(self, device: torch.device) -> None:
        """Move the proxy."""
        self.proxy.to(device)

    def calibrate(self, sample: CropSampler, distortion: Distortion, seed: int) -> Exchange:
        """Fit the proxy, and measure the exchange rate, of the starting network.

        Random weights say nothing of what a bit is worth: the first thing they would learn is to
        send none. Such a network pays what a wavelet pays that has not learned anything either.
        """
        self._fit_proxy(sample, seed)
        if not self.network.codes_untrained:
            wavelet = Coding(Cae(WAVELET), self.step_range)
            device = next(self.network.parameters()).device
            wavelet.network.to(device).eval()
            wavelet.to(device)
            return wavelet.calibrate(sample, distortion, seed)
        return self._measure_exchange(sample, distortion, seed)

    def draw_steps(self, rng: np.random.Generator, count: int) -> Tensor:
        """Log-uniform in the range."""
        low, high = (math.log(s) for s in self.step_range)
        return torch.exp(torch.from_numpy(rng.uniform(low, high, count))).float()

    def forward(self, x: Tensor, step: Tensor, joint: bool) -> Outcome:
        """Paid is the rate in bpp, 0 where the analysis is frozen."""
        with torch.set_grad_enabled(joint):
            latent = self.network.analysis(x)
            rate = torch.zeros_like(step)
            if joint:
                rate = self.proxy(latent, step) / (x.shape[2] * x.shape[3])
        y_hat = [round_straight_through(band, step) for band in latent]
        x_hat = self.network.synthesis(y_hat, step, linear_gradient=joint)
        return Outcome(rate, x_hat, y_hat)

    def choose_learning(self, joint: bool) -> None:
        """The synthesis, then both, or in a cascade the analysis."""
        for parameter in self.network.parameters():
            parameter.requires_grad_(not (joint and self.cascade))
        for parameter in self.network.analysis_parameters():
            parameter.requires_grad_(joint)

    def validate(self, pictures: NDArray[np.uint8], seed: int) -> Row:
        """Rate by the proxy and PSNR, means over the pictures at one step."""
        errors, bits = [], []
        for x in _one_by_one(self.network, pictures):
            step = torch.full((1,), VALIDATION_STEP, device=x.device)
            torch.manual_seed(seed)
            latent = self.network.analysis(x)
            bits.append(float(self.proxy(latent, step)) / (x.shape[2] * x.shape[3]))
            x_hat = self.network.synthesis([round_straight_through(b, step) for b in latent], step)
            errors.append(batch_psnr_db(x_hat.clamp(0, 1), x))
        return {"rate_bpp": float(np.mean(bits)), "psnr_db": float(np.mean(errors))}

    def _fit_proxy(self, sample: CropSampler, seed: int) -> None:
        """So that the exchange rate means something."""
        _, latent = self._latents(sample, 16)
        optimiser = torch.optim.Adam(self.proxy.parameters(), lr=0.05)
        for iteration in range(40):
            torch.manual_seed(seed * 1_000_003 - 1 - iteration)
            rng = np.random.default_rng([seed, 2**30 + iteration])
            chosen = torch.from_numpy(rng.permutation(len(latent[0]))[:4]).to(latent[0].device)
            step = self.draw_steps(rng, len(chosen)).to(latent[0].device)
            bits = self.proxy([band[chosen] for band in latent], step) / sample.side_px**2
            optimiser.zero_grad()
            torch.log(bits + 0.02).mean().backward()  # type: ignore[no-untyped-call]
            optimiser.step()

    @torch.no_grad()
    def _measure_exchange(self, sample: CropSampler, distortion: Distortion, seed: int) -> Exchange:
        x, latent = self._latents(sample, 8)

        def measure(step: float) -> tuple[float, float]:
            steps = torch.full((len(x),), step).to(x)
            torch.manual_seed(seed)
            rate = float(self.proxy(latent, steps).mean()) / sample.side_px**2
            y_hat = [round_straight_through(band, steps) for band in latent]
            return rate, float(distortion(self.network.synthesis(y_hat, steps), x).mean())

        return calibrate(self.step_range, measure)

    @torch.no_grad()
    def _latents(self, sample: CropSampler, count: int) -> tuple[Tensor, list[Tensor]]:
        """About `count` pictures that no iteration sees, and their latents."""
        x, _ = sample(2**31)
        batches = [x[:count]] + [sample(2**31 + i)[0] for i in range(1, count // len(x))]
        x = torch.cat(batches)
        return x, [band.detach() for band in self.network.analysis(x)]


def progress(total_px: int, done_px: int) -> tqdm[Any]:
    """The bar of a training; of several processes the first shows it."""
    return tqdm(
        total=total_px, initial=done_px, unit="px", unit_scale=True,
        disable=not parallel.is_first(),
    )  # fmt: skip


def batch_psnr_db(x_hat: Tensor, x: Tensor) -> float:
    """Of pictures in [0, 1]; finite for equal ones."""
    return -10.0 * math.log10(float((x_hat - x).square().mean()) + 1e-12)


def _one_by_one(network: Network, pictures: NDArray[np.uint8]) -> Iterator[Tensor]:
    """Each picture as a batch of its own, where the network is."""
    device = next(network.parameters()).device
    return (picture_batch(picture, device) for picture in pictures)


class CropSampler:
    """Training crops with random place, flips and transposition: a function of (seed, iteration).

    They lie on the training device, and are cut and turned there: a GPU never waits for the host.

    Args:
        crops: uint8 (n, s, s, 3).
        side_px: of the pictures to sample.
        batch: how many at once.
        seed: of the sampling.
        device: where the crops are kept.
    """

    def __init__(
        self, crops: NDArray[np.uint8], side_px: int, batch: int, seed: int, device: torch.device
    ) -> None:
        self.crops = torch.from_numpy(crops).to(device)
        self.batch, self.seed = batch, seed
        self.side_px = min(side_px, crops.shape[1])

    def __call__(
        self, iteration: int, part: slice = slice(None)
    ) -> tuple[Tensor, np.random.Generator]:
        """Pictures (n, 3, side, side) in [0, 1], and the generator to go on drawing from.

        Args:
            iteration: decides which.
            part: of the batch; the others are drawn, too, and not cut.
        """
        rng = np.random.default_rng([self.seed, iteration])
        chosen = rng.integers(0, len(self.crops), self.batch).tolist()
        side, most = self.side_px, self.crops.shape[1] - self.side_px
        places = [
            (index, rng.integers(0, most + 1, 2).tolist(), rng.integers(0, 2, 3).tolist())
            for index in chosen
        ]
        pictures = []
        for index, (y, x), flips in places[part]:
            picture = self.crops[index, y : y + side, x : x + side]
            picture = torch.flip(picture, [axis for axis in (0, 1) if flips[axis]])
            pictures.append(picture.transpose(0, 1) if flips[2] else picture)
        return picture_batch(torch.stack(pictures)), rng
