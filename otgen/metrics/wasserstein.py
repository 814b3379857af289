"""Wasserstein distances between samples: exact on the line, exact for few samples, sliced, and semi-discrete.

Two samples of one distribution are never at distance zero: the p-Wasserstein distance of n samples from their
distribution falls as n^(-1/d) in d > 2 p dimensions (Fournier and Guillin 2015). Report the distance of two halves of
the data beside it.
"""

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from otgen.metrics.score import Score, Values, features, jackknife, on_cpu
from otgen.ops import check
from otgen.ot import ConvergenceWarning, SemiDiscreteOT
from otgen.ot.sources import Sampler
from otgen.seeds import stream

DIRECTIONS = 256
"""Directions of the sliced distance; their part of the error is then some percent."""

MOST = 5000
"""Samples up to which the exact distance is worked out: the time grows with the cube, the memory with the square."""

HIGHEST = 10.0
"""Order up to which the exact distance is worked out: POT's tolerance, relative to the p-th power of the widest extent,
took 2e-4 of a distance at 20 and a quarter at 30."""

LEAST = 2.0**-1000
"""Smaller differences are none."""

ROWS = 1 << 24
"""Numbers held at a time by the sliced distance."""


def wasserstein_1d(x: Values, y: Values, p: float = 1.0) -> Score:
    """Compute the p-Wasserstein distance of two samples of the line, exactly, by sorting.

    Args:
        x: Sample, (n,), floating, n >= 10.
        y: Sample, (m,), floating, m >= 10; sizes may differ.
        p: Order, at least 1.

    Returns:
        The distance, in units of the samples; its spread is the jackknife's. Its bias is not known: it falls like 1/n
        where the distributions differ, and like 1/sqrt(n) where they do not.

    Raises:
        ValueError: A shape or value does not fit.
        TypeError: Not tensors or arrays of floating point.
    """
    _check_order("wasserstein_1d", p)
    x, y = (check.tensor("wasserstein_1d", name, on_cpu(v), ("n",)) for name, v in (("x", x), ("y", y)))
    x, y, unit = _in_units(*(features("wasserstein_1d", name, v[:, None]) for name, v in (("x", x), ("y", y))))
    return _times(unit, jackknife(lambda a, b: _distances_1d(a, b, p)[0], x, y)[0])


def sliced_wasserstein(x: Values, y: Values, p: float = 2.0, *, directions: int = DIRECTIONS, seed: int = 0) -> Score:
    """Estimate the sliced p-Wasserstein distance: the p-mean of the 1-D distances over random directions.

    Bonneel et al. 2015. At most the p-Wasserstein distance; for p = 2 and distributions that differ by a shift alone it
    is that over sqrt(d).

    Args:
        x: Sample, (n, d), floating, n >= 10.
        y: Sample, (m, d), floating, m >= 10.
        p: Order, at least 1.
        directions: How many.
        seed: Of the directions.

    Returns:
        The distance, in units of the samples. Its spread has two parts: the jackknife over the samples, and the choice
        of directions. Its bias is not known, as on the line.

    Raises:
        ValueError: A shape or value does not fit.
        TypeError: Not tensors or arrays of floating point.
    """
    _check_order("sliced_wasserstein", p)
    check.integer("sliced_wasserstein", "directions", directions, 2)
    x = features("sliced_wasserstein", "x", x)
    x, y, unit = _in_units(x, features("sliced_wasserstein", "y", y, like=x))
    generator = torch.Generator().manual_seed(stream(seed, "directions"))
    v = torch.randn(x.shape[1], directions, generator=generator, dtype=torch.float64, device="cpu")
    v = v / v.norm(dim=0)
    distances = _distances_1d(x @ v, y @ v, p)
    if float(distances.max()) == 0:
        return Score(0.0, 0.0, min(len(x), len(y)))
    score = jackknife(lambda a, b: _mean(_distances_1d(a @ v, b @ v, p), p), x, y)[0]
    powers = (distances / score.value) ** p  # of mean 1, where the p-th root has the slope 1 / p
    chosen = score.value * float(powers.std()) / (p * math.sqrt(directions))
    return _times(unit, Score(score.value, math.hypot(score.spread, chosen), score.n))


