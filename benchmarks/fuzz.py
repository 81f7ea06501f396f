"""Decode many damaged files: each must give a picture or a `BitstreamError`, in time and memory.

    python benchmarks/fuzz.py [--count 100000] [--seed 0] [--first 0] [--keep DIR] [--sanitize]

Exit code 1 on any failure.

`--sanitize` builds the kernel of entropy coding once more, with AddressSanitizer and
UndefinedBehaviorSanitizer, and decodes the files with it, down to their symbols; what decodes is
encoded again. A report of either ends the run at once. It needs gcc and its libasan.

Files come from tests/golden, of both layouts: bits flipped, bytes changed, cut, inserted, doubled,
files spliced, fields, payloads, and the header and index of resilient files replaced by other and
impossible ones. Two thirds get a right length and right checksums, so that the layers behind the
container meet the damage too. Warnings count as failures. Times are of this process's CPU: other
work on the machine makes no hang.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import resource
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np

from linocut.codec.codec import Codec
from linocut.codec.picture_files import decompress_picture
from linocut.entropy.choice import PRICE
from linocut.entropy.kernel import description
from linocut.errors import BitstreamError
from linocut.format import bitstream, resilient
from linocut.format.bitstream import LinoFile, Resilience, Segment, unpack, varint
from linocut.format.resilient import protect, protected_length, recover

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
MAX_PIXELS = 2**13
HANG_S = 1.0
MEMORY_BYTES = 256 * 2**20
"""Far more than pictures of `MAX_PIXELS` need, far less than any damaged size field would take."""

SANITIZED = "LINOCUT_SANITIZED"
"""Environment variable: the kernel that `sanitize` built."""
SANITIZER_FLAGS = (
    "-shared", "-fPIC", "-O2", "-g", "-std=c11", "-ffp-contract=off", "-DLINOCUT_ONE_TARGET",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer",
)  # fmt: skip

EDGES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
NUMBERS = (0, 1, 2, 7, 127, 128, 1023, 1024, 1025, 2**14, 2**16, 2**24, 2**24 + 1, 2**32, 2**41)


@dataclass
class Report:
    """What happened.

    Attributes:
        outcomes: number of files by (kind of damage, "picture" or what refused it).
        failures: one traceback or sentence each.
        slowest_s: the longest decoding, seconds of CPU.
        normal_s: decoding of an undamaged file of about the largest size.
        memory_bytes: growth of the process.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    normal_s: float = 0.0
    memory_bytes: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz and print a table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000, help="number of damaged files")
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--keep", type=Path, help="folder for the files that failed")
    parser.add_argument(
        "--sanitize", action="store_true", help="the kernel alone, under sanitizers"
    )
    options = parser.parse_args(arguments)
    if options.sanitize and SANITIZED not in os.environ:
        return sanitize(sys.argv[1:] if arguments is None else arguments)
    report = fuzz(
        options.count,
        options.seed,
        first=options.first,
        keep=options.keep,
        progress=sys.stderr.isatty(),
        symbols=options.sanitize,
    )
    if options.sanitize:
        print(f"sanitized kernel: {_sanitized_kernel().__file__}, {description()}")
    print(table(report))
    for failure in report.failures[:20]:
        print(failure, file=sys.stderr)
    return 1 if report.failures else 0


