"""Methods that find the heights, one a file."""

from otgen.ot.solvers.base import Run, Solution, Solver, solve_by_samples
from otgen.ot.solvers.methods import LOST, METHODS, SAMPLING, solve

__all__ = ["LOST", "METHODS", "SAMPLING", "Run", "Solution", "Solver", "solve", "solve_by_samples"]
