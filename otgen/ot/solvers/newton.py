"""Damped Newton on fresh samples: sparse Laplacian from the second-best targets, conjugate gradients.

The energy's Hessian is a graph Laplacian whose edge ij weighs mu(facet) / |y_i - y_j|. Each step measures cells and
facets on fresh samples, solves a regularised Newton system and moves; samples grow as the error falls to their noise.
What makes it stable far from the solution:

- a bandwidth for every cell, since gaps differ by orders of magnitude between cells;
- a diagonal that is large where a cell has few samples or is far off its weight, and vanishes at the solution;
- a Courant number: a step moves so far that almost no cell exchanges more than its own mass with its neighbours;
- cells that are empty and far are raised at once to where they take their share (a c-transform, Algorithm 1 of
  Kitagawa, Mérigot and Thibert works from non-empty cells only);
- a step is taken back in part when the slope of the energy along it has turned and is steep (E is convex).
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from otgen import ops
from otgen.ops import Measure
from otgen.ot.certificate import chi2_estimate, total_variation
from otgen.ot.problem import Problem
from otgen.ot.solvers.base import Run, State, per_cell
from otgen.ot.solvers.starts import best_guess

FIRST = 10  # samples per target in the first steps
CAP = 2.0  # most samples in one step, in units of m / tol: their noise is half the tolerance
BANDWIDTH = 1.0  # of a cell, in mean gaps
# Gaps fall off about exponentially: the density over one bandwidth is this part of that at zero, which is wanted.
BAND_MEAN = (1 - math.exp(-BANDWIDTH)) / BANDWIDTH
NOISE_TERM = 0.5  # of the diagonal: times 1 / sqrt(samples near the facets of the cell)
RATIO_TERM = 0.1  # of the diagonal: times |log(w / nu)|
DAMPING = (0.1, 20.0)  # range of the factor on the diagonal, which starts at 1
COURANT, COURANT_SHARE = 1.0, 0.98  # this share of the cells exchanges at most this part of its mass in a step
TURNED = 0.5  # a slope that has turned to this part of its first size undoes part of the step
STALLED = 4  # measurements without progress, after which samples are doubled
HOPELESS = 40  # and after which the method gives up, once the samples are at their cap
FAR = 2.0  # an empty cell is raised when it lacks more than this many mean gaps
MIN_GAP = 1e-30  # a source with atoms can have all gaps zero, and bandwidths are float32
LOW_GAP = 0.1  # quantile of the cells' mean gaps that stands for a cell with too few samples
SEEN = 5  # samples a cell must be expected to get before it counts as empty
FIRST_SEEN = 1  # samples that the smaller cells are expected to get in the first steps
RAISE_SAMPLES = 200_000  # at most, to find out by how much
RAISE_K = 200  # and at most so many samples given to a raised cell
CONTRACTION = 0.5  # part of chi2 left by a step, when guessing what the certificate will say


@dataclass(frozen=True)
class NewtonState(State):
    """Adds to `State`: samples of the next and the last step, the damping factor, the last step and its slope.

    Attributes:
        n: Samples of the next measurement.
        last_n: Of the last that made a step; 0 at first.
        damping: Factor on the diagonal.
        base: Heights before the last step, (m,).
        move: The last step, (m,).
        slope: Of the energy along it where it began; 0 if there is none to judge.
        best: Smallest chi2 signal seen since samples were last doubled.
        stall: Measurements without improvement since then.
        best_tv: Smallest tv over all measurements.
        idle: Measurements since `best_tv` last fell by a tenth.
    """

    n: int = 0
    last_n: int = 0
    damping: float = 1.0
    base: Tensor | None = None
    move: Tensor | None = None
    slope: float = 0.0
    best: float = math.inf
    stall: int = 0
    best_tv: float = math.inf
    idle: int = 0


class Newton:
    """Damped Newton on fresh samples, from the best guess."""

    name = "newton"
    state = NewtonState

    def start(self, problem: Problem, run: Run) -> NewtonState:
        """The caller's heights or the best guess."""
        h = run.start if run.start is not None else best_guess(problem, run)
        return NewtonState(h - h.mean(), n=first_samples(problem, run))

    def step(self, problem: Problem, state: NewtonState, run: Run) -> NewtonState:
        """Measure, and take back part of the last step or make the next."""
        counted = run.measure(state.h, state.n, "newton", state.step, pairs=problem.m > 1)
        chi2, _ = chi2_estimate(counted.counts, problem.nu)
        tv = total_variation(counted.counts, problem.nu)
        run.record(state.step, state.n, chi2, tv, int((counted.counts == 0).sum()))
        signal = max(chi2, 0.0)
        state = _note_progress(replace(state, step=state.step + 1), signal, tv, run, problem)
        if problem.m == 1:
            return replace(state, expected=0.0)

        gradient = counted.counts.double() / state.n - problem.nu
        if state.slope < 0 and state.base is not None and state.move is not None:
            slope = float(gradient @ state.move)
            if slope > TURNED * -state.slope:
                part = min(0.7, max(0.1, state.slope / (state.slope - slope)))
                return replace(
                    state,
                    h=state.base + part * state.move,
                    move=part * state.move,
                    slope=part * state.slope,
                    damping=min(state.damping * 1.5, DAMPING[1]),
                    n=_grown(state, run, problem) if state.stall >= STALLED else state.n,
                )
            state = replace(state, damping=max(state.damping / 1.2, DAMPING[0]))

        move, courant, raised = _newton_step(problem, state, counted, gradient, run)
        noise = problem.m / state.n
        part = min(1.0, COURANT / courant)
        if part == 1.0 and signal < 3 * noise and state.last_n > 0:
            # Near the solution a part of a step averages its noise with that of the last.
            part = state.n / (state.n + state.last_n)
        base = state.h + raised
        grow = signal < 2 * noise or state.stall >= STALLED
        left = CONTRACTION * signal * (1.0 if part == 1.0 else 0.6) + noise * (1.0 if part == 1.0 else 0.57)
        h = base + part * move
        return replace(
            state,
            h=h - h.mean(),
            base=base - h.mean(),
            move=part * move,
            slope=part * float(gradient @ move),
            last_n=state.n,
            n=_grown(state, run, problem) if grow else state.n,
            stall=0 if grow else state.stall,
            best=math.inf if state.stall >= STALLED else state.best,
            expected=left,
        )


