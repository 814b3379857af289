"""From heights to maps: the extension across cells of the lecture's Algorithm 2, and the singular set."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import scipy.sparse
import torch
from torch import Tensor

from otgen import ops
from otgen.bars import by_share, of_samples
from otgen.ot.problem import Problem
from otgen.ot.sources import CHUNK, Source
from otgen.seeds import stream

ANGLE_QUANTILE = 0.5
"""`angle_threshold="auto"` is this quantile of the angles between neighbouring cells, over samples."""

ALIKE = 1e-6
"""Angles that differ by no more, relatively, are on the same side of such a threshold: it is one of them, and in a
symmetric configuration many are the same but for rounding."""

NEIGHBOUR_SAMPLES = 50
"""Samples per target that find the neighbouring cells."""

GATHERED = 1 << 20
"""Numbers of neighbouring targets that are gathered at a time: caches hold some of them."""

PAIRED = 1 << 17
"""Numbers of targets that are paired at a time: half a dozen copies of them fit into caches, nine times as fast as
copies of 128 MB where targets have many coordinates."""

RAYS = 1 << 14
"""Rays that are followed at a time, each by half a dozen vectors of d numbers: 50 MB in 64 dimensions."""

GIVE_UP = 1e-3
"""A threshold that lets fewer than this part of the samples through is refused."""


@dataclass(frozen=True)
class Neighbours:
    """Pairs of neighbouring cells, as seen by samples.

    Attributes:
        pairs: Rows of the problem's targets, (p, 2), int64, i < j, sorted.
        counts: Samples with these as best and second-best target, (p,), int64.
        angles: Between the planes of the two targets, in radians, (p,), float64.
    """

    pairs: Tensor
    counts: Tensor
    angles: Tensor

    def quantile(self, q: float) -> float:
        """The angle below which the share q of the samples lies."""
        if self.angles.numel() == 0:
            return math.pi
        order = self.angles.argsort()
        share = self.counts[order].double().cumsum(0) / float(self.counts.sum())
        return float(self.angles[order][torch.searchsorted(share, q)])


@dataclass(frozen=True)
class SingularSet:
    """Facets where the transport map jumps: neighbouring cells whose planes meet at a large angle.

    Attributes:
        pairs: Rows of the given targets, (p, 2), int64.
        angles: Dihedral angles in radians, (p,), float64, all above `threshold`.
        threshold: In radians.
    """

    pairs: Tensor
    angles: Tensor
    threshold: float


@dataclass(frozen=True)
class SampleInfo:
    """How `sample` made its points.

    Attributes:
        threshold: Largest angle that was blended across, in radians.
        rejected: Share of the source's samples that were abandoned: no neighbour within the threshold.
        blended: Targets blended into each point, (n,), int64; the lecture's d_1 + 1.
        targets: The nearest cell of each point: a row of the given targets, (n,), int64.
        x: The samples of the source that were kept, (n, d), float64.
    """

    threshold: float
    rejected: float
    blended: Tensor
    targets: Tensor
    x: Tensor


def plane_angles(y: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Dihedral angles between the planes of targets i and j, in radians.

    `cos = <(y_i, -1), (y_j, -1)> / (|(y_i, -1)| |(y_j, -1)|)`; it depends on the origin and the scale of the targets,
    so `y`, (m, d), must be centred and scaled.
    """
    a, b = y[i], y[j]
    p, q = (1 / (v.square().sum(-1, keepdim=True) + 1).sqrt() for v in (a, b))
    a, b = a * p, b * q  # of unit length, with -p and -q
    # Kahan's formula, as cosines tell no angles below 1e-8 apart: those between targets beside which one lies far away.
    apart, along = ((a + s * b).square().sum(-1) + (p + s * q).square().squeeze(-1) for s in (-1, 1))
    return 2 * torch.atan2(apart.sqrt(), along.sqrt())


