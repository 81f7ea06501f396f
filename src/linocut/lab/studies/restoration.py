"""Restoration: the same networks and the same losses, with a degraded input and a clean target.

    degraded x --analysis--> y --(bottleneck: quantised, coded as a file)--> synthesis --> x_hat

Without the bottleneck nothing is quantised and nothing is paid for: the loss alone decides, as in
Zhao et al. 2017. With it the network is a codec whose input is degraded, and the loss competes with
the rate, at the exchange rate that a training for clean pictures has. All trainings of a task start
from the same base network, see the same crops, degraded in the same way, and have the same length.

What is trained with a bottleneck becomes a codec with tables for what its own latents hold, which
is less noise than there was:

    trained network + training crops, degraded --fit_pca, build_codec--> codec

Pictures are degraded by `denoise`, round(x + sigma * white Gaussian noise) clipped to 0..255, or by
`dejpeg`, x through a JPEG file of some quality (4:2:0), training and test pictures alike.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import math
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor, nn

from linocut.codec.codec import Codec
from linocut.codec.effort import EncodeOptions
from linocut.codec.rate_control import fit_bytes
from linocut.codec.tiles import Analysed, padded
from linocut.entropy.planes import step_index, step_of
from linocut.errors import DataError
from linocut.lab.config.params import (
    DejpegConfig,
    DenoiseConfig,
    LossOption,
    Params,
    Stream,
    TaskConfig,
    TuningConfig,
)
from linocut.lab.config.process import map_in_processes
from linocut.lab.evaluation.anchors import decode, encode_near
from linocut.lab.evaluation.rows import NoiseRow, RestoredRow, write_rows
from linocut.lab.fitting import build
from linocut.lab.networks.losses import build_loss, description
from linocut.lab.networks.networks import Network
from linocut.lab.networks.store import load_model, save_model
from linocut.lab.training.guards import ResumeState
from linocut.lab.training.machine import pick_device, picture_batch, read_crops
from linocut.lab.training.rate import Exchange
from linocut.lab.training.recipes import validation_centres
from linocut.lab.training.trainer import (
    Coding,
    CropSampler,
    Distortion,
    Outcome,
    Row,
    Trainer,
)
from linocut.pictures.image import read_image, write_png
from linocut.pictures.quality import Quality, measure, psnr_db, ssimulacra2

Picture = NDArray[np.uint8]
Degradation = Callable[[Picture, np.random.Generator], Picture]
"""uint8 (h, w, 3) and the source of randomness -> uint8 (h, w, 3)."""

EFFORT = 1
"""Of encoders in these studies: a dead zone; optimised symbols would cost more than training."""

DEGRADED = "degraded"
"""What the shown pictures are called before they are restored."""

CALIBRATION_BATCHES = 8
SHOWN_PICTURES = 2


@dataclass(frozen=True)
class DegradedPicture:
    """A test picture before and after its degradation."""

    name: str
    clean: Picture
    degraded: Picture
    quality: Quality
    ssimulacra2: float


@dataclass(frozen=True)
class Restoration:
    """One task for one architecture: what all its trainings share.

    Attributes:
        params: the whole of params.yaml.
        base: folder of the network to start from.
        prepared: train.npy, validation/, test/.
        degrade: what happens to the input.
        step: see `matching_step`.
        tests: the test pictures.
        state: folder for what a killed run need not do again.
    """

    params: Params
    base: pathlib.Path
    prepared: pathlib.Path
    degrade: Degradation
    step: float
    tests: Sequence[DegradedPicture]
    state: pathlib.Path

    def train(self, name: str, option: LossOption, seed: int, bottleneck: bool) -> Network:
        """One training from the base network on, unless a killed run has completed it already.

        Args:
            name: of the loss, as `variants` has it.
            option: the loss.
            seed: counted from `params.seed`.
            bottleneck: see `Restoring`.
        """
        place = f"{name}-{'codec' if bottleneck else 'restorer'}-{seed}"
        complete = self._kept(place, "network")
        weights = complete.load()
        if weights is None:
            weights = self._train(name, option, seed, bottleneck, self._kept(place, "training"))
            complete.save(weights)
        network: Network = load_model(self.base)
        network.load_state_dict(weights)
        return network

    def _train(
        self, name: str, option: LossOption, seed: int, bottleneck: bool, resume: ResumeState
    ) -> dict[str, Tensor]:
        network = load_model(self.base)
        coding = Coding(network, self.params.train.step_range)
        Trainer(
            network=network,
            objective=Restoring(
                coding, self.degrade, bottleneck, self.step, self._kept(name, "exchange")
            ),
            distortion=build_loss(option),
            crops=read_crops(self.prepared / "train.npy"),
            validation=validation_centres(self.prepared / "validation", network.multiple)[:1],
            config=self.params.train,
            schedule=self.params.restore,
            seed=self.params.seed + seed,
            device=pick_device(),
            resume=resume,
        ).run()
        return dict(network.state_dict())

    def _kept(self, *parts: str) -> ResumeState:
        return ResumeState(self.state.joinpath(*parts))

    def codec_of(self, network: Network, folder: pathlib.Path, about: dict[str, Any]) -> Codec:
        """A trained network with a rotation and tables for degraded pictures as it writes them."""
        with tempfile.TemporaryDirectory() as place:
            trained = pathlib.Path(place)
            save_model(trained, network, about)
            write_codec(self.params, trained, self.prepared, self.degrade, folder)
        return Codec.load(folder)

    def steps(self) -> list[float]:
        """Quantisation steps of the files."""
        factors = self.params.restore.step_factors
        return [step_of(step_index(self.step * factor)) for factor in factors]


def prepare_restoration(
    params: Params, task: str, base: pathlib.Path, prepared: pathlib.Path, state: pathlib.Path
) -> Restoration:
    """Degrade the test pictures, and choose the step."""
    degrade = degradation(params.task[task])
    step = matching_step(params, read_crops(prepared / "train.npy"), degrade)
    tests = list(degraded_tests(prepared / "test", degrade, params.seed))
    return Restoration(params, base, prepared, degrade, step, tests, state)


def restore_cell(
    params: Params,
    task: str,
    loss: str,
    base: pathlib.Path,
    prepared: pathlib.Path,
    out: pathlib.Path,
    state: pathlib.Path,
) -> None:
    """Train one architecture for one loss to undo one degradation, and measure what it restores.

    Args:
        params: the whole of params.yaml.
        task: name of the degradation.
        loss: name of the loss; `mix` is trained with each alpha.
        base: folder of the network to start from.
        prepared: train.npy, validation/, test/.
        out: restored.csv, pictures/, and under codec-*/ the codec of the first seed.
        state: folder for what a killed run need not do again.
    """
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    rows: list[RestoredRow] = []
    with tempfile.TemporaryDirectory() as place:
        work = prepare_restoration(params, task, base, prepared, state)
        shown = {test.name for test in work.tests[:SHOWN_PICTURES]}
        for test in work.tests[:SHOWN_PICTURES]:
            write_png(out / "pictures" / f"{test.name}-{DEGRADED}.png", test.degraded)
        for name, option in variants(loss, params.loss[loss], params.restore.alphas):
            about = {"task": task} | description(loss, option)
            for seed, bottleneck in itertools.product(range(params.restore.seeds), (False, True)):
                network = work.train(name, option, seed, bottleneck)
                codec = None
                if bottleneck:
                    folder = (out if seed == 0 else pathlib.Path(place)) / f"codec-{name}"
                    codec = work.codec_of(network, folder, about)
                for test, step, bpp, restored in restored_tests(work, network, codec):
                    rows.append(_row(name, bottleneck, seed, test, step, bpp, restored))
                    if seed == 0 and not bottleneck and test.name in shown:
                        write_png(out / "pictures" / f"{test.name}-{name}.png", restored)
    write_rows(out / "restored.csv", RestoredRow, rows)
    ResumeState(state).clear()


def variants(
    loss: str, option: LossOption, alphas: Sequence[float]
) -> list[tuple[str, LossOption]]:
    """The losses to train for one of the grid, by name: as many as alphas where it has an alpha."""
    if "alpha" not in option.numbers:
        return [(loss, option)]
    return [
        (f"{loss}-{alpha:g}", LossOption(option.target, {**option.numbers, "alpha": alpha}))
        for alpha in alphas
    ]


def degradation(task: TaskConfig) -> Degradation:
    """The degradation that a task undoes."""
    if isinstance(task, DenoiseConfig):
        return lambda picture, rng: add_noise(picture, task.sigma, rng)
    return lambda picture, rng: through_jpeg(picture, task)


def add_noise(picture: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    """White Gaussian noise of `sigma` grey levels on every sample."""
    noisy = picture + sigma * rng.standard_normal(picture.shape, dtype=np.float32)
    degraded: Picture = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    return degraded


def through_jpeg(picture: Picture, task: DejpegConfig) -> Picture:
    """Compressed and decompressed."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=task.quality, subsampling="4:2:0")
    return np.asarray(Image.open(file).convert("RGB"))


