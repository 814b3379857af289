"""One step of Newton's method on sampled cells: the regularised system, its solution, and what empty cells need."""

import math

import scipy.sparse
import torch
from torch import Tensor

from otgen import ops
from otgen.ot.problem import Problem
from otgen.ot.solvers.base import Run
from otgen.ot.solvers.halves import Seen
from otgen.ot.solvers.starts import taking
from otgen.ot.sources import CHUNK

BANDWIDTH = 2.0  # of a cell, in mean gaps
NOISE_TERM = 0.5  # of what is added to a cell's slope: times 1 / sqrt(samples near the facets of the cell)
LOW_DIM = 3  # up to it a cell has few neighbours, and mass travels far through many
ONE_MORE = (1.0, 0.25)  # samples that each facet is taken to have beside those seen, in low dimension and above it
HELD = (0.1, 0.5)  # part of what is added to slopes that holds a cell where it is
SURE = 0.02  # damping with which steps are so short that slopes count, not what a band's width away would be
COURANT_SHARE = 0.98  # of the cells have the Courant number at most
MIN_GAP = 1e-30  # a source with atoms can have all gaps zero, and bandwidths are float32
LOW_GAP = 0.1  # quantile of the cells' mean gaps that stands for a cell with too few samples
SEEN = 5  # samples a cell must be expected to get before it counts as empty
RAISE_SAMPLES = (10_000, 200_000)  # to find out by how much, at least and at most; else for SEEN in each cell


def newton_step(problem: Problem, seen: Seen, gain: Tensor, damping: float) -> tuple[Tensor, float]:
    """The step that takes the part `gain` of each cell's error away, and its Courant number.

    Args:
        problem: What is solved.
        seen: The measurement at the present heights.
        gain: Part of each cell's error, (m,).
        damping: Factor on the noise term of what is added to slopes.

    Returns:
        Move, (m,), of mean 0, and how many times its own mass a cell exchanges, few cells left out.
    """
    counted = seen.counted
    assert counted.pairs is not None
    assert counted.gaps is not None
    m, d, nu, counts = problem.m, problem.d, problem.nu, counted.counts.double()
    winner = counted.pairs[:, 0].long()
    gap = _cell_gaps(_per_cell(winner, counted.gaps, m), counts, float(counted.gaps.mean()))
    width = BANDWIDTH * gap
    local = damping <= SURE
    edges, weights = ops.laplacian(counted.pairs, counted.gaps.float(), width.float(), seen.n, local=local)
    one = _one_sample(edges, width, seen.n)
    near = _telling(edges, weights, one, m) if local else _per_cell(winner, counted.gaps < width[winner], m)

    w = (counts + 0.5) / seen.n
    secant = _secant(w, (nu + 0.5 / seen.n) / w, gain, d)
    root = (secant / w).sqrt()
    low = 0 if d <= LOW_DIM else 1
    weights = weights / band_mean(d) * root[edges[:, 0]] * root[edges[:, 1]] + ONE_MORE[low] * one
    added = secant / gap * (damping * NOISE_TERM / (near + 1).sqrt() + 1 / (near + 1) ** 2)
    diagonal = added.where(_at_ends(edges, weights, m) == 0, HELD[low] * added)

    pull = gain * seen.residual
    move = conjugate_gradients(edges, weights, diagonal, nu * pull.sum() - pull)
    move = move - move.mean()
    flow = weights * (move[edges[:, 0]] - move[edges[:, 1]]).abs()
    exchange = _at_ends(edges, flow, m) / torch.maximum(nu, counts / seen.n)
    return move, float(exchange.kthvalue(max(1, round(COURANT_SHARE * m))).values)


def _per_cell(index: Tensor, values: Tensor, m: int) -> Tensor:
    """Sums of values by cell, (m,), float64."""
    return torch.bincount(index, weights=values.double(), minlength=m)


def _one_sample(edges: Tensor, width: Tensor, n: int) -> Tensor:
    """What a sample on the narrower side of a facet adds to its weight, (e,).

    As if one more had been seen, a pair of cells close together keeps to its other neighbours: few samples or none may
    have shown its facets with them, and the pair would run away.
    """
    narrow, wide = width.double()[edges].sort(dim=1).values.unbind(1)
    return 1 / (n * narrow * (1 + (narrow / wide).square()))


def _telling(edges: Tensor, weights: Tensor, one: Tensor, m: int) -> Tensor:
    """How many samples the slopes of cells come from, (m,), where the narrower side of a facet counts almost alone.

    A cell with a wide band whose neighbours have narrow ones may have many samples near its own side of the facets and,
    by chance, none near theirs: its slope would seem to be nothing, and it would run away.
    """
    mean = _at_ends(edges, one, m) / torch.bincount(edges.flatten(), minlength=m)
    return (_at_ends(edges, weights, m) / mean).nan_to_num()  # none without a facet