def first_samples(problem: Problem, run: Run) -> int:
    """Samples of the first measurement: so many per target, and enough for the smaller weights to be seen."""
    small = float(problem.nu.quantile(0.1)) if problem.m <= 1 << 20 else float(problem.nu.min())
    wanted = max(FIRST * problem.m, min(FIRST_SEEN / small, 4 * FIRST * problem.m), 2000)
    return int(min(wanted, max(CAP * problem.m / run.tol, 2000)))


def _grown(state: NewtonState, run: Run, problem: Problem) -> int:
    return max(state.n, int(min(2 * state.n, CAP * problem.m / run.tol)))


def _note_progress(state: NewtonState, signal: float, tv: float, run: Run, problem: Problem) -> NewtonState:
    better = signal < 0.9 * state.best
    idle = 0 if tv < 0.9 * state.best_tv else state.idle + 1
    return replace(
        state,
        best=signal if better else state.best,
        stall=0 if better else state.stall + 1,
        best_tv=min(tv, state.best_tv),
        idle=idle,
        fallback=state.h if tv < state.best_tv else state.fallback,
        exhausted=idle >= HOPELESS and _grown(state, run, problem) == state.n,
    )


def _newton_step(
    problem: Problem, state: NewtonState, counted: Measure, gradient: Tensor, run: Run
) -> tuple[Tensor, float, Tensor]:
    """The full step (m,), its Courant number, and by how much empty cells are raised beforehand (m,)."""
    assert counted.pairs is not None
    assert counted.gaps is not None
    m, nu, counts = problem.m, problem.nu, counted.counts.double()
    winner = counted.pairs[:, 0].long()
    mean_gap = max(float(counted.gaps.mean()), 1e-300)
    gap = _cell_gaps(per_cell(winner, counted.gaps, m), counts, mean_gap)

    width = BANDWIDTH * gap
    edges, weights = ops.laplacian(counted.pairs, counted.gaps.float(), width.float(), state.n)
    weights = weights / BAND_MEAN
    near = per_cell(winner, counted.gaps < width[winner], m)
    mass = torch.maximum(nu, counts / state.n)
    ratio = ((counts + 1) / (state.n * nu + 1)).log().abs()
    diagonal = state.damping * mass / gap * (NOISE_TERM / (near + 1).sqrt() + RATIO_TERM * ratio)

    raised = _raise_empty(problem, state, counted.counts, counted.pairs[:, 0], mean_gap, run)
    move = conjugate_gradients(edges, weights, diagonal, -gradient)
    move[raised > 0] = 0.0
    move = move - move.mean()
    flow = weights * (move[edges[:, 0]] - move[edges[:, 1]]).abs()
    exchange = (per_cell(edges[:, 0], flow, m) + per_cell(edges[:, 1], flow, m)) / mass
    return move, float(exchange.kthvalue(max(1, round(COURANT_SHARE * m))).values) + 1e-12, raised


