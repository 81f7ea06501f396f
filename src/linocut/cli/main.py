"""The command `linocut`: compress and decompress pictures, look into files, compare.

Only the standard library is imported here, so that `--help` is instant; the work is in
`linocut.cli.commands`, which brings numpy, Pillow and, where a network runs, ONNX Runtime.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

from linocut import __version__

_EXAMPLES = """examples:
  linocut compress photo.png                             writes photo.lino
  linocut compress photo.png -o small.lino --bpp 0.25    at most a quarter of a bit per pixel
  linocut compress pictures/ -o compressed/ --quality 60
  linocut decompress photo.lino -o photo.png
  cat photo.png | linocut compress - | linocut decompress - > decoded.png
  linocut compare photo.png photo.lino

exit codes: 0 done, 1 failed (one line on standard error says why), 2 wrong usage,
130 interrupted, 143 terminated
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Returns:
        0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated.
    """
    _mend_streams()
    options = _parser().parse_args(arguments)
    try:
        with _termination_as_interrupt():
            from linocut.cli import commands

            command: Callable[[argparse.Namespace], int] = commands.COMMANDS[options.command]
            code = command(options)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
    except BrokenPipeError:
        _drop_output()
        return _fail("standard output was closed before everything was written")
    except _Terminated:
        return _fail("terminated", 143)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except Exception as error:
        if options.debug:
            raise
        if isinstance(error, OSError):
            _drop_output()
        from linocut.cli.files import one_line

        return _fail(one_line(error))


class _Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: ends a batch as an interrupt does."""


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let a termination clean up: no half files, no workers left; handlers as found afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise _Terminated

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [getattr(signal, name) for name in names]
    found = {n: signal.signal(n, stop) for n in numbers if signal.getsignal(n) == signal.SIG_DFL}
    try:
        yield
    finally:
        for number, handler in found.items():
            signal.signal(number, handler)


def _mend_streams() -> None:
    """Put the null device where the shell closed a stream, so that no file takes its number."""
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (for good)


def _drop_output() -> None:
    """Send what is still buffered for standard output nowhere: writing it would fail again."""
    if sys.stdout is not None:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(text: str, code: int = 1) -> int:
    sys.stderr.write(f"linocut: {text}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="linocut",
        description="Compress pictures with a learned codec.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="show versions and exit")
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


class _Version(argparse.Action):
    """Says which version this is and which form of entropy coding runs, once it is asked."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from linocut.entropy.kernel import description

        print(f"linocut {__version__}, entropy coding: {description()}")
        parser.exit()


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
    _add_limit(parser)
    _add_batch(parser)
    _add_machine(parser)


def _add_decompress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="IN", help=".lino files, folders, globs, or -")
    parser.add_argument(
        "-o", "--output", metavar="OUT",
        help="file (.png .tif .webp .bmp .ppm), folder or - (default: PNG beside)",
    )  # fmt: skip
    _add_decoder(parser)
    _add_batch(parser)
    _add_machine(parser)


def _add_decoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", metavar="NAME|PATH", help="(default: found by the hash in the file)"
    )
    _add_limit(parser)


def _add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-pixels", type=_count, metavar="N", help="refuse larger pictures (default: 2^28)"
    )


def _add_batch(parser: argparse.ArgumentParser) -> None:
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("-f", "--force", action="store_true", help="overwrite existing files")
    existing.add_argument(
        "--skip-existing", action="store_true", help="leave out inputs whose results exist"
    )
    parser.add_argument(
        "--jobs", type=_count, metavar="N", help="pictures at once (default: one a core)"
    )


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=_count, metavar="N", help="of each picture (default: share the cores)"
    )
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
