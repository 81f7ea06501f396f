"""Pictures of every size survive; symbols never depend on machine, threads, tiles or process."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import reference_decoder
from linocut.codec import correction, tiles
from linocut.codec.codec import Codec
from linocut.codec.effort import EncodeOptions
from linocut.codec.rotation import identity
from linocut.entropy.planes import step_index
from linocut.errors import BitstreamError, CheckpointError, DataError
from linocut.format import bitstream
from linocut.format.bitstream import CORRECTION, ICC_PROFILE, ROTATION, LinoFile, pack, unpack
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.fitting.build import COARSER
from linocut.lab.networks.torch_transforms import TorchTransforms
from linocut.models.folders import About
from linocut.pictures.quality import psnr_db
from tiny import awake

SMALL_TILE_PX = 64


@pytest.fixture(scope="module")
def plain(codec_folder):
    """The untrained codec: a wavelet."""
    return Codec.load(codec_folder)


@pytest.fixture(scope="module")
def lively(plain):
    """A codec whose residual nets speak, as after a training."""
    transforms = TorchTransforms(awake("cae"))
    return Codec(transforms, plain.rotation, plain.coder, bytes(8), "lively", About())


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of 64 px, so that small pictures have many, with a frame that leaves a middle."""
    for module in (bitstream, tiles):
        monkeypatch.setattr(module, "TILE_PX", SMALL_TILE_PX)
    monkeypatch.setattr(correction, "FRAME", SMALL_TILE_PX // 8)


@pytest.fixture(scope="module")
def picture():
    return dead_leaves(72, 104, 5)


def test_fine_steps_are_nearly_lossless_and_coarse_ones_are_smaller(plain, picture):
    sizes, qualities = [], []
    for step in (2.0, 8.0, 32.0, 128.0):
        data = plain.compress(picture, step=step)
        sizes.append(len(data))
        qualities.append(psnr_db(picture, plain.decompress(data)))
    assert sizes == sorted(sizes, reverse=True)
    assert qualities == sorted(qualities, reverse=True)
    assert qualities[0] > 48
    assert sizes[-1] < 0.1 * sizes[0]


@pytest.mark.parametrize("height", [1, 2, 3, 7, 8, 9, 15, 17, 31, 40])
def test_every_size_keeps_its_size_and_looks_alike(lively, picture, height):
    for width in (1, 5, 8, 16, 23, 33, 40):
        cut = picture[10 : 10 + height, 20 : 20 + width]
        decoded = lively.decompress(lively.compress(cut, step=4.0, effort=0))
        assert decoded.shape == cut.shape
        assert decoded.dtype == np.uint8
        assert psnr_db(cut, decoded) > 30


@pytest.mark.parametrize("view", [
    lambda p: p[::-1, ::-1], lambda p: p.transpose(1, 0, 2), lambda p: p[::3, ::2],
])  # fmt: skip
def test_views_are_pictures_too(plain, picture, view):
    data = plain.compress(view(picture), step=16.0)
    assert data == plain.compress(np.ascontiguousarray(view(picture)), step=16.0)


@pytest.mark.parametrize("other", [
    np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32),
    np.zeros((0, 4, 3), np.uint8),
])  # fmt: skip
def test_what_is_not_a_picture_is_refused(plain, other):
    with pytest.raises(DataError, match=r"expected uint8 \(h, w, 3\)"):
        plain.compress(other, step=8.0)


def test_unknown_efforts_and_steps_are_refused(plain, picture):
    with pytest.raises(DataError, match="effort is 9, expected one of"):
        plain.compress(picture, step=8.0, effort=9)
    with pytest.raises(DataError, match=r"outside 1\.\.1024 grey levels"):
        plain.compress(picture, step=0.5)


def test_prices_save_bytes(plain, picture):
    assert len(plain.compress(picture, step=20.0, effort=1)) < len(
        plain.compress(picture, step=20.0, effort=0)
    )


@pytest.mark.parametrize("step", [3.0, 24.0, 150.0])
@pytest.mark.parametrize("effort", [0, 1])
def test_the_estimate_is_within_1_percent_and_8_bytes_of_the_file(plain, picture, step, effort):
    analysed = plain.analyse(picture)
    size = len(plain.encode(analysed, step, EncodeOptions(effort)))
    estimate = plain.estimate_bytes(analysed, step=step, effort=effort)
    assert abs(size - estimate) <= 0.01 * size + 8


