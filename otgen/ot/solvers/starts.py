"""Heights to start from: guesses that cost little, and what is known of the heights of another problem."""

import math

import torch
from torch import Tensor

from otgen import ops
from otgen.ot.certificate import total_variation
from otgen.ot.problem import Problem
from otgen.ot.solvers.base import Run

TRIAL = 2
"""Samples per target with which guesses are compared: the better one shows in the sum over all targets."""

SHRINKS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18)
"""Of the guesses, from 0.5, or what was best for the guess before, on as long as the next one is better."""

EVEN = 0.01
"""Logarithms of weights that differ by no more change nothing."""

ROUND = 6.0
"""Effective dimension of targets from which their scores are nearly independent: with fewer, logarithms of weights make
the total variation smaller but the way longer."""

MAX_GAUSSIAN_DIM = 2048
"""Above it the eigenvectors of the covariance cost more than the guess is worth."""

EACH = 20
"""Samples per target from which new ones take theirs."""

MOST_TAKEN = 200
"""Samples that `taking` gives to a target at most: enough to know where its plane should lie."""

POINTING = 8
"""Samples, at least, that tell where the next one would lie."""

FEW = 1 << 21
"""So many scores are made at once; it is not worth packing all the samples as targets for them."""


def best_guess(problem: Problem, run: Run) -> Tensor:
    """The guess of smallest total variation on a small sample, (m,).

    Guesses are the affine map between Gaussians and Voronoi cells, which win on full-rank mixtures and on clusters, as
    much shrunk as is best: a cell lies nearer to the source's middle than the map says where its target is but the best
    of many that are all but orthogonal to a sample. To both the logarithms of uneven weights are added where that is
    better for the first.
    """
    trials, at = _Trials(problem, run), SHRINKS.index(0.5)
    small = problem.d <= MAX_GAUSSIAN_DIM
    for guess in (affine(problem), voronoi(problem, 1.0)) if small else (voronoi(problem, 1.0),):
        before, tv = trials.least, trials.tv(guess, at)
        if before == math.inf and small and _effective_dim(problem) > ROUND:
            tv = min(tv, trials.weigh(guess, at))
        if tv < before:
            at = trials.walk(guess, at, tv)
    return trials.best


def tv_on_few(problem: Problem, run: Run, h: Tensor) -> float:
    """Total variation of the caller's heights on a small sample."""
    return total_variation(run.measure(h, max(TRIAL * problem.m, 1000), "given", 0).counts, problem.nu)


class _Trials:
    """Guesses on small samples, and the best of them.

    Logarithms of weights are in units of the mean gap between best and second best, as the last trial showed it. They
    would be right if scores were independent: the largest of many has a Gumbel distribution.
    """

    def __init__(self, problem: Problem, run: Run) -> None:
        self.problem, self.run = problem, run
        self.flat = -(problem.y @ problem.source.mean(problem.d))
        self.uneven = (problem.nu * problem.m).log()
        self.best, self.least = self.flat, math.inf
        self.gap, self.weighed, self.count = 0.0, False, 0

    def tv(self, guess: Tensor, at: int) -> float:
        """Total variation of a guess, shrunk."""
        h = self.flat + SHRINKS[at] * (guess - self.flat)
        if self.weighed:
            h = h + self.gap * self.uneven
        n = max(TRIAL * self.problem.m, 1000)
        seen = self.run.measure(h, n, "guess", self.count, pairs=self.problem.m > 1)
        self.count += 1
        self.gap = 0.0 if seen.gaps is None else float(seen.gaps.mean())
        tv = total_variation(seen.counts, self.problem.nu)
        if tv < self.least:
            self.best, self.least = h, tv
        return tv

    def weigh(self, guess: Tensor, at: int) -> float:
        """The same with logarithms of uneven weights, which stay if that is better."""
        if float(self.uneven.abs().max()) <= EVEN:
            return math.inf
        before, self.weighed = self.least, True
        tv = self.tv(guess, at)
        self.weighed = tv < before
        return tv

    def walk(self, guess: Tensor, at: int, tv: float) -> int:
        """Shrink more or less, for as long as that is better; gives how much was best."""
        for step in (1, -1):
            began = at
            while 0 <= at + step < len(SHRINKS) and (near := self.tv(guess, at + step)) < tv:
                at, tv = at + step, near
            if at != began:
                break
        return at


