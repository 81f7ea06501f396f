"""Twin decoders read the same files with the same encoder, and differ by the adversary alone."""

import csv
import dataclasses
import pathlib
import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy.linalg import sqrtm

from linocut.codec.codec import Codec
from linocut.errors import DataError
from linocut.format.bitstream import CORRECTION, ROWS, pack_correction, unpack
from linocut.lab.config.params import Params, load_params
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.evaluation.rows import (
    TWIN_DECODERS,
    CodedRow,
    FrechetRow,
    GateRow,
    TwinRow,
    read_rows,
    write_rows,
)
from linocut.lab.networks.store import load_model
from linocut.lab.networks.torch_transforms import TorchTransforms
from linocut.lab.report.study_sections import (
    draw_twins,
    twin_galleries,
    twin_gates,
    twin_lines,
    twin_table,
    twin_text,
)
from linocut.lab.studies import twin
from linocut.lab.studies.twin import (
    CONTROLS,
    Judge,
    Patches,
    frechet_distances,
    noisy,
    ratio_of,
)
from linocut.lab.training import recipes
from linocut.pictures.image import RgbArray, read_image, write_png
from tiny import GAME

PARAMS = pathlib.Path(__file__).resolve().parents[3] / "params.yaml"


@pytest.fixture(scope="module")
def params() -> Params:
    loaded = load_params(PARAMS)
    few = dataclasses.replace(loaded.twin, points=1, game=GAME)
    return dataclasses.replace(loaded, twin=few)


