"""The continuous side of the problem: uniform cube, normal, or the user's own sampler."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from otgen import ops
from otgen.ops.check import SOURCES, Progress

Sampler = Callable[[int, torch.Generator], Tensor]
"""The user's own source: `(n, generator) -> (n, d)` samples, random through the generator alone."""

MAX_SOBOL_DIM = 10
"""Above this dimension images tell more in a given time: scrambled Sobol points need a tenth fewer at d = 12, but
their products are not shared."""

CHUNK = 1 << 16
"""Samples drawn at a time from the user's own source."""

PILOT = 1 << 14
"""Samples from which mean and spread of the user's own source are taken; they only steer, nothing is certified."""


MAX_CORRELATION = 0.5
"""Of the scores of a sample and an image: with so little or less the variance of counts at solutions was at most 1.05
times that of independent samples where all of 16 to 784 coordinates matter, and 1.34 times where six of twenty did."""


@dataclass(frozen=True)
class Kind:
    """Which samples a built-in source makes, as `otgen.ops.sample` has it; a user's own knows no kinds."""

    sobol: bool = False
    images: int = 1


INDEPENDENT = Kind()


def most_telling(y: Tensor) -> Kind:
    """The samples that tell most about the cells of targets, (m, d), in a given time.

    Up to 10 dimensions Sobol points, beyond them sets of images, whose products with targets the CPU shares; on all
    devices, so that a seed's samples are the same on each. Two samples of a set are opposite, or on different sides of
    the source's middle in about half of the coordinates. Their scores are correlated as far as the targets' variance is
    larger in one half than in the other; where it is too much so sets are smaller.
    """
    d = y.shape[1]
    if d <= MAX_SOBOL_DIM:
        return Kind(sobol=True)
    variance = y.var(0, correction=0)
    for images in (16, 8, 4):
        one_set = ops.sample("normal", 32 * images, d, images=images)[::32].sign().double()
        correlation = (one_set * one_set[0]) @ variance / variance.sum()  # with the first; the second is its opposite
        if float(correlation[2:].abs().max()) <= MAX_CORRELATION:  # not where nothing varies: it is not a number
            return Kind(images=images)
    return Kind(images=2)


class _Targets:
    """Targets on the device of the kernels; those of the last call are kept, so that a fit brings them there once."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._last: tuple[Tensor, Tensor] | None = None

    def bring(self, y: Tensor) -> Tensor:
        if self._last is None or self._last[0] is not y:
            self._last = y, y.to(self.device)
        return self._last[1]


class BuiltIn:
    """A source whose samples the kernels make themselves.

    Args:
        name: "uniform" for the unit cube [0, 1]^d, "normal" for N(0, I).
        device: Where the kernels count samples; what comes of it is on the CPU.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu") -> None:
        self.name = name
        self._targets = _Targets(device)

    def mean(self, d: int) -> Tensor:
        """Mean, (d,), float64."""
        return torch.full((d,), 0.5 if self.name == "uniform" else 0.0, dtype=torch.float64, device="cpu")

    def std(self, d: int) -> float:
        """Standard deviation of one coordinate."""
        return math.sqrt(1 / 12) if self.name == "uniform" else 1.0

    def second_moment(self, d: int) -> float:
        """Mean of |x|^2."""
        return d / 3 if self.name == "uniform" else float(d)

    def radius(self, d: int) -> float:
        """How far samples are from the mean at most.

        Half the diagonal of the cube, or that of the largest normal coordinate the sampler can make (6.34).
        """
        return (0.5 if self.name == "uniform" else 6.34) * math.sqrt(d)

    def quantile(self, p: Tensor) -> Tensor:
        """Quantiles in one dimension, like `p`."""
        return p if self.name == "uniform" else torch.special.ndtri(p)

    def reach(self, x: Tensor, v: Tensor) -> Tensor:
        """How far samples x, (n, d), can move along unit directions v, (n, d), within the source: (n,).

        To the faces of the cube; for the normal source, as far as two samples can lie apart.
        """
        if self.name == "uniform":
            faces = torch.where(v > 0, 1 - x, -x) / v
            return torch.where(v == 0, math.inf, faces).amin(dim=1)
        return torch.full((x.shape[0],), 2 * self.radius(x.shape[1]), dtype=torch.float64, device="cpu")

    def sample(self, n: int, d: int, seed: int, *, kind: Kind = INDEPENDENT) -> Tensor:
        """Draw n samples, (n, d), float32, of a kind."""
        return ops.sample(self.name, n, d, seed=seed, sobol=kind.sobol, images=kind.images)

    def measure(
        self,
        y: Tensor,
        h: Tensor,
        n: int,
        seed: int,
        *,
        kind: Kind = INDEPENDENT,
        pairs: bool = False,
        centroids: bool = False,
        progress: Progress | None = None,
    ) -> ops.Measure:
        """Count n fresh samples by cell, as `otgen.ops.measure` does."""
        there, heights = self._targets.bring(y), h.to(self._targets.device)
        return ops.measure(
            there, heights, self.name, n, seed,
            sobol=kind.sobol, images=kind.images, pairs=pairs, centroids=centroids, progress=progress,
        ).cpu()  # fmt: skip


