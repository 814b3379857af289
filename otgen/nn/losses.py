"""Losses as pure functions of tensors.

Every reconstruction loss is summed over the numbers of a sample and averaged over the batch. The sum is what the
likelihoods say, and it keeps the weight of any further term the same for every image size.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits, interpolate

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # widths of MMD's kernels, those of the WAE authors' code
LEAST_VARIANCE = 1e-6  # below what eight bits can tell apart, (1/255)^2 / 12; among vectors, a deviation of 0.001


def mse(x_hat: Tensor, x: Tensor) -> Tensor:
    """Squared error, summed over each sample, averaged over the batch.

    Args:
        x_hat: Reconstructions, (b, ...), floating.
        x: What they should be, like `x_hat`.

    Returns:
        Scalar, like `x_hat`: `mean_b sum (x_hat_b - x_b)^2`.
    """
    _check("mse", x_hat, x)
    return (x_hat - x).square().flatten(1).sum(dim=1).mean()


def bce(logits: Tensor, x: Tensor) -> Tensor:
    """Binary cross-entropy from logits, summed over each sample, averaged over the batch.

    Its least value is the entropy of `x`, which is 0 only where every number is 0 or 1.

    Args:
        logits: Reconstructions before the sigmoid, (b, ...), floating.
        x: What they should be, like `logits`, in [0, 1].

    Returns:
        Scalar, like `logits`: `mean_b sum -x log s - (1 - x) log(1 - s)` with `s = sigmoid(logits)`.
    """
    _check("bce", logits, x)
    return binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(dim=1).mean()


def gaussian(x_hat: Tensor, x: Tensor, gamma: float | None = None) -> Tensor:
    """Minus the log-density of `x` under N(x_hat, gamma I), summed over each sample, averaged over the batch.

    Args:
        x_hat: Means, (b, ...), floating.
        x: Samples, like `x_hat`.
        gamma: Variance of one number; `None` for the likeliest one for this batch, which is the mean squared error
            (Rybkin et al. 2021, "Simple and Effective VAE Training with Calibrated Decoders", equation 6), but at least
            1e-6.

    Returns:
        Scalar, like `x_hat`: `mean_b |x_b - x_hat_b|^2 / (2 gamma) + D/2 log(2 pi gamma)`, D numbers in a sample.
    """
    error, numbers = mse(x_hat, x), x[0].numel()
    # a batch that is met exactly would have density without bound
    variance = (error.detach() / numbers).clamp_min(LEAST_VARIANCE) if gamma is None else x.new_tensor(gamma)
    return error / (2 * variance) + 0.5 * numbers * (2 * math.pi * variance).log()


def kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL divergence of N(mean, exp(log_var)) from N(0, I), averaged over the batch (Kingma and Welling 2014, eq. 10).

    Args:
        mean: Means, (b, d), floating.
        log_var: Logarithms of the variances, like `mean`.

    Returns:
        Scalar: `mean_b 1/2 sum (mean^2 + exp(log_var) - log_var - 1)`, at least 0.
    """
    _check("kl", mean, log_var)
    return 0.5 * (mean.square() + log_var.exp() - log_var - 1).sum(dim=1).mean()


def mmd(z: Tensor, q: Tensor) -> Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy between two samples; it may be negative.

    The estimate and the kernel are those of Tolstikhin et al. 2018 (WAE), Algorithm 2 and section 4: inverse
    multiquadrics `k(a, b) = sum_s C_s / (C_s + |a - b|^2)` with C_s = 2 d s, which is s times the mean of |a - b|^2
    under the prior N(0, I), for s in SCALES.

    Args:
        z: Sample of the prior, (n, d), n at least 2.
        q: Codes, like `z`.

    Returns:
        Scalar: `sum_{l != j} [k(z_l, z_j) + k(q_l, q_j)] / (n (n - 1)) - 2 sum_{l, j} k(z_l, q_j) / n^2`.
    """
    _check("mmd", z, q)
    n, d = z.shape
    if n < 2:
        raise ValueError(f"mmd: there must be at least 2 samples, got {n}")
    within = _off_diagonal(_multiquadric(z, z, d)) + _off_diagonal(_multiquadric(q, q, d))
    return within / (n * (n - 1)) - 2 * _multiquadric(z, q, d).mean()


def laplacian(x_hat: Tensor, x: Tensor) -> Tensor:
    """Distance of Laplacian pyramids, summed over each image, averaged over the batch.

    Bojanowski et al. 2018 (GLO), section 3: `sum_j 2^(2j) |L_j(x_hat) - L_j(x)|_1`, where L_j is what the j-th halving
    of the image loses, and the last one what is left. It weighs edges of all sizes alike, where the squared error sees
    the largest alone. The image is halved until a side is below 4.

    Args:
        x_hat: Images, (b, c, h, w), floating.
        x: What they should be, like `x_hat`.

    Returns:
        Scalar, like `x_hat`.
    """
    _check("laplacian", x_hat, x)
    rest, total, weight = x_hat - x, x.new_zeros(()), 1.0  # the pyramid is linear: that of the difference will do
    while min(rest.shape[2:]) >= 4:
        below = avg_pool2d(rest, 2, ceil_mode=True)
        edges = rest - interpolate(below, rest.shape[2:], mode="bilinear", align_corners=False)
        total = total + weight * edges.abs().flatten(1).sum(dim=1).mean()
        rest, weight = below, 4 * weight
    return total + weight * rest.abs().flatten(1).sum(dim=1).mean()


def _multiquadric(a: Tensor, b: Tensor, d: int) -> Tensor:
    """Kernel matrix (n, n)."""
    square = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()
    return torch.stack([2 * d * s / (2 * d * s + square) for s in SCALES]).sum(dim=0)


def _off_diagonal(kernel: Tensor) -> Tensor:
    return kernel.sum() - kernel.diagonal().sum()


def _check(name: str, x_hat: Tensor, x: Tensor) -> None:
    # unequal shapes would broadcast, and train towards something else without a word
    if x_hat.shape != x.shape or x.ndim < 2:
        raise ValueError(f"{name}: both must have one shape (b, ...), got {tuple(x_hat.shape)} and {tuple(x.shape)}")
