"""A solver against the clock, in a process of its own; its heights are judged from outside while its clock stands.

python bench/race.py CONTENDER PROBLEM --settings JSON --cap SECONDS     prints one line of JSON
"""

import argparse
import importlib
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from race_problems import given
from torch import Tensor

from otgen.ot.certificate import certify
from otgen.ot.problem import Problem, make_problem
from otgen.ot.sources import make_source
from otgen.seeds import stream

TOL = 0.01
"""Goal for chi2."""

NOISE = 0.1
"""Standard error of the judge's chi2 at the solution, in units of the goal; it decides the samples of a look."""

PACE = 1.25
"""A look comes when the clock has grown by this factor since the last one."""

SHORT = 0.02
"""Seconds before the second look; the first is at the start."""

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""Wall-clock for what is reported; processor time for a search that other jobs may stop and go on with."""

CONTENDERS = {"otgen": "solver_otgen", "ott": "solver_ott", "pot": "solver_pot", "algorithm1": "solver_algorithm1"}
"""Name and module; a module has LABEL, PACKAGE, DEFAULTS, `candidates` and `run`."""


@dataclass(frozen=True)
class Given:
    """What a contender is given: targets y (m, d), float32, and their weights nu (m,), float64; the unit cube."""

    y: Tensor
    nu: Tensor

    def placed(self, spread: float | None) -> tuple[Tensor, float]:
        """The targets as a contender wants them, a y + b, and a.

        Args:
            spread: Centred on the source, with so many times its standard deviation; `None` as they are.
        """
        if spread is None:
            return self.y, 1.0
        y = self.y.double()
        centred = y - (self.nu[:, None] * y).sum(0)
        rms = math.sqrt(float((self.nu[:, None] * centred.square()).sum()) / y.shape[1])
        factor = spread / (math.sqrt(12) * rms)
        return (factor * centred + 0.5).float(), factor


def heights_of(potential: Tensor, y: Tensor, factor: float) -> Tensor:
    """Heights of the given targets from a Kantorovich potential for |x - y|^2 of placed ones, both (m,)."""
    return 0.5 * (potential.double() - y.double().square().sum(1)) / factor


@dataclass
class Watch:
    """The clock of one run, and the judge.

    Args:
        problem: What is solved, for the judge.
        cap: Seconds after which the run ends.
        clock: Seconds that pass.
        pace: Growth of the clock between two looks.
        tol: Goal for chi2, at which the run ends.
    """

    problem: Problem
    cap: float
    clock: Callable[[], float] = time.perf_counter
    pace: float = PACE
    tol: float = TOL
    points: list[dict[str, float]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    _began: float = 0.0
    _next: float = 0.0

    def start(self) -> None:
        """Begin; what was done before is not counted."""
        self._began = self.clock()

    @property
    def seconds(self) -> float:
        """Since the start, without the looks."""
        return self.clock() - self._began

    def look(self, heights: Callable[[], list[Tensor]], samples: int) -> bool:
        """Judge the heights if it is time to; whether to go on."""
        now = self.seconds
        if now < self._next and now < self.cap:
            return True
        going = self.judge(now, heights(), samples)
        self._next = max(now * self.pace, SHORT)
        self._began += self.seconds - now
        return going

    def judge(self, seconds: float, heights: list[Tensor], samples: int) -> bool:
        """Record the best of some heights, each (m,), that a run of so many seconds and samples had; whether to go on.

        Heights that are not finite count as an infinite error, and end the run.
        """
        m = self.problem.m
        n = int(math.sqrt(2 * m) / (NOISE * self.tol))
        best, error = math.inf, 0.0
        for each in heights:
            if bool(torch.isfinite(each).all()):
                seed = stream(1, "judge", len(self.points))
                h = self.problem.heights_in(each)
                found = certify(self.problem, h, self.problem.source.measure(self.problem.y, h, n, seed), seed)
                best, error = min((best, error), (found.chi2, found.chi2_se))
        self.points.append({"seconds": seconds, "chi2": best, "se": error, "samples": samples})
        return math.isfinite(best) and best > self.tol and seconds < self.cap


def reached(points: list[dict[str, float]], tol: float = TOL) -> float | None:
    """Seconds until chi2 was tol, on a straight line between looks where both axes are logarithmic; `None` if never."""
    before: dict[str, float] | None = None
    for point in points:
        if point["chi2"] <= tol:
            if before is None or before["seconds"] <= 0 or not math.isfinite(before["chi2"]) or point["chi2"] <= 0:
                return point["seconds"]
            part = math.log(before["chi2"] / tol) / math.log(before["chi2"] / point["chi2"])
            return before["seconds"] * (point["seconds"] / before["seconds"]) ** part
        before = point
    return None


def race(name: str, problem: str, settings: dict[str, Any], cap: float, threads: int) -> dict[str, Any]:
    """Run a contender in a process of its own.

    Returns:
        "points", a list of seconds, chi2, its standard error and samples; "reached", seconds or `None`; "peak MB" of
        the process; what the contender notes. With "failed" alone where it came to nothing.
    """
    command = [sys.executable, __file__, name, problem, "--settings", json.dumps(settings), "--cap", str(cap)]
    command += ["--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> None:
    """Be the process of one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=list(CONTENDERS))
    parser.add_argument("problem")
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("--cap", type=float, default=30)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    limit_threads(arguments.threads)
    print(json.dumps(contend(arguments.contender, arguments.problem, arguments.settings, arguments.cap)))


def contend(
    name: str, problem: str, settings: dict[str, Any], cap: float, clock: str = "wall", pace: float = PACE
) -> dict[str, Any]:
    """Run a contender in this process; what `race` returns."""
    y, nu = given(problem)
    watch = Watch(make_problem(make_source("uniform"), y, nu), cap, CLOCKS[clock], pace)
    module = importlib.import_module(CONTENDERS[name])
    module.run(Given(y, nu), {**module.DEFAULTS, **settings}, watch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"points": watch.points, "reached": reached(watch.points), "peak MB": peak, **watch.notes}


def limit_threads(threads: int) -> None:
    """Hold this process to so many cores, before JAX counts them."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        first = os.getpid() % max(1, len(cores) - threads + 1)  # two searches at a time seldom sit on one core
        os.sched_setaffinity(0, cores[first : first + threads])
    torch.set_num_threads(threads)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
