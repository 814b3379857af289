"""What each network learns from: the paper's loss written out once more, and its gradient beside the model's own."""

import copy

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn.functional import logsigmoid, mse_loss, relu
from torch.testing import assert_close

from otgen.models import (
    AE,
    AEOT,
    AEOTGAN,
    BEGAN,
    GAN,
    GLANN,
    LSGAN,
    SNGAN,
    VAE,
    WAEGAN,
    WAEMMD,
    WGAN,
    WGANGP,
    WGANQC,
    WGANDiv,
)
from otgen.nn import critic

SHAPE, B, D = (1, 8, 8), 6, 3


def images(seed=5):
    return torch.rand(B, *SHAPE, generator=torch.Generator().manual_seed(seed))


def assert_gradient(network, value, wanted):
    """Hold the gradients that a step left in a network to those of `value` by the same weights of a copy."""
    found = torch.autograd.grad(value, list(wanted.parameters()))
    for (name, parameter), gradient in zip(network.named_parameters(), found, strict=True):
        assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def noise(model):
    return torch.randn(B, D, generator=model.rng)


# --- adversaries -----------------------------------------------------------------------------------------------------


def lengths(f, x, y, rng):
    """Lengths of the critic's gradient on the segments, one point on each."""
    share = torch.rand(B, generator=rng)[:, None, None, None]
    points = (share * x + (1 - share) * y).requires_grad_()
    (slopes,) = torch.autograd.grad(f(points).sum(), points, create_graph=True)
    return slopes.square().sum((1, 2, 3)).sqrt()


def copying(f, v):
    return (f(v) - v).abs().mean()


def told(f, x, y, rng):
    return -(logsigmoid(f(x)).mean() + logsigmoid(-f(y)).mean())


CRITICS = {
    GAN: told,
    LSGAN: lambda f, x, y, rng: ((f(x) - 1) ** 2).mean() / 2 + (f(y) ** 2).mean() / 2,
    WGAN: lambda f, x, y, rng: f(y).mean() - f(x).mean(),
    WGANGP: lambda f, x, y, rng: f(y).mean() - f(x).mean() + 5 * ((lengths(f, x, y, rng) - 1) ** 2).mean(),
    WGANDiv: lambda f, x, y, rng: f(y).mean() - f(x).mean() + 3 * (lengths(f, x, y, rng) ** 4).mean(),
    SNGAN: lambda f, x, y, rng: relu(1 - f(x)).mean() + relu(1 + f(y)).mean(),
    BEGAN: lambda f, x, y, rng: copying(f, x) - 0.4 * copying(f, y),
}
GENERATORS = {
    GAN: lambda f, y: -logsigmoid(f(y)).mean(),
    LSGAN: lambda f, y: ((f(y) - 1) ** 2).mean() / 2,
    BEGAN: copying,
}


SETTINGS = {WGAN: {"clip": 0.02}, WGANGP: {"penalty": 5.0}, WGANDiv: {"k": 3.0, "p": 4.0}}  # nobody's defaults


def adversary(cls, n_critic):
    """A model, and one as it was with the networks in its place."""
    model = cls(SHAPE, D, width=4, n_critic=n_critic, seed=2, **SETTINGS.get(cls, {}))
    if cls is BEGAN:
        model.k.fill_(0.4)
    elif cls is not SNGAN:
        with torch.no_grad():  # slopes of order 1, so that each part of the loss counts
            for parameter in model.critic.parameters():
                parameter.mul_(1.5)
    return model, copy.deepcopy(model)


@pytest.mark.parametrize("cls", CRITICS)
def test_the_critic_learns_from_its_papers_loss(cls):
    (model, other), x = adversary(cls, n_critic=2), images()
    y = other.generator(noise(other)).detach()
    model.step(x)
    assert_gradient(model.critic, CRITICS[cls](other.critic, x, y, other.rng), other.critic)
    assert all(parameter.grad is None for parameter in model.generator.parameters())


