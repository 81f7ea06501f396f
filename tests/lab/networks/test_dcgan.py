"""Blocks of 64 x 64 px: cut and joined without loss, and blind to each other."""

import torch

from linocut.lab.networks.dcgan import BatchNorm, BlockEncoder, BlockGenerator, blocks_of, joined


def test_blocks_are_cut_picture_by_picture_and_row_by_row_and_joined_again():
    x = torch.rand(2, 3, 128, 192)
    blocks = blocks_of(x)
    assert blocks.shape == (12, 3, 64, 64)
    assert torch.equal(blocks[6 + 3 + 2], x[1, :, 64:, 128:])
    assert torch.equal(joined(blocks, torch.zeros(len(x), 1, 2, 3)), x)


@torch.no_grad()
def test_a_block_depends_on_its_own_latent_only():
    generator = BlockGenerator(5, 4).eval()
    z = torch.rand(1, 5, 2, 2)
    before = generator(z)
    assert before.shape == (1, 3, 128, 128)
    assert float(before.min()) >= 0
    assert float(before.max()) <= 1
    z[0, :, 0, 1] = -z[0, :, 0, 1]
    changed = (generator(z) != before).any(1)[0]
    inside = changed[:64, 64:]
    assert inside.float().mean() > 0.5
    assert changed.sum() == inside.sum()


@torch.no_grad()
def test_a_latent_depends_on_its_own_block_only_and_lies_within_one():
    encoder = BlockEncoder(5, 4).eval()
    x = torch.rand(1, 3, 128, 128)
    before = encoder(x)
    assert before.shape == (1, 5, 2, 2)
    assert float(before.abs().max()) <= 1
    x[..., 64:, :64] = 1 - x[..., 64:, :64]
    changed = (encoder(x) != before).any(1)[0]
    assert changed.tolist() == [[False, False], [True, False]]


def test_batch_norm_is_that_of_pytorch_and_has_no_integers():
    torch.manual_seed(0)
    ours, theirs = BatchNorm(3), torch.nn.BatchNorm2d(3)
    x = 3.0 * torch.randn(4, 3, 5, 5) + 1.0
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    assert all(value.is_floating_point() for value in ours.state_dict().values())
