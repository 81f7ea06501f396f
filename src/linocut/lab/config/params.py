"""The numbers of params.yaml as frozen, typed, checked dataclasses.

Every value is written in src/linocut/lab/conf/ and nowhere else, so no field has a default here: a
key that is missing, unknown, of the wrong type or out of range is a `ConfigError` that names the
key, the value, and what is allowed. `linocut.lab.config.compose` composes conf/ into params.yaml.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Annotated, Literal

from linocut.errors import ConfigError
from linocut.lab.config.arch_config import ARCH_CONFIGS, ArchConfig, NcodeConfig
from linocut.lab.config.number_types import (
    Count,
    Natural,
    NonNegative,
    Positive,
    Share,
    require_rising,
)
from linocut.lab.config.number_types import ScheduleConfig as ScheduleConfig
from linocut.lab.config.robustness_config import RobustnessConfig
from linocut.lab.config.schema import Options, Range, from_mapping
from linocut.lab.config.study_config import TASK_CONFIGS, RestoreConfig, TaskConfig, TwinConfig

# --- losses: one dataclass and one conf/loss/NAME.yaml each ---------------------------------------


@dataclasses.dataclass(frozen=True)
class PlainLossConfig:
    """A loss without parameters of its own."""


@dataclasses.dataclass(frozen=True)
class MixLossConfig:
    """alpha * MS-SSIM + (1 - alpha) * Gaussian-weighted L1."""

    alpha: Share


LossConfig = PlainLossConfig | MixLossConfig
LOSS_CONFIGS: Mapping[str, type[LossConfig]] = {
    "l2": PlainLossConfig,
    "l1": PlainLossConfig,
    "ssim": PlainLossConfig,
    "ms_ssim": PlainLossConfig,
    "mix": MixLossConfig,
}


# --- sections -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the pictures come from. `$NAME` in a folder is an environment variable."""

    source: Literal["samples", "folder"]
    folder: str
    more_train: tuple[str, ...]
    test: Literal["source", "samples", "kodak"]
    validation_share: Share
    test_share: Share
    skip_bad: bool

    def __post_init__(self) -> None:
        if self.validation_share + self.test_share >= 1:
            raise ConfigError(
                f"data.validation_share + data.test_share is {self.validation_share} + "
                f"{self.test_share}: nothing is left for training"
            )


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """Training crops: `crops` squares of `crop_px`, `dead_leaves` of generated pictures."""

    crop_px: Annotated[int, Range(32, 4096)]
    crops: Count
    dead_leaves: Natural
    validation_pictures: Count


@dataclasses.dataclass(frozen=True)
class TrainConfig(ScheduleConfig):
    """The trainings of the cells, and under `base` those of the networks that they start from."""

    init: Literal["base", "scratch", "release", "shipped"]
    base: ScheduleConfig
    ema_decay: Share
    gradient_clip: Positive
    step_range: tuple[Positive, Positive]
    checkpoint_every_s: Positive

    def __post_init__(self) -> None:
        require_rising("train.step_range", self.step_range)


@dataclasses.dataclass(frozen=True)
class PcaConfig:
    """Rotation of the latent channels, fitted on `crops` training crops."""

    mode: Literal["none", "global", "per_image"]
    crops: Count


@dataclasses.dataclass(frozen=True)
class TuningConfig:
    """Training of the decoder alone on the symbols of `crops` training crops; none with 0 Mpx."""

    megapixels: NonNegative
    crops: Count
    batch_size: Count
    learning_rate: Positive


@dataclasses.dataclass(frozen=True)
class CodeConfig:
    """Rate points, encoder effort, and what tables and decoder are fitted on at the end."""

    rates_bpp: tuple[Positive, ...]
    effort: Annotated[int, Range(0, 3)]
    contexts: Literal["release", "fitted", "none"]
    context_iterations: Count
    crops: Count
    tuning: TuningConfig

    def __post_init__(self) -> None:
        require_rising("code.rates_bpp", self.rates_bpp)


