"""What restoring with every loss gave: tables, answers to the hypotheses, figure, pictures.

restored/<task>/<cell>/restored.csv, pictures/, codec-*/ + prepared/test --> restoration/<task>/
    report.md  control.csv  differences.csv  <arch>-noise.csv  *.png
"""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from linocut.errors import DataError
from linocut.lab.config.params import Params
from linocut.lab.evaluation.rd import Floats, percentile_interval
from linocut.lab.evaluation.rows import NoiseRow, RestoredRow, read_rows, write_rows
from linocut.lab.report import figures
from linocut.lab.report.figures import CROP_PX, labelled_row
from linocut.lab.report.tables import markdown_table
from linocut.lab.studies.restoration import BLUR, DEGRADED, variants
from linocut.pictures.image import busiest_corner, crop, read_image, write_png

ARMS = ("without a bottleneck", "with the bottleneck")
HOW = """\
All trainings of an architecture start from the same network (train.init: {init}), see
{megapixels:g} megapixels of the same crops, degraded in the same way, and differ in the loss and
the seed alone. With the bottleneck the scores are those of pictures decoded from files, read at one
rate; see `linocut.lab.report.restoration_section`. Differences: {seeds} seeds, {pictures} pictures,
95 % intervals from drawing both with replacement. {pictures} pictures are few: an interval says
what other pictures of this kind would change, not what other kinds would.
"""


def write_report(
    params: Params, task: str, restored: pathlib.Path, prepared: pathlib.Path, out: pathlib.Path
) -> str:
    """Compare the losses of every architecture in one task; returns the report's text.

    Args:
        params: the whole of params.yaml.
        task: name of the degradation.
        restored: a folder for every cell.
        prepared: train.npy, validation/, test/.
        out: report.md, tables and figures are written here; control.csv is there already, and
            <arch>-noise.csv where noise was studied.
    """
    out.mkdir(parents=True, exist_ok=True)
    lines = [f"# Restoration: {task} {_numbers(params, task)}\n"]
    scores: list[ScoreRow] = []
    control = read_rows(out / "control.csv", RestoredRow)
    for arch in params.grid.arch:
        rows = [
            row
            for loss in params.grid.loss
            for row in read_rows(restored / f"{arch}-{loss}" / "restored.csv", RestoredRow)
        ]
        losses = list(dict.fromkeys(row.loss for row in rows))
        pairs = [(loss, losses[0]) for loss in losses] + _mixes(params)
        pairs += [("l1", "l2")] if {"l1", "l2"} <= set(losses) else []
        found = compare_losses(rows, pairs, params.seed)
        scores += found
        lines += [f"## {arch}\n", *_tables(rows, found, losses, control), *_answers(params, found)]
        _draw(found, losses, out / f"{arch}-differences.png")
        lines += [f"![differences]({arch}-differences.png)\n"]
        shown = _strip(arch, losses, restored, prepared, out)
        lines += [f"![{name}]({name})\n" for name in shown]
        file = out / f"{arch}-noise.csv"
        if file.exists():
            means = noise_means(pd.DataFrame(read_rows(file, NoiseRow)))
            lines += _noise_table(params, means)
            _draw_noise(means, out / f"{arch}-noise.png")
            lines += [f"![noise tolerance]({arch}-noise.png)\n"]
    pictures = len({row.picture for row in rows})
    how = HOW.format(
        init=params.train.init,
        megapixels=params.restore.megapixels,
        seeds=params.restore.seeds,
        pictures=pictures,
    )
    lines.append(how)
    write_rows(out / "differences.csv", ScoreRow, scores)
    text = "\n".join(lines)
    (out / "report.md").write_text(text, encoding="utf-8")
    return text


def _numbers(params: Params, task: str) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in vars(params.task[task]).items())


def _mixes(params: Params) -> list[tuple[str, str]]:
    """Neighbouring pairs of the mixes that are trained."""
    names = [
        name
        for loss, option in params.loss.items()
        if loss in params.grid.loss and "alpha" in option.numbers
        for name, _ in variants(loss, option, params.restore.alphas)
    ]
    return list(itertools.pairwise(names))


def _tables(
    rows: Sequence[RestoredRow], found: Sequence[ScoreRow], losses: Sequence[str],
    control: Sequence[RestoredRow],
) -> list[str]:  # fmt: skip
    lines = []
    for arm, title in enumerate(ARMS):
        mine = {(row.score, row.loss): row for row in found if row.bottleneck == arm
                and row.against == losses[0]}  # fmt: skip
        rate = next(iter(mine.values())).bpp
        before = [f"{np.mean([getattr(row, f'input_{s}') for row in rows]):.4g}" for s in SCORES]
        table = [["degraded input", *before]]
        if not rate:
            blurred = [f"{np.mean([getattr(row, s) for row in control]):.4g}" for s in SCORES]
            table.append([f"{BLUR}, {control[0].step:g} px (control)", *blurred])
        table += [[loss, *(_cell(mine[score, loss]) for score in SCORES)] for loss in losses]
        lines += [
            f"### {title.capitalize()}{f', at {rate:.3f} bpp' if rate else ''}\n",
            f"Mean, and difference to {losses[0]} [95 % interval].\n",
            markdown_table(["loss", *SCORES.values()], table),
            "",
        ]
    return lines