def test_a_second_decoder_finds_the_same_symbols(plain, codec_folder, picture):
    data = plain.compress(picture[:40, :52], step=12.0)
    expected = reference_decoder.decode(data, codec_folder)
    found = [
        [plane.tolist() for band in tile for plane in band] for tile in plain.decode_symbols(data)
    ]
    assert expected == found


# --- tiles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["plain", "lively"])
def test_tiled_synthesis_is_the_synthesis_of_the_whole(which, request, small_tiles):
    """Every pixel of every tile: no seam can be seen because there is none."""
    used = request.getfixturevalue(which)
    picture = dead_leaves(200, 152, 6)
    data = used.compress(picture, step=24.0)
    grid = used._tiles(152, 200)
    assert len(grid) == 12
    decoded = {(t.row, t.column): s for t, s in zip(grid, used.decode_symbols(data), strict=True)}
    whole = []
    for index, band in enumerate(used.geometry.bands):
        rows = [
            np.concatenate([decoded[row, column][index] for column in range(3)], axis=2)
            for row in range(4)
        ]
        whole.append(np.concatenate(rows, axis=1).astype(np.int32))
        assert whole[-1].shape == (3, 200 // band.stride, 152 // band.stride)
    block, scale = unpack(data).extras.get(CORRECTION), None
    assert (block is not None) == (which == "lively"), "a silent layer has nothing to correct"
    if block is not None:
        scale = correction.scale_of(correction.numbers_of(block, used.geometry))
    step = used.coder.told_step(step_index(24.0))
    y_hat = used.rotation.inverse_transform(used.coder.dequantise(whole, step_index(24.0)))
    expected = used.transforms.synthesis(y_hat, step, scale)
    difference = used.decompress(data).astype(int) - expected
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 1e-3


def test_the_encoder_sees_no_seams_either(lively, small_tiles, picture):
    """Symbols of tiles are those of one window, but for roundings on the edge."""
    tiled = lively.analyse(picture).latents
    tile = tiles.Tile(0, 0, 0, 0, 72, 104, (0, 0, 72, 104))
    whole = lively.rotation.transform(tiles.analyse_window(lively.transforms, picture, tile))
    for index, band in enumerate(lively.geometry.bands):
        side = SMALL_TILE_PX // band.stride
        error = np.abs(tiled[0][index] - whole[index][:, :side, :side])
        assert error.max() < 0.05  # grey levels


def test_a_picture_larger_than_one_tile_has_no_worse_pixels_along_the_seams(plain):
    """With tiles as they are: 1100 x 1090 px, four tiles."""
    small = dead_leaves(275, 273, 7)
    picture = np.repeat(np.repeat(small, 4, 0), 4, 1)[:1090, :1092]
    decoded = plain.decompress(plain.compress(picture, step=40.0, effort=0))
    assert decoded.shape == picture.shape
    error = np.square(decoded.astype(float) - picture)

    def psnr(part):
        return 10 * np.log10(255**2 / part.mean())

    along = np.concatenate([error[1008:1040].ravel(), error[:, 1008:1040].ravel()])
    beside = np.concatenate([error[944:976].ravel(), error[:, 944:976].ravel()])
    assert psnr(along) > min(psnr(error), psnr(beside)) - 0.5


def test_large_pictures_that_are_encoded_once_are_not_kept(monkeypatch, plain, picture):
    expected = plain.compress(picture, step=16.0)
    monkeypatch.setattr(tiles, "CACHED_PIXELS", 10)
    assert plain.analyse(picture, once=True).latents is None
    assert plain.compress(picture, step=16.0) == expected
    assert plain.estimate_bytes(plain.analyse(picture), step=16.0, effort=0) > 0


@pytest.mark.parametrize("which", ["lively", "personal"])
def test_large_pictures_are_analysed_once_for_many_encodings(
    monkeypatch, request, small_tiles, picture, which
):
    used = request.getfixturevalue(which)
    kept = used.analyse(picture)
    expected = [used.encode(kept, step) for step in (16.0, 40.0)]
    monkeypatch.setattr(tiles, "CACHED_PIXELS", 10)
    large = used.analyse(picture)
    assert isinstance(large.latents, tiles.LatentStore)
    monkeypatch.setattr(tiles, "analyse_window", None)  # the network must not run any more
    assert [used.encode(large, step) for step in (16.0, 40.0)] == expected


# --- determinism ----------------------------------------------------------------------------------


def test_symbols_and_pixels_do_not_depend_on_threads(codec_folder, picture):
    results = []
    for count in (1, 2):
        used = Codec.load(codec_folder, threads=count)
        data = used.compress(picture, step=16.0)
        results.append((data, used.decode_symbols(data), used.decompress(data)))
    (_, one, pixels), (_, two, others) = results
    again = used.decode_symbols(results[0][0])
    for a, b in zip(again[0], one[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert [band.shape for band in two[0]] == [band.shape for band in one[0]]
    assert np.abs(pixels.astype(int) - others).max() <= 1


DECODE = """
import pathlib, sys
from hashlib import sha256
from linocut import Codec
codec = Codec.load(sys.argv[1], threads=int(sys.argv[3]))
data = pathlib.Path(sys.argv[2]).read_bytes()
symbols = b"".join(band.tobytes() for tile in codec.decode_symbols(data) for band in tile)
print(sha256(symbols).hexdigest(), sha256(codec.decompress(data).tobytes()).hexdigest())
for module in ("linocut.lab", "torch", "sklearn", "scipy", "mlflow", "dvc", "hydra"):
    assert module not in sys.modules, module
"""


def test_a_fresh_process_decodes_the_same_and_loads_nothing_of_the_lab(
    plain, codec_folder, picture, tmp_path
):
    data = plain.compress(picture, step=16.0)
    (tmp_path / "a.lino").write_bytes(data)
    symbols = b"".join(band.tobytes() for tile in plain.decode_symbols(data) for band in tile)
    expected = [
        hashlib.sha256(content).hexdigest()
        for content in (symbols, plain.decompress(data).tobytes())
    ]
    command = [sys.executable, "-W", "error", "-c", DECODE, codec_folder, tmp_path / "a.lino", "2"]
    fresh = subprocess.run(command, capture_output=True, text=True, check=False)
    assert fresh.stderr == ""
    assert fresh.stdout.split() == expected


OTHERWISE = """
import pathlib, sys, numpy, torch
from linocut.codec.codec import Codec
from linocut.lab.networks.store import load_model
from linocut.lab.networks.torch_transforms import TorchTransforms
torch.set_num_threads(3)
torch.backends.mkldnn.enabled = False
assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
network = load_model(pathlib.Path(sys.argv[1]))
codec = Codec.load(sys.argv[1]).with_transforms(TorchTransforms(network))
data = pathlib.Path(sys.argv[2]).read_bytes()
symbols = [band.ravel() for tile in codec.decode_symbols(data) for band in tile]
numpy.savez(sys.argv[3], symbols=numpy.concatenate(symbols), pixels=codec.decompress(data))
"""


def test_other_kernels_and_threads_decode_the_same_symbols(
    plain, codec_folder, picture, tmp_path, monkeypatch
):
    """As on another machine: by PyTorch without vector instructions and oneDNN, three threads."""
    data = plain.compress(picture, step=16.0)
    (tmp_path / "a.lino").write_bytes(data)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    paths = [str(path) for path in (codec_folder, tmp_path / "a.lino", tmp_path / "there.npz")]
    subprocess.run([sys.executable, "-c", OTHERWISE, *paths], check=True)
    symbols = [band.ravel() for tile in plain.decode_symbols(data) for band in tile]
    with np.load(paths[-1]) as there:
        np.testing.assert_array_equal(there["symbols"], np.concatenate(symbols))
        assert np.abs(there["pixels"].astype(int) - plain.decompress(data)).max() <= 1


# --- refusals -------------------------------------------------------------------------------------


def test_files_of_another_model_are_refused(plain, lively, picture):
    with pytest.raises(
        BitstreamError, match=f"model {plain.model_id}, this one is 0000000000000000"
    ):
        lively.decompress(plain.compress(picture, step=16.0))


def test_large_files_are_refused_before_anything_is_allocated(plain, picture):
    with pytest.raises(BitstreamError, match="7488 pixels, the limit is 100"):
        plain.decompress(plain.compress(picture, step=16.0), max_pixels=100)


def repacked(data, **changes):
    """The same file with other fields and a right checksum."""
    file = unpack(data)
    fields = {name: getattr(file, name) for name in LinoFile.__dataclass_fields__}
    return pack(LinoFile(**(fields | changes)))


def test_a_rotation_that_the_model_does_not_expect_is_refused(plain, picture):
    data = plain.compress(
        picture, step=16.0, extras={ROTATION: identity(plain.geometry.bands).pack()}
    )
    with pytest.raises(BitstreamError, match="carries a rotation, this model has its own"):
        plain.decompress(data)


def test_extra_blocks_travel_with_the_file(plain, picture):
    data = plain.compress(picture, step=16.0, extras={ICC_PROFILE: b"profile"})
    assert unpack(data).extras == {ICC_PROFILE: b"profile"}
    np.testing.assert_array_equal(
        plain.decompress(data), plain.decompress(plain.compress(picture, step=16.0))
    )


# --- a rotation for every picture -----------------------------------------------------------------


@pytest.fixture(scope="module")
def personal(plain):
    """A codec that fits a rotation to every picture."""
    return Codec(TorchTransforms(awake("cae")), None, plain.coder, bytes(8), "personal", About())


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 20), (72, 104)])
def test_pictures_carry_their_own_rotation(personal, picture, size):
    cut = picture[: size[0], : size[1]]
    data = personal.compress(cut, step=4.0, effort=0)
    assert len(unpack(data).extras[ROTATION]) == 2 * 10 * 9
    assert psnr_db(cut, personal.decompress(data)) > 30
    analysed = personal.analyse(cut)
    assert (
        abs(len(data) - personal.estimate_bytes(analysed, step=4.0, effort=0))
        < 0.01 * len(data) + 8
    )


