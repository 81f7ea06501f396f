"""Restorations: trained on degraded pictures, judged on clean ones, with files between or not."""

import dataclasses
import pathlib

import numpy as np
import pytest
import torch

from linocut.codec.codec import Codec
from linocut.errors import DataError
from linocut.lab.config.params import (
    DejpegConfig,
    DenoiseConfig,
    Params,
    load_params,
)
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.evaluation.rows import RestoredRow, read_rows
from linocut.lab.networks.losses import l2
from linocut.lab.networks.store import save_model
from linocut.lab.report import restoration_section
from linocut.lab.studies import restoration
from linocut.lab.studies.restoration import (
    BLUR_RADII,
    Restoring,
    add_noise,
    base_title,
    blur,
    degradation,
    degrade_batch,
    degraded_tests,
    matching_step,
    noise_tolerance,
    restore,
    variants,
)
from linocut.lab.training.guards import ResumeState
from linocut.lab.training.trainer import Coding, Trainer
from linocut.pictures.image import write_png
from linocut.pictures.quality import psnr_db
from tiny import OPTIONS, loss_option, tensor, untrained

PARAMS = pathlib.Path(__file__).resolve().parents[3] / "params.yaml"


@pytest.fixture(scope="module")
def params() -> Params:
    """Denoising, two losses, one tiny architecture, two iterations a training."""
    loaded = load_params(PARAMS)
    few = dataclasses.replace(
        loaded.restore,
        megapixels=2 * 64**2 / 1e6,
        crop_px=64,
        seeds=1,
        table_crops=6,
        noise_sigmas=(0.0, 20.0),
        noise_bpp=1.5,
    )
    return dataclasses.replace(
        loaded,
        arch={"cae": OPTIONS["cae"]},
        loss={name: loaded.loss[name] for name in ("l2", "l1")},
        task={"denoise": DenoiseConfig(25.0)},
        code=dataclasses.replace(loaded.code, contexts="none"),
        restore=few,
        grid=dataclasses.replace(loaded.grid, arch=("cae",), loss=("l2", "l1"), task=("denoise",)),
    )


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory, params: Params) -> pathlib.Path:
    """Everything that both stages make."""
    folder = tmp_path_factory.mktemp("artifacts")
    prepared = folder / "prepared"
    for split, count in {"validation": 1, "test": 3}.items():
        (prepared / split).mkdir(parents=True)
        for index in range(count):
            picture = dead_leaves(72, 72, 10 + index)[: 64 + index, :70]
            write_png(prepared / split / f"{split}{index}.png", picture)
    np.save(prepared / "train.npy", np.stack([dead_leaves(64, 64, seed) for seed in range(16)]))
    save_model(folder / "pretrained" / "cae", untrained("cae"), {"arch": "cae"})
    for loss in params.grid.loss:
        restoration.restore_cell(
            params, "denoise", loss, folder / "pretrained" / "cae", prepared,
            folder / "restored" / f"cae-{loss}", folder / "state" / loss,
        )  # fmt: skip
    return folder


def rows_of(artifacts: pathlib.Path, loss: str) -> list[RestoredRow]:
    return read_rows(artifacts / "restored" / f"cae-{loss}" / "restored.csv", RestoredRow)


def test_every_seed_picture_and_step_is_measured_once(
    artifacts: pathlib.Path, params: Params
) -> None:
    rows = rows_of(artifacts, "l1")
    free = [row for row in rows if not row.bottleneck]
    assert len(free) == params.restore.seeds * 3
    assert len(rows) - len(free) == params.restore.seeds * 3 * len(params.restore.step_factors)
    assert len({(r.bottleneck, r.seed, r.picture, r.step) for r in rows}) == len(rows)


def test_only_the_bottleneck_costs_bits_and_a_coarser_step_fewer(artifacts: pathlib.Path) -> None:
    rows = rows_of(artifacts, "l2")
    assert all(row.bpp == 0 for row in rows if not row.bottleneck)
    paid = [row for row in rows if row.bottleneck and row.seed == 0]
    for picture in {row.picture for row in paid}:
        rates = [row.bpp for row in sorted(paid, key=lambda r: r.step) if row.picture == picture]
        assert rates[0] > rates[-1] > 0


def test_all_losses_see_the_same_degraded_pictures(artifacts: pathlib.Path) -> None:
    seen = [
        {(row.picture, row.input_psnr_db) for row in rows_of(artifacts, loss)}
        for loss in ("l2", "l1")
    ]
    assert seen[0] == seen[1]
    assert len(seen[0]) == 3


