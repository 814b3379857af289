"""Damped Newton on fresh samples: sparse Laplacian from the second-best targets, conjugate gradients.

The energy's Hessian is a graph Laplacian whose edge ij weighs mu(facet) / |y_i - y_j|. Each step measures cells and
facets on fresh samples, solves a regularised Newton system and moves; samples grow as the error falls to their noise.
Samples are measured in two independent halves: their product shows the error without noise, their difference the noise,
whatever the sampler.

What makes it stable far from the solution:

- a bandwidth for every cell, since gaps differ by orders of magnitude between cells;
- secants instead of tangents: the measure of a cell grows like a power d of its height, so a cell that holds too much
  sinks further than its tangent says, and one that holds too little rises less;
- a diagonal that is large where a cell has few samples, and vanishes at the solution;
- a Courant number: a step moves so far that almost no cell exchanges much more than its own mass with its neighbours;
- cells that are empty and far are raised at once to where they take their share (a c-transform, Algorithm 1 of
  Kitagawa, Mérigot and Thibert works from non-empty cells only);
- a step is taken back in part when the slope of the energy along it has turned and is steep (E is convex).

What makes it use every sample near the solution: a step takes the part S / (S + noise) of the error away, S being chi2
of the heights. That is the part that leaves least, `S noise / (S + noise)`, so the heights are the mean of all steps so
far, each weighted by its samples (a Kalman filter). A cell whose own error is certain takes more of it away.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from otgen import ops
from otgen.ops import Measure
from otgen.ot.certificate import CONFIDENCE, samples_needed, total_variation
from otgen.ot.problem import Problem
from otgen.ot.solvers.base import Run, State, per_cell
from otgen.ot.solvers.starts import best_guess

FIRST = 10  # samples per target in the first steps
CAP = 2.0  # most samples in one step, in units of m / tol: their noise is half the tolerance
SMALL = 0.25  # least samples of a step after a failed look, in units of those that leave the goal
BANDWIDTH = 2.0  # of a cell, in mean gaps
NOISE_TERM = 0.5  # of the diagonal: times 1 / sqrt(samples near the facets of the cell)
CERTAIN = 9.0  # an error of three standard errors is taken for real in part, whatever the others are
DAMPING = (0.01, 20.0)  # range of the factor on the noise term, which starts at 1
STRAIGHT = 0.2  # a step that left at most this part of chi2 beyond what was foreseen halves the damping
COURANT, COURANT_SHARE = 1.5, 0.98  # this share of the cells exchanges at most so many times its mass in a step
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


@dataclass(frozen=True)
class NewtonState(State):
    """Adds to `State`: samples of the next step, the damping factor, the last step and what was expected of it.

    Attributes:
        n: Samples of the next measurement, even.
        damping: Factor on the noise term of the diagonal.
        base: Heights before the last step, (m,).
        move: The last step, (m,).
        slope: Of the energy along it where it began; 0 if there is none to judge.
        signal: The chi2 there.
        linear: The chi2 that it would leave if measures were linear in the heights; 0 if there is none to judge.
        best: Smallest chi2 signal seen since samples were last doubled.
        stall: Measurements without improvement since then.
        best_tv: Smallest tv over all measurements.
        idle: Measurements since `best_tv` last fell by a tenth.
    """

    n: int = 0
    damping: float = 1.0
    base: Tensor | None = None
    move: Tensor | None = None
    slope: float = 0.0
    signal: float = 0.0
    linear: float = 0.0
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
        seen = _measure(problem, state, run)
        chi2, doubt = seen.chi2, seen.doubt
        if math.isfinite(state.chi2_se):
            share = doubt**2 / (doubt**2 + state.chi2_se**2)
            chi2, doubt = (1 - share) * chi2 + share * state.chi2, math.sqrt(share) * state.chi2_se
        signal = max(chi2, doubt)
        tv = total_variation(seen.counted.counts, problem.nu)
        run.record(state.step, state.n, chi2, tv, int((seen.counted.counts == 0).sum()))
        state = _note_progress(replace(state, step=state.step + 1, chi2_se=math.inf), signal, tv, run, problem)
        if problem.m == 1:
            return replace(state, expected=0.0)

        if state.slope < 0 and state.base is not None and state.move is not None:
            slope = float(seen.residual @ state.move)
            blur = math.sqrt(seen.noise / problem.m * float(problem.nu @ state.move.square()))  # its standard error
            if slope > TURNED * -state.slope + 2 * blur:
                part = min(0.7, max(0.1, state.slope / (state.slope - slope)))
                return replace(
                    state,
                    h=state.base + part * state.move,
                    move=part * state.move,
                    slope=part * state.slope,
                    linear=0.0,
                    damping=min(state.damping * 1.5, DAMPING[1]),
                    n=_grown(state, run, problem) if state.stall >= STALLED else state.n,
                )
        bent = 0.0
        if state.linear > 0:
            bent = max(0.0, signal - state.linear) / state.signal
            state = replace(state, damping=max(DAMPING[0], state.damping / (2 if bent < STRAIGHT else 1.2)))

        gain = _gains(problem, seen, signal)
        move, courant, raised = _newton_step(problem, state, seen, gain, run)
        part = min(1.0, COURANT / courant)
        linear = _left(problem, seen, part * gain)
        # What the last step left beyond the linear was about quadratic in the error.
        left = linear + bent * signal * min(1.0, signal / max(state.signal, 1e-300))
        left += doubt / 2  # for both parts of it, at a gain of about a half
        grow = signal < 2 * seen.noise or state.stall >= STALLED
        base = state.h + raised
        h = base + part * move
        return replace(
            state,
            h=h - h.mean(),
            base=base - h.mean(),
            move=part * move,
            slope=part * float(seen.residual @ move),
            signal=signal,
            linear=linear,
            n=_next_samples(state, run, problem, left, seen.noise + doubt) if grow else state.n,
            stall=0 if grow else state.stall,
            best=math.inf if state.stall >= STALLED else state.best,
            expected=left,
        )


@dataclass(frozen=True)
class _Seen:
    """A measurement: its samples, `w - nu`, its chi2 without the noise, the standard error of that, and the noise."""

    counted: Measure
    residual: Tensor
    chi2: float
    doubt: float
    noise: float


def _measure(problem: Problem, state: NewtonState, run: Run) -> _Seen:
    half = state.n // 2
    a, b = (run.measure(state.h, half, "newton", 2 * state.step + i, pairs=problem.m > 1) for i in (0, 1))
    both = a + b
    residual = both.counts.double() / state.n - problem.nu
    noise = float(((a.counts - b.counts).double().square() / problem.nu).sum()) / state.n**2
    chi2 = float((residual.square() / problem.nu).sum()) - noise
    # As if one more cell had shown the noise of independent samples: two cells may show none by chance.
    usual = float((both.counts / problem.nu).sum()) / state.n**2
    noise = (problem.m * noise + usual / problem.m) / (problem.m + 1)
    # The sum over cells of the product of two halves' errors; with Sobol points cells are not independent, and noise
    # too small an estimate of the spread.
    doubt = 2 * math.sqrt((usual + max(chi2, 0.0)) * noise / problem.m)
    return _Seen(both, residual, chi2, doubt, noise)


def first_samples(problem: Problem, run: Run) -> int:
    """Samples of the first measurement: so many per target, and enough for the smaller weights to be seen."""
    small = float(problem.nu.quantile(0.1)) if problem.m <= 1 << 20 else float(problem.nu.min())
    wanted = max(FIRST * problem.m, min(FIRST_SEEN / small, 4 * FIRST * problem.m), 2000)
    return _even(min(wanted, max(CAP * problem.m / run.tol, 2000)))


def _grown(state: NewtonState, run: Run, problem: Problem) -> int:
    return max(state.n, _even(min(2 * state.n, CAP * problem.m / run.tol)))


def _next_samples(state: NewtonState, run: Run, problem: Problem, left: float, noise: float) -> int:
    """Twice as many, or fewer if they suffice for the goal: the chi2 for which steps and certificate take fewest."""
    unit = noise * state.n
    smallest, shares = float(problem.nu.min()), [0.05 * i for i in range(6, 16)]
    goal = min(
        (share * run.tol for share in shares),
        key=lambda goal: unit / goal + samples_needed(problem.m, smallest, run.tol, goal, CONFIDENCE),
    )
    enough = max(unit * (1.05 / goal - 1 / left), SMALL * unit / goal)
    return max(first_samples(problem, run), _even(min(enough, _grown(state, run, problem))))


def _even(n: float) -> int:
    return 2 * int(n / 2)


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
    problem: Problem, state: NewtonState, seen: _Seen, gain: Tensor, run: Run
) -> tuple[Tensor, float, Tensor]:
    """The full step (m,), its Courant number, and by how much empty cells are raised beforehand (m,)."""
    counted = seen.counted
    assert counted.pairs is not None
    assert counted.gaps is not None
    m, d, nu, counts = problem.m, problem.d, problem.nu, counted.counts.double()
    winner = counted.pairs[:, 0].long()
    mean_gap = max(float(counted.gaps.mean()), 1e-300)
    gap = _cell_gaps(per_cell(winner, counted.gaps, m), counts, mean_gap)
    width = BANDWIDTH * gap
    near = per_cell(winner, counted.gaps < width[winner], m)
    edges, weights = ops.laplacian(counted.pairs, counted.gaps.float(), width.float(), state.n)

    w = (counts + 0.5) / state.n
    secant = _secant(w, (nu + 0.5 / state.n) / w, gain, d)
    root = (secant / w).sqrt()
    weights = weights / band_mean(d) * root[edges[:, 0]] * root[edges[:, 1]]
    diagonal = secant / gap * (state.damping * NOISE_TERM / (near + 1).sqrt() + 1 / (near + 1) ** 2)

    raised = _raise_empty(problem, state, counted.counts, counted.pairs[:, 0], mean_gap, run)
    pull = gain * seen.residual
    move = conjugate_gradients(edges, weights, diagonal, nu * pull.sum() - pull)
    move[raised > 0] = 0.0
    move = move - move.mean()
    flow = weights * (move[edges[:, 0]] - move[edges[:, 1]]).abs()
    exchange = (per_cell(edges[:, 0], flow, m) + per_cell(edges[:, 1], flow, m)) / torch.maximum(nu, counts / state.n)
    return move, float(exchange.kthvalue(max(1, round(COURANT_SHARE * m))).values) + 1e-12, raised


def _gains(problem: Problem, seen: _Seen, signal: float) -> Tensor:
    """The part of each cell's error that is to be taken away, (m,): what leaves least of all, or more of the few large.

    Of an error of z standard errors 1 - CERTAIN / z^2 are certain (James and Stein).
    """
    z2 = seen.residual.square() / (problem.nu * seen.noise / problem.m)
    return (1 - CERTAIN / z2.clamp_min(CERTAIN)).clamp_min(signal / (signal + seen.noise))


def _left(problem: Problem, seen: _Seen, gain: Tensor) -> float:
    """The chi2 that is left by such gains, (m,), if measures are linear in the heights.

    A cell's share of chi2 falls to (1 - gain)^2 of itself, and gets gain^2 of its noise.
    """
    noise = seen.noise / problem.m
    error = seen.residual.square() / problem.nu - noise
    let_in = noise * float(gain.square().sum())
    return let_in + max(0.0, float(((1 - gain).square() * error).sum()))


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
    n = min(state.n // 2, RAISE_SAMPLES)
    x = run.sample(n, "newton", 2 * (state.step - 1), again=True)  # of the first half
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
