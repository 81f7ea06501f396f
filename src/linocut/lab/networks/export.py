"""A network -> graphs for ONNX Runtime: what makes a folder of weights a complete codec.

    network --two passes over small pictures--> calls of torch --one by one--> nodes --> NAME.onnx
    model.safetensors <--offsets-- initializers of the graphs

    python -m linocut.lab.networks.export FOLDER    (writes the graphs of a model's folder anew)

Every call of a forward pass is recorded with what it got and gave. What differs between two passes
over pictures of different sizes depends on the size, the rest is constant; so a graph takes
pictures of any size, and this takes a tenth of a second where `torch.onnx.export`, which reasons
about symbolic sizes, takes a minute. A network with a call that is not among `_NODES` goes through
`torch.onnx.export`. Either way the graphs are run at a third size and compared with PyTorch.
"""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import struct
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from linocut.codec.transforms import GRAPHS, GraphTransforms
from linocut.errors import CheckpointError
from linocut.files import write_atomically
from linocut.lab.networks import torch_transforms as operations
from linocut.lab.networks.layers import grid_of
from linocut.lab.networks.networks import Network
from linocut.lab.networks.rewrites import rewritten
from linocut.lab.networks.store import (
    description_text,
    load_model,
)
from linocut.lab.networks.torch_transforms import TorchTransforms, geometry_of
from linocut.models.folders import DESCRIPTION, WEIGHTS, read_description

OPSET = 18
CHECKED_STEP = 24.0
MOST_DIFFERENCE = 2
"""Grey levels by which a pixel of the graphs may differ from PyTorch's: rounding, at most."""
_SIZES = ((2, 3), (4, 5), (3, 4))
"""Sides of the pictures of both passes and of the check, in units of what a network takes."""
_END = 2**63 - 1


def write_graphs(folder: pathlib.Path, network: Network) -> int:
    """Write the graphs of a network beside its weights, and what the codec needs into model.json.

    Args:
        folder: holds the model.safetensors and model.json of this very network.
        network: on the CPU, in evaluation mode.

    Returns:
        The largest difference of a pixel from PyTorch, in grey levels, which model.json has, too.

    Raises:
        CheckpointError: the graphs and PyTorch do not agree.
    """
    weights = Weights.of(folder / WEIGHTS, network)
    geometry = geometry_of(network)
    for name in GRAPHS if geometry.features is not None else GRAPHS[:2]:
        model = graph_of(network, name, weights)
        write_atomically(folder / f"{name}.onnx", model.SerializeToString(deterministic=True))
    difference = largest_difference(network, GraphTransforms(folder, geometry))
    if difference > MOST_DIFFERENCE:
        raise CheckpointError(
            f"{folder}: pixels of the graphs differ from PyTorch's by {difference} grey levels, "
            f"expected at most {MOST_DIFFERENCE}"
        )
    found = read_description(folder)
    found["latent"] = geometry.to_json()
    found["largest_pixel_difference"] = difference
    write_atomically(folder / DESCRIPTION, description_text(found).encode())
    return difference


def largest_difference(network: Network, graphs: GraphTransforms) -> int:
    """Of a pixel decoded by the graphs from one decoded by PyTorch, grey levels.

    Noise and edges go through both analyses, and what they give through both syntheses.
    """
    own, rng = TorchTransforms(network), np.random.default_rng(0)
    height, width = (length * network.multiple for length in _SIZES[2])
    slope = np.linspace(0, 255, width, dtype=np.uint8)[None, :, None]
    window = np.broadcast_to(slope, (height, width, 3)).copy()
    window[height // 3 :] = rng.integers(0, 256, (height - height // 3, width, 3))
    found = 0
    scales: list[NDArray[np.float32] | None] = [None]
    if graphs.geometry.features is not None:
        scales.append(rng.uniform(0.5, 1.5, (5, graphs.geometry.features)).astype(np.float32))
    for scale in scales:
        one = graphs.synthesis(graphs.analysis(window), CHECKED_STEP, scale)
        other = own.synthesis(own.analysis(window), CHECKED_STEP, scale)
        found = max(found, int(np.abs(one.astype(np.int16) - other).max()))
    return found


@dataclass(frozen=True)
class Weights:
    """Where the numbers of a network lie in its model.safetensors.

    Attributes:
        names: of parameters and buffers, by the `id` of their tensors.
        places: offset and length in bytes, by name.
    """

    names: Mapping[int, str]
    places: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, path: pathlib.Path, network: Network) -> Weights:
        """Read the header of the file."""
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
        places = {
            name: (
                8 + size + facts["data_offsets"][0],
                facts["data_offsets"][1] - facts["data_offsets"][0],
            )
            for name, facts in header.items()
            if name != "__metadata__" and facts["dtype"] in ("F32", "F16")
        }
        known = [*network.named_parameters(), *network.named_buffers()]
        names = {id(tensor): f"network.{name}" for name, tensor in known}
        return cls({key: name for key, name in names.items() if name in places}, places)


