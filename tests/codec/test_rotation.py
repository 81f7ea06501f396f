"""The rotation is a PCA, the same one every time, and survives 16 bits."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from linocut.codec import rotation
from linocut.codec.rotation import Rotation, rotation_from, rotation_tensors
from linocut.entropy.planes import Band
from linocut.errors import BitstreamError

BANDS = (Band("low", 3, 8, smooth=True), Band("high", 5, 4))


def latents(count=3, seed=0, side=8):
    """Correlated channels, with a mean of their own."""
    rng = np.random.default_rng(seed)
    mixes = [rng.normal(size=(band.channels, band.channels)) for band in BANDS]
    result = []
    for _ in range(count):
        result.append([
            (np.einsum("ij,jhw->ihw", mix, rng.normal(size=(band.channels, side, side))) + 3.0)
            .astype(np.float32)
            for band, mix in zip(BANDS, mixes, strict=True)
        ])  # fmt: skip
    return result


def rows_of(items, index):
    """All samples of one band, (samples, channels)."""
    return np.concatenate([item[index].reshape(len(item[index]), -1).T for item in items])


def test_components_are_numpys_singular_vectors_up_to_sign():
    fitted = rotation.fit(BANDS, latents())
    rows = rows_of(latents(), 1).astype(np.float64)
    _, values, vectors = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(fitted.matrices[1]), np.abs(vectors), atol=1e-4)
    np.testing.assert_allclose(fitted.variances[1], values**2 / (len(rows) - 1), rtol=1e-5)
    np.testing.assert_allclose(fitted.means[1], rows.mean(0), atol=1e-5)


def test_it_is_scikit_learns_pca_signs_included():
    fitted = rotation.fit(BANDS, latents())
    reference = PCA(svd_solver="full").fit(rows_of(latents(), 1).astype(np.float64))
    np.testing.assert_allclose(fitted.matrices[1], reference.components_, atol=1e-5)


def test_the_largest_entry_of_every_component_is_positive():
    for matrix in rotation.fit(BANDS, latents()).matrices:
        assert all(row[np.abs(row).argmax()] > 0 for row in matrix)


def test_fitting_twice_gives_the_same_bytes():
    first, second = (rotation.fit(BANDS, latents()) for _ in range(2))
    assert first.pack() == second.pack()


def test_matrices_are_orthogonal_and_variances_fall():
    fitted = rotation.fit(BANDS, latents())
    for matrix, variances in zip(fitted.matrices, fitted.variances, strict=True):
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-5)
        assert (np.diff(variances) <= 0).all()


@pytest.mark.parametrize("centre", [True, False])
def test_rotated_channels_are_uncorrelated_and_rotate_back(centre):
    fitted = rotation.fit(BANDS, latents(), centre=centre)
    rotated = [fitted.transform(item) for item in latents()]
    for item, there in zip(latents(), rotated, strict=True):
        for band, back in zip(item, fitted.inverse_transform(there), strict=True):
            np.testing.assert_allclose(back, band, atol=1e-4)
    second_moments = rows_of(rotated, 1).T @ rows_of(rotated, 1) / len(rows_of(rotated, 1))
    off = second_moments - np.diag(np.diag(second_moments))
    assert np.abs(off).max() < 1e-3 * np.abs(second_moments).max()


def test_smooth_bands_and_uncentred_fits_keep_a_zero_mean():
    assert not rotation.fit(BANDS, latents()).means[0].any()
    assert not any(mean.any() for mean in rotation.fit(BANDS, latents(), centre=False).means)


@pytest.mark.parametrize("side", [1, 2])
def test_fewer_samples_than_channels_still_give_a_whole_basis(side):
    """As in a picture of one tile of one latent sample, whose rotation is in its own file."""
    for centre in (True, False):
        fitted = rotation.fit(BANDS, latents(1, side=side), centre=centre)
        for matrix, band in zip(fitted.matrices, BANDS, strict=True):
            assert matrix.shape == (band.channels, band.channels)
            np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-5)
        Rotation.unpack(fitted.pack(), BANDS)


def test_empty_energy_gives_the_identity():
    silent = [[np.zeros((band.channels, 4, 4), np.float32) for band in BANDS]]
    for matrix in rotation.fit(BANDS, silent, centre=False).matrices:
        np.testing.assert_array_equal(matrix, np.eye(len(matrix)))


def test_16_bits_cost_at_most_half_a_unit_in_every_entry():
    fitted = rotation.fit(BANDS, latents(), centre=False)
    packed = fitted.pack()
    assert len(packed) == 2 * (9 + 25)
    for before, after in zip(fitted.matrices, Rotation.unpack(packed, BANDS).matrices, strict=True):
        assert np.abs(before - after).max() <= 0.5 / 32767 + 1e-7
    assert Rotation.unpack(packed, BANDS).pack() == packed


def test_a_packed_rotation_moves_no_coefficient_by_more_than_a_thousandth_part():
    fitted = Rotation.unpack(rotation.fit(BANDS, latents(), centre=False).pack(), BANDS)
    for item in latents():
        back = fitted.inverse_transform(fitted.transform(item))
        for a, b in zip(item, back, strict=True):
            assert np.abs(a - b).max() < 1e-3 * np.abs(a).max()


@pytest.mark.parametrize("change", [b"\0", b"", None])
def test_other_sizes_are_refused(change):
    packed = rotation.identity(BANDS).pack()
    data = packed + change if change else packed[:-1] if change is None else b""
    with pytest.raises(BitstreamError, match=rf"has {len(data)} bytes, this model's has 68"):
        Rotation.unpack(data, BANDS)


def test_packed_bytes_are_written_down():
    bands = (Band("b", 2, 2),)
    turned = Rotation(
        (np.array([[0.6, 0.8], [-0.8, 0.6]], np.float32),),
        (np.zeros(2, np.float32),),
        (np.ones(2),),
    )
    assert turned.pack().hex() == "cc4c66669a99cc4c"
    np.testing.assert_allclose(
        Rotation.unpack(bytes.fromhex("cc4c66669a99cc4c"), bands).matrices[0], turned.matrices[0],
        atol=2e-5,
    )  # fmt: skip


def test_energy_rows_add_up_band_by_band():
    rows = rotation.energy(BANDS, rotation.fit(BANDS, latents()))
    assert [row["band"] for row in rows] == 3 * ["low"] + 5 * ["high"]
    for name in ("low", "high"):
        band = [row for row in rows if row["band"] == name]
        assert band[-1]["cumulative"] == pytest.approx(1.0)
        assert sum(row["share"] for row in band) == pytest.approx(1.0)


def test_named_tensors_give_the_rotation_back():
    fitted = rotation.fit(BANDS, latents())
    back = rotation_from(rotation_tensors(fitted), BANDS)
    assert back is not None
    for a, b in zip(back.matrices + back.means, fitted.matrices + fitted.means, strict=True):
        np.testing.assert_array_equal(a, b)
    assert rotation_from({}, BANDS) is None
