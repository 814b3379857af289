"""The named problems, each solved with defaults: time, samples against the sampling bound, and the certificate.

python bench/solve.py                      every named problem, uniform source
python bench/solve.py --source normal mixture-2000x16 digits-1797x64
python bench/solve.py --method log_ratio --tol 0.0025 mixture-2000x16
python bench/solve.py --tight              to a certified tv of 2 % and 1 %, where cells are sampled: 30 minutes
python bench/solve.py --quick              two small ones, writing nothing; exits with 1 if one is not certified
"""

import argparse
import sys
import time
import warnings
from typing import Any

import torch
from harness import parser_of, report

from otgen import ConvergenceWarning, SemiDiscreteOT
from otgen.data import PROBLEMS, problem
from otgen.ot.certificate import FLOOR, sampling_bound

QUICK = ("swiss-roll-256", "mixture-2000x16")

TIGHT = (0.02, 0.01)
"""Total variations that --tight asks for; on equal weights tv is FLOOR sqrt(chi2)."""


def main() -> None:
    """Solve each problem and write results/solve.json."""
    parser = parser_of(__doc__)
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS))
    parser.add_argument("--source", default="uniform")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--tol", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="of the JSON file; solve or solve-tight where all are solved with defaults")
    parser.add_argument("--tight", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows = []
    if arguments.quick:
        arguments.problems = QUICK
    elif not arguments.name and _file(arguments) is None:
        print("not every problem with the defaults: nothing is written without --name", file=sys.stderr)
    for name in arguments.problems:
        if not arguments.tight:
            rows.append(solve(name, arguments))
            print(rows[-1], flush=True)
            continue
        for tv in TIGHT:
            arguments.tol = (tv / FLOOR) ** 2
            row = solve(name, arguments)
            if row["samples"] == 0:  # cells were computed
                break
            row["tv"], row["samples / bound"] = tv, row["samples"] / sampling_bound(row["targets"], tv)
            rows.append(row)
            print(row, flush=True)
    report(None if arguments.quick else _file(arguments), rows)
    if arguments.quick and not all(row["certified"] for row in rows):
        sys.exit("a problem was not certified")


def _file(arguments: argparse.Namespace) -> str | None:
    """Where rows are written: results of the README only by what the README says of them."""
    if arguments.name:
        return str(arguments.name)
    usual = arguments.problems == list(PROBLEMS) and (arguments.source, arguments.method) == ("uniform", "auto")
    if not usual or arguments.seed or not (arguments.tight or arguments.tol == 0.01):
        return None
    return "solve-tight" if arguments.tight else "solve"


def solve(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row. The bound is for the total variation that a chi2 like the certified one has on equal weights."""
    targets, weights = problem(name, arguments.seed)
    ot = SemiDiscreteOT(
        arguments.source, method=arguments.method, tol=arguments.tol, seed=arguments.seed, progress=False
    )
    began = time.perf_counter()
    ot.fit(targets, weights)
    seconds = time.perf_counter() - began
    c = ot.certificate_
    tv = FLOOR * max(c.chi2, 1e-12) ** 0.5
    return {
        "problem": name,
        "targets": c.targets,
        "method": arguments.method,
        "source": arguments.source,
        "tol": arguments.tol,
        "seed": arguments.seed,
        "certified": ot.converged_,
        "seconds": seconds,
        "samples": ot.samples_,
        "samples / bound": ot.samples_ / sampling_bound(c.targets, tv),
        "chi2": c.chi2,
        "se": c.chi2_se,
        "tv (unbiased)": tv,
        "empty": c.empty_cells,
    }


if __name__ == "__main__":
    main()
