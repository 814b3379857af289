"""Losses of critics and generators as pure functions of their scores.

A score is what the critic's last layer gives, before any sigmoid: a probability's logit for GAN, any real number for
the others. Critics see real samples high and generated ones low in every loss here. Scores may have any shape; losses
are means over all their numbers.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

# --- GAN: Goodfellow et al. 2014 -------------------------------------------------------------------------------------


def gan_critic(real: Tensor, fake: Tensor) -> Tensor:
    """Cross-entropy of telling real from generated: `E softplus(-real) + E softplus(fake)`.

    That is minus equation 1 of Goodfellow et al. 2014, with D the sigmoid of the score. A critic that knows nothing
    (scores 0) has log 4; the best critic has log 4 - 2 JS(data, generated).

    Args:
        real: Scores of real samples.
        fake: Scores of generated samples.

    Returns:
        Scalar, like the scores, at least 0.
    """
    return softplus(-real).mean() + softplus(fake).mean()


def minimax_generator(fake: Tensor) -> Tensor:
    """Generator's part of equation 1 of Goodfellow et al. 2014, `E log(1 - D)` = `-E softplus(fake)`.

    Its gradient vanishes where the critic is sure that a sample is generated: `-sigmoid(fake)`.
    """
    return -softplus(fake).mean()


def nonsaturating_generator(fake: Tensor) -> Tensor:
    """The other generator loss of Goodfellow et al. 2014 (section 3), `-E log D` = `E softplus(-fake)`.

    Its gradient is strongest where the critic is sure: `-sigmoid(-fake)`.
    """
    return softplus(-fake).mean()


# --- least squares: Mao et al. 2017 ----------------------------------------------------------------------------------


def least_squares_critic(real: Tensor, fake: Tensor) -> Tensor:
    """Equation 9 of Mao et al. 2017, labels 1 and 0: `½ E (real - 1)² + ½ E fake²`; a score of ½ everywhere has ¼."""
    return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()


def least_squares_generator(fake: Tensor) -> Tensor:
    """Equation 9 of Mao et al. 2017, the generator's part: `½ E (fake - 1)²`."""
    return 0.5 * (fake - 1).square().mean()


# --- Wasserstein: Arjovsky et al. 2017 -------------------------------------------------------------------------------


def wasserstein_critic(real: Tensor, fake: Tensor) -> Tensor:
    """`E fake - E real`: minus what line 5 of Algorithm 1 of Arjovsky et al. 2017 ascends."""
    return fake.mean() - real.mean()


def wasserstein_generator(fake: Tensor) -> Tensor:
    """`-E fake`: what lines 10 and 11 of Algorithm 1 of Arjovsky et al. 2017 descend."""
    return -fake.mean()


# --- hinge: Miyato et al. 2018 ---------------------------------------------------------------------------------------


def hinge_critic(real: Tensor, fake: Tensor) -> Tensor:
    """Equation 16 of Miyato et al. 2018: `E relu(1 - real) + E relu(1 + fake)`; scores of 0 have 2.

    The generator's part is `wasserstein_generator`.
    """
    return relu(1 - real).mean() + relu(1 + fake).mean()


# --- penalties on the critic's gradient ------------------------------------------------------------------------------


def gradient_norms(critic: nn.Module | Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Length of the gradient of the score by the sample, at each sample.

    Args:
        critic: Scores samples one by one: no batch normalisation, which would mix their gradients.
        x: Samples, (b, ...), floating.

    Returns:
        `|∇f(x_i)|`, (b,), like `x`, over all numbers of a sample; it can be differentiated by the critic's parameters,
        with gradient 0 where the length is 0.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return norms


def between(real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Points on the segments from generated to real samples.

    Args:
        real: Real samples, (b, ...).
        fake: Generated samples, like `real`.
        share: How much of the real sample there is, in [0, 1], (b,): one number per sample, not per pixel.

    Returns:
        `share real + (1 - share) fake`, like `real`.
    """
    if real.shape != fake.shape:
        raise ValueError(f"between: both must have one shape, got {tuple(real.shape)} and {tuple(fake.shape)}")
    return fake + share.view(-1, *[1] * (real.ndim - 1)) * (real - fake)


def unit_penalty(norms: Tensor) -> Tensor:
    """Equation 3 of Gulrajani et al. 2017 (WGAN-GP) without its weight: `E (|∇f| - 1)²`."""
    return (norms - 1).square().mean()


def power_penalty(norms: Tensor, p: float) -> Tensor:
    """Penalty of Wu et al. 2018 (WGAN-div, Algorithm 1) without its weight: `E |∇f|^p`."""
    return norms.pow(p).mean()


# --- quadratic transport: Liu et al. 2019 ----------------------------------------------------------------------------


def dual_regression(real: Tensor, fake: Tensor, target_real: Tensor, target_fake: Tensor) -> Tensor:
    """Hold the critic to the dual of a batch's transport problem (Liu et al. 2019, WGAN-QC).

    Args:
        real: Scores of the real samples, b numbers.
        fake: Scores of the generated samples, b numbers.
        target_real: Dual of the real samples, (b,); only its mean counts, since one real sample serves many generated.
        target_fake: Dual of the generated samples, (b,), matched one by one.

    Returns:
        `½ (E real - E target_real)² + ½ E (fake - target_fake)²`.
    """
    fake = fake.reshape(target_fake.shape)  # (b, 1) against (b,) would broadcast to (b, b)
    return 0.5 * (real.mean() - target_real.mean()).square() + 0.5 * (fake - target_fake).square().mean()


def transport_penalty(norms: Tensor, distance: Tensor, scale: float) -> Tensor:
    """Optimal transport regularisation of Liu et al. 2019 (WGAN-QC).

    For the cost `scale ½|x - y|²` the dual's gradient at y has length `scale |x - y|`, x being y's partner; both terms
    are that length divided by `2 √scale`.

    Args:
        norms: `|∇f(y_j)|` at the generated samples, (b,).
        distance: From each generated sample to its partner, (b,).
        scale: The cost's factor.

    Returns:
        `½ E (|∇f| / (2 √scale) - ½ √scale |x - y|)²`.
    """
    root = math.sqrt(scale)
    return 0.5 * (norms / (2 * root) - 0.5 * root * distance).square().mean()


# --- balance: Berthelot et al. 2017 ----------------------------------------------------------------------------------


def balance(k: Tensor, real: Tensor, fake: Tensor, gamma: float, rate: float) -> Tensor:
    """Move BEGAN's control k so that `fake` approaches `gamma real` (Berthelot et al. 2017, section 3.4).

    Args:
        k: The control, scalar.
        real: Reconstruction loss of real samples, scalar.
        fake: Reconstruction loss of generated samples, scalar.
        gamma: Wanted ratio of the two.
        rate: Step size.

    Returns:
        `k + rate (gamma real - fake)`, cut to [0, 1], without gradient.
    """
    return (k + rate * (gamma * real - fake)).detach().clamp(0, 1)


def imbalance(real: Tensor, fake: Tensor, gamma: float) -> Tensor:
    """BEGAN's measure of convergence `real + |gamma real - fake|` (Berthelot et al. 2017, section 3.4.1)."""
    return real + (gamma * real - fake).abs()
