"""Rewritten graphs give what the graphs gave, by the operations that were wanted."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from linocut.lab.networks.rewrites import rewritten

RNG = np.random.default_rng(7)
SHUFFLE = {"blocksize": 2, "mode": "CRD"}


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def model_of(nodes, constants, results=("y",), kind=TensorProto.FLOAT) -> onnx.ModelProto:
    """A graph of x (1, 6, h, w) and, perhaps, s and t (1, 8, 1, 1)."""
    free = {"s": [1, 8, 1, 1], "t": [1, 8, 1, 1], "x": [1, 6, "h", "w"]}
    seen = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(k, 1, v) for k, v in free.items() if k in seen],
        [helper.make_tensor_value_info(name, kind, [None] * 4) for name in results],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def results_of(model: onnx.ModelProto) -> list[np.ndarray]:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    rng = np.random.default_rng(1)
    sides = {"x": (1, 6, 5, 7), "s": (1, 8, 1, 1), "t": (1, 8, 1, 1)}
    inputs = {one.name: rng.normal(size=sides[one.name]) for one in session.get_inputs()}
    return session.run(None, {key: one.astype(np.float32) for key, one in inputs.items()})


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def both(nodes, constants, **facts) -> tuple[list[str], list[str]]:
    """Operations before and after, with results that agree."""
    before = model_of(nodes, constants, **facts)
    after = rewritten(model_of(nodes, constants, **facts))
    for found, expected in zip(results_of(after), results_of(before), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    return kinds(before), kinds(after)


@pytest.mark.parametrize("biased", [True, False])
def test_a_shuffled_convolution_is_one_transposed_convolution(biased):
    constants = {"k": weights(8, 6, 1, 1)} | ({"b": weights(8)} if biased else {})
    nodes = [
        helper.make_node("Conv", ["x", *constants], ["m"], kernel_shape=[1, 1]),
        helper.make_node("DepthToSpace", ["m"], ["y"], **SHUFFLE),
    ]
    _, after = both(nodes, constants)
    assert after.count("ConvTranspose") == 1
    assert not {"Conv", "DepthToSpace"} & set(after)


@pytest.mark.parametrize("why", ["seen twice", "a result", "in groups", "other order", "3x3"])
def test_other_shuffled_convolutions_stay(why):
    constants = {"k": weights(8, 3 if why == "in groups" else 6, 1, 1)}
    how = {"kernel_shape": [1, 1], "group": 2 if why == "in groups" else 1}
    if why == "3x3":
        constants["k"], how = weights(8, 6, 3, 3), {"kernel_shape": [3, 3], "pads": [1] * 4}
    shuffle = SHUFFLE | ({"mode": "DCR"} if why == "other order" else {})
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["m"], **how),
        helper.make_node("DepthToSpace", ["m"], ["y"], **shuffle),
    ]
    results = ["y"]
    if why == "seen twice":
        nodes.append(helper.make_node("Neg", ["m"], ["z"]))
        results.append("z")
    elif why == "a result":
        results.append("m")
    before, after = both(nodes, constants, results=results)
    assert before == after


def test_bytes_are_shuffled_instead_of_floats():
    half, low, high = (np.array(value, np.float32) for value in (0.5, 0.0, 255.0))
    numbers = {"k": weights(12, 6, 3, 3), "h": half, "l": low, "u": high}
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("DepthToSpace", ["c"], ["d"], **SHUFFLE),
        helper.make_node("Sub", ["h", "d"], ["e"]),
        helper.make_node("Mul", ["e", "u"], ["f"]),
        helper.make_node("Round", ["f"], ["g"]),
        helper.make_node("Clip", ["g", "l", "u"], ["i"]),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.UINT8),
    ]
    _, after = both(nodes, numbers, kind=TensorProto.UINT8)
    assert after == ["Conv", "Sub", "Mul", "Round", "Clip", "Cast", "DepthToSpace"]


def test_a_shuffle_does_not_pass_what_treats_places_differently():
    numbers = {"k": weights(1, 3, 1, 14)}
    nodes = [
        helper.make_node("Concat", ["x", "x"], ["c"], axis=1),
        helper.make_node("DepthToSpace", ["c"], ["d"], **SHUFFLE),
        helper.make_node("Mul", ["d", "k"], ["y"]),
    ]
    before, after = both(nodes, numbers)
    assert before == after


@pytest.mark.parametrize("biased", [True, False])
def test_a_modulated_convolution_has_modulated_weights(biased):
    constants = {"k": weights(8, 6, 3, 3)} | ({"b": weights(8)} if biased else {})
    nodes = [
        helper.make_node("Conv", ["x", *constants], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Mul", ["c", "s"], ["m"]),
        helper.make_node("Add", ["m", "t"], ["y"]),
    ]
    _, after = both(nodes, constants)
    assert after[-1] == "Conv"
    assert after.count("Mul") == 1 + biased
