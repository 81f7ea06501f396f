"""LPIPS and FID of a cell's files and of its twin decoders: an extra with pretrained networks.

    pip install lpips pytorch-fid torchvision      torchvision of the same build as torch
    python -m benchmarks.deep_scores [--cell cae-l2] [--root .] [--patch-px 128]

On first use both packages fetch their networks: AlexNet (233 MB) from PyTorch, for LPIPS, and an
Inception network (91 MB) from GitHub, for FID. LPIPS is the mean over the pictures, with a 95 %
interval. FID is over overlapping patches of all pictures; with fewer than 2048 of them its
covariance is not of full rank, and it compares the rows of one table with each other alone.
"""

from __future__ import annotations

import argparse
import sys
import urllib.error
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from linocut.codec.codec import Codec
from linocut.errors import DataError, LinocutError
from linocut.format.bitstream import CORRECTION, unpack
from linocut.lab.evaluation.rd import percentile_interval, resample_pictures
from linocut.lab.evaluation.rows import TWIN_DECODERS, CodedRow, read_rows
from linocut.lab.networks.store import load_model
from linocut.lab.networks.torch_transforms import TorchTransforms
from linocut.pictures.image import RgbArray, read_image

NEEDS = (
    "needs the packages lpips, pytorch-fid and torchvision (of the same build as torch), and on "
    "first use the network, for AlexNet (233 MB) and Inception (91 MB)"
)
OWN = "own"
DRAWS = 2000
FULL_RANK = 2048

Lpips = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Two pictures (1, 3, h, w) in [-1, 1] -> their distance."""

Features = Callable[[torch.Tensor], NDArray[np.float64]]
"""Patches (n, 3, s, s) in [0, 1] -> features (n, 2048)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; 2 where the networks are not to be had."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cell", default="cae-l2")
    parser.add_argument("--root", type=Path, default=Path(), help="checkout, after `make repro`")
    parser.add_argument("--patch-px", type=int, default=128, help="side of FID's patches")
    options = parser.parse_args(arguments)
    try:
        distance, features, frechet = load_networks()
    except (ImportError, OSError, RuntimeError, urllib.error.URLError) as error:
        print(f"deep_scores: {error}; {NEEDS}", file=sys.stderr)
        return 2
    try:
        rows = scores(options.root, options.cell, options.patch_px, distance, features, frechet)
    except LinocutError as error:
        print(f"deep_scores: {error}", file=sys.stderr)
        return 1
    print("\n".join(rows))
    return 0


def load_networks() -> tuple[Lpips, Features, Callable[..., float]]:
    """LPIPS, Inception's features, and the distance of two Gaussians, from their packages."""
    import lpips
    from pytorch_fid.fid_score import calculate_frechet_distance
    from pytorch_fid.inception import InceptionV3

    distance = lpips.LPIPS(net="alex", verbose=False).eval()
    inception = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()

    def features(patches: torch.Tensor) -> NDArray[np.float64]:
        found: torch.Tensor = inception(patches)[0]
        return found.mean((2, 3)).double().numpy()

    return distance, features, calculate_frechet_distance


@torch.no_grad()
def scores(
    root: Path, cell: str, patch_px: int, distance: Lpips, features: Features,
    frechet: Callable[..., float],
) -> list[str]:  # fmt: skip
    """The lines of a Markdown table: a row for each rate point and decoder.

    Raises:
        DataError: the cell is not there, or its pictures are smaller than a patch.
    """
    coded = root / "artifacts/coded" / cell
    files = read_rows(coded / "coded.csv", CodedRow)
    tests = root / "artifacts/prepared/test"
    originals = {row.picture: read_image(tests / f"{row.picture}.png") for row in files}
    if min(min(image.shape[:2]) for image in originals.values()) < patch_px:
        raise DataError(f"the smallest test picture has a side below {patch_px} px: --patch-px")
    real = _gaussian(originals.values(), patch_px, features)
    lines = [
        f"FID over {real[2]} patches of {patch_px} px"
        + (f": fewer than {FULL_RANK}, for this table alone." if real[2] < FULL_RANK else "."),
        "",
        "| rate [bpp] | decoder | LPIPS | FID |",
        "|---:|---|---|---:|",
    ]
    for name, codec in _decoders(root, cell).items():
        for point in sorted({row.point for row in files}):
            mine = [row for row in files if row.point == point]
            decoded = {
                row.picture: _decoded(
                    codec, coded / "files" / f"{row.picture}-{point}.lino", own=name == OWN
                )
                for row in mine
            }
            found = np.array(
                [float(distance(_signed(originals[k]), _signed(one))) for k, one in decoded.items()]
            )
            draws = resample_pictures(len(found), DRAWS)
            interval = percentile_interval(float(found.mean()), found[draws].mean(1))
            fake = _gaussian(decoded.values(), patch_px, features)
            pixels = sum(image.shape[0] * image.shape[1] for image in originals.values())
            bpp = 8 * sum(row.bytes for row in mine) / pixels
            lpips = f"{interval.estimate:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
            fid = frechet(*real[:2], *fake[:2])
            lines.append(f"| {bpp:.3f} | {name} | {lpips} | {fid:.1f} |")
    return lines


def _decoders(root: Path, cell: str) -> dict[str, Codec]:
    """The cell's own decoder, and its twins where there are any."""
    folder = root / "artifacts/coded" / cell / "codec"
    found = {OWN: Codec.load(folder)}
    for which in TWIN_DECODERS:
        twin = root / "artifacts/studies/twin" / cell / which
        if twin.is_dir():
            found[which] = found[OWN].with_transforms(TorchTransforms(load_model(twin)))
    return found


def _decoded(codec: Codec, path: Path, *, own: bool) -> RgbArray:
    """A file's picture; its correction of the last layer is for the cell's own decoder alone."""
    file = unpack(path.read_bytes())
    return codec.decode(file if own else file.without(CORRECTION)).picture


def _gaussian(
    images: Any, patch_px: int, features: Features
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Mean and covariance of the features of all patches, and the number of patches."""
    rows = np.concatenate([features(batch) for batch in _patches(images, patch_px)])
    return rows.mean(0), np.cov(rows, rowvar=False), len(rows)


def _patches(images: Any, side: int) -> Iterator[torch.Tensor]:
    """Overlapping patches in [0, 1], a batch for each picture."""
    for image in images:
        x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255.0
        tiles = x.unfold(1, side, side // 2).unfold(2, side, side // 2)
        yield tiles.permute(1, 2, 0, 3, 4).reshape(-1, 3, side, side)


def _signed(image: RgbArray) -> torch.Tensor:
    x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    return x / 127.5 - 1.0


if __name__ == "__main__":
    sys.exit(main())
