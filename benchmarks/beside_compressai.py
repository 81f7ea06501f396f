"""Time compress and decompress beside CompressAI's factorized prior and AVIF, in one run.

    pip install --no-deps --target .compressai compressai==1.2.8
    python -m benchmarks.beside_compressai [--packages .compressai] [--picture FILE] [--threads N]

CompressAI's models have untrained weights: they take the time of trained ones. Sizes of their files
mean nothing, so no size of theirs is shown. What CompressAI imports and this
comparison never uses (torchvision, point clouds) is replaced by empty modules. Every codec works on
a picture in memory. Rounds alternate between the codecs; shown are medians, and their ratio to
linocut's.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import io
import statistics
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from benchmarks.codec_speed import measure
from linocut.codec.codec import Codec
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.pictures.image import read_image

ROOT = Path(__file__).resolve().parents[1]
UNUSED = ("torchvision", "torch_geometric", "einops", "matplotlib")
QUALITIES = (3, 7)
AVIF_SPEED, AVIF_QUALITY = 4, 60
Pair = tuple[Callable[[], Any], Callable[[Any], Any]]
"""Compress, and decompress of what it returned."""


class _Empty(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an empty module under every name in `UNUSED`; whatever is asked of it is a mock."""

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """A module of these packages, or None."""
        if name.split(".")[0] not in UNUSED:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """One whose attributes are mocks."""
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: mock.MagicMock()  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packages", type=Path, default=ROOT / ".compressai")
    parser.add_argument("--picture", type=Path, help="default: a generated one, 768 x 512 px")
    parser.add_argument("--model", default="default", help="name or folder")
    parser.add_argument("--step", type=float, default=40.0, help="quantisation step, grey levels")
    parser.add_argument("--threads", type=int, help="default: torch's choice")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    if not (options.packages / "compressai").is_dir():
        print(f"{options.packages} holds no compressai: see the top of this file", file=sys.stderr)
        return 1
    if options.threads:
        torch.set_num_threads(options.threads)
    picture = read_image(options.picture) if options.picture else dead_leaves(512, 768, 0)
    codec = Codec.load(options.model, threads=options.threads)
    codecs: dict[str, Pair] = {f"linocut {codec.name}": _linocut(codec, picture, options.step)}
    for quality in QUALITIES:
        name = f"CompressAI bmshj2018-factorized {quality}"
        codecs[name] = _compressai(options.packages, picture, quality)
    codecs[f"AVIF, speed {AVIF_SPEED}"] = _avif(picture, options.threads or torch.get_num_threads())
    times: dict[str, list[list[float]]] = {name: [[], []] for name in codecs}
    for repeat in range(options.repeats + 1):
        for name, (compress, decompress) in codecs.items():
            started = time.perf_counter()
            data = compress()
            between = time.perf_counter()
            decompress(data)
            if repeat:  # the first round warms up
                times[name][0].append(between - started)
                times[name][1].append(time.perf_counter() - between)
    print(
        f"{picture.shape[1]} x {picture.shape[0]} px, {torch.get_num_threads()} threads, medians "
        f"of {options.repeats} rounds, in brackets fastest and slowest\n"
    )
    _print(times)
    share = measure(codec, picture, options.step, 2, options.repeats)[0]["decompress"]
    print(f"\nentropy decoding: {100 * share['coding'] / share['total']:.0f} % of decompression")
    return 0


def _print(times: dict[str, list[list[float]]]) -> None:
    medians = {name: [statistics.median(one) for one in both] for name, both in times.items()}
    first = next(iter(medians.values()))
    print("| codec | compress [s] | ratio | decompress [s] | ratio |\n| --- |" + " ---: |" * 4)
    for name, both in times.items():
        cells = []
        for direction in (0, 1):
            low, high = min(both[direction]), max(both[direction])
            median = medians[name][direction]
            cells += [f"{median:.3f} ({low:.3f}, {high:.3f})", f"{median / first[direction]:.2f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def _linocut(codec: Codec, picture: np.ndarray[Any, Any], step: float) -> Pair:
    return lambda: codec.compress(picture, step=step), codec.decompress


def _compressai(packages: Path, picture: np.ndarray[Any, Any], quality: int) -> Pair:
    if str(packages) not in sys.path:
        sys.path.append(str(packages))
        sys.meta_path.insert(0, _Empty())
    from compressai.zoo import bmshj2018_factorized  # type: ignore[import-not-found]

    torch.manual_seed(0)
    model = bmshj2018_factorized(quality, pretrained=False).eval()
    model.update()

    def compress() -> Any:
        x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255.0
        with torch.inference_mode():
            return model.compress(x)

    def decompress(found: Any) -> Any:
        with torch.inference_mode():
            x_hat = model.decompress(found["strings"], found["shape"])["x_hat"]
        return (x_hat[0] * 255.0).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()

    return compress, decompress


def _avif(picture: np.ndarray[Any, Any], threads: int) -> Pair:
    image = Image.fromarray(picture)

    def compress() -> bytes:
        file = io.BytesIO()
        image.save(file, "AVIF", quality=AVIF_QUALITY, speed=AVIF_SPEED, max_threads=threads)
        return file.getvalue()

    return compress, lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


if __name__ == "__main__":
    sys.exit(main())
