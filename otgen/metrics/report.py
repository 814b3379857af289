"""Reports: scores by a name that says what was looked at, beside what two halves of the data score themselves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from otgen.metrics.extractors import Extractor
from otgen.metrics.fid import fid
from otgen.metrics.kid import kid
from otgen.metrics.score import GROUPS, Score

DISTANCES: dict[str, Callable[[Tensor, Tensor], Score]] = {"FID": fid, "KID": kid}
"""Distances between sets of features, by name."""

LEAST = {"FID": GROUPS, "KID": 3}
"""Samples that they want of each set."""


@dataclass(frozen=True)
class Report:
    """A distance between data and generated images, and what it means.

    Attributes:
        name: Metric and extractor, such as "FID[lenet-ab12cd34]". Scores of different names are not comparable.
        score: Of the generated images against the data.
        floor: Of a half of the data against the other half: no generator of new images can be expected below it, but
            copies of the data are. Its n is smaller where the data is scarce, and then a biased metric's floor is too
            high.
    """

    name: str
    score: Score
    floor: Score

    def __str__(self) -> str:
        return f"{self.name} = {self.score}, real against real {self.floor}"


def compare(
    real: Tensor, generated: Tensor, extractor: Extractor, names: str | Sequence[str] = ("FID", "KID"), *, seed: int = 0
) -> list[Report]:
    """Compare generated images with data by every distance asked for.

    Args:
        real: Images, (n, c, h, w), as the extractor takes them, n at least 20; 6 for KID alone.
        generated: Images, (m, c, h, w), m at least 10; 3 for KID alone. The larger set is cut to the size of the
            smaller, at random.
        extractor: What to look at.
        names: Of `DISTANCES`, one or several.
        seed: Of the cut and the halves.

    Returns:
        A report for each name.

    Raises:
        ValueError: A name is not known, or images do not fit.
        TypeError: A type does not fit.
    """
    names = (names,) if isinstance(names, str) else names
    unknown = [name for name in names if name not in DISTANCES]
    if unknown:
        raise ValueError(f"compare: names must be of {', '.join(DISTANCES)}, got {unknown[0]!r}")
    generator = torch.Generator().manual_seed(seed)
    data, made = (
        x[torch.randperm(len(x), generator=generator, device="cpu")] for x in (extractor(real), extractor(generated))
    )
    n = min(len(data), len(made))
    half = min(n, len(data) // 2)
    least = max((LEAST.get(name, 1) for name in names), default=1)
    if half < least:
        came = f"{len(data)} and {len(made)}"
        raise ValueError(f"compare: wanted {2 * least} real and {least} generated images at least, got {came}")
    return [
        Report(
            f"{name}[{extractor.fingerprint}]",
            DISTANCES[name](data[:n], made[:n]),
            DISTANCES[name](data[:half], data[half : 2 * half]),
        )
        for name in names
    ]
