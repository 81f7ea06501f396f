"""What runs the networks for the codec: the one door behind which they are.

    window, uint8 (h, w, 3)   --analysis--> y: bands (c, h / stride, w / stride), grey levels
    y_hat, step, scale        --synthesis--> picture, uint8 (h, w, 3)
    y_hat                     --linear--> what the linear path alone makes of it
    linear, step, picture     --look--> features of the last layer, and what they leave to repair
    strips of those           --sums--> normal equations of `linocut.codec.correction`

`GraphTransforms` runs the graphs of a model's folder with ONNX Runtime. A graph is a few tens of
kilobytes that say which operations follow each other; the weights lie in model.safetensors, where
the graphs point to them. `linocut.lab.networks.export` writes graphs, and
`linocut.lab.networks.torch_transforms` offers the same operations of a network in training.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from linocut.entropy.planes import Band
from linocut.errors import CheckpointError, ConfigError

Picture = NDArray[np.uint8]
"""Colours, sRGB, (h, w, 3)."""

Latent = list[NDArray[np.float32]]
"""Bands (c, h, w) in grey levels."""

GRAPHS = ("analysis", "synthesis", "corrected", "linear", "look", "sums")
"""Names of a folder's graphs, without `.onnx`; networks without a `last_layer` have two."""


@dataclass(frozen=True)
class Geometry:
    """The shape of a network's latent, and what pictures it takes.

    Attributes:
        bands: of the latent, in coding order.
        multiple: sides of pictures are multiples of this, px.
        reach: how far a pixel's influence goes through analysis and synthesis together, px; tiles
            need this much around them to show no seam.
        fixed_bits: where samples of the latent have codes of fixed length, the numbers of bits
            that make the rate points; empty where symbols are entropy-coded.
        features: channels that enter the last layer, which a picture may have of its own; None
            where there is no such layer.
        frame: px around a part of the linear path that let the part's features come out as in the
            whole, all but exactly; None where features are not made of the linear path alone.
    """

    bands: tuple[Band, ...]
    multiple: int
    reach: int
    fixed_bits: tuple[int, ...] = ()
    features: int | None = None
    frame: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As model.json has it; a band is [name, channels, stride, parent, smooth]."""
        rows = [[b.name, b.channels, b.stride, b.parent, b.smooth] for b in self.bands]
        return {
            "bands": rows,
            "multiple": self.multiple,
            "reach": self.reach,
            "fixed_bits": list(self.fixed_bits),
            "features": self.features,
            "frame": self.frame,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Geometry:
        """Undo `to_json`.

        Raises:
            KeyError, TypeError, ValueError: it is not one.
        """
        bands = tuple(
            Band(str(name), int(channels), int(stride), parent, bool(smooth))
            for name, channels, stride, parent, smooth in found["bands"]
        )
        if not bands or min(found["multiple"], *(min(b.channels, b.stride) for b in bands)) < 1:
            raise ValueError("bands, channels, strides and `multiple` must be at least 1")
        features, frame = found["features"], found.get("frame")
        return cls(
            bands,
            int(found["multiple"]),
            int(found["reach"]),
            tuple(int(bits) for bits in found["fixed_bits"]),
            None if features is None else int(features),
            None if frame is None else int(frame),
        )


class Transforms(Protocol):
    """The operations of one network; see the head of this module."""

    @property
    def geometry(self) -> Geometry:
        """What pictures the network takes, and the shape of their latents."""

    @property
    def at_once(self) -> int:
        """How many operations are worth running at the same time, from threads of the caller's."""

    def analysis(self, window: Picture) -> Latent:
        """g_a: sides multiples of `multiple` -> y."""

    def synthesis(
        self, y_hat: Latent, step: float, scale: NDArray[np.float32] | None = None
    ) -> Picture:
        """g_s: y_hat and the step in grey levels -> the picture.

        `scale` (5, c) suits the last layer to one picture: factors of the three colours, then what
        those of luma become more in quiet and in busy places; None for 1, 1, 1, 0, 0.
        """

    def linear(self, y_hat: Latent) -> NDArray[np.float32]:
        """What the linear path makes of a latent: rotated grey levels (3, h, w)."""

    def look(
        self, linear: NDArray[np.float32], y_hat: Latent, step: float, picture: Picture
    ) -> tuple[NDArray[np.float32], ...]:
        """What the last layer sees and should do, with m = h / 2 and n = w / 2.

        Args:
            linear: of `linear`; with a `frame` also a part of it, sides and places multiples of 4.
            y_hat: the whole latent; not looked at where there is a `frame`.
            step: in grey levels.
            picture: uint8 (h, w, 3), what should be there.

        Returns:
            features (c, m, n); what is missing to the picture (12, m, n), three colours of four
            pixels each, in units of the residual; how quiet and how busy these are (8, m, n).
        """

    def sums(
        self, features: NDArray[np.float32], missing: NDArray[np.float32],
        places: NDArray[np.float32], step: float,
    ) -> tuple[NDArray[np.float32], ...]:  # fmt: skip
        """Normal equations of strips (., m, n) of what `look` gives, in grey levels squared.

        Args:
            features: (c, m + 2, n + 2), with a frame of one sample.
            missing: (12, m, n).
            places: (8, m, n).
            step: in grey levels.

        Returns:
            Products of the shares of two features for luma (3 c, 3 c) and two colours (c, c), then
            the products of shares and what is missing (3 c,), (c,), (c,).
        """


