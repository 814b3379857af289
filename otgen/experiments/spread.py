"""Several runs of one thing: their mean and spread in words and curves, and whether one kind is above another."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from otgen.charts import Line
from otgen.experiments.experiment import Outcome, Verdict, verdict

RULE = "Confirmed means: by more than two standard errors of the difference."
"""What `above` asks for, in the words of the evidence."""


def runs_by(outcomes: Mapping[str, Outcome], *names: str) -> dict[Any, list[dict[str, Any]]]:
    """Gather the values of runs of one kind: those with the same setting, or the same two settings, by these."""
    runs: dict[Any, list[dict[str, Any]]] = {}
    for outcome in outcomes.values():
        kind = tuple(outcome.values[name] for name in names)
        runs.setdefault(kind if len(kind) > 1 else kind[0], []).append(outcome.values)
    return runs


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation over runs; 0 where there is one run."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def plus_minus(values: Sequence[float], form: str = ".3g") -> str:
    """Write mean ± standard deviation over runs; the mean alone where there is one run, which has no spread."""
    mean = plain(statistics.mean(values), form)
    if len(values) < 2:
        return mean
    return f"{mean} ± {plain(statistics.stdev(values), form if form.endswith('%') else '.1g')}"


def listed(values: Mapping[Any, Sequence[float]], form: str = ".3g") -> str:
    """Write mean ± standard deviation of every kind, and behind it in brackets the kind, a word or a tuple of words."""
    return ", ".join(
        f"{plus_minus(some, form)} ({kind if isinstance(kind, str) else ', '.join(kind)})"
        for kind, some in values.items()
    )


def banded(x: Sequence[float], runs: Iterable[Sequence[float]], label: str, style: str, colour: int) -> Line:
    """A curve through the means of the runs at each x, in a band of their standard deviation."""
    means, bands = zip(*map(mean_and_spread, runs), strict=True)
    return Line(x, means, label, bands, style, colour)


def plain(value: float, form: str = ".3g") -> str:
    """Write a number with so many digits, but 1060 and not 1.06e+03."""
    text = format(value, form)
    return f"{float(text):.0f}" if "e+" in text else text


def above(a: Sequence[float], b: Sequence[float], errors: float = 2) -> bool | None:
    """Say whether a is above b on average, by more than so many standard errors of the difference.

    Returns:
        `True` if so, `False` if not; `None` if the runs are too few to have an error.
    """
    return None if min(len(a), len(b)) < 2 else _difference(a, b) > errors * _error(a, b)


def not_above(a: Sequence[float], b: Sequence[float], margin: float) -> bool | None:
    """Say whether a is above b by less than a margin, with two standard errors to spare; `None` as in `above`.

    Without a margin few runs, which show nothing, would show that there is nothing.
    """
    return None if min(len(a), len(b)) < 2 else _difference(a, b) + 2 * _error(a, b) < margin


def _difference(a: Sequence[float], b: Sequence[float]) -> float:
    return statistics.mean(a) - statistics.mean(b)


def _error(a: Sequence[float], b: Sequence[float]) -> float:
    return math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))


def judged(answers: Sequence[bool | None]) -> Verdict:
    """A verdict from answers, such as those of `above`: all have to be yes, and there has to be one."""
    return verdict(all(answers)) if answers and None not in answers else "not testable at this size"
