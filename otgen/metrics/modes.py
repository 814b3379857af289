"""Modes that are known: how many were found, how many samples hit one, and how evenly (PacGAN's three numbers)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from otgen.metrics.extractors import as_images
from otgen.metrics.neighbours import nearest
from otgen.metrics.score import Score, Values, average, features
from otgen.ops import check

WITHIN = 3.0
"""Standard deviations within which a sample counts as of high quality (Srivastava et al. 2017; Lin et al. 2018)."""


@dataclass(frozen=True)
class Modes:
    """What became of known modes.

    Attributes:
        found: Modes with enough samples of high quality.
        modes: How many there are.
        high_quality: Share of the samples of high quality; `None` where a classifier says the mode. Of a true normal
            mode of the plane 1 - exp(-9/2) = 0.989 lie within three deviations, so 1 is too much.
        reverse_kl: KL(p|uniform) = log(modes) - entropy(p), with p the shares of the samples nearest to each mode. Even
            samples score `bias` = (modes - 1)/(2n), not 0.
        counts: Samples nearest to each mode, (modes,), int64.
    """

    found: int
    modes: int
    high_quality: Score | None
    reverse_kl: Score
    counts: Tensor


def modes(x: Values, centres: Values, std: float, *, within: float = WITHIN, least: int = 1) -> Modes:
    """Count the modes of a mixture of equal round Gaussians that samples reach.

    Args:
        x: Samples, (n, d), floating; the literature takes n = 2500.
        centres: Of the modes, (modes, d), like `x`.
        std: Standard deviation of a mode in each coordinate.
        within: Deviations from the nearest centre up to which a sample is of high quality.
        least: Samples of high quality that make a mode found.

    Returns:
        The counts and scores.

    Raises:
        ValueError: A shape or value does not fit.
        TypeError: Not tensors or arrays of floating point.
    """
    x = features("modes", "x", x)
    centres = features("modes", "centres", centres, like=x, least=1)
    radius = check.positive("modes", "within", within) * check.positive("modes", "std", std)
    check.integer("modes", "least", least, 1)
    near, distance = nearest(x, centres)
    good = distance[:, 0] <= radius
    counts = torch.bincount(near[:, 0], minlength=len(centres))
    found = torch.bincount(near[good, 0], minlength=len(centres)) >= least
    return Modes(int(found.sum()), len(centres), average(good.double()), reverse_kl(counts), counts)


def stacked_modes(images: Tensor, classify: Callable[[Tensor], Tensor], *, classes: int = 10, least: int = 1) -> Modes:
    """Count the modes of stacked digits: a digit in each of three channels, so classes^3 modes.

    Args:
        images: (n, 3, h, w), floating; the literature takes n = 26 000.
        classify: Images (n, 1, h, w) to classes (n,), int64, such as `LeNet.classify`. Its mistakes count as modes.
        classes: How many it tells apart.
        least: Samples that make a mode found.

    Returns:
        The counts and scores, `high_quality` left out.

    Raises:
        ValueError: A shape or class does not fit.
        TypeError: Not a tensor of floating point, or classes that are no integers.
    """
    as_images("stacked_modes", images)
    if images.shape[1] != 3 or len(images) < 2:
        raise ValueError(f"stacked_modes: images must have shape (n, 3, h, w) with n >= 2, got {tuple(images.shape)}")
    digits = torch.stack([classify(images[:, i : i + 1]).cpu() for i in range(3)], dim=1)
    if digits.dtype.is_floating_point:
        raise TypeError(f"stacked_modes: classify must return whole numbers, got {digits.dtype}")
    if not 0 <= int(digits.min()) <= int(digits.max()) < classes:
        came = f"{int(digits.min())} to {int(digits.max())}"
        raise ValueError(f"stacked_modes: classify must return classes from 0 to {classes - 1}, got {came}")
    mode = (digits * torch.tensor([classes**2, classes, 1], device="cpu")).sum(1)
    counts = torch.bincount(mode, minlength=classes**3)
    return Modes(int((counts >= least).sum()), classes**3, None, reverse_kl(counts), counts)


def reverse_kl(counts: Tensor) -> Score:
    """Divergence KL(p|uniform) of the shares p of counts (modes,) from even ones.

    The spread is that of a multinomial to second order, as the first vanishes at even counts; the bias is Miller's
    (1955), (modes - 1)/(2n), and reaches a constant where many modes have no sample.

    Raises:
        ValueError: There is no sample.
        TypeError: Not a tensor.
    """
    if not isinstance(counts, Tensor):
        raise TypeError(f"reverse_kl: counts must be a torch.Tensor, got {type(counts).__name__}")
    if counts.dim() != 1 or not len(counts) or int(counts.min()) < 0 or int(counts.sum()) < 1:
        raise ValueError(f"reverse_kl: counts (modes,) must hold one sample at least, got {counts.tolist()}")
    n, k = int(counts.sum()), len(counts)
    p = counts[counts > 0].double() / n
    entropy = -float((p * p.log()).sum())
    first = float((p * p.log().square()).sum()) - entropy**2 - (k - 1) / n  # noise in p makes even counts look uneven
    spread = math.sqrt(max(first, 0.0) / n + (k - 1) / (2 * n**2))
    return Score(math.log(k) - entropy, spread, n, (k - 1) / (2 * n))


def ring(k: int = 8, radius: float = 1.0) -> Tensor:
    """Centres (k, 2), float64, on a circle from angle 0 on; PacGAN's 2D-ring has k = 8, radius 1 and std 0.01.

    `data.eight_gaussians` has k = 8, radius 2**0.5 and std 0.02 / 2**0.5.
    """
    angle = torch.arange(k, dtype=torch.float64, device="cpu") * (2 * math.pi / k)
    return radius * torch.stack([angle.cos(), angle.sin()], dim=1)


def grid(side: int = 5, step: float = 2.0) -> Tensor:
    """Centres (side^2, 2), float64, around the origin; PacGAN's 2D-grid has side 5, step 2 and std 0.05.

    `data.twenty_five_gaussians` has side 5, step 0.5**0.5 and std 0.05 / 8**0.5.
    """
    ticks = step * (torch.arange(side, dtype=torch.float64, device="cpu") - (side - 1) / 2)
    return torch.cartesian_prod(ticks, ticks)