class GraphTransforms:
    """The graphs of a folder, run by ONNX Runtime; each is read when it is first needed.

    Safe to share between threads. Copies that are pickled, and those in a forked process, read the
    graphs again: the threads of ONNX Runtime live in one process.

    Args:
        folder: of a model.
        geometry: of its network.
        device: `cpu`, `cuda`, or `auto` for CUDA where it can be used.
        threads: of an operation; None for the environment's OMP_NUM_THREADS, or else all cores
            that this process may use. They do not spin: a waiting thread takes no time from others.

    Raises:
        CheckpointError: a graph is missing.
        ConfigError: the device cannot be used here.
    """

    def __init__(
        self, folder: pathlib.Path, geometry: Geometry, device: str = "cpu",
        threads: int | None = None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.device = device
        self._geometry = geometry
        self.threads = threads
        needed = GRAPHS if geometry.features is not None else GRAPHS[:2]
        missing = [name for name in needed if not self._path(name).is_file()]
        if missing:
            raise CheckpointError(
                f"{folder} lacks {', '.join(f'{name}.onnx' for name in missing)}: "
                f"`python -m linocut.lab.networks.export {folder}` writes the graphs of a network"
            )
        if device != "cpu":
            _check_device(device)
        self._clear()

    @property
    def geometry(self) -> Geometry:
        """See `Transforms`."""
        return self._geometry

    @property
    def at_once(self) -> int:
        """See `Transforms`; small operations leave some of the threads without work."""
        return (self.threads or own_threads()) if self.device == "cpu" else 1

    def analysis(self, window: Picture) -> Latent:
        """See `Transforms`."""
        return self._run("analysis", {"window": window})

    def synthesis(
        self, y_hat: Latent, step: float, scale: NDArray[np.float32] | None = None
    ) -> Picture:
        """See `Transforms`."""
        inputs = self._bands(y_hat) | _step(step)
        if scale is not None:
            picture: Picture = self._run("corrected", inputs | {"scale": scale})[0]
        else:
            picture = self._run("synthesis", inputs)[0]
        return picture

    def linear(self, y_hat: Latent) -> NDArray[np.float32]:
        """See `Transforms`."""
        found: NDArray[np.float32] = self._run("linear", self._bands(y_hat))[0]
        return found

    def look(
        self, linear: NDArray[np.float32], y_hat: Latent, step: float, picture: Picture
    ) -> tuple[NDArray[np.float32], ...]:
        """See `Transforms`."""
        bands = self._bands(y_hat) if self._geometry.frame is None else {}
        inputs = bands | {"linear": linear, "picture": picture}
        return tuple(self._run("look", inputs | _step(step)))

    def sums(
        self, features: NDArray[np.float32], missing: NDArray[np.float32],
        places: NDArray[np.float32], step: float,
    ) -> tuple[NDArray[np.float32], ...]:  # fmt: skip
        """See `Transforms`."""
        inputs = {"features": features, "missing": missing, "places": places}
        return tuple(self._run("sums", inputs | _step(step)))

    def _bands(self, y_hat: Latent) -> dict[str, NDArray[Any]]:
        return {b.name: values for b, values in zip(self._geometry.bands, y_hat, strict=True)}

    def _run(self, name: str, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        session = self._session(name)
        found: list[Any] = session.run(
            None, {key: np.ascontiguousarray(inputs[key]) for key in inputs}
        )
        return found

    def _session(self, name: str) -> Any:
        if self._process != os.getpid():
            _LEFT_ALONE.append(self._sessions)  # its threads stayed behind in the other process
            self._clear()
        with self._lock:
            if name not in self._sessions:
                self._sessions[name] = _open(self._path(name), self.device, self.threads)
            return self._sessions[name]

    def _path(self, name: str) -> pathlib.Path:
        return self.folder / f"{name}.onnx"

    def _clear(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._sessions: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        kept = ("folder", "device", "_geometry", "threads")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._clear()


def _step(step: float) -> dict[str, NDArray[Any]]:
    return {"step": np.array([step], np.float32)}


_LEFT_ALONE: list[Any] = []
"""Sessions of the process that this one was forked from: ending them would wait for its threads."""

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
DEVICES = ("cpu", "cuda", "auto")


def own_threads() -> int:
    """How many threads an operation may use where nobody says."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    if named.isdecimal() and int(named) > 0:
        return int(named)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_cuda() -> bool:
    """Whether ONNX Runtime can use a GPU here."""
    import onnxruntime

    return _CUDA in onnxruntime.get_available_providers()


def _check_device(device: str) -> None:
    if device not in DEVICES:
        raise ConfigError(f"device is {device!r}, expected one of {', '.join(DEVICES)}")
    if device == "cuda" and not has_cuda():
        raise ConfigError(
            'device cuda: this ONNX Runtime has no CUDA: pip install "linocut[gpu]", then '
            "pip install --force-reinstall --no-deps onnxruntime-gpu, in the place of onnxruntime"
        )


def _open(path: pathlib.Path, device: str, threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or own_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors: what is less is no concern of a user's
    options.enable_mem_pattern = False  # plans for one size, and sizes change from tile to tile
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    wanted = [_CUDA, _CPU] if device != "cpu" and has_cuda() else [_CPU]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # its errors share no base class
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} cannot be run: {reason}") from None
    if device == "cuda" and _CUDA not in session.get_providers():
        raise ConfigError("device cuda: ONNX Runtime finds no CUDA device or libraries of it here")
    return session


# --- NumPy's own threads, which would be in the way of the network's ------------------------------


@contextlib.contextmanager
def numpy_on_one_thread() -> Iterator[None]:
    """Keep NumPy's matrix products on the calling thread.

    Threads of a BLAS library wait for the next product by spinning, for some milliseconds. The
    codec's small products hardly gain from them, and a network that follows finds the cores taken.

    The limit is one of the process: the first thread that enters sets it, and the last that leaves
    puts back what the first one found, in whatever order they leave. Where another thread is inside
    of `threadpoolctl.threadpool_limits`, its limit stays. A process forked in the middle starts
    without users, and with the number of threads as it was before them.
    """
    limit = _LIMIT
    limit.enter()
    try:
        yield
    finally:
        limit.leave()


class _Limit:
    """Counts its users, who want one thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: Any = None

    def enter(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before = _libraries().limit(limits=1, user_api="blas")
                _let_go()
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self.restore()

    def restore(self) -> None:
        if self._before is not None:
            self._before.restore_original_limits()
            _let_go()
            self._before = None


_LIMIT = _Limit()


def _start_anew() -> None:
    """In a forked process: no thread of the other one will ever leave."""
    global _LIMIT
    inherited, _LIMIT = _LIMIT, _Limit()
    inherited.restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


def _let_go() -> None:
    """Let other threads set the number, too: threadpoolctl 3.8 keeps it for the last that did."""
    with _libraries().limit(limits=None):
        pass


@functools.cache
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
