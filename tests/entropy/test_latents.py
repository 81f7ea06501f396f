"""The order and the shape of a latent, on which files depend."""

from linocut.entropy.latents import Band, wavelet_bands


def test_wavelet_bands_go_from_coarse_to_fine():
    bands = wavelet_bands(2)
    assert [band.name for band in bands] == ["LL2", "HL2", "LH2", "HH2", "HL1", "LH1", "HH1"]
    assert [band.stride for band in bands] == [4, 4, 4, 4, 2, 2, 2]
    assert {band.channels for band in bands} == {3}


def test_every_finer_detail_names_the_same_orientation_as_parent():
    bands = wavelet_bands(4)
    for band in bands[4:]:
        parent = bands[band.parent]
        assert (parent.name[:2], parent.stride) == (band.name[:2], 2 * band.stride)
    assert all(band.parent is None for band in bands[:4])


def test_only_the_low_pass_band_is_smooth():
    assert [band.smooth for band in wavelet_bands(3)] == [True] + 9 * [False]


def test_as_many_samples_as_pixels():
    assert sum(band.channels / band.stride**2 for band in wavelet_bands(5, 3)) == 3


def test_a_band_is_not_smooth_and_has_no_parent_unless_said():
    assert Band("Y", 32, 8) == Band("Y", 32, 8, None, False)
