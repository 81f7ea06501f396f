"""Trains the two context networks of entropy coding on training latents, then rounds them.

    levels of a symbol --network--> c + noise --head, quantiser--> probabilities of its token

The real coder cuts c into bins of width one; uniform noise of that width stands for the cut while
the networks learn, so that they spread over the bins what the tables need to know. The head exists
only here: it gives tables of planes that were rarely seen their first shape.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from linocut.entropy.contexts import (
    ACTIVATION_CAP,
    BINS,
    LARGEST_BIAS,
    LARGEST_WEIGHT,
    MAGNITUDE_INPUTS,
    SHIFT,
    SIGN_INPUTS,
    ContextNetwork,
)
from linocut.entropy.tables import SIGN_CLASSES, TOKENS
from linocut.entropy.trellis import QUANTISERS
from linocut.lab.training.guards import largest, require_finite

HIDDEN = {"magnitude": 16, "sign": 24}
LEVEL_UNIT = 32.0
"""Whole levels and activations are 32 times those of the network in training."""
BATCH = 8192
LEARNING_RATE = 4e-3
WARM_UP = 0.15
"""Share of the iterations in which the pace of a network that has learned already rises."""
HEAD_TOKENS = 18
"""The head tells tokens up to 16 apart; the rest share its last output."""


@dataclass(frozen=True)
class Rows:
    """Symbols with what is known before each.

    Attributes:
        levels: int16 (n, inputs).
        place: int64 (n,): 4 * plane + kind of pass.
        target: int64 (n,): token; for signs 0 positive, 1 negative.
        group: int64 (n,): what else its table depends on: the quantiser in force; for signs the
            size of the symbol.
        weight: float32 (n,): one over the chance that this symbol was drawn.
    """

    levels: NDArray[np.int16]
    place: NDArray[np.int64]
    target: NDArray[np.int64]
    group: NDArray[np.int64]
    weight: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: Sequence["Rows"]) -> "Rows":
        """All rows of all parts."""
        names = ("levels", "place", "target", "group", "weight")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class _Network(nn.Module):
    """`ContextNetwork` in floating point; every plane weighs the inputs with gates of its own."""

    def __init__(self, planes: int, inputs: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.ones(planes, inputs))
        self.first = nn.Parameter(torch.randn(hidden, inputs) / math.sqrt(inputs))
        self.first_bias = nn.Parameter(0.1 * torch.randn(1, hidden).repeat(4 * planes, 1))
        self.second = nn.Parameter(torch.randn(hidden, hidden) / math.sqrt(hidden))
        self.second_bias = nn.Parameter(torch.zeros(hidden))
        self.last = nn.Parameter(torch.randn(hidden) / math.sqrt(hidden))
        self.last_bias = nn.Parameter(torch.zeros(4 * planes))

    def forward(self, x: Tensor, place: Tensor) -> Tensor:
        """x (n, inputs), place (n,) -> (n,)."""
        cap = ACTIVATION_CAP / LEVEL_UNIT
        gated = x * self.gate[place // 4]
        hidden = (gated @ self.first.T + self.first_bias[place]).clamp(0.0, cap)
        hidden = (hidden @ self.second.T + self.second_bias).clamp(0.0, cap)
        result: Tensor = hidden @ self.last + self.last_bias[place]
        return result

    @torch.no_grad()
    def start_from(self, known: ContextNetwork) -> None:
        """Take over a network in whole numbers, its weights as the nearest gates times rows."""
        unit = 2.0**-SHIFT
        weights = torch.from_numpy(known.first.astype(np.float32)).permute(2, 0, 1) * unit
        u, s, v = torch.linalg.svd(weights, full_matrices=False)
        gate, first = u[..., 0], s[:, :1] * v[:, 0]
        size = gate.mean(1, keepdim=True)
        size = torch.where(size.abs() < 1e-3, torch.ones_like(size), size)
        self.gate.copy_((gate / size).T)
        self.first.copy_((first * size).T)
        for name in ("first_bias", "second_bias", "last_bias"):
            own, values = getattr(self, name), torch.from_numpy(getattr(known, name))
            own.copy_(values.reshape(own.shape).float() * unit / LEVEL_UNIT)
        for name in ("second", "last"):
            getattr(self, name).copy_(
                torch.from_numpy(getattr(known, name).astype(np.float32)) * unit
            )

    @torch.no_grad()
    def keep_in_range(self) -> None:
        """Clip what the whole numbers could not hold."""
        limit = LARGEST_WEIGHT / 2**SHIFT
        for parameter in (self.first, self.second, self.last):
            parameter.clamp_(-limit, limit)

    @torch.no_grad()
    def rounded(self) -> ContextNetwork:
        """In whole numbers."""
        planes = len(self.gate)

        def whole(values: Tensor) -> NDArray[np.int16]:
            cut = torch.round(values * 2**SHIFT).clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT)
            return cut.to(torch.int16).numpy()

        def bias(values: Tensor, *shape: int) -> NDArray[np.int32]:
            cut = torch.round(values * LEVEL_UNIT * 2**SHIFT).clamp(-LARGEST_BIAS, LARGEST_BIAS)
            return cut.to(torch.int32).reshape(*shape, *values.shape[1:]).numpy()

        return ContextNetwork(
            whole(self.gate[:, None] * self.first),
            bias(self.first_bias, planes, 4),
            whole(self.second),
            bias(self.second_bias, len(self.second_bias)),
            whole(self.last),
            bias(self.last_bias, planes, 4),
        )


class _Head(nn.Module):
    """c and the table's row -> logits of the tokens; smooth in c, as neighbouring tables are."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.enter = nn.Linear(1, 32)
        self.row = nn.Embedding(rows, 32)
        self.middle = nn.Linear(32, 32)
        self.leave = nn.Linear(32, HEAD_TOKENS)
        nn.init.zeros_(self.row.weight)

    def forward(self, c: Tensor, row: Tensor) -> Tensor:
        """c (n,) in bins, row (n,): 2 * plane + quantiser -> (n, HEAD_TOKENS)."""
        x = functional.leaky_relu(self.enter(c[:, None] / 8.0 - 2.0) + self.row(row), 0.1)
        logits: Tensor = self.leave(functional.leaky_relu(self.middle(x), 0.1))
        return logits


