"""The default where cells are sampled: Newton from the best guess, or from annealing where guesses are seen to fail."""

import math
from dataclasses import dataclass
from typing import cast

from otgen.ot.problem import Problem
from otgen.ot.solvers.annealing import anneal
from otgen.ot.solvers.base import Run
from otgen.ot.solvers.newton import Newton, NewtonState, first_samples
from otgen.ot.solvers.quantiles import on_a_line, sampled_on_a_line
from otgen.ot.solvers.starts import best_guess, plain_guess, voronoi

LOW_DIM = 3
"""Up to this dimension a cell has few neighbours, mass travels far through many, and Newton wants a good start."""

NEAR = 0.42
"""Total variation of a guess that is a good start, of which noise makes 0.27. Targets that lie as the source does show
0.29 to 0.37, and most need a tenth of the time from there; others show 0.46 and more."""

LINE_SHARE = 0.3
"""Of the tolerance that heights for targets on a line leave at first. Newton is lost there: facets are points."""

MOST_ON_A_LINE = 1 << 26
"""Samples whose places on it are kept: half a gigabyte."""

STRAIGHT, NEARLY = 1e-9, 1e-3
"""How far off their line targets may be to have the heights of those on it; and to begin with these."""

PATIENCE = 12
"""Measurements without progress after which the start is taken to have failed."""


@dataclass(frozen=True)
class AutoState(NewtonState):
    """Adds whether annealing has been done."""

    annealed: bool = False


class Auto(Newton):
    """Newton, annealed at the start in low dimension if no guess is near, and elsewhere once Newton makes no progress.

    Targets on a line have the heights that the source's quantiles along it give, known or of samples.
    """

    name = "auto"
    state = AutoState

    def start(self, problem: Problem, run: Run) -> AutoState:
        """The caller's heights, annealed heights, or the best guess."""
        n = first_samples(problem, run)
        off = problem.line.off if problem.m > 1 else math.inf
        if off <= STRAIGHT or (off <= NEARLY and run.start is None):
            return self._on_a_line(problem, run, 0, 0)
        if run.start is not None:
            return AutoState(run.start - run.start.mean(), n=n)
        low = problem.d <= LOW_DIM and problem.m > 1
        h, tv = plain_guess(problem, run) if low else (best_guess(problem, run), 0.0)
        if tv > NEAR:
            return AutoState(anneal(problem, run, voronoi(problem, 0.5)), n=n, annealed=True)
        return AutoState(h - h.mean(), n=n)

    def step(self, problem: Problem, state: NewtonState, run: Run) -> AutoState:
        """A Newton step, or annealing when those have led nowhere."""
        if problem.m > 1 and problem.line.off <= STRAIGHT:
            return self._on_a_line(problem, run, state.step, state.looks)
        state = cast(AutoState, super().step(problem, state, run))
        if state.annealed or state.idle < PATIENCE or state.expected <= run.tol:
            return state
        return AutoState(
            anneal(problem, run, state.h),
            step=state.step,
            looks=state.looks,
            fallback=state.fallback,
            n=first_samples(problem, run),
            best_tv=state.best_tv,
            annealed=True,
        )

    def _on_a_line(self, problem: Problem, run: Run, step: int, looks: int) -> AutoState:
        """Heights for targets on a line after so many steps and looks, from twice the samples for each that failed."""
        h, expected, spent = on_a_line(problem), 0.0, False
        if h is None:
            most = min(run.max_samples, MOST_ON_A_LINE)
            n = max(2, min(int(problem.m / (LINE_SHARE * run.tol)) << looks, most))
            h, expected = sampled_on_a_line(problem, run, n, looks), problem.m / n
            spent = n == most and problem.line.off <= STRAIGHT  # Newton goes on beside a line
        n = first_samples(problem, run)
        h = h - h.mean()
        return AutoState(h, step=step + 1, looks=looks, n=n, expected=expected, exhausted=spent)
