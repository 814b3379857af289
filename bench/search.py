"""The best settings of every contender for every problem of the race, by successive halving; results/search.json.

python bench/search.py                          what is not there yet; about 15 minutes of one core for all
python bench/search.py --problems mixture-2000x16 --contenders ott

Settings are drawn at random from the space that stands in a contender's file, beside its own defaults and the best ones
of the problems before. Each is run for a few seconds of one core; the best third go on for three times as long. First
comes who reached chi2 0.01 soonest, then who came closest. Other jobs do not disturb it: time is the processor's.
"""

import argparse
import importlib
import json
import math
import random
import sys
from typing import Any

from harness import RESULTS, machine, write_json
from race import CONTENDERS, contend, limit_threads
from race_problems import RACE

PATH = RESULTS / "search.json"

PLANS: dict[str, tuple[tuple[int, int], tuple[float, ...]]] = {
    "ott": ((12, 7), (2, 6, 18)),
    "pot": ((8, 5), (2, 6)),
    "algorithm1": ((8, 8), (6, 30)),  # its slow rates look better than they are while none has come anywhere
}
"""Settings tried on the first problem and on each other one, and seconds of the rounds."""

KEEP = 3  # one in so many goes on to the next round
PASSED_ON = 4  # best settings of the problems before that are tried too
LARGE = 1e5  # m d above which rounds last twice as long
PACE = 1.6  # of the looks: a search needs few


def main() -> None:
    """Search, writing after every problem and contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=RACE, default=list(RACE))
    parser.add_argument("--contenders", nargs="+", choices=list(PLANS), default=list(PLANS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="also what is there, beginning with the best of it")
    arguments = parser.parse_args()
    limit_threads(1)
    for name in arguments.contenders:
        for problem in arguments.problems:
            before = {row["problem"]: row for row in _rows() if row["contender"] == name}
            if problem in before and not arguments.again:
                continue
            row = search(name, problem, list(before.values()), arguments.seed)
            others = [r for r in _rows() if (r["contender"], r["problem"]) != (name, problem)]
            write_json(PATH, {"machine": machine(), "rows": [*others, row | {"machine": machine()}]})
            print(name, problem, row["trials"][0], file=sys.stderr, flush=True)


def search(name: str, problem: str, before: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """One row: contender, problem, and its trials, best first, each with its round, what was reached and when.

    Args:
        name: The contender.
        problem: The problem.
        before: Rows of the same contender that are there.
        seed: Of the draws.
    """
    module = importlib.import_module(CONTENDERS[name])
    counts, rounds = PLANS[name]
    count = counts[bool(before)]
    m, d = map(int, problem.rpartition("-")[2].split("x"))
    longer = 2 if m * d > LARGE else 1
    generator = random.Random(f"{seed}/{name}/{problem}")
    tried = [dict(module.DEFAULTS)]
    for place in range(PASSED_ON):
        for row in before:
            known = row["trials"][place]["settings"]
            if known not in tried and len(tried) <= PASSED_ON:
                tried.append(known)
    while len(tried) < count:
        drawn = module.candidates(generator)
        tried += [drawn] if drawn not in tried else []
    ranking: list[dict[str, Any]] = []
    for number, seconds in enumerate(rounds):
        trials = [trial(name, problem, settings, longer * seconds) | {"round": number} for settings in tried]
        trials.sort(key=score)
        kept = math.ceil(len(trials) / KEEP)
        ranking = [*trials, *ranking[len(trials) :]]
        tried = [one["settings"] for one in trials[:kept]]
    return {"contender": name, "problem": problem, "trials": ranking}


def trial(name: str, problem: str, settings: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What settings came to in so many seconds of one core."""
    try:
        found = contend(name, problem, settings, seconds, "cpu", PACE)
    except Exception as error:  # settings that a peer cannot take are a result
        return {"settings": settings, "seconds": seconds, "failed": f"{type(error).__name__}: {error}"[:200]}
    last = found["points"][-1]["chi2"]
    chi2 = last if math.isfinite(last) else None
    return {"settings": settings, "seconds": seconds, "chi2": chi2, "reached": found["reached"]}


def score(trial: dict[str, Any]) -> tuple[float, float]:
    """Smaller is better."""
    time, chi2 = trial.get("reached"), trial.get("chi2")
    return math.inf if time is None else time, math.inf if chi2 is None else chi2


def chosen(name: str, problem: str) -> tuple[dict[str, Any], str | None]:
    """The best settings found, and the problem they were found on.

    That is another one, the first that was searched for, where this one was not; no settings and `None` if none was.
    """
    rows = [row for row in _rows() if row["contender"] == name]
    rows.sort(key=lambda row: row["problem"] != problem)
    return (dict(rows[0]["trials"][0]["settings"]), rows[0]["problem"]) if rows else ({}, None)


def _rows() -> list[dict[str, Any]]:
    """What is there, which another process may have added to."""
    return list(json.loads(PATH.read_text())["rows"]) if PATH.exists() else []


if __name__ == "__main__":
    main()
