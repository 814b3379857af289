"""How good a solution is: on fresh samples, or by cells that were computed."""

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from otgen.ops import Measure, torch_on_one_thread
from otgen.ot.problem import Problem

CONFIDENCE = 0.95
"""Confidence of what is certified."""

CAUTION = 4
"""Samples added to the count of one cell for the upper bound of 95 %. With 4 a cell alone is held to 5.3 samples after
none and 6.2 after one, where a Poisson distribution has 3.0 and 4.7; simulated coverage is then 92 % at least, mostly
94 to 100, for nominally 95."""

LUCK = 1.0
"""Standard errors by which an estimate may come out too high and still be certified. A look fails one time in six then,
which costs less than the samples that would make it rarer."""

FLOOR = 1 / math.sqrt(2 * math.pi)
"""Mean absolute deviation of a normal number is sqrt(2/pi) of its standard deviation; tv takes half of it."""


@dataclass(frozen=True)
class Certificate:
    """Accuracy of heights: computed, or estimated on samples that had no part in making them.

    With c_j of N samples in cell j, w_j its true measure and nu_j the wanted one:

    Attributes:
        samples: N.
        targets: Number of distinct targets of positive weight.
        chi2: `sum c_j (c_j - 1) / (N (N - 1) nu_j) - 1`, unbiased for
            `sum (w_j - nu_j)^2 / nu_j`; so it can be negative.
        chi2_se: Its standard error.
        chi2_se_upper: The same with four more samples, for a smaller `share` some more, in the cell where they matter
            most. Upper bounds use it: the estimate is skewed, and a cell of small weight that got one sample may be one
            that holds far too much.
        tv: `sum |c_j / N - nu_j| / 2`, total variation, biased upwards by sampling noise.
        tv_floor: What exact heights would show for `tv` with N samples.
        max_relative_error: Largest `|c_j / (N nu_j) - 1|`, noise included.
        empty_cells: Cells without a sample, or of measure 0.
        primal: Mean of |x - T(x)|^2, the squared Wasserstein distance to the measure that was reached. On samples
            of a named source it is what is known of E|x|^2 less a mean of 2 u: where it is small beside |x|^2 its error
            may exceed it, and it may be negative. `SemiDiscreteOT.cost` has less noise, and an interval.
        dual: Value of the Kantorovich dual for |x - y|^2: but for sampling error the true squared distance is not less.
        gap: `primal - dual`; positive or negative, as the reached measure is not quite the wanted one.
        seed: Names the stream of samples.
        exact: Whether the measures were computed, not sampled; then N is 0 and the errors are zero.
        share: Part of the error probability that its bounds may take. A fit gives its k-th certificate the part
            1 / (k (k + 1)), as it stops at one that came out well; so the bounds of all of them hold together.
    """

    samples: int
    targets: int
    chi2: float
    chi2_se: float
    chi2_se_upper: float
    tv: float
    tv_floor: float
    max_relative_error: float
    empty_cells: int
    primal: float
    dual: float
    gap: float
    seed: int
    exact: bool = False
    share: float = 1.0

    def upper(self, confidence: float = CONFIDENCE) -> float:
        """Upper confidence bound on the true chi2; below 80 % confidence too low, as the estimate is skewed."""
        _check_confidence(confidence)
        return self.chi2 - NormalDist().inv_cdf(self.share * (1 - confidence)) * self.chi2_se_upper

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Two-sided confidence interval for the true chi2; where one cell got nearly all samples it begins too high."""
        _check_confidence(confidence)
        z = -NormalDist().inv_cdf(self.share * (1 - confidence) / 2)
        return max(0.0, self.chi2 - z * self.chi2_se), max(0.0, self.chi2 + z * self.chi2_se_upper)

    def holds(self, tol: float, confidence: float = CONFIDENCE) -> bool:
        """Whether chi2 <= tol at the stated confidence."""
        return self.upper(confidence) <= tol

    def as_dict(self) -> dict[str, Any]:
        """The attributes by name, and the upper bound."""
        return asdict(self) | {"chi2_upper": self.upper()}


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence!r}")


@torch_on_one_thread()  # so that sums do not depend on the number of threads
def certify(problem: Problem, h: Tensor, counted: Measure, seed: int, share: float = 1.0) -> Certificate:
    """Certificate of a problem's heights, (m,), from a count of fresh samples; `share` as in `Certificate`."""
    c, nu = counted.counts.double(), problem.nu
    n = float(c.sum())
    chi2, se = chi2_estimate(c, nu)
    w = c / n
    # In the given units: score and potential scale with the targets, distances are taken to the true centre.
    y2 = (problem.y * problem.scale + problem.centre).square().sum(1)
    mean = problem.source.mean(problem.d) if counted.mean is None else counted.mean
    second = problem.source.second_moment(problem.d) if counted.second_moment is None else counted.second_moment
    centre_term = float(mean @ problem.centre)
    g = y2 + 2 * problem.scale * h  # the Kantorovich potential for |x - y|^2
    mean_u = problem.scale * counted.mean_u + centre_term
    base = second - 2 * mean_u
    primal, dual = base + float(w @ g), base + float(nu @ g)
    return Certificate(
        samples=int(n),
        targets=problem.m,
        chi2=chi2,
        chi2_se=se,
        chi2_se_upper=cautious_error(c, nu, se, share),
        tv=total_variation(counted.counts, nu),
        tv_floor=floor_of(problem, int(n)),
        max_relative_error=float((w / nu - 1).abs().max()),
        empty_cells=int((counted.counts == 0).sum()),
        primal=primal,
        dual=dual,
        gap=primal - dual,
        seed=seed,
        share=share,
    )


