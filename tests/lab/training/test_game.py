"""The game teaches a decoder, and nothing else of it; its weights do what they say."""

import dataclasses
import io
from functools import cache

import numpy as np
import pytest
import torch

from linocut.errors import LinocutError
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.networks.losses import Features, smallest_side_px
from linocut.lab.training import game
from linocut.lab.training.game import (
    FIRST_NOISE,
    Decodable,
    Distances,
    Opponent,
    PairDiscriminator,
    Seen,
    decodable,
    teach,
)
from linocut.lab.training.guards import ResumeState
from tiny import GAME, awake, loss_of, tensor

CPU = torch.device("cpu")
STEP = torch.tensor([16.0, 64.0])
NO_NOISE = torch.tensor(0.0)


@cache
def seen() -> Decodable:
    crops = np.stack([dead_leaves(64, 64, seed) for seed in range(3)])
    return decodable(awake("cae"), crops, (20.0, 80.0), np.random.default_rng(0), 3)


def taught(**changes):
    """A decoder after six iterations, with its history."""
    network = awake("cae")
    options = {"adversarial": True, "seed": 0, "device": CPU} | changes
    history = teach(network, seen(), loss_of("l2"), GAME, **options)
    return network, history


def pair(seed=0):
    """Originals with fine noise, and plain decodings without."""
    torch.manual_seed(seed)
    plain = tensor(np.stack([dead_leaves(32, 32, seed + i) for i in range(2)]))
    return plain + 0.02 * torch.randn_like(plain), plain


FEATURES = Features("lite0")


@torch.no_grad()
def maps(x):
    return FEATURES(x)


def trio(seed=0):
    """Maps of originals, of decodings that are the plain ones, and of the plain ones."""
    x, plain = pair(seed)
    return maps(x), maps(plain), maps(plain)


def test_decoders_see_what_a_simple_encoder_writes():
    network, found = awake("cae"), seen()
    assert found.original.shape == (3, 64, 64, 3)
    assert found.linear.shape == (3, 3, 64, 64)
    assert ((found.step >= 19.5) & (found.step <= 81.0)).all()
    x = tensor(found.original[:1])
    with torch.no_grad():
        exact = network.synthesis_pyramid.inverse(network.analysis(x))
    error = float((torch.from_numpy(found.linear[:1]) - exact).square().mean().sqrt())
    assert 0.05 * found.step[0] < error < found.step[0]


def test_logits_are_of_every_map_and_of_what_the_candidate_differs_in():
    torch.manual_seed(0)
    judge, (x, plain) = PairDiscriminator(3).eval(), pair()
    real, other = maps(x), maps(plain)
    judge.get_used_to(real, other)
    logits = judge(real, other, NO_NOISE)
    assert [tuple(one.shape) for one in logits] == [(2, 1, s, s) for s in (16, 16, 8, 4, 2)]
    again = judge(other, other, NO_NOISE)
    assert not any(torch.equal(a, b) for a, b in zip(logits, again, strict=True))


def test_a_discriminator_learns_which_of_two_is_the_original():
    torch.manual_seed(0)
    opponent = Opponent(dataclasses.replace(GAME, discriminator_learning_rate=5e-3))
    rows = [opponent.judge(*trio(s % 4)) for s in range(60)]
    assert rows[0]["discriminator_accuracy"] < 0.8
    assert rows[-1]["discriminator_accuracy"] > 0.85


def test_noise_grows_while_the_discriminator_is_right_too_often_and_hides_what_it_sees():
    torch.manual_seed(0)
    opponent = Opponent(dataclasses.replace(GAME, discriminator_learning_rate=5e-3))
    opponent.accuracy.fill_(1.0)
    louder = opponent.judge(*trio())["discriminator_noise"]
    assert louder > FIRST_NOISE
    opponent.accuracy.fill_(0.5)
    assert opponent.judge(*trio())["discriminator_noise"] < louder
    opponent.noise.fill_(1e4)
    real, _, plain = trio()
    loud = [opponent.discriminator(one, plain, opponent.noise) for one in (real, plain)]
    right = [float((a > b).float().mean()) for a, b in zip(*loud, strict=True)]
    assert float(np.mean(right)) == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("loss", ["l2", "l1", "ssim"])
def test_the_adversary_pulls_by_its_share_at_every_step_and_for_every_loss(loss):
    torch.manual_seed(0)
    network, (x, _) = awake("cae"), pair()
    linear = network.colour(x.roll(1, 3))
    x_hat = network.finish(linear, STEP)
    opponent = Opponent(GAME)
    opponent.accuracy.fill_(1.0)
    main = 100.0 * loss_of(loss)(x_hat, x)
    told = opponent.cost(maps(x), FEATURES(x_hat), maps(x_hat.detach()))
    layer = network.synthesis_net.leave.weight
    weight = opponent.weight(main, told, x_hat, layer, STEP)
    for index in range(2):
        pulls = [
            torch.autograd.grad(one[index], layer, retain_graph=True)[0].norm()
            for one in (main, weight * told)
        ]
        assert float(pulls[1] / pulls[0]) == pytest.approx(0.8, rel=1e-3)


