"""Context networks give the same whole numbers however they are computed."""

import numpy as np
import pytest

from linocut.entropy.context_network import LARGEST_BIAS, LARGEST_WEIGHT, ContextNetwork
from symbols import random_network


def in_integers(network, x, plane, kind):
    """The same by Python's integers of any size."""
    x = x.astype(int)
    sums = network.first[plane].astype(object) @ x + network.first_bias[plane, kind][:, None]
    hidden = np.clip((sums.astype(int) >> 8), 0, 255)
    sums = network.second.astype(object) @ hidden + network.second_bias[:, None]
    hidden = np.clip((sums.astype(int) >> 8), 0, 255)
    return network.last.astype(object) @ hidden + network.last_bias[plane, kind]


@pytest.mark.parametrize("seed", range(3))
def test_float_products_are_exact(seed):
    network = random_network(2, 28, seed, hidden=16)
    x = np.random.default_rng(seed).integers(-178, 256, (28, 500)).astype(np.float32)
    for plane, kind in ((0, 0), (1, 3)):
        expected = in_integers(network, x, plane, kind)
        np.testing.assert_array_equal(network(x, plane, kind), expected)


def extreme(hidden, inputs, sign=1):
    weight, bias = sign * LARGEST_WEIGHT, sign * LARGEST_BIAS
    return ContextNetwork(
        np.full((1, hidden, inputs), weight, np.int16), np.full((1, 4, hidden), bias, np.int32),
        np.full((hidden, hidden), weight, np.int16), np.full(hidden, bias, np.int32),
        np.full(hidden, weight, np.int16), np.full((1, 4), bias, np.int32),
    )  # fmt: skip


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_are_exact_too(sign):
    network = extreme(48, 48, sign)
    x = np.full((48, 3), 255, np.float32)
    x[0, 1], x[1, 2] = 254, 0
    np.testing.assert_array_equal(network(x, 0, 0), in_integers(network, x, 0, 0))


def test_odd_turns_with_its_inputs():
    network = random_network(1, 25, 5, hidden=8)
    x = np.random.default_rng(0).integers(-128, 129, (25, 200)).astype(np.float32)
    values = network.odd(x, 0, 2)
    np.testing.assert_array_equal(network.odd(-x, 0, 2), -values)
    assert not network.odd(np.zeros((25, 1), np.float32), 0, 2).any()
    assert values.any()


def test_networks_that_could_round_are_refused():
    with pytest.raises(ValueError, match="49 inputs and 2 hidden numbers, expected at most 48"):
        extreme(2, 49)
    network = extreme(2, 3)
    parts = [getattr(network, name) for name in network.__dataclass_fields__]
    parts[0] = parts[0] + np.int16(1)
    with pytest.raises(ValueError, match="first holds 1024, expected at most 1023"):
        ContextNetwork(*parts)
    parts[0] = network.first[:, :, 0]
    with pytest.raises(ValueError, match="expected 3 axes"):
        ContextNetwork(*parts)
    parts[0] = network.first
    parts[2] = network.second[:1]
    with pytest.raises(ValueError, match=r"second is \(1, 2\), expected \(2, 2\)"):
        ContextNetwork(*parts)


def test_tensors_bring_the_network_back():
    network = random_network(2, 6, 0)
    again = ContextNetwork.from_tensors(network.tensors("a.b"), "a.b")
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.testing.assert_array_equal(network(x, 1, 1), again(x, 1, 1))