def certify_exactly(problem: Problem, h: Tensor, measures: Tensor, first: Tensor, second: float) -> Certificate:
    """Certificate of heights whose cells were computed.

    Args:
        problem: What was solved.
        h: Heights, (m,), in the problem's units.
        measures: Of the cells, (m,).
        first: Integral of x over each cell, (m, d).
        second: Integral of |x|^2 over the source.
    """
    nu, away = problem.nu, measures - problem.nu
    y = problem.y * problem.scale + problem.centre
    y2 = y.square().sum(1)
    primal = second - 2 * float((first * y).sum()) + float(measures @ y2)
    gap = float(away @ (y2 + 2 * problem.scale * h))  # the potential for |x - y|^2, paid for what is missing
    return Certificate(
        samples=0,
        targets=problem.m,
        chi2=float((away.square() / nu).sum()),
        chi2_se=0.0,
        chi2_se_upper=0.0,
        tv=float(away.abs().sum()) / 2,
        tv_floor=0.0,
        max_relative_error=float((away / nu).abs().max()),
        empty_cells=int((measures == 0).sum()),
        primal=primal,
        dual=primal - gap,
        gap=gap,
        seed=0,
        exact=True,
    )


def chi2_estimate(counts: Tensor, nu: Tensor) -> tuple[float, float]:
    """Unbiased estimate of `sum (w_j - nu_j)^2 / nu_j` and its standard error.

    It is a U-statistic with kernel 1{a = b} / nu_a; Hoeffding (1948) gives its variance as
    `2 (2 (N - 2) z1 + z2) / (N (N - 1))`, with z1 the variance of the kernel's projection and z2 that of the kernel.

    Args:
        counts: Samples in each cell, (m,).
        nu: Wanted measures, (m,), positive, summing to 1.
    """
    c = counts.double()
    n = float(c.sum())
    if n < 3:
        return math.nan, math.inf
    pairs, triples = n * (n - 1), n * (n - 1) * (n - 2)
    theta = float((c * (c - 1) / nu).sum()) / pairs
    z1 = max(0.0, float((c * (c - 1) * (c - 2) / nu / nu).sum()) / triples - theta * theta)
    z2 = max(0.0, float((c * (c - 1) / nu / nu).sum()) / pairs - theta * theta)
    z2 = max(z2, c.shape[0] - 1.0)  # its value at the optimum: cells too small to be seen twice would hide theirs
    return theta - 1, math.sqrt(2 * (2 * (n - 2) * z1 + z2) / pairs)


def cautious_error(counts: Tensor, nu: Tensor, se: float, share: float = 1.0) -> float:
    """Standard error of `chi2_estimate` with `_caution` more samples in the one cell where they add most to it."""
    c = counts.double()
    n = float(c.sum())
    if c.shape[0] == 1 or n < 3:
        return se
    more = c + _caution(1 - share * (1 - CONFIDENCE))
    triples = (more**3 - c * (c - 1) * (c - 2)) / nu / nu  # what is added to the sums of `chi2_estimate`
    pairs = (more**2 - c * (c - 1)) / nu / nu
    added = float((4 * triples + 2 * pairs).max()) / (n * (n - 1)) ** 2
    return math.sqrt(se**2 + added)


def _caution(confidence: float) -> float:
    """Samples added for a bound of that confidence: after none, a Poisson bound grows like the square of a normal's."""
    normal = NormalDist()
    return CAUTION * (normal.inv_cdf(confidence) / normal.inv_cdf(CONFIDENCE)) ** 2


def samples_needed(m: int, smallest: float, tol: float, expected: float, confidence: float) -> int:
    """Samples with which a solution of the expected chi2 is certified at `tol` five times out of six.

    The bound lies `z` standard errors above the estimate, which may itself be `LUCK` of them above the truth. Squared,
    they are (2 m + 12 caution) / N^2 + 4 chi2 / N: noise of the cells (what `cautious_error` adds included) and of the
    errors. And a cell of the smallest weight, which is seldom hit, must not be able to hold more than the tolerance.
    """
    z = NormalDist().inv_cdf(confidence)
    room = max(tol - expected, 0.2 * tol)
    error = room / (z + LUCK)
    caution = _caution(confidence)
    cells = 2 * m + 12 * caution
    usual = cells / (math.sqrt(4 * expected**2 + cells * error**2) - 2 * expected)
    unseen = math.sqrt(math.sqrt(4 * caution**3 + 2 * caution**2) / error) / math.sqrt(smallest)
    return int(math.hypot(usual, unseen)) + 1000


def sampling_bound(m: int, tv: float) -> float:
    """Samples below which no method can reach a total variation of `tv` on equal weights: `m / (2 pi tv^2)`."""
    return FLOOR**2 * m / tv**2


def floor_of(problem: Problem, n: int) -> float:
    """The `tv` that exact heights would show with n samples; with none the cells were computed, and it is 0.

    De Moivre (1730): with k the first whole number above n nu, the mean of |c - n nu| for a binomial c is
    `2 k (1 - nu) P(c = k)`. Where cells expect one sample or fewer the normal approximation is too high, beyond 1 even.
    """
    if n == 0:
        return 0.0
    nu = problem.nu.clamp_max(1)
    k = (n * nu).floor() + 1
    ways = math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma((n - k).clamp_min(0) + 1)
    mean = k * (ways + torch.xlogy(k, nu) + torch.special.xlog1py(n - k + 1, -nu)).exp()
    return float(mean[k <= n].sum()) / n


def total_variation(counts: Tensor, nu: Tensor) -> float:
    """`sum |c_j / N - nu_j| / 2`."""
    return float((counts.double() / counts.sum() - nu).abs().sum()) / 2