def degraded_tests(
    folder: pathlib.Path, degrade: Degradation, seed: int
) -> Iterator[DegradedPicture]:
    """The test pictures, each degraded in the one way that all cells see."""
    paths = sorted(folder.glob("*.png"))
    if not paths:
        raise DataError(f"{folder} holds no PNG, expected the test pictures")
    for index, path in enumerate(paths):
        clean = read_image(path)
        degraded = degrade(clean, Stream.DEGRADED_TESTS.generator(seed, index))
        quality = measure(clean, degraded)
        yield DegradedPicture(path.stem, clean, degraded, quality, ssimulacra2(clean, degraded))


def matching_step(params: Params, crops: NDArray[np.uint8], degrade: Degradation) -> float:
    """The step whose rounding errors are as large as the degradation, within the trained range."""
    pairs = _training_pairs(params.seed, crops, degrade)
    errors = [np.square(after.astype(np.float64) - before).mean() for before, after in pairs]
    low, high = params.train.step_range
    return float(np.clip(math.sqrt(12.0 * float(np.mean(errors))), low, high))


def _training_pairs(
    seed: int, crops: NDArray[np.uint8], degrade: Degradation
) -> list[tuple[Picture, Picture]]:
    """Some training crops before and after their degradation."""
    rng = Stream.MATCHING_STEP.generator(seed)
    picked = [crops[index] for index in rng.integers(0, len(crops), 8)]
    return [(crop, degrade(crop, rng)) for crop in picked]


