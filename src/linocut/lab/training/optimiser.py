"""Steps from gradients: Adam for everything, or Muon for the kernels and Adam for the rest.

    gradient of a kernel (out, in, k, k) --momentum--> matrix (out, in k k)
        --orthogonalise--> singular values near 1 --0.2 sqrt(longer side)--> step / learning rate
    kernel --1 - 0.1 learning rate--> what is left of it before the step

What a kernel learns first lies in a few directions; Muon gives all of them the same pace. With that
factor a weight moves as far as with Adam, on average over a kernel, so both take learning rates of
the same kind; kernels bear five times those of the rest.

A step has this length however small the gradient is, so kernels would grow for as long as they
learn; the decay holds them (docs/log.md).

Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024 (momentum,
Newton-Schulz iteration); Liu et al., "Muon is scalable for LLM training", arXiv:2502.16982 (length
of the step).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from linocut.lab.networks.networks import Network

Kind = Literal["adam", "muon"]

LINEAR_SCALE = 0.05
"""Learning rate of the lifting weights in units of that of other weights."""
LEARNED_SCALE = 10.0
"""The same for what an objective learns beside the network."""
ADAM_SCALE = 0.2
"""With Muon, the same for what is no kernel."""
FEWEST_OUTPUTS = 12
"""Of a kernel that Muon takes; the others have too few rows to gain from it."""
MOMENTUM = 0.95
WEIGHT_DECAY = 0.1
"""Share of a kernel that a step at a learning rate of 1 takes away; else kernels grow with time."""
STEP_SIZE = 0.2
"""Root of the mean square of what a weight moves, at a learning rate of 1."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def build_optimiser(
    kind: Kind, network: Network, learned: nn.Module, learning_rate: float
) -> torch.optim.Optimizer | Together:
    """The optimiser of a training; each group has a `scale`, its learning rate in units of this.

    Args:
        kind: `adam`, or `muon`: for the kernels of convolutions, and Adam for the rest.
        network: to train.
        learned: what learns beside it.
        learning_rate: of most weights, or of the kernels.
    """
    linear = list(network.linear_parameters())
    others = _without(network.parameters(), linear)
    if kind == "adam":
        groups = ((others, 1.0), (linear, LINEAR_SCALE), (learned.parameters(), LEARNED_SCALE))
        return torch.optim.Adam(_groups(groups), lr=learning_rate)
    kernels: list[nn.Parameter] = [
        cast(nn.Parameter, module.weight)
        for module in network.modules()
        if isinstance(module, nn.Conv2d) and module.out_channels >= FEWEST_OUTPUTS
    ]
    rest = (
        (_without(others, kernels), ADAM_SCALE),
        (linear, ADAM_SCALE * LINEAR_SCALE),
        (learned.parameters(), ADAM_SCALE * LEARNED_SCALE),
    )
    adam = torch.optim.Adam(_groups(rest), lr=learning_rate, fused=True)
    return Together([Muon(_groups([(kernels, 1.0)]), lr=learning_rate), adam])


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal.

    Args:
        params: kernels (out, ...), as parameters or groups.
        lr: learning rate.
    """

    def __init__(self, params: Iterable[Any], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every kernel that has a gradient; kernels of one shape are made orthogonal at once.

        Raises:
            ValueError: a closure is given, which would have to be called.
        """
        if closure is not None:
            raise ValueError("Muon takes no closure, expected the gradients to be there")
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[Tensor]] = {}
            for kernel in group["params"]:
                if kernel.grad is not None:
                    shapes.setdefault((len(kernel), kernel[0].numel()), []).append(kernel)
            for shape, kernels in shapes.items():
                wanted = torch.stack([self._direction(kernel).reshape(shape) for kernel in kernels])
                length = STEP_SIZE * math.sqrt(max(shape)) * group["lr"]
                for kernel, move in zip(kernels, orthogonalise(wanted), strict=True):
                    kernel.mul_(1.0 - WEIGHT_DECAY * group["lr"])
                    kernel.sub_(move.reshape(kernel.shape), alpha=length)

    def _direction(self, kernel: Tensor) -> Tensor:
        """The gradient, and its mean over time, after Nesterov."""
        assert kernel.grad is not None
        state = self.state[kernel]
        if not state:
            state["mean"] = torch.zeros_like(kernel)
        mean: Tensor = state["mean"].lerp_(kernel.grad, 1.0 - MOMENTUM)
        return kernel.grad.lerp(mean, MOMENTUM)


@torch.no_grad()
def orthogonalise(matrices: Tensor) -> Tensor:
    """Matrices with the same singular vectors, and singular values of about 1: 0.7 to 1.2.

    Five steps of a quintic iteration, which raises small values fast and leaves the others about 1.
    Values under a thousandth of the norm may stay smaller.

    Args:
        matrices: (..., rows, columns).
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-12)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    result: Tensor = x.mT if tall else x
    return result


class Together:
    """Optimisers of different weights, used like one.

    Args:
        parts: them.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = tuple(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """Move everything that has a gradient."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """States of all parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set what `state_dict` returned."""
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(own)


def _groups(groups: Iterable[tuple[Iterable[nn.Parameter], float]]) -> list[dict[str, Any]]:
    return [{"params": list(parameters), "scale": scale} for parameters, scale in groups]


def _without(
    parameters: Iterable[nn.Parameter], others: Sequence[nn.Parameter]
) -> list[nn.Parameter]:
    taken = {id(parameter) for parameter in others}
    return [parameter for parameter in parameters if id(parameter) not in taken]
