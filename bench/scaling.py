"""How the cost of a certified solution grows: m^a d^b tv^c fitted to time and samples; results/scaling.json.

python bench/scaling.py            m, d and tolerance in turn, about five minutes
python bench/scaling.py --large    60 000 targets in 64 dimensions to the end, 200 000 in 128 for some steps
python bench/scaling.py --quick    the smallest sizes, writing nothing

Theory: a solution takes a number of samples proportional to m / tv^2, each scored against m targets of d coordinates,
so time grows like m^2 d / tv^2.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
import warnings
from typing import Any

import torch
from harness import parser_of, report

from otgen import ConvergenceWarning, SemiDiscreteOT
from otgen.data import problem
from otgen.ot.certificate import FLOOR

TARGETS = [(m, 16, 0.01) for m in (1000, 2000, 4000, 8000, 16000)]
DIMENSIONS = [(2000, d, 0.01) for d in (8, 16, 32, 64, 128)]
TOLERANCES = [(2000, 16, tol) for tol in (0.04, 0.02, 0.01, 0.005, 0.0025)]

LARGE = [(60_000, 64, 0.01, None), (200_000, 128, 0.01, 20)]
"""m, d, tolerance, and samples per target where it is stopped; `None` for the default's."""

THEORY = {"seconds": (2, 1, -2), "samples": (1, 0, -2)}
"""Exponents of m, d and tv."""

Row = dict[str, Any]


def main() -> None:
    """Solve, fit, and write."""
    parser = parser_of(__doc__)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)  # the process of one large problem
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    if arguments.one:
        print(json.dumps(solve(*arguments.one, seeds=1)))
    elif arguments.large:
        report("scaling-large", [large(case, arguments.threads) for case in LARGE])
    else:
        seeds = 1 if arguments.quick else 3
        axes = [TARGETS[:2], DIMENSIONS[:2], TOLERANCES[:2]] if arguments.quick else [TARGETS, DIMENSIONS, TOLERANCES]
        rows = [solve(m, d, tol, None, seeds) for m, d, tol in dict.fromkeys(case for axis in axes for case in axis)]
        rows += [{"of": of} | exponents(rows, of) for of in THEORY]
        report(None if arguments.quick else "scaling", rows)


def solve(m: int, d: int, tol: float, per_target: int | None, seeds: int) -> Row:
    """One row: medians over seeds of the solver's randomness."""
    targets, weights = problem(f"mixture-{m}x{d}", 0)
    seconds, fits = [], []
    for seed in range(seeds):
        most = None if per_target is None else per_target * m
        ot = SemiDiscreteOT(tol=tol, seed=seed, max_samples=most, progress=False)
        began = time.perf_counter()
        fits.append(ot.fit(targets, weights))
        seconds.append(time.perf_counter() - began)
    row = {
        "m": m, "d": d, "tol": tol, "tv": FLOOR * math.sqrt(tol), "seconds": statistics.median(seconds),
        "spread": (max(seconds) - min(seconds)) / 2, "samples": statistics.median(ot.samples_ for ot in fits),
        "certified": all(ot.converged_ for ot in fits), "chi2": statistics.median(ot.certificate_.chi2 for ot in fits),
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }  # fmt: skip
    print(row, file=sys.stderr, flush=True)
    return row


def exponents(rows: list[Row], of: str) -> dict[str, float]:
    """Exponents a, b and c of m, d and tv by least squares of logarithms, with standard errors, and the theory's."""
    a = torch.tensor([[1.0, *(math.log(row[key]) for key in ("m", "d", "tv"))] for row in rows], dtype=torch.float64)
    t = torch.tensor([math.log(row[of]) for row in rows], dtype=torch.float64)
    inverse = torch.linalg.inv(a.T @ a)
    x = inverse @ (a.T @ t)
    variance = float((t - a @ x).square().sum()) / max(1, len(t) - 4)
    errors = (variance * inverse.diagonal()).sqrt()
    found = {}
    for i, key in enumerate(("m", "d", "tv")):
        found |= {key: float(x[i + 1]), f"{key} se": float(errors[i + 1]), f"{key} theory": THEORY[of][i]}
    return found


def large(case: tuple[int, int, float, int | None], threads: int) -> Row:
    """A row from a process of its own, whose peak memory is that of the problem, Python and torch included."""
    command = [sys.executable, __file__, "--threads", str(threads), "--one", json.dumps(case)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return {"m": case[0], "d": case[1], "tol": case[2], "failed": f"exit code {done.returncode}"}
    row: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return row


if __name__ == "__main__":
    main()
