"""A decoder that is tuned gets better on its own files, and nothing but the decoder changes."""

import contextlib

import numpy as np
import pytest
import torch

from linocut.codec import rotation
from linocut.entropy.choice import choose_symbols
from linocut.entropy.coder import EntropyCoder
from linocut.entropy.planes import step_index
from linocut.lab.config.params import TuningConfig
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.fitting import decoder_tuning
from linocut.lab.fitting.decoder_tuning import tune_decoder
from linocut.lab.fitting.entropy_fit import fit_tables, no_contexts
from linocut.lab.networks.losses import l2
from linocut.lab.networks.torch_transforms import TorchTransforms
from linocut.lab.training.guards import DivergedError, ResumeState
from linocut.pictures.quality import psnr_db
from tiny import awake

STEP = 40.0
CROPS = np.stack([dead_leaves(64, 64, seed) for seed in range(6)])


def coder_of(network):
    return EntropyCoder(network.bands, fit_tables(network.bands, [], no_contexts(network.bands)))


def tuned(network, used, megapixels=0.6, seed=0, resume=None, rate=2e-3):
    tune_decoder(
        network,
        used,
        coder_of(network),
        CROPS,
        l2,
        TuningConfig(megapixels, 6, 2, rate),
        effort=2,
        step_range=(30.0, 50.0),
        seed=seed,
        resume=resume,
    )
    return network


def quality(network, used):
    """Mean PSNR in dB of the crops as the optimising encoder writes them."""
    coder, index = coder_of(network), step_index(STEP)
    found = []
    with torch.inference_mode():
        for crop in CROPS:
            x = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255
            latent = [band[0].numpy() for band in network.analysis(x)]
            own = used or rotation.fit(network.bands, [latent], centre=False)
            symbols, _ = choose_symbols(coder, own.transform(latent), index, 2)
            y_hat = own.inverse_transform(coder.dequantise(symbols, index))
            x_hat = TorchTransforms(network).synthesis(y_hat, coder.told_step(index))
            found.append(psnr_db(crop, x_hat))
    return float(np.mean(found))


@pytest.mark.parametrize("personal", [False, True])
def test_tuning_helps_on_optimised_symbols_and_leaves_the_encoder_alone(personal):
    network = awake("cae")
    used = None if personal else rotation.identity(network.bands)
    encoder = {n: p.detach().clone() for n, p in network.named_parameters() if "analysis" in n}
    before = quality(network, used)
    tuned(network, used)
    assert quality(network, used) > before + 0.05
    for name, parameter in network.named_parameters():
        if name in encoder:
            torch.testing.assert_close(parameter, encoder[name], rtol=0, atol=0)


def test_every_tensor_of_a_step_of_tuning_lies_on_the_device(monkeypatch):
    """A device without values: what mixes it with the host fails."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    network = awake("cae")
    coder, used = coder_of(network), rotation.identity(network.bands)
    seen = decoder_tuning._seen(network, used, coder, CROPS, 2, 2, (30.0, 50.0), 0)
    network.to("meta")
    loss, step = decoder_tuning._distortions(network, coder, seen, CROPS, l2)
    loss.sum().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert {tensor.device.type for tensor in (loss, step, *gradients)} == {"meta"}


def test_tuning_is_a_function_of_the_seed():
    first, second, other = (awake("cae") for _ in range(3))
    used = rotation.identity(first.bands)
    for network, seed in ((first, 0), (second, 0), (other, 1)):
        tuned(network, used, megapixels=0.1, seed=seed)
    weights = [list(network.parameters()) for network in (first, second, other)]
    assert all(map(torch.equal, weights[0], weights[1]))
    assert not all(map(torch.equal, weights[0], weights[2]))


class KilledAfterSaving(ResumeState):
    """Stops the training right after its second checkpoint."""

    saves = 0

    def save(self, state):
        super().save(state)
        self.saves += 1
        if self.saves == 2:
            raise KeyboardInterrupt


def test_a_killed_tuning_ends_with_the_weights_of_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.setattr(decoder_tuning, "CHECKPOINT_EVERY_S", 0.0)
    whole, killed = awake("cae"), awake("cae")
    used = rotation.identity(whole.bands)
    tuned(whole, used, megapixels=0.1)
    with pytest.raises(KeyboardInterrupt):
        tuned(killed, used, megapixels=0.1, resume=KilledAfterSaving(tmp_path / "state"))
    assert ResumeState(tmp_path / "state").load()["done"] == 2
    resumed = tuned(awake("cae"), used, megapixels=0.1, resume=ResumeState(tmp_path / "state"))
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


@pytest.mark.parametrize("rate", [1e3, 1e9])
def test_a_tuning_that_diverges_says_where(rate):
    network = awake("cae")
    with pytest.raises(DivergedError, match=r"iteration \d+ of 12 \((steps .*)?learning rate"):
        tuned(network, rotation.identity(network.bands), megapixels=0.1, rate=rate)
