"""Heights to start from: guesses that cost little, and entropic annealing, which finds its way from anywhere."""

import math

import torch
from torch import Tensor

from otgen import ops
from otgen.ot.certificate import total_variation
from otgen.ot.problem import Problem
from otgen.ot.solvers.base import Run
from otgen.ot.sources import CHUNK
from otgen.ot.streams import stream

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


def carried(problem: Problem, old: Problem, h: Tensor, seed: int) -> Tensor:
    """Heights of a changed problem, (m,), from those of the one before, each in its own units.

    Targets that were there keep their heights; a new one starts where its plane touches the potential just enough to
    take its share of a sample.

    Args:
        problem: The changed one, in the dimension of the old.
        old: The one before.
        h: Its heights, (old m,).
        seed: Decides the sample.
    """
    n = min(max(50 * problem.m, 10_000), 200_000)
    x = problem.source.sample(n, problem.d, stream(seed, "refit")).double()
    u = old.scale * ops.assign(x, old.y, h)[1] + x @ (old.centre - problem.centre)
    start = taking(problem.y, x, u / problem.scale, problem.nu)
    rows, kept = old.given[old.first_rows()].tolist(), (h * (old.scale / problem.scale)).tolist()
    known = {tuple(row): height for row, height in zip(rows, kept, strict=True)}
    for row, target in enumerate(problem.given[problem.first_rows()].tolist()):
        start[row] = known.get(tuple(target), float(start[row]))
    return start - start.mean()


MOST_TAKEN = 200
"""Samples that `taking` gives to a target at most: enough to know where its plane should lie."""

FEW = 1 << 21
"""So many scores are made at once; it is not worth packing all the samples as targets for them."""


def taking(y: Tensor, x: Tensor, u: Tensor, nu: Tensor) -> Tensor:
    """Heights with which each of some targets alone takes its share of samples from a potential, (m,), float64.

    Target j wins the k samples of largest `<x, y_j> - u(x)` when its height is minus the k-th of these numbers: an
    assignment of targets to samples, so the same kernel finds it.

    Args:
        y: Targets, (m, d).
        x: Samples, (n, d), like `y`.
        u: The potential at the samples, (n,), like `y`.
        nu: Shares, (m,); of at least one sample and at most `MOST_TAKEN`.
    """
    n = x.shape[0]
    k = (n * nu).long().clamp(1, min(MOST_TAKEN, n))
    most = int(k.max())
    few = y.shape[0] * n <= FEW
    lead = torch.addmm(-u, y, x.T).topk(most, dim=1).values if few else ops.topk(y, x, -u, most)[1]
    return -lead.double().gather(1, k[:, None] - 1)[:, 0]


def on_a_line(problem: Problem) -> Tensor | None:
    """The solution for targets on a line, (m,), where the source's quantiles along it are known; otherwise `None`."""
    if problem.d > 1 and problem.source.name != "normal":
        return None
    place = problem.line.place
    ends = problem.source.quantile(_shares(problem, place))
    return None if ends is None else _heights_on(place, ends)


def by_coordinates(problem: Problem, axes: Tensor | None = None) -> Tensor:
    """Heights of the map that moves every coordinate on its own, (m,), for a source whose quantiles are known.

    They are the sum of the solutions along the axes, and right for targets and weights that are products.

    Args:
        problem: What is to be solved.
        axes: The columns of a rotation, (d, d), for an isotropic source; `None` for the coordinates' own.
    """
    heights = torch.zeros_like(problem.nu)
    for place in (problem.y if axes is None else problem.y @ axes).unbind(dim=1):
        ends = problem.source.quantile(_shares(problem, place))
        assert ends is not None
        heights += _heights_on(place, ends)
    return heights


def sampled_on_a_line(problem: Problem, run: Run, n: int, index: int) -> Tensor:
    """Heights for targets on a line, (m,), from quantiles of n samples along it: chi2 is m / n.

    Args:
        problem: What is solved.
        run: Chooses the samples.
        n: Samples.
        index: Number of the stream.
    """
    place, direction, _ = problem.line
    sizes = [min(CHUNK, n - start) for start in range(0, n, CHUNK)]
    drawn = (run.sample(size, f"line {index}", i).double() for i, size in enumerate(sizes))
    x = torch.cat([samples @ direction for samples in drawn]).sort().values
    above = (_shares(problem, place) * n).long().clamp(1, n - 1)
    return _heights_on(place, (x[above - 1] + x[above]) / 2)


def _shares(problem: Problem, place: Tensor) -> Tensor:
    """Of the source below where cells end, (m - 1,), for targets at these places of a line."""
    return problem.nu[place.argsort()].cumsum(0)[:-1].clamp(1e-300, 1 - 2**-53)


def _heights_on(place: Tensor, ends: Tensor) -> Tensor:
    """Heights with which cells, intervals, end there, where neighbours score alike.

    The ends are quantiles q(c_j) for the cumulative weights c_j of the sorted targets t_j: `h_{j+1} = h_j - q(c_j)
    (t_{j+1} - t_j)`.
    """
    sites, order = place.sort()
    h = torch.zeros_like(place)
    h[order[1:]] = -(ends * sites.diff()).cumsum(0)
    return h


SAMPLES = 20  # per target
SHRINK = 0.5  # of eps from level to level
ROUNDS = 12  # fixed-point rounds at one level, at most
SOFT_TV = 0.03  # a level is done when the soft cells are this close
OVERRELAX = 1.5  # of the fixed point; Sinkhorn's iteration converges for factors below 2
PILOT = 4  # samples per target that tell the gaps
FINE = 0.1  # the last eps, in units of the mean gap between best and second-best score


def anneal(problem: Problem, run: Run, h: Tensor) -> Tensor:
    """Entropic annealing: soft assignment with eps going down, `h_j -= 1.5 eps log(share_j / nu_j)` at each level.

    With soft cells no cell is empty and distant ones feel each other, so large imbalances are settled while eps is
    large. The samples are fixed: what noise they leave is the next method's to remove.

    Args:
        problem: What is solved.
        run: Counts the samples and chooses them.
        h: Heights to start from, (m,).

    Returns:
        Heights, (m,), of mean 0.
    """
    n = SAMPLES * problem.m
    x = run.sample(n, "anneal", 0).double()
    pilot = x[: 1 << 8] @ problem.y.T
    eps = float(pilot.std(1).mean())
    x32, y32 = x.float(), problem.y.float()
    level = 0
    while True:
        for _ in range(ROUNDS):
            share = ops.soft_assign(x32, y32, h.float(), eps)[1].double() / n
            run.spend(n)
            h = h - OVERRELAX * eps * (share.clamp_min(1e-30) / problem.nu).log()
            h = h - h.mean()
            if run.used >= run.max_samples:
                return h
            if float((share - problem.nu).abs().sum()) / 2 < SOFT_TV:
                break
        gaps = run.measure(h, PILOT * problem.m, "anneal-gap", level, pairs=True).gaps
        assert gaps is not None
        if eps <= FINE * float(gaps.mean()) or eps < 1e-7 * math.sqrt(problem.d):  # float32 resolves no finer
            return h
        eps *= SHRINK
        level += 1
