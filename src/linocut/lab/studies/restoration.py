"""Restoration: the same networks and the same losses, with a degraded input and a clean target.

    degraded x --analysis--> y --(bottleneck: quantised, coded as a file)--> synthesis --> x_hat

Without the bottleneck nothing is quantised and nothing is paid for: the loss alone decides, as in
Zhao et al. 2017. With it the network is a codec whose input is degraded, and the loss competes with
the rate, at the exchange rate that a training for clean pictures has. All trainings of a task start
from the same base network, see the same crops, degraded in the same way, and have the same length.
"""

import itertools
import math
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.codec.codec import Codec
from linocut.entropy.planes import step_index, step_of
from linocut.errors import DataError
from linocut.lab.config.params import LossConfig, MixLossConfig, Params
from linocut.lab.data.degradation import EFFORT, Degradation, Picture, degradation
from linocut.lab.evaluation.rows import write_rows
from linocut.lab.networks.losses import build_loss
from linocut.lab.networks.networks import Network
from linocut.lab.networks.store import load_model, load_tensors, read_description, save_model
from linocut.lab.studies.restoration_training import RestorationTrainer, restore
from linocut.lab.training.machine import pick_device
from linocut.lab.training.recipes import validation_centres
from linocut.lab.training.trainer import Distortion
from linocut.pictures.image import read_image, write_png
from linocut.pictures.quality import Quality, measure, ssimulacra2

SHOWN_PICTURES = 2


@dataclass(frozen=True)
class RestoredRow:
    """One test picture, degraded and restored once.

    Attributes:
        bpp: of the file between the two; 0 without a bottleneck.
        input_psnr_db: and so on: of the degraded picture, against the clean one.
        psnr_db: and so on: of the restored picture, against the clean one.
    """

    loss: str
    bottleneck: int
    seed: int
    picture: str
    step: float
    bpp: float
    input_psnr_db: float
    input_ssim: float
    input_ms_ssim: float
    input_ssimulacra2: float
    psnr_db: float
    ssim: float
    ms_ssim: float
    ssimulacra2: float


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
        base: folder of the network to start from, as a codec with tables for degraded pictures.
        prepared: train.npy, validation/, test/.
        degrade: what happens to the input.
        step: see `matching_step`.
        tests: the test pictures.
    """

    params: Params
    base: pathlib.Path
    prepared: pathlib.Path
    degrade: Degradation
    step: float
    tests: Sequence[DegradedPicture]

    def train(
        self, distortion: Distortion, seed: int, bottleneck: bool, fitted: dict[str, Any]
    ) -> Network:
        """One training from the base network on."""
        network = load_model(self.base)
        RestorationTrainer(
            network=network,
            distortion=distortion,
            crops=np.load(self.prepared / "train.npy", mmap_mode="c"),
            validation=validation_centres(self.prepared / "validation", network.multiple)[:1],
            config=self.params.train,
            schedule=self.params.restore,
            seed=seed,
            device=pick_device(),
            degrade=self.degrade,
            bottleneck=bottleneck,
            step=self.step,
            fitted=fitted,
        ).run()
        return network

    def codec_of(self, network: Network, folder: pathlib.Path, about: dict[str, Any]) -> Codec:
        """A trained network with the rotation and the tables of the base network's codec."""
        tensors = load_tensors(self.base)
        extra = {name: value for name, value in tensors.items() if not name.startswith("network.")}
        save_model(folder, network, read_description(self.base)["about"] | about, extra)
        return Codec.load(folder)

    def steps(self) -> list[float]:
        """Quantisation steps of the files."""
        factors = self.params.restore.step_factors
        return [step_of(step_index(self.step * factor)) for factor in factors]


def prepare_restoration(
    params: Params, task: str, base: pathlib.Path, prepared: pathlib.Path
) -> Restoration:
    """Degrade the test pictures, and choose the step."""
    degrade = degradation(params.task[task])
    step = matching_step(params, np.load(prepared / "train.npy", mmap_mode="r"), degrade)
    tests = list(degraded_tests(prepared / "test", degrade, params.seed))
    return Restoration(params, base, prepared, degrade, step, tests)


def restore_cell(
    params: Params,
    task: str,
    loss: str,
    base: pathlib.Path,
    prepared: pathlib.Path,
    out: pathlib.Path,
) -> None:
    """Train one architecture for one loss to undo one degradation, and measure what it restores.

    Args:
        params: the whole of params.yaml.
        task: name of the degradation.
        loss: name of the loss; `mix` is trained with each alpha.
        base: folder of the codec to start from.
        prepared: train.npy, validation/, test/.
        out: restored.csv, pictures/, and under codec/ the codec of the first seed.
    """
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    rows: list[RestoredRow] = []
    with tempfile.TemporaryDirectory() as place:
        work = prepare_restoration(params, task, base, prepared)
        shown = {test.name for test in work.tests[:SHOWN_PICTURES]}
        for name, config in variants(loss, params.loss[loss], params.restore.alphas):
            fitted: dict[str, Any] = {}
            for seed, bottleneck in itertools.product(range(params.restore.seeds), (False, True)):
                distortion = build_loss(loss, config)
                network = work.train(distortion, params.seed + seed, bottleneck, fitted)
                codec = None
                if bottleneck:
                    folder = (out if seed == 0 else pathlib.Path(place)) / f"codec-{name}"
                    codec = work.codec_of(network, folder, {"loss": name, "task": task})
                for test, step, bpp, restored in restored_tests(work, network, codec):
                    rows.append(_row(name, bottleneck, seed, test, step, bpp, restored))
                    if seed == 0 and not bottleneck and test.name in shown:
                        write_png(out / "pictures" / f"{test.name}-{name}.png", restored)
    write_rows(out / "restored.csv", RestoredRow, rows)


def variants(
    loss: str, config: LossConfig, alphas: Sequence[float]
) -> list[tuple[str, LossConfig]]:
    """The configurations of a loss to train, by name."""
    if isinstance(config, MixLossConfig):
        return [(f"{loss}-{alpha:g}", MixLossConfig(alpha)) for alpha in alphas]
    return [(loss, config)]


def degraded_tests(
    folder: pathlib.Path, degrade: Degradation, seed: int
) -> Iterator[DegradedPicture]:
    """The test pictures, each degraded in the one way that all cells see."""
    paths = sorted(folder.glob("*.png"))
    if not paths:
        raise DataError(f"{folder} holds no PNG, expected the test pictures")
    for index, path in enumerate(paths):
        clean = read_image(path)
        degraded = degrade(clean, np.random.default_rng([seed, 3, index]))
        quality = measure(clean, degraded)
        yield DegradedPicture(path.stem, clean, degraded, quality, ssimulacra2(clean, degraded))


def matching_step(params: Params, crops: NDArray[np.uint8], degrade: Degradation) -> float:
    """The step whose rounding errors are as large as the degradation, within the trained range."""
    rng = np.random.default_rng([params.seed, 4])
    picked = [crops[index] for index in rng.integers(0, len(crops), 8)]
    errors = [np.square(degrade(c, rng).astype(np.float64) - c).mean() for c in picked]
    low, high = params.train.step_range
    return float(np.clip(math.sqrt(12.0 * float(np.mean(errors))), low, high))


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
            data = codec.encode(analysed, step=step, effort=EFFORT)
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