def _cell_gaps(sums: Tensor, counts: Tensor, mean_gap: float) -> Tensor:
    """Mean gap of every cell, (m,), as if one more sample had shown a small one.

    A gap that is guessed too small makes the cell move too little, one too large lets it run away; so cells with few
    samples get the tenth smallest of a hundred.
    """
    seen = counts >= SEEN
    small = float((sums[seen] / counts[seen]).quantile(LOW_GAP)) if bool(seen.any()) else mean_gap
    return (sums + max(small, MIN_GAP)) / (counts + 1)


def _raise_empty(
    problem: Problem, state: NewtonState, counts: Tensor, winners: Tensor, mean_gap: float, run: Run
) -> Tensor:
    """How far empty cells must rise to win their share of a sample, (m,); zero for those that the step will reach.

    Cell j takes the k samples of largest `<x, y_j> - u(x)` when h_j is minus the k-th of these numbers: an assignment
    of targets to samples, so the same kernel finds it.
    """
    raised = torch.zeros(problem.m, dtype=torch.float64)
    empty = torch.nonzero((counts == 0) & (state.n * problem.nu > SEEN))[:, 0]
    if empty.numel() == 0:
        return raised
    n = min(state.n, RAISE_SAMPLES)
    x = run.sample(n, "newton", state.step - 1, again=True)
    winner = winners[:n].long()
    u = (x * problem.y[winner]).sum(1) + state.h[winner]
    k = (n * problem.nu[empty]).long().clamp(1, min(RAISE_K, n))
    lead = ops.topk(problem.y[empty].float(), x.float(), -u.float(), int(k.max()))[1].double()  # no need of all digits
    lack = -lead.gather(1, k[:, None] - 1)[:, 0] - state.h[empty]
    raised[empty] = torch.where(lack > FAR * mean_gap, lack, 0.0)
    return raised


def conjugate_gradients(edges: Tensor, weights: Tensor, diagonal: Tensor, b: Tensor, tol: float = 1e-2) -> Tensor:
    """Solve (L + diag) s = b for a graph Laplacian L, by conjugate gradients with Jacobi preconditioning.

    Args:
        edges: (e, 2), int64, each pair once.
        weights: (e,), float64, positive.
        diagonal: (m,), float64, positive.
        b: (m,), float64.
        tol: Relative residual in the preconditioner's norm; samples make the system far less accurate than this.

    Returns:
        s, (m,), float64.
    """
    m = b.shape[0]
    i, j = edges[:, 0], edges[:, 1]
    total = per_cell(i, weights, m) + per_cell(j, weights, m) + diagonal
    s = torch.zeros_like(b)
    r = b.clone()
    z = r / total
    p = z.clone()
    rz = float(r @ z)
    goal = tol**2 * rz
    for _ in range(max(50, 2 * math.isqrt(m))):
        if rz <= goal or rz == 0:
            break
        ap = total * p - per_cell(i, weights * p[j], m) - per_cell(j, weights * p[i], m)
        a = rz / float(p @ ap)
        s += a * p
        r -= a * ap
        z = r / total
        rz, before = float(r @ z), rz
        p = z + (rz / before) * p
    return s
