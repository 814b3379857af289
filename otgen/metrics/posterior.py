"""Aggregate posterior of a variational autoencoder: does q(z) match the prior?

Mean KL(q(z|x)|p) = mutual information of x and z + KL(q(z)|p) (Hoffman and Johnson 2016, "ELBO surgery"). Only the
last is what the prior is for: noise from p is decoded well if q(z) agrees with p.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from otgen.metrics.score import Score, Values, average, features, on_cpu
from otgen.ops import check
from otgen.seeds import stream

SATURATED = 0.9
"""Part of log N from which the mutual information says little but that N codes can be told apart."""

LARGEST = 300.0
"""Bound for |logvar|: squares of the variances are still finite, and no encoder means more."""

ENTRIES = 1 << 18
"""Log densities worked out at a time: what fits into a core's cache."""


@dataclass(frozen=True)
class Posterior:
    """The parts of a variational autoencoder's regulariser, in nats.

    Attributes:
        elbo: Evidence lower bound; `None` without the likelihoods.
        mean_kl: Mean of KL(q(z|x)|p).
        mutual_information: Between the N given x and z, from 0 to log N.
        marginal_kl: KL(q(z)|p) for q(z) the mean of the N posteriors. N of them leave holes, so it is not 0 even where
            the codes of all data follow the prior, and grows with dimension and mutual information: of 1797 in ten
            dimensions, with variances of 0.3, it is 0.5. Means drawn from N(0, 1 - variance) show that floor.
        saturated: Whether the mutual information is close to log N. Then it says that the posteriors do not overlap and
            nothing more, and `marginal_kl` is `mean_kl - log N` whatever the model.
    """

    elbo: Score | None
    mean_kl: Score
    mutual_information: Score
    marginal_kl: Score
    saturated: bool


def aggregate_posterior(
    mu: Values, logvar: Values, log_likelihood: Values | None = None, *, draws: int = 1, seed: int = 0
) -> Posterior:
    """Split the mean KL of normal posteriors to the prior N(0, I) into mutual information and marginal KL.

    log q(z) is computed over all N codes, that of z's own x included; over a batch alone it would be biased. Undefined
    for deterministic encoders, where every term is infinite.

    Args:
        mu: Means of q(z|x_i), (N, d), floating.
        logvar: Logarithms of the variances, (N, d), like `mu`, from -300 to 300.
        log_likelihood: log p(x_i|z_i) for one z_i ~ q(z|x_i), (N,), in nats and with all its constants; `None` leaves
            the ELBO out.
        draws: Codes drawn from each posterior.
        seed: Of those draws.

    Returns:
        The parts. Their spread treats the terms of the mean over x as independent.

    Raises:
        ValueError: A shape or value does not fit.
        TypeError: Not tensors or arrays of floating point.
    """
    mu = features("aggregate_posterior", "mu", mu)
    logvar = features("aggregate_posterior", "logvar", logvar, like=mu)
    n, d = mu.shape
    check.integer("aggregate_posterior", "draws", draws, 1)
    if logvar.shape != mu.shape:
        raise ValueError(f"aggregate_posterior: logvar must have shape {tuple(mu.shape)}, got {tuple(logvar.shape)}")
    if float(logvar.abs().max()) > LARGEST:
        low, high = (float(end) for end in logvar.aminmax())
        raise ValueError(
            f"aggregate_posterior: logvar must lie in [{-LARGEST:g}, {LARGEST:g}], got {low:g} to {high:g}"
        )
    kl = 0.5 * (mu.square() + logvar.exp() - logvar - 1).sum(1)
    generator = torch.Generator().manual_seed(stream(seed, "posterior"))  # not the noise that made the codes
    information = torch.zeros(n, dtype=torch.float64, device="cpu")
    for _ in range(draws):
        noise = torch.randn(n, d, generator=generator, dtype=torch.float64, device="cpu")
        own = -0.5 * (noise.square() + logvar + math.log(2 * math.pi)).sum(1)  # log q(z_i|x_i)
        information += (own - log_marginal(mu, (0.5 * logvar).exp() * noise, mu, logvar)) / draws
    elbo = None
    if log_likelihood is not None:
        likelihood = check.tensor("aggregate_posterior", "log_likelihood", on_cpu(log_likelihood), (n,)).double()
        elbo = average(likelihood - kl)
    # the same draws serve both, so the parts add up to the whole exactly
    marginal = Score(float(kl.mean() - information.mean()), average(kl - information).spread, n)
    mutual = Score(float(information.mean()), average(information).spread, n)
    return Posterior(elbo, average(kl), mutual, marginal, mutual.value > SATURATED * math.log(n))


def log_marginal(z: Tensor, offset: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """Logarithm of the mean of N normal densities at each z + offset.

    Worked out from differences: where variances are small the terms of an expanded square would leave no digit, and
    neither would a sum z + offset.

    Args:
        z: Codes, (n, d), float64.
        offset: What is to be added to them, (n, d), float64.
        mu: Means, (N, d), float64.
        logvar: Logarithms of the variances, (N, d), float64.

    Returns:
        log q(z + offset), (n,), float64.
    """
    inverse = (-0.5 * logvar).exp()
    constants = -0.5 * (logvar + math.log(2 * math.pi)).sum(1)
    rows = max(1, ENTRIES // len(mu))
    parts = []
    for some, more in zip(z.split(rows), offset.split(rows), strict=True):
        square = z.new_zeros(len(some), len(mu))
        for k in range(z.shape[1]):
            difference = (some[:, k, None] - mu[:, k]).add_(more[:, k, None]).mul_(inverse[:, k])
            square.addcmul_(difference, difference)
        parts.append((constants - 0.5 * square).logsumexp(1))
    return torch.cat(parts) - math.log(len(mu))
