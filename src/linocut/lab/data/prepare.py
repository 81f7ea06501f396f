"""Prepared data: pictures found, checked, split, and cut into training crops.

    sources ──> read, hash ──> split ──> refuse bad and double ones ──> test/NAME.png
                                                                   ├──> validation/NAME.png
                                                                   └──> train.npy  (n, s, s, 3)

The same settings, seed and pictures give the same bytes. A process has one picture in memory at a
time; of each it keeps what `_Read` has. Many pictures are read by as many processes as there are
cores, and what they have read outlives an interruption.

A crop is taken at a random scale between half and full size where the picture is large enough, so
that the compression artefacts of JPEG sources vanish and every structure is seen at several sizes.
Nearly flat crops teach little and are mostly drawn again.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from linocut.errors import DataError
from linocut.files import sha256_of, write_atomically
from linocut.lab.config.params import DataConfig, PrepareConfig, Stream
from linocut.lab.config.process import Kept, map_in_processes
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.data.sources import (
    SPLITS,
    PictureFile,
    Split,
    folder_files,
    folder_test_files,
    kodak_files,
    sample_files,
    training_files,
)
from linocut.pictures.image import RgbArray, read_image, write_png

T = TypeVar("T")

SMALLEST_TEST_PX = 161
"""MS-SSIM with five scales and an 11-tap window is defined from this side on."""

DEAD_LEAVES_PX = 512
_DEAD_LEAVES_LICENCE = "generated, no rights reserved"
_SHOWN_REJECTED = 8
_REMEDIES: dict[Split, str] = {
    "test": "put some into test/, raise data.test_share, or set data.test to samples, kodak or a "
    "folder",
    "validation": "put some into validation/, raise data.validation_share, or let "
    "prepare.dead_leaves make some",
    "train": "put some into train/, name folders in data.more_train, or let prepare.dead_leaves "
    "make some",
}
_MANY = 200
"""From so many pictures on it is worth the seconds that new processes take."""
_LOOK_PX = 32
_LOOKS_AT_ONCE = 256
_ALIKE = 0.97
"""Correlation of looks from which on two pictures are taken for copies of one."""

_SMALLEST_SCALE = 0.5
_SCALED_SHARE = 0.6
"""Share of crops at a reduced scale; the others are cut out as they are."""
_FLAT_LEVELS = 1.5
"""Mean absolute difference of neighbours below which a crop counts as flat, in 8-bit levels."""
_FLAT_REFUSAL = 0.8
_DRAWS = 4


@dataclass(frozen=True)
class _Read:
    """What is kept of a file that is a picture."""

    sha256: str
    pixels_sha256: str
    bytes: int
    height: int
    width: int
    look: NDArray[np.float32]


@dataclass(frozen=True)
class _Checked:
    """A picture that was read once and found good."""

    name: str
    split: Split
    file: PictureFile | None
    """None for a generated picture."""
    seed: int
    sha256: str
    pixels_sha256: str
    bytes: int
    height: int
    width: int
    source: str
    licence: str
    look: NDArray[np.float32]
    """See `look_of`; empty for a generated picture."""

    def load(self) -> RgbArray:
        if self.file is None:
            return dead_leaves(self.height, self.width, self.seed)
        return read_image(self.file.path)

    def row(self, crops: int) -> dict[str, Any]:
        """The picture's entry in the manifest."""
        return {
            "name": self.name,
            "split": self.split,
            "width": self.width,
            "height": self.height,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "pixels_sha256": self.pixels_sha256,
            "crops": crops,
            "source": self.source,
            "licence": self.licence,
        }


