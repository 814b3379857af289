"""The default where cells are sampled: Newton from the best guess, or from annealing where guesses are seen to fail."""

import math
from dataclasses import dataclass
from typing import cast

from otgen.ot.problem import Problem
from otgen.ot.solvers.base import Run
from otgen.ot.solvers.newton import Newton, NewtonState, first_samples
from otgen.ot.solvers.starts import anneal, best_guess, voronoi

LOW_DIM = 3
"""Up to this dimension a cell has few neighbours, mass travels far through many, and Newton wants a good start."""

PATIENCE = 12
"""Measurements without progress after which the start is taken to have failed."""


@dataclass(frozen=True)
class AutoState(NewtonState):
    """Adds whether annealing has been done."""

    annealed: bool = False


class Auto(Newton):
    """Newton, annealed at the start in low dimension and elsewhere once Newton makes no progress."""

    name = "auto"
    state = AutoState

    def start(self, problem: Problem, run: Run) -> AutoState:
        """The caller's heights, annealed heights, or the best guess."""
        n = first_samples(problem, run)
        if run.start is not None:
            return AutoState(run.start - run.start.mean(), n=n)
        if problem.d <= LOW_DIM and problem.m > 1:
            h = anneal(problem, run, voronoi(problem, 0.5))
            return AutoState(h - h.mean(), n=n, annealed=True)
        h = best_guess(problem, run)
        return AutoState(h - h.mean(), n=n)

    def step(self, problem: Problem, state: NewtonState, run: Run) -> AutoState:
        """A Newton step, or annealing when those have led nowhere."""
        state = cast(AutoState, super().step(problem, state, run))
        if state.annealed or state.idle < PATIENCE or math.isfinite(state.expected) and state.expected <= run.tol:
            return state
        h = anneal(problem, run, state.h)
        return AutoState(
            h - h.mean(),
            step=state.step,
            looks=state.looks,
            fallback=state.fallback,
            n=first_samples(problem, run),
            best_tv=state.best_tv,
            annealed=True,
        )