def pair_angles(y: Tensor, pairs: Tensor) -> Tensor:
    """Angles of pairs of targets, (p, 2), so many at a time that what they gather is bounded."""
    step = max(1, PAIRED // y.shape[1])
    return torch.cat([plane_angles(y, few[:, 0], few[:, 1]) for few in pairs.split(step)])


class Planes:
    """The planes of targets, by their normals of unit length in float32.

    Args:
        y: Centred and scaled targets, (m, d), float64.
    """

    def __init__(self, y: Tensor) -> None:
        self.y = y
        length = (y.square().sum(1, keepdim=True) + 1).sqrt()
        self._normals, self._last = (y / length).float(), (1 / length).float()[:, 0]

    def within(self, near: Tensor, threshold: float) -> Tensor:
        """Whether the planes of targets meet that of the first of their row at no more than an angle: (n, k), bool.

        Cosines, one product each, decide where their rounding cannot matter; it is below (d + 8) eps. `pair_angles`
        decides the few others.

        Args:
            near: Rows of targets, (n, k).
            threshold: In radians.
        """
        normals, last = self._normals[near], self._last[near]
        # No matrix product: the caller's autocast, or precision of such products, would round it to bfloat16.
        cosines = (normals * normals[:, :1]).sum(2) + last * last[:, :1]
        above = cosines - math.cos(threshold)
        mask = above >= 0
        doubt = torch.nonzero(~(above.abs() > 4 * (self.y.shape[1] + 8) * torch.finfo(above.dtype).eps), as_tuple=True)
        mask[doubt] = pair_angles(self.y, torch.stack([near[doubt[0], 0], near[doubt]], dim=1)) <= threshold
        return mask


def distinct(pairs: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """The different pairs, i < j, sorted, of pairs of m cells in either order, (n, 2), int64; and how many of each."""
    low, high = torch.minimum(pairs[:, 0], pairs[:, 1]), torch.maximum(pairs[:, 0], pairs[:, 1])
    keys, counts = (m * low + high).unique(return_counts=True)  # of one number each: unique rows take ten times as long
    return torch.stack([keys // m, keys % m], dim=1), counts


def find_neighbours(problem: Problem, h: Tensor, seed: int, progress: bool = False) -> Neighbours:
    """Neighbouring cells of heights `h`, (m,): best and second-best targets of fresh samples."""
    m = problem.m
    if m < 2:
        none = torch.empty(0, dtype=torch.int64, device="cpu")
        return Neighbours(none.view(0, 2), none, none.double())
    n = max(NEIGHBOUR_SAMPLES * m, 10_000)
    with of_samples("neighbours", n, progress) as done:
        counted = problem.source.measure(
            problem.y, h, n, stream(seed, "neighbours"), kind=problem.kind, pairs=True, progress=by_share(done)
        )
    assert counted.pairs is not None
    pairs, counts = distinct(counted.pairs.long(), m)
    return Neighbours(pairs, counts, pair_angles(problem.y, pairs))


def shoot_rays(problem: Problem, h: Tensor, seed: int, progress: bool = False) -> Tensor:
    """Pairs of cells that share a facet, (p, 2), int64, i < j, sorted: found by following rays to the first other cell.

    A sample's second-best target is seldom the one across a large jump, so `find_neighbours` misses much of the
    singular set. Here each sample x of cell i moves along a random direction v as far as the source reaches; while
    another cell j is found there, it steps back to where i and j score alike (ray shooting in Voronoi graphs:
    Sikorski and Heida, arXiv:2405.10050).
    """
    n = max(NEIGHBOUR_SAMPLES * problem.m, 10_000) if problem.m > 1 else 0
    pairs = [torch.empty(0, 2, dtype=torch.int64, device="cpu")]
    with of_samples("rays", n, progress) as done:
        for index, begin in enumerate(range(0, n, RAYS)):
            x = problem.source.sample(
                min(RAYS, n - begin), problem.d, stream(seed, "rays", index), kind=problem.kind
            ).double()
            pairs.append(_follow(problem, h, x, stream(seed, "directions", index)))
            done.update(len(x))
    return distinct(torch.cat(pairs), problem.m)[0]


def _follow(problem: Problem, h: Tensor, x: Tensor, seed: int) -> Tensor:
    """Pairs of cells, as they come, that random directions from samples x, (n, d), lead to."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(x.shape, generator=generator, dtype=torch.float64, device="cpu")
    v /= v.norm(dim=1, keepdim=True)
    start = ops.assign(x, problem.y, h)[0]
    t = problem.source.reach(x, v)
    found = start.clone()
    active = torch.arange(len(x), device="cpu")
    while active.numel():
        i = start[active]
        j = ops.assign(x[active] + t[active, None] * v[active], problem.y, h)[0]
        apart = problem.y[j] - problem.y[i]
        closing = (apart * v[active]).sum(1)
        alike = (h[i] - h[j] - (apart * x[active]).sum(1)) / closing  # where i and j score the same
        nearer = (j != i) & (j != found[active]) & (closing > 0) & (alike < t[active])
        active = active[nearer]
        found[active], t[active] = j[nearer], alike[nearer].clamp_min(0)
    hit = found != start
    return torch.stack([start[hit], found[hit]], dim=1)


def find_centroids(problem: Problem, h: Tensor, seed: int, n: int, progress: bool = False) -> Tensor:
    """Mean of the samples of each cell, (m, d), float64, NaN where there is none."""
    with of_samples("centroids", n, progress) as done:
        counted = problem.source.measure(
            problem.y, h, n, stream(seed, "centroids"), kind=problem.kind, centroids=True, progress=by_share(done)
        )
    assert counted.centroids is not None
    return counted.centroids


def fill_centroids(problem: Problem, h: Tensor, centroids: Tensor, seed: int) -> Tensor:
    """Centroids, (m, d), in which a cell that no sample hit has the one of many that comes nearest to lying in it."""
    missed = torch.nonzero(centroids.isnan().any(1))[:, 0]
    if missed.numel() == 0:
        return centroids
    n = max(10 * problem.m, 10_000)
    x = problem.source.sample(min(n, CHUNK), problem.d, stream(seed, "centroids"), kind=problem.kind).double()
    u = ops.assign(x, problem.y, h)[1]
    filled = centroids.clone()
    filled[missed] = x[ops.assign(problem.y[missed], x, -u)[0]]
    return filled


@dataclass(frozen=True)
class Extension:
    """The extended map of Algorithm 2 (generation of latent codes).

    Attributes:
        source: Where samples come from.
        y: Centred and scaled targets, (m, d), float64: they decide the angles.
        values: What is blended, (m, d), float64: the targets as given.
        centroids: Of the cells, (m, d), float64.
        threshold: Largest angle, in radians.
    """

    source: Source
    y: Tensor
    values: Tensor
    centroids: Tensor
    threshold: float

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map samples (n, d).

        Returns:
            Points (kept, d), indices of the samples kept, (kept,), the cells near them, nearest first, (kept, d + 1),
            and a mask of those whose targets are blended.
        """
        m, d = self.centroids.shape
        # The nearest centroids are the best targets for the scores <x, c> - |c|^2 / 2.
        near = ops.topk(x, self.centroids, -0.5 * self.centroids.square().sum(1), min(d + 1, m))[0]  # line 5
        mask, planes = torch.empty(near.shape, dtype=torch.bool, device="cpu"), self._planes
        for rows in self._few(x.shape[0]):
            mask[rows] = planes.within(near[rows], self.threshold)  # lines 6 and 7
        kept = torch.nonzero(mask[:, 1:].any(1))[:, 0] if m > 1 else torch.arange(x.shape[0], device="cpu")  # line 8
        near, mask, x = near[kept], mask[kept], x[kept]
        points = torch.empty_like(x)
        for rows in self._few(x.shape[0]):
            points[rows] = self._blend(x[rows], near[rows], mask[rows])
        return points, kept, near, mask

    def _blend(self, x: Tensor, near: Tensor, mask: Tensor) -> Tensor:
        """Line 9: means of the masked targets, weighed by the distances to their centroids; few of them are."""
        sample, column = torch.nonzero(mask, as_tuple=True)
        cell = near[sample, column]
        weight = 1 / (x[sample] - self.centroids[cell]).norm(dim=1).clamp_min(1e-300)
        total = torch.zeros(len(x), dtype=x.dtype, device="cpu").index_add_(0, sample, weight)
        ends = torch.cat([sample.new_zeros(1), mask.sum(1).cumsum(0)])
        share = ((weight / total[sample]).numpy(), cell.numpy(), ends.numpy())
        mean = scipy.sparse.csr_array(share, shape=(len(x), len(self.values))) @ self.values.numpy()
        return torch.from_numpy(mean)

    @cached_property
    def _planes(self) -> Planes:
        return Planes(self.y)

    def _few(self, n: int) -> Iterator[slice]:
        """Rows of n samples, so many at a time that what they gather is bounded."""
        d = self.y.shape[1]
        step = max(1, GATHERED // (d * (d + 1)))
        return (slice(i, i + step) for i in range(0, n, step))

    def sample(self, n: int, seed: int, progress: bool = False) -> tuple[Tensor, SampleInfo]:
        """Lines 4 to 11: draw and map until n points are made.

        Raises:
            ValueError: The threshold rejects nearly everything.
        """
        d = self.y.shape[1]
        points: list[Tensor] = []
        xs: list[Tensor] = []
        nearest: list[Tensor] = []
        blended: list[Tensor] = []
        drawn = made = 0
        # Twice what is wanted, as half may be rejected.
        chunk = max(256, min(CHUNK, 2 * n, 16 * GATHERED // (d * (d + 1))))
        with of_samples("sample", n, progress) as done:
            while made < n:
                x = self.source.sample(chunk, d, stream(seed, "generate", len(points))).double()
                point, kept, near, mask = self(x)
                points.append(point)
                xs.append(x[kept])
                nearest.append(near[:, 0].clone())  # not all of `near`
                blended.append(mask.sum(1))
                drawn, made = drawn + chunk, made + kept.numel()
                if drawn >= 8 / GIVE_UP and made < GIVE_UP * drawn:
                    raise ValueError(
                        f"sample: angle_threshold {self.threshold:.4g} rejects {1 - made / drawn:.2%} of the samples;"
                        " take a larger one (it is an angle in radians)"
                    )
                done.update(min(made, n) - done.n)
        made_of = (torch.cat(parts)[:n] for parts in (blended, nearest, xs))
        return torch.cat(points)[:n], SampleInfo(self.threshold, 1 - made / max(drawn, 1), *made_of)
