"""Fréchet distance between features (FID): squared 2-Wasserstein distance between Gaussians of the same moments."""

import torch
from torch import Tensor

from otgen.metrics.score import GROUPS, Score, Values, features, jackknife

LARGEST = 1e70
"""The product of two covariances has the fourth power of what is larger, and the matrix holds sums of it."""


def fid(x: Values, y: Values, *, groups: int = GROUPS, seed: int = 0) -> Score:
    """Compute the Fréchet distance of two sets of features.

    `|m_x - m_y|^2 + Tr S_x + Tr S_y - 2 Tr (S_x S_y)^(1/2)` (Dowson and Landau 1982; Heusel et al. 2017). It is biased
    upwards by about a constant over n, and covariances of fewer samples than dimensions do not have full rank: compare
    scores of equal n alone, or take `value - bias`, which extrapolates to n = infinity to first order where n > d.

    Args:
        x: Features, (n, d), floating, n at least `groups` and 4.
        y: Features, (m, d), floating, m likewise.
        groups: Of the jackknife; each costs two more eigenvalue problems of size d.
        seed: Deals the samples out to the groups.

    Returns:
        The distance, in squared units of the features.

    Raises:
        ValueError: A shape or value does not fit.
        TypeError: Not tensors or arrays of floating point.
    """
    least = max(groups, 4)  # half of a set still has a covariance
    x = features("fid", "x", x, least=least, most=LARGEST)
    y = features("fid", "y", y, like=x, least=least, most=LARGEST)
    return jackknife(lambda a, b: frechet(*moments(a), *moments(b)), x, y, groups=groups, seed=seed)[0]


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and unbiased covariance (d, d) of features (n, d)."""
    mean = x.mean(0)
    return mean, (x - mean).T @ (x - mean) / (len(x) - 1)


def frechet(m1: Tensor, s1: Tensor, m2: Tensor, s2: Tensor) -> Tensor:
    """Fréchet distance between N(m1, s1) and N(m2, s2).

    With A = s1^(1/2) the matrix A s2 A is symmetric and has the eigenvalues of s1 s2, so the trace of the root needs
    no root of an unsymmetric matrix, where general routines lose digits or return complex numbers.

    Args:
        m1: Mean, (d,), float64.
        s1: Covariance, (d, d), float64.
        m2: Mean, (d,), float64.
        s2: Covariance, (d, d), float64.

    Returns:
        Scalar, float64, not negative.
    """
    values, vectors = torch.linalg.eigh(s1)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ s2 @ root).clamp_min(0).sqrt().sum()
    distance: Tensor = (m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * cross
    return distance.clamp_min(0)  # of equal sets rounding leaves a little on either side of zero
