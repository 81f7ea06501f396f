"""What wrong bits do to a picture: files of equal size, bits flipped at random, decoded, measured.

prepared/test/*.png --arms at one rate--> files --flip bits at a rate, many trials--> decode
    --> robustness/<cell>/{errors.csv, pictures/}, robustness/classical/{errors.csv, pictures/}

Every file, its header and its protection included, has at most the wanted rate. Trials with the
same number flip bits from the same seed in all arms. What does not decode is shown as a viewer
would show it: as a grey picture.
JPEG and JPEG 2000 are read as leniently as Pillow can.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from linocut.codec.effort import EncodeOptions
from linocut.codec.rate_control import fit_bytes
from linocut.codec.tiles import padded
from linocut.errors import BitstreamError, DataError
from linocut.format import bitstream
from linocut.lab.config.process import map_in_processes
from linocut.lab.evaluation.anchors import encode as encode_anchor
from linocut.lab.evaluation.decode import spread
from linocut.lab.evaluation.rows import PROTECTION, ErrorRow, write_rows
from linocut.pictures.image import RgbArray, centre, read_image, write_png
from linocut.pictures.quality import measure

if TYPE_CHECKING:
    from linocut.codec.codec import Codec
    from linocut.codec.transforms import Picture
    from linocut.entropy.planes import Band
    from linocut.format.bitstream import LinoFile
    from linocut.lab.config.params import RobustnessConfig

_STEPS = (1.0, 1024.0)
_GREY = 128


@dataclass(frozen=True)
class Arm:
    """A file, and how it is read when it is damaged.

    Attributes:
        name: of the arm.
        data: the undamaged file.
        header: bytes that do not count as payload.
        decode: damaged bytes to the picture and the share of it that is said to be lost, or None
            where the decoder refuses.
    """

    name: str
    data: bytes
    header: int
    decode: Callable[[bytes], tuple[RgbArray, float] | None]


@dataclass(frozen=True)
class _Task:
    """One picture, all arms of a cell (a codec's folder) or the classical ones (None)."""

    codec_folder: Path | None
    picture: Path
    out_folder: Path
    config: RobustnessConfig
    seed: int
    shown: bool


def run_robustness(
    codec_folder: Path | None,
    test_folder: Path,
    out_folder: Path,
    config: RobustnessConfig,
    seed: int,
) -> None:
    """Measure one cell, or the classical codecs.

    Args:
        codec_folder: a complete codec; None for the classical ones.
        test_folder: PNGs, of which `config.pictures` are used.
        out_folder: errors.csv and pictures/ are written here.
        config: rates, trials, pictures.
        seed: of the flips.

    Raises:
        DataError: no pictures.
    """
    names = spread(sorted(path.stem for path in test_folder.glob("*.png")), config.pictures)
    pictures = [test_folder / f"{name}.png" for name in names]
    if not pictures:
        raise DataError(f"{test_folder} holds no PNG, expected the test pictures")
    tasks = [
        _Task(codec_folder, picture, out_folder, config, seed, number == 0)
        for number, picture in enumerate(pictures)
    ]
    results = map_in_processes(_measure, tasks, label="robustness")
    out_folder.mkdir(parents=True, exist_ok=True)
    write_rows(out_folder / "errors.csv", ErrorRow, [row for found in results for row in found])


def flip_bits(data: bytes, header: int, ber: float, rng: np.random.Generator) -> tuple[bytes, int]:
    """Each bit behind the header is wrong with probability `ber`; also the number of wrong ones."""
    count = 8 * (len(data) - header)
    wrong = int(rng.binomial(count, ber))
    places = rng.choice(count, wrong, replace=False) + 8 * header
    damaged = np.frombuffer(data, np.uint8).copy()
    np.bitwise_xor.at(damaged, places // 8, (0x80 >> places % 8).astype(np.uint8))
    return damaged.tobytes(), wrong


def learned_arms(codec: Codec, picture: RgbArray, size: int) -> list[Arm]:
    """The arms of a codec, each file of at most `size` bytes."""
    shape = (picture.shape[0], picture.shape[1])
    analysed = codec.analyse(picture)
    arms = []
    if codec.geometry.fixed_bits:  # as its files are; there is nothing to compare them with
        own = fit_bytes(lambda step: codec.encode(analysed, step), size, _STEPS)
        start = len(own) - bitstream.unpack(own).payload_bytes
        return [Arm("fixed", own, start, _reading(_plain, codec, shape))]
    if codec.rotation is not None:  # one for each picture would have to be protected, too
        fixed = encode_fixed(codec, picture, size)
        arms.append(Arm("fixed", fixed, header_bytes(codec), _reading(_fixed, codec, shape)))
    plain = fit_bytes(lambda step: codec.encode(analysed, step), size, _STEPS)
    start = len(plain) - bitstream.unpack(plain).payload_bytes
    arms.append(Arm("lino", plain, start, _reading(_plain, codec, shape)))
    resilient = fit_bytes(
        lambda step: codec.encode(analysed, step, EncodeOptions(resilient=True)), size, _STEPS
    )
    start = bitstream.header_bytes(resilient)
    decode = functools.partial(_resilient, bitstream.unpack(resilient), codec.decompress(resilient))
    arms.append(Arm("resilient", resilient, start, _reading(decode, codec, shape)))
    return arms


def classical_arms(picture: RgbArray, size: int) -> list[Arm]:
    """JPEG without and with restart markers, and JPEG 2000, each of at most `size` bytes."""
    shape = (picture.shape[0], picture.shape[1])
    files = {
        "jpeg": jpeg_near(picture, size, restart=False),
        "jpeg_restart": jpeg_near(picture, size, restart=True),
        "jpeg2000": encode_anchor("jpeg2000", picture, picture.size / (0.998 * size)),
    }
    return [
        Arm(name, data, classical_header_bytes(data), functools.partial(_classical, shape))
        for name, data in files.items()
    ]


def _reading(
    decode: Callable[[Codec, bytes, tuple[int, int]], tuple[RgbArray, float]],
    codec: Codec,
    shape: tuple[int, int],
) -> Callable[[bytes], tuple[RgbArray, float] | None]:
    def read(data: bytes) -> tuple[RgbArray, float] | None:
        try:
            picture, lost = decode(codec, data, shape)
        except BitstreamError:
            return None
        return (picture, lost) if picture.shape[:2] == shape else None

    return read


def _fixed(codec: Codec, data: bytes, shape: tuple[int, int]) -> tuple[RgbArray, float]:
    return decode_fixed(codec, data, shape), 0.0


def _plain(codec: Codec, data: bytes, shape: tuple[int, int]) -> tuple[RgbArray, float]:
    """A decoder that does not look at the checksum: it is put right first."""
    checked = zlib.crc32(data[9:]).to_bytes(4, "little")
    return codec.decompress(data[:5] + checked + data[9:], max_pixels=shape[0] * shape[1]), 0.0


def _resilient(
    whole: LinoFile, picture: RgbArray, codec: Codec, data: bytes, shape: tuple[int, int]
) -> tuple[RgbArray, float]:
    """What could be repaired altogether needs no second decoding: it is the file `whole` again."""
    file = bitstream.unpack(data, max_pixels=shape[0] * shape[1])
    if file.resilience and replace(file, resilience=replace(file.resilience, repaired=0)) == whole:
        return picture, 0.0
    found = codec.decode(bitstream.unpack(data, max_pixels=shape[0] * shape[1]))
    damage = found.damage
    lost = (damage.blurred + damage.concealed) / damage.segments if damage else 0.0
    return found.picture, lost


def _classical(shape: tuple[int, int], data: bytes) -> tuple[RgbArray, float] | None:
    picture = decode_classical(data, shape)
    return None if picture is None else (picture, 0.0)


@functools.lru_cache(maxsize=1)
def _load(folder: Path) -> Codec:
    from linocut.codec.codec import Codec

    return Codec.load(folder)


def _measure(task: _Task) -> list[ErrorRow]:
    config = task.config
    picture = centre(read_image(task.picture), config.crop_px, config.crop_px)
    size = int(config.bpp * picture.shape[0] * picture.shape[1] / 8)
    if task.codec_folder is None:
        arms = classical_arms(picture, size)
    else:
        arms = learned_arms(_load(task.codec_folder), picture, size)
    rows: list[ErrorRow] = []
    for arm in arms:
        rows += _trials(arm, picture, task)
    return rows


def _trials(arm: Arm, picture: RgbArray, task: _Task) -> list[ErrorRow]:
    clean = arm.decode(arm.data)
    if clean is None:
        raise DataError(f"the undamaged file of {arm.name} does not decode")
    config, name = task.config, task.picture.stem
    bpp = 8 * len(arm.data) / (picture.shape[0] * picture.shape[1])
    best = measure(picture, clean[0])
    worst = measure(picture, np.full_like(picture, _GREY))
    whole = ErrorRow(
        arm.name, name, "none", 0.0, 0, bpp, 0, 1, best.psnr_db, best.ms_ssim, clean[1]
    )
    rows = [whole]
    for errors_in in PROTECTION:
        for index, ber in enumerate(config.rates):
            for trial in range(config.trials):
                rng = np.random.default_rng([task.seed, zlib.crc32(name.encode()), index, trial])
                start = arm.header if errors_in == "payload" else 0
                data, wrong = flip_bits(arm.data, start, ber, rng)
                row = replace(whole, errors_in=errors_in, ber=ber, trial=trial, wrong_bits=wrong)
                found = arm.decode(data) if wrong else clean
                if found is None:
                    row = replace(row, decoded=0, psnr_db=worst.psnr_db, ms_ssim=worst.ms_ssim)
                elif not np.array_equal(found[0], clean[0]):
                    quality = measure(picture, found[0])
                    row = replace(row, psnr_db=quality.psnr_db, ms_ssim=quality.ms_ssim)
                    row = replace(row, concealed=found[1])
                rows.append(row)
                if task.shown and trial == 0 and errors_in == "payload" and ber in config.shown:
                    image = found[0] if found else np.full_like(picture, _GREY)
                    _write(task.out_folder, f"{name}-{arm.name}-{ber:g}.png", image)
    if task.shown:
        _write(task.out_folder, f"{name}-{arm.name}-0.png", clean[0])
    return rows


def _write(folder: Path, name: str, image: RgbArray) -> None:
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    write_png(folder / "pictures" / name, image)


def encode_jpeg(picture: RgbArray, quality: int, *, restart: bool) -> bytes:
    """Baseline JPEG, 4:2:0, optimised tables; `restart` puts a marker after each row of units."""
    file = io.BytesIO()
    rows = {"restart_marker_rows": 1} if restart else {}
    Image.fromarray(picture).save(
        file, "JPEG", quality=quality, optimize=True, subsampling="4:2:0", **rows
    )
    return file.getvalue()


def jpeg_near(picture: RgbArray, size: int, *, restart: bool) -> bytes:
    """The best JPEG of at most `size` bytes.

    Raises:
        DataError: the coarsest has more.
    """
    low, high = 0, 101
    best = None
    while high - low > 1:
        quality = (low + high) // 2
        data = encode_jpeg(picture, quality, restart=restart)
        if len(data) <= size:
            low, best = quality, data
        else:
            high = quality
    if best is None:
        raise DataError(f"no JPEG of this picture has {size} bytes or less")
    return best


def classical_header_bytes(data: bytes) -> int:
    """Length of what precedes the entropy-coded data of a JPEG file or a JPEG 2000 codestream."""
    if data[:4] == b"\xff\x4f\xff\x51":
        return data.index(b"\xff\x93") + 2
    place = 2
    while data[place + 1] != 0xDA:
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return place + 2 + int(struct.unpack_from(">H", data, place + 2)[0])


def decode_classical(data: bytes, shape: tuple[int, int]) -> RgbArray | None:
    """The picture (h, w, 3) as far as it goes, or None where the decoder refuses.

    Args:
        data: a damaged file.
        shape: height and width that the receiver expects; another size counts as refused.
    """
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "JPEG2000")) as opened:
            if opened.size != shape[::-1]:
                return None
            return np.array(opened.convert("RGB"))
    except Exception:  # whatever a decoder of Pillow raises on nonsense
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


