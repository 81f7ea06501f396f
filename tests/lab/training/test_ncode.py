"""NCode's two stages learn, each its own part, and end in a codec whose files decode."""

from __future__ import annotations

import dataclasses
import io
import pathlib

import numpy as np
import pytest
import torch

from linocut.codec.codec import Codec
from linocut.errors import BitstreamError
from linocut.lab.config.params import Params, load_params
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.evaluation.encode import entropy_code
from linocut.lab.evaluation.rows import CodedRow, read_rows
from linocut.lab.fitting.build import fit_pca
from linocut.lab.networks.store import load_model
from linocut.lab.studies.robustness import learned_arms
from linocut.lab.training import recipes
from linocut.lab.training.ncode import BlockAdversary, Discriminator, through_cells
from linocut.lab.training.trainer import Outcome
from linocut.pictures.image import write_png
from tiny import OPTIONS, untrained

PARAMS = pathlib.Path(__file__).resolve().parents[3] / "params.yaml"
ITERATIONS = 3
EVERY_STEP = torch.ones(4)


@pytest.fixture(scope="module")
def params() -> Params:
    """Three iterations a stage."""
    loaded = load_params(PARAMS)
    base = dataclasses.replace(loaded.train.base, megapixels=ITERATIONS * 2 * 64**2 / 1e6)
    train = dataclasses.replace(loaded.train, base=base, crop_px=100)
    grid = dataclasses.replace(loaded.grid, arch=("ncode",), loss=("l2",), twin_arch=())
    twin = dataclasses.replace(loaded.twin, arch={})
    loss = {"l2": loaded.loss["l2"]}
    return dataclasses.replace(
        loaded, train=train, arch={"ncode": OPTIONS["ncode"]}, grid=grid, loss=loss, twin=twin
    )


