"""Cells against reference codecs: their curves, BD-rates with intervals, and the leading cell.

Everything is computed from the tables that evaluation and anchors left, for exactly the cells that
are asked for: folders of cells that have left the grid are not looked at.

Losses of one architecture are ranked by what they need in bits for the quality of the best of them,
to say which differences are more than the choice of test pictures. For every other loss there is
the BD-rate against the best with a paired bootstrap interval, and the p-value of an exact test:
were the two equally good, the sign of their log-rate difference on each picture would be a coin
toss. The best is known only after looking, so Holm's correction runs over all pairs of losses and
not only over those with the best. With n pictures no p-value is below 2^(1-n) before the
correction: with few pictures nothing can be significant, and then nothing is.

`match_sizes` codes pictures with the references once more, at the size of the leading cell's files,
so that what differs between pictures is not the rate.

All this is about pictures; `linocut.lab.report.experiments` draws the seeds of the training, too.

Source: Fisher, "The Design of Experiments", 1935 (permutation of signs); Holm, "A simple
sequentially rejective multiple test procedure", Scand. J. Statist. 1979.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from linocut.errors import DataError
from linocut.lab.evaluation.anchors import ANCHORS, decode, encode_near
from linocut.lab.evaluation.rd import (
    CurveError,
    Floats,
    Interval,
    PictureCurves,
    bd_rate,
    bd_rate_between,
    bd_rate_draws,
    is_kodak,
    is_monotone,
    percentile_interval,
    published_curves,
    resample_pictures,
)
from linocut.lab.evaluation.rows import (
    CONTROLS,
    AnchorRow,
    BdRow,
    EvaluationRow,
    MatchedRow,
    MeasuredRow,
    RdRow,
    read_rows,
    write_rows,
)
from linocut.pictures.image import read_image, write_png
from linocut.pictures.quality import measure, to_db


@dataclass(frozen=True)
class Metric:
    """A quality that curves are drawn and compared in.

    Attributes:
        title: its name in tables.
        column: the column of the tables that is averaged over pictures.
        unit: what makes decibels of the average, or None where it is shown as it is.
        label: title and unit, for axes.
    """

    title: str
    column: str
    unit: Callable[[Floats], Floats] | None
    label: str


METRICS: Mapping[str, Metric] = {
    "psnr_db": Metric("PSNR", "psnr_db", None, "PSNR [dB]"),
    "ssim_db": Metric("SSIM", "ssim", to_db, "SSIM [dB]"),
    "ms_ssim_db": Metric("MS-SSIM", "ms_ssim", to_db, "MS-SSIM [dB]"),
    "ssimulacra2": Metric("SSIMULACRA 2", "ssimulacra2", None, "SSIMULACRA 2"),
}

REFERENCES = ("jpeg", "jpeg2000", "avif_444")
"""Anchors that the tables compare with; the first of `RANKING` that is there ranks the cells."""

RANKING = ("jpeg2000", "jpeg", "avif_444", "avif_420", "webp", "jpegxl")


@dataclass(frozen=True)
class Comparison:
    """All that the report says in numbers.

    Attributes:
        cells: rows of each cell, in the order of the grid.
        controls: rows of each codec without its networks or contexts, where they were measured.
        anchors: rows of each reference codec.
        curves: per metric, the curves of cells, controls and anchors on every picture.
        points: mean curves of all these, and published ones where they belong.
        bd_rates: every curve against every anchor, all metrics.
        refusals: why a BD-rate is missing, by (curve, metric, anchor).
        draws: the resampled pictures that all intervals share.
    """

    cells: Mapping[str, list[EvaluationRow]]
    controls: Mapping[str, list[EvaluationRow]]
    anchors: Mapping[str, list[AnchorRow]]
    curves: Mapping[str, Mapping[str, PictureCurves]]
    points: tuple[RdRow, ...]
    bd_rates: tuple[BdRow, ...]
    refusals: Mapping[tuple[str, str, str], str]
    draws: np.ndarray[tuple[int, int], np.dtype[np.intp]]

    @property
    def files(self) -> Mapping[str, list[EvaluationRow]]:
        """Rows of cells and controls."""
        return {**self.cells, **self.controls}

    @property
    def pictures(self) -> tuple[str, ...]:
        """Names of the test pictures."""
        return next(iter(self.curves["psnr_db"].values())).pictures

    @property
    def ranking_anchor(self) -> str:
        """The anchor whose BD-rates rank the cells."""
        return next(name for name in RANKING if name in self.anchors)

    def bd_rate(self, curve: str, metric: str, anchor: str) -> Interval:
        """The BD-rate of a curve against an anchor."""
        row = next(
            row
            for row in self.bd_rates
            if (row.curve, row.metric, row.anchor) == (curve, metric, anchor)
        )
        return Interval(row.bd_rate, row.low, row.high)

    def leader(self, metric: str) -> str:
        """The cell with the lowest BD-rate; the first of the grid where none has one."""

        def rank(cell: str) -> float:
            estimate = self.bd_rate(cell, metric, self.ranking_anchor).estimate
            return estimate if np.isfinite(estimate) else np.inf

        return min(self.cells, key=rank)

    def is_monotone(self, cell: str) -> bool:
        """Whether the mean curve of a cell rises in all metrics."""
        return all(is_monotone(*self.curves[metric][cell].mean()) for metric in METRICS)

    def rate_gap_percent(self, cell: str) -> float:
        """How much larger the files of a cell are than estimated, all files together."""
        rows = self.files[cell]
        estimated = sum(row.estimated_bpp * row.bytes / row.bpp for row in rows)
        return 100.0 * (sum(row.bytes for row in rows) / estimated - 1.0)


def compare_curves(
    cells: Sequence[str],
    artifacts: Path,
    *,
    bootstrap_draws: int,
    seed: int,
    controls: Iterable[str] = (),
) -> Comparison:
    """Read the tables of `cells`, of controls and of the anchors, and compare them.

    Args:
        cells: names of cells, `arch-loss`.
        artifacts: the folder with `anchors/`, `evaluated/<cell>/` and `controls/<control>/`.
        bootstrap_draws: resampled sets of pictures behind every interval.
        seed: of the resampling.
        controls: of `CONTROLS`, which ones to compare as well.

    Raises:
        DataError: a table is missing or incomplete, or codecs were run on different pictures.
    """
    of_cells = {
        cell: read_rows(artifacts / "evaluated" / cell / "evaluation.csv", EvaluationRow)
        for cell in cells
    }
    of_controls = {
        name: read_rows(artifacts / "controls" / name / "evaluation.csv", EvaluationRow)
        for name in controls
    }
    of_anchors: dict[str, list[AnchorRow]] = {}
    for row in read_rows(artifacts / "anchors" / "anchors.csv", AnchorRow):
        of_anchors.setdefault(row.codec, []).append(row)
    rows: dict[str, Sequence[MeasuredRow]] = {**of_cells, **of_controls, **of_anchors}
    curves = {
        metric: {name: picture_curves(name, rows[name], metric) for name in rows}
        for metric in METRICS
    }
    pictures = {name: curve.pictures for name, curve in curves["psnr_db"].items()}
    first = next(iter(pictures.values()))
    for name, own in pictures.items():
        if own != first:
            odd = ", ".join(sorted(set(own) ^ set(first)))
            raise DataError(f"{name} and {next(iter(pictures))} saw different pictures: {odd}")
    draws = resample_pictures(len(first), bootstrap_draws, seed)
    kinds = dict.fromkeys(of_cells, "cell") | dict.fromkeys(of_controls, "control")
    kinds |= dict.fromkeys(of_anchors, "anchor")
    bd_rates, refusals = _bd_rates(curves, kinds, draws)
    points = mean_points(curves, kinds)
    if is_kodak(first):
        points += _published_points()
    return Comparison(of_cells, of_controls, of_anchors, curves, points, bd_rates, refusals, draws)


def picture_curves(name: str, rows: Sequence[MeasuredRow], metric: str) -> PictureCurves:
    """Arrange the rows of one codec as pictures x points, in one of `METRICS`.

    Raises:
        DataError: a picture lacks points that another has.
    """
    points = sorted({_point(row) for row in rows})
    table = {(row.picture, _point(row)): row for row in rows}
    pictures = tuple(sorted({row.picture for row in rows}))
    if len(table) != len(rows) or len(rows) != len(points) * len(pictures):
        raise DataError(
            f"{name} has {len(rows)} files, expected {len(points)} points of each of "
            f"{len(pictures)} pictures"
        )
    ordered = [[table[picture, point] for point in points] for picture in pictures]
    column = METRICS[metric].column
    return PictureCurves(
        pictures,
        np.array([[row.bpp for row in one] for one in ordered]),
        np.array([[getattr(row, column) for row in one] for one in ordered]),
        METRICS[metric].unit,
    )


def title(name: str) -> str:
    """The name of a curve as people read it."""
    if name in CONTROLS:
        return CONTROLS[name]
    return ANCHORS[name].title if name in ANCHORS else name


def architectures(cells: Sequence[str]) -> dict[str, list[str]]:
    """Cells by architecture, both in their order."""
    groups: dict[str, list[str]] = {}
    for cell in cells:
        groups.setdefault(cell.partition("-")[0], []).append(cell)
    return groups


def loss_of(cell: str) -> str:
    """The loss in the name of a cell, `arch-loss`."""
    return cell.partition("-")[2]


def _point(row: MeasuredRow) -> int:
    return row.point if isinstance(row, EvaluationRow) else row.setting


def _bd_rates(
    curves: Mapping[str, Mapping[str, PictureCurves]],
    kinds: Mapping[str, str],
    draws: np.ndarray[tuple[int, int], np.dtype[np.intp]],
) -> tuple[tuple[BdRow, ...], dict[tuple[str, str, str], str]]:
    rows, refusals = [], {}
    anchors = [name for name in kinds if kinds[name] == "anchor"]
    for metric, of_metric in curves.items():
        for name, curve in of_metric.items():
            for anchor in anchors:
                if anchor == name:
                    continue
                try:
                    estimate = bd_rate_between(of_metric[anchor], curve)
                    drawn = bd_rate_draws(of_metric[anchor], curve, draws)
                    interval = percentile_interval(estimate, drawn)
                except CurveError as error:
                    refusals[name, metric, anchor] = str(error)
                    interval = Interval(np.nan, np.nan, np.nan)
                bounds = (interval.estimate, interval.low, interval.high)
                rows.append(BdRow(name, kinds[name], metric, anchor, *bounds))
    return tuple(rows), refusals


def mean_points(
    curves: Mapping[str, Mapping[str, PictureCurves]], kinds: Mapping[str, str]
) -> tuple[RdRow, ...]:
    """Mean curves of codecs of the given kinds, from their curves in every metric."""
    rows = []
    for name, kind in kinds.items():
        bpp, _ = curves["psnr_db"][name].mean()
        qualities = [curves[metric][name].mean()[1] for metric in METRICS]
        rows += [
            RdRow(name, kind, *map(float, point)) for point in zip(bpp, *qualities, strict=True)
        ]
    return tuple(rows)


def _published_points() -> tuple[RdRow, ...]:
    rows = []
    for name, curve in published_curves().items():
        if name.startswith("MEASURED"):
            continue  # the anchors here are these
        nothing = [float("nan")] * len(curve["bpp"])
        similarity = to_db(curve["ms_ssim"]).tolist() if "ms_ssim" in curve else nothing
        psnr_db = curve.get("psnr_db", nothing)
        columns = zip(curve["bpp"], psnr_db, nothing, similarity, nothing, strict=True)
        rows += [RdRow(name, "published", *point) for point in columns]
    return tuple(rows)


EXACT_PICTURES = 16
"""Up to this many pictures all patterns of signs are tried, beyond it `RANDOM_FLIPS` of them."""

RANDOM_FLIPS = 20_000

POWER_FACTOR = 1.96 + 0.84
"""Standard errors that a difference needs to be seen at 5 % with a probability of 80 %."""


@dataclass(frozen=True)
class Ranked:
    """A curve beside the best of its group; the best itself comes first, with zeros.

    Attributes:
        curve: its name.
        best: the name of the best.
        bd_rate: bits at equal quality against the best, per cent.
        low: lower bound of the 95 % interval.
        high: upper bound.
        p_value: of no difference, corrected for all pairs of curves; NaN where some picture has no
            BD-rate.
        detectable: the smallest difference that this set of pictures would show four times in
            five, per cent.
    """

    curve: str
    best: str
    bd_rate: float
    low: float
    high: float
    p_value: float
    detectable: float


def rank(
    curves: Mapping[str, PictureCurves],
    draws: NDArray[np.intp],
    units: NDArray[np.intp] | None = None,
) -> list[Ranked]:
    """Order curves by their BD-rate against the best, and test the differences.

    Args:
        curves: on the same pictures, by name.
        draws: resampled pictures (draws, n).
        units: rows of each independent picture (pictures, k), where there are several of each,
            for instance of several seeds; one row each when left out.

    Returns:
        The best, then the others by rising BD-rate; curves that hardly overlap with it are left
        out.
    """
    best = _best(curves)
    if best is None:
        return []
    corrected = corrected_p_values(curves, units)
    others = []
    for name, curve in curves.items():
        if name == best:
            continue
        try:
            estimate = bd_rate_between(curves[best], curve)
        except CurveError:
            continue
        drawn = bd_rate_draws(curves[best], curve, draws)
        interval = percentile_interval(estimate, drawn)
        error = float(np.std(np.log1p(drawn[np.isfinite(drawn)] / 100)))
        detectable = 100 * float(np.expm1(POWER_FACTOR * error))
        bounds = (interval.estimate, interval.low, interval.high)
        p_value = corrected[frozenset((best, name))]
        others.append(Ranked(name, best, *bounds, p_value, detectable))
    others.sort(key=lambda row: row.bd_rate)
    return [Ranked(best, best, 0.0, 0.0, 0.0, 1.0, 0.0), *others]


def corrected_p_values(
    curves: Mapping[str, PictureCurves], units: NDArray[np.intp] | None = None
) -> dict[frozenset[str], float]:
    """P-values of no difference by pair of curves, corrected for all pairs; arguments as above."""
    pairs = list(combinations(curves, 2))
    p_values = holm([sign_flip_p(picture_log_rates(curves[a], curves[b], units)) for a, b in pairs])
    return {frozenset(pair): p_value for pair, p_value in zip(pairs, p_values, strict=True)}


def picture_log_rates(
    anchor: PictureCurves, test: PictureCurves, units: NDArray[np.intp] | None = None
) -> Floats:
    """log(1 + BD-rate) of each picture by itself, (pictures,); NaN where it has none."""
    units = np.arange(len(anchor.pictures))[:, None] if units is None else units
    found = np.full(len(units), np.nan)
    for index, alone in enumerate(units):
        try:
            found[index] = np.log1p(bd_rate(*anchor.mean(alone), *test.mean(alone)) / 100)
        except CurveError:
            continue
    return found


def sign_flip_p(differences: Floats) -> float:
    """Two-sided p-value of paired differences (n,) under random signs; NaN if one is missing."""
    count = len(differences)
    if count == 0 or not np.all(np.isfinite(differences)):
        return float("nan")
    if count <= EXACT_PICTURES:
        patterns = np.arange(2**count)[:, None] >> np.arange(count) & 1
        sums = np.abs((2 * patterns - 1) @ differences)
        return float(np.mean(sums >= abs(differences.sum()) * (1 - 1e-12)))
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (RANDOM_FLIPS, count))
    as_large = np.sum(np.abs(signs @ differences) >= abs(differences.sum()) * (1 - 1e-12))
    return float((1 + as_large) / (1 + RANDOM_FLIPS))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for testing all of them, in their order; NaN counts as a comparison."""
    order = np.argsort([p if np.isfinite(p) else np.inf for p in p_values], kind="stable")
    adjusted = [float("nan")] * len(p_values)
    running = 0.0
    for place, index in enumerate(order):
        if np.isfinite(p_values[index]):
            running = max(running, (len(p_values) - place) * p_values[index])
            adjusted[index] = min(running, 1.0)
    return adjusted