BLUR = "Gaussian blur"
BLUR_RADII = tuple(round(0.1 * n, 1) for n in range(2, 31))


def blur(picture: Picture, radius: float) -> Picture:
    """The simplest restorer: a Gaussian of standard deviation `radius` px."""
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def measure_blur(params: Params, task: str, prepared: pathlib.Path, out: pathlib.Path) -> None:
    """The control: what a blur restores, of the radius that is best for some training crops.

    Args:
        params: the whole of params.yaml.
        task: name of the degradation.
        prepared: train.npy, test/.
        out: the CSV file to write, with rows as `RestoredRow`; the radius is in the place of the
            step.
    """
    degrade = degradation(params.task[task])
    pairs = _training_pairs(params.seed, read_crops(prepared / "train.npy"), degrade)

    def squared_error(radius: float) -> float:
        errors = [np.square(blur(after, radius) - before.astype(float)) for before, after in pairs]
        return float(np.mean(errors))

    radius = min(BLUR_RADII, key=squared_error)
    tests = degraded_tests(prepared / "test", degrade, params.seed)
    rows = [_row(BLUR, False, 0, test, radius, 0.0, blur(test.degraded, radius)) for test in tests]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_rows(out, RestoredRow, rows)


def restored_tests(
    work: Restoration, network: Network, codec: Codec | None
) -> Iterator[tuple[DegradedPicture, float, float, Picture]]:
    """Test picture, step, rate in bpp and restored picture; with a codec for every step."""
    for test in work.tests:
        if codec is None:
            yield test, work.step, 0.0, restore(network, test.degraded, work.step)
            continue
        analysed = codec.analyse(test.degraded)
        for step in work.steps():
            data = codec.encode(analysed, step, EncodeOptions(EFFORT))
            bpp = 8 * len(data) / (test.clean.shape[0] * test.clean.shape[1])
            yield test, step, bpp, codec.decompress(data)


def _row(
    loss: str, bottleneck: bool, seed: int, test: DegradedPicture, step: float, bpp: float,
    restored: Picture,
) -> RestoredRow:  # fmt: skip
    before, after = test.quality, measure(test.clean, restored)
    return RestoredRow(
        loss=loss,
        bottleneck=int(bottleneck),
        seed=seed,
        picture=test.name,
        step=step,
        bpp=bpp,
        input_psnr_db=before.psnr_db,
        input_ssim=before.ssim,
        input_ms_ssim=before.ms_ssim,
        input_ssimulacra2=test.ssimulacra2,
        psnr_db=after.psnr_db,
        ssim=after.ssim,
        ms_ssim=after.ms_ssim,
        ssimulacra2=ssimulacra2(test.clean, restored),
    )


_NO_TUNING = TuningConfig(megapixels=0.0, crops=1, batch_size=1, learning_rate=1.0)


