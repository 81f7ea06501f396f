"""The compiled form and numpy's give the same bytes, symbols, costs and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linocut.cli.main import main
from linocut.codec.codec import Codec
from linocut.entropy import kernel
from linocut.entropy.choice import PRICE
from linocut.entropy.coder import EntropyCoder
from linocut.entropy.kernel import Kernel, description, kernel_module
from linocut.entropy.passes import Passes
from linocut.entropy.planes import Band, planes_of, step_of, wavelet_bands
from linocut.entropy.trellis import LARGEST_MAGNITUDE
from linocut.errors import BitstreamError
from linocut.format.bitstream import unpack
from symbols import laplace_latent, on_the_path, random_tables, written_tables

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
built = pytest.mark.skipif(kernel_module() is None, reason="no kernel here: numpy codes")

BANDS = {
    "wavelet": wavelet_bands(2, 2),
    "plain": tuple(Band(name, 3, 4) for name in "ab"),
    "wide": (Band("a", 12, 4), Band("b", 7, 4)),
    "smooth parent": (Band("a", 2, 8, smooth=True), Band("b", 2, 4, parent=0)),
}


@pytest.fixture(scope="module", params=BANDS)
def forms(request):
    """(planes, numpy's form, the compiled one, the portable one) of one kind of latent."""
    return both(BANDS[request.param])


def both(bands, tables=None):
    planes, tables = planes_of(bands), tables or random_tables(bands, 3)
    module = kernel_module()
    compiled = [Kernel(module, planes, tables)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(kernel.VARIABLE, "portable")
        compiled.append(Kernel(module, planes, tables))
    return bands, Passes(planes, tables), *compiled


def shapes_of(bands, height, width):
    return [(height // b.stride, width // b.stride) for b in bands for _ in range(b.channels)]


def flat_latent(bands, height, width, seed, most):
    """Sparse, dense and empty planes with symbols up to `most`."""
    rng = np.random.default_rng(seed)
    parts = []
    for shape in shapes_of(bands, height, width):
        values = np.round(rng.laplace(0, most / 8 + 0.3, shape)).clip(-most, most)
        values[rng.uniform(size=shape) < rng.choice([0.0, 0.6, 0.97, 1.0])] = 0
        parts.append(values)
    ends = np.cumsum([band.channels for band in bands])
    starts = [0, *ends[:-1].tolist()]
    latent = [np.array(parts[a:b], np.int32) for a, b in zip(starts, ends, strict=True)]
    return np.concatenate([band.ravel() for band in on_the_path(bands, latent)])


def assert_same(forms, symbols, shapes, step, bins=None):
    """Bytes and costs are equal, and each form reads the other's bytes."""
    reference = forms[0].encode(symbols, shapes, step, bins, True)
    for form in forms:
        data, costs = form.encode(symbols, shapes, step, bins, True)
        assert data == reference[0]
        np.testing.assert_array_equal(costs, reference[1])
        assert form.encode(symbols, shapes, step, bins, False)[0] == b""
        decoded = np.zeros_like(symbols)
        form.decode(reference[0], decoded, shapes, step, len(shapes))
        np.testing.assert_array_equal(decoded, symbols)


@built
@settings(deadline=None, max_examples=15)
@given(
    height=st.integers(1, 6), width=st.integers(1, 16), seed=st.integers(0, 2**32 - 1),
    step=st.integers(0, 640), most=st.sampled_from([0, 1, 2, 15, 300, LARGEST_MAGNITUDE]),
)  # fmt: skip
def test_bytes_costs_and_symbols_are_equal(forms, height, width, seed, step, most):
    bands, *forms = forms
    size = 8 * height, 8 * width
    assert_same(forms, flat_latent(bands, *size, seed, most), shapes_of(bands, *size), step)


@built
@settings(deadline=None, max_examples=15)
@given(
    height=st.integers(1, 4), width=st.integers(1, 10), seed=st.integers(0, 2**32 - 1),
    step=st.integers(0, 640), price=st.sampled_from([0.0, PRICE, 3.0]),
    scale=st.sampled_from([0.4, 3.0, 1e6]),
)  # fmt: skip
def test_chosen_symbols_and_their_tables_are_equal(forms, height, width, seed, step, price, scale):
    bands, *forms = forms
    shapes = shapes_of(bands, 8 * height, 8 * width)
    count = sum(h * w for h, w in shapes)
    latent = np.random.default_rng(seed).laplace(0, scale * step_of(step), count)
    latent = latent.astype(np.float32)
    expected = forms[0].optimise(latent, shapes, step, price)
    for form in forms[1:]:
        for found, reference in zip(
            form.optimise(latent, shapes, step, price), expected, strict=True
        ):
            np.testing.assert_array_equal(found, reference)
    assert_same(forms, expected[0], shapes, step, expected[1])


@built
def test_halves_and_ties_are_chosen_as_numpy_does():
    bands, *forms = both(BANDS["plain"])
    shapes = shapes_of(bands, 64, 64)
    count = sum(h * w for h, w in shapes)
    latent = (np.arange(count) % 41 - 20).astype(np.float32) / 4
    expected = forms[0].optimise(latent, shapes, 0, 0.0)
    for form in forms[1:]:
        np.testing.assert_array_equal(form.optimise(latent, shapes, 0, 0.0)[0], expected[0])


@built
@pytest.mark.parametrize("value", [LARGEST_MAGNITUDE, -LARGEST_MAGNITUDE, 1, 0])
def test_planes_of_one_value_are_equal(forms, value):
    bands, *forms = forms
    shapes = shapes_of(bands, 40, 72)
    latent = [np.full((b.channels, 40 // b.stride, 72 // b.stride), value, np.int32) for b in bands]
    symbols = np.concatenate([band.ravel() for band in on_the_path(bands, latent)])
    assert_same(forms, symbols, shapes, 320)
    symbols[1::2] *= -1
    assert_same(forms, symbols, shapes, 320)


@built
def test_every_step_gives_equal_bytes():
    bands, *forms = both((Band("a", 1, 4),))
    shapes = shapes_of(bands, 16, 16)
    symbols = flat_latent(bands, 16, 16, 1, 5)
    assert symbols.any()
    for step in range(641):
        assert_same(forms, symbols, shapes, step)


@built
@pytest.mark.parametrize("name", json.loads((GOLDEN / "symbols.json").read_text(encoding="utf-8")))
def test_golden_payloads_are_read_and_written_alike(name):
    codec = Codec.load(GOLDEN / name.split("-")[0])
    file = unpack((GOLDEN / f"{name}.lino").read_bytes())
    bands, *forms = both(codec.coder.bands, codec.coder.tables)
    for tile, place in zip(file.tiles, codec._tiles(file.width, file.height), strict=False):
        shapes = shapes_of(bands, place.bottom - place.top, place.right - place.left)
        symbols = np.zeros(sum(h * w for h, w in shapes), np.int32)
        forms[0].decode(tile, symbols, shapes, file.step_index, len(shapes))
        assert forms[1].encode(symbols, shapes, file.step_index, None, True)[0] == tile
        assert_same(forms, symbols, shapes, file.step_index)


@built
@settings(deadline=None, max_examples=150)
@given(data=st.data(), step=st.integers(0, 640), planes=st.integers(0, 4))
def test_damaged_payloads_are_refused_or_read_alike(forms, data, step, planes):
    bands, *forms = forms
    shapes = shapes_of(bands, 24, 32)
    planes = min(planes * 2 or len(shapes), len(shapes))
    payload = forms[0].encode(flat_latent(bands, 24, 32, 5, 9), shapes, step, None, True)[0]
    payload = data.draw(st.one_of(st.binary(max_size=90), st.just(payload)))
    for place in data.draw(st.lists(st.integers(0, 8 * len(payload)), max_size=4)):
        if place < 8 * len(payload):
            changed = bytearray(payload)
            changed[place // 8] ^= 1 << place % 8
            payload = bytes(changed)
    outcomes = []
    for form in forms:
        symbols = np.zeros(sum(h * w for h, w in shapes), np.int32)
        try:
            form.decode(payload, symbols, shapes, step, planes)
        except BitstreamError as error:
            outcomes.append(str(error))
        else:
            outcomes.append(symbols.tobytes())
    assert outcomes[1:] == outcomes[:1] * (len(forms) - 1)


@built
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shapes": [(4, 4)] * 5}, "shapes has 40 bytes, expected 48"),
        ({"shapes": [(4, 4)] * 5 + [(4, 5)]}, "plane 5 of 4 x 5 does not fit the others"),
        ({"shapes": [(-4, -4)] * 6}, "plane 0 of -4 x -4 does not fit"),
        ({"shapes": [(1 << 14, 1 << 14)] * 6}, "plane 0 of 16384 x 16384 does not fit"),
        ({"symbols": np.zeros(95, np.int32)}, "symbols has 380 bytes, expected 384"),
        ({"step": -1}, "step index is -1, expected 0 to 1023"),
        ({"bins": np.full(96, 200, np.uint8)}, "there is no table of this index"),
        ({"bins": np.zeros(3, np.uint8)}, "bins has 3 bytes, expected 96"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_before_they_are_read(change, message):
    _, _, compiled, _ = both(BANDS["plain"])
    given = {"symbols": np.ones(96, np.int32), "shapes": [(4, 4)] * 6, "step": 0, "bins": None}
    given |= change
    with pytest.raises(ValueError, match=message):
        compiled.encode(given["symbols"], given["shapes"], given["step"], given["bins"], True)


@built
def test_read_only_arrays_are_not_written_to():
    _, _, compiled, _ = both(BANDS["plain"])
    symbols = np.zeros(96, np.int32)
    symbols.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        compiled.decode(b"", symbols, [(4, 4)] * 6, 0, 6)


def test_numpy_codes_where_the_kernel_is_off(monkeypatch):
    monkeypatch.setenv(kernel.VARIABLE, "off")
    assert description() == "numpy"
    coder = EntropyCoder(BANDS["plain"], written_tables(BANDS["plain"]))
    assert isinstance(coder._form, Passes)


@built
def test_the_description_says_what_runs(monkeypatch):
    monkeypatch.delenv(kernel.VARIABLE, raising=False)
    assert description().startswith("compiled (")
    monkeypatch.setenv(kernel.VARIABLE, "portable")
    assert description() == "compiled (portable)"


def test_the_command_says_which_form_runs(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.endswith(f"entropy coding: {description()}\n")


@built
def test_threads_code_side_by_side_with_one_coder():
    from concurrent.futures import ThreadPoolExecutor

    coder = EntropyCoder(BANDS["wavelet"], written_tables(BANDS["wavelet"]))
    latents = [laplace_latent(coder.bands, 64, 64, seed) for seed in range(8)]
    expected = [coder.encode(latent, 200) for latent in latents]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda latent: coder.encode(latent, 200), latents * 4)) == expected * 4
