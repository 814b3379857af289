"""Solvers side by side: seconds until chi2 is 0.01, of otgen until that is certified; results/peers.json.

python bench/peers.py                                   every problem and contender, about 30 minutes
python bench/peers.py --problems mixture-2000x16 --cap 60
python bench/peers.py --quick                           a problem for a few seconds each, writing nothing

All run in processes of their own with the same number of threads, on the same targets, uniform source and cost, with
the settings that bench/search.py found. All are judged alike, on fresh samples that nobody pays for (race.py). For the
peers it counts when chi2 was 0.01 on a line between the look before and the first that shows less, with the solver's
own error estimates left out; for otgen it is a whole `fit` with defaults, its certificate and centroids included. A
peer is stopped when it is slower than is asked.
"""

import importlib
import importlib.metadata
import itertools
import json
import math
import statistics
import sys
from typing import Any

import torch
from harness import RESULTS, machine, parser_of, report, write_json
from race import CONTENDERS, race
from race_problems import RACE
from search import chosen

AIMS = {"ott": 30, "pot": 100, "algorithm1": 100}
"""How many times as fast otgen is to be."""

MARGIN = 1.2  # of the cap over the aim
SHORTEST = 10.0  # seconds that a peer gets in any case
SHORT = 20.0  # below which a peer is run three times, and the median counts

Row = dict[str, Any]


def main() -> None:
    """Race and write."""
    parser = parser_of(__doc__)
    parser.add_argument("--problems", nargs="+", choices=RACE, default=list(RACE))
    parser.add_argument("--contenders", nargs="+", choices=list(AIMS), default=list(AIMS))
    parser.add_argument("--cap", type=float, default=200, help="most seconds a peer gets")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.quick:
        arguments.problems, arguments.cap = RACE[:1], 2.0
    known = [name for name in arguments.contenders if installed(name)]
    rows: list[Row] = []
    for problem in arguments.problems:
        rows += race_all(problem, known, arguments.cap, arguments.threads)
        if not arguments.quick:
            write_json(RESULTS / "peers.json", {"machine": machine(), "rows": merged(rows)})
    report(None, [{k: v for k, v in row.items() if k not in ("points", "settings")} for row in rows])
    if any("failed" in row for row in rows):
        sys.exit("a contender failed")


def merged(rows: list[Row]) -> list[Row]:
    """These rows, and those of the file of other problems and contenders, in the order of the race."""
    path = RESULTS / "peers.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    found = {(row["problem"], row["contender"]): row for row in [*before, *rows]}
    return [found[key] for key in itertools.product(RACE, ("otgen", *AIMS)) if key in found]


def race_all(problem: str, known: list[str], cap: float, threads: int) -> list[Row]:
    """Rows of one problem: ours before and after the peers."""
    first = race("otgen", problem, {"fits": 3}, 1e9, threads)
    if "failed" in first:
        sys.exit(f"otgen: {first['failed']}")
    mine = statistics.median(first["fits"])
    rows = [run(name, problem, min(cap, max(SHORTEST, MARGIN * AIMS[name] * mine)), threads) for name in known]
    again = race("otgen", problem, {"fits": 3}, 1e9, threads)
    if "failed" in again:
        sys.exit(f"otgen: {again['failed']}")
    fits = [*first["fits"], *again["fits"]]
    mine = statistics.median(fits)
    for row in rows:
        if "failed" not in row:
            row["ratio"] = (row["points"][-1]["seconds"] if row["seconds"] is None else row["seconds"]) / mine
    ours = {"contender": "otgen", "label": "otgen", "problem": problem, "seconds": mine, "ratio": 1.0,
            "slowest": max(fits), "fastest": min(fits), "chi2": first["points"][-1]["chi2"],
            "samples": first["points"][-1]["samples"], "certified": first["certified"] and again["certified"],
            "peak MB": first["peak MB"], "points": first["points"]}  # fmt: skip
    return [row | {"commit": machine()["commit"]} for row in [ours, *rows]]


def run(name: str, problem: str, cap: float, threads: int) -> Row:
    """Row of a peer; "seconds" is `None` where chi2 stayed above the goal until its last look."""
    module, (settings, origin) = importlib.import_module(CONTENDERS[name]), chosen(name, problem)
    row = {"contender": name, "label": module.LABEL, "problem": problem, "cap": cap, "settings": settings,
           "settings from": origin, "version": importlib.metadata.version(module.PACKAGE)}  # fmt: skip
    found = race(name, problem, settings, cap, threads)
    if "failed" in found:
        print(f"{name} failed on {problem}: {found['failed']}", file=sys.stderr)
        return row | {"failed": found["failed"]}
    runs = [found]
    if found["reached"] is not None and found["reached"] < SHORT:
        runs += [one for one in (race(name, problem, settings, cap, threads) for _ in range(2)) if one.get("reached")]
        found = sorted(runs, key=lambda one: one["reached"])[len(runs) // 2]
        row |= {"fastest": min(one["reached"] for one in runs), "slowest": max(one["reached"] for one in runs)}
    last = found["points"][-1]
    if not math.isfinite(last["chi2"]):
        return row | {"failed": "its heights are not finite"}
    if found["reached"] is not None:
        outcome = f"{found['reached']:.3g} s"
    else:
        outcome = f"chi2 {last['chi2']:.3g} after {last['seconds']:.3g} s"
    print(f"{name} on {problem}: {outcome}", file=sys.stderr, flush=True)
    kept = {key: value for key, value in found.items() if key != "reached"}
    return row | {"seconds": found["reached"], "chi2": last["chi2"], "samples": last["samples"]} | kept


def installed(name: str) -> bool:
    """Whether a contender's package is there; a line if not."""
    module = importlib.import_module(CONTENDERS[name])
    try:
        importlib.metadata.version(module.PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        print(f"{module.LABEL} is not installed: left out (pip install {module.PACKAGE})", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    main()
