"""A decoder against a discriminator that sees what the decoder saw.

    x0, step --decoder that learns--> x_hat
    x0, step --decoder as it was----> plain
    discriminator: which of x and x_hat, beside plain, is the original?

    cost of the decoder = distances(x_hat, x) + w * softplus(D(x) - D(x_hat))

The discriminator looks through the first layers of a network that knows photographs already
(EfficientNet-Lite0, five maps from fine to coarse), for from a few thousand crops it would not
learn what they look like. Original and decoding differ by a thousandth of what pictures differ
among each other, so it gets the difference to the plain decoding's maps, in units of the usual one.

Three numbers decide whether such a game teaches, and each is set by what it does rather than by
hand. Distances are divided by those of the plain decoding, so that fine and coarse steps and losses
of any unit count alike. The adversary's weight w is a share of the gradient that the distances have
where the game begins, both measured at the decoder's last layer, for each octave of steps; measured
over and over it would grow as the decoder goes astray. It falls with the discriminator's skill. And
what the discriminator sees is the noisier, the more often it is right: it never stops learning, and
is never so sure that its answers have no slope.

In the end the weights are blended with those of the start. A quarter of the way back, squared error
gets half of its loss back, and the Frechet distance stays where it is.

A twin is the same training without the adversary: whatever differs, the adversary did it.

Source: Sauer et al. 2021 (a discriminator that looks through a trained network); Sonderby et al.
2017 (noise on what it sees) and Karras et al. 2020 (as much as its accuracy asks for); Miyato et
al. 2018 (spectral normalisation); Jolicoeur-Martineau 2019 (relativistic); Esser et al. 2021
(weight from the gradients at the last layer); Wang et al. 2018 (ESRGAN; blended weights); Agustsson
et al. 2019 and Mentzer et al. 2020 (a discriminator that sees the code).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from linocut.entropy.planes import step_index, step_of
from linocut.lab.config.params import GameConfig
from linocut.lab.networks.losses import (
    DETAIL,
    Distortion,
    Features,
    distance,
    smallest_side_px,
)
from linocut.lab.networks.networks import Cae
from linocut.lab.training import parallel
from linocut.lab.training.guards import ResumeState, largest, require_finite
from linocut.lab.training.machine import (
    checkpoint_interval_s,
    keep_freed_memory,
    one_thread,
    picture_batch,
)
from linocut.lab.training.trainer import Log, Outcome, Row, progress
from linocut.pictures.image import busiest_corner, crop

PLACE_PX = 16
"""Pieces of crops lie at multiples of this: the stride of the coarsest map."""
SEEN_PX = 192
"""Side of the part of a training crop that decoders see, where it has the most detail."""
MAP_CHANNELS = (32, 16, 24, 40, 112)
"""Of the maps of EfficientNet-Lite0."""
FIRST_NOISE, LEAST_NOISE, MOST_NOISE = 0.3, 0.02, 50.0
NOISE_PACE = 0.2
"""How much the logarithm of the noise grows in an iteration for each unit of accuracy too much."""
USUAL_PACE = 0.05
"""Weight of a batch in the running means of how large maps and their differences are."""
LOGIT_GAIN, LOGIT_PRICE = 4.0, 1e-2
"""Spectral normalisation keeps logits small; the price keeps them where they have a slope."""
SKILLED = 0.75
"""Accuracy from which on a discriminator's opinion counts in full; at one half it is worth none."""
OWN_SHARE = 0.7
"""Each distance is divided by this share of the plain decoding's and the rest of the usual one."""
MEAN_PX, PHASE_PX = 2, 16
READY = 0.8
"""Accuracy at which a discriminator is let into the game: what is measured before means nothing."""
BALANCE_LENGTH = 20
"""Over how many crops of an octave of steps gradients are compared."""
OCTAVES = 16
ENTRY_LENGTH = 40
REPORTS = 24
AVERAGE_DECAY = 0.998
GRADIENT_CLIP = 1.0


Maps = Sequence[Tensor]
"""What a trained network makes of a picture, see `linocut.lab.networks.losses.Features`."""