def prepare(
    data: DataConfig,
    config: PrepareConfig,
    *,
    seed: int,
    out: Path,
    declarations: Path = Path("data"),
    state: Path | None = None,
) -> None:
    """Write the prepared data set.

    Args:
        data: which pictures.
        config: how many crops of which size, generated and validation pictures.
        seed: of the pictures that are generated to train on, and of the crops. Validation pictures
            are the same for all: rates are read from them.
        out: folder to fill: manifest.json, train.npy, validation/*.png, test/*.png.
        declarations: folder with samples.json and kodak.json; its kodak/ keeps what was downloaded.
        state: folder for what an interrupted run has read, named by the code; None for none.

    Raises:
        DataError: a source is missing, or pictures cannot be used and `skip_bad` is off, or a
            split stays empty.
    """
    files = list_files(data, declarations)
    checked, rejected = _check(files, data, config, state)
    if rejected and not data.skip_bad:
        raise DataError(_refusal(rejected, len(files)))
    for entry in rejected:
        _say(f"left out {entry['name']}: {entry['reason']}")
    pictures = _limit_validation(checked, config.validation_pictures)
    pictures += _generated(config, seed, sum(p.split == "validation" for p in pictures))
    for split in SPLITS:
        if not any(picture.split == split for picture in pictures):
            raise DataError(f"no {split} pictures among {len(files)} files: {_REMEDIES[split]}")
    crops = _write(pictures, config, seed, out)
    counts = {split: sum(p.split == split for p in pictures) for split in SPLITS}
    manifest = {
        "seed": seed,
        "crop_px": config.crop_px,
        "crops": config.crops,
        "counts": counts,
        "pictures": [picture.row(crops.get(picture.name, 0)) for picture in pictures],
        "rejected": rejected,
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    write_atomically(out / "manifest.json", text.encode())
    _say(f"{out}: " + ", ".join(f"{n} {split}" for split, n in counts.items()))


def list_files(data: DataConfig, declarations: Path) -> list[PictureFile]:
    """Every file the settings name, test pictures first."""
    samples = declarations / "samples.json"
    files = sample_files(samples) if data.source == "samples" else folder_files(data.folder)
    if data.test != "source":
        files = [file for file in files if file.split != "test"]
    if data.test == "kodak":
        files += kodak_files(declarations / "kodak.json", declarations / "kodak")
    elif data.test == "samples":
        files += [file for file in sample_files(samples) if file.split == "test"]
    elif data.test != "source":
        files += folder_test_files(data.test)
    files += training_files(data.more_train)
    rank = {split: i for i, split in enumerate(SPLITS)}
    return sorted(files, key=lambda file: rank.get(file.split or "train", len(rank)))


def pixels_sha256(image: RgbArray) -> str:
    """Identity of a picture by what it shows: SHA-256 of its size and samples."""
    size = f"{image.shape[0]}x{image.shape[1]}:"
    return sha256_of(size.encode(), np.ascontiguousarray(image).data)


def split_by_hash(pixels: str, validation_share: float, test_share: float) -> Split:
    """The split of a picture of a flat folder; the same picture always goes to the same one."""
    position = int(pixels[:12], 16) / 16**12
    if position < test_share:
        return "test"
    return "validation" if position < test_share + validation_share else "train"


def _check(
    files: Sequence[PictureFile], data: DataConfig, config: PrepareConfig, state: Path | None
) -> tuple[list[_Checked], list[dict[str, str]]]:
    """Read every file once; good pictures in order of split, and the others with the reason."""
    good: list[_Checked] = []
    rejected: list[dict[str, str]] = []
    seen: dict[str, str] = {}
    names: set[str] = set()
    journal = Kept(state / "read", sha256_of) if state else None
    paths = [file.path for file in files]
    _say(f"reading: {len(files)} pictures")
    found = map_in_processes(_read, paths, label="reading", kept=journal, least=_MANY)
    for file, read in zip(files, found, strict=True):
        if isinstance(read, str):
            rejected.append(_rejection(file, read))
            continue
        if read.pixels_sha256 in seen:
            rejected.append(_rejection(file, f"same pixels as {seen[read.pixels_sha256]}"))
            continue
        split = file.split or _hash_split(read.pixels_sha256, data)
        name = _unique(file.name, names)
        seen[read.pixels_sha256] = f"{split} picture {name}"
        good.append(
            _Checked(
                name, split, file, 0, read.sha256, read.pixels_sha256, read.bytes, read.height,
                read.width, file.source, file.licence, read.look,
            )
        )  # fmt: skip
    good = _fill_splits(good, data, config.crop_px)
    kept: list[_Checked] = []
    for split in SPLITS:
        others = tuple(kept)
        pictures = [one for one in good if one.split == split]
        for picture, (nearest, correlation) in zip(
            pictures, _nearest(pictures, others), strict=True
        ):
            assert picture.file is not None
            try:
                _require_size(picture, config.crop_px)
                if correlation > _ALIKE:
                    raise DataError(
                        f"looks like {others[nearest].split} picture {others[nearest].name} "
                        f"(correlation {correlation:.3f})"
                    )
            except DataError as error:
                rejected.append(_rejection(picture.file, str(error)))
                continue
            kept.append(picture)
    return kept, rejected


def _read(path: Path) -> _Read | str:
    """A picture, or why it is none."""
    try:
        image = read_image(path)
        size = path.stat().st_size
    except (DataError, OSError) as error:
        return str(error).removeprefix(f"{path}: ")
    pixels = pixels_sha256(image)
    return _Read(sha256_of(path), pixels, size, image.shape[0], image.shape[1], look_of(image))


def look_of(image: RgbArray) -> NDArray[np.float32]:
    """What a picture looks like from afar: its luma in 32 x 32 boxes, mean 0, length 1, (1024,).

    Zero for a picture of one grey. The product of two is their correlation: of 240 copies at other
    sizes and JPEG qualities the least alike had 0.963, of 957 photographs the most alike 0.935.
    """
    small = Image.fromarray(image).convert("L").resize((_LOOK_PX, _LOOK_PX), Image.Resampling.BOX)
    look: NDArray[np.float32] = np.asarray(small, np.float32).ravel()
    look = look - look.mean()
    return look / max(float(np.linalg.norm(look)), 1.0)


def _nearest(
    pictures: Sequence[_Checked], others: Sequence[_Checked]
) -> Iterator[tuple[int, float]]:
    """For each picture, which of the others looks most like it, and the correlation.

    By products of many looks at once: one look after the other would wait for memory.
    """
    if not others:
        yield from ((-1, -1.0) for _ in pictures)
        return
    looks = np.stack([other.look for other in others]).T  # (1024, others)
    for start in range(0, len(pictures), _LOOKS_AT_ONCE):
        block = np.stack([one.look for one in pictures[start : start + _LOOKS_AT_ONCE]])
        alike = block @ looks
        nearest = alike.argmax(1)
        best = alike[np.arange(len(block)), nearest]
        yield from zip(nearest.tolist(), best.tolist(), strict=True)


def _hash_split(pixels: str, data: DataConfig) -> Split:
    test_share = data.test_share if data.test == "source" else 0.0
    return split_by_hash(pixels, data.validation_share, test_share)


def _fill_splits(pictures: Sequence[_Checked], data: DataConfig, crop_px: int) -> list[_Checked]:
    """At least one picture in every split that hashes fill, however few pictures there are.

    An empty split takes the picture whose hash is nearest to it from a split that has several.
    """
    shares: dict[Split, float] = {
        "test": data.test_share if data.test == "source" else 0.0,
        "validation": data.validation_share,
    }
    shares["train"] = 1.0 - sum(shares.values())
    found = list(pictures)
    free = {i for i, p in enumerate(found) if p.file is not None and p.file.split is None}
    for split in SPLITS:
        counts = Counter(picture.split for picture in found)
        if not free or counts[split] or shares[split] <= 0.0:
            continue
        least = crop_px if split == "train" else SMALLEST_TEST_PX
        able = [
            i
            for i in sorted(free, key=lambda i: found[i].pixels_sha256, reverse=split == "train")
            if counts[found[i].split] > 1 and min(found[i].height, found[i].width) >= least
        ]
        if able:
            found[able[0]] = dataclasses.replace(found[able[0]], split=split)
            free.remove(able[0])
    return found


def _rejection(file: PictureFile, reason: str) -> dict[str, str]:
    return {"name": file.path.name, "source": file.source, "reason": reason}


def _require_size(picture: _Checked, crop_px: int) -> None:
    smallest = crop_px if picture.split == "train" else SMALLEST_TEST_PX
    if min(picture.height, picture.width) < smallest:
        what = "training crops need" if picture.split == "train" else "MS-SSIM needs"
        raise DataError(f"too small, {picture.width}x{picture.height}, {what} {smallest} px a side")


def _unique(name: str, names: set[str]) -> str:
    candidate, number = name, 2
    while candidate.lower() in names:
        candidate, number = f"{name}_{number}", number + 1
    names.add(candidate.lower())
    return candidate


def _limit_validation(checked: list[_Checked], most: int) -> list[_Checked]:
    """Keep a random `most` of the validation pictures; the rest are left unused, not trained."""
    validation = [picture for picture in checked if picture.split == "validation"]
    rng = Stream.VALIDATION_PICTURES.generator(seed=0)
    chosen = {validation[i].name for i in rng.permutation(len(validation))[:most]}
    return [p for p in checked if p.split != "validation" or p.name in chosen]


def _generated(config: PrepareConfig, seed: int, validation: int) -> list[_Checked]:
    """Dead leaves for training, and for what validation pictures are missing."""
    missing = max(0, config.validation_pictures - validation) if config.dead_leaves else 0
    pictures = []
    for i in range(config.dead_leaves + missing):
        split: Split = "train" if i < config.dead_leaves else "validation"
        picture_seed = (seed if split == "train" else 0) * 1_000_003 + i
        size = max(DEAD_LEAVES_PX, config.crop_px)
        identity = sha256_of(f"dead_leaves {size} {picture_seed}".encode())
        pictures.append(
            _Checked(
                f"dead_leaves_{i:04d}", split, None, picture_seed, identity, identity,
                size * size * 3, size, size, "dead_leaves", _DEAD_LEAVES_LICENCE,
                np.empty(0, np.float32),
            )
        )  # fmt: skip
    return pictures


def _write(
    pictures: Sequence[_Checked], config: PrepareConfig, seed: int, out: Path
) -> dict[str, int]:
    """Fill the folder; how many crops each training picture gave."""
    shutil.rmtree(out, ignore_errors=True)
    for split in ("validation", "test"):
        (out / split).mkdir(parents=True)
        for picture in (p for p in pictures if p.split == split):
            write_png(out / split / f"{picture.name}.png", picture.load())
    train = [picture for picture in pictures if picture.split == "train"]
    counts = allot([picture.width * picture.height for picture in train], config.crops)
    shape = (config.crops, config.crop_px, config.crop_px, 3)
    packed: NDArray[np.uint8] = np.lib.format.open_memmap(
        out / "train.npy", mode="w+", dtype=np.uint8, shape=shape
    )
    slots = iter(Stream.CROP_SLOTS.generator(seed).permutation(config.crops))
    for picture, count in _progress(list(zip(train, counts, strict=True)), "cutting crops"):
        if count == 0:
            continue
        image = picture.load()
        rng = Stream.CROPS.generator(seed, int(picture.pixels_sha256[:8], 16))
        for _ in range(count):
            packed[next(slots)] = draw_crop(rng, image, config.crop_px)
    packed.flush()  # type: ignore[attr-defined]
    return {picture.name: count for picture, count in zip(train, counts, strict=True)}


def allot(areas_px: Sequence[int], crops: int) -> list[int]:
    """How many crops each picture gives: in proportion to its area, at least its floor.

    The shares that rounding leaves over go to the largest remainders, earlier pictures first.
    """
    total = sum(areas_px)
    exact = [crops * area / total for area in areas_px]
    counts = [math.floor(value) for value in exact]
    order = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for i in order[: crops - sum(counts)]:
        counts[i] += 1
    return counts


def draw_crop(rng: np.random.Generator, image: RgbArray, size_px: int) -> NDArray[np.uint8]:
    """One crop (size_px, size_px, 3) of a picture whose sides are at least `size_px`."""
    for draw in range(_DRAWS):
        crop = _cut(rng, image, size_px)
        flat = _activity(crop) < _FLAT_LEVELS
        if not flat or draw + 1 == _DRAWS or rng.random() > _FLAT_REFUSAL:
            break
    return crop


def _cut(rng: np.random.Generator, image: RgbArray, size_px: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    smallest = max(_SMALLEST_SCALE, size_px / min(height, width))
    scaled = rng.random() < _SCALED_SHARE
    scale = float(rng.uniform(smallest, 1.0)) if scaled else 1.0
    side = min(round(size_px / scale), height, width)
    top = int(rng.integers(0, height - side + 1))
    left = int(rng.integers(0, width - side + 1))
    window = image[top : top + side, left : left + side]
    if side == size_px:
        return window
    resized = Image.fromarray(np.ascontiguousarray(window)).resize(
        (size_px, size_px), Image.Resampling.LANCZOS
    )
    return np.asarray(resized)


def _activity(crop: NDArray[np.uint8]) -> float:
    """Mean absolute difference of horizontal and vertical neighbours of the green channel."""
    green = crop[..., 1].astype(np.int16)
    across = float(np.abs(np.diff(green, axis=1)).mean())
    down = float(np.abs(np.diff(green, axis=0)).mean())
    return (across + down) / 2


def _refusal(rejected: Sequence[dict[str, str]], files: int) -> str:
    shown = "; ".join(f"{entry['name']}: {entry['reason']}" for entry in rejected[:_SHOWN_REJECTED])
    more = len(rejected) - _SHOWN_REJECTED
    return (
        f"{len(rejected)} of {files} pictures cannot be used (set data.skip_bad=true to leave them "
        f"out): {shown}" + (f"; and {more} more" if more > 0 else "")
    )


def _progress(items: Sequence[T], verb: str) -> Iterator[T]:
    """Yield the items; on a terminal with a bar, elsewhere with one line."""
    from tqdm import tqdm

    if not sys.stderr.isatty():
        _say(f"{verb}: {len(items)} pictures")
    yield from tqdm(items, desc=verb, unit="picture", disable=None, leave=False)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