@pytest.mark.parametrize("cls", CRITICS)
def test_the_generator_learns_from_its_papers_loss(cls):
    """Through all of the critic, which here does not learn; what it draws and iterates before is drawn again."""
    (model, other), x = adversary(cls, n_critic=1), images()
    model.critic_optimiser.step = lambda: None
    model.step(x)
    CRITICS[cls](other.critic, x, other.generator(noise(other)).detach(), other.rng)
    if cls is WGAN:
        with torch.no_grad():
            for parameter in other.critic.parameters():
                parameter.clamp_(-0.02, 0.02)
    y = other.generator(noise(other))
    value = GENERATORS.get(cls, lambda f, y: -f(y).mean())(other.critic, y)
    assert_gradient(model.generator, value, other.generator)


DEFAULTS = {
    GAN: ({"lr": 2e-4, "betas": (0.5, 0.999)}, {}),
    LSGAN: ({"lr": 2e-4, "betas": (0.5, 0.999)}, {}),
    WGAN: ({"lr": 5e-5, "alpha": 0.99, "momentum": 0}, {"clip": 0.01}),
    WGANGP: ({"lr": 1e-4, "betas": (0.0, 0.9)}, {"penalty": 10}),
    WGANDiv: ({"lr": 2e-4, "betas": (0.5, 0.999)}, {"k": 2, "p": 6}),
    WGANQC: ({"lr": 1e-4, "betas": (0.5, 0.999)}, {"gamma": 0.1}),
    SNGAN: ({"lr": 2e-4, "betas": (0.0, 0.9)}, {}),
    BEGAN: ({"lr": 1e-4}, {"rate": 1e-3}),
    WAEGAN: ({"lr": 1e-3, "betas": (0.5, 0.999)}, {}),
    WAEMMD: ({"lr": 1e-3, "betas": (0.5, 0.999)}, {}),
}


@pytest.mark.parametrize("cls", DEFAULTS)
def test_defaults_are_the_papers(cls):
    model, (wanted, numbers) = cls(SHAPE, D, width=2), DEFAULTS[cls]
    for name in ("optimiser", "critic_optimiser", "generator_optimiser"):
        rate = {"lr": 5e-4} if cls is WAEGAN and name == "critic_optimiser" else {}
        for group in getattr(model, name).param_groups if hasattr(model, name) else []:
            assert {key: group[key] for key in wanted} == wanted | rate
            assert group["weight_decay"] == 0
    assert {name: getattr(model, name) for name in numbers} == numbers


# --- autoencoders ----------------------------------------------------------------------------------------------------


def both(model):
    return nn.ModuleList([model.encoder, model.decoder])


@pytest.mark.parametrize(("likelihood", "gamma"), [("gaussian", None), ("gaussian", 0.3), ("bernoulli", None)])
def test_the_vae_learns_from_the_elbo(likelihood, gamma):
    """Through the noise as well; the best variance is a function of the networks, too."""
    model, x = VAE(SHAPE, D, width=4, likelihood=likelihood, gamma=gamma, beta=2.0), images()
    other = copy.deepcopy(model)
    model.step(x)
    mean, log_var = other.encoder(x).chunk(2, dim=1)
    posterior = Normal(mean, (log_var / 2).exp())
    out = other.decoder(posterior.loc + posterior.scale * noise(other))
    variance = mse_loss(out.sigmoid(), x) if gamma is None else torch.tensor(gamma)
    density = Bernoulli(logits=out, validate_args=False) if likelihood == "bernoulli" else None
    density = Normal(out.sigmoid(), variance.sqrt()) if density is None else density
    elbo = density.log_prob(x).sum((1, 2, 3)) - 2 * kl_divergence(posterior, Normal(0.0, 1.0)).sum(1)
    assert_gradient(both(model), -elbo.mean(), both(other))


def discrepancy(z, q):
    """The lecture's estimate, pair by pair."""
    total = 0.0
    for a, b, sign in ((z, z, 1 / (B * (B - 1))), (q, q, 1 / (B * (B - 1))), (z, q, -2 / B**2)):
        for i in range(B):
            for j in range(B):
                if a is not b or i != j:
                    square = (a[i] - b[j]).square().sum()
                    total += sign * sum(2 * D * s / (2 * D * s + square) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10))
    return total


