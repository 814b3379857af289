"""Measures of the cells from two independent halves: what is error in them, what is noise, and what to make of both.

The product of the halves' errors shows chi2 without noise, their difference the noise, whatever the sampler.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from otgen.ops import Measure
from otgen.ot.problem import Problem
from otgen.ot.solvers.base import Run

CERTAIN = 9.0  # an error of three standard errors is taken for real in part, whatever the others are


@dataclass(frozen=True)
class Seen:
    """A measurement.

    Attributes:
        counted: Both halves together.
        n: Their samples.
        residual: `w - nu`, (m,).
        chi2: Of the heights; what noise adds is left out, so it may be negative.
        doubt: Its standard error.
        noise: What noise would add, or shows at the solution.
    """

    counted: Measure
    n: int
    residual: Tensor
    chi2: float
    doubt: float
    noise: float


def measure(problem: Problem, h: Tensor, n: int, index: int, run: Run) -> Seen:
    """Measure cells and facets on n samples, an even number; `index` names the measurement for good."""
    a, b = (run.measure(h, n // 2, "newton", 2 * index + i, pairs=problem.m > 1) for i in (0, 1))
    both = a + b
    residual = both.counts.double() / n - problem.nu
    noise = float(((a.counts - b.counts).double().square() / problem.nu).sum()) / n**2
    chi2 = float((residual.square() / problem.nu).sum()) - noise
    # As if one more cell had shown the noise of independent samples: two cells may show none by chance.
    usual = float((both.counts / problem.nu).sum()) / n**2
    noise = (problem.m * noise + usual / problem.m) / (problem.m + 1)
    # The sum over cells of the product of two halves' errors; with Sobol points or images cells are not independent,
    # and noise too small an estimate of the spread.
    doubt = 2 * math.sqrt((usual + max(chi2, 0.0)) * noise / problem.m)
    return Seen(both, n, residual, chi2, doubt, noise)


def gains(problem: Problem, seen: Seen, signal: float) -> Tensor:
    """The part of each cell's error that is to be taken away, (m,): what leaves least of all, or more of the few large.

    Of an error of z standard errors 1 - CERTAIN / z^2 are certain (James and Stein).
    """
    z2 = seen.residual.square() / (problem.nu * seen.noise / problem.m)
    return (1 - CERTAIN / z2.clamp_min(CERTAIN)).clamp_min(signal / (signal + seen.noise))


def left_by(problem: Problem, seen: Seen, gain: Tensor) -> float:
    """The chi2 that is left by such gains, (m,), if measures are linear in the heights.

    A cell's share of chi2 falls to (1 - gain)^2 of itself, and gets gain^2 of its noise.
    """
    noise = seen.noise / problem.m
    error = seen.residual.square() / problem.nu - noise
    let_in = noise * float(gain.square().sum())
    return let_in + max(0.0, float(((1 - gain).square() * error).sum()))
