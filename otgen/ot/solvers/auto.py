"""The default where cells are sampled: Newton from a start that suits the dimension."""

import math

from otgen.ot.problem import Problem
from otgen.ot.solvers.base import Run
from otgen.ot.solvers.multiscale import multiscale
from otgen.ot.solvers.newton import Newton, NewtonState, first_samples
from otgen.ot.solvers.quantiles import on_a_line, sampled_on_a_line
from otgen.ot.solvers.starts import best_guess, tv_on_few

GROUPED_DIM = 6
"""Up to this dimension groups of targets save more than they take; beyond it guesses are as good, and cheaper."""

NEAR = 0.5
"""Total variation up to which the caller's heights are a start, of which noise makes 0.27."""

LINE_SHARE = 0.3
"""Of the tolerance that heights for targets on a line leave at first. Newton is lost there: facets are points."""

MOST_ON_A_LINE = 1 << 26
"""Samples whose places on it are kept: half a gigabyte."""

STRAIGHT, NEARLY = 1e-9, 1e-3
"""How far off their line targets may be to have the heights of those on it; and to begin with these."""


class Auto(Newton):
    """Newton, in low dimension from the heights of groups of targets, and else from the best guess.

    Targets on a line have the heights that the source's quantiles along it give, known or of samples.
    """

    name = "auto"

    def start(self, problem: Problem, run: Run) -> NewtonState:
        """The caller's heights if they are near, or those that can be found without Newton or with less of it."""
        n = first_samples(problem, run)
        off = problem.line.off if problem.m > 1 else math.inf
        if off <= STRAIGHT or (off <= NEARLY and run.start is None):
            return self._on_a_line(problem, run, 0, 0)
        h = run.start
        if h is None or tv_on_few(problem, run, h) > NEAR:
            h = multiscale(problem, run) if problem.d <= GROUPED_DIM else best_guess(problem, run)
        return NewtonState(h - h.mean(), n=n)

    def step(self, problem: Problem, state: NewtonState, run: Run) -> NewtonState:
        """A Newton step, or more samples for targets on a line."""
        if problem.m > 1 and problem.line.off <= STRAIGHT:
            return self._on_a_line(problem, run, state.step, state.looks)
        return super().step(problem, state, run)

    def _on_a_line(self, problem: Problem, run: Run, step: int, looks: int) -> NewtonState:
        """Heights for targets on a line after so many steps and looks, from twice the samples for each that failed."""
        h, expected, spent = on_a_line(problem), 0.0, False
        if h is None:
            most = min(run.max_samples, MOST_ON_A_LINE)
            n = max(2, min(int(problem.m / (LINE_SHARE * run.tol)) << looks, most))
            h, expected = sampled_on_a_line(problem, run, n, looks), problem.m / n
            spent = n == most and problem.line.off <= STRAIGHT  # Newton goes on beside a line
        n = first_samples(problem, run)
        h = h - h.mean()
        return NewtonState(h, step=step + 1, looks=looks, n=n, expected=expected, exhausted=spent)