def sanitize(arguments: Sequence[str]) -> int:
    """Run this file once more in a process whose kernel is built with sanitizers."""
    with tempfile.TemporaryDirectory() as folder:
        kernel = Path(folder) / "_kernel.so"
        command = ["gcc", *SANITIZER_FLAGS, f"-I{sysconfig.get_paths()['include']}"]
        source = ROOT / "src" / "linocut" / "entropy" / "_kernel.c"
        subprocess.run([*command, source, "-o", kernel], check=True)
        library = subprocess.run(
            ["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
        )
        settings = {
            SANITIZED: str(kernel),
            "LD_PRELOAD": library.stdout.strip(),
            "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16:malloc_context_size=8",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",  # so that bytes end where the sanitizer sees it
            "PYTHONPATH": str(ROOT / "src"),
        }
        command = [sys.executable, __file__, *arguments]
        return subprocess.run(command, env=os.environ | settings, check=False).returncode


def _sanitized_kernel() -> ModuleType:
    """The kernel that `sanitize` built, in place of the package's."""
    name = "linocut.entropy._kernel"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, os.environ[SANITIZED])
        if spec is None or spec.loader is None:
            raise ImportError(f"{os.environ[SANITIZED]} is no module")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def fuzz(
    count: int,
    seed: int,
    *,
    first: int = 0,
    keep: Path | None = None,
    progress: bool = False,
    symbols: bool = False,
) -> Report:
    """Decode `count` damaged files; those of a seed are numbered, and made of their numbers.

    Args:
        count: number of files.
        seed: of the damage.
        first: number of the first file.
        keep: folder for the files that failed.
        progress: print how far it is.
        symbols: decode no further than to symbols, with the kernel that `sanitize` built.
    """
    if symbols:
        _sanitized_kernel()
    decode = _decode_symbols if symbols else _decode
    models = {name: Codec.load(GOLDEN / name, threads=1) for name in ("wavelet", "personal")}
    corpus = [path.read_bytes() for path in sorted(GOLDEN.glob("*.lino"))]
    codecs = {bytes.fromhex(codec.model_id): codec for codec in models.values()}
    for codec in models.values():
        side = int(MAX_PIXELS**0.5)
        noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        corpus.append(codec.compress(noise[:24, :40], step=20.0, effort=0))
        corpus.append(codec.compress(noise[:24, :40], step=20.0, effort=0, resilient=True))
    report = Report()
    report.normal_s = _normal(models["wavelet"], models["personal"])
    before = _memory()
    for number in range(first, first + count):
        rng = random.Random(f"{seed} {number}")
        kind, data = damaged(rng, corpus, _INNER if symbols else tuple(DAMAGES))
        started = time.process_time()
        problem = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                outcome = decode(codecs, data)
        except BitstreamError as error:
            outcome = _reason(str(error))
        except KeyboardInterrupt:
            raise
        except BaseException:  # a panic of a compiled library is no Exception
            outcome, problem = "FAILURE", traceback.format_exc()
        elapsed = time.process_time() - started
        report.slowest_s = max(report.slowest_s, elapsed)
        if elapsed > report.normal_s + HANG_S:
            problem = f"decoding took {elapsed:.2f} s, normal is {report.normal_s:.2f} s"
        report.outcomes[kind, outcome] += 1
        if problem:
            report.failures.append(f"file {number} of seed {seed} ({kind}): {problem}")
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{seed}-{number}.lino").write_bytes(data)
        if progress and number % 1000 == 0:
            print(
                f"\r{number - first} of {count}, {len(report.failures)} failures",
                end="",
                file=sys.stderr,
            )
    report.memory_bytes = _memory() - before
    if report.memory_bytes > MEMORY_BYTES:
        report.failures.append(f"memory grew by {report.memory_bytes} bytes, limit {MEMORY_BYTES}")
    return report


def damaged(rng: random.Random, corpus: Sequence[bytes], kinds: Sequence[str]) -> tuple[str, bytes]:
    """One damaged file and the kind of its damage."""
    kind = rng.choice(kinds)
    data = DAMAGES[kind](rng, corpus)
    if kind not in _SEALED and rng.random() < 0.5:
        return f"{kind}, sealed", sealed(body_of(data))
    return kind, data


def body_of(data: bytes) -> bytes:
    """What follows the length field, as far as there is one."""
    place = 9
    while place < min(len(data), 14) and data[place] >= 128:
        place += 1
    return data[place + 1 :]


