"""The middles of some pictures of a folder, on which choices are made and trials measured.

    python -m benchmarks.middles FOLDER --every 7 --size 384 --out OUT    # 14 of 95 photographs
    python -m benchmarks.middles FOLDER --every 6 --size 448 --out OUT    # 16

Pictures are sorted by their path in the folder, and the first one taken is the fourth.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from linocut.errors import LinocutError
from linocut.lab.data.sources import pictures_below
from linocut.pictures.image import centre, read_image, write_png

FIRST = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the middles as PNG files; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--every", type=int, required=True, metavar="N", help="one picture in N")
    parser.add_argument("--size", type=int, required=True, metavar="PX", help="of a side")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args(arguments)
    if options.every < 1 or options.size < 1:
        parser.error("--every and --size begin at 1")
    try:
        chosen = pictures_below(options.folder)[FIRST :: options.every]
        if not chosen:
            parser.error(f"{options.folder} has fewer than {FIRST + 1} pictures")
        options.out.mkdir(parents=True, exist_ok=True)
        for file in chosen:
            middle = centre(read_image(file.path), options.size, options.size)
            write_png(options.out / f"{file.name}.png", middle)
    except (LinocutError, OSError) as error:
        parser.error(str(error))
    print(f"{len(chosen)} pictures in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
