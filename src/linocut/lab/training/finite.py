"""A training that leaves the finite numbers ends there, and not with weights of NaN."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from linocut.errors import LinocutError


class DivergedError(LinocutError):
    """A number of a training is not finite."""


def require_finite(
    numbers: Mapping[str, float],
    iteration: int,
    iterations: int,
    learning_rate: float,
    step: Tensor | None = None,
) -> None:
    """Pass finite numbers.

    Args:
        numbers: by name.
        iteration: counted from 0.
        iterations: of the whole training.
        learning_rate: of the iteration.
        step: quantisation steps of its batch, grey levels.

    Raises:
        DivergedError: one is infinite or no number.
    """
    for name, number in numbers.items():
        if not math.isfinite(number):
            steps = "" if step is None else f"steps {step.min():.3g} to {step.max():.3g}, "
            raise DivergedError(
                f"the training diverged: {name} is {number} in iteration {iteration + 1} of "
                f"{iterations} ({steps}learning rate {learning_rate:.3g}); a lower learning rate "
                "may help"
            )


@torch.no_grad()
def largest(tensors: Iterable[Tensor]) -> float:
    """The largest magnitude in some tensors; NaN if any value is NaN, 0 for no tensors."""
    found = [tensor.abs().max().float().cpu() for tensor in tensors if tensor.numel()]
    return float(torch.stack(found).max()) if found else 0.0
