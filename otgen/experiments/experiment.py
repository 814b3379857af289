"""What an experiment is: parts that take time, and a conclusion drawn from them in no time."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Verdict = Literal["confirmed", "not confirmed", "not testable at this size"]


@dataclass(frozen=True)
class Context:
    """What an experiment is given.

    Attributes:
        settings: From the recipe, at the size asked for.
        seed: Decides everything that is random.
        device: Where networks are trained.
        cache: A folder for what is worth keeping between runs, such as feature extractors.
    """

    settings: Mapping[str, Any]
    seed: int
    device: torch.device
    cache: Path


@dataclass(frozen=True)
class Outcome:
    """What came of one part.

    Attributes:
        values: Numbers, strings, lists and dicts of them: what JSON holds, finite.
        tensors: What is too large for that, such as samples to draw.
    """

    values: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)


Parts = dict[str, Callable[[], Outcome]]
"""The work of an experiment, by name."""


@dataclass(frozen=True)
class Claim:
    """A claim of the lecture, and what became of it.

    Attributes:
        text: The claim.
        verdict: Of this run.
        evidence: The numbers that say so.
        figure: File of the figure that shows it.
    """

    text: str
    verdict: Verdict
    evidence: str
    figure: str


@dataclass(frozen=True)
class Table:
    """A table for reports.

    Attributes:
        caption: What it shows, and how many seeds and samples stand behind it.
        header: Column names.
        rows: Cells, as they are to be read.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A figure for reports.

    Attributes:
        figure: A matplotlib figure, which `plots.render` takes.
        caption: What to look at.
    """

    figure: Any
    caption: str


@dataclass(frozen=True)
class Findings:
    """The conclusion of an experiment.

    Attributes:
        claims: One verdict each.
        pictures: By file name.
        tables: In order.
    """

    claims: Sequence[Claim]
    pictures: Mapping[str, Picture]
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Experiment:
    """An experiment.

    Attributes:
        parts: The work, by name: pieces that do not need each other. A piece that is finished is not done again.
        conclude: From the outcomes of all parts to the findings; cheap, so it is done at every run.
    """

    parts: Callable[[Context], Parts]
    conclude: Callable[[Context, Mapping[str, Outcome]], Findings]


def check_names(settings: Mapping[str, Any], key: str, known: Collection[str]) -> None:
    """Refuse a setting that is not a known name, or a list of which one is not."""
    given = settings[key]
    for name in [given] if isinstance(given, str) else given:
        if name not in known:
            raise ValueError(f"{key} must be {'one ' * isinstance(given, str)}of {', '.join(known)}, got {name!r}")


def verdict(holds: bool) -> Verdict:
    """Say whether a claim held."""
    return "confirmed" if holds else "not confirmed"