# --- latents in numbers of fixed length: a wrong bit is one wrong sample --------------------------
#
#     r --uniform quantiser per plane, b bits--> codes --one after the other--> bytes
#
# Bits go to planes one at a time, each to the plane where it removes most squared error per bit:
# the classical allocation for a given rate. Only measurements of bit errors use this; it is no
# format.
#
#     offset  bytes  field
#     0       8      width u16, height u16, float32 that the networks are told as step
#             5      for each plane: bits of a sample u8, step float16, mean float16
#             rest   codes, plane by plane, row by row, most significant bit first
#
# Source: Shoham, Gersho, "Efficient bit allocation for an arbitrary set of quantizers", IEEE Trans.
# ASSP 1988; fixed-length latents: Santurkar et al., "Generative Compression", PCS 2018.

Plane = NDArray[np.float32]

MOST_BITS = 9
_SPREADS = np.geomspace(0.7, 6.0, 8)
"""Half ranges of quantisers that are tried, in standard deviations."""

_SAMPLES = 4096
"""Of a plane, at regular distances, that the choice looks at."""

_HEADER = struct.Struct("<HHf")
_PLANE = struct.Struct("<Bee")


@dataclass(frozen=True)
class _Quantiser:
    """2^bits levels around the mean, `step` apart."""

    bits: int
    step: float
    mean: float

    def codes(self, values: Plane) -> NDArray[np.int64]:
        half = 1 << self.bits >> 1
        places = np.floor((values - self.mean) / self.step).astype(np.int64) + half
        codes: NDArray[np.int64] = np.clip(places, 0, 2 * half - 1)
        return codes

    def values(self, codes: NDArray[np.int64]) -> Plane:
        half = 1 << self.bits >> 1
        return ((codes - half + 0.5) * self.step + self.mean).astype(np.float32)


