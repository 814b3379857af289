"""otgen itself, with its defaults, watched after every step."""

import time
from typing import Any

from race import Given, Watch
from torch import Tensor

from otgen import SemiDiscreteOT
from otgen.ot.solvers import Run, solve_by_samples
from otgen.ot.solvers.auto import Auto

LABEL = "otgen"
PACKAGE = "otgen"
DEFAULTS: dict[str, Any] = {"seed": 0, "fits": 0}
"""fits: whole fits that are timed as a user would time them, each with a seed of its own, besides the curve."""


def run(given: Given, settings: dict[str, Any], watch: Watch) -> None:
    """The default solver in four dimensions and more; its own certificate ends it, not the judge's."""
    problem = watch.problem

    class Watched(Auto):
        """The default, seen after every step."""

        def step(self, problem: Any, state: Any, run: Run) -> Any:
            new = super().step(problem, state, run)
            watch.look(lambda: [out(new.h)], run.used)
            return new

    def out(h: Tensor) -> Tensor:
        return problem.heights_out(h)

    solve_by_samples(Auto(), Run(problem, tol=1e9, max_samples=1, seed=1))  # what is loaded at first use is loaded
    watch.start()
    solution = solve_by_samples(Watched(), Run(problem, tol=watch.tol, max_samples=10**10, seed=settings["seed"]))
    watch.judge(watch.seconds, [out(solution.h)], solution.samples)
    certified, times = solution.converged, []
    for seed in range(settings["fits"]):
        began = time.perf_counter()
        ot = SemiDiscreteOT(tol=watch.tol, seed=seed, progress=False).fit(given.y, given.nu)
        times.append(time.perf_counter() - began)
        certified = certified and ot.converged_
    watch.notes |= {"fits": times, "certified": certified}
