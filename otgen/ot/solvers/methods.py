"""The methods by name, and the choice among them."""

from otgen.ot import checkpoint
from otgen.ot.solvers import exact
from otgen.ot.solvers.adam import Adam
from otgen.ot.solvers.auto import Auto
from otgen.ot.solvers.base import Run, Solution, Solver, solve_by_samples
from otgen.ot.solvers.log_ratio import LogRatio
from otgen.ot.solvers.newton import Newton

SAMPLING: dict[str, Solver] = {"auto": Auto(), "newton": Newton(), "log_ratio": LogRatio(), "adam": Adam()}

LOST = 0.01
"""Relative error of a cell above which exact cells have led nowhere; what rounding alone leaves no sample can mend."""

METHODS = ("auto", "exact", "newton", "log_ratio", "adam")


def solve(method: str, run: Run, identity: str = "") -> Solution:
    """Run a method.

    "auto" computes cells exactly where that can be done, and samples them elsewhere, or where float64 cannot tell them
    apart: of targets whose distances differ by more orders of magnitude than it has digits.
    """
    if method not in SAMPLING:
        return exact.solve(run, identity)
    if method == "auto" and exact.knows(run.problem):
        sampled = f"{identity} sampled"
        if checkpoint.owner(run.path) != sampled:
            solution = exact.solve(run, identity)
            if solution.converged or solution.certificate.max_relative_error < LOST:
                return solution
            run.history = []
            if run.path is not None:
                run.path.unlink(missing_ok=True)
        identity = sampled
    return solve_by_samples(SAMPLING[method], run, identity)
