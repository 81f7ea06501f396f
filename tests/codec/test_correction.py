"""A picture's own last layer: found by least squares, paid for, and read back safely."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from linocut.codec import correction
from linocut.codec.codec import Codec
from linocut.codec.correction import NormalEquations, middle, numbers_of, scale_of
from linocut.codec.tiles import Tile
from linocut.codec.transforms import GraphTransforms
from linocut.errors import BitstreamError
from linocut.format.bitstream import (
    CORRECTION,
    ROWS,
    code_lengths,
    pack_correction,
    unpack,
    unpack_correction,
)
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.networks.torch_transforms import TorchTransforms, geometry_of
from linocut.pictures.quality import psnr_db
from tiny import awake

STEP = 24.0


@pytest.fixture(scope="module", params=["cae"])
def network(request):
    return awake(request.param)


def numbers_for(network, seed=0, largest=3):
    shape = (ROWS, network.last_layer.in_channels)
    return np.random.default_rng(seed).integers(-largest, largest + 1, shape).astype(np.int8)


def latent_of(network, picture):
    x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255.0
    padded = torch.nn.functional.pad(
        x, [0, -x.shape[3] % network.multiple, 0, -x.shape[2] % network.multiple], "replicate"
    )
    with torch.inference_mode():
        bands = network.analysis(padded)
    return [(STEP * torch.round(band / STEP))[0].numpy() for band in bands]


def decoded(network, latent, scale=None):
    bands = [torch.from_numpy(band)[None] for band in latent]
    with torch.inference_mode():
        factors = None if scale is None else torch.from_numpy(scale)
        return network.synthesis(bands, torch.tensor([STEP]), scale=factors)[0]


def squared_error(network, latent, picture, numbers):
    """In grey levels, of the picture before it is clipped and rounded, even part only."""
    height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
    x_hat = 255.0 * decoded(network, latent, scale_of(numbers))[:, :height, :width]
    x = torch.from_numpy(picture[:height, :width].copy()).permute(2, 0, 1).float()
    return float((x_hat - x).double().square().sum())


def test_without_numbers_nothing_changes(network):
    latent = latent_of(network, dead_leaves(64, 64, 1))
    zeros = np.zeros_like(numbers_for(network))
    torch.testing.assert_close(
        decoded(network, latent, scale_of(zeros)), decoded(network, latent), atol=0, rtol=0
    )


def change_of_error(sums, numbers):
    """E(s) - E(0) = q^2 s G s - 2 q b s, summed over the groups."""
    total = 0.0
    for rows, gram, moment in zip(correction.GROUPS, sums.gram, sums.moment, strict=True):
        s = correction.QUANTUM * numbers[list(rows)].ravel().astype(np.float64)
        total += float(s @ gram @ s - 2 * moment @ s)
    return total


@pytest.mark.parametrize("size", [(64, 96), (45, 71), (1, 1), (2, 3), (37, 200)])
def test_the_normal_equations_know_what_every_number_does_to_the_error(network, size):
    picture = dead_leaves(max(size), max(size), 2)[: size[0], : size[1]]
    latent, numbers = latent_of(network, picture), numbers_for(network, 3)
    sums = NormalEquations.of(geometry_of(network))
    sums.add(TorchTransforms(network), latent, STEP, picture)
    start = squared_error(network, latent, picture, np.zeros_like(numbers))
    found = squared_error(network, latent, picture, numbers) - start
    predicted = change_of_error(sums, numbers)
    assert found == pytest.approx(predicted, rel=2e-3, abs=1e-3 * start + 1e-2)


def test_of_large_tiles_some_strips_decide(network, monkeypatch):
    picture = dead_leaves(192, 96, 4)
    latent = latent_of(network, picture)
    everything, some = (NormalEquations.of(geometry_of(network)) for _ in range(2))
    everything.add(TorchTransforms(network), latent, STEP, picture)
    monkeypatch.setattr(correction, "LOOKED_AT", 192 * 96 // 2)
    some.add(TorchTransforms(network), latent, STEP, picture)
    assert everything.pixels == 192 * 96 == 2 * some.pixels
    for fewer, every in zip(some.gram, everything.gram, strict=True):
        assert 0.2 < np.trace(fewer) / np.trace(every) < 0.8


@pytest.mark.parametrize(("height", "width"), [(512, 768), (1024, 1024), (600, 514), (64, 8192)])
def test_strips_lie_apart_inside_and_are_as_many_pixels_as_decide(height, width):
    strips = correction._strips(0, height, width)
    assert all(first >= 0 and last <= height and last - first == 48 for first, last in strips)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(strips))
    pixels = 48 * width * len(strips)
    assert abs(pixels - correction.LOOKED_AT) <= max(24 * width, 48 * 8192 - correction.LOOKED_AT)


def test_small_parts_are_looked_at_whole():
    strips = correction._strips(10, 110, 300)
    assert strips == [(10, 58), (58, 106), (106, 110)]
    assert correction._looks(strips, 128, 8) == [(0, 128, strips)]


def test_features_of_a_strip_need_not_be_made_of_the_whole(monkeypatch):
    """With its frame a strip asks for what it asks for as a part of the whole."""
    network = awake("cae")
    picture = dead_leaves(256, 96, 11)
    latent, transforms = latent_of(network, picture), TorchTransforms(network)
    monkeypatch.setattr(correction, "LOOKED_AT", 96 * 96)
    alone, whole = (NormalEquations.of(transforms.geometry) for _ in range(2))
    alone.add(transforms, latent, STEP, picture)
    monkeypatch.setattr(correction, "_MOST", 0.0)
    whole.add(transforms, latent, STEP, picture)
    assert alone.pixels == whole.pixels == 96 * 96
    for one, other in zip(alone.moment, whole.moment, strict=True):
        np.testing.assert_allclose(one, other, atol=0.02 * np.abs(other).max())
    assert (alone.moment[0] != whole.moment[0]).any(), "the same look twice"


class Together(TorchTransforms):
    """Several operations at the same time."""

    at_once = 3


def test_strips_looked_at_together_give_the_same_sums(network, monkeypatch):
    picture = dead_leaves(256, 96, 12)
    latent = latent_of(network, picture)
    monkeypatch.setattr(correction, "LOOKED_AT", 96 * 96)
    one, other = (NormalEquations.of(geometry_of(network)) for _ in range(2))
    one.add(TorchTransforms(network), latent, STEP, picture)
    other.add(Together(network), latent, STEP, picture)
    for a, b in zip([*one.gram, *one.moment], [*other.gram, *other.moment], strict=True):
        np.testing.assert_array_equal(a, b)


def the_tile(row=0, bottom=1024, right=1024):
    return Tile(row, 0, 1024 * row, 0, 1024 * row + bottom, right, (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("tiles", "expected"),
    [
        (4, (1024, 0, 2048, 1024)),
        (16, (1280, 256, 1792, 768)),
        (256, (1408, 384, 1664, 640)),  # not 128 px, all of which would be frame
    ],
)
def test_of_many_tiles_the_middles_decide(tiles, expected):
    assert middle(the_tile(row=1), (4096, 4096), 32, tiles) == expected


def test_the_middle_of_a_tile_at_the_edge_lies_in_the_picture():
    shape = (1024 + 300, 77)
    top, left, bottom, right = middle(the_tile(row=1, bottom=320, right=96), shape, 32, 100)
    assert 1024 <= top < bottom <= 1024 + 300
    assert (left, right) == (0, 64)


def test_a_cut_is_not_looked_at(network):
    """Inside of its frame a part of a picture asks for what the whole asks for there."""
    picture = dead_leaves(384, 384, 7)
    whole, part, careless = (NormalEquations.of(geometry_of(network)) for _ in range(3))
    inner = (128, 128, 384 - 256, 384 - 256)
    latent = latent_of(network, picture)
    whole.add(TorchTransforms(network), latent, STEP, picture, inner)
    strides = [band.stride for band in network.bands]
    cut = [
        band[:, 64 // s : 320 // s, 64 // s : 320 // s]
        for band, s in zip(latent, strides, strict=True)
    ]
    part.add(TorchTransforms(network), cut, STEP, picture[64:320, 64:320], (correction.FRAME,) * 4)
    careless.add(TorchTransforms(network), cut, STEP, picture[64:320, 64:320])
    assert part.pixels == whole.pixels == 128**2
    for few, all_of_it in zip(part.moment, whole.moment, strict=True):
        np.testing.assert_allclose(few, all_of_it, atol=0.02 * np.abs(all_of_it).max())
    assert careless.pixels == 256**2


def test_tiles_without_an_inside_have_no_say(network):
    sums = NormalEquations.of(geometry_of(network))
    picture = dead_leaves(96, 96, 9)
    sums.add(
        TorchTransforms(network),
        latent_of(network, picture),
        STEP,
        picture,
        (correction.FRAME,) * 4,
    )
    assert sums.pixels == 0
    assert not sums.solve(1.0, 96**2).any()


def test_pixels_seen_stand_for_the_others(network, monkeypatch):
    """Half of a picture of two equal halves asks for the same numbers as both."""
    monkeypatch.setattr(correction, "UNSEEN_BITS", 0)
    half = dead_leaves(64, 96, 10)
    sums, twice = NormalEquations.of(geometry_of(network)), NormalEquations.of(geometry_of(network))
    sums.add(TorchTransforms(network), latent_of(network, half), STEP, half)
    for _ in range(2):
        twice.add(TorchTransforms(network), latent_of(network, half), STEP, half)
    price = 0.08 * STEP**2
    asked = sums.solve(price, 2 * 64 * 96)
    np.testing.assert_array_equal(asked, twice.solve(price, 2 * 64 * 96))
    assert code_lengths(asked).sum() >= code_lengths(sums.solve(price, 64 * 96)).sum()


def test_numbers_have_to_be_worth_more_where_fewer_pixels_were_seen(network):
    picture = dead_leaves(64, 96, 10)
    sums = NormalEquations.of(geometry_of(network))
    sums.add(TorchTransforms(network), latent_of(network, picture), STEP, picture)
    counts = [
        np.count_nonzero(sums.solve(0.001 * STEP**2 * times, times * 64 * 96))
        for times in (1, 4, 64)
    ]
    assert counts[0] > 0
    assert counts == sorted(counts, reverse=True)


def test_a_planted_correction_is_found(network):
    latent = latent_of(network, dead_leaves(96, 128, 5))
    planted = numbers_for(network, 6)
    x = decoded(network, latent, scale_of(planted))
    exact = 255.0 * x.permute(1, 2, 0).numpy()
    # grey levels of a target that no uint8 picture could hold: the sums take any number
    sums = NormalEquations.of(geometry_of(network))
    sums.add(TorchTransforms(network), latent, STEP, exact)
    found = sums.solve(price=0.0, pixels=1)
    left = squared_error_between(network, latent, found, x)
    before = squared_error_between(network, latent, np.zeros_like(found), x)
    assert left < 0.02 * before


def squared_error_between(network, latent, numbers, x):
    return float((decoded(network, latent, scale_of(numbers)) - x).square().sum())


def test_bits_are_paid_for(network):
    picture = dead_leaves(96, 128, 7)
    sums = NormalEquations.of(geometry_of(network))
    sums.add(TorchTransforms(network), latent_of(network, picture), STEP, picture)
    free, fair, dear = (sums.solve(price, 96 * 128) for price in (0.0, 0.08 * STEP**2, 1e12))
    assert not dear.any()
    assert code_lengths(fair).sum() <= code_lengths(free).sum()

    def cost(numbers, price):
        rows = [row for row in numbers if row.any()]
        return change_of_error(sums, numbers) + price * sum(code_lengths(r).sum() for r in rows)

    price = 0.08 * STEP**2
    assert cost(fair, price) <= min(cost(free, price), cost(np.zeros_like(fair), price))


@given(numbers=arrays(np.int8, (5, 8), elements=st.integers(-127, 127)))
def test_blocks_survive(numbers):
    block = pack_correction(numbers)
    bits = 5 + sum(int(code_lengths(row).sum()) for row in numbers if row.any())
    assert len(block) == -(-bits // 8)
    np.testing.assert_array_equal(unpack_correction(block, 8), numbers)


@pytest.mark.parametrize(
    "change",
    [
        lambda block: block[:-1],
        lambda block: b"",
        lambda block: block + b"\0",
        lambda block: block + b"\x01",
        lambda block: b"\xc0" + bytes(9),
        lambda block: b"\xc0\x00\x7f" + block,
        lambda block: bytes(100_000),
    ],
)
def test_damaged_blocks_are_refused(network, change):
    block = pack_correction(numbers_for(network, 8, largest=100))
    with pytest.raises(BitstreamError, match="correction"):
        numbers_of(change(block), geometry_of(network))


def test_an_architecture_without_such_a_layer_says_so():
    geometry = geometry_of(awake("ncode"))
    assert NormalEquations.of(geometry) is None
    with pytest.raises(BitstreamError, match="which its model lacks"):
        numbers_of(b"\x80", geometry)


PICTURE = dead_leaves(192, 256, 9)


@pytest.fixture(scope="module")
def shipped():
    return Codec.load("default")


def with_blocks(data, blocks):
    file = unpack(data)
    return dataclasses.replace(file, extras=blocks)


@pytest.mark.parametrize(("effort", "expected"), [(0, False), (1, False), (2, True)])
def test_files_carry_it_from_effort_2_on(shipped, effort, expected):
    data = shipped.compress(PICTURE, step=20.0, effort=effort)
    assert (CORRECTION in unpack(data).extras) is expected


def test_a_tile_coded_while_it_is_looked_at_makes_the_same_file(monkeypatch):
    codec = Codec.load("default", threads=1)
    data = codec.compress(PICTURE, step=20.0)
    monkeypatch.setattr(GraphTransforms, "at_once", 3)
    assert codec.compress(PICTURE, step=20.0) == data


def test_what_fails_beside_the_coding_is_raised(shipped, monkeypatch):
    def refuse(*_):
        raise BitstreamError("looked in vain")

    monkeypatch.setattr(GraphTransforms, "at_once", 3)
    monkeypatch.setattr(GraphTransforms, "linear", refuse)
    with pytest.raises(BitstreamError, match="looked in vain"):
        shipped.compress(PICTURE, step=20.0)


def test_it_is_worth_its_bytes(shipped):
    data = shipped.compress(PICTURE, step=20.0)
    without = shipped.decode(with_blocks(data, {})).picture
    gain = psnr_db(PICTURE, shipped.decompress(data)) - psnr_db(PICTURE, without)
    share = len(unpack(data).extras[CORRECTION]) / len(data)
    assert gain > 6.0 * share  # a decibel is worth about a sixth of a file
    assert gain > 0.03


def test_damage_in_a_file_is_one_line(shipped):
    data = shipped.compress(PICTURE, step=20.0)
    with pytest.raises(BitstreamError, match="correction of 9 bytes"):
        shipped.decode(with_blocks(data, {CORRECTION: b"\xff" * 9}))


def test_the_resilient_layout_carries_it_too(shipped):
    data = shipped.compress(PICTURE, step=20.0, resilient=True)
    assert CORRECTION in unpack(data).extras
    assert np.array_equal(
        shipped.decompress(data), shipped.decompress(shipped.compress(PICTURE, step=20.0))
    )
