"""Methods that find the heights, one a file; `SOLVERS` names them."""

from otgen.ot.solvers.adam import Adam
from otgen.ot.solvers.auto import Auto
from otgen.ot.solvers.base import Run, Solution, Solver, solve
from otgen.ot.solvers.log_ratio import LogRatio
from otgen.ot.solvers.newton import Newton

SOLVERS: dict[str, Solver] = {"auto": Auto(), "adam": Adam(), "log_ratio": LogRatio(), "newton": Newton()}

__all__ = ["SOLVERS", "Run", "Solution", "Solver", "solve"]
