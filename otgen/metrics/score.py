"""What a metric gives: a value, how far it may be off, and the number of samples it rests on."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from otgen.ops import check
from otgen.seeds import stream

Values = Tensor | NDArray[np.floating]
"""What metrics take."""

GROUPS = 10
"""Groups of the jackknife: its standard error is then itself known to about 1/sqrt(2 * 9) = 24 %."""


@dataclass(frozen=True)
class Score:
    """A measured number.

    Attributes:
        value: The number.
        spread: Its standard error; nan where none can be given.
        n: Samples that it rests on; of two sets the smaller.
        bias: How much too large `value` is on average, estimated by the jackknife; 0 for unbiased estimators, `None`
            where it is not known.
    """

    value: float
    spread: float
    n: int
    bias: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.spread:.2g} (n = {self.n})"


Statistic = Callable[..., Tensor]
"""Sample sets in, numbers (s,) or one number out."""


def jackknife(statistic: Statistic, *sets: Tensor, groups: int = GROUPS, seed: int = 0) -> list[Score]:
    """Compute a statistic with its standard error and bias by leaving out a tenth of every set in turn.

    Quenouille 1956, "Notes on bias in estimation"; Efron and Stein 1981, "The jackknife estimate of variance": on
    average the squared error is not underestimated, so the spread errs on the cautious side. Valid for statistics that
    change smoothly with each sample and whose bias falls like 1/n.

    Args:
        statistic: Takes the sets, returns numbers (s,) or a scalar.
        sets: Independent samples, each (n, ...), n at least `groups`; all lose their g-th group together.
        groups: Number of groups, at least 2.
        seed: Deals the samples out to the groups; sorted data would make unequal ones otherwise.

    Returns:
        A score for each number.

    Raises:
        ValueError: A set is smaller than the number of groups.
    """
    check.integer("jackknife", "groups", groups, 2)
    n = min(len(x) for x in sets)
    if n < groups:
        raise ValueError(f"jackknife: every set must have at least {groups} samples, one for each group, got {n}")
    generator = torch.Generator().manual_seed(stream(seed, "groups"))  # not the caller's, who may have shuffled by it
    labels = [torch.randperm(len(x), generator=generator, device="cpu") % groups for x in sets]
    whole = statistic(*sets).double().reshape(-1)
    parts = torch.stack(
        [
            statistic(*(x[label != g] for x, label in zip(sets, labels, strict=True))).double().reshape(-1)
            for g in range(groups)
        ]
    )
    spread = ((parts - parts.mean(0)).square().sum(0) * (groups - 1) / groups).sqrt()
    bias = (groups - 1) * (parts.mean(0) - whole)
    return [Score(float(v), float(s), n, float(b)) for v, s, b in zip(whole, spread, bias, strict=True)]


def average(values: Tensor) -> Score:
    """Mean of independent values (n,), float64, and its standard error; unbiased."""
    n = len(values)
    spread = float(values.std()) / math.sqrt(n) if n > 1 else math.nan
    return Score(float(values.mean()), spread, n, 0.0)


def on_cpu(x: Any) -> Any:
    """A tensor of any device, or an array, on the CPU, of half precision as float32; the rest is left to a check."""
    if isinstance(x, np.ndarray) and x.dtype.kind in "biuf":
        narrow = x.dtype.kind == "f" and x.dtype.itemsize < 4
        x = torch.from_numpy(np.array(x, np.float32 if narrow else x.dtype.newbyteorder("="), order="C"))
    if not isinstance(x, Tensor):
        return x
    return x.cpu().float() if x.dtype in (torch.float16, torch.bfloat16) else x.cpu()


def features(
    metric: str, name: str, x: Values, like: Tensor | None = None, least: int = 2, most: float = math.inf
) -> Tensor:
    """Check features (n, d), n >= `least`, with the columns of `like`; return them as float64 on the CPU.

    None may be larger than `most`.

    Raises:
        ValueError: A shape or value does not fit.
        TypeError: Not a tensor or array of floating point.
    """
    d: int | str = "d" if like is None else like.shape[1]
    x = check.tensor(metric, name, on_cpu(x), ("n", d)).double()
    if len(x) < least or x.shape[1] < 1:
        raise ValueError(f"{metric}: {name} must have shape (n, d) with n >= {least}, d >= 1, got {tuple(x.shape)}")
    if (largest := float(x.abs().max())) > most:
        raise ValueError(f"{metric}: {name} must be at most {most:g} for its powers to stay finite, got {largest:.3g}")
    return x