def sealed(body: bytes) -> bytes:
    """A container around any body, with a right length and checksum."""
    checked = varint(len(body)) + body
    head = bitstream.MAGIC + bytes([bitstream.VERSION])
    return head + zlib.crc32(checked).to_bytes(4, "little") + checked


def _flip(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        place = rng.randrange(8 * len(data))
        data[place // 8] ^= 1 << place % 8
    return bytes(data)


def _edge_bytes(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.choice((1, 1, 2, 5))):
        data[rng.randrange(min(len(data), rng.choice((40, 400))))] = rng.choice(EDGES)
    return bytes(data)


def _truncate(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    data = rng.choice(corpus)
    return data[: rng.randrange(len(data))]


def _remove(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    data = rng.choice(corpus)
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 2, 16, 200)) :]


def _insert(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    data = rng.choice(corpus)
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.randbytes(rng.choice((1, 2, 16, 200))) + data[start:]


def _double(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    data = rng.choice(corpus)
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:]


def _splice(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    first, second = rng.choice(corpus), rng.choice(corpus)
    return first[: rng.randrange(len(first) + 1)] + second[rng.randrange(len(second) + 1) :]


def _noise(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    return rng.choice(corpus)[: rng.choice((0, 4, 5, 9, 10, 30))] + rng.randbytes(
        rng.randrange(300)
    )


def _fields(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """A well-formed file whose fields do not belong together."""
    file, other = unpack(rng.choice(corpus)), unpack(rng.choice(corpus))
    width, height, step, flags = file.width, file.height, file.step_index, 0
    model, tiles, extras = file.model_id, list(file.tiles), dict(file.extras)
    for _ in range(rng.choice((1, 1, 2, 3))):
        match rng.randrange(9):
            case 0:
                width = rng.choice((*NUMBERS, rng.randrange(1, 130)))
            case 1:
                height = rng.choice((*NUMBERS, rng.randrange(1, 130)))
            case 2:
                step = rng.choice((0, 640, 641, rng.randrange(641), 2**40))
            case 3:
                flags = rng.choice((0, 1, 2, 255))
            case 4:
                model = rng.choice((other.model_id, rng.randbytes(8)))
            case 5:
                tiles = [bytearray_noise(rng, tile) for tile in tiles]
            case 6:
                tiles = rng.choice(([], tiles * 2, list(other.tiles), [b""] * len(tiles)))
            case 7:
                kind = rng.choice((1, 2, 3, 4, 5, 6, 8, 255))
                size = rng.choice((0, 1, 5, 34, 42, 96, 180, 378))
                extras[kind] = rng.choice((rng.randbytes(size), bytes(size), b"\xff" * size))
            case 8:
                for kind, block in extras.items():
                    extras[kind] = bytearray_noise(rng, block)
    return sealed(raw_body(LinoFile(width, height, step, model, tiles, extras), flags))


def _payload(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """A plain file that is right but for what its tiles or blocks hold."""
    file = unpack(rng.choice([data for data in corpus if data[:5] != resilient.MARK]))
    tiles, extras = list(file.tiles), dict(file.extras)
    if extras and rng.random() < 0.2:
        kind = rng.choice(list(extras))
        extras[kind] = bytearray_noise(rng, extras[kind])
    else:
        place = rng.randrange(len(tiles))
        tiles[place] = bytearray_noise(rng, tiles[place])
    step = rng.choice((file.step_index, file.step_index, rng.randrange(641)))
    return sealed(
        raw_body(LinoFile(file.width, file.height, step, file.model_id, tiles, extras), 0)
    )


def _protected(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    return rng.choice([file for file in corpus if file[:5] == resilient.MARK])


def _resilience(file: LinoFile) -> Resilience:
    if file.resilience is None:
        raise AssertionError("the corpus holds a plain file with the mark of the other layout")
    return file.resilience


def _resilient_payload(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """A protected file with right checksums around layers that no encoder wrote."""
    file = unpack(_protected(rng, corpus))
    layout = _resilience(file)
    segments = [
        [
            Segment(tuple(_other_part(rng, part) for part in segment.layers), segment.good)
            for segment in tile
        ]
        for tile in layout.segments
    ]
    changed = Resilience(layout.segment_px, layout.layer_bands, segments)
    fields = file.width, file.height, file.step_index, file.model_id
    return resilient.pack(LinoFile(*fields, [], file.extras, changed))


def _resilient_fields(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """A protected file whose parts are whole but do not belong together."""
    file = unpack(_protected(rng, corpus))
    layout = _resilience(file)
    width, height, step, model = file.width, file.height, file.step_index, file.model_id
    side, bands, extras = layout.segment_px, layout.layer_bands, dict(file.extras)
    for _ in range(rng.choice((1, 1, 2))):
        match rng.randrange(7):
            case 0:
                width = rng.choice((*NUMBERS[1:-3], rng.randrange(1, 130)))
            case 1:
                height = rng.choice((*NUMBERS[1:-3], rng.randrange(1, 130)))
            case 2:
                step = rng.choice((0, 640, 641, 65535, rng.randrange(641)))
            case 3:
                model = unpack(rng.choice(corpus)).model_id
            case 4:
                side = rng.choice((64, 128, 1024, 2, 2**31))
            case 5:
                bands = rng.choice(((0, 0), (7, 255), (5, 2), (1, 3), (3, 3)))
            case 6:
                kind = rng.choice((1, 2, 3, 4, 5, 6, 200))
                extras[kind] = rng.choice((rng.randbytes(rng.randrange(99)), b"", bytes(34)))
    changed = Resilience(side, bands, layout.segments)
    return resilient.pack(LinoFile(width, height, step, model, [], extras, changed))


def _resilient_tables(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """Other bytes in the header or index of a protected file, protected anew."""
    data = _protected(rng, corpus)
    header = bytearray(resilient.header_of(data) or b"")
    length = int.from_bytes(header[-4:], "little")
    start = len(resilient.MARK) + len(header) + 4 + resilient.HEADER_PARITY
    end = start + protected_length(length, resilient.INDEX_PARITY)
    index = recover(data[start:end], length, resilient.INDEX_PARITY)[0]
    if rng.random() < 0.5:
        index = bytearray_noise(rng, index)
        header[-4:] = struct.pack("<I", len(index))
    else:
        for _ in range(rng.choice((1, 1, 2, 4))):
            header[rng.randrange(len(header))] = rng.choice((*EDGES, rng.randrange(256)))
    whole = bytes(header) + zlib.crc32(header).to_bytes(4, "little")
    parts = (
        protect(whole, resilient.HEADER_PARITY),
        protect(index, resilient.INDEX_PARITY),
    )
    return resilient.MARK + b"".join(parts) + data[end:]


def _other_part(rng: random.Random, part: bytes) -> bytes:
    return bytearray_noise(rng, part) if rng.random() < 0.3 else part


def bytearray_noise(rng: random.Random, data: bytes) -> bytes:
    """The same bytes with some changed, a part missing, or something else altogether."""
    result = bytearray(data)
    match rng.randrange(4):
        case 0 if result:
            for _ in range(rng.choice((1, 4, 30))):
                result[rng.randrange(len(result))] = rng.choice((*EDGES, rng.randrange(256)))
        case 1:
            del result[rng.randrange(len(result) + 1) :]
        case 2:
            return rng.randbytes(rng.randrange(200))
        case _:
            return rng.choice((b"\xff", b"\0")) * rng.randrange(100)
    return bytes(result)


def raw_body(file: LinoFile, flags: int) -> bytes:
    """As `bitstream.pack`, without its checks."""
    result = b"".join(map(varint, (file.width, file.height, file.step_index)))
    result += bytes([flags]) + file.model_id
    for kind, block in file.extras.items():
        result += bytes([kind]) + varint(len(block)) + block
    return result + b"\0" + b"".join(varint(len(tile)) + tile for tile in file.tiles)


DAMAGES: dict[str, Callable[[random.Random, Sequence[bytes]], bytes]] = {
    "flipped bits": _flip,
    "edge bytes": _edge_bytes,
    "truncated": _truncate,
    "removed": _remove,
    "inserted": _insert,
    "doubled": _double,
    "spliced": _splice,
    "noise": _noise,
    "fields": _fields,
    "payload": _payload,
    "payload again": _payload,
    "resilient fields": _resilient_fields,
    "resilient payload": _resilient_payload,
    "resilient header or index": _resilient_tables,
}
_SEALED = frozenset(
    {"fields", "payload", "payload again"} | {k for k in DAMAGES if "resilient" in k}
)


_INNER = (*["payload"] * 7, "resilient payload", "fields", "flipped bits")
"""What mostly reaches the entropy decoder."""


def _decode(codecs: dict[bytes, Codec], data: bytes) -> str:
    """Decode with the model that the file names, or with some."""
    file = unpack(data, max_pixels=MAX_PIXELS)
    codec = codecs.get(file.model_id, next(iter(codecs.values())))
    picture = decompress_picture(codec, file)
    if picture.rgb.shape != (file.height, file.width, 3) or picture.rgb.dtype != np.uint8:
        raise AssertionError(f"{picture.rgb.shape} {picture.rgb.dtype} is not the picture promised")
    return "picture"


def _decode_symbols(codecs: dict[bytes, Codec], data: bytes) -> str:
    """Decode the symbols alone; choose symbols for some of what was found, and encode them."""
    file = unpack(data, max_pixels=MAX_PIXELS)
    codec = codecs.get(file.model_id, next(iter(codecs.values())))
    for number, tile in enumerate(codec._tiles(file.width, file.height)):
        found = codec._decode(file, number, tile)[0]
        if len(data) % 8 == 0:  # now and then
            values = codec.coder.dequantise(found, file.step_index)
            symbols, bins = codec.coder.optimise(values, file.step_index, PRICE)
            codec.coder.encode_counted(symbols, file.step_index, bins)
    return "symbols"


def _normal(*codecs: Codec) -> float:
    """Seconds that a dense undamaged file of the largest size takes, after a first one."""
    side = int(MAX_PIXELS**0.5)
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    slowest = 0.0
    for codec in codecs:
        data = codec.compress(picture, step=4.0, effort=0)
        codec.decompress(data)
        started = time.process_time()
        codec.decompress(data)
        slowest = max(slowest, time.process_time() - started)
    return slowest


def _memory() -> int:
    """Largest resident size so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _reason(message: str) -> str:
    """A message without its numbers."""
    words = ["…" if any(c.isdigit() for c in word) else word for word in message.split()]
    return " ".join(words)[:44]


def table(report: Report) -> str:
    """What was refused why, and by kind of damage what still decoded."""
    reasons: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    decoded: Counter[str] = Counter()
    for (kind, outcome), count in report.outcomes.items():
        reasons[outcome] += count
        kinds[kind] += count
        decoded[kind] += count * (outcome in ("picture", "symbols"))
    lines = [f"{'damage':28} {'files':>8} {'decoded':>8}"]
    lines += [f"{kind:28} {kinds[kind]:8} {decoded[kind]:8}" for kind in sorted(kinds)]
    lines += ["", f"{'outcome':46} {'files':>8}"]
    lines += [f"{reason:46} {count:8}" for reason, count in reasons.most_common(30)]
    lines += [
        "",
        f"{sum(kinds.values())} files, {len(report.failures)} failures; slowest "
        f"{report.slowest_s:.2f} s (normal {report.normal_s:.2f} s), memory grew by "
        f"{report.memory_bytes / 2**20:.0f} MiB (limit {MEMORY_BYTES / 2**20:.0f} MiB)",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
