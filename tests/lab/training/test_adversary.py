"""NCode's discriminator learns to tell, charges for it, and resumes with its optimiser."""

import io

import torch

from linocut.lab.training.adversary import BlockAdversary, Discriminator
from linocut.lab.training.trainer import Outcome

STEP = torch.ones(4)


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
    rows = [game.learn(real, fake, STEP, 5e-3) for _ in range(20)]
    assert rows[-1]["discriminator_loss"] < 0.7 * rows[0]["discriminator_loss"]
    assert rows[-1]["discriminator_accuracy"] > 0.9


def test_the_generator_pays_for_every_picture_and_gets_a_gradient():
    game = adversary()
    x = torch.rand(3, 3, 32, 32)
    x_hat = torch.rand(3, 3, 32, 32, requires_grad=True)
    cost, row = game.generator_cost(x, outcome(x_hat), STEP, torch.zeros(3))
    assert cost.shape == (3,)
    assert set(row) == {"generator_adversarial"}
    cost.sum().backward()
    assert x_hat.grad.abs().sum() > 0


def test_a_resumed_adversary_goes_on_as_the_uninterrupted_one():
    x, x_hat = torch.rand(2, 3, 32, 32), outcome(torch.rand(2, 3, 32, 32))
    first = adversary()
    for _ in range(3):
        first.learn(x, x_hat, STEP, 1e-3)
    kept = io.BytesIO()
    torch.save(first.state_dict(), kept)
    second = adversary(seed=1)
    second.load_state_dict(torch.load(io.BytesIO(kept.getvalue()), weights_only=True))
    assert first.learn(x, x_hat, STEP, 1e-3) == second.learn(x, x_hat, STEP, 1e-3)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)