@pytest.mark.parametrize("cls", [AE, WAEMMD, WAEGAN])
def test_autoencoders_learn_from_the_error_and_their_penalty(cls):
    model, x = cls(SHAPE, D, width=4, **({} if cls is AE else {"penalty_weight": 7.0})), images()
    if cls is WAEGAN:
        model.critic_optimiser.step = lambda: None
    other = copy.deepcopy(model)
    model.step(x)
    codes = other.encoder(x)
    value = (other.decoder(codes).sigmoid() - x).square().sum((1, 2, 3)).mean()
    if cls is WAEMMD:
        value = value + 7 * discrepancy(noise(other), codes)
    elif cls is WAEGAN:
        value = value - 7 * logsigmoid(other.critic(codes)).mean()
    assert_gradient(both(model), value, both(other))


def test_cross_entropy_is_the_same_for_a_decoder_of_ones_own():
    """Ours makes logits, and one that ends in a sigmoid makes shares; both errors are summed over an image."""
    model, x = AE(SHAPE, D, width=4, loss="bce"), images()
    other = copy.deepcopy(model)
    own = AE(SHAPE, D, encoder=other.encoder, decoder=nn.Sequential(other.decoder, nn.Sigmoid()), loss="bce")
    assert own.step(x)["loss"] == pytest.approx(model.step(x)["loss"], rel=1e-5)
    wanted = torch.cat([parameter.grad.flatten() for parameter in both(model).parameters()])
    assert_close(torch.cat([p.grad.flatten() for p in both(own).parameters()]), wanted, rtol=1e-3, atol=1e-6)


def test_the_adversary_of_codes_learns_from_its_loss_alone():
    model, x, seen = WAEGAN(SHAPE, D, width=4, penalty_weight=7.0), images(), []
    other = copy.deepcopy(model)
    adam = model.critic_optimiser
    adam.register_step_pre_hook(lambda *_: seen.extend(p.grad.clone() for p in model.critic.parameters()))
    model.step(x)
    z, codes = noise(other), other.encoder(x).detach()
    value = 7 * told(other.critic, z, codes, None)
    for gradient, wanted in zip(seen, torch.autograd.grad(value, list(other.critic.parameters())), strict=True):
        assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)


# --- what stands on codes --------------------------------------------------------------------------------------------


def test_aeotgan_learns_from_its_three_losses():
    x = images()
    aeot = AEOT(SHAPE, D, width=4, tol=5.0).fit(torch.cat([x, images(6)]), steps=1, batch_size=B, progress=False)
    # spectral normalisation would change the scores whenever they are asked for
    model = AEOTGAN(SHAPE, aeot=aeot, critic=critic(SHAPE, 4), content=3.0, feature=2.0, head_start=0)
    model.critic_optimiser.step = lambda: None
    other = copy.deepcopy(model)
    model.step(x)
    z = other.aeot.prior.sample(B, other.rng)
    again, f = other.generator(other.aeot.encode(x)), other.critic
    value = -logsigmoid(f(other.generator(z))).mean() + 3 * mse_loss(again, x)
    value = value + 2 * mse_loss(f.trunk(again), f.trunk(x))
    assert_gradient(model.generator, value, other.generator)


def test_codes_of_glann_learn_from_their_own_sample_alone():
    model, x = GLANN((2,), D, width=2), torch.randn(B, 2, generator=torch.Generator().manual_seed(0))
    model._allocate(B)
    model.step_rows(x[:3], torch.arange(3))
    codes = model.codes.detach().clone().requires_grad_()
    other = copy.deepcopy(model.generator)
    model.step_rows(x[3:], torch.arange(3, B))
    error = (other(codes[3:] / codes[3:].norm(dim=1, keepdim=True)) - x[3:]).square().sum(1).mean()
    (wanted,) = torch.autograd.grad(error, codes)
    assert_close(model.codes.grad, wanted)
