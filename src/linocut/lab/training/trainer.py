"""The one training loop, for every architecture and loss: rate + distortion at random steps.

    loss = mean over pictures of (R + w(step) D) / R_ref(step)     step: log-uniform, one a picture

R is the proxy's rate in bits per pixel, D the distortion. w(step) is measured, not chosen: it is
the exchange rate
-(dR / d ln step) / (dD / d ln step) of the starting network, at which the step is neither too fine
nor too coarse.
Distortions of different kinds and units thus all cover the same rates with the same steps.

Two phases. First the analysis is frozen and only the synthesis learns, which is three times faster;
then both learn
(joint), or, for a generative cascade, the analysis learns against the frozen synthesis.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from linocut.lab.config.params import ScheduleConfig, TrainConfig
from linocut.lab.networks.networks import Network
from linocut.lab.training.adversary import Adversary
from linocut.lab.training.machine import checkpoint_interval_s, keep_freed_memory
from linocut.lab.training.rate import Exchange, RateProxy, calibrate, round_straight_through
from linocut.lab.training.resume import ResumeState

Distortion = Callable[[Tensor, Tensor], Tensor]
Log = Callable[[Mapping[str, float], float], None]
Row = dict[str, float]

REPORTS = 24
VALIDATION_STEP = 24.0


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
        adversary: a discriminator, for generative cells.
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
    adversary: Adversary | None = None
    resume: ResumeState | None = None
    log: Log | None = None

    def __post_init__(self) -> None:
        self.sample = CropSampler(
            self.crops, self.schedule.crop_px, self.schedule.batch_size, self.seed, self.device
        )
        self.pixels = self.schedule.batch_size * self.sample.side_px**2
        self.iterations = max(1, round(self.schedule.megapixels * 1e6 / self.pixels))
        self.frozen_iterations = round(self.schedule.frozen_analysis_share * self.iterations)
        self.history: list[Row] = []

    def run(self) -> list[Row]:
        """Train to the end, from the last checkpoint if there is one. Returns the history."""
        keep_freed_memory()
        torch.manual_seed(self.seed)
        layout = torch.channels_last
        self.network.to(self.device, memory_format=layout).train()  # type: ignore[call-overload]
        self.proxy = RateProxy(self.network.bands).to(self.device)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        linear = list(self.network.linear_parameters())
        others = [p for p in self.network.parameters() if all(p is not q for q in linear)]
        groups = ((others, 1.0), (linear, 0.05), (list(self.proxy.parameters()), 10.0))
        self.optimiser = torch.optim.Adam(
            [{"params": group, "scale": scale} for group, scale in groups],
            lr=self.schedule.learning_rate,
        )
        if self.adversary:
            self.adversary.to(self.device)
        self.exchange = Exchange((), ())
        self.seconds = 0.0
        start = self._restore()
        if start == 0:
            self._fit_proxy()
            self.exchange = self._calibrate()
            self._report({"loss": math.nan, "distortion": math.nan, "learning_rate": 0.0}, 0)
        began = time.monotonic() - self.seconds
        saved, interval_s = time.monotonic(), checkpoint_interval_s()
        every = max(1, self.iterations // REPORTS)
        total, done_before = self.iterations * self.pixels, start * self.pixels
        with tqdm(total=total, initial=done_before, unit="px", unit_scale=True) as bar:
            for iteration in range(start, self.iterations):
                row = self._step(iteration)
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

    def _report(self, row: Row, done: int) -> str:
        """Validate, extend the history, log; returns a summary for the progress bar."""
        megapixels = round(done * self.pixels / 1e6, 3)
        row = {
            "megapixels": megapixels,
            **row,
            **self._validate(),
            "seconds": round(self.seconds, 1),
        }
        self.history.append(row)
        if self.log:
            numbers = {k: v for k, v in row.items() if k != "megapixels" and not math.isnan(v)}
            self.log(numbers, megapixels)
        return f"loss {row['loss']:.3f}, {row['rate_bpp']:.3f} bpp, {row['psnr_db']:.2f} dB"

    def _draw_steps(self, rng: np.random.Generator, count: int) -> Tensor:
        low, high = (math.log(s) for s in self.config.step_range)
        return torch.exp(torch.from_numpy(rng.uniform(low, high, count))).float().to(self.device)

    def _forward(self, x: Tensor, step: Tensor, analysis: bool) -> tuple[Tensor, Tensor]:
        """Rate (n,) in bpp and x_hat; without `analysis` it is not trained and the rate is 0."""
        with torch.set_grad_enabled(analysis):
            latent = self.network.analysis(x)
            rate = torch.zeros_like(step)
            if analysis:
                rate = self.proxy(latent, step) / (x.shape[2] * x.shape[3])
        y_hat = [round_straight_through(band, step) for band in latent]
        return rate, self.network.synthesis(y_hat, step, linear_gradient=analysis)

    def _step(self, iteration: int) -> Row:
        torch.manual_seed(self.seed * 1_000_003 + iteration)
        x, rng = self.sample(iteration)
        step = self._draw_steps(rng, len(x))
        rate_scale = self._learning_rate(iteration)
        for group in self.optimiser.param_groups:
            group["lr"] = rate_scale * group["scale"]
        joint = iteration >= self.frozen_iterations
        self._freeze(joint)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            rate, x_hat = self._forward(x, step, joint)
        distortion = self.distortion(x_hat, x)
        weight, reference = self.exchange(step)
        cost = rate + weight * distortion
        row: Row = {}
        if self.adversary:
            extra, row = self.adversary.generator_cost(x, x_hat)
            cost = cost + weight * extra
        loss = (cost / (reference + 0.05)).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        self.optimiser.step()
        if self.adversary:
            row |= self.adversary.learn(x, x_hat.detach(), rate_scale)
        decay = min(self.config.ema_decay, (iteration + 1) / (iteration + 10))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, 1.0 - decay)
        return {
            "loss": float(loss.detach()),
            "distortion": float(distortion.detach().mean()),
            "learning_rate": rate_scale,
            **row,
        }

    def _freeze(self, joint: bool) -> None:
        """Choose what learns in this phase."""
        cascade = self.adversary is not None and self.adversary.cascade
        for parameter in self.network.parameters():
            parameter.requires_grad_(not (joint and cascade))
        for parameter in self.network.analysis_parameters():
            parameter.requires_grad_(joint)

    def _learning_rate(self, iteration: int) -> float:
        """Warm-up over the first 5 %, then half a cosine down to 2 % of the peak."""
        share = (iteration + 1) / self.iterations
        cosine = 0.02 + 0.98 * (1.0 + math.cos(math.pi * share)) / 2.0
        return self.schedule.learning_rate * float(min(1.0, share / 0.05) * cosine)

    @torch.no_grad()
    def _latents(self, count: int) -> list[Tensor]:
        x, _ = self.sample(2**31)
        batches = [x[:count]] + [self.sample(2**31 + i)[0] for i in range(1, count // len(x))]
        x = torch.cat(batches)
        self._calibration_pictures = x
        return [band.detach() for band in self.network.analysis(x)]

    def _fit_proxy(self) -> None:
        """Fit the rate proxy to the starting network, so that the exchange rate means something."""
        latent = self._latents(16)
        optimiser = torch.optim.Adam(self.proxy.parameters(), lr=0.05)
        for iteration in range(40):
            torch.manual_seed(self.seed * 1_000_003 - 1 - iteration)
            rng = np.random.default_rng([self.seed, 2**30 + iteration])
            chosen = torch.from_numpy(rng.permutation(len(latent[0]))[:4]).to(self.device)
            step = self._draw_steps(rng, len(chosen))
            bits = self.proxy([band[chosen] for band in latent], step) / self.sample.side_px**2
            optimiser.zero_grad()
            torch.log(bits + 0.02).mean().backward()  # type: ignore[no-untyped-call]
            optimiser.step()

    @torch.no_grad()
    def _calibrate(self) -> Exchange:
        """Measure the exchange rate of the starting network on a few batches."""
        latent = self._latents(8)
        x = self._calibration_pictures

        def measure(step: Tensor) -> tuple[float, float]:
            torch.manual_seed(self.seed)
            rate = float(self.proxy(latent, step).mean()) / self.sample.side_px**2
            y_hat = [round_straight_through(band, step) for band in latent]
            return rate, float(self.distortion(self.network.synthesis(y_hat, step), x).mean())

        return calibrate(self.config.step_range, lambda s: measure(torch.full((len(x),), s).to(x)))

    @torch.no_grad()
    def _validate(self) -> Row:
        """Rate (proxy) and PSNR of the averaged weights on the validation crops at one step."""
        trained = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        self.network.eval()
        errors, bits = [], []
        for picture in self.validation:
            x = (
                torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float().to(self.device)
                / 255.0
            )
            step = torch.full((1,), VALIDATION_STEP, device=self.device)
            torch.manual_seed(self.seed)
            latent = self.network.analysis(x)
            bits.append(float(self.proxy(latent, step)) / (x.shape[2] * x.shape[3]))
            x_hat = self.network.synthesis([round_straight_through(b, step) for b in latent], step)
            errors.append(
                -10.0 * math.log10(float((x_hat.clamp(0, 1) - x).square().mean()) + 1e-12)
            )
        self.network.load_state_dict(trained)
        self.network.train()
        return {"rate_bpp": float(np.mean(bits)), "psnr_db": float(np.mean(errors))}

    def _state(self, done: int) -> dict[str, Any]:
        return {
            "done": done,
            "network": self.network.state_dict(),
            "average": self.average,
            "proxy": self.proxy.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "adversary": self.adversary.state_dict() if self.adversary else {},
            "exchange": dataclasses.asdict(self.exchange),
            "history": self.history,
            "seconds": self.seconds,
        }

    def _save(self, done: int) -> None:
        if self.resume:
            self.resume.save(self._state(done))

    def _restore(self) -> int:
        """Load the last checkpoint; returns the number of iterations done."""
        state = self.resume.load() if self.resume else None
        if state is None:
            return 0
        self.network.load_state_dict(state["network"])
        self.average = {k: v.to(self.device) for k, v in state["average"].items()}
        self.proxy.load_state_dict(state["proxy"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.adversary:
            self.adversary.load_state_dict(state["adversary"])
        self.exchange = Exchange(**{k: tuple(v) for k, v in state["exchange"].items()})
        self.history = state["history"]
        self.seconds = state["seconds"]
        return int(state["done"])


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

    def __call__(self, iteration: int) -> tuple[Tensor, np.random.Generator]:
        """Pictures (batch, 3, side, side) in [0, 1], and the generator to go on drawing from."""
        rng = np.random.default_rng([self.seed, iteration])
        chosen = rng.integers(0, len(self.crops), self.batch).tolist()
        side, most = self.side_px, self.crops.shape[1] - self.side_px
        pictures = []
        for index in chosen:
            y, x = rng.integers(0, most + 1, 2).tolist()
            picture = self.crops[index, y : y + side, x : x + side]
            flips = rng.integers(0, 2, 3).tolist()
            picture = torch.flip(picture, [axis for axis in (0, 1) if flips[axis]])
            pictures.append(picture.transpose(0, 1) if flips[2] else picture)
        batch = torch.stack(pictures).permute(0, 3, 1, 2)  # already channels-last in memory
        return batch.float() / 255.0, rng
