"""Log-ratio fixed point: heights fall by the logarithm of what their cells hold over what they should.

It needs counts only. With the step eta at the mean gap between best and second-best score it is about Newton's method
with the diagonal of the Hessian, so it settles local imbalances fast and distant ones slowly.
"""

import math
from dataclasses import dataclass, replace

from otgen.ot.certificate import chi2_estimate, total_variation
from otgen.ot.problem import Problem
from otgen.ot.solvers.base import Run, State
from otgen.ot.solvers.newton import CAP, first_samples
from otgen.ot.solvers.starts import best_guess

FIRST_ETA = 1 / 3  # of the score spread of the best few percent
TOP_SHARE = 0.03  # those few percent
LAST_ETA = 0.3  # in median gaps
COOLING = 0.8  # of eta, a step
STALLED = 3  # measurements without progress, after which samples are doubled
HOPELESS = 30


@dataclass(frozen=True)
class LogRatioState(State):
    """Adds the step size.

    Attributes:
        n: Samples of the next measurement.
        eta: Step, in units of the scores.
        best: Smallest chi2 signal so far.
        stall: Measurements since.
    """

    n: int = 0
    eta: float = 0.0
    best: float = math.inf
    stall: int = 0


class LogRatio:
    """`h_j -= eta log((c_j + 1) / (n nu_j + 1))` on fresh samples, eta annealed."""

    name = "log_ratio"
    state = LogRatioState

    def start(self, problem: Problem, run: Run) -> LogRatioState:
        """The caller's heights or the best guess, and the spread of its best scores as first step."""
        h = run.start if run.start is not None else best_guess(problem, run)
        x = run.sample(256, "log-ratio-spread", 0).double()
        top = (x @ problem.y.T + h).topk(max(1, min(problem.m, round(TOP_SHARE * problem.m) + 1)), dim=1).values
        eta = FIRST_ETA * float((top[:, 0] - top[:, -1]).mean())
        return LogRatioState(h - h.mean(), n=first_samples(problem, run), eta=eta)

    def step(self, problem: Problem, state: LogRatioState, run: Run) -> LogRatioState:
        """Measure and correct."""
        counted = run.measure(state.h, state.n, "log-ratio", state.step, pairs=problem.m > 1)
        chi2, _ = chi2_estimate(counted.counts, problem.nu)
        tv = total_variation(counted.counts, problem.nu)
        run.record(state.step, state.n, chi2, tv, int((counted.counts == 0).sum()))
        if problem.m == 1:
            return replace(state, step=state.step + 1, expected=0.0)
        assert counted.gaps is not None
        signal, noise = max(chi2, 0.0), problem.m / state.n
        progress = signal < 0.9 * state.best
        stall = 0 if progress else state.stall + 1
        last = LAST_ETA * float(counted.gaps.median())
        h = state.h - state.eta * ((counted.counts + 1) / (state.n * problem.nu + 1)).log()
        cap = int(CAP * problem.m / run.tol)
        grow = state.eta <= last and (signal < 2 * noise or stall >= STALLED)
        return replace(
            state,
            h=h - h.mean(),
            step=state.step + 1,
            n=max(state.n, min(2 * state.n, cap)) if grow else state.n,
            eta=max(COOLING * state.eta, last),
            best=min(signal, state.best),
            stall=stall,
            expected=0.5 * (signal + noise) if state.eta <= last else math.inf,
            exhausted=stall >= HOPELESS and state.n >= cap,
        )