def _cell(row: ScoreRow) -> str:
    if row.loss == row.against:
        return f"{row.value:.4g}"
    return f"{row.value:.4g}, {row.difference:+.3g} [{row.low:+.2g}, {row.high:+.2g}]"


def _answers(params: Params, found: Sequence[ScoreRow]) -> list[str]:
    """The hypotheses in words, with their intervals."""
    by = {(row.bottleneck, row.score, row.loss, row.against): row for row in found}
    lines = []
    if (0, "psnr_db", "l1", "l2") in by:
        free, paid = (by[arm, "psnr_db", "l1", "l2"] for arm in (0, 1))
        lines += [
            f"- **H1** (L1 is no worse than L2 in PSNR at a fixed budget): L1 - L2 = "
            f"{_interval(free)} dB: {_verdict(free)}.",
            f"- **H2** (the order changes under a rate constraint): with the bottleneck L1 - L2 = "
            f"{_interval(paid)} dB: {_verdict(paid)}.",
        ]
    for (arm, score, loss, other), row in by.items():
        if (loss, other) in _mixes(params):
            lines.append(f"- **H3** ({ARMS[arm]}): {SCORES[score]} of {loss} - {other} = "
                         f"{_interval(row)}: {_verdict(row)}.")  # fmt: skip
    return [*lines, ""] if lines else []


def _interval(row: ScoreRow) -> str:
    return f"{row.difference:+.3g} [{row.low:+.3g}, {row.high:+.3g}]"


def _verdict(row: ScoreRow) -> str:
    if row.low > 0 or row.high < 0:
        return f"{row.loss if row.difference > 0 else row.against} is better"
    return "no difference seen"


def _draw(found: Sequence[ScoreRow], losses: Sequence[str], path: pathlib.Path) -> None:
    """Differences to the first loss with intervals: a row an arm, a column a score."""
    figure, panels = figures.small_multiples(2, len(SCORES), width=3.0, height=2.2)
    for arm, title in enumerate(ARMS):
        for column, (score, label) in enumerate(SCORES.items()):
            axes = panels[arm][column]
            figures.set_title(axes, title if column == 0 else "")
            axes.axvline(0.0, color="#555555", lw=0.8)
            mine = {row.loss: row for row in found if (row.bottleneck, row.score, row.against)
                    == (arm, score, losses[0])}  # fmt: skip
            for place, loss in enumerate(losses):
                row, ink = mine[loss], figures.colour(loss.partition("-")[0])
                axes.plot([row.low, row.high], [place, place], color=ink, lw=2)
                axes.plot(row.difference, place, "o", color=ink, ms=5)
            axes.set_yticks(range(len(losses)), losses if column == 0 else [""] * len(losses))
            axes.invert_yaxis()
            axes.locator_params(axis="x", nbins=4)
            axes.set_xlabel(f"{label}, difference to {losses[0]}" if arm == 1 else "")
    figures.save(figure, path)


def _strip(
    arch: str, losses: Sequence[str], restored: pathlib.Path, prepared: pathlib.Path,
    out: pathlib.Path,
) -> list[str]:  # fmt: skip
    """Crops of the shown test pictures: clean, degraded, restored with each loss."""
    folders = {loss: restored / f"{arch}-{loss.partition('-')[0]}" / "pictures" for loss in losses}
    names = []
    for degraded in sorted(folders[losses[0]].glob(f"*-{DEGRADED}.png")):
        picture = degraded.stem.removesuffix(f"-{DEGRADED}")
        clean = read_image(prepared / "test" / f"{picture}.png")
        versions = {"clean": clean, "degraded": read_image(degraded)}
        for loss, folder in folders.items():
            versions[loss] = read_image(folder / f"{picture}-{loss}.png")
        corner = busiest_corner(clean, CROP_PX)
        row = labelled_row({name: crop(image, corner, CROP_PX) for name, image in versions.items()})
        names.append(f"{arch}-{picture}.png")
        write_png(out / names[-1], row)
    return names


