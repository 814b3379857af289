import math

import pytest
import torch
from torch.testing import assert_close

from otgen.data import eight_gaussians
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


def test_the_posterior_is_that_of_the_step():
    """Means are the codes, and the divergence from the prior is the step's, whatever the batches."""
    vae, x = VAE((2,), d=3, width=4), torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    mean, log_var = vae.posterior(x, batch_size=7)
    assert_close(mean, vae.encode(x))
    kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1).mean()
    assert_close(vae.step(x)["kl"], kl.item())
    with pytest.raises(ValueError, match=r"VAE.posterior: vectors must have shape \(n, 2\), got \(4, 3\)"):
        vae.posterior(torch.zeros(4, 3))


@pytest.mark.parametrize("bound", [10.0, -10.0])
def test_log_variances_stay_in_their_box(bound):
    vae = VAE(SHAPE, 3, width=4)
    with torch.no_grad():
        vae.encoder[-1].bias[3:] = 100 * bound
    values = vae.step(images())
    assert all(math.isfinite(value) for value in values.values())
    assert_close(vae._posterior(images())[1], torch.full((16, 3), bound))


def test_a_larger_beta_draws_codes_to_the_prior():
    x, kl = images(), {}
    for beta in (0.01, 100.0):
        vae = VAE(SHAPE, 3, width=4, beta=beta, lr=1e-2)
        for _ in range(60):
            kl[beta] = vae.step(x)["kl"]
    assert 0 <= kl[100.0] < 0.1 < kl[0.01]


def test_the_divergence_comes_in_slowly():
    vae, x = VAE((2,), 2, width=2, beta=2.0, warmup=4), torch.randn(16, 2)
    weights = [(v["loss"] - v["reconstruction"]) / v["kl"] for v in (vae.step(x) for _ in range(6))]
    assert weights == pytest.approx([0, 0.5, 1, 1.5, 2, 2], abs=1e-3)
    assert (VAE((2,), width=2).warmup, VAE(SHAPE, width=2).warmup, VAE(SHAPE, width=2, warmup=3).warmup) == (500, 0, 3)


def test_codes_in_the_plane_live():
    """Without the warm-up all codes are the prior's, and all samples the mean."""
    x = eight_gaussians(1000)
    for warmup, lives in ((100, True), (0, False)):
        vae = VAE((2,), 2, width=8, lr=3e-3, warmup=warmup).fit(x, steps=300, batch_size=64, progress=False)
        assert (vae.history_["kl"][-20:].mean() > 1) == lives
        assert ((vae.sample(500, 0).std(0) > 0.5 * x.std(0)).all()) == lives


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"likelihood": "poisson"}, "VAE: likelihood must be one of gaussian, bernoulli, got 'poisson'"),
        ({"beta": 0.0}, "VAE: beta must be a positive number, got 0.0"),
        ({"warmup": -1}, "VAE: warmup must be a whole number >= 0, got -1"),
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


def test_mixed_precision_does_not_round_the_divergence():
    model = VAE((2,), 2)
    with torch.no_grad():
        model.encoder[-1].weight.mul_(3)
        model.encoder[-1].bias.zero_()
    x = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        mean, log_var = model._posterior(x)
        value = float(losses.kl(mean, log_var))
    exact = float(losses.kl(*(v.detach().double() for v in model._posterior(x))))
    assert 0 < value == pytest.approx(exact, rel=0.05)
