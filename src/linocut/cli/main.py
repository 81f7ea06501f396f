"""The command `linocut`: compress and decompress pictures, look into files, compare.

Only the standard library is imported here, so that `--help` is instant; the work is in
`linocut.cli.commands`, which brings numpy, Pillow and, where a network runs, torch.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence

from linocut import __version__

_EXAMPLES = """examples:
  linocut compress photo.png                             writes photo.lino
  linocut compress photo.png -o small.lino --bpp 0.25    at most a quarter of a bit per pixel
  linocut compress pictures/ -o compressed/ --quality 60
  linocut decompress photo.lino -o photo.png
  cat photo.png | linocut compress - | linocut decompress - > decoded.png
  linocut compare photo.png photo.lino

exit codes: 0 done, 1 failed (one line on standard error says why), 2 wrong usage
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        from linocut.cli import commands

        command: Callable[[argparse.Namespace], int] = commands.COMMANDS[options.command]
        return command(options)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("linocut: interrupted\n")
        return 130
    except Exception as error:
        if options.debug:
            raise
        sys.stderr.write(f"linocut: {one_line(error)}\n")
        return 1


def one_line(error: BaseException) -> str:
    """An error as one line; what this package did not raise itself is named by its type."""
    from linocut.errors import LinocutError

    text = " ".join(str(error).split())
    if isinstance(error, LinocutError):
        return text
    return f"{type(error).__name__}: {text or 'no message'} (--debug shows where)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="linocut",
        description="Compress pictures with a learned codec.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"linocut {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_compress(commands.add_parser("compress", help="pictures to .lino files"))
    _add_decompress(commands.add_parser("decompress", help=".lino files to pictures"))
    info = commands.add_parser("info", help="what a .lino file holds")
    info.add_argument("file", help=".lino file, or - for standard input")
    models = commands.add_parser("models", help="the models at hand")
    compare = commands.add_parser("compare", help="how close two pictures are")
    compare.add_argument("original", help="picture")
    compare.add_argument("decoded", help="picture or .lino file of the same size")
    _add_decoder(compare)
    _add_machine(compare)
    for command in (info, models, compare):
        command.add_argument("--json", action="store_true", help="print JSON")
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_compress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="IN", help="pictures, folders, globs, or -")
    parser.add_argument("-o", "--output", metavar="OUT", help="file, folder or - (default: beside)")
    parser.add_argument(
        "--model", metavar="NAME|PATH", default="default", help="see `linocut models`"
    )
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--quality", type=_quality, metavar="1..100", help="the same for every model (default: 50)"
    )
    target.add_argument("--bpp", type=_positive, metavar="R", help="at most R bits per pixel")
    target.add_argument("--psnr", type=_positive, metavar="DB", help="at least DB decibels")
    target.add_argument("--max-bytes", type=_count, metavar="N", help="at most N bytes")
    parser.add_argument(
        "--effort", type=int, choices=range(4), default=2, help="0 fast to 3 small (default: 2)"
    )
    parser.add_argument(
        "--resilient", action="store_true", help="survive bit errors, for a seventh more bytes"
    )
    parser.add_argument("--strip", action="store_true", help="leave ICC profile and EXIF out")
    _add_force(parser)
    _add_machine(parser)


def _add_decompress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="IN", help=".lino files, folders, globs, or -")
    parser.add_argument(
        "-o", "--output", metavar="OUT",
        help="file (.png .tif .webp .bmp .ppm), folder or - (default: PNG beside)",
    )  # fmt: skip
    _add_decoder(parser)
    _add_force(parser)
    _add_machine(parser)


def _add_decoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", metavar="NAME|PATH", help="(default: found by the hash in the file)"
    )
    parser.add_argument(
        "--max-pixels", type=_count, metavar="N", help="refuse larger pictures (default: 2^28)"
    )


def _add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="overwrite existing files")


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=_count, metavar="N", help="(default: all cores)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def _quality(text: str) -> float:
    value = _positive(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 100")
    return value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