def test_a_file_without_the_rotation_it_needs_is_refused(personal, picture):
    data = personal.compress(picture, step=16.0)
    with pytest.raises(BitstreamError, match="lacks the rotation"):
        personal.decompress(repacked(data, extras={}))
    with pytest.raises(BitstreamError, match="rotation has 3 bytes, this model's has 180"):
        personal.decompress(repacked(data, extras={ROTATION: b"abc"}))


def test_any_rotation_bytes_decode_to_some_picture(personal, picture):
    data = personal.compress(picture[:16, :16], step=1024.0)
    for block in (b"\xff\x7f" * 90, b"\x00\x80" * 90, bytes(180)):
        assert personal.decompress(repacked(data, extras={ROTATION: block})).shape == (16, 16, 3)


# --- models ---------------------------------------------------------------------------------------


@pytest.fixture
def copy(codec_folder, tmp_path):
    shutil.copytree(codec_folder, tmp_path / "copy")
    return tmp_path / "copy"


def test_loading_by_folder_gives_name_and_id(codec_folder, copy):
    loaded = Codec.load(copy)
    assert loaded.name == "copy"
    assert loaded.model_id == Codec.load(codec_folder).model_id
    assert loaded.step_range == (4.0, 160.0 * COARSER)


@pytest.mark.parametrize("damage", [
    lambda t: t.pop("tables.sign.first"),
    lambda t: t.pop("rotation.3.matrix"),
    lambda t: t.update({"tables.frequencies": t["tables.frequencies"] + 1}),
    lambda t: t.update({"tables.frequencies": t["tables.frequencies"][:, :, :5]}),
    lambda t: t.update({"tables.magnitude.first": t["tables.magnitude.first"][:-1]}),
    lambda t: t.update({"tables.occupied": t["tables.occupied"][:-1]}),
    lambda t: t.update({"rotation.0.matrix": t["rotation.0.matrix"][:2]}),
])  # fmt: skip
def test_incomplete_codecs_are_refused(copy, damage):
    tensors = dict(load_file(copy / "model.safetensors"))
    damage(tensors)
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match="is not a complete codec"):
        Codec.load(copy)


def test_a_model_without_a_story_still_decodes(copy):
    facts = json.loads((copy / "model.json").read_text())
    del facts["about"]
    (copy / "model.json").write_text(json.dumps(facts))
    assert Codec.load(copy).about == About()
