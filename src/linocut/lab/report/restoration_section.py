"""What restoring with every loss gave: tables, answers to the hypotheses, figure, pictures.

restored/<task>/<cell>/restored.csv, pictures/, codec-*/ + prepared/test --> restoration/<task>/
    report.md  scores.csv  differences.csv  noise.csv  *.png
"""

import itertools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from linocut.lab.config.params import DenoiseConfig, Params
from linocut.lab.data.degradation import CLEAN, degradation
from linocut.lab.evaluation.rows import NoiseRow, RestoredRow, read_rows, write_rows
from linocut.lab.report import figures
from linocut.lab.report.side_by_side import CROP_PX, labelled_row
from linocut.lab.studies.noise_tolerance import noise_tolerance
from linocut.lab.studies.restoration import degraded_tests, variants
from linocut.lab.studies.restoration_statistics import SCORES, ScoreRow, compare_losses
from linocut.pictures.crop import busiest_corner, crop
from linocut.pictures.image import read_image, write_png

ARMS = ("without a bottleneck", "with the bottleneck")
HOW = """\
All trainings of an architecture start from the same network ({init}), see {megapixels:g} megapixels
of the same crops, degraded in the same way, and differ in the loss and the seed alone. With the
bottleneck the scores are those of pictures decoded from files, read at one rate; see
`linocut.lab.studies.restoration_statistics`. Differences: {seeds} seeds, {pictures} pictures, 95 %
intervals from drawing both with replacement. {pictures} pictures are few: an interval says what
other pictures of this kind would change, not what other kinds would.
"""


def write_report(
    params: Params, task: str, restored: pathlib.Path, bases: pathlib.Path,
    prepared: pathlib.Path, out: pathlib.Path,
) -> str:  # fmt: skip
    """Compare the losses of every architecture in one task; returns the report's text.

    Args:
        params: the whole of params.yaml.
        task: name of the degradation.
        restored: a folder for every cell.
        bases: a folder for every architecture: the codecs that trainings started from.
        prepared: train.npy, validation/, test/.
        out: report.md, tables and figures are written here.
    """
    out.mkdir(parents=True, exist_ok=True)
    lines = [f"# Restoration: {task} {_numbers(params, task)}\n"]
    scores: list[ScoreRow] = []
    for arch in params.grid.arch:
        rows = [
            row
            for loss in params.grid.loss
            for row in read_rows(restored / f"{arch}-{loss}" / "restored.csv", RestoredRow)
        ]
        losses = list(dict.fromkeys(row.loss for row in rows))
        pairs = [(loss, losses[0]) for loss in losses] + _hypotheses(params)
        found = compare_losses(rows, pairs, params.seed)
        scores += found
        lines += [f"## {arch}\n", *_tables(rows, found, losses), *_answers(params, found)]
        _draw(found, losses, out / f"{arch}-differences.png")
        lines += [f"![differences]({arch}-differences.png)\n"]
        shown = _strip(params, task, arch, losses, restored, prepared, out)
        lines += [f"![{name}]({name})\n" for name in shown]
        if isinstance(params.task[task], DenoiseConfig):
            noise = _noise(params, arch, restored, bases, prepared)
            write_rows(out / f"{arch}-noise.csv", NoiseRow, noise)
            lines += _noise_table(params, noise)
            _draw_noise(noise, out / f"{arch}-noise.png")
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


def _mix_names(params: Params) -> list[str]:
    return [
        name
        for loss, option in params.loss.items()
        if "alpha" in option.numbers
        for name, _ in variants(loss, option, params.restore.alphas)
    ]


def _hypotheses(params: Params) -> list[tuple[str, str]]:
    """Pairs of losses that the hypotheses are about, where both are trained."""
    pairs = [("l1", "l2")] if {"l1", "l2"} <= set(params.grid.loss) else []
    mixes = _mix_names(params)
    return pairs + list(itertools.pairwise(mixes))