def fit_magnitudes(
    rows: Rows, planes: int, iterations: int, seed: int, start: ContextNetwork | None = None
) -> tuple[ContextNetwork, NDArray[np.float64]]:
    """The network that chooses magnitude tables, and what the tables should roughly be.

    Args:
        rows: what it learns from.
        planes: of the latent.
        iterations: of the training.
        seed: of the first weights and of the batches.
        start: a network to begin with.

    Returns:
        The network, and probabilities (planes, 2, BINS, TOKENS).
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _Network(planes, MAGNITUDE_INPUTS, HIDDEN["magnitude"])
        head = _Head(QUANTISERS * planes)
    with torch.no_grad():
        network.last_bias.fill_(BINS / 2)
    if start:
        network.start_from(start)
    quantisers = torch.from_numpy(rows.group)

    def loss(chosen: Tensor, x: Tensor, place: Tensor, target: Tensor) -> Tensor:
        noise = torch.rand(len(x), generator=generator) - 0.5
        c = network(x, place).clamp(0.0, BINS - 0.01) + noise
        tokens = target.clamp(max=HEAD_TOKENS - 1)
        table = QUANTISERS * (place // 4) + quantisers[chosen]
        return functional.cross_entropy(head(c, table), tokens, reduction="none")

    _train([head], network, rows, loss, iterations, generator, warm=start is not None)
    with torch.no_grad():
        centres = torch.arange(BINS).repeat(QUANTISERS * planes) + 0.5
        shares = head(centres, torch.arange(QUANTISERS * planes).repeat_interleave(BINS)).softmax(
            -1
        )
    tail = 0.6 ** np.arange(TOKENS - HEAD_TOKENS + 1)
    known = shares.double().numpy().reshape(planes, QUANTISERS, BINS, HEAD_TOKENS)
    last = known[..., -1:] * tail / tail.sum()
    return network.rounded(), np.concatenate([known[..., :-1], last], -1)


def fit_signs(
    rows: Rows, planes: int, iterations: int, seed: int, start: ContextNetwork | None = None
) -> ContextNetwork:
    """The network that predicts signs; arguments as for `fit_magnitudes`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _Network(planes, SIGN_INPUTS, HIDDEN["sign"])
    if start:
        network.start_from(start)
    sharpness = nn.Parameter(torch.full((SIGN_CLASSES,), 0.25))
    classes = torch.from_numpy(np.minimum(rows.group, SIGN_CLASSES) - 1)

    def loss(chosen: Tensor, x: Tensor, place: Tensor, target: Tensor) -> Tensor:
        noise = torch.rand(len(x), generator=generator) - 0.5
        c = network(x, place) - network(-x, place) + noise
        logit = -c * sharpness[classes[chosen]]
        return functional.binary_cross_entropy_with_logits(logit, target.float(), reduction="none")

    holder = nn.ParameterList([sharpness])
    _train([holder], network, rows, loss, iterations, generator, warm=start is not None)
    return network.rounded()


Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(chosen rows, x, place, target) -> cost of each."""


def _train(
    modules: Sequence[nn.Module],
    network: _Network,
    rows: Rows,
    loss: Loss,
    iterations: int,
    generator: torch.Generator,
    *,
    warm: bool,
) -> None:
    """Adam with a cosine on random batches; `modules` learn, and `network`, which is kept in range.

    A network that has learned already waits for the others: its pace rises from zero.
    """
    if not len(rows.target):
        return
    others = [p for module in modules for p in module.parameters()]
    optimiser = torch.optim.Adam([{"params": others}, {"params": [*network.parameters()]}])
    parameters = [*others, *network.parameters()]
    levels, place = torch.from_numpy(rows.levels), torch.from_numpy(rows.place)
    target, weight = torch.from_numpy(rows.target), torch.from_numpy(rows.weight)
    pace = LEARNING_RATE
    for iteration in tqdm(range(iterations), desc="contexts", leave=False):
        pace = LEARNING_RATE * max(0.5 + 0.5 * math.cos(math.pi * iteration / iterations), 0.01)
        rising = min(1.0, iteration / (WARM_UP * iterations)) if warm else 1.0
        optimiser.param_groups[0]["lr"], optimiser.param_groups[1]["lr"] = pace, rising * pace
        chosen = torch.randint(len(levels), (min(BATCH, len(levels)),), generator=generator)
        x = levels[chosen].float() / LEVEL_UNIT
        costs = loss(chosen, x, place[chosen], target[chosen]) * weight[chosen]
        cost = costs.sum() / weight[chosen].sum()
        optimiser.zero_grad()
        cost.backward()  # type: ignore[no-untyped-call]
        require_finite({"loss": float(cost.detach())}, iteration, iterations, pace)
        optimiser.step()
        network.keep_in_range()
    require_finite({"largest weight": largest(parameters)}, iterations - 1, iterations, pace)