class PairDiscriminator(nn.Module):
    """Maps of candidates beside those of their plain decodings -> logits of each map.

    Args:
        channels: of its hidden layers.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(2 * inputs, channels, 1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(channels, channels, 3, 1, 1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(channels, 1, 1)),
            )
            for inputs in MAP_CHANNELS
        )
        self.difference: Tensor
        self.register_buffer("difference", torch.zeros(len(MAP_CHANNELS)))
        self.size: Tensor
        self.register_buffer("size", torch.zeros(len(MAP_CHANNELS)))

    @torch.no_grad()
    def get_used_to(self, original: Maps, plain: Maps) -> None:
        """Follow how large maps are, and the differences that a perfect decoder would make."""
        pairs = list(zip(original, plain, strict=True))
        for usual, squares in (
            (self.difference, [(a - b).square().mean() for a, b in pairs]),
            (self.size, [b.square().mean() for _, b in pairs]),
        ):
            found = torch.stack(squares)
            parallel.average([found])
            first = bool(usual.sum() == 0)
            usual.copy_(found.sqrt() if first else torch.lerp(usual, found.sqrt(), USUAL_PACE))

    def forward(self, candidate: Maps, plain: Maps, noise: Tensor) -> list[Tensor]:
        """Logits (n, 1, h', w') of each map; noise () in units of the usual difference."""
        found = []
        for index, (head, one, other) in enumerate(zip(self.heads, candidate, plain, strict=True)):
            difference = (one - other) / (self.difference[index] + 1e-6)
            noisy = difference + noise * torch.randn_like(difference)
            seen = torch.cat([noisy, other / (self.size[index] + 1e-6)], 1)
            found.append(LOGIT_GAIN * head(seen))
        return found


class Opponent(nn.Module):
    """A discriminator with its optimiser, its pace, and what its opinion weighs.

    Args:
        config: of the game.
    """

    def __init__(self, config: GameConfig) -> None:
        super().__init__()
        self.config = config
        self.discriminator = PairDiscriminator(config.discriminator_channels)
        self.optimiser = torch.optim.Adam(
            self.discriminator.parameters(),
            lr=config.discriminator_learning_rate,
            betas=(0.5, 0.9),
        )
        self.accuracy: Tensor
        self.balance: Tensor
        self.register_buffer("accuracy", torch.tensor(0.5))
        self.measured: Tensor
        self.register_buffer("balance", torch.zeros(OCTAVES))
        self.register_buffer("measured", torch.zeros(OCTAVES))
        self.noise: Tensor
        self.register_buffer("noise", torch.tensor(FIRST_NOISE))
        self.played: Tensor
        self.register_buffer("played", torch.tensor(0))

    def get_extra_state(self) -> dict[str, Any]:
        """The optimiser belongs to the state: a resumed training needs its moments."""
        return self.optimiser.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Undo `get_extra_state`."""
        self.optimiser.load_state_dict(state)

    def cost(self, x: Maps, x_hat: Maps, plain: Maps) -> Tensor:
        """What each decoding pays for being told from its original by these maps, (n,)."""
        self.discriminator.get_used_to(x, plain)
        with torch.no_grad():
            real = self.discriminator(x, plain, self.noise)
        fake = self.discriminator(x_hat, plain, self.noise)
        self._note(real, fake)
        found = [
            functional.softplus(a - b).mean((1, 2, 3)) for a, b in zip(real, fake, strict=True)
        ]
        return torch.stack(found).mean(0)

    def weight(
        self, main: Tensor, game: Tensor, x_hat: Tensor, layer: Tensor, step: Tensor
    ) -> Tensor:
        """What `game` (n,) is multiplied with so that it pulls as `config` says, (n,).

        Args:
            main: the other costs (n,), each a function of its x_hat alone.
            game: of `cost`.
            x_hat: (n, 3, h, w), a function of `layer`.
            layer: weight of the last layer.
            step: (n,), grey levels; for each octave of them the first crops decide for good.
        """
        octave = torch.log2(step).round().long().clamp(0, OCTAVES - 1)
        if not parallel.anywhere(self.measured[octave] < BALANCE_LENGTH):
            return self.known_weight(step)
        places, ratios = octave.tolist(), []
        pulls = [
            torch.autograd.grad(one.sum(), x_hat, retain_graph=True)[0] for one in (main, game)
        ]
        for index, place in enumerate(places):
            if self.measured[place] >= BALANCE_LENGTH:
                ratios.append(math.nan)
                continue
            norms = []
            for pull in pulls:
                alone = torch.zeros_like(pull)
                alone[index] = pull[index]
                (found,) = torch.autograd.grad(x_hat, layer, alone, retain_graph=True)
                norms.append(float(found.norm()))
            ratios.append(math.log((norms[0] + 1e-12) / (norms[1] + 1e-12)))
        everywhere = (octave, torch.tensor(ratios, dtype=torch.float64))
        places, ratios = (parallel.of_all(one).flatten().tolist() for one in everywhere)
        for place, ratio in zip(places, ratios, strict=True):
            if self.measured[place] < BALANCE_LENGTH:
                share = 1.0 / (1.0 + float(self.measured[place]))
                self.balance[place] += share * (ratio - float(self.balance[place]))
                self.measured[place] += 1.0
        return self.known_weight(step)

    def known_weight(self, step: Tensor) -> Tensor:
        """The weights as they were measured, (n,); 0 in octaves that have none yet.

        A discriminator that is being fooled has a small gradient that means nothing. Made as large
        as the others it would lead the decoder ever further away, so its weight falls with it.
        """
        octave = torch.log2(step).round().long().clamp(0, OCTAVES - 1)
        ratios = self.balance[octave].exp() * (self.measured[octave] > 0)
        return self.config.adversarial_weight * self.skill * ratios

    def enters(self) -> bool:
        """Whether it plays: from the first iteration on at which it is ready."""
        if int(self.played) or float(self.accuracy) >= READY:
            self.played += 1
        return bool(self.played)

    @property
    def entry(self) -> float:
        """Rises to 1 over the first iterations that it plays."""
        return min(1.0, int(self.played) / ENTRY_LENGTH)

    @property
    def skill(self) -> float:
        """0 for a discriminator that guesses, 1 for one whose opinion counts in full."""
        return min(max((float(self.accuracy) - 0.5) / (SKILLED - 0.5), 0.0), 1.0)

    def judge(self, x: Maps, x_hat: Maps, plain: Maps) -> Row:
        """Learn from a batch.

        Returns:
            discriminator_accuracy: the share of places at which the original's logit is the larger
            one, averaged over the last batches; discriminator_noise and discriminator_loss.
        """
        self.discriminator.get_used_to(x, plain)
        real, fake = (self.discriminator(one, plain, self.noise) for one in (x, x_hat))
        pairs = [functional.softplus(b - a).mean() for a, b in zip(real, fake, strict=True)]
        price = [one.square().mean() for one in (*real, *fake)]
        loss = torch.stack(pairs).mean() + LOGIT_PRICE * torch.stack(price).mean()
        self._note(real, fake)
        excess = self.accuracy - self.config.discriminator_accuracy
        self.noise.mul_(torch.exp(NOISE_PACE * excess)).clamp_(LEAST_NOISE, MOST_NOISE)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parallel.average_gradients(self.discriminator.parameters())
        self.optimiser.step()
        return {
            "discriminator_loss": float(loss.detach()),
            "discriminator_accuracy": float(self.accuracy),
            "discriminator_noise": float(self.noise),
        }

    @torch.no_grad()
    def _note(self, real: list[Tensor], fake: list[Tensor]) -> None:
        pairs = zip(real, fake, strict=True)
        right = torch.stack([(a > b).float().mean() for a, b in pairs]).mean()
        parallel.average([right])
        self.accuracy.lerp_(right, 0.1)