@pytest.fixture(scope="module")
def result(
    params: Params, codec_folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """What the stage leaves, with the files of two pictures under coded/."""
    folder = tmp_path_factory.mktemp("twin")
    prepared, coded = folder / "prepared", folder / "coded"
    for part in ("prepared/test", "prepared/validation", "coded/files"):
        (folder / part).mkdir(parents=True)
    (coded / "codec").symlink_to(codec_folder)
    np.save(prepared / "train.npy", np.stack([dead_leaves(64, 64, seed) for seed in range(3)]))
    write_png(prepared / "validation" / "a.png", dead_leaves(64, 64, 5))
    codec, rows = Codec.load(codec_folder), []
    strange = np.full((ROWS, codec.geometry.features), 100, np.int8)
    blocks = {CORRECTION: pack_correction(strange)}
    for name in ("one", "two"):
        picture = dead_leaves(64, 72, len(rows))
        write_png(prepared / "test" / f"{name}.png", picture)
        for point, step in enumerate((80.0, 40.0)):
            data = codec.compress(picture, step=step, effort=0, extras=blocks)
            (coded / "files" / f"{name}-{point}.lino").write_bytes(data)
            rows.append(CodedRow(name, point, step, len(data), 1.0, 0.0))
    write_rows(coded / "coded.csv", CodedRow, rows)
    logged: list[float] = []
    twin.compare_twins(
        params, "l2", coded, prepared, folder / "out", lambda row, at: logged.append(at)
    )
    assert logged == sorted(logged)
    return folder / "out"


def test_both_decoders_are_measured_on_the_same_files(result: pathlib.Path) -> None:
    rows = read_rows(result / "scores.csv", TwinRow)
    assert [row.decoder for row in rows[:6]] == [*TWIN_DECODERS, *CONTROLS]
    assert {row.point for row in rows} == {0}  # the lowest rate; others were not asked for
    assert [(row.picture, row.bpp) for row in rows[::6]] == [(r.picture, r.bpp) for r in rows[5::6]]
    assert len({row.bpp for row in rows if row.picture == "one"}) == 1


def test_frechet_distances_have_references(result: pathlib.Path) -> None:
    rows = read_rows(result / "frechet.csv", FrechetRow)
    found = {(row.decoder, row.reference): row for row in rows}
    assert set(found) == {(name, "plain") for name in (*TWIN_DECODERS, *CONTROLS)} | {
        ("adversarial", "twin")
    }
    assert found["plain", "plain"].ratio == 1.0
    for row in rows:
        reference = found[row.reference, "plain"].frechet_distance
        assert row.ratio == pytest.approx(row.frechet_distance / reference, rel=1e-4)


def test_the_gate_says_of_every_condition_whether_it_is_met(
    result: pathlib.Path, codec_folder: pathlib.Path
) -> None:
    gate = read_rows(result / "gate.csv", GateRow)
    assert len(gate) == 4
    assert {row.verdict for row in gate} <= {"passed", "failed"}
    history = [{"discriminator_accuracy": 0.2}, {"discriminator_accuracy": 0.8}]
    networks = {name: recipes.generator_of(load_model(codec_folder)) for name in TWIN_DECODERS}
    accuracy, change, *_ = twin.judged(result, history, networks)
    assert (accuracy.value, accuracy.verdict) == (0.8, "passed")
    assert (change.value, change.verdict) == (0.0, "failed")
    certain, *_ = twin.judged(result, [{"discriminator_accuracy": 0.99}], networks)
    assert certain.verdict == "failed"
    shipped = twin.judged(result, [], networks)  # its history does not ship: no word of it
    assert [row.condition for row in shipped] == [row.condition for row in gate[1:]]


def test_a_correction_that_another_decoder_asked_for_is_left_aside(
    result: pathlib.Path, codec_folder: pathlib.Path
) -> None:
    prepared, coded = result.parent / "prepared", result.parent / "coded"
    codec = Codec.load(codec_folder)
    network = recipes.generator_of(load_model(result / "adversarial"))  # its last layer is awake
    decode = twin.decoders_of(codec, {"plain": network})["plain"]
    codec = codec.with_transforms(TorchTransforms(network))
    for one in twin.cell_files(coded, prepared / "test", 1):
        file = unpack((coded / "files" / f"{one.picture}-{one.point}.lino").read_bytes())
        assert CORRECTION in file.extras
        assert not np.array_equal(decode(one.file), codec.decode(file).picture)


def test_only_the_synthesis_was_trained_and_the_decoders_differ(
    result: pathlib.Path, codec_folder: pathlib.Path
) -> None:
    start = load_model(codec_folder)
    for decoder in ("twin", "adversarial"):
        after = load_model(result / decoder)
        moved = {
            name.split(".")[0]
            for name, value in start.named_parameters()
            if not torch.equal(value, after.get_parameter(name))
        }
        assert moved == {"synthesis_net"}


def test_the_discriminator_is_in_the_history_of_one_of_them(result: pathlib.Path) -> None:
    columns = {}
    for decoder in ("twin", "adversarial"):
        with (result / decoder / "history.csv").open(encoding="utf-8", newline="") as file:
            columns[decoder] = set(next(csv.reader(file)))
    assert {"discriminator_loss", "discriminator_accuracy"} <= columns["adversarial"]
    assert not any("discriminator" in name for name in columns["twin"])


def test_crops_of_the_lowest_rate_are_kept(result: pathlib.Path) -> None:
    names = {path.name for path in (result / "crops").iterdir()}
    versions = ("original", *TWIN_DECODERS)
    assert names == {f"{picture}-{one}.png" for picture in ("one", "two") for one in versions}
    shapes = {read_image(result / "crops" / f"one-{one}.png").shape for one in versions}
    assert shapes == {(64, 72, 3)}


def test_without_points_nothing_is_trained(params: Params, tmp_path: pathlib.Path) -> None:
    none = dataclasses.replace(params, twin=dataclasses.replace(params.twin, points=0))
    coded = tmp_path / "no such folder"
    assert twin.compare_twins(none, "l2", coded, tmp_path, tmp_path / "out") == []
    assert not (tmp_path / "out/scores.csv").exists()
    assert twin_text(twin_table(tmp_path), twin_gates(tmp_path), []) == []


def test_a_cell_without_files_is_named(
    params: Params, codec_folder: pathlib.Path, result: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    coded = tmp_path / "cae-l2"
    coded.mkdir()
    (coded / "codec").symlink_to(codec_folder)
    write_rows(coded / "coded.csv", CodedRow, [CodedRow("one", 5, 10.0, 9, 1.0, 0.0)])
    with pytest.raises(DataError, match="cae-l2 has no files"):
        twin.compare_twins(params, "l2", coded, result.parent / "prepared", tmp_path / "out")


@pytest.fixture
def twins(result: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """Folder of studies of one cell."""
    (tmp_path / "cae-l2").symlink_to(result)
    return tmp_path


def test_the_report_has_the_scores_the_pictures_and_the_curves(
    twins: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    plots = tmp_path / "plots"
    plots.mkdir()
    draw_twins(twins, plots)
    drawn = {path.name for path in plots.iterdir()}
    parts = twin_text(twin_table(twins), twin_gates(twins), sorted(drawn))
    text = "\n".join(parts)
    assert "## Twin decoders of cae-l2" in text
    assert "The adversary taught" in text
    rows = read_rows(twins / "cae-l2/scores.csv", TwinRow)
    for decoder in (*TWIN_DECODERS, *CONTROLS):
        psnr = np.mean([row.psnr_db for row in rows if row.decoder == decoder])
        bpp = np.mean([row.bpp for row in rows])
        assert f"| {decoder}, {bpp:.3f} bpp | {psnr:.4g}" in text
    assert drawn == {"twin-cae-l2-one.png", "twin-cae-l2-two.png"}
    assert all(f"](plots/{name})" in text for name in drawn)
    curves = twin_lines(twins)
    assert curves is not None
    for by_cell in curves.rows.values():
        (series,) = by_cell["cae-l2"]
        assert len(series.x) == len(series.y) > 0
    for versions in twin_galleries(twins).values():
        assert list(versions) == ["original", *TWIN_DECODERS]


def test_the_verifier_measures_the_same_and_notices_a_change(
    result: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(PARAMS.parent / "benchmarks")
    from verify import measure_twin, twin_tasks

    folder = tmp_path / "artifacts/studies/twin/cae-l2"
    shutil.copytree(result, folder)
    (tmp_path / "artifacts/coded").mkdir()
    (tmp_path / "artifacts/coded/cae-l2").symlink_to(result.parent / "coded")
    tests = (result.parent / "prepared/test").glob("*.png")
    tasks = twin_tasks(
        tmp_path / "artifacts", "linocut.codec.codec:Codec", {path.stem: path for path in tests}
    )
    assert [problem for task in tasks for problem in measure_twin(task)] == []
    table = (folder / "scores.csv").read_text(encoding="utf-8")
    first = read_rows(folder / "scores.csv", TwinRow)[0]
    other = table.replace(f"{first.ssimulacra2:.8g}", f"{first.ssimulacra2 + 1:.8g}")
    assert other != table
    (folder / "scores.csv").write_text(other, encoding="utf-8")
    (problem,) = [problem for task in tasks for problem in measure_twin(task)]
    assert "plain, one-0.lino: ssimulacra2 is" in problem


def test_changes_are_paired_over_pictures(tmp_path: pathlib.Path) -> None:
    rows = [
        TwinRow(decoder, str(picture), 0, 0.1, 30 + picture - loss, 50 + loss, 0.2)
        for decoder, loss in (("plain", 0.0), ("adversarial", 0.5))
        for picture in range(5)
    ]
    (tmp_path / "cae-l2").mkdir()
    write_rows(tmp_path / "cae-l2/scores.csv", TwinRow, rows)
    distances = [FrechetRow("adversarial", 0, 50.0, "plain", 0.5, 0.4, 0.75)]
    write_rows(tmp_path / "cae-l2/frechet.csv", FrechetRow, distances)
    table = twin_table(tmp_path)
    table = table[table["decoder"] == "adversarial"].set_index("score")[["change", "low", "high"]]
    assert table.loc["psnr_db"].tolist() == pytest.approx([-0.5, -0.5, -0.5])
    assert table.loc["ssimulacra2"].tolist() == pytest.approx([0.5, 0.5, 0.5])
    assert table.loc["frechet_distance"].tolist() == pytest.approx([-50.0, -60.0, -25.0])


@pytest.fixture(scope="module")
def pictures() -> list[RgbArray]:
    return [dead_leaves(96, 128, seed) for seed in range(4)]


def blurred(picture: RgbArray, radius: float = 1.0) -> RgbArray:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def test_equal_pictures_have_no_distance_and_coarser_blur_has_more(
    pictures: list[RgbArray],
) -> None:
    judge = Judge(pictures[0])
    assert judge.score(pictures[0])[0] < 1e-3
    distances = [judge.score(blurred(pictures[0], radius))[0] for radius in (0.5, 1.0, 2.0)]
    assert distances == sorted(distances)
    assert distances[0] > 0.01


def test_noise_on_a_blurred_picture_worsens_the_feature_distance(pictures: list[RgbArray]) -> None:
    soft = blurred(pictures[1])
    judge = Judge(pictures[1])
    assert judge.score(noisy(soft, 6.0))[0] > 1.02 * judge.score(soft)[0]


def test_the_frechet_distance_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(60, 5)), rng.normal(size=(80, 5)) * (1, 2, 1, 3, 1) + 0.5]
    one, other = ([Patches(len(r), r.sum(0), r.T @ r) for r in np.split(one, 2)] for one in rows)
    mean = [one.mean(0) for one in rows]
    covariance = [np.cov(one, rowvar=False, bias=True) for one in rows]
    root = sqrtm(covariance[0] @ covariance[1]).real
    formula = np.square(mean[0] - mean[1]).sum() + np.trace(sum(covariance) - 2 * root)
    found = frechet_distances(one, {"other": other}, draws=3)["other"]
    assert found.shape == (4,)
    assert found[0] == pytest.approx(float(formula), rel=1e-9)


def test_a_ratio_of_equals_is_one_and_of_a_coarser_decoder_above(pictures: list[RgbArray]) -> None:
    judges = [Judge(picture) for picture in pictures]
    original = [judge.patches for judge in judges]
    fine, coarse = (
        [judge.score(blurred(p, radius))[1] for judge, p in zip(judges, pictures, strict=True)]
        for radius in (0.5, 2.0)
    )
    decoders = {"fine": fine, "coarse": coarse, "perfect": original}
    found = frechet_distances(original, decoders, draws=20)
    same = ratio_of(found["fine"], found["fine"])
    assert (same.estimate, same.low, same.high) == (1.0, 1.0, 1.0)
    worse = ratio_of(found["coarse"], found["fine"])
    assert 1.0 < worse.low <= worse.estimate
    assert found["perfect"].max() == pytest.approx(0.0, abs=1e-5)


def test_controls_change_a_picture_a_little_and_always_in_the_same_way(
    pictures: list[RgbArray],
) -> None:
    assert list(CONTROLS) == ["unsharp 20 %", "unsharp 40 %", "noise of sigma 2"]
    for control in CONTROLS.values():
        made = control(pictures[2])
        assert made.shape == pictures[2].shape
        assert made.dtype == np.uint8
        change = np.abs(made.astype(int) - pictures[2])
        assert 0.0 < float(change.mean()) < 6.0
        np.testing.assert_array_equal(made, control(pictures[2]))


def test_pictures_that_cannot_be_compared_are_refused(pictures: list[RgbArray]) -> None:
    with pytest.raises(DataError, match="expected sides of at least 16 px"):
        Judge(pictures[0][:15])
    with pytest.raises(DataError, match="as the original"):
        Judge(pictures[0]).score(pictures[0][:64])
    with pytest.raises(DataError, match="expected equal numbers"):
        frechet_distances([], {"none": []})