def _best(curves: Mapping[str, PictureCurves]) -> str | None:
    """The curve that needs the fewest bits against any other; None where nothing compares."""
    wins = dict.fromkeys(curves, 0)
    compared = False
    for one in curves:
        for two in curves:
            if one == two:
                continue
            try:
                wins[two] += bd_rate_between(curves[one], curves[two]) < 0
                compared = True
            except CurveError:
                continue
    return max(wins, key=lambda name: wins[name]) if compared else None


# --- references at the size of a cell's files -----------------------------------------------------
#
#     evaluated/<cell>/pictures/*.png of the leading cell + prepared/test + anchors/
#         --> studies/matched/{matched.csv, <picture>-<codec>.png}


def match_sizes(cells: Sequence[str], artifacts: Path, out: Path, *, avif_speed: int) -> None:
    """Code the pictures that the leading cell shows with every reference that was measured.

    Args:
        cells: the names of the cells that are compared.
        artifacts: the folder with `anchors/`, `evaluated/` and `prepared/test/`.
        out: matched.csv and the decoded pictures.
        avif_speed: effort of AVIF, as in `artifacts/anchors`.

    Raises:
        DataError: a table is missing or incomplete.
    """
    # Only the estimates count here, so one draw does.
    comparison = compare_curves(cells, artifacts, bootstrap_draws=1, seed=0)
    leader = comparison.leader("psnr_db")
    sizes = {(row.picture, row.point): row.bytes for row in comparison.cells[leader]}
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in sorted((artifacts / "evaluated" / leader / "pictures").glob("*.png")):
        picture, _, point = path.stem.rpartition("-")
        original = read_image(artifacts / "prepared" / "test" / f"{picture}.png")
        for codec in reversed(REFERENCES):
            if codec not in comparison.anchors:
                continue
            anchor = comparison.anchors[codec]
            known = {row.setting: row.bytes for row in anchor if row.picture == picture}
            size = sizes[picture, int(point)]
            data = encode_near(codec, original, size, avif_speed, known)
            decoded = decode(data)
            quality = measure(original, decoded)
            write_png(out / f"{picture}-{codec}.png", decoded)
            rows.append(
                MatchedRow(picture, codec, leader, len(data), quality.psnr_db, quality.ms_ssim)
            )
    write_rows(out / "matched.csv", MatchedRow, rows)
