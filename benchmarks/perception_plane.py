"""Rate, distortion and perception: how far an adversary's decoder goes, at several rates.

    python -m benchmarks.perception_plane cae-l2 WEIGHT... --pictures FOLDER --out FOLDER
    python -m benchmarks.perception_plane cae-l2 generative-l2 --pictures FOLDER --out FOLDER

Decoders that went on from one codec, each in a folder that is named by its weight on the adversary,
say; or, of one alone, those between the codec's own (share 0) and it (share 1), and a little
beyond: weights that lie on the line through both, which is how a decoder can be chosen after its
training (Wang et al. 2018). All read the same files. The table has PSNR against the Frechet
distance of `linocut.lab.studies.twin`, whose controls are in scores.csv and frechet.csv.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from linocut.codec.codec import Codec
from linocut.errors import ConfigError, LinocutError
from linocut.lab.data.sources import pictures_below
from linocut.lab.evaluation.rows import FrechetRow, TwinRow, read_rows
from linocut.lab.networks.networks import Cae
from linocut.lab.networks.store import load_model
from linocut.lab.studies.twin import CONTROLS, PLAIN, decoders_of, measure_decoders, new_files
from linocut.lab.training.recipes import generator_of
from linocut.models import folders

SHARES = (0.25, 0.5, 0.75, 1.0, 1.25)
STEPS = (144.0, 96.0, 48.0, 24.0)
HEAD = ("bpp", "decoder", "PSNR [dB]", "SSIMULACRA 2", "feature distance", "Frechet distance")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table and draw plane.png; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("plain", help="shipped name or folder")
    parser.add_argument("trained", nargs="+", help="shipped names or folders, by rising weight")
    parser.add_argument("--pictures", type=Path, required=True, help="folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=float, nargs="+", default=list(STEPS))
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES),
                        help="of the way to a decoder that comes alone")  # fmt: skip
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        place, *places = [folders.folder_of(name) for name in (options.plain, *options.trained)]
        codec, plain = Codec.load(place), generator_of(load_model(place))
        trained = {one.name: generator_of(load_model(one)) for one in places}
        if len({PLAIN, *CONTROLS, *trained}) < 1 + len(CONTROLS) + len(places):
            raise ConfigError(f"folders of one name, or a taken one: {', '.join(map(str, places))}")
        if len(trained) == 1:
            (end,) = trained.values()
            trained = {f"{share:g}": between(plain, end, share) for share in options.shares}
        pictures = [file.path for file in pictures_below(str(options.pictures))]
        files = new_files(codec, pictures, options.steps)
        measure_decoders(files, decoders_of(codec, {PLAIN: plain} | trained), options.out)
    except LinocutError as error:
        print(f"benchmarks.perception_plane: {error}", file=sys.stderr)
        return 1
    plane = table_of(options.out)
    print(f"| {' | '.join(HEAD)} |\n|{' ---: |' * len(HEAD)}")
    for row in plane.itertuples():
        numbers = f"{row.psnr_db:.2f} | {row.ssimulacra2:.1f} | {row.feature_distance:.4f}"
        print(f"| {row.bpp:.3f} | {row.decoder} | {numbers} | {row.frechet_distance:.1f} |")
    draw(plane, options.out / "plane.png")
    return 0


def between(plain: Cae, adversarial: Cae, share: float) -> Cae:
    """The decoder that lies this far on the way from one to the other."""
    network, other = copy.deepcopy(plain), adversarial.state_dict()
    network.load_state_dict(
        {
            name: value + share * (other[name] - value) if value.is_floating_point() else value
            for name, value in plain.state_dict().items()
        }
    )
    return network


def table_of(out: Path) -> pd.DataFrame:
    """By point and decoder, the plain one first: means over the pictures, Frechet distance."""
    scores = pd.DataFrame(read_rows(out / "scores.csv", TwinRow))
    frechet = pd.DataFrame(read_rows(out / "frechet.csv", FrechetRow))
    frechet = frechet[(frechet["reference"] == PLAIN) & ~frechet["decoder"].isin(list(CONTROLS))]
    means = scores.groupby(["point", "decoder"]).mean(numeric_only=True).reset_index()
    return frechet[["decoder", "point", "frechet_distance"]].merge(means, on=["point", "decoder"])


def draw(plane: pd.DataFrame, path: Path) -> None:
    """One line for each rate, from the plain decoder on."""
    matplotlib.use("agg")
    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    colours = plt.colormaps["viridis"].resampled(plane["point"].nunique() + 1)
    for point, group in plane.groupby("point"):
        lost = group["psnr_db"] - group["psnr_db"].iloc[0]
        ratio = group["frechet_distance"] / group["frechet_distance"].iloc[0]
        label = f"{group['bpp'].iloc[0]:.2f} bpp, {group['psnr_db'].iloc[0]:.1f} dB"
        axes.plot(lost, ratio, "o-", color=colours(int(str(point))), label=label)
        if point == plane["point"].max():
            steep = np.gradient(ratio) < np.gradient(lost) / 2.0  # above a point is the line, then
            labels = zip(group["decoder"], lost, ratio, ~steep, strict=True)
            for name, x, y, above in [label for label in labels if label[0] != PLAIN]:
                offset, side = ((0, 6), "center") if above else ((-6, -3), "right")
                axes.annotate(name, (x, y), offset, textcoords="offset points", ha=side, fontsize=8)
    axes.set_xlabel("PSNR against the plain decoder [dB]")
    axes.set_ylabel("Frechet distance, share of the plain decoder's")
    axes.invert_xaxis()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