def header_bytes(codec: Codec) -> int:
    """Length of what precedes the codes."""
    return _HEADER.size + _PLANE.size * len(_plane_bands(codec))


def encode_fixed(codec: Codec, picture: Picture, size: int) -> bytes:
    """The best file of at most `size` bytes.

    Raises:
        DataError: the picture is larger than one tile, or the model has no rotation of its own.
    """
    analysed = codec.analyse(picture)
    if analysed.latents is None or len(analysed.latents) != 1 or codec.rotation is None:
        raise DataError("fixed-length latents need a picture of one tile and a global rotation")
    planes = [plane for band in analysed.latents[0] for plane in band]
    chosen, distortion = _allocate(planes, 8 * (size - header_bytes(codec)))
    samples = sum(plane.size for plane in planes)
    step = min(max((12.0 * distortion / samples) ** 0.5, 1.0), 1024.0)
    parts = [_HEADER.pack(picture.shape[1], picture.shape[0], step)]
    parts += [_PLANE.pack(one.bits, one.step, one.mean) for one in chosen]
    bits = [
        (one.codes(plane).ravel()[:, None] >> np.arange(one.bits - 1, -1, -1) & 1).ravel()
        for one, plane in zip(chosen, planes, strict=True)
    ]
    packed: bytes = np.packbits(np.concatenate(bits).astype(np.uint8)).tobytes()
    return b"".join(parts) + packed