@dataclasses.dataclass(frozen=True)
class AnchorsConfig:
    """Reference codecs, each at `points` settings."""

    codecs: tuple[Literal["jpeg", "jpeg2000", "webp", "avif_420", "avif_444"], ...]
    points: Annotated[int, Range(2, 100)]
    avif_speed: Annotated[int, Range(0, 10)]


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """What the report shows: bootstrap draws, and how many pictures side by side at which rate."""

    bootstrap_draws: Count
    shown_pictures: Natural
    shown_bpp: Positive


@dataclasses.dataclass(frozen=True)
class GridConfig:
    """The cells of the experiment: every architecture with every loss, and for every task.

    The cells of the losses `bit_errors` are studied under bit errors besides; those of every one of
    `twin_arch` with every one of `twin_loss` have twin decoders.
    """

    arch: tuple[str, ...]
    loss: tuple[str, ...]
    task: tuple[str, ...]
    bit_errors: tuple[str, ...]
    twin_arch: tuple[str, ...]
    twin_loss: tuple[str, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the cells, `arch-loss`, in the order of the grid."""
        return tuple(f"{arch}-{loss}" for arch in self.arch for loss in self.loss)

    @property
    def twins(self) -> tuple[str, ...]:
        """Names of the cells that have twin decoders."""
        return tuple(f"{arch}-{loss}" for arch in self.twin_arch for loss in self.twin_loss)


@dataclasses.dataclass(frozen=True)
class Params:
    """The whole of params.yaml."""

    seed: Natural
    arch: Annotated[dict[str, ArchConfig], Options(ARCH_CONFIGS)]
    loss: Annotated[dict[str, LossConfig], Options(LOSS_CONFIGS)]
    task: Annotated[dict[str, TaskConfig], Options(TASK_CONFIGS)]
    data: DataConfig
    prepare: PrepareConfig
    train: TrainConfig
    pca: PcaConfig
    code: CodeConfig
    anchors: AnchorsConfig
    robustness: RobustnessConfig
    compare: CompareConfig
    restore: RestoreConfig
    twin: TwinConfig
    grid: GridConfig

    def __post_init__(self) -> None:
        for axis, chosen in (("arch", self.arch), ("loss", self.loss), ("task", self.task)):
            names = getattr(self.grid, axis)
            empty = not names and axis != "task"  # without a task nothing is restored
            if empty or sorted(names) != sorted(chosen):
                raise ConfigError(
                    f"grid.{axis} is {list(names)}, expected the keys of {axis}: {list(chosen)}"
                )
        for name, config in self.arch.items():
            if isinstance(config, NcodeConfig) and (self.task or name in self.twin.arch):
                raise ConfigError(
                    f"task is {list(self.task)} and twin.arch is {list(self.twin.arch)}: arch "
                    f"{name} can be in neither study, because its rate does not depend on training"
                )
        for study, key, keys, axis in (
            ("bit_errors", "robustness.losses", self.robustness.losses, "loss"),
            ("twin_arch", "twin.arch", self.twin.arch, "arch"),
            ("twin_loss", "twin.loss", self.twin.loss, "loss"),
        ):
            studied, present = getattr(self.grid, study), getattr(self.grid, axis)
            if sorted(studied) != sorted(keys) or not set(studied) <= set(present):
                raise ConfigError(
                    f"grid.{study} is {list(studied)}, expected the keys of {key}, "
                    f"{list(keys)}, all of them in grid.{axis}, {list(present)}"
                )


def load_params(path: pathlib.Path) -> Params:
    """Read and check a params.yaml.

    Raises:
        ConfigError: the file is missing or is not YAML, or a key or value is not allowed.
    """
    import yaml  # here, because a decoder needs this module but never a YAML file

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: make it with `make params`") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return from_mapping(Params, raw)