def graph_of(network: Network, name: str, weights: Weights) -> onnx.ModelProto:
    """One of `linocut.codec.transforms.GRAPHS`."""
    first, second = (_inputs(network, name, size) for size in _SIZES[:2])
    function = _FUNCTIONS[name]
    with torch.no_grad():
        tapes = [_record(function, network, inputs) for inputs in (first, second)]
        try:
            model = rewritten(_Writer(weights).write(name, first, *tapes))
        except _NotKnownError as error:
            print(f"{name}.onnx: {error}; torch.onnx.export takes its time", file=sys.stderr)
            model = _exported(network, name, first, weights)
    return _read_as_floats(model)


def _analysis(network: Network, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    made = operations.analysis(network, inputs["window"])
    return {band.name: one for band, one in zip(network.bands, made, strict=True)}


def _synthesis(network: Network, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    bands = [inputs[band.name] for band in network.bands]
    return {"decoded": operations.synthesis(network, inputs["step"], bands)}


def _corrected(network: Network, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    bands = [inputs[band.name] for band in network.bands]
    return {"decoded": operations.corrected(network, inputs["step"], inputs["scale"], bands)}


def _linear_path(network: Network, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"linear": operations.linear(network, [inputs[band.name] for band in network.bands])}


def _look(network: Network, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    bands = [inputs[band.name] for band in network.bands if band.name in inputs]
    made = operations.look(network, inputs["step"], inputs["picture"], inputs["linear"], bands)
    return dict(zip(("features", "missing", "places"), made, strict=True))


def _sums(network: Network, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    made = operations.sums(
        network, inputs["step"], inputs["features"], inputs["missing"], inputs["places"]
    )
    return {f"sum{index}": one for index, one in enumerate(made)}


_FUNCTIONS: dict[str, Callable[[Network, Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "analysis": _analysis,
    "synthesis": _synthesis,
    "corrected": _corrected,
    "linear": _linear_path,
    "look": _look,
    "sums": _sums,
}


def _inputs(network: Network, name: str, size: tuple[int, int]) -> dict[str, Tensor]:
    """Inputs of a graph for a picture of a size in units of the network's."""
    height, width = (length * network.multiple for length in size)
    if name == "analysis":
        return {"window": _window(height, width)}
    step = {"step": torch.tensor([CHECKED_STEP])}
    layer = network.last_layer
    if name == "sums":
        assert layer is not None
        m, n = height // 2, width // 2
        return step | {
            "features": torch.rand(layer.in_channels, m + 2, n + 2),
            "missing": torch.rand(12, m, n),
            "places": torch.rand(8, m, n),
        }
    bands = {
        band.name: 40.0 * torch.rand(band.channels, height // band.stride, width // band.stride)
        for band in network.bands
    }
    if name == "corrected":
        assert layer is not None
        return step | {"scale": torch.rand(5, layer.in_channels)} | bands
    if name == "linear":
        return bands
    if name == "look":
        seen = step | {"picture": _window(height, width), "linear": torch.randn(3, height, width)}
        return seen if network.frame is not None else seen | bands
    return step | bands


def _window(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)


@dataclass(frozen=True)
class _Call:
    """A call of torch: what was called with what, and what it gave."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any


class _Recorder(TorchFunctionMode):
    """Keeps every call of torch made in its `with` block, with all tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append(_Call(func, tuple(args), dict(kwargs or {}), result))
        return result


@dataclass(frozen=True)
class _Tape:
    """A pass: its calls, its inputs and its results by name."""

    calls: Sequence[_Call]
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


def _record(
    function: Callable[..., dict[str, Tensor]], network: Network, inputs: Mapping[str, Tensor]
) -> _Tape:
    with _Recorder() as recorder:
        outputs = function(network, inputs)
    return _Tape(recorder.calls, inputs, outputs)


class _NotKnownError(Exception):
    """A call for which there is no node."""


class _Writer:
    """Turns the calls of a pass into nodes; those that no input reaches are constants."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self.names: dict[int, str] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._alive: list[Any] = []

    def write(
        self, name: str, inputs: Mapping[str, Tensor], tape: _Tape, other: _Tape
    ) -> onnx.ModelProto:
        """The whole graph.

        Args:
            name: of the graph.
            inputs: tensors of the first pass by name.
            tape: the first pass.
            other: the same at another size.
        """
        self.names = {id(tensor): key for key, tensor in inputs.items()}
        made_of = [_without_reads(one.calls) for one in (tape, other)]
        if [call.function for call in made_of[0]] != [call.function for call in made_of[1]]:
            raise _NotKnownError("what it does depends on the size of the picture")
        for call, twin in zip(*made_of, strict=True):
            if not any(id(one) in self.names for one in _tensors((call.args, call.kwargs))):
                continue  # a constant, known already
            write = _permute if _is_transposition(call.function) else _NODES.get(call.function)
            if write is None:
                raise _NotKnownError(f"{_name_of(call.function)} is not among its operations")
            made = write(self, call, twin)
            results = _tensors(call.result)
            for tensor, key in zip(results, [made] if isinstance(made, str) else made, strict=True):
                self.names[id(tensor)] = key
            self._alive.append(call)
        for key, tensor in tape.outputs.items():
            self.nodes.append(helper.make_node("Identity", [self.name(tensor)], [key]))
        graph = helper.make_graph(
            self.nodes,
            name,
            [_value(key, tensor, other.inputs[key]) for key, tensor in inputs.items()],
            [_value(key, tensor, other.outputs[key]) for key, tensor in tape.outputs.items()],
            list(self.initializers.values()),
        )
        return _model(graph)

    def add(self, kind: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> Any:
        """A node; gives the name of its output, or a list of several."""
        made = [f"t{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), made, **attributes))
        return made[0] if outputs == 1 else made

    def name(self, value: Any, shape: Sequence[int] | None = None) -> str:
        """Name of a tensor or a number; a constant becomes an initializer, perhaps reshaped."""
        if isinstance(value, Tensor) and id(value) in self.names:
            return self.names[id(value)]
        if isinstance(value, Tensor):
            self._alive.append(value)
            own = self.weights.names.get(id(value))
            if own is not None:
                return self._outside(own, tuple(value.shape if shape is None else shape))
            array = value.detach().numpy()
            return self.constant(array if shape is None else array.reshape(shape))
        return self.constant(np.array(value, dtype=np.float32))

    def constant(self, array: np.ndarray[Any, Any]) -> str:
        """Name of an initializer that lies in the graph itself."""
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            name = f"c{len(self._constants)}"
            self._constants[key] = name
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return self._constants[key]

    def is_convolved(self, name: str) -> bool:
        """Whether a convolution with constant weights gives it."""
        made = [node for node in self.nodes if name in node.output]
        return (
            made[0].op_type == "Conv" and made[0].input[1] in self.initializers if made else False
        )

    def integers(self, *values: int) -> str:
        """Name of a vector of whole numbers."""
        return self.constant(np.array(values, dtype=np.int64))

    def _outside(self, own: str, shape: tuple[int, ...]) -> str:
        name = own if own not in self.initializers else f"{own}:{'x'.join(map(str, shape))}"
        known = self.initializers.get(own)
        if known is not None and tuple(known.dims) == shape:
            return own
        self.initializers[name] = _external(name, shape, *self.weights.places[own])
        return name

    def reshape(self, call: _Call, twin: _Call) -> str:
        """A node for any call that only gives its first tensor another shape."""
        before, after = _tensors(call.args)[0].shape, call.result.shape
        other_before, other_after = _tensors(twin.args)[0].shape, twin.result.shape
        sides = list(zip(before, other_before, strict=True))
        wanted: list[int] = []
        for index, (one, two) in enumerate(zip(after, other_after, strict=True)):
            same = index < len(before) and sides[index] == (one, two)
            wanted.append(one if one == two else 0 if same else -1)
        source = self.name(_tensors(call.args)[0])
        if wanted.count(-1) < 2:
            return str(self.add("Reshape", [source, self.integers(*wanted)]))
        last = (after[-1], other_after[-1])
        if wanted.count(-1) > 2 or wanted[-1] != -1 or sides[-1] != last:
            raise _NotKnownError(f"{_name_of(call.function)} to {tuple(after)} knows two sizes")
        shape = self.add("Shape", [source], start=len(before) - 1)
        parts = [self.integers(*wanted[:-1]), shape]
        return str(self.add("Reshape", [source, self.add("Concat", parts, axis=0)]))


def _external(name: str, shape: Sequence[int], offset: int, length: int) -> TensorProto:
    """A tensor of floats whose numbers lie in the model.safetensors beside the graph."""
    proto = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=list(shape))
    proto.data_location = TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS), ("offset", offset), ("length", length)):
        proto.external_data.add(key=key, value=str(value))
    return proto


def _read_as_floats(model: onnx.ModelProto) -> onnx.ModelProto:
    """Cast weights that lie in half precision; ONNX Runtime does it once, as it opens a graph.

    Until here they pass for tensors of floats, and only their length tells: rules that look for
    constant weights need not know.
    """
    casts = []
    for weight in model.graph.initializer:
        places = {one.key: one.value for one in weight.external_data}
        if int(places.get("length", 0)) == 2 * math.prod(weight.dims):
            name = weight.name
            weight.name, weight.data_type = f"{name}.half", TensorProto.FLOAT16
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    made.ir_version = 8  # what ONNX Runtime reads since 1.13
    made.producer_name = "linocut"
    return made


def _value(name: str, tensor: Tensor, other: Tensor) -> onnx.ValueInfoProto:
    kinds = {torch.uint8: TensorProto.UINT8, torch.float32: TensorProto.FLOAT}
    sides = [
        one if one == two else f"{name}{index}"
        for index, (one, two) in enumerate(zip(tensor.shape, other.shape, strict=True))
    ]
    return helper.make_tensor_value_info(name, kinds[tensor.dtype], sides)


def _without_reads(calls: Sequence[_Call]) -> list[_Call]:
    """The calls that give tensors: not those that ask for a shape or a device."""
    return [call for call in calls if _tensors(call.result)]


def _tensors(values: Any) -> list[Tensor]:
    """Tensors among arguments or results, nested as they may be."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, Mapping):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    return [tensor for value in values for tensor in _tensors(value)]


def _name_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", None) or function)


Write = Callable[[_Writer, _Call, _Call], Any]


def _argument(call: _Call, position: int, name: str, default: Any = None) -> Any:
    if len(call.args) > position:
        return call.args[position]
    return call.kwargs.get(name, default)


def _binary(kind: str, *, swapped: bool = False) -> Write:
    def write(writer: _Writer, call: _Call, twin: _Call) -> str:
        if call.kwargs.get("alpha", 1) != 1 or call.kwargs.get("rounding_mode"):
            raise _NotKnownError(f"{_name_of(call.function)} with {dict(call.kwargs)}")
        _same(call, twin)
        operands = [writer.name(one) for one in call.args[:2]]
        return str(writer.add(kind, operands[::-1] if swapped else operands))

    return write


def _unary(kind: str, **attributes: Any) -> Write:
    def write(writer: _Writer, call: _Call, twin: _Call) -> str:
        _same(call, twin)
        return str(writer.add(kind, [writer.name(call.args[0])], **attributes))

    return write


def _same(call: _Call, twin: _Call) -> None:
    """Refuse a call whose numbers depend on the size of the picture."""
    if _numbers((call.args, call.kwargs)) != _numbers((twin.args, twin.kwargs)):
        raise _NotKnownError(f"{_name_of(call.function)} gets numbers that depend on the size")


def _numbers(values: Any) -> list[Any]:
    if isinstance(values, Tensor):
        return []
    if isinstance(values, Mapping):
        values = values.values()
    elif isinstance(values, slice):
        values = (values.start, values.stop, values.step)
    elif not isinstance(values, list | tuple):
        return [values]
    return [number for value in values for number in _numbers(value)]


def _identity(writer: _Writer, call: _Call, twin: _Call) -> str:
    return writer.name(call.args[0])


def _log2(writer: _Writer, call: _Call, twin: _Call) -> str:
    natural = writer.add("Log", [writer.name(call.args[0])])
    return str(writer.add("Mul", [natural, writer.name(1.0 / np.log(2.0))]))


def _log1p(writer: _Writer, call: _Call, twin: _Call) -> str:
    more = writer.add("Add", [writer.name(call.args[0]), writer.name(1.0)])
    return str(writer.add("Log", [more]))


def _square(writer: _Writer, call: _Call, twin: _Call) -> str:
    x = writer.name(call.args[0])
    return str(writer.add("Mul", [x, x]))


def _clamp(writer: _Writer, call: _Call, twin: _Call) -> str:
    low, high = _argument(call, 1, "min"), _argument(call, 2, "max")
    ends = ["" if end is None else writer.name(float(end)) for end in (low, high)]
    return str(writer.add("Clip", [writer.name(call.args[0]), *ends]))


def _to(writer: _Writer, call: _Call, twin: _Call) -> str:
    kinds = {torch.float32: TensorProto.FLOAT, torch.uint8: TensorProto.UINT8}
    source, wanted = call.args[0], call.result.dtype
    if source.dtype == wanted:
        return writer.name(source)
    if wanted not in kinds:
        raise _NotKnownError(f"a tensor becomes {wanted}")
    return str(writer.add("Cast", [writer.name(source)], to=kinds[wanted]))


def _permute(writer: _Writer, call: _Call, twin: _Call) -> str:
    source = call.args[0]
    order = list(range(source.dim()))
    if call.function in (Tensor.permute, torch.permute):
        wanted = call.args[1:] if isinstance(call.args[1], int) else call.args[1]
        order = [int(axis) % source.dim() for axis in wanted]
    else:
        one, two = (-2, -1) if len(call.args) == 1 else (call.args[1], call.args[2])
        order[one], order[two] = order[two], order[one]
    return str(writer.add("Transpose", [writer.name(source)], perm=order))


def _is_transposition(function: Any) -> bool:
    """Whether it reads the attribute `mT` or `T`."""
    return getattr(function, "__self__", None) in (Tensor.mT, Tensor.T)


def _getitem(writer: _Writer, call: _Call, twin: _Call) -> str:
    _same(call, twin)
    source, index = call.args[0], call.args[1]
    index = index if isinstance(index, tuple) else (index,)
    if any(one is not None and not isinstance(one, int | slice | type(...)) for one in index):
        raise _NotKnownError("an index that is a tensor")
    given = sum(one is not None and one is not ... for one in index)
    if ... not in index:
        index = (*index, ...)
    at = index.index(...)
    index = (*index[:at], *(slice(None),) * (source.dim() - given), *index[at + 1 :])
    cuts: list[tuple[int, int, int, int]] = []
    gone: list[int] = []
    new: list[int] = []
    axis = 0
    for one in index:
        if one is None:
            new.append(axis - len(gone) + len(new))
            continue
        if isinstance(one, int):
            cuts.append((axis, one, one + 1 if one != -1 else _END, 1))
            gone.append(axis)
        elif one != slice(None):
            stop = _END if one.stop is None else one.stop
            cuts.append((axis, one.start or 0, stop, one.step or 1))
        axis += 1
    name = writer.name(source)
    if cuts:
        axes, starts, stops, steps = zip(*cuts, strict=True)
        sides = [writer.integers(*side) for side in (starts, stops, axes, steps)]
        name = writer.add("Slice", [name, *sides])
    if gone:
        name = writer.add("Squeeze", [name, writer.integers(*gone)])
    if new:
        name = writer.add("Unsqueeze", [name, writer.integers(*new)])
    return name


def _cat(writer: _Writer, call: _Call, twin: _Call) -> str:
    names = [writer.name(one) for one in call.args[0]]
    axis = int(_argument(call, 1, "dim", 0))
    return str(writer.add("Concat", names, axis=axis % call.result.dim()))


def _stack(writer: _Writer, call: _Call, twin: _Call) -> str:
    axis = int(_argument(call, 1, "dim", 0)) % call.result.dim()
    at = writer.integers(axis)
    names = [writer.add("Unsqueeze", [writer.name(one), at]) for one in call.args[0]]
    return str(writer.add("Concat", names, axis=axis))


def _split(writer: _Writer, call: _Call, twin: _Call) -> list[str]:
    source = call.args[0]
    axis = int(_argument(call, 2, "dim", 0)) % source.dim()
    sizes = [part.shape[axis] for part in call.result]
    if sizes != [part.shape[axis] for part in twin.result]:
        raise _NotKnownError("parts whose sizes depend on the size of the picture")
    names = [writer.name(source), writer.integers(*sizes)]
    made = writer.add("Split", names, len(sizes), axis=axis)
    return [made] if isinstance(made, str) else list(made)


def _unbind(writer: _Writer, call: _Call, twin: _Call) -> list[str]:
    axis = int(_argument(call, 1, "dim", 0)) % call.args[0].dim()
    source, at = writer.name(call.args[0]), writer.integers(axis)
    if len(call.result) != len(twin.result):
        raise _NotKnownError("as many parts as the picture is large")
    return [
        writer.add(
            "Squeeze",
            [writer.add("Slice", [source, writer.integers(i), writer.integers(i + 1), at]), at],
        )
        for i in range(len(call.result))
    ]


def _expand_as(writer: _Writer, call: _Call, twin: _Call) -> str:
    shape = writer.add("Shape", [writer.name(call.args[1])])
    return str(writer.add("Expand", [writer.name(call.args[0]), shape]))


def _sum(writer: _Writer, call: _Call, twin: _Call) -> str:
    axes = _argument(call, 1, "dim")
    if axes is None:
        raise _NotKnownError("a sum over everything")
    axes = [axes] if isinstance(axes, int) else list(axes)
    kind = "ReduceMean" if call.function in (Tensor.mean, torch.mean) else "ReduceSum"
    keep = int(bool(_argument(call, 2, "keepdim", False)))
    names = [writer.name(call.args[0])]
    if kind == "ReduceSum" or OPSET >= 18:
        names.append(writer.integers(*axes))
    return str(writer.add(kind, names, keepdims=keep))


def _pair(value: Any) -> list[int]:
    return (
        [int(value)] * 2
        if isinstance(value, int)
        else [int(one) for one in value] * (2 // len(value))
    )


def _convolution(writer: _Writer, call: _Call, twin: _Call) -> str:
    x, weight, bias = (_argument(call, i, key) for i, key in enumerate(("input", "weight", "bias")))
    stride, padding = _argument(call, 3, "stride", 1), _argument(call, 4, "padding", 0)
    if isinstance(padding, str):
        raise _NotKnownError(f"a convolution with padding {padding!r}")
    sides: dict[str, Any] = {"strides": _pair(stride), "pads": _pair(padding) * 2}
    sides |= {"group": int(_argument(call, 6, "groups", 1)), "kernel_shape": list(weight.shape[2:])}
    names = [writer.name(x), writer.name(weight)] + ([] if bias is None else [writer.name(bias)])
    if call.function is torch.conv2d:
        sides["dilations"] = _pair(_argument(call, 5, "dilation", 1))
        return str(writer.add("Conv", names, **sides))
    sides["output_padding"] = _pair(_argument(call, 5, "output_padding", 0))
    sides["dilations"] = _pair(_argument(call, 7, "dilation", 1))
    return str(writer.add("ConvTranspose", names, **sides))


def _linear(writer: _Writer, call: _Call, twin: _Call) -> str:
    x, weight, bias = (_argument(call, i, key) for i, key in enumerate(("input", "weight", "bias")))
    if x.dim() != 2:
        raise _NotKnownError("a linear layer of more than two axes")
    names = [writer.name(x), writer.name(weight)] + ([] if bias is None else [writer.name(bias)])
    return str(writer.add("Gemm", names, transB=1))


def _prelu(writer: _Writer, call: _Call, twin: _Call) -> str:
    """ONNX Runtime's own PRelu takes four times as long.

    With a up to 1 it is a x + relu((1 - a) x), whose product and relu are one pass behind a
    convolution, or the larger one of x and a x, where x is in the layout of other operations.
    """
    x, slope = writer.name(call.args[0]), call.args[1].detach()
    shape = (slope.numel(), *(1,) * (call.args[0].dim() - 2))
    first = writer.add("Mul", [x, writer.name(call.args[1], shape)])
    rest = writer.constant((1.0 - slope).numpy().reshape(shape))
    if bool((slope > 1.0).any()):
        other = writer.add("Mul", [writer.add("Relu", [x]), rest])
    elif writer.is_convolved(x):
        other = writer.add("Relu", [writer.add("Mul", [x, rest])])
    else:
        return str(writer.add("Max", [x, first]))
    return str(writer.add("Add", [first, other]))


def _leaky(writer: _Writer, call: _Call, twin: _Call) -> str:
    slope = float(_argument(call, 1, "negative_slope", 0.01))
    return str(writer.add("LeakyRelu", [writer.name(call.args[0])], alpha=slope))


def _shuffle(writer: _Writer, call: _Call, twin: _Call) -> str:
    x, factor = writer.name(call.args[0]), int(call.args[1])
    return str(writer.add("DepthToSpace", [x], blocksize=factor, mode="CRD"))


def _unshuffle(writer: _Writer, call: _Call, twin: _Call) -> str:
    x, factor = call.args[0], int(call.args[1])
    channels = x.shape[1]
    made = writer.add("SpaceToDepth", [writer.name(x)], blocksize=factor)  # (place, channel)
    order = [place * channels + c for c in range(channels) for place in range(factor**2)]
    return str(writer.add("Gather", [made, writer.integers(*order)], axis=1))


def _resize(writer: _Writer, call: _Call, twin: _Call) -> str:
    scale = _argument(call, 2, "scale_factor")
    mode = _argument(call, 3, "mode", "nearest")
    if mode != "bilinear" or scale is None or _argument(call, 4, "align_corners"):
        raise _NotKnownError(f"interpolation {mode!r}")
    factors = np.array([1, 1, scale, scale], dtype=np.float32)
    names = [writer.name(call.args[0]), "", writer.constant(factors)]
    how = "pytorch_half_pixel"
    return str(writer.add("Resize", names, mode="linear", coordinate_transformation_mode=how))


def _batch_norm(writer: _Writer, call: _Call, twin: _Call) -> str:
    x, mean, variance = call.args[:3]
    weight, bias = _argument(call, 3, "weight"), _argument(call, 4, "bias")
    if _argument(call, 5, "training", False):
        raise _NotKnownError("batch normalisation in training")
    names = [writer.name(one) for one in (x, weight, bias, mean, variance)]
    return str(
        writer.add("BatchNormalization", names, epsilon=float(_argument(call, 7, "eps", 1e-5)))
    )


def _average(writer: _Writer, call: _Call, twin: _Call) -> str:
    kernel = _pair(call.args[1])
    stride = _argument(call, 2, "stride")
    return str(
        writer.add(
            "AveragePool",
            [writer.name(call.args[0])],
            kernel_shape=kernel,
            strides=kernel if stride is None else _pair(stride),
            pads=_pair(_argument(call, 3, "padding", 0)) * 2,
            count_include_pad=int(bool(_argument(call, 5, "count_include_pad", True))),
        )
    )


def _einsum(writer: _Writer, call: _Call, twin: _Call) -> str:
    """Mixing of channels, as a convolution of one pixel; anything else as it is."""
    equation, *operands = call.args
    matrix = operands[0]
    mixing = {"ij,njhw->nihw": False, "ij,nihw->njhw": True}.get(equation.replace(" ", ""))
    if mixing is None or id(matrix) in writer.names:
        names = [writer.name(one) for one in operands]
        return str(writer.add("Einsum", names, equation=equation))
    kernel = (matrix.T if mixing else matrix).detach().numpy()[:, :, None, None]
    names = [writer.name(operands[1]), writer.constant(np.ascontiguousarray(kernel))]
    return str(writer.add("Conv", names, kernel_shape=[1, 1]))


def _grid(writer: _Writer, call: _Call, twin: _Call) -> str:
    rows, like = call.args
    shape = writer.add("Shape", [writer.name(like)])
    sides = writer.add("Gather", [shape, writer.integers(0, 2, 3)], axis=0)
    rest = writer.integers(*rows.shape[1:])
    return str(
        writer.add("Reshape", [writer.name(rows), writer.add("Concat", [sides, rest], axis=0)])
    )


def _reshape(writer: _Writer, call: _Call, twin: _Call) -> str:
    return writer.reshape(call, twin)


_NODES: dict[Any, Write] = {
    **{one: _binary("Add") for one in (Tensor.add, Tensor.__add__, Tensor.__radd__, torch.add)},
    **{one: _binary("Mul") for one in (Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.mul)},
    **{one: _binary("Sub") for one in (Tensor.sub, Tensor.__sub__, torch.sub)},
    Tensor.__rsub__: _binary("Sub", swapped=True),
    **{one: _binary("Div") for one in (Tensor.div, Tensor.__truediv__, torch.div)},
    Tensor.__rtruediv__: _binary("Div", swapped=True),
    **{one: _binary("MatMul") for one in (Tensor.matmul, Tensor.__matmul__, torch.matmul)},
    **{one: _binary("Max") for one in (Tensor.maximum, torch.maximum)},
    **{one: _binary("Min") for one in (Tensor.minimum, torch.minimum)},
    **{one: _unary("Abs") for one in (Tensor.abs, torch.abs)},
    **{one: _unary("Neg") for one in (Tensor.neg, Tensor.__neg__, torch.neg)},
    **{one: _unary("Exp") for one in (Tensor.exp, torch.exp)},
    **{one: _unary("Log") for one in (Tensor.log, torch.log)},
    **{one: _unary("Sqrt") for one in (Tensor.sqrt, torch.sqrt)},
    **{one: _unary("Tanh") for one in (Tensor.tanh, torch.tanh)},
    **{one: _unary("Sigmoid") for one in (Tensor.sigmoid, torch.sigmoid, functional.sigmoid)},
    **{one: _unary("Relu") for one in (Tensor.relu, torch.relu, functional.relu)},
    **{one: _unary("Softplus") for one in (functional.softplus,)},
    **{one: _unary("Round") for one in (Tensor.round, Tensor.round_, torch.round)},
    **dict.fromkeys((Tensor.contiguous, Tensor.detach, Tensor.clone), _identity),
    **dict.fromkeys((Tensor.log2, torch.log2), _log2),
    **dict.fromkeys((Tensor.log1p, torch.log1p), _log1p),
    **dict.fromkeys((Tensor.square, torch.square), _square),
    **dict.fromkeys((Tensor.clamp, Tensor.clamp_, torch.clamp), _clamp),
    **dict.fromkeys((Tensor.to, Tensor.float), _to),
    **dict.fromkeys((Tensor.permute, torch.permute, Tensor.transpose, torch.transpose), _permute),
    Tensor.__getitem__: _getitem,
    torch.cat: _cat,
    torch.stack: _stack,
    **dict.fromkeys((Tensor.split, torch.split, Tensor.chunk, torch.chunk), _split),
    **dict.fromkeys((Tensor.unbind, torch.unbind), _unbind),
    Tensor.expand_as: _expand_as,
    **dict.fromkeys((Tensor.sum, torch.sum, Tensor.mean, torch.mean), _sum),
    torch.conv2d: _convolution,
    torch.conv_transpose2d: _convolution,
    functional.linear: _linear,
    **dict.fromkeys((Tensor.prelu, torch.prelu), _prelu),
    functional.leaky_relu: _leaky,
    functional.pixel_shuffle: _shuffle,
    functional.pixel_unshuffle: _unshuffle,
    functional.interpolate: _resize,
    functional.batch_norm: _batch_norm,
    functional.avg_pool2d: _average,
    torch.einsum: _einsum,
    grid_of: _grid,
    **dict.fromkeys((Tensor.reshape, Tensor.view, torch.reshape), _reshape),
    **dict.fromkeys((Tensor.flatten, torch.flatten, Tensor.unflatten), _reshape),
}  # fmt: skip


class _Module(nn.Module):
    """A graph's function as `torch.onnx.export` takes it."""

    def __init__(self, network: Network, name: str, inputs: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self._name, self._inputs = name, tuple(inputs)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Inputs in order -> outputs in order."""
        inputs = dict(zip(self._inputs, tensors, strict=True))
        return tuple(_FUNCTIONS[self._name](self.network, inputs).values())


def _exported(
    network: Network, name: str, inputs: Mapping[str, Tensor], weights: Weights
) -> onnx.ModelProto:
    """The graph as PyTorch's own exporter makes it."""
    dynamic = torch.export.Dim.DYNAMIC
    sized = {key: {i: dynamic for i, _ in _sized(key, tensor)} for key, tensor in inputs.items()}
    outputs = list(_FUNCTIONS[name](network, inputs))
    with _quietly():
        program = torch.onnx.export(
            _Module(network, name, list(inputs)), tuple(inputs.values()), dynamo=True,
            opset_version=OPSET, dynamic_shapes=(tuple(sized.values()),), verbose=False,
            input_names=list(inputs), output_names=outputs,
        )  # fmt: skip
    assert program is not None
    made = program.model_proto
    for index, proto in enumerate(made.graph.initializer):
        place = weights.places.get(proto.name)
        if place is not None and place[1] in [size * math.prod(proto.dims) for size in (2, 4)]:
            made.graph.initializer[index].CopyFrom(_external(proto.name, proto.dims, *place))
    return made


def _sized(key: str, tensor: Tensor) -> list[tuple[int, int]]:
    """Axes of an input whose length depends on the size of the picture."""
    if key in ("step", "scale"):
        return []
    axes = (0, 1) if key in ("window", "picture") else (1, 2)
    return [(axis, tensor.shape[axis]) for axis in axes]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield


def main() -> None:
    """Write the graphs of the folders that the command line names."""
    for name in sys.argv[1:]:
        folder = pathlib.Path(name)
        difference = write_graphs(folder, load_model(folder))
        print(f"{folder}: pixels differ from PyTorch's by at most {difference}")


if __name__ == "__main__":
    main()