class JointAdversary(Opponent):
    """The opponent of a network whose halves learn together, see `Trainer`.

    Args:
        config: of the game.
        network: as it starts; a copy of its decoder makes the plain decodings.
    """

    def __init__(self, config: GameConfig, network: Cae) -> None:
        super().__init__(config)
        self._layer = network.synthesis_net.leave.weight
        self._features = [Features("lite0")]
        self._plain = [copy.deepcopy(network).requires_grad_(False)]  # neither is part of the state

    def generator_cost(
        self, x: Tensor, outcome: Outcome, step: Tensor, distortion: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Adversary`; the cost is a share of the distortion's gradient."""
        game = self.cost(*self._maps(x, outcome, step))
        weight = self.weight(distortion, game, outcome.x_hat, self._layer, step)
        numbers = {
            "generator_adversarial": game.detach().mean(),
            "adversarial_weight": weight.mean(),
        }
        return weight * game, numbers

    def learn(
        self, x: Tensor, outcome: Outcome, step: Tensor, learning_rate: float
    ) -> dict[str, Tensor]:
        """See `Adversary`; the discriminator has a learning rate of its own."""
        row = self.judge(*self._maps(x, outcome, step))
        return {name: torch.tensor(value, device=x.device) for name, value in row.items()}

    def _maps(self, x: Tensor, outcome: Outcome, step: Tensor) -> tuple[Maps, Maps, Maps]:
        """Of the original, the decoding and the plain decoding."""
        (features,) = self._features
        features.to(step.device)
        with torch.no_grad():
            real, plain = features(x), features(self._plain_of(outcome, step))
        return real, features(outcome.x_hat), plain

    @torch.no_grad()
    def _plain_of(self, outcome: Outcome, step: Tensor) -> Tensor:
        (decoder,) = self._plain
        y_hat = [band.detach() for band in outcome.y_hat]
        return decoder.to(step.device).synthesis(y_hat, step).float()


class Seen(NamedTuple):
    """A picture (n, 3, h, w), and its maps of deep features."""

    picture: Tensor
    maps: Maps


class Distances(nn.Module):
    """What a decoder pays besides: pixels, deep features, means, and a weave of its own.

    Each is divided by 0.7 times that of the plain decoding and 0.3 times the usual one, so that all
    pull alike at every step and in every unit.

    Args:
        config: of the game.
        distortion: of pixels, (x_hat, x) -> (n,).
    """

    def __init__(self, config: GameConfig, distortion: Distortion) -> None:
        super().__init__()
        self.distortion = distortion
        self.weights = (
            config.distortion_weight, config.feature_weight, config.mean_weight,
            config.weave_weight,
        )  # fmt: skip
        self.usual: Tensor
        self.register_buffer("usual", torch.zeros(len(self.weights)))

    def forward(self, x_hat: Seen, x: Seen, plain: Seen) -> Tensor:
        """The weighed sum, (n,)."""
        with torch.no_grad():
            start = self._between(plain, x)
        found = self._between(x_hat, x)
        total = torch.zeros_like(found[0])
        for index, weight in enumerate(self.weights):
            new = start[index].mean()
            parallel.average([new])
            first = float(self.usual[index]) == 0.0
            self.usual[index] = new if first else torch.lerp(self.usual[index], new, 0.02)
            scale = OWN_SHARE * start[index] + (1.0 - OWN_SHARE) * self.usual[index] + 1e-12
            total = total + weight * found[index] / scale
        return total

    def _between(self, one: Seen, other: Seen) -> list[Tensor]:
        """The four distances (n,)."""
        error = one.picture - other.picture
        return [
            self.distortion(one.picture, other.picture),
            distance(one.maps, other.maps),
            functional.avg_pool2d(error, MEAN_PX).square().mean((1, 2, 3)),
            _phase_means(error).square().mean((1, 2, 3)),
        ]


def _phase_means(x: Tensor) -> Tensor:
    """How much each of the four places of squares of 2 px differs from their mean, around it.

    (n, 3, h, w) -> (n, 12, h/16, w/16). A decoder that paints its four places with kernels of their
    own can weave a pattern of 2 px into flat surfaces, which no picture has.
    """
    phases = functional.avg_pool2d(functional.pixel_unshuffle(x, 2), PHASE_PX // 2)
    n, _, h, w = phases.shape
    phases = phases.view(n, 3, 4, h, w)
    return (phases - phases.mean(2, keepdim=True)).flatten(1, 2)


@dataclass(frozen=True)
class Decodable:
    """What decoders of one codec see of training crops, and what they ought to make of it.

    Attributes:
        original: uint8 (n, s, s, 3).
        linear: float32 (n, 3, s, s), the inverse wavelet of the symbols in rotated grey levels.
        step: float32 (n,), grey levels.
    """

    original: NDArray[np.uint8]
    linear: NDArray[np.float32]
    step: NDArray[np.float32]


Latent = list[NDArray[np.float32]]


ROUNDING = 0.42
"""Less than a half: a dead zone around zero."""


def rounded(latent: Latent, index: int) -> tuple[Latent, float]:
    """A latent rounded to multiples of the step of this index, with a dead zone; and the step."""
    step = step_of(index)
    unit = np.float32(step)
    return [
        np.sign(band) * np.floor(np.abs(band) / unit + np.float32(ROUNDING)) * unit
        for band in latent
    ], step


@torch.inference_mode()
@one_thread()
def decodable(
    network: Cae,
    crops: NDArray[np.uint8],
    step_range: tuple[float, float],
    rng: np.random.Generator,
    count: int,
    code: Callable[[Latent, int], tuple[Latent, float]] = rounded,
) -> Decodable:
    """What decoders see of training crops, each coded at one step, log-uniform in the range.

    Args:
        network: whose analysis codes, and whose linear path decodes.
        crops: uint8 (n, s, s, 3).
        step_range: finest and coarsest step, grey levels.
        rng: for the choice of crops and steps.
        count: how many crops.
        code: a latent, bands (c, h, w), and the index of a step -> what a decoder gets, and
            the step that it is told.
    """
    side = min(SEEN_PX, crops.shape[1] // network.multiple * network.multiple)
    pictures, linears, steps = [], [], []
    for chosen in rng.permutation(len(crops))[:count]:
        whole = np.array(crops[chosen])
        picture = crop(whole, busiest_corner(whole, side), side)
        latent: Latent = [band[0].numpy() for band in network.analysis(picture_batch(picture))]
        index = step_index(float(np.exp(rng.uniform(*np.log(step_range)))))
        decoded, step = code(latent, index)
        y_hat = [torch.from_numpy(band)[None] for band in decoded]
        pictures.append(picture)
        linears.append(network.synthesis_pyramid.inverse(y_hat)[0].numpy())
        steps.append(step)
    return Decodable(np.stack(pictures), np.stack(linears), np.array(steps, np.float32))


def teach(
    network: Cae,
    seen: Decodable,
    distortion: Distortion,
    config: GameConfig,
    *,
    adversarial: bool,
    seed: int,
    device: torch.device,
    resume: ResumeState | None = None,
    log: Log | None = None,
) -> list[Row]:
    """Train the residual net of a decoder in place; linear path and encoder do not learn.

    Args:
        network: left with the moving average of its weights, blended with the first ones.
        seen: by the decoder.
        distortion: of pixels.
        config: lengths and weights.
        adversarial: with the adversary; the twin is trained without.
        seed: of everything random.
        device: where to train.
        resume: where checkpoints go; None for nowhere.
        log: called with every row of the history, and the megapixels seen.

    Returns:
        The history.

    Raises:
        DivergedError: a loss, a gradient or a weight is not finite.
    """
    keep_freed_memory()
    torch.manual_seed(seed)
    plain_decoder = copy.deepcopy(network).eval().requires_grad_(False)
    learning = list(network.decoder_parameters())
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    for parameter in learning:
        parameter.requires_grad_(True)
    plain_decoder.to(device)
    network.to(device).train()
    distances, opponent = Distances(config, distortion).to(device), Opponent(config).to(device)
    features = (Features("lite0") if adversarial else Features("lite0", DETAIL)).to(device)
    optimiser = torch.optim.Adam(learning, lr=config.learning_rate, betas=(0.5, 0.99))
    average = [parameter.detach().clone() for parameter in learning]
    side, count = _pieces(config, distortion)
    pixels = count * side**2
    iterations = max(1, round(config.megapixels * 1e6 / pixels))
    warm = round(config.warmup_share * iterations)
    history: list[Row] = []
    start, state = 0, resume.load() if resume else None
    if state:
        start, history = int(state["done"]), state["history"]
        average = [one.to(device) for one in state["average"]]
        network.load_state_dict(state["network"])
        opponent.load_state_dict(state["opponent"])
        distances.load_state_dict(state["distances"])
        optimiser.load_state_dict(state["optimiser"])
    part = parallel.part_of(count)
    every = max(1, iterations // REPORTS)
    rows: dict[str, list[float]] = {}
    saved, interval_s = time.monotonic(), checkpoint_interval_s()
    bar = progress(iterations * pixels, start * pixels)
    layer = network.synthesis_net.leave.weight
    for iteration in range(start, iterations):
        parallel.seed_noise(seed * 1_000_003 + iteration)
        batch = _batch(seen, side, count, np.random.default_rng([seed, iteration]))
        x, linear, step = (one[part].to(device) for one in batch)
        share = (iteration + 1) / iterations
        pace = min(1.0, share / 0.02) * (0.02 + 0.98 * (1.0 + math.cos(math.pi * share)) / 2.0)
        optimiser.param_groups[0]["lr"] = pace * config.learning_rate
        with torch.no_grad():
            plain = plain_decoder.finish(linear, step)
            of_x, of_plain = Seen(x, features(x)), Seen(plain, features(plain))
        x_hat = network.finish(linear, step)
        of_x_hat = Seen(x_hat, features(x_hat))
        main = distances(of_x_hat, of_x, of_plain)
        cost, row = main.mean(), {"distances": float(main.detach().mean())}
        if adversarial and iteration >= warm and opponent.enters():
            game = opponent.cost(of_x.maps, of_x_hat.maps, of_plain.maps)
            weight = opponent.weight(main, game, x_hat, layer, step)
            cost = cost + opponent.entry * (weight * game).mean()
            row |= {
                "generator_adversarial": float(game.detach().mean()),
                "adversarial_weight": float(weight.mean()),
            }
        optimiser.zero_grad(set_to_none=True)
        cost.backward()
        parallel.average_gradients(learning)
        norm = nn.utils.clip_grad_norm_(learning, GRADIENT_CLIP)
        row |= {"loss": float(cost.detach())}
        require_finite(row | {"gradient norm": float(norm)}, iteration, iterations, pace, step)
        optimiser.step()
        if adversarial and iteration >= warm // 2:  # it has learned something when it counts
            given = [one.detach() for one in of_x_hat.maps]
            row |= opponent.judge(of_x.maps, given, of_plain.maps)
            require_finite(row, iteration, iterations, pace, step)
        decay = min(AVERAGE_DECAY, (iteration + 1) / (iteration + 10))
        for one, parameter in zip(average, learning, strict=True):
            one.lerp_(parameter.detach(), 1.0 - decay)
        row |= {"psnr_gain_db": _gain_db(x_hat.detach(), plain, x)}
        for name, value in parallel.average_numbers(row).items():
            rows.setdefault(name, []).append(value)
        bar.update(pixels)
        done = iteration + 1
        if done % every == 0 or done == iterations:
            megapixels = round(done * pixels / 1e6, 3)
            row = {name: float(np.mean(values)) for name, values in rows.items()}
            history.append({"megapixels": megapixels, **row})
            rows = {}
            bar.set_postfix_str(f"loss {row['loss']:.3f}")
            if log:
                log(row, megapixels)
        if resume and time.monotonic() - saved > interval_s:
            require_finite({"largest weight": largest(learning)}, iteration, iterations, pace)
            resume.save(
                {
                    "done": done,
                    "history": history,
                    "average": average,
                    "network": network.state_dict(),
                    "opponent": opponent.state_dict(),
                    "distances": distances.state_dict(),
                    "optimiser": optimiser.state_dict(),
                }
            )
            saved = time.monotonic()
    bar.close()
    with torch.no_grad():
        first = plain_decoder.decoder_parameters()
        for one, parameter, start_weight in zip(average, learning, first, strict=True):
            parameter.copy_(torch.lerp(start_weight, one, config.blend))
    network.to("cpu").eval()
    if resume:
        resume.clear()
    return history


def _pieces(config: GameConfig, distortion: Distortion) -> tuple[int, int]:
    """Side and number of the pieces of an iteration: larger ones where a loss asks for them."""
    side = max(config.crop_px, -(-smallest_side_px(distortion) // PLACE_PX) * PLACE_PX)
    return side, max(1, round(config.batch_size * (config.crop_px / side) ** 2))


def _batch(
    seen: Decodable, side: int, count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Pieces of crops: x and the linear path (n, 3, s, s), and steps (n,)."""
    whole = seen.original.shape[1]
    side = min(side, whole)
    pictures, linear, steps = [], [], []
    for index in rng.integers(0, len(seen.step), count):
        y, x = (PLACE_PX * int(i) for i in rng.integers(0, (whole - side) // PLACE_PX + 1, 2))
        pictures.append(seen.original[index, y : y + side, x : x + side])
        linear.append(seen.linear[index, :, y : y + side, x : x + side])
        steps.append(seen.step[index])
    batch = torch.from_numpy(np.stack(linear)).to(memory_format=torch.channels_last)
    return picture_batch(np.stack(pictures)), batch, torch.tensor(np.array(steps))


def _gain_db(x_hat: Tensor, plain: Tensor, x: Tensor) -> float:
    """Mean gain in PSNR over the plain decoding."""
    errors = [(one - x).square().mean((1, 2, 3)) + 1e-9 for one in (x_hat, plain)]
    return float(10.0 * torch.log10(errors[1] / errors[0]).mean())


def changed_weights(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Length of the change of all weights together, a share of their own."""
    pairs = [(a.detach(), b.detach()) for a, b in zip(before, after, strict=True)]
    change = sum(float((a - b).square().sum()) for a, b in pairs)
    length = sum(float(a.square().sum()) for a, _ in pairs)
    return math.sqrt(change / max(length, 1e-12))