def write_codec(
    params: Params,
    network: pathlib.Path,
    prepared: pathlib.Path,
    degrade: Degradation,
    folder: pathlib.Path,
) -> None:
    """Write a network as a complete codec, with tables fitted on degraded crops."""
    rng = Stream.RESTORED_CROPS.generator(params.seed)
    crops = read_crops(prepared / "train.npy")
    picked = crops[rng.permutation(len(crops))[: params.restore.table_crops]]
    with tempfile.TemporaryDirectory() as name:
        place = pathlib.Path(name)
        (place / "validation").mkdir()
        np.save(place / "train.npy", np.stack([degrade(crop, rng) for crop in picked]))
        for path in sorted((prepared / "validation").glob("*.png"))[:1]:
            write_png(place / "validation" / path.name, degrade(read_image(path), rng))
        pca = dataclasses.replace(params.pca, crops=len(picked))
        build.fit_pca(network, place, place / "rotated", pca, params.seed)
        code = dataclasses.replace(params.code, effort=EFFORT, crops=len(picked), tuning=_NO_TUNING)
        steps = params.train.step_range
        build.build_codec(network, place / "rotated", place, folder, code, steps, params.seed)


@dataclass
class Restoring:
    """The objective of a restoration, with and without a bottleneck.

    Attributes:
        coding: what happens at the bottleneck.
        degrade: what happens to the input.
        bottleneck: whether latents are quantised and their rate is paid for.
        step: what the synthesis is told without a bottleneck, grey levels.
        shared: where the first training with a bottleneck leaves its rate proxy and its exchange
            rate for the others of the same loss.
    """

    coding: Coding
    degrade: Degradation
    bottleneck: bool
    step: float
    shared: ResumeState
    learned: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.network = self.coding.network
        self.learned = self.coding.learned

    def to(self, device: torch.device) -> None:
        """Move the rate proxy."""
        self.coding.to(device)

    @torch.no_grad()
    def calibrate(self, sample: CropSampler, distortion: Distortion, seed: int) -> Exchange:
        """With a bottleneck as for clean pictures; without, every loss starts at about 1."""
        if self.bottleneck:
            found = self.shared.load()
            if found is not None:
                self.learned.load_state_dict(found["proxy"])
                return Exchange(**{name: tuple(value) for name, value in found["exchange"].items()})
            with torch.enable_grad():
                exchange = self.coding.calibrate(sample, distortion, seed)
            rate = dataclasses.asdict(exchange)
            self.shared.save({"proxy": self.learned.state_dict(), "exchange": rate})
            return exchange
        start = []
        for index in range(CALIBRATION_BATCHES):
            x, rng = sample(2**31 + index)
            torch.manual_seed(index)
            outcome = self.forward(x, self.draw_steps(rng, len(x)).to(x.device), False)
            start.append(float(distortion(outcome.x_hat, x).mean()))
        return Exchange((-math.log(float(np.mean(start))),), (0.0,))

    def draw_steps(self, rng: np.random.Generator, count: int) -> Tensor:
        """Those of a codec, or the one step."""
        if self.bottleneck:
            return self.coding.draw_steps(rng, count)
        return torch.full((count,), self.step)

    def forward(self, x: Tensor, step: Tensor, joint: bool) -> Outcome:
        """Paid is the rate, if any, of the degraded x; x_hat is x restored."""
        rng = np.random.default_rng(int(torch.randint(2**62, ())))  # seeded for each iteration
        x = degrade_batch(x, self.degrade, rng)
        if self.bottleneck:
            return self.coding.forward(x, step, joint)
        with torch.set_grad_enabled(joint):
            latent = self.network.analysis(x)
        x_hat = self.network.synthesis(latent, step, linear_gradient=joint)
        return Outcome(torch.zeros_like(step), x_hat, latent)

    def choose_learning(self, joint: bool) -> None:
        """As for a codec."""
        self.coding.choose_learning(joint)

    def validate(self, pictures: NDArray[np.uint8], seed: int) -> Row:
        """PSNR on degraded pictures, without quantisation."""
        found = []
        for index, clean in enumerate(pictures):
            degraded = self.degrade(clean, np.random.default_rng([seed, index]))
            found.append(psnr_db(clean, restore(self.network, degraded, self.step)))
        return {"rate_bpp": math.nan, "psnr_db": float(np.mean(found))}