@pytest.fixture(scope="module")
def work(params: Params, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """prepared/, base/ and cell/."""
    folder = tmp_path_factory.mktemp("ncode")
    prepared = folder / "prepared"
    for part in ("validation", "test"):
        (prepared / part).mkdir(parents=True)
        write_png(prepared / part / "leaves.png", dead_leaves(200, 170, 1))
    np.save(prepared / "train.npy", np.stack([dead_leaves(128, 128, seed) for seed in range(3)]))
    base, cell = (
        recipes.TrainingPlace(prepared, folder / name, folder / f"{name}-state")
        for name in ("base", "cell")
    )
    recipes.train_base(params, "ncode", base)
    recipes.train_cell(params, "ncode", "l2", base.out, cell)
    return folder


@pytest.fixture(scope="module")
def coded(params: Params, work: pathlib.Path) -> pathlib.Path:
    """codec/, files/ and coded.csv."""
    fit_pca(work / "cell", work / "prepared", work / "rotated", params.pca, 0)
    entropy_code(
        work / "cell", work / "rotated", work / "prepared", work / "coded", params.code,
        params.train.step_range, 0,
    )  # fmt: skip
    return work / "coded"


def changed(before: pathlib.Path | None, after: pathlib.Path) -> set[str]:
    """Which parts of the network differ."""
    first = load_model(before).state_dict() if before else untrained("ncode").state_dict()
    second = load_model(after).state_dict()
    return {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}


def test_stage_one_trains_the_generator_and_stage_two_the_encoder(work: pathlib.Path) -> None:
    assert changed(None, work / "base") == {"generator"}
    assert changed(work / "base", work / "cell") == {"analysis_net"}


def test_the_histories_say_what_the_discriminator_did_and_what_the_codec_is_worth(
    work: pathlib.Path,
) -> None:
    game, codec = (
        (work / name / "history.csv").read_text(encoding="utf-8").splitlines()
        for name in ("base", "cell")
    )
    assert "discriminator_accuracy" in game[0]
    assert len(game) == 2 + ITERATIONS  # of two blocks
    assert len(codec) == 2 + 2 * ITERATIONS  # of one
    row = dict(zip(codec[0].split(","), codec[-1].split(","), strict=True))
    assert float(row["rate_bpp"]) == pytest.approx(5 * 4 / 4096)
    assert float(row["psnr_db"]) > 0


def test_the_gradient_passes_the_cells_and_what_the_decoder_gets_is_a_cell_of_the_file() -> None:
    network = untrained("ncode")
    x = torch.rand(1, 3, 64, 64)
    step = torch.tensor([64.0])
    middles = []

    def synthesis(y_hat: list[torch.Tensor], step: torch.Tensor) -> torch.Tensor:
        middles.append(y_hat[0] + step / 2)
        return y_hat[0]

    network.synthesis = synthesis  # type: ignore[assignment]
    through_cells(network, x, step)[0].sum().backward()
    assert set((middles[0].detach() / 64.0).flatten().tolist()) <= {-1.5, -0.5, 0.5, 1.5}
    assert all(p.grad is not None and p.grad.any() for p in network.analysis_parameters())


def test_every_number_of_bits_is_a_rate_point_of_the_promised_size(coded: pathlib.Path) -> None:
    rows = read_rows(coded / "coded.csv", CodedRow)
    assert [row.step for row in rows] == [64.0, 16.0]
    blocks = 4 * 3
    for row, bits in zip(rows, (2, 4), strict=True):
        payload = -(-blocks * 5 * bits // 8)
        assert payload + 25 <= row.bytes <= payload + 31
        assert row.estimated_bpp == pytest.approx(8 * row.bytes / (200 * 170), rel=0.03)


def test_files_decode_to_what_the_networks_give(coded: pathlib.Path) -> None:
    codec = Codec.load(coded / "codec")
    picture = dead_leaves(200, 170, 1)
    data = (coded / "files" / "leaves-1.lino").read_bytes()
    decoded = codec.decompress(data)
    padded = np.pad(picture, ((0, 56), (0, 22), (0, 0)), mode="edge")
    x = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255.0
    with torch.no_grad():
        x_hat, _ = through_cells(load_model(coded / "codec"), x, torch.tensor([16.0]))
    difference = 255.0 * x_hat[0].permute(1, 2, 0).numpy()[:200, :170] - decoded
    assert np.abs(difference).max() < 0.51


def test_any_step_gives_the_nearest_number_of_bits(coded: pathlib.Path) -> None:
    codec = Codec.load(coded / "codec")
    picture = dead_leaves(70, 70, 2)
    assert codec.compress(picture, step=20.0) == codec.compress(picture, step=16.0, effort=0)
    assert codec.compress(picture, step=1000.0) == codec.compress(picture, step=128.0)
    assert codec.decompress(codec.compress(picture, step=1.0)).shape == picture.shape


def test_the_resilient_layout_is_refused_in_one_line(coded: pathlib.Path) -> None:
    codec = Codec.load(coded / "codec")
    with pytest.raises(BitstreamError, match="codes of fixed length have no resilient layout"):
        codec.compress(dead_leaves(70, 70, 2), step=16.0, resilient=True)


def test_a_file_that_was_cut_is_refused(coded: pathlib.Path) -> None:
    data = (coded / "files" / "leaves-0.lino").read_bytes()
    with pytest.raises(BitstreamError, match="truncated"):
        Codec.load(coded / "codec").decompress(data[:-1])


def test_bit_errors_are_measured_on_its_own_files(coded: pathlib.Path) -> None:
    (arm,) = learned_arms(Codec.load(coded / "codec"), dead_leaves(192, 192, 3), 2000)
    assert arm.name == "fixed"
    damaged = bytearray(arm.data)
    damaged[-1] ^= 1
    found = arm.decode(bytes(damaged))
    assert found is not None
    assert found[0].shape == (192, 192, 3)


# --- the adversary of stage one -------------------------------------------------------------------


def adversary(seed=0):
    torch.manual_seed(seed)
    return BlockAdversary(4, 2e-3)


def outcome(x_hat):
    return Outcome(torch.zeros(len(x_hat)), x_hat, [])


def test_logits_are_a_sixteenth_and_features_halve_from_layer_to_layer():
    logits, features = Discriminator(4)(torch.rand(2, 3, 64, 32))
    assert logits.shape == (2, 1, 4, 2)
    assert [f.shape[2] for f in features] == [32, 16, 8, 4]


def test_it_learns_to_tell_noise_from_flat_pictures():
    game = adversary()
    real = torch.rand(4, 3, 32, 32)
    fake = outcome(torch.full_like(real, 0.5))
    rows = [game.learn(real, fake, EVERY_STEP, 5e-3) for _ in range(20)]
    assert rows[-1]["discriminator_loss"] < 0.7 * rows[0]["discriminator_loss"]
    assert rows[-1]["discriminator_accuracy"] > 0.9


def test_the_generator_pays_for_every_picture_and_gets_a_gradient():
    game = adversary()
    x = torch.rand(3, 3, 32, 32)
    x_hat = torch.rand(3, 3, 32, 32, requires_grad=True)
    cost, row = game.generator_cost(x, outcome(x_hat), EVERY_STEP, torch.zeros(3))
    assert cost.shape == (3,)
    assert set(row) == {"generator_adversarial"}
    cost.sum().backward()
    assert x_hat.grad.abs().sum() > 0


def test_a_resumed_adversary_goes_on_as_the_uninterrupted_one():
    x, x_hat = torch.rand(2, 3, 32, 32), outcome(torch.rand(2, 3, 32, 32))
    first = adversary()
    for _ in range(3):
        first.learn(x, x_hat, EVERY_STEP, 1e-3)
    kept = io.BytesIO()
    torch.save(first.state_dict(), kept)
    second = adversary(seed=1)
    second.load_state_dict(torch.load(io.BytesIO(kept.getvalue()), weights_only=True))
    assert first.learn(x, x_hat, EVERY_STEP, 1e-3) == second.learn(x, x_hat, EVERY_STEP, 1e-3)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)
