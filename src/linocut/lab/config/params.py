"""The numbers of params.yaml: composed from conf/, and read as frozen, typed, checked classes.

    conf/ --compose--> params.yaml, byte for byte as `dvc exp run` makes it
    params.yaml --load_params--> Params: one class for each section
    seed --Stream--> generators of random numbers

    python -m linocut.lab.config.params --check   say whether params.yaml is what conf/ makes
    python -m linocut.lab.config.params --write   write it

`dvc exp run` composes by itself and overwrites params.yaml; `dvc repro` reads the file as it is.

Every value is written in src/linocut/lab/conf/ and nowhere else, so no field has a default here: a
key that is missing, unknown, of the wrong type or out of range is a `ConfigError` that names the
key, the value, and what is allowed. Losses and architectures are not listed here: their `target`
says where they are, and what they take, see `linocut.lab.config.parse`.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from enum import Enum, unique
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PlainValidator
from pydantic.dataclasses import dataclass

from linocut.errors import ConfigError
from linocut.lab.config.parse import (
    STRICT,
    config_type,
    find,
    numbers_of_function,
    parse,
    plain,
    split,
)

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(ge=1e-12)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
CropPx = Annotated[int, Field(ge=32, le=4096)]
BitErrorRate = Annotated[float, Field(ge=1e-9, le=0.5)]


def require_rising(key: str, numbers: tuple[float, ...]) -> None:
    """Refuse a list of numbers that is empty or does not rise."""
    if not numbers or any(a >= b for a, b in itertools.pairwise(numbers)):
        raise ConfigError(f"{key} is {list(numbers)}, expected numbers that rise")


# --- architectures: what the constructor of each takes --------------------------------------------


@dataclass(frozen=True, config=STRICT)
class CaeConfig:
    """Convolutional autoencoder with wavelet-initialised linear paths."""

    levels: Annotated[int, Field(ge=2, le=8)]
    gain_channels: Count
    analysis_channels: Count
    analysis_layers: Natural
    synthesis_channels: Count
    synthesis_deep_channels: Count
    synthesis_blocks: Natural


@dataclass(frozen=True, config=STRICT)
class GameConfig:
    """A decoder that learns against a discriminator, on the symbols of files.

    It sees pieces of `crop_px` of `crops` training crops, larger and fewer ones where the
    distortion cannot be measured on these, and for the `warmup_share` of its `megapixels` no
    adversary. `adversarial_weight` is a share of the gradient of all other costs; those are of
    pixels, deep features, means over 2 px, and a weave of 2 px. Noise on what the discriminator
    sees holds its accuracy at `discriminator_accuracy`. The end is `blend` of the way from the
    first weights to the last.
    """

    megapixels: NonNegative
    warmup_share: Share
    crops: Count
    batch_size: Count
    crop_px: CropPx
    learning_rate: Positive
    adversarial_weight: NonNegative
    distortion_weight: NonNegative
    feature_weight: NonNegative
    mean_weight: NonNegative
    weave_weight: NonNegative
    discriminator_channels: Annotated[int, Field(ge=3)]
    discriminator_learning_rate: Positive
    discriminator_accuracy: Share
    blend: Share


@dataclass(frozen=True, config=STRICT)
class GenerativeConfig(CaeConfig):
    """The same autoencoder, its decoder a generator that has learned against a discriminator.

    `cascade`: first the generator, then the encoder against the frozen generator; `joint`: both at
    once, against the discriminator.
    """

    schedule: Literal["cascade", "joint"]
    game: GameConfig


@dataclass(frozen=True, config=STRICT)
class Cae2018Config:
    """The autoencoder of Cheng et al., PCS 2018."""

    channels: Count


@dataclass(frozen=True, config=STRICT)
class NcodeConfig:
    """The generative compression of Santurkar et al., PCS 2018.

    `latent` numbers of B bits each for a block, for every B of `bits`. Stage one, the generator
    against a discriminator, sees `blocks` an iteration and lasts `train.base.megapixels`; stage
    two, the encoder, lasts `encoder_share` of that.
    """

    latent: Annotated[int, Field(ge=1, le=4096)]
    bits: tuple[Annotated[int, Field(ge=1, le=8)], ...]
    channels: Count
    blocks: Annotated[int, Field(ge=2, le=4096)]
    learning_rate: Positive
    discriminator_learning_rate: Positive
    feature_weight: NonNegative
    encoder_share: NonNegative

    def __post_init__(self) -> None:
        require_rising("arch.ncode.bits", self.bits)


@dataclass(frozen=True, config=STRICT)
class ArchOption:
    """An architecture of the experiment: its class, and what that is constructed with.

    Attributes:
        target: `module:name` of a class of networks.
        config: of the type that the constructor names, for example `CaeConfig`.
    """

    target: str
    config: Any

    @classmethod
    def of(cls, raw: object, key: str) -> ArchOption:
        """From an option of conf/arch/."""
        target, numbers = split(raw, key)
        network = find(target, f"{key}.target")
        config = config_type(network, target, f"{key}.target")
        return cls(target, parse(config, numbers, key))

    def as_plain(self) -> dict[str, Any]:
        """As in params.yaml."""
        return {"target": self.target, **plain(self.config)}


# --- losses ---------------------------------------------------------------------------------------


@dataclass(frozen=True, config=STRICT)
class LossOption:
    """A loss of the experiment: a function of two pictures, and its numbers.

    Attributes:
        target: `module:name` of the function.
        numbers: its keyword-only arguments.
    """

    target: str
    numbers: Mapping[str, Any]

    @classmethod
    def of(cls, raw: object, key: str) -> LossOption:
        """From an option of conf/loss/."""
        target, numbers = split(raw, key)
        function = find(target, f"{key}.target")
        return cls(target, numbers_of_function(function, target, numbers, key))

    def as_plain(self) -> dict[str, Any]:
        """As in params.yaml."""
        return {"target": self.target, **plain(self.numbers)}


# --- restoration tasks ----------------------------------------------------------------------------


@dataclass(frozen=True, config=STRICT)
class DenoiseConfig:
    """Remove white Gaussian noise of standard deviation `sigma`, grey levels."""

    sigma: Annotated[float, Field(ge=0, le=128)]


@dataclass(frozen=True, config=STRICT)
class DejpegConfig:
    """Remove the artefacts of JPEG files of this quality."""

    quality: Annotated[int, Field(ge=1, le=100)]


TaskConfig = DenoiseConfig | DejpegConfig
TASKS: Mapping[str, type[TaskConfig]] = {"denoise": DenoiseConfig, "dejpeg": DejpegConfig}


def _task(raw: object, key: str) -> TaskConfig:
    name = key.rpartition(".")[2]
    if name not in TASKS:
        raise ConfigError(f"task has the unknown key {name!r}; {__name__}:TASKS has {[*TASKS]}")
    return parse(TASKS[name], raw, key)


# --- sections -------------------------------------------------------------------------------------


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """Where the pictures come from. `$NAME` in a folder is an environment variable.

    `test` is `source` for those of the source itself, `samples`, `kodak`, or a folder.
    """

    source: Literal["samples", "folder"]
    folder: str
    more_train: tuple[str, ...]
    test: str
    validation_share: Share
    test_share: Share
    skip_bad: bool

    def __post_init__(self) -> None:
        if self.validation_share + self.test_share >= 1:
            raise ConfigError(
                f"data.validation_share + data.test_share is {self.validation_share} + "
                f"{self.test_share}: nothing is left for training"
            )


@dataclass(frozen=True, config=STRICT)
class PrepareConfig:
    """Training crops: `crops` squares of `crop_px`, `dead_leaves` of generated pictures."""

    crop_px: CropPx
    crops: Count
    dead_leaves: Natural
    validation_pictures: Count


@dataclass(frozen=True, config=STRICT)
class ScheduleConfig:
    """Length and pace of one training, in megapixels seen rather than in iterations.

    `optimiser` muon is for the kernels, with adam for the rest. `precision` is that of
    convolutions; a GPU always takes bfloat16.
    """

    megapixels: NonNegative
    frozen_analysis_share: Share
    batch_size: Count
    crop_px: CropPx
    learning_rate: Positive
    optimiser: Literal["adam", "muon"]
    precision: Literal["float32", "bfloat16"]


@dataclass(frozen=True, config=STRICT)
class TrainConfig(ScheduleConfig):
    """The trainings of the cells, and under `base` those of the networks that they start from."""

    init: Literal["base", "scratch", "release", "release_l2", "shipped"]
    base: ScheduleConfig
    ema_decay: Share
    gradient_clip: Positive
    step_range: tuple[Positive, Positive]

    def __post_init__(self) -> None:
        require_rising("train.step_range", self.step_range)


@dataclass(frozen=True, config=STRICT)
class PcaConfig:
    """Rotation of the latent channels, fitted on `crops` training crops."""

    mode: Literal["none", "global", "per_image"]
    crops: Count


@dataclass(frozen=True, config=STRICT)
class TuningConfig:
    """Training of the decoder alone on the symbols of `crops` training crops; none with 0 Mpx."""

    megapixels: NonNegative
    crops: Count
    batch_size: Count
    learning_rate: Positive


@dataclass(frozen=True, config=STRICT)
class CodeConfig:
    """Rate points, encoder effort, and what tables and decoder are fitted on at the end."""

    rates_bpp: tuple[Positive, ...]
    effort: Annotated[int, Field(ge=0, le=3)]
    contexts: Literal["release", "refitted", "fitted", "none"]
    context_iterations: Count
    crops: Count
    tuning: TuningConfig

    def __post_init__(self) -> None:
        require_rising("code.rates_bpp", self.rates_bpp)


@dataclass(frozen=True, config=STRICT)
class AnchorsConfig:
    """Reference codecs, each at `points` settings."""

    codecs: tuple[Literal["jpeg", "jpeg2000", "webp", "avif_420", "avif_444", "jpegxl"], ...]
    points: Annotated[int, Field(ge=2, le=100)]
    avif_speed: Annotated[int, Field(ge=0, le=10)]


@dataclass(frozen=True, config=STRICT)
class Chosen:
    """An architecture or a loss that a study is about; it has no numbers of its own."""


@dataclass(frozen=True, config=STRICT)
class RobustnessConfig:
    """Bit errors: `trials` for each of `rates`, on files of `bpp` of the cells of `losses`.

    `pictures` are cut to the middle `crop_px`; those damaged at the rates `shown` are kept.
    """

    losses: dict[str, Chosen]
    pictures: Count
    crop_px: Annotated[int, Field(ge=192, le=1024)]
    bpp: Annotated[float, Field(ge=0.05, le=8)]
    rates: tuple[BitErrorRate, ...]
    trials: Count
    shown: tuple[BitErrorRate, ...]

    def __post_init__(self) -> None:
        require_rising("robustness.rates", self.rates)
        if not set(self.shown) <= set(self.rates):
            raise ConfigError(
                f"robustness.shown is {list(self.shown)}, expected some of {list(self.rates)}"
            )


@dataclass(frozen=True, config=STRICT)
class CompareConfig:
    """What the report shows: bootstrap draws, and how many pictures side by side at which rate."""

    bootstrap_draws: Count
    shown_pictures: Natural
    shown_bpp: Positive


@dataclass(frozen=True, config=STRICT)
class RestoreConfig(ScheduleConfig):
    """Restoration trainings: each loss with `seeds` seeds, without and with a bottleneck.

    A loss with a number `alpha` is trained with each of `alphas`. The files of the bottleneck have
    `step_factors` times the step whose rounding errors equal the degradation. `noise_*` are of the
    noise tolerance.
    """

    seeds: Count
    alphas: tuple[Share, ...]
    step_factors: tuple[Positive, ...]
    table_crops: Count
    noise_sigmas: tuple[NonNegative, ...]
    noise_bpp: Positive

    def __post_init__(self) -> None:
        require_rising("restore.step_factors", self.step_factors)
        require_rising("restore.noise_sigmas", self.noise_sigmas)


@dataclass(frozen=True, config=STRICT)
class TwinConfig:
    """Two decoders for the files of one cell, trained without and with an adversary.

    The cells are every one of `arch` with every one of `loss`; the files are those of the `points`
    lowest rates, and without any nothing is trained. `game` is the training of both.
    """

    arch: dict[str, Chosen]
    loss: dict[str, Chosen]
    points: Natural
    game: GameConfig


@dataclass(frozen=True, config=STRICT)
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


def _options(axis: str, option: Callable[[object, str], object]) -> PlainValidator:
    """Of a mapping from names to options, each built by `option` unless it already is."""

    def build(raw: object) -> dict[str, object]:
        if not isinstance(raw, Mapping):
            raise ConfigError(f"{axis} is {raw!r}, expected a mapping from names to options")
        return {
            name: value if is_dataclass(value) else option(value, f"{axis}.{name}")
            for name, value in raw.items()
        }

    return PlainValidator(build)


@dataclass(frozen=True, config=STRICT)
class Params:
    """The whole of params.yaml."""

    seed: Natural
    arch: Annotated[dict[str, ArchOption], _options("arch", ArchOption.of)]
    loss: Annotated[dict[str, LossOption], _options("loss", LossOption.of)]
    task: Annotated[dict[str, TaskConfig], _options("task", _task)]
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
        for name, option in self.arch.items():
            if isinstance(option.config, NcodeConfig) and (self.task or name in self.twin.arch):
                raise ConfigError(
                    f"task is {list(self.task)} and twin.arch is {list(self.twin.arch)}: arch "
                    f"{name} can be in neither study, because its rate does not depend on training"
                )
        for study, key, keys, axis in self._studies():
            studied, present = getattr(self.grid, study), getattr(self.grid, axis)
            if sorted(studied) != sorted(keys) or not set(studied) <= set(present):
                raise ConfigError(
                    f"grid.{study} is {list(studied)}, expected the keys of {key}, "
                    f"{list(keys)}, all of them in grid.{axis}, {list(present)}"
                )

    def _studies(self) -> Iterator[tuple[str, str, Mapping[str, Chosen], str]]:
        """Their key in `grid`, the section that asks for them with its names, and their axis."""
        yield "bit_errors", "robustness.losses", self.robustness.losses, "loss"
        yield "twin_arch", "twin.arch", self.twin.arch, "arch"
        yield "twin_loss", "twin.loss", self.twin.loss, "loss"


def load_params(path: pathlib.Path) -> Params:
    """Read and check a params.yaml.

    Raises:
        ConfigError: the file is missing or is not YAML, or a key or value is not allowed.
    """
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: make it with `make params`") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return parse(Params, raw, where=path.name)


# --- streams of random numbers: one seed, and a name for all that is drawn from it ----------------


@unique
class Stream(Enum):
    """Who draws, and the number that stands for it beside the seed.

    Within one part of the pipeline no two streams have one number. Between parts numbers repeat:
    results depend on them, and what is drawn there is of different kinds.
    """

    VALIDATION_PICTURES = ("data", 1)
    CROP_SLOTS = ("data", 2)
    CROPS = ("data", 3)
    LATENT_CROPS = ("fitting", 1)
    TABLE_STEPS = ("fitting", 2)
    CONTEXT_SYMBOLS = ("fitting", 3)
    TUNING_CROPS = ("fitting", 4)
    TUNING_BATCHES = ("fitting", 5)
    GAME_CROPS = ("training", 1)
    DEGRADED_TESTS = ("studies", 3)
    MATCHING_STEP = ("studies", 4)
    RESTORED_CROPS = ("studies", 5)
    NOISE = ("studies", 6)

    def generator(self, seed: int, *more: int) -> np.random.Generator:
        """A generator of this stream.

        Args:
            seed: of the run.
            more: tell generators of one stream apart, for example the number of a picture.
        """
        return np.random.default_rng([seed, self.value[1], *more])


# --- from conf/ to params.yaml --------------------------------------------------------------------

CONF = pathlib.Path(__file__).resolve().parents[1] / "conf"


def compose(overrides: Sequence[str] = ()) -> str:
    """Text of params.yaml for the defaults of conf/ changed by `overrides` (as after `-S`).

    Raises:
        ConfigError: an override names no known group, option or key, or a value is not allowed.
    """
    import hydra
    import hydra.errors
    import omegaconf

    try:
        with hydra.initialize_config_dir(str(CONF), version_base=None):
            config = hydra.compose("config", overrides=list(overrides))
        omegaconf.OmegaConf.resolve(config)
    except (hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    parse(Params, omegaconf.OmegaConf.to_container(config))
    return omegaconf.OmegaConf.to_yaml(config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check or write params.yaml; 0 when it is what conf/ composes to, else 1."""
    parser = argparse.ArgumentParser(description="Compose conf/ into params.yaml.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="fail when params.yaml differs")
    action.add_argument("--write", action="store_true", help="write params.yaml")
    parser.add_argument("--file", type=pathlib.Path, default=pathlib.Path("params.yaml"))
    parser.add_argument("overrides", nargs="*", help="as after -S: loss=l1 profile=smoke")
    chosen = parser.parse_args(arguments)
    try:
        text = compose(chosen.overrides)
    except ConfigError as error:
        print(f"linocut.lab.config.params: {error}", file=sys.stderr)
        return 1
    if chosen.write:
        chosen.file.write_text(text, encoding="utf-8")
    elif not chosen.file.exists() or chosen.file.read_text(encoding="utf-8") != text:
        print(
            f"linocut.lab.config.params: {chosen.file} is not what conf/ composes to: "
            "run `make params`, or change conf/ to keep a hand edit",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    # The classes of the module that others import, not a second set of them.
    from linocut.lab.config.params import main as check_or_write

    sys.exit(check_or_write())
