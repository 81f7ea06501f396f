"""Muon's steps are orthogonal, and those of a slow reference; every weight has one optimiser."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from linocut.lab.training.optimiser import (
    MOMENTUM,
    STEP_SIZE,
    Muon,
    Together,
    build_optimiser,
    orthogonalise,
)
from linocut.lab.training.rate import RateProxy
from tiny import awake

SHAPES = [(12, 9 * 13), (64, 64), (160, 64)]


def kernels():
    torch.manual_seed(0)
    shapes = ((16, 3, 3, 3), (16, 3, 3, 3), (40, 5, 1, 1))
    return [nn.Parameter(torch.randn(shape)) for shape in shapes]


def set_gradients(parameters, seed, size=1.0):
    for index, parameter in enumerate(parameters):
        rng = np.random.default_rng([seed, index])
        values = torch.from_numpy(size * rng.standard_normal(tuple(parameter.shape)))
        parameter.grad = values.to(parameter.dtype)


def reference_step(weight, gradient, mean, learning_rate):
    """One kernel in double precision, word by word from the definition."""
    mean = MOMENTUM * mean + (1 - MOMENTUM) * gradient
    x = ((1 - MOMENTUM) * gradient + MOMENTUM * mean).reshape(len(weight), -1)
    length = STEP_SIZE * math.sqrt(max(x.shape))
    x = x / np.linalg.norm(x)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * (x @ x.T) @ x + 2.0315 * (x @ x.T) @ (x @ x.T) @ x
    kept = (1.0 - 0.1 * learning_rate) * weight
    return kept - learning_rate * length * x.reshape(weight.shape), mean


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_come_out_near_one_and_singular_vectors_stay(shape):
    torch.manual_seed(0)
    u, _, vt = torch.linalg.svd(torch.randn(3, *shape, dtype=torch.float64), full_matrices=False)
    given = torch.logspace(-1, 0, u.shape[-1], dtype=torch.float64)
    matrix = u * given @ vt
    core = u.mT @ orthogonalise(matrix) @ vt.mT
    values = torch.diagonal(core, dim1=1, dim2=2)
    torch.testing.assert_close(core, torch.diag_embed(values), atol=1e-9, rtol=0)
    assert 0.65 < float(values.min()) <= float(values.max()) < 1.25


def test_steps_are_those_of_a_slow_reference():
    parameters = kernels()
    expected = [parameter.detach().double().numpy().copy() for parameter in parameters]
    means = [np.zeros_like(weight) for weight in expected]
    optimiser = Muon(parameters, lr=0.01)
    for seed in range(3):
        set_gradients(parameters, seed)
        for index, parameter in enumerate(parameters):
            gradient = parameter.grad.double().numpy()
            expected[index], means[index] = reference_step(
                expected[index], gradient, means[index], 0.01
            )
        optimiser.step()
    for parameter, weight in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(parameter.detach(), weight, atol=2e-6)


def test_a_step_is_as_long_as_it_says_however_long_the_gradient_is():
    ends = []
    for size in (1.0, 1e-4):
        parameters = kernels()
        before = [parameter.detach().clone() for parameter in parameters]
        set_gradients(parameters, 0, size)
        Muon(parameters, lr=0.01).step()
        ends.append([parameter.detach() for parameter in parameters])
        for old, new in zip(before, parameters, strict=True):
            moved = float((new.detach() - old).square().mean().sqrt())
            assert moved == pytest.approx(STEP_SIZE * 0.01, rel=0.25)
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_a_kernel_without_gradient_stays():
    parameters = kernels()
    set_gradients(parameters, 0)
    parameters[0].grad = None
    before = parameters[0].detach().clone()
    Muon(parameters, lr=0.01).step()
    assert torch.equal(parameters[0], before)


@pytest.mark.parametrize("architecture", ["cae", "generative", "cae2018"])
@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_every_weight_has_one_group_and_lifting_weights_are_the_slowest(architecture, kind):
    network = awake(architecture)
    proxy = RateProxy(network.bands)
    optimiser = build_optimiser(kind, network, proxy, 0.01)
    found = [id(p) for group in optimiser.param_groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for m in (network, proxy) for p in m.parameters())
    scales = {id(p): g["scale"] for g in optimiser.param_groups for p in g["params"]}
    linear = {id(p) for p in network.linear_parameters()}
    others = {id(p) for p in network.parameters()} - linear
    if linear:
        assert max(scales[p] for p in linear) < min(scales[p] for p in others)


def test_muon_takes_the_kernels_of_convolutions_that_have_many_outputs():
    network = awake("cae")
    optimiser = build_optimiser("muon", network, RateProxy(network.bands), 0.01)
    muon, adam = optimiser.parts
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    taken = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    assert "synthesis_net.leave.weight" in taken
    assert all(name.endswith("weight") for name in taken)
    left = [p for group in adam.param_groups for p in group["params"] if id(p) in names]
    assert not any(p.ndim == 4 and len(p) >= 12 for p in left)


def test_a_state_that_was_saved_goes_on_bit_by_bit():
    def optimiser(parameters):
        return Together([Muon(parameters[:2], lr=0.01), torch.optim.Adam(parameters[2:], lr=0.01)])

    whole, halves = kernels(), kernels()
    first, one = optimiser(whole), optimiser(halves)
    for seed in range(4):
        if seed == 2:
            again = optimiser(halves)
            again.load_state_dict(one.state_dict())
            one = again
        for parameters, made in ((whole, first), (halves, one)):
            set_gradients(parameters, seed)
            made.step()
            made.zero_grad()
    for a, b in zip(whole, halves, strict=True):
        assert a.grad is None
        assert torch.equal(a, b)