def test_the_codec_that_is_kept_codes_pictures(artifacts: pathlib.Path) -> None:
    codec = Codec.load(artifacts / "restored" / "cae-l1" / "codec-l1")
    picture = dead_leaves(64, 64, 0)
    assert codec.decompress(codec.compress(picture, step=40.0)).shape == picture.shape


def test_the_report_answers_the_hypotheses_and_shows_what_it_says(
    artifacts: pathlib.Path, params: Params
) -> None:
    out, restored = artifacts / "restoration", artifacts / "restored"
    prepared, base = artifacts / "prepared", artifacts / "pretrained" / "cae"
    file = out / "cae-noise.csv"
    restoration.measure_noise(params, "cae", base, restored, prepared, file)
    restoration.measure_blur(params, "denoise", prepared, out / "control.csv")
    text = restoration_section.write_report(params, "denoise", restored, prepared, out)
    for wanted in (
        "# Restoration: denoise sigma 25",
        "**H1**",
        "**H2**",
        "Noise tolerance",
        "(control)",
    ):
        assert wanted in text
    assert "**H3**" not in text  # mix was not trained
    pictures = [line.partition("](")[2].rstrip(")") for line in text.splitlines() if "](" in line]
    assert len(pictures) >= 3
    assert all((out / name).is_file() for name in pictures)


def test_a_killed_cell_keeps_its_trainings_and_what_they_share(
    artifacts: pathlib.Path, params: Params, tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    trainings: list[int] = []
    train = Trainer.run

    def counted(self: Trainer) -> list[dict[str, float]]:
        trainings.append(self.seed)
        return train(self)

    def weights(state: str, seed: int, *, bottleneck: bool) -> dict[str, torch.Tensor]:
        work = restoration.prepare_restoration(
            params, "denoise", artifacts / "pretrained" / "cae", artifacts / "prepared",
            tmp_path / state,
        )  # fmt: skip
        trained = work.train("l2", params.loss["l2"], seed, bottleneck)
        return {name: value.clone() for name, value in trained.state_dict().items()}

    monkeypatch.setattr(Trainer, "run", counted)
    first = weights("state", 0, bottleneck=True)
    again = weights("state", 0, bottleneck=True)  # by a new process, for all it knows
    assert trainings == [0]
    assert all(torch.equal(first[name], again[name]) for name in first)
    shared = weights("state", 1, bottleneck=True)
    alone = weights("other", 1, bottleneck=True)
    assert trainings == [0, 1, 1]
    assert any(not torch.equal(shared[name], alone[name]) for name in shared)  # its own exchange
    weights("state", 0, bottleneck=False)
    assert trainings == [0, 1, 1, 0]


def test_the_files_have_tables_for_what_the_trained_network_writes(
    artifacts: pathlib.Path, params: Params, tmp_path: pathlib.Path
) -> None:
    base, prepared = artifacts / "pretrained" / "cae", artifacts / "prepared"
    restoration.write_codec(params, base, prepared, lambda picture, rng: picture, tmp_path / "own")
    noisy = add_noise(dead_leaves(96, 96, 0), 25.0, np.random.default_rng(0))
    sizes = [
        len(Codec.load(folder).compress(noisy, step=40.0, effort=0))
        for folder in (artifacts / "restored" / "cae-l2" / "codec-l2", tmp_path / "own")
    ]
    assert sizes[0] < sizes[1]  # tables for noisy pictures, and those for clean ones


def test_a_blur_removes_noise_and_a_wider_one_detail() -> None:
    picture = dead_leaves(96, 96, 0)
    noisy = add_noise(picture, 25.0, np.random.default_rng(0))
    found = {radius: psnr_db(picture, blur(noisy, radius)) for radius in BLUR_RADII}
    best = max(found, key=lambda radius: found[radius])
    assert BLUR_RADII[0] < best < BLUR_RADII[-1]
    assert found[best] > psnr_db(picture, noisy) + 1


def test_learning_to_denoise_lowers_the_error(tmp_path: pathlib.Path) -> None:
    params = load_params(PARAMS)
    picture = dead_leaves(64, 64, 0)
    degrade = degradation(DenoiseConfig(25.0))
    network = untrained("cae")
    noisy = degrade(picture, np.random.default_rng(9))
    before = psnr_db(picture, restore(network, noisy, 80.0))
    coding = Coding(network, params.train.step_range)
    Trainer(
        network=network, distortion=l2, crops=picture[None], validation=picture[None],
        config=params.train,
        schedule=dataclasses.replace(params.restore, megapixels=0.25, crop_px=64),
        seed=0, device=torch.device("cpu"),
        objective=Restoring(coding, degrade, False, 80.0, ResumeState(tmp_path)),
    ).run()  # fmt: skip
    assert psnr_db(picture, restore(network, noisy, 80.0)) > before + 0.5


def test_an_untrained_network_without_a_bottleneck_gives_the_picture_back() -> None:
    picture = dead_leaves(64, 64, 0)[:61, :50]
    assert psnr_db(picture, restore(untrained("cae"), picture, 40.0)) > 55


def test_mix_is_trained_with_every_alpha_and_other_losses_once() -> None:
    found = variants("mix", loss_option("mix", 0.5), (0.84, 0.025))
    assert found == [(f"mix-{a:g}", loss_option("mix", a)) for a in (0.84, 0.025)]
    plain = loss_option("l1")
    assert variants("l1", plain, (0.84, 0.025)) == [("l1", plain)]


def test_the_step_matches_the_degradation_within_the_trained_range(params: Params) -> None:
    crops = np.full((8, 64, 64, 3), 128, np.uint8)
    step = matching_step(params, crops, degradation(DenoiseConfig(10.0)))
    assert step == pytest.approx(12**0.5 * 10.0, rel=0.03)
    assert (
        matching_step(params, crops, degradation(DenoiseConfig(0.0))) == params.train.step_range[0]
    )


def test_a_folder_without_test_pictures_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="expected the test pictures"):
        list(degraded_tests(tmp_path, degradation(DenoiseConfig(1.0)), 0))