def noise_means(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean PSNR of the input and of the decoded pictures, by codec and sigma."""
    return rows.groupby(["codec", "sigma"], sort=False)[["input_psnr_db", "psnr_db"]].mean()


def _noise_table(params: Params, means: pd.DataFrame) -> list[str]:
    decoded = means["psnr_db"].unstack(sort=False)
    before = means["input_psnr_db"].groupby("sigma").first()
    rows = {"input": [before[sigma] for sigma in decoded.columns]}
    rows |= {str(codec): list(found) for codec, found in decoded.iterrows()}
    header = ["noise of the input, sigma", *(f"{sigma:g}" for sigma in decoded.columns)]
    return [
        f"### Noise tolerance, files of {params.restore.noise_bpp:g} bpp\n",
        "PSNR against the clean picture, dB.\n",
        markdown_table(header, [[n, *(f"{v:.2f}" for v in found)] for n, found in rows.items()]),
        "",
    ]


def _draw_noise(means: pd.DataFrame, path: pathlib.Path) -> None:
    figure, panels = figures.small_multiples(1, 1, width=6.0, height=3.4)
    axes = panels[0][0]
    for place, (codec, found) in enumerate(means["psnr_db"].groupby("codec", sort=False)):
        ink = ("#555555", "#0072B2", "#D55E00")[place % 3]
        sigmas = found.index.get_level_values("sigma")
        axes.plot(sigmas, found.to_numpy(), "o-", color=ink, label=codec)
    axes.set_xlabel("noise of the input, sigma [grey levels]")
    axes.set_ylabel("PSNR against the clean picture [dB]")
    axes.legend(frameon=False)
    figures.save(figure, path)


# --- statistics: which loss restores better -------------------------------------------------------
#
# Losses are compared picture by picture and seed by seed. An interval comes from drawing both with
# replacement, the same draws for all losses. With a bottleneck losses have to be read at one rate:
# the curve of a loss is the mean over the drawn pictures of rate and score at each step, and all
# curves of a draw are read, on straight lines over log rate, in the middle of the rates that all
# of them reach.

SCORES = {
    "psnr_db": "PSNR [dB]",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "ssimulacra2": "SSIMULACRA 2",
}
"""Titles of the scores, by field of `RestoredRow`."""

DRAWS = 2000


@dataclass(frozen=True)
class ScoreRow:
    """Mean score of a loss, and its difference to another loss with a 95 % interval.

    Attributes:
        bottleneck: 1 with, 0 without.
        bpp: rate at which the losses are compared; 0 without a bottleneck.
    """

    bottleneck: int
    score: str
    loss: str
    value: float
    against: str
    difference: float
    low: float
    high: float
    bpp: float


def compare_losses(
    rows: Sequence[RestoredRow], pairs: Sequence[tuple[str, str]], seed: int
) -> list[ScoreRow]:
    """Differences of pairs of losses in every score, without and with the bottleneck.

    Args:
        rows: every loss on the same pictures and seeds.
        pairs: (loss, the loss it is compared with).
        seed: of the draws.
    """
    losses = list(dict.fromkeys(row.loss for row in rows))
    found = []
    for bottleneck in sorted({row.bottleneck for row in rows}):
        chosen = [row for row in rows if row.bottleneck == bottleneck]
        seeds = sorted({row.seed for row in chosen})
        pictures = sorted({row.picture for row in chosen})
        rng = np.random.default_rng(seed)
        s, p = len(seeds), len(pictures)
        picked = [(np.arange(s), np.arange(p))]  # the estimate; then the draws
        picked += [(rng.integers(0, s, s), rng.integers(0, p, p)) for _ in range(DRAWS)]
        rates = np.stack([_table(chosen, loss, "bpp") for loss in losses])
        for score in SCORES:
            values = np.stack([_table(chosen, loss, score) for loss in losses])
            read = [_read(rates[:, a][..., b], values[:, a][..., b]) for a, b in picked]
            means = np.array([means for means, _ in read])
            for loss, other in pairs:
                column, reference = losses.index(loss), losses.index(other)
                differences = means[:, column] - means[:, reference]
                interval = percentile_interval(float(differences[0]), differences[1:])
                bounds = (interval.estimate, interval.low, interval.high)
                value, rate = float(means[0, column]), read[0][1]
                found.append(ScoreRow(bottleneck, score, loss, value, other, *bounds, rate))
    return found


def _table(rows: Sequence[RestoredRow], loss: str, field: str) -> Floats:
    """One field of one loss as (seeds, steps, pictures)."""
    mine = sorted(
        (row for row in rows if row.loss == loss), key=lambda row: (row.seed, row.step, row.picture)
    )
    counts = [len({getattr(row, name) for row in mine}) for name in ("seed", "step", "picture")]
    if len(mine) != np.prod(counts):
        raise DataError(f"{loss} has {len(mine)} restored pictures, expected {counts} of each kind")
    return np.array([getattr(row, field) for row in mine]).reshape(counts)


def _read(rates: Floats, values: Floats) -> tuple[Floats, float]:
    """Scores (losses,) at one common rate, and that rate; from (losses, seeds, steps, pictures)."""
    score = values.mean(-1)
    if score.shape[-1] == 1:
        return score[..., 0].mean(-1), 0.0
    log_rate = np.log(rates.mean(-1))
    lowest, highest = log_rate.min(-1).max(), log_rate.max(-1).min()
    common = float(lowest + highest) / 2
    read = [
        np.mean([np.interp(common, x[::-1], y[::-1]) for x, y in zip(curves, at, strict=True)])
        for curves, at in zip(log_rate, score, strict=True)
    ]
    return np.array(read), float(np.exp(common))
