"""otgen itself, with its defaults, watched after every step."""

from typing import Any

from race import Given, Watch
from torch import Tensor

from otgen.ot.solvers import Run, solve_by_samples
from otgen.ot.solvers.auto import Auto

LABEL = "otgen"
PACKAGE = "otgen"
DEFAULTS: dict[str, Any] = {"seed": 0}


def run(given: Given, settings: dict[str, Any], watch: Watch) -> None:
    """The default solver in four dimensions and more; its own certificate ends it, not the judge's."""
    problem = watch.problem

    class Watched(Auto):
        def step(self, problem: Any, state: Any, run: Run) -> Any:
            new = super().step(problem, state, run)
            watch.look(lambda: [_out(new.h)], run.used)
            return new

    def _out(h: Tensor) -> Tensor:
        return problem.heights_out(h)

    warm = Run(problem, tol=1e9, max_samples=1, seed=1)
    solve_by_samples(Auto(), warm)
    watch.start()
    solution = solve_by_samples(Watched(), Run(problem, tol=watch.tol, max_samples=10**9, seed=settings["seed"]))
    watch.judge(watch.seconds, [_out(solution.h)], solution.samples)
