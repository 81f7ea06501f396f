"""The discriminator learns to tell, charges for it, and resumes with its optimiser."""

import io

import pytest
import torch

from linocut.lab.config.params import Chosen, TwinConfig
from linocut.lab.training.adversary import (
    Adversary,
    DetailDiscriminator,
    Discriminator,
    PairedAdversary,
)
from tiny import CONFIGS

TWIN = TwinConfig(
    megapixels=1.0, frozen_analysis_share=1.0, batch_size=1, crop_px=32, learning_rate=1e-3,
    optimiser="adam", precision="float32",
    arch={"cae": Chosen()}, loss={"l2": Chosen()}, points=1, discriminator_channels=4,
    discriminator_learning_rate=5e-3, adversarial_weight=0.1, feature_weight=0.1,
)  # fmt: skip


def adversary(seed=0):
    torch.manual_seed(seed)
    return Adversary(CONFIGS["generative"], 2e-3)


def test_logits_are_a_sixteenth_and_features_halve_from_layer_to_layer():
    logits, features = Discriminator(4)(torch.rand(2, 3, 64, 32))
    assert logits.shape == (2, 1, 4, 2)
    assert [f.shape[2] for f in features] == [32, 16, 8, 4]


def test_it_learns_to_tell_noise_from_flat_pictures():
    game = adversary()
    real = torch.rand(4, 3, 32, 32)
    fake = torch.full_like(real, 0.5)
    rows = [game.learn(real, fake, 5e-3) for _ in range(20)]
    assert rows[-1]["discriminator_loss"] < 0.7 * rows[0]["discriminator_loss"]
    assert rows[-1]["discriminator_accuracy"] > 0.9


def test_the_generator_pays_for_every_picture_and_gets_a_gradient():
    game = adversary()
    x = torch.rand(3, 3, 32, 32)
    x_hat = torch.rand(3, 3, 32, 32, requires_grad=True)
    cost, row = game.generator_cost(x, x_hat)
    assert cost.shape == (3,)
    assert set(row) == {"generator_adversarial"}
    cost.sum().backward()
    assert x_hat.grad.abs().sum() > 0


def test_equal_pictures_have_no_feature_distance():
    game = adversary()
    x = torch.rand(1, 3, 32, 32)
    cost, row = game.generator_cost(x, x)
    weight = game.config.adversarial_weight
    assert float(cost.detach()) == pytest.approx(
        weight * float(row["generator_adversarial"]), abs=1e-5
    )


def test_a_resumed_adversary_goes_on_as_the_uninterrupted_one():
    x, x_hat = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    first = adversary()
    for _ in range(3):
        first.learn(x, x_hat, 1e-3)
    kept = io.BytesIO()
    torch.save(first.state_dict(), kept)
    second = adversary(seed=1)
    second.load_state_dict(torch.load(io.BytesIO(kept.getvalue()), weights_only=True))
    assert first.learn(x, x_hat, 1e-3) == second.learn(x, x_hat, 1e-3)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


def coded_pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks of different brightness, each with fine noise that its copy lacks."""
    torch.manual_seed(seed)
    flat = torch.rand(4, 3, 1, 1).expand(4, 3, 32, 32)
    return flat + 0.02 * torch.randn(4, 3, 32, 32), flat


def test_a_pair_of_nearly_equal_pictures_is_told_apart():
    torch.manual_seed(0)
    game = PairedAdversary(TWIN)
    rows = [game.learn(*coded_pair(seed), TWIN.learning_rate) for seed in range(30)]
    assert float(rows[0]["discriminator_loss"]) == pytest.approx(2.0, abs=0.1)
    assert rows[-1]["discriminator_loss"] < 1.0
    assert rows[-1]["discriminator_accuracy"] > 0.9


def test_an_ordinary_adversary_cannot_tell_them():
    """Why twin decoders have one of their own."""
    game = adversary()
    rows = [game.learn(*coded_pair(seed), TWIN.discriminator_learning_rate) for seed in range(30)]
    assert rows[-1]["discriminator_loss"] > 1.5


def test_the_details_are_what_means_of_squares_leave():
    x = torch.rand(1, 3, 32, 32)
    discriminator = DetailDiscriminator(4)
    brighter, same = (discriminator(y)[0] for y in (x + 0.25, x))
    torch.testing.assert_close(brighter, same, atol=1e-3, rtol=1e-3)


def test_a_paired_generator_pays_until_it_is_taken_for_the_original():
    game = PairedAdversary(TWIN)
    real = torch.zeros(2, 1, 2, 2)
    cost = game.adversarial_cost(real, torch.tensor([0.0, 1.0])[:, None, None, None] + real)
    assert cost.tolist() == [1.0, 0.0]