def _at_ends(edges: Tensor, values: Tensor, m: int) -> Tensor:
    """Sums over the edges of every cell, (m,), of a value of each."""
    return _per_cell(edges[:, 0], values, m) + _per_cell(edges[:, 1], values, m)


def _secant(w: Tensor, ratio: Tensor, gain: Tensor | float, d: int) -> Tensor:
    """What takes the place of w in the slope of a cell's measure on the way from w to w times the ratio, (m,).

    As a power d of the height the measure has the slope w / (s / d) at a distance of s from where the cell is empty.
    The secant's is (w' - w) / (s' - s), with s' / s = (w' / w)^(1 / d). Of the ratio's logarithm only the part `gain`
    is taken for real.
    """
    log_ratio = gain * ratio.log()
    way = d * torch.expm1(log_ratio / d)
    return w * torch.where(way.abs() < 1e-3, 1.0, torch.expm1(log_ratio) / way)


def band_mean(d: int) -> float:
    """Mean density of a cell's gaps over the bandwidth as a part of that at zero, which is wanted.

    With the measure a power d of the height, a share of (1 - t / (d + 1))^d of the gaps is over t times their mean.
    """
    return (1 - max(0.0, 1 - BANDWIDTH / (d + 1)) ** d) * (d + 1) / (d * BANDWIDTH)


def _cell_gaps(sums: Tensor, counts: Tensor, mean_gap: float) -> Tensor:
    """Mean gap of every cell, (m,), as if one more sample had shown a small one.

    A gap that is guessed too small makes the cell move too little, one too large lets it run away; so cells with few
    samples get the tenth smallest of a hundred.
    """
    seen = counts >= SEEN
    small = float((sums[seen] / counts[seen]).quantile(LOW_GAP)) if bool(seen.any()) else mean_gap
    return (sums + max(small, MIN_GAP)) / (counts + 1)


def raise_empty(problem: Problem, h: Tensor, move: Tensor, seen: Seen, index: int, run: Run) -> Tensor:
    """How far empty cells must rise to win their share once the others have moved, (m,); zero for these."""
    raised = torch.zeros(problem.m, dtype=torch.float64, device="cpu")
    empty = torch.nonzero((seen.counted.counts == 0) & (seen.n * problem.nu > SEEN))[:, 0]
    if empty.numel() == 0:
        return raised
    assert seen.counted.pairs is not None
    assert seen.counted.gaps is not None
    wanted = math.ceil(min(max(SEEN / float(problem.nu[empty].min()), RAISE_SAMPLES[0]), RAISE_SAMPLES[1]))
    n, whole = min(seen.n // 2, wanted), min(seen.n // 2, math.ceil(wanted / CHUNK) * CHUNK)
    # Of the first half, in whole chunks, on which a user's samples depend; no need of all digits.
    x = run.sample(whole, "newton", 2 * index, again=True)[:n].float()
    best, second = seen.counted.pairs[:n].long().unbind(1)
    u = (x * problem.y.float()[best]).sum(1) + h.float()[best]
    u += torch.maximum(move.float()[best], move.float()[second] - seen.counted.gaps[:n].float())
    raised[empty] = taking(problem.y[empty].float(), x, u, problem.nu[empty]) - h[empty]
    return raised


def conjugate_gradients(edges: Tensor, weights: Tensor, diagonal: Tensor, b: Tensor, tol: float = 1e-2) -> Tensor:
    """Solve (L + diag) s = b for a graph Laplacian L, by conjugate gradients with Jacobi preconditioning.

    Args:
        edges: (e, 2), int64, each pair once, sorted by its first.
        weights: (e,), float64, positive.
        diagonal: (m,), float64, positive.
        b: (m,), float64.
        tol: Relative residual in the preconditioner's norm; samples make the system far less accurate than this.

    Returns:
        s, (m,), float64.
    """
    m = b.shape[0]
    assert bool((edges[1:, 0] >= edges[:-1, 0]).all())
    starts = torch.bincount(edges[:, 0] + 1, minlength=m + 1).cumsum(0)  # of rows
    upper = scipy.sparse.csr_array((weights.numpy(), edges[:, 1].numpy(), starts.numpy()), shape=(m, m))
    lower = upper.T

    def over_neighbours(v: Tensor) -> Tensor:
        return torch.from_numpy(upper @ v.numpy() + lower @ v.numpy())

    total = over_neighbours(torch.ones_like(b)) + diagonal
    s = torch.zeros_like(b)
    r = b.clone()
    z = r / total
    p = z.clone()
    rz = float(r @ z)
    goal = tol**2 * rz
    for _ in range(max(50, 2 * math.isqrt(m))):
        if rz <= goal or rz == 0:
            break
        ap = total * p - over_neighbours(p)
        a = rz / float(p @ ap)
        s += a * p
        r -= a * ap
        z = r / total
        rz, before = float(r @ z), rz
        p = z + (rz / before) * p
    return s