def _tables(
    rows: Sequence[RestoredRow], found: Sequence[ScoreRow], losses: Sequence[str]
) -> list[str]:
    lines = []
    for arm, title in enumerate(ARMS):
        mine = {(row.score, row.loss): row for row in found if row.bottleneck == arm
                and row.against == losses[0]}  # fmt: skip
        rate = next(iter(mine.values())).bpp
        lines += [
            f"### {title.capitalize()}{f', at {rate:.3f} bpp' if rate else ''}\n",
            f"Mean, and difference to {losses[0]} [95 % interval].\n",
            "| loss | " + " | ".join(SCORES.values()) + " |",
            "|---" * (1 + len(SCORES)) + "|",
        ]
        before = [float(np.mean([getattr(row, f"input_{s}") for row in rows])) for s in SCORES]
        lines.append("| degraded input | " + " | ".join(f"{value:.4g}" for value in before) + " |")
        for loss in losses:
            cells = [_cell(mine[score, loss]) for score in SCORES]
            lines.append(f"| {loss} | " + " | ".join(cells) + " |")
        lines.append("")
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
        if (loss, other) in _hypotheses(params)[1:]:
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
    params: Params, task: str, arch: str, losses: Sequence[str], restored: pathlib.Path,
    prepared: pathlib.Path, out: pathlib.Path,
) -> list[str]:  # fmt: skip
    """Crops of the shown test pictures: clean, degraded, restored with each loss."""
    names = []
    tests = degraded_tests(prepared / "test", degradation(params.task[task]), params.seed)
    for test in tests:
        files = {
            loss: restored
            / f"{arch}-{loss.partition('-')[0]}"
            / "pictures"
            / f"{test.name}-{loss}.png"
            for loss in losses
        }
        if not all(file.exists() for file in files.values()):
            continue
        corner = busiest_corner(test.clean, CROP_PX)
        versions = {"clean": test.clean, "degraded": test.degraded}
        versions |= {loss: read_image(file) for loss, file in files.items()}
        row = labelled_row({name: crop(image, corner, CROP_PX) for name, image in versions.items()})
        names.append(f"{arch}-{test.name}.png")
        write_png(out / names[-1], row)
    return names


def _noise(
    params: Params, arch: str, restored: pathlib.Path, bases: pathlib.Path,
    prepared: pathlib.Path,
) -> list[NoiseRow]:  # fmt: skip
    """The base network, and the one of the first loss, beside JPEG 2000."""
    loss = params.grid.loss[0]
    name = variants(loss, params.loss[loss], params.restore.alphas)[0][0]
    codecs = {
        f"{arch}, trained on clean pictures": bases / arch / CLEAN,
        f"{arch}-{name}, trained on noisy ones": restored / f"{arch}-{loss}" / f"codec-{name}",
    }
    pictures = sorted((prepared / "test").glob("*.png"))
    numbers = params.restore
    return noise_tolerance(codecs, pictures, numbers.noise_sigmas, numbers.noise_bpp, params.seed)


def noise_means(rows: Sequence[NoiseRow]) -> dict[str, dict[float, tuple[float, float]]]:
    """Mean PSNR (input, decoded) over the pictures, by codec and sigma."""
    groups: dict[str, dict[float, list[NoiseRow]]] = {}
    for row in rows:
        groups.setdefault(row.codec, {}).setdefault(row.sigma, []).append(row)
    return {
        codec: {
            sigma: (
                float(np.mean([row.input_psnr_db for row in group])),
                float(np.mean([row.psnr_db for row in group])),
            )
            for sigma, group in by_sigma.items()
        }
        for codec, by_sigma in groups.items()
    }


def _noise_table(params: Params, rows: Sequence[NoiseRow]) -> list[str]:
    means = noise_means(rows)
    sigmas = list(next(iter(means.values())))
    before = [next(iter(means.values()))[sigma][0] for sigma in sigmas]
    return [
        f"### Noise tolerance, files of {params.restore.noise_bpp:g} bpp\n",
        "PSNR against the clean picture, dB.\n",
        "| noise of the input, sigma | " + " | ".join(f"{sigma:g}" for sigma in sigmas) + " |",
        "|---" * (1 + len(sigmas)) + "|",
        "| input | " + " | ".join(f"{value:.2f}" for value in before) + " |",
        *(
            f"| {codec} | " + " | ".join(f"{found[sigma][1]:.2f}" for sigma in sigmas) + " |"
            for codec, found in means.items()
        ),
        "",
    ]


def _draw_noise(rows: Sequence[NoiseRow], path: pathlib.Path) -> None:
    means: Mapping[str, Mapping[float, tuple[float, float]]] = noise_means(rows)
    figure, panels = figures.small_multiples(1, 1, width=6.0, height=3.4)
    axes = panels[0][0]
    for place, (codec, found) in enumerate(means.items()):
        ink = ("#555555", "#0072B2", "#D55E00")[place % 3]
        axes.plot(list(found), [after for _, after in found.values()], "o-", color=ink, label=codec)
    axes.set_xlabel("noise of the input, sigma [grey levels]")
    axes.set_ylabel("PSNR against the clean picture [dB]")
    axes.legend(frameon=False)
    figures.save(figure, path)
