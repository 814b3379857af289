import math

import pytest
import torch
from torch.testing import assert_close

from otgen.models import VAE
from otgen.nn import losses

SHAPE = (1, 8, 8)


def images(n=16):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("likelihood", "gamma"), [("gaussian", None), ("gaussian", 0.3), ("bernoulli", None)])
def test_the_loss_is_minus_the_elbo(likelihood, gamma):
    vae, x = VAE(SHAPE, 3, width=4, likelihood=likelihood, gamma=gamma, beta=2.0, seed=1), images()
    noise = torch.randn(16, 3, generator=torch.Generator().set_state(vae.rng.get_state()))
    with torch.no_grad():
        mean, log_var = vae.encoder(x).chunk(2, dim=1)
        z = mean + (log_var / 2).exp() * noise
        logits = vae.decoder(z)
    if likelihood == "bernoulli":
        wanted = losses.bce(logits, x)
    else:
        variance = gamma if gamma is not None else (logits.sigmoid() - x).square().mean().item()
        normal = torch.distributions.Normal(logits.sigmoid(), math.sqrt(variance))
        wanted = -normal.log_prob(x).flatten(1).sum(1).mean()
    values = vae.step(x)
    assert values["reconstruction"] == pytest.approx(wanted.item(), rel=1e-5)
    assert values["kl"] == pytest.approx(losses.kl(mean, log_var).item(), rel=1e-5)
    assert values["loss"] == pytest.approx(values["reconstruction"] + 2 * values["kl"], rel=1e-6)


def test_encode_gives_the_mean_and_samples_are_decoded_noise():
    vae, x = VAE(SHAPE, 3, width=4), images()
    assert_close(vae.encode(x), vae.encoder(x)[:, :3].detach())
    assert_close(vae.encode(x), vae.encode(x), rtol=0, atol=0)
    generator = torch.Generator().manual_seed(3)
    wanted = vae.decode(torch.randn(5, 3, generator=torch.Generator().manual_seed(3)))
    assert_close(vae.sample(5, generator), wanted)


def test_log_variances_stay_in_their_box():
    vae = VAE(SHAPE, 3, width=4)
    with torch.no_grad():
        vae.encoder[-1].bias[3:] = 1000.0
    values = vae.step(images())
    assert all(math.isfinite(value) for value in values.values())
    assert_close(vae._posterior(images())[1], torch.full((16, 3), 10.0))


def test_a_larger_beta_draws_codes_to_the_prior():
    x, kl = images(), {}
    for beta in (0.01, 100.0):
        vae = VAE(SHAPE, 3, width=4, beta=beta, lr=1e-2)
        for _ in range(60):
            kl[beta] = vae.step(x)["kl"]
    assert 0 <= kl[100.0] < 0.1 < kl[0.01]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"likelihood": "poisson"}, "VAE: likelihood must be one of gaussian, bernoulli, got 'poisson'"),
        ({"beta": 0.0}, "VAE: beta must be a positive number, got 0.0"),
        ({"gamma": -1.0}, "VAE: gamma must be a positive number, got -1.0"),
        ({"likelihood": "bernoulli", "gamma": 1.0}, 'VAE: gamma is the variance of likelihood="gaussian"'),
        (
            {"likelihood": "bernoulli", "shape": (2,)},
            r'VAE: likelihood="bernoulli" is for images in \[0, 1\]',
        ),
    ],
)
def test_bad_arguments(arguments, wanted):
    with pytest.raises(ValueError, match=wanted):
        VAE(**({"shape": SHAPE} | arguments))