class Custom:
    """The user's own source.

    Args:
        sampler: `(n, generator) -> (n, d)`.
        device: Where the kernels assign samples; what comes of it is on the CPU.
    """

    name = "custom"

    def __init__(self, sampler: Sampler, device: torch.device | str = "cpu") -> None:
        self.sampler = sampler
        self._targets = _Targets(device)
        self._pilot: Tensor | None = None

    def mean(self, d: int) -> Tensor:
        """Mean, (d,), float64, of a pilot sample."""
        return self._pilot_sample(d).mean(0)

    def std(self, d: int) -> float:
        """Standard deviation of one coordinate, on average, of a pilot sample."""
        spread = float(self._pilot_sample(d).var(0, correction=0).mean().sqrt())
        if spread == 0:
            raise ValueError("source: the sampler must return samples that differ, got one point over and over")
        return spread

    def second_moment(self, d: int) -> float:
        """Mean of |x|^2 over a pilot sample."""
        return float(self._pilot_sample(d).square().sum(1).mean())

    def radius(self, d: int) -> float:
        """Four times the largest distance from the mean in a pilot sample: the support is not known."""
        x = self._pilot_sample(d)
        return 4 * float((x - x.mean(0)).norm(dim=1).max())

    def quantile(self, p: Tensor) -> None:
        """Not known."""

    def reach(self, x: Tensor, v: Tensor) -> Tensor:
        """Twice the radius: the support is not known."""
        return torch.full((x.shape[0],), 2 * self.radius(x.shape[1]), dtype=torch.float64, device="cpu")

    def sample(self, n: int, d: int, seed: int, *, kind: Kind = INDEPENDENT) -> Tensor:
        """Draw n samples, (n, d), float64, in chunks."""
        generator = torch.Generator().manual_seed(seed)
        sizes = [min(CHUNK, n - start) for start in range(0, n, CHUNK)]
        none = torch.empty(0, d, dtype=torch.float64, device="cpu")
        return torch.cat([none, *(self._draw(size, d, generator) for size in sizes)])

    def measure(
        self,
        y: Tensor,
        h: Tensor,
        n: int,
        seed: int,
        *,
        kind: Kind = INDEPENDENT,
        pairs: bool = False,
        centroids: bool = False,
        progress: Progress | None = None,
    ) -> ops.Measure:
        """Count n fresh samples by cell, a chunk at a time."""
        m, d = y.shape
        generator = torch.Generator().manual_seed(seed)
        counts = torch.zeros(m, dtype=torch.int64, device="cpu")
        sums = torch.zeros(m, d, dtype=torch.float64, device="cpu")
        all_x, square = torch.zeros(d, dtype=torch.float64, device="cpu"), 0.0
        best_two, gaps, total = [], [], 0.0
        there, heights = self._targets.bring(y), h.to(self._targets.device)
        for start in range(0, n, CHUNK):
            x = self._draw(min(CHUNK, n - start), d, generator)
            found = ops.topk(x.to(there.device), there, heights, 2 if pairs else 1)
            winner, score = (v.cpu() for v in found)
            counts += torch.bincount(winner[:, 0], minlength=m)
            total += float(score[:, 0].sum())
            all_x, square = all_x + x.sum(0), square + float(x.square().sum())
            if pairs:
                best_two.append(winner.int())
                gaps.append(score[:, 0] - score[:, 1])
            if centroids:
                sums.index_add_(0, winner[:, 0], x)
            if progress is not None:
                progress(min(1.0, (start + CHUNK) / n))
        return ops.Measure(
            counts,
            total / n,
            torch.cat(best_two) if pairs else None,
            torch.cat(gaps) if pairs else None,
            sums / counts[:, None] if centroids else None,
            all_x / n,
            square / n,
        )

    def _pilot_sample(self, d: int) -> Tensor:
        if self._pilot is None:
            self._pilot = self._draw(PILOT, d, torch.Generator().manual_seed(0))
        return self._pilot

    def _draw(self, n: int, d: int, generator: torch.Generator) -> Tensor:
        x = self.sampler(n, generator)
        wanted = f"source: the sampler must return shape ({n}, {d}) to match the targets"
        if not isinstance(x, Tensor):
            raise TypeError(f"source: the sampler must return a torch.Tensor, got {type(x).__name__}")
        if d == 1 and x.dim() == 1:  # as targets and samples may be
            x = x[:, None]
        if tuple(x.shape) != (n, d):
            raise ValueError(f"{wanted}, got {tuple(x.shape)}")
        if not x.dtype.is_floating_point:
            raise TypeError(f"source: the sampler must return floating-point samples, got {x.dtype}")
        if not bool(torch.isfinite(x).all()):
            raise ValueError("source: the sampler must return finite samples, got NaN or infinite values")
        return x.detach().to("cpu", torch.float64, copy=True)  # for the sampler may fill the same memory again


Source = BuiltIn | Custom
"""What the solvers ask for samples and what is known of them."""


def make_source(source: "str | Sampler | Source", device: torch.device | str = "cpu") -> Source:
    """A source from its name or from the user's sampler, with kernels on a device.

    Raises:
        ValueError: The name is not known.
        TypeError: Neither a name nor callable.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, str):
        if source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)} or a callable, got {source!r}")
        return BuiltIn(source, device)
    if callable(source):
        return Custom(source, device)
    raise TypeError(f"source must be one of {', '.join(SOURCES)} or a callable, got {type(source).__name__}")
