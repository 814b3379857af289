"""The methods by name, and the choice among them."""

from otgen.ot.solvers import exact
from otgen.ot.solvers.adam import Adam
from otgen.ot.solvers.auto import Auto
from otgen.ot.solvers.base import Run, Solution, Solver, solve_by_samples
from otgen.ot.solvers.log_ratio import LogRatio
from otgen.ot.solvers.newton import Newton

SAMPLING: dict[str, Solver] = {"auto": Auto(), "newton": Newton(), "log_ratio": LogRatio(), "adam": Adam()}

METHODS = ("auto", "exact", "newton", "log_ratio", "adam")


def solve(method: str, run: Run, identity: str = "") -> Solution:
    """Run a method; "auto" computes cells exactly where that can be done, and samples them elsewhere."""
    if method == "exact" or (method == "auto" and exact.knows(run.problem)):
        return exact.solve(run, identity)
    return solve_by_samples(SAMPLING[method], run, identity)