def test_a_discriminator_that_guesses_has_no_weight():
    opponent = Opponent(GAME)
    opponent.measured.fill_(1.0)
    assert opponent.known_weight(STEP).tolist() == [0.0, 0.0]
    opponent.accuracy.fill_(0.8)
    assert opponent.known_weight(STEP).tolist() == pytest.approx([0.8, 0.8])


def test_distances_of_the_plain_decoding_are_about_the_sum_of_their_weights():
    distances, (x, plain) = Distances(GAME, loss_of("l2")), pair()
    original, start = Seen(x, maps(x)), Seen(plain, maps(plain))
    total = distances(start, original, start)
    assert total.tolist() == pytest.approx([2.75, 2.75], rel=0.2)
    assert float(distances(original, original, start).max()) < 0.05


def test_a_weave_costs_more_than_noise_of_its_size():
    only = dataclasses.replace(
        GAME, distortion_weight=0.0, feature_weight=0.0, mean_weight=0.0, weave_weight=1.0
    )
    _, plain = pair()
    noise = 0.01 * torch.randn(plain.shape).sign()
    weave = 0.01 * torch.ones_like(plain)
    weave[..., ::2, :] *= -1.0
    costs = [
        Distances(only, loss_of("l2"))(
            *(Seen(one, maps(one)) for one in (plain + e, plain, plain + noise))
        ).mean()
        for e in (noise, weave)
    ]
    assert float(costs[1]) > 10.0 * float(costs[0])


@cache
def finished():
    return taught()


def test_the_decoder_has_learned_and_nothing_else():
    network, history = finished()
    start = awake("cae").state_dict()
    moved = {n.split(".")[0] for n, v in network.state_dict().items() if not v.equal(start[n])}
    assert moved == {"synthesis_net"}
    assert not network.training
    assert len(history) == 6
    assert ["discriminator_accuracy" in row for row in history] == [False] + [True] * 5
    assert all(np.isfinite(value) for row in history for value in row.values())


def test_a_twin_starts_alike_and_differs_by_the_adversary_alone(monkeypatch):
    monkeypatch.setattr(game.Opponent, "skill", 1.0)  # which nobody has after so short a game
    monkeypatch.setattr(game, "READY", 0.0)
    (one, with_it), (other, without) = taught(seed=1), taught(seed=1, adversarial=False)
    assert not any("discriminator_loss" in row for row in without)
    assert with_it[0]["loss"] == without[0]["loss"]
    assert with_it[-1]["adversarial_weight"] > 0.0
    after = other.state_dict()
    assert not all(v.equal(after[n]) for n, v in one.state_dict().items())


def test_a_blend_is_that_share_of_the_way():
    start, whole = list(awake("cae").decoder_parameters()), finished()[0]
    half = awake("cae")
    teach(
        half, seen(), loss_of("l2"), dataclasses.replace(GAME, blend=0.5), adversarial=True,
        seed=0, device=CPU,
    )  # fmt: skip
    for a, b, c in zip(start, whole.decoder_parameters(), half.decoder_parameters(), strict=True):
        torch.testing.assert_close(c, (a + b) / 2.0)


def test_a_discriminator_plays_once_it_is_ready():
    opponent = Opponent(GAME)
    assert not opponent.enters()
    opponent.accuracy.fill_(0.9)
    assert opponent.enters()
    opponent.accuracy.fill_(0.6)
    assert opponent.enters()
    assert opponent.entry == 2 / 40


def test_a_killed_game_goes_on_to_the_weights_of_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setenv("LINOCUT_CHECKPOINT_S", "0")

    def kill(row, megapixels):
        if megapixels > 0.0075:
            raise KeyboardInterrupt

    resume = ResumeState(tmp_path / "state")
    with pytest.raises(KeyboardInterrupt):
        taught(resume=resume, log=kill)
    assert resume.load()["done"] == 3
    network, history = taught(resume=resume)
    for name, value in finished()[0].state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, atol=0, rtol=0)
    assert history == finished()[1]
    assert resume.load() is None


def test_pieces_are_larger_and_fewer_where_a_loss_asks_for_it():
    config = dataclasses.replace(GAME, crop_px=96, batch_size=6)
    assert game._pieces(config, loss_of("l2")) == (96, 6)
    side, count = game._pieces(config, loss_of("ms_ssim"))
    assert side == smallest_side_px(loss_of("ms_ssim"))
    assert count == 2


def test_a_game_that_diverges_says_so(tmp_path):
    wild = dataclasses.replace(GAME, learning_rate=1e30)
    with pytest.raises(LinocutError, match="diverged"):
        teach(awake("cae"), seen(), loss_of("l2"), wild, adversarial=True, seed=0, device=CPU)


def test_the_state_of_an_opponent_survives_a_checkpoint():
    torch.manual_seed(0)
    first = Opponent(GAME)
    first.judge(*trio())
    kept = io.BytesIO()
    torch.save(first.state_dict(), kept)
    second = Opponent(GAME)
    second.load_state_dict(torch.load(io.BytesIO(kept.getvalue()), weights_only=True))
    rows = []
    for opponent in (first, second):
        torch.manual_seed(1)  # of the noise
        rows.append(opponent.judge(*trio()))
    assert rows[0] == rows[1]
