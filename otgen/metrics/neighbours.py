"""Nearest neighbours in Euclidean distance, by the kernels: scores <x, y> - |y|^2 / 2 fall as the distance grows."""

import torch
from torch import Tensor

from otgen import ops

ROWS = 1 << 22
"""Numbers gathered at a time when distances are worked out."""

SOME = 1000
"""Points whose median is taken for that of all."""


def middle(y: Tensor) -> Tensor:
    """A point, (d,), that many of the points y, (m, d), are near, also if some lie far away.

    Scores are taken about it, as those of points far from the origin would all agree in their leading digits. Any point
    is right.
    """
    return y[:: max(1, len(y) // SOME)].median(0).values


def nearest(x: Tensor, y: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Find the k nearest of the points y to each x.

    Args:
        x: Points, (n, d), float64.
        y: Points, (m, d), float64.
        k: How many, 1 <= k <= m.

    Returns:
        Rows of `y` (n, k), int64, nearest first, and distances (n, k), worked out from the differences, as the score of
        a near point is a small difference of large numbers.
    """
    centre = middle(y)
    near = ops.topk(x - centre, y - centre, -0.5 * (y - centre).square().sum(1), k)[0]
    step = max(1, ROWS // (k * y.shape[1]))
    parts = [
        torch.linalg.vector_norm(x[i : i + step, None] - y[near[i : i + step]], dim=2) for i in range(0, len(x), step)
    ]
    return near, torch.cat(parts) if parts else x.new_empty(0, k)


def spacing(x: Tensor, k: int = 1) -> Tensor:
    """Distance (n,) of each of the points x (n, d), float64, to the k-th nearest of the others, 1 <= k < n."""
    return nearest(x, x, k + 1)[1][:, k]


def in_any_ball(x: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """Whether each x lies in at least one of the balls.

    Of all balls the one of least power distance |x - c|^2 - r^2 decides, which is the winner of the scores
    <x, c> - (|c|^2 - r^2) / 2: a power diagram, so one search is enough however many balls overlap.

    Args:
        x: Points, (n, d), float64.
        centres: Of the balls, (m, d), float64.
        radii: Of the balls, (m,), float64.

    Returns:
        Truth values (n,); the surface counts as inside.
    """
    origin = middle(centres)
    c = centres - origin
    best = ops.assign(x - origin, c, -0.5 * (c.square().sum(1) - radii.square()))[0]
    inside: Tensor = torch.linalg.vector_norm(x - centres[best], dim=1) <= radii[best]
    return inside


def balls_around(x: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """Count the balls that each x lies in.

    The balls come in the order of their power distance, so those that hold x stand first: ask for a few, and for four
    times as many where the last one still holds x.

    Args:
        x: Points, (n, d), float64.
        centres: Of the balls, (m, d), float64.
        radii: Of the balls, (m,), float64.

    Returns:
        Counts (n,), int64.
    """
    origin = middle(centres)
    c = centres - origin
    h = -0.5 * (c.square().sum(1) - radii.square())
    counts = torch.zeros(len(x), dtype=torch.int64, device="cpu")
    open_, k = torch.arange(len(x), device="cpu"), min(16, len(c))
    while open_.numel():
        for rows in torch.split(open_, max(1, ROWS // (k * x.shape[1]))):
            near = ops.topk(x[rows] - origin, c, h, k)[0]
            distance = torch.linalg.vector_norm(x[rows, None] - centres[near], dim=2)  # copies lie on the surface
            counts[rows] = (distance <= radii[near]).sum(1)
        open_ = open_[counts[open_] == k] if k < len(c) else open_[:0]
        k = min(4 * k, len(c))
    return counts