def decode_fixed(codec: Codec, data: bytes, shape: tuple[int, int]) -> Picture:
    """The picture (h, w, 3), however the codes were damaged.

    Args:
        codec: as at `encode_fixed`.
        data: a whole file.
        shape: height and width that the receiver expects.

    Raises:
        BitstreamError: the header promises something else.
    """
    width, height, step = _HEADER.unpack_from(data)
    if (height, width) != shape or not 1.0 <= step <= 1024.0 or codec.rotation is None:
        raise BitstreamError(f"the header promises {width}x{height} px and a step of {step}")
    bits = np.unpackbits(np.frombuffer(data, np.uint8)[header_bytes(codec) :])
    multiple = codec.geometry.multiple
    latent: list[list[Plane]] = [[] for _ in codec.geometry.bands]
    start = 0
    for number, (index, band) in enumerate(_plane_bands(codec)):
        one = _Quantiser(*_PLANE.unpack_from(data, _HEADER.size + number * _PLANE.size))
        size = (padded(height, multiple) // band.stride, padded(width, multiple) // band.stride)
        count = size[0] * size[1] * one.bits
        if one.bits > MOST_BITS or start + count > len(bits):
            raise BitstreamError(f"the header promises {one.bits} bits a sample")
        places = 1 << np.arange(one.bits - 1, -1, -1)
        codes = bits[start : start + count].reshape(*size, one.bits).astype(np.int64) @ places
        plane = one.values(codes) if one.bits else np.full(size, one.mean, np.float32)
        latent[index].append(np.nan_to_num(plane, nan=0.0, posinf=0.0, neginf=0.0))
        start += count
    bands = codec.rotation.inverse_transform([np.stack(planes) for planes in latent])
    return codec.transforms.synthesis(bands, step)[:height, :width]


def _plane_bands(codec: Codec) -> Sequence[tuple[int, Band]]:
    """Index and band of every plane."""
    bands = codec.geometry.bands
    return [(index, band) for index, band in enumerate(bands) for _ in range(band.channels)]


def _allocate(planes: Sequence[Plane], budget: int) -> tuple[list[_Quantiser], float]:
    """Quantisers of the planes for a number of bits, and their squared error."""
    ladders = [_ladder(plane) for plane in planes]
    bits = [0] * len(planes)
    while True:
        gains = []
        for number, (plane, ladder) in enumerate(zip(planes, ladders, strict=True)):
            for more in range(bits[number] + 1, MOST_BITS + 1):
                cost = plane.size * (more - bits[number])
                if cost <= budget:
                    gains.append(
                        ((ladder[bits[number]][1] - ladder[more][1]) / cost, number, more, cost)
                    )
        if not gains or max(gains)[0] <= 0:
            break
        _, number, more, cost = max(gains)
        bits[number] = more
        budget -= cost
    chosen = [ladder[count] for ladder, count in zip(ladders, bits, strict=True)]
    return [one for one, _ in chosen], sum(error for _, error in chosen)


def _ladder(plane: Plane) -> list[tuple[_Quantiser, float]]:
    """For each number of bits the best quantiser, as it can be written, and its squared error."""
    seen = plane.ravel()[:: max(1, plane.size // _SAMPLES)]
    weight = plane.size / seen.size
    mean, deviation = float(np.float16(plane.mean())), float(plane.std())
    ladder = [(_Quantiser(0, 1.0, mean), weight * float(((seen - mean) ** 2).sum()))]
    for bits in range(1, MOST_BITS + 1):
        best = ladder[0]
        for width in _SPREADS:
            step = float(np.float16(max(2 * width * deviation / (1 << bits), 1e-3)))
            one = _Quantiser(bits, step, mean)
            error = weight * float(((one.values(one.codes(seen)) - seen) ** 2).sum())
            best = min(best, (one, error), key=lambda pair: pair[1])
        ladder.append(best if best[0].bits == bits else ladder[-1])
    return ladder