def test_a_batch_is_degraded_like_its_pictures() -> None:
    pictures = np.stack([dead_leaves(32, 32, seed) for seed in (0, 1)])
    degrade = degradation(DenoiseConfig(25.0))
    batch = degrade_batch(tensor(pictures), degrade, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    expected = np.stack([degrade(picture, rng) for picture in pictures])
    assert np.array_equal((batch.permute(0, 2, 3, 1).numpy() * 255).round(), expected)


def test_noise_has_the_standard_deviation_asked_for() -> None:
    grey = np.full((128, 128, 3), 128, np.uint8)
    error = add_noise(grey, 20.0, np.random.default_rng(0)).astype(float) - 128
    assert error.std() == pytest.approx(20.0, rel=0.02)
    assert error.mean() == pytest.approx(0.0, abs=0.3)


def test_a_base_network_that_learned_nothing_is_called_so() -> None:
    assert base_title("cae", "scratch") == "cae, not trained"
    assert base_title("cae", "release") == "cae, trained on clean pictures"


def test_noise_of_zero_leaves_the_picture_alone() -> None:
    picture = dead_leaves(32, 32, 0)
    assert np.array_equal(add_noise(picture, 0.0, np.random.default_rng(0)), picture)


@pytest.mark.parametrize("task", [DenoiseConfig(25.0), DejpegConfig(10)])
def test_the_same_randomness_degrades_in_the_same_way(task: DenoiseConfig | DejpegConfig) -> None:
    picture, degrade = dead_leaves(48, 64, 0), degradation(task)
    first, second = (degrade(picture, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.dtype == np.uint8
    assert first.shape == picture.shape
    assert not np.array_equal(first, picture)


def test_a_lower_quality_degrades_more() -> None:
    picture, rng = dead_leaves(64, 64, 0), np.random.default_rng(0)
    errors = [
        np.square(degradation(DejpegConfig(quality))(picture, rng).astype(float) - picture).mean()
        for quality in (10, 50, 90)
    ]
    assert errors == sorted(errors, reverse=True)


def test_every_codec_gets_the_same_noise_and_the_same_bytes(
    codec_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    picture = tmp_path / "leaves.png"
    write_png(picture, dead_leaves(96, 96, 0))
    rows = noise_tolerance({"small": codec_folder}, [picture], (0.0, 30.0), bpp=1.5, seed=0)
    assert [(row.codec, row.sigma) for row in rows] == [
        ("JPEG 2000", 0.0),
        ("small", 0.0),
        ("JPEG 2000", 30.0),
        ("small", 30.0),
    ]
    assert all(row.bpp < 1.65 for row in rows), [row.bpp for row in rows]
    assert rows[2].input_psnr_db == rows[3].input_psnr_db < 20
    assert all(clean.psnr_db > noisy.psnr_db for clean, noisy in zip(rows, rows[2:], strict=False))