def degrade_batch(x: Tensor, degrade: Degradation, rng: np.random.Generator) -> Tensor:
    """Degrade a batch (n, 3, h, w) in [0, 1] of 8-bit pictures."""
    pictures = (x * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    degraded = np.stack([degrade(picture, rng) for picture in pictures])
    return picture_batch(degraded, x.device)


@torch.inference_mode()
def restore(network: Network, picture: Picture, step: float) -> Picture:
    """A picture through analysis and synthesis, without quantisation in between."""
    height, width = picture.shape[:2]
    missing = [padded(side, network.multiple) - side for side in (height, width)]
    full = np.pad(picture, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    device = next(network.parameters()).device
    x_hat = network.synthesis(
        network.analysis(picture_batch(full, device)), torch.tensor([step], device=device)
    )
    pixels = (x_hat[0] * 255.0).round().clamp(0, 255).to(torch.uint8)
    restored: Picture = pixels.permute(1, 2, 0).cpu().numpy()[:height, :width]
    return restored


# --- tolerance of noise: how noise in the input reaches the decoded picture -----------------------
#
#     x + noise --codec, at a fixed rate--> decoded, compared with the clean x
#
# Coding at a rate that cannot hold the noise removes a part of it; the question is which codec
# spends more of its bits on the noise.

COARSEST_STEP = 1024.0
"""Strong noise needs steps coarser than those of the training, up to the largest of the format."""


@dataclass(frozen=True)
class NoiseTask:
    """All that is done with one picture.

    Attributes:
        codecs: folders by name.
        picture: a clean PNG.
        index: of the picture, for its noise.
        sigmas: of the noise, grey levels.
        bpp: of every file.
        seed: of the noise.
    """

    codecs: Mapping[str, pathlib.Path]
    picture: pathlib.Path
    index: int
    sigmas: Sequence[float]
    bpp: float
    seed: int


def noise_tolerance(
    codecs: Mapping[str, pathlib.Path],
    pictures: Sequence[pathlib.Path],
    sigmas: Sequence[float],
    bpp: float,
    seed: int,
) -> list[NoiseRow]:
    """Code every picture with every noise to files of `bpp`, JPEG 2000 to the same sizes.

    Arguments as in `NoiseTask`.
    """
    tasks = [
        NoiseTask(codecs, path, index, sigmas, bpp, seed) for index, path in enumerate(pictures)
    ]
    return [row for rows in map_in_processes(_rows_of, tasks, label="noise") for row in rows]


def measure_noise(
    params: Params,
    arch: str,
    base: pathlib.Path,
    restored: pathlib.Path,
    prepared: pathlib.Path,
    out: pathlib.Path,
) -> None:
    """The base network of an architecture, and the one of the first loss, beside JPEG 2000.

    Args:
        params: the whole of params.yaml.
        arch: the architecture.
        base: folder of its base network.
        restored: a folder for every cell.
        prepared: train.npy, validation/, test/.
        out: the CSV file to write, with rows as `NoiseRow`.
    """
    loss = params.grid.loss[0]
    name = variants(loss, params.loss[loss], params.restore.alphas)[0][0]
    pictures = sorted((prepared / "test").glob("*.png"))
    numbers = params.restore
    with tempfile.TemporaryDirectory() as place:
        clean = pathlib.Path(place) / arch
        write_codec(params, base, prepared, lambda picture, rng: picture, clean)
        codecs = {
            base_title(arch, params.train.init): clean,
            f"{arch}-{name}, trained on noisy ones": restored / f"{arch}-{loss}" / f"codec-{name}",
        }
        rows = noise_tolerance(
            codecs, pictures, numbers.noise_sigmas, numbers.noise_bpp, params.seed
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_rows(out, NoiseRow, rows)


def base_title(arch: str, init: str) -> str:
    """What the network that restorations start from is called in a table."""
    return f"{arch}, {'not trained' if init == 'scratch' else 'trained on clean pictures'}"


def _rows_of(task: NoiseTask) -> list[NoiseRow]:
    codecs = {title: Codec.load(folder) for title, folder in task.codecs.items()}
    clean, name = read_image(task.picture), task.picture.stem
    pixels = clean.shape[0] * clean.shape[1]
    most = round(task.bpp * pixels / 8)
    rows = []
    for sigma in task.sigmas:
        noisy = add_noise(clean, sigma, Stream.NOISE.generator(task.seed, task.index))
        before = psnr_db(clean, noisy)
        files = {"JPEG 2000": (encode_near("jpeg2000", noisy, most), decode)}
        for title, codec in codecs.items():
            encode = functools.partial(_encode, codec, codec.analyse(noisy))
            data = fit_bytes(encode, most, (codec.step_range[0], COARSEST_STEP))
            files[title] = (data, codec.decompress)
        for title, (data, decoder) in files.items():
            after = psnr_db(clean, decoder(data))
            rows.append(NoiseRow(title, name, sigma, 8 * len(data) / pixels, before, after))
    return rows


def _encode(codec: Codec, analysed: Analysed, step: float) -> bytes:
    return codec.encode(analysed, step, EncodeOptions(EFFORT))
