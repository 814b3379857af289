"""Damped Newton on fresh samples: sparse Laplacian from the second-best targets, conjugate gradients.

The energy's Hessian is a graph Laplacian whose edge ij weighs mu(facet) / |y_i - y_j|. Each step measures cells and
facets on fresh samples, solves a regularised Newton system and moves; samples grow as the error falls to their noise.
Samples are measured in two independent halves: their product shows the error without noise, their difference the noise,
whatever the sampler.

What makes it stable far from the solution:

- a bandwidth for every cell, since gaps differ by orders of magnitude between cells;
- secants instead of tangents: the measure of a cell grows like a power d of its height, so a cell that holds too much
  sinks further than its tangent says, and one that holds too little rises less;
- slopes that are larger where a cell has few samples, by what vanishes at the solution. In part only they hold a cell
  where it is: a group that goes far together would leave it behind, and lose its mass to it or win it all;
- one sample more at each facet than was seen, lest a pair of cells close together leave its other neighbours;
- a Courant number: a step moves so far that almost no cell exchanges much more than its own mass with its neighbours;
- empty cells are raised at once to where they take their share of what the others leave (a c-transform; Algorithm 1 of
  Kitagawa, Mérigot and Thibert works from non-empty cells only);
- a step is taken back in part when the slope of the energy along it has turned and is steep (E is convex).

What makes it use every sample near the solution: a step takes the part S / (S + noise) of the error away, S being chi2
of the heights. That is the part that leaves least, `S noise / (S + noise)`, so the heights are the mean of all steps so
far, each weighted by its samples (a Kalman filter). A cell whose own error is certain takes more of it away.
"""

import math
from dataclasses import dataclass, replace

from torch import Tensor

from otgen.ot.certificate import CONFIDENCE, total_variation
from otgen.ot.problem import Problem
from otgen.ot.solvers.base import Run, State, samples_of_look
from otgen.ot.solvers.halves import gains, left_by, measure
from otgen.ot.solvers.newton_step import newton_step, raise_empty
from otgen.ot.solvers.starts import best_guess

FIRST = 10  # samples per target in the first steps
CAP = 2.0  # most samples in one step, in units of m / tol: their noise is half the tolerance
SMALL = 0.25  # least samples of a step after a failed look, in units of those that leave the goal
DAMPING = (0.01, 20.0)  # range of the factor on the noise term, which starts at 1
STRAIGHT = 0.2  # a step that left at most this part of chi2 beyond what was foreseen halves the damping
COURANT = 1.5  # most cells exchange at most so many times their mass in a step
TURNED = 0.5  # a slope that has turned to this part of its first size undoes part of the step
STALLED = 4  # measurements without progress, after which samples are doubled
HOPELESS = 40  # and after which the method gives up, once the samples are at their cap


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
        seen = measure(problem, state.h, state.n, state.step, run)
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

        gain = gains(problem, seen, signal)
        move, courant = newton_step(problem, seen, gain, state.damping)
        # No height is farther from another than the source's reach; cells that seem to touch none would go anywhere.
        reach = 2 * problem.source.radius(problem.d) * float(problem.y.norm(dim=1).max())
        part = min(1.0, COURANT / max(courant, 1e-12), reach / max(float(move.abs().max()), 1e-300))
        move = part * move
        raised = raise_empty(problem, state.h, move, seen, state.step - 1, run)
        move[raised != 0] = 0.0
        linear = left_by(problem, seen, part * gain)
        # What the last step left beyond the linear was about quadratic in the error.
        left = linear + bent * signal * min(1.0, signal / max(state.signal, 1e-300))
        left += doubt / 2  # for both parts of it, at a gain of about a half
        grow = signal < 2 * seen.noise or state.stall >= STALLED
        base = state.h + raised
        h = base + move
        return replace(
            state,
            h=h - h.mean(),
            base=base - h.mean(),
            move=move,
            slope=float(seen.residual @ move),
            signal=signal,
            linear=linear,
            n=_next_samples(state, run, problem, left, seen.noise + doubt) if grow else state.n,
            stall=0 if grow else state.stall,
            best=math.inf if state.stall >= STALLED else state.best,
            expected=left,
        )


def first_samples(problem: Problem, run: Run) -> int:
    """Samples of the first measurement."""
    return _even(max(min(FIRST * problem.m, CAP * problem.m / run.tol), 2000))


def _grown(state: NewtonState, run: Run, problem: Problem) -> int:
    return max(state.n, _even(min(2 * state.n, CAP * problem.m / run.tol)))


def _next_samples(state: NewtonState, run: Run, problem: Problem, left: float, noise: float) -> int:
    """Twice as many, or fewer if they suffice for the goal: the chi2 for which steps and certificate take fewest."""
    unit = noise * state.n
    goal = min(
        (0.05 * i * run.tol for i in range(6, 16)),
        key=lambda goal: unit / goal + samples_of_look(problem, run.tol, goal, CONFIDENCE),
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
