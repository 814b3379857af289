"""Monte Carlo measures of the cells."""

from dataclasses import dataclass

import torch
from torch import Tensor

from otgen import _ext
from otgen.ops import check
from otgen.ops.sample import directions

MOST_CENTROIDS = 1 << 28
"""Samples whose sums are sure to stay within 64 bits (`kMomentScale` in csrc/params.h)."""


@dataclass(frozen=True)
class Measure:
    """What `measure` counted.

    Attributes:
        counts: Samples in each cell, (m,), int64.
        mean_u: Mean of u(x) = max_j <x, y_j> + h_j over the samples, float64.
        pairs: Best and second-best target of each sample, (n, 2), int32; `None` unless asked for.
        gaps: Difference of their scores, (n,), like the targets; `None` unless asked for.
        centroids: Mean of the samples in each cell, (m, d), float64, NaN for empty ones; `None` unless asked for.
        mean: Mean of the samples, (d,), float64, where they are a user's own; `None` where that of the source is known.
        second_moment: Likewise the mean of |x|^2.
    """

    counts: Tensor
    mean_u: float
    pairs: Tensor | None = None
    gaps: Tensor | None = None
    centroids: Tensor | None = None
    mean: Tensor | None = None
    second_moment: float | None = None

    def __add__(self, other: "Measure") -> "Measure":
        """Both together: what one call would have counted on the samples of two."""
        mine, its = int(self.counts.sum()), int(other.counts.sum())
        mean_u = (mine * self.mean_u + its * other.mean_u) / (mine + its)
        mean, second = None, None
        if self.mean is not None and other.mean is not None:
            mean = (mine * self.mean + its * other.mean) / (mine + its)
        if self.second_moment is not None and other.second_moment is not None:
            second = (mine * self.second_moment + its * other.second_moment) / (mine + its)
        pairs = None if self.pairs is None or other.pairs is None else torch.cat((self.pairs, other.pairs))
        gaps = None if self.gaps is None or other.gaps is None else torch.cat((self.gaps, other.gaps))
        counts, centroids = self.counts + other.counts, None
        if self.centroids is not None and other.centroids is not None:
            sums = self.centroids.nan_to_num() * self.counts[:, None]
            centroids = (sums + other.centroids.nan_to_num() * other.counts[:, None]) / counts[:, None]
        return Measure(counts, mean_u, pairs, gaps, centroids, mean, second)

    def cpu(self) -> "Measure":
        """Bring all tensors to the CPU."""
        optional = (self.pairs, self.gaps, self.centroids, self.mean)
        pairs, gaps, centroids, mean = (None if v is None else v.cpu() for v in optional)
        return Measure(self.counts.cpu(), self.mean_u, pairs, gaps, centroids, mean, self.second_moment)


def measure(
    y: Tensor,
    h: Tensor,
    source: str,
    n: int,
    seed: int = 0,
    *,
    first: int = 0,
    sobol: bool = False,
    images: int = 1,
    pairs: bool = False,
    centroids: bool = False,
    progress: check.Progress | None = None,
) -> Measure:
    """Count how many of n fresh samples fall in each cell.

    Args:
        y: Targets, (m, d), float32 or float64.
        h: Heights, (m,), like `y`.
        source: "uniform" for the unit cube [0, 1]^d, "normal" for N(0, I).
        n: Number of samples, at least 1.
        seed: Names the stream of samples, 0 <= seed < 2^63.
        first: Number of the first sample in the stream, at most 2^62.
        sobol: Owen-scrambled Sobol points instead of random ones.
        images: Samples in sets of 1, 2, 4, 8 or 16, as `sample` makes them: on the CPU the products of one with the
            targets serve the whole set, which takes a third of the time at d = 64 with 16. Counts have nearly the
            variance of independent samples' where the targets vary in many coordinates alike; else, in the cell of the
            source's middle, and for `mean_u`, up to `images` times as much.
        pairs: Also record every sample's best and second-best target and their gap (12 or 16 bytes a sample; m >= 2).
        centroids: Also average the samples of each cell, of at most 2^28.
        progress: Told the fraction done about ten times a second; `None` for nobody.

    Returns:
        Counts, mean potential, and what else was asked for. All of it is the same for any number of threads and on
        every instruction set, and equals what `assign` says of `sample(source, n, d, seed=seed, first=first, ...)`.

    Raises:
        ValueError: A shape, device or value does not fit.
        TypeError: A dtype or type does not fit.
        RuntimeError: A CUDA graph is being captured, or CUDA reports an error.
    """
    y, h = check.targets("measure", y, h)
    m, d = y.shape
    check.source("measure", source)
    check.integer("measure", "n", n, 1, check.MAX_INDEX)
    check.stream("measure", seed, first)
    check.images("measure", images)
    check.progress("measure", progress)
    if y.is_cuda and torch.cuda.is_current_stream_capturing():
        raise RuntimeError("measure: reads its result, so it cannot be captured in a CUDA graph")
    if centroids and n > MOST_CENTROIDS:
        raise ValueError(f"measure: centroids are of at most {MOST_CENTROIDS} samples, got {n}")
    if pairs and m < 2:
        raise ValueError("measure: pairs wants at least two targets, got one")
    counts = torch.zeros(m, dtype=torch.int64, device=y.device)
    best_two = torch.empty(n, 2, dtype=torch.int32, device=y.device) if pairs else None
    gaps = torch.empty(n, dtype=y.dtype, device=y.device) if pairs else None
    moments = torch.zeros(m, d, dtype=torch.int64, device=y.device) if centroids else None
    table = directions(d, y.device) if sobol else None
    space = check.space("measure", y, n, m, d, 2 if pairs else 1)
    mean_u = _ext.measure(
        check.word(y.dtype), y.data_ptr(), h.data_ptr(), source, seed, first, _address(table), images,
        n, m, d, check.where(y, space), progress, counts.data_ptr(), _address(best_two), _address(gaps),
        _address(moments),
    )  # fmt: skip
    means = None if moments is None else moments.double() / (_ext.moment_scale * counts.double()[:, None])
    return Measure(counts, mean_u, best_two, gaps, means)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