def exact_wasserstein(x: Values, y: Values, p: float = 2.0) -> Score:
    """Compute the p-Wasserstein distance of two small samples exactly, by POT's network simplex.

    Up to POT's tolerance, which is relative to the p-th power of the widest extent: one far outlier among points that
    lie close hides what these contribute.

    Args:
        x: Sample, (n, d), floating, n at most 5000.
        y: Sample, (m, d), floating, m at most 5000.
        p: Order, at least 1 and at most 10.

    Returns:
        The distance, in units of the samples. Its spread comes from the dual potentials, which say how the optimum
        moves with each sample's weight (del Barrio and Loubes 2019); it leaves out the bias, which is larger.

    Raises:
        ImportError: POT is missing.
        ValueError: A shape or value does not fit.
        TypeError: Not tensors or arrays of floating point.
    """
    try:
        import ot as pot
    except ImportError as error:
        raise ImportError('exact_wasserstein: wanted POT, which is not installed: pip install "otgen[pot]"') from error
    _check_order("exact_wasserstein", p)
    if p > HIGHEST:
        raise ValueError(f"exact_wasserstein: p must be at most {HIGHEST:g}, got {p}")
    x = features("exact_wasserstein", "x", x)
    x, y, unit = _in_units(x, features("exact_wasserstein", "y", y, like=x))
    n, m = len(x), len(y)
    if max(n, m) > MOST:
        raise ValueError(f"exact_wasserstein: samples must be at most {MOST}, got {n} and {m}; take a sliced distance")
    cost = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist") ** p
    total, log = pot.emd2([], [], cost.numpy(), numItermax=10_000_000, log=True)
    if log["warning"] is not None:
        raise ValueError(f"exact_wasserstein: POT found no optimum: {log['warning']}")
    total = max(float(total), 0.0)
    of_total = math.sqrt(
        float(torch.as_tensor(log["u"], device="cpu").var()) / n
        + float(torch.as_tensor(log["v"], device="cpu").var()) / m
    )
    value = total ** (1 / p)
    spread = of_total * total ** (1 / p - 1) / p if total > 0 else 0.0
    return _times(unit, Score(value, spread, min(n, m)))


@dataclass(frozen=True)
class SemiDiscrete:
    """Distance between a continuous source and points.

    Attributes:
        distance: 2-Wasserstein distance, n the source samples it was measured on; by the Kantorovich dual, as
            `SemiDiscreteOT.cost`, so but for sampling the true one is not less.
        low: Lower end of its 95 % confidence interval, which is of sampling alone.
        high: Upper end.
        converged: Whether the map was certified.
    """

    distance: Score
    low: float
    high: float
    converged: bool


def semi_discrete_wasserstein(
    y: Values,
    source: str | Sampler = "normal",
    *,
    weights: Values | None = None,
    tol: float = 0.01,
    n: int = 100_000,
    seed: int = 0,
) -> SemiDiscrete:
    """Compute the 2-Wasserstein distance between a continuous source and points, such as a prior and codes.

    No samples stand in for the source while the map is fitted (`otgen.SemiDiscreteOT`), so unlike the distances between
    two samples this has no bias from the source's side.

    Args:
        y: Points, (m, d), floating.
        source: "normal" for N(0, I), "uniform" for the unit cube, or `(n, generator) -> (n, d)`.
        weights: Of the points, (m,); `None` for equal ones.
        tol: Accuracy of the map, as for `SemiDiscreteOT`.
        n: Fresh source samples on which the distance is measured.
        seed: Decides every sample.

    Returns:
        The distance with its interval.

    Raises:
        ValueError: A shape or value does not fit.
        TypeError: A type does not fit.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the result says it
        ot = SemiDiscreteOT(source, tol=tol, seed=seed, progress=False).fit(y, weights)
    square, (low, high) = ot.cost(n)
    value, bottom, top = (math.sqrt(max(v, 0.0)) for v in (square, low, high))
    return SemiDiscrete(Score(value, (top - bottom) / (2 * 1.96), n), bottom, top, ot.converged_)


def _in_units(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
    """Samples in units of their widest extent, and that: tolerances are absolute, and powers leave float64's range."""
    both = torch.cat([x, y])
    low, high = both.amin(0), both.amax(0)
    unit = float((high - low).max())
    if not 0 < unit < math.inf:
        return x, y, 1.0
    return (x - low) / unit, (y - low) / unit, unit


def _times(unit: float, score: Score) -> Score:
    return Score(unit * score.value, unit * score.spread, score.n)


def _distances_1d(x: Tensor, y: Tensor, p: float) -> Tensor:
    """p-Wasserstein distances (k,) between columns of x (n, k) and of y (m, k), float64."""
    if x.shape[1] > (step := max(1, ROWS // (len(x) + len(y)))):
        return torch.cat([_distances_1d(x[:, i : i + step], y[:, i : i + step], p) for i in range(0, x.shape[1], step)])
    x, y = x.sort(0).values, y.sort(0).values
    n, m = len(x), len(y)
    if n == m:
        return _mean((x - y).abs(), p)
    # the quantile functions are steps with jumps at i/n and j/m; whole numbers of 1/(nm) leave no rounding
    jumps = torch.cat([torch.arange(1, n + 1, device="cpu") * m, torch.arange(1, m + 1, device="cpu") * n]).unique()
    width = torch.diff(jumps, prepend=jumps.new_zeros(1)).double() / (n * m)
    i, j = (jumps - 1) // m, (jumps - 1) // n
    return _mean((x[i] - y[j]).abs(), p, width[:, None])


def _mean(values: Tensor, p: float, weight: Tensor | None = None) -> Tensor:
    """p-mean over the first axis, of values that are not negative; of the largest ones' units, as powers vanish."""
    unit = values.amax(0).clamp_min(LEAST)
    powers = (values / unit).pow(p)
    mean: Tensor = powers.mean(0) if weight is None else (weight * powers).sum(0)
    return unit * mean ** (1 / p)


def _check_order(metric: str, p: float) -> None:
    if check.positive(metric, "p", p) < 1:
        raise ValueError(f"{metric}: p must be at least 1, got {p}")
