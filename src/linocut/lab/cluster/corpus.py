"""A corpus beyond one machine: pictures become .lino files on all nodes of a Ray cluster.

    names of pictures --Ray Data: blocks--> actors, a codec and a core each --> OUT/NAME.lino
    what came of each --rows--> counts, bytes, and a line for every picture that failed

Both folders have to be the same place on every node. A file that is there already is left alone, so
that the same command goes on where an interrupted one stopped; a file is whole, or not there.

python -m linocut.lab.cluster.corpus PICTURES OUT --address auto --actors 16
"""

from __future__ import annotations

import argparse
import collections
import logging
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from linocut.codec.codec import Codec
from linocut.codec.picture_files import Target, compress_picture
from linocut.codec.rate_control import DEFAULT_QUALITY
from linocut.errors import ConfigError, DataError, LinocutError
from linocut.files import write_atomically
from linocut.models import folders
from linocut.pictures.image import PICTURE_SUFFIXES, read_picture

BLOCK = 64
"""Most pictures that an actor takes at once."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compress a folder; 0, or 1 where pictures failed or nothing could be done."""
    parser = argparse.ArgumentParser(
        prog="python -m linocut.lab.cluster.corpus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pictures", type=pathlib.Path, help="a folder, searched to its depths")
    parser.add_argument("out", type=pathlib.Path, help="a folder, which gets the same tree")
    parser.add_argument("--address", default="auto", help="of the head of the cluster; or local")
    parser.add_argument("--actors", type=int, default=1, help="how many, a core each")
    parser.add_argument("--model", default=folders.DEFAULT, help="name or folder")
    parser.add_argument("--quality", type=float, default=DEFAULT_QUALITY, help="1 to 100")
    chosen = parser.parse_args(arguments)
    counts: collections.Counter[str] = collections.Counter()
    try:
        for row in compressed(
            chosen.pictures.resolve(), chosen.out.resolve(), address=chosen.address,
            actors=chosen.actors, model=chosen.model, quality=chosen.quality,
        ):  # fmt: skip
            counts[row["what"]] += 1
            counts["before"] += row["before"]
            counts["after"] += row["after"]
            if row["what"] == "failed":
                print(f"{row['name']}: {row['problem']}", file=sys.stderr)
    except (LinocutError, OSError) as error:
        print(f"corpus: {error}", file=sys.stderr)
        return 1
    done, there, failed = (counts[what] for what in ("compressed", "there", "failed"))
    print(
        f"{done} compressed, {there} there already, {failed} failed: "
        f"{counts['before']} -> {counts['after']} bytes"
    )
    return 1 if failed else 0


def compressed(
    pictures: pathlib.Path, out: pathlib.Path, *, address: str, actors: int, model: str,
    quality: float,
) -> Iterator[Mapping[str, Any]]:  # fmt: skip
    """Compress what is not there yet.

    Args:
        pictures: folder of what to compress.
        out: folder of the files.
        address: of a Ray cluster, or `local`.
        actors: how many compress at once.
        model: name or folder of a codec.
        quality: 1 to 100.

    Yields:
        name, what (compressed, there, failed), before and after in bytes, and the problem.

    Raises:
        DataError: there are no pictures, or two of them would make one file.
        ConfigError: Ray is not installed.
    """
    names = [
        path.relative_to(pictures).as_posix()
        for path in sorted(pictures.rglob("*"))
        if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()
    ]
    if not names:
        raise DataError(f"{pictures} holds no pictures")
    targets = collections.Counter(_target(name) for name in names)
    double = next((name for name, count in targets.items() if count > 1), None)
    if double:
        raise DataError(f"{pictures}: several pictures would become {double}")
    try:
        import ray
        import ray.data
    except ImportError:
        raise ConfigError("Ray is not installed: pip install 'linocut[cluster]'") from None
    ray.init(
        address=None if address == "local" else address, include_dashboard=None,
        log_to_driver=False, logging_level=logging.WARNING,
    )  # fmt: skip
    try:
        items = [{"name": name} for name in names]
        blocks = min(len(items), max(actors, -(-len(items) // BLOCK)))
        rows = ray.data.from_items(items, override_num_blocks=blocks).map(
            Compressor,  # type: ignore[arg-type]  # Ray makes one in every actor
            fn_constructor_args=(str(pictures), str(out), model, quality),
            compute=ray.data.ActorPoolStrategy(size=min(actors, blocks)),
            num_cpus=1,
        )
        yield from rows.iter_rows()
    finally:
        ray.shutdown()


class Compressor:
    """An actor's work: one codec, loaded once.

    Args:
        pictures: folder of what to compress.
        out: folder of the files.
        model: name or folder of a codec.
        quality: 1 to 100.
    """

    def __init__(self, pictures: str, out: str, model: str, quality: float) -> None:
        self.pictures, self.out = pathlib.Path(pictures), pathlib.Path(out)
        self.codec = Codec.load(model, threads=1)
        self.target = Target("quality", quality)

    def __call__(self, row: Mapping[str, str]) -> dict[str, Any]:
        """What came of one picture."""
        source, target = self.pictures / row["name"], self.out / _target(row["name"])
        answer = {"name": row["name"], "what": "there", "before": 0, "after": 0, "problem": ""}
        if target.exists():
            return answer
        try:
            data, _ = compress_picture(self.codec, read_picture(source), self.target)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, data)
        except (LinocutError, OSError) as error:
            return answer | {"what": "failed", "problem": str(error)}
        sizes = {"before": source.stat().st_size, "after": len(data)}
        return answer | {"what": "compressed"} | sizes


def _target(name: str) -> str:
    return pathlib.PurePosixPath(name).with_suffix(".lino").as_posix()


if __name__ == "__main__":
    sys.exit(main())