def _effective_dim(problem: Problem) -> float:
    """Of the targets: what directions of equal variance would have the same participation ratio."""
    return float(problem.covariance.trace() ** 2 / problem.covariance.square().sum())


def voronoi(problem: Problem, shrink: float) -> Tensor:
    """Heights whose cells are Voronoi cells of the targets laid over the source, `shrink` times as wide."""
    t = problem.source.std(problem.d) * shrink
    sites = problem.source.mean(problem.d) + t * problem.y
    return -sites.square().sum(1) / (2 * t)


def affine(problem: Problem) -> Tensor:
    """Heights of the affine map between Gaussians of the same means and covariances, for an isotropic source.

    It is the gradient of `<x - a, A (x - a)> / 2` with A the root of the targets' covariance over the source's standard
    deviation, a the source's mean; the heights are minus its conjugate at the targets.
    """
    values, vectors = torch.linalg.eigh(problem.covariance)
    values = values.clamp_min(float(values.max()) * 1e-3).clamp_min(1e-300)  # directions without spread
    inverse = problem.source.std(problem.d) / values.sqrt()
    heights: Tensor = -(
        problem.y @ problem.source.mean(problem.d) + 0.5 * ((problem.y @ vectors).square() * inverse).sum(1)
    )
    return heights


def carried(problem: Problem, old: Problem, h: Tensor, x: Tensor) -> Tensor:
    """Heights of a changed problem, (m,): targets that were there keep theirs, new ones are `touching`."""
    start = touching(problem, old, h, x)
    rows, kept = old.given[old.first_rows()].tolist(), (h * (old.scale / problem.scale)).tolist()
    known = {tuple(row): height for row, height in zip(rows, kept, strict=True)}
    for row, target in enumerate(problem.given[problem.first_rows()].tolist()):
        start[row] = known.get(tuple(target), float(start[row]))
    return start - start.mean()


def touching(problem: Problem, old: Problem, h: Tensor, x: Tensor) -> Tensor:
    """Heights with which each plane touches another problem's potential just enough to take its share of samples, (m,).

    Args:
        problem: Whose heights are wanted.
        old: The other one, of the same dimension.
        h: Its heights, (old m,), in its own units.
        x: Samples, (n, d): as many as `samples_to_carry` says.
    """
    x = x.double()
    u = old.scale * ops.assign(x, old.y, h)[1] + x @ (old.centre - problem.centre)
    return taking(problem.y, x, u / problem.scale, problem.nu)


def samples_to_carry(problem: Problem) -> int:
    """How many samples heights are carried over with: for each target some that it takes."""
    return min(max(EACH * problem.m, 10_000), 200_000)


def taking(y: Tensor, x: Tensor, u: Tensor, nu: Tensor) -> Tensor:
    """Heights with which each of some targets alone takes its share of samples from a potential, (m,), float64.

    Target j wins the k samples of largest `<x, y_j> - u(x)` when its height is minus the k-th of these numbers: an
    assignment of targets to samples, so the same kernel finds it. For less than a sample it is lower, twice as much as
    the largest numbers show if a cell's measure is a power d of its height: a cell that is empty lacks its weight, one
    that holds a sample may hold many times as much.

    Args:
        y: Targets, (m, d).
        x: Samples, (n, d), like `y`.
        u: The potential at the samples, (n,), like `y`.
        nu: Shares, (m,); counted are at most `MOST_TAKEN` samples.
    """
    n, d = x.shape
    share = n * nu
    k = share.long().clamp(1, min(MOST_TAKEN, n))
    most = min(max(int(k.max()), POINTING), n)
    few = y.shape[0] * n <= FEW
    lead = torch.addmm(-u, y, x.T).topk(most, dim=1).values if few else ops.topk(y, x, -u, most)[1]
    lead = lead.double()
    to_none = (lead[:, 0] - lead[:, -1]) / max(math.pow(most, 1 / d) - 1, 1e-300)  # from where it takes one
    beyond = 2 * to_none * (1 - share.clamp_max(1.0).pow(1 / d))
    return -lead.gather(1, k[:, None] - 1)[:, 0] - beyond
