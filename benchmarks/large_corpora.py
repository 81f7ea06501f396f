"""`prepare` and `evaluate` over many pictures: processor time and memory at several sizes.

    python -m benchmarks.large_corpora [--pictures 100 1000 10000] [--stage prepare evaluate]

Generated pictures of 176 x 176 px, about the smallest that every measure of quality takes, and the
untrained codec of the tests. Each size is what the stage calls, in a fresh process with one worker;
seconds are of the processor, memory is the most that one process had. The last column is what a
picture more has cost since the size before: where the cost is linear it stays as it is.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "tests/golden/wavelet"
SIDE_PX = 176
DISTINCT = 20
"""Pictures that `evaluate` decodes, over and over under other names."""

Work = Callable[[pathlib.Path, int], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES))
    options = parser.parse_args(arguments)
    os.environ |= {"LINOCUT_WORKERS": "1", "OMP_NUM_THREADS": "1"}
    print("stage      pictures    CPU s     MiB   ms a picture more")
    for stage in options.stage:
        before = (0, 0.0)
        for count in sorted(options.pictures):
            with tempfile.TemporaryDirectory() as name:
                folder = pathlib.Path(name)
                make, work = STAGES[stage]
                _cost(make, folder, count)
                seconds, mebibytes = _cost(work, folder, count)
            slope = 1000 * (seconds - before[1]) / max(count - before[0], 1)
            print(f"{stage:10} {count:8} {seconds:8.1f} {mebibytes:7.0f} {slope:19.2f}", flush=True)
            before = (count, seconds)
    return 0


def _cost(work: Work, folder: pathlib.Path, count: int) -> tuple[float, float]:
    """Seconds of the processor, and MiB, in a process of its own with its workers."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_measured, work, folder, count).result()


def _measured(work: Work, folder: pathlib.Path, count: int) -> tuple[float, float]:
    work(folder, count)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(one.ru_utime + one.ru_stime for one in used)
    return seconds, max(one.ru_maxrss for one in used) / 1024


def _write_pictures(folder: pathlib.Path, count: int) -> None:
    """Clouds, no two of them alike, with grain."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        clouds = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
        shown = np.asarray(clouds.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC), np.int16)
        grain = rng.integers(-6, 7, shown.shape)
        picture = Image.fromarray((shown + grain).clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{seed:06}.png", compress_level=1)


def _make_source(folder: pathlib.Path, count: int) -> None:
    _write_pictures(folder / "source", count)


def _prepare(folder: pathlib.Path, count: int) -> None:
    """As many crops as pictures, so that every picture is read twice."""
    from linocut.lab.config.params import DataConfig, PrepareConfig
    from linocut.lab.data.prepare import prepare

    data = DataConfig(
        source="folder", folder=str(folder / "source"), more_train=(), test="source",
        validation_share=0.1, test_share=0.1, skip_bad=False,
    )  # fmt: skip
    config = PrepareConfig(crop_px=64, crops=count, dead_leaves=0, validation_pictures=10)
    prepare(data, config, seed=0, out=folder / "prepared")


def _make_coded(folder: pathlib.Path, count: int) -> None:
    from linocut.codec.codec import Codec
    from linocut.lab.evaluation.rows import CodedRow, write_rows
    from linocut.pictures.image import read_image

    _write_pictures(folder / "distinct", DISTINCT)
    shutil.copytree(GOLDEN, folder / "coded/codec")
    (folder / "coded/files").mkdir()
    (folder / "test").mkdir()
    codec, step, rows = Codec.load(GOLDEN), 20.0, []
    made = sorted((folder / "distinct").iterdir())
    for path in made:
        path.with_suffix(".lino").write_bytes(codec.compress(read_image(path), step=step))
    for number in range(count):
        picture = made[number % DISTINCT]
        file = folder / f"coded/files/{number}-0.lino"
        file.hardlink_to(picture.with_suffix(".lino"))
        (folder / f"test/{number}.png").hardlink_to(picture)
        rows.append(CodedRow(str(number), 0, step, file.stat().st_size, 1.0, 0.0))
    write_rows(folder / "coded/coded.csv", CodedRow, rows)


def _evaluate(folder: pathlib.Path, count: int) -> None:
    from linocut.lab.config.params import CompareConfig
    from linocut.lab.evaluation.decode import evaluate_cell

    config = CompareConfig(bootstrap_draws=100, shown_pictures=4, shown_bpp=0.5)
    evaluate_cell(folder / "coded", folder / "test", folder / "evaluated", config)
    lines = (folder / "evaluated/evaluation.csv").read_text().count("\n")
    assert lines == count + 1


STAGES: dict[str, tuple[Work, Work]] = {
    "prepare": (_make_source, _prepare),
    "evaluate": (_make_coded, _evaluate),
}

if __name__ == "__main__":
    sys.exit(main())
