"""The problem as the solvers see it: distinct targets of positive weight, centred and scaled."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from otgen import ops
from otgen.ot.sources import Kind, Source, most_telling

MIN_SPREAD = 1e-9
"""Of the targets, in units of the largest coordinate: where one weight is all but 1, the other targets must not be
scaled out of float32's range."""

NORMALISED = 1e-14
"""Weights whose sum is this near to one are left alone, so that those of a saved map come back to the last bit."""

MARGIN = 1e-9
"""How far below the potential the plane of a target of weight zero lies, relatively and in scaled units."""

FAR = 1e100
"""The nearest target to what lies farther may be another: its square would leave float64's range."""

LEAST_WEIGHT = 1e-30
"""Of the largest: no sampling could find the cell of a smaller one, and its inverse would leave float64's range."""

NumericArray = np.ndarray[tuple[int, ...], np.dtype[np.generic]]


class Line(NamedTuple):
    """The line through the targets' mean and the farthest of them.

    Attributes:
        place: Of each target on it, (m,).
        direction: Of unit length, (d,).
        off: How far off it they are at most, in units of the farthest.
    """

    place: Tensor
    direction: Tensor
    off: float


@dataclass(frozen=True)
class Problem:
    """Transport from a source to weighted points, in the units of the solvers.

    The given targets are `scale * y[index] + centre`. Translating them changes neither cells nor heights and scaling
    them scales the heights, so heights of this problem times `scale` are heights of the one that was given.

    Attributes:
        source: Where the mass comes from.
        y: Distinct targets of positive weight, (m, d), float64, weighted mean 0 and mean square of a coordinate 1.
        nu: Their weights, (m,), float64, summing to 1.
        centre: (d,), float64.
        scale: Positive.
        index: Row of `y` of each given target, (given,), int64; -1 for those of weight zero.
        given: The targets as given, (given, d), float64.
        weights: Their weights, (given,), float64, summing to 1.
    """

    source: Source
    y: Tensor
    nu: Tensor
    centre: Tensor
    scale: float
    index: Tensor
    given: Tensor
    weights: Tensor

    @property
    def m(self) -> int:
        """Number of distinct targets of positive weight."""
        return self.y.shape[0]

    @property
    def d(self) -> int:
        """Dimension."""
        return self.y.shape[1]

    @cached_property
    def covariance(self) -> Tensor:
        """Of the targets, (d, d), float64."""
        return (self.nu[:, None] * self.y).T @ self.y

    @cached_property
    def line(self) -> Line:
        """The line on which the targets lie, if they do; there must be two."""
        if self.d == 1:
            return Line(self.y[:, 0], self.y.new_ones(1), 0.0)
        length, far = self.y.norm(dim=1).max(0)
        direction = self.y[far] / length
        place = self.y @ direction
        off = float((self.y - place[:, None] * direction).norm(dim=1).max() / length)
        return Line(place, direction, off)

    @cached_property
    def kind(self) -> Kind:
        """The samples of steps and maps, which need not be independent."""
        return most_telling(self.y)

    def first_rows(self) -> Tensor:
        """For each distinct target the first row of the given ones that holds it, (m,), int64."""
        rows = torch.arange(self.index.shape[0], device="cpu")
        kept = self.index >= 0
        first = torch.full((self.m,), rows.shape[0], device="cpu")
        return first.scatter_reduce_(0, self.index[kept], rows[kept], "amin")

    def heights_out(self, h: Tensor) -> Tensor:
        """Heights of the given targets, (given,), from those of this problem, (m,).

        With mean 0 over targets of positive weight, as one of weight zero may lie far from all of them. It is put so
        low that its plane lies below that of the nearest of them wherever the source can be: it wins nowhere, and stays
        finite. Duplicates share their height.
        """
        out = h[self.index.clamp_min(0)] * self.scale
        j = torch.nonzero(self.index < 0)[:, 0]
        if j.numel():
            z = (self.given[j] - self.centre) / self.scale
            near = ops.assign(z.clamp(-FAR, FAR), self.y, -0.5 * self.y.square().sum(1))[0]
            away = z - self.y[near]
            reach = self.source.radius(self.d) * away.norm(dim=1) * (1 + MARGIN) + MARGIN
            out[j] = self.scale * (h[near] - away @ self.source.mean(self.d) - reach)
        return out - out[self.index >= 0].mean()

    def heights_in(self, heights: Tensor) -> Tensor:
        """Heights of this problem, (m,), from those of the given targets; of duplicates the largest, which wins."""
        h = torch.full((self.m,), -math.inf, dtype=torch.float64, device="cpu")
        kept = self.index >= 0
        h.scatter_reduce_(0, self.index[kept], heights.double()[kept] / self.scale, "amax")
        return h - h.mean()

    def spread(self, values: Tensor) -> Tensor:
        """Quantities per cell, (m,), as shares of the given targets, (given,): duplicates divide them by weight."""
        share = self.weights / self.nu[self.index.clamp_min(0)]
        return values[self.index.clamp_min(0)] * share


def make_problem(
    source: Source, targets: Tensor | NumericArray, weights: Tensor | NumericArray | None = None
) -> Problem:
    """Check the data, merge exact duplicates, drop zero weights, centre and scale.

    Args:
        source: Where the mass comes from.
        targets: (m, d) or, for d = 1, (m,); any real dtype.
        weights: (m,), not negative, not all zero; scaled to sum to 1. `None` for equal ones. Below 1e-30 of the largest
            they count as zero.

    Raises:
        ValueError: A shape or value does not fit.
        TypeError: A type or dtype does not fit.
    """
    given = own(as_matrix("targets", targets), targets)
    m = given.shape[0]
    nu = _weights(weights, m)

    y, index = torch.unique(given, dim=0, return_inverse=True)
    merged = torch.zeros(y.shape[0], dtype=torch.float64, device="cpu").index_add_(0, index, nu)
    # Keep the order in which the distinct targets were given: it decides ties, and is what a reader expects.
    first = torch.full((y.shape[0],), m, device="cpu").scatter_reduce_(0, index, torch.arange(m, device="cpu"), "amin")
    order = torch.argsort(first)
    order = order[merged[order] > 0]
    position = torch.full((y.shape[0],), -1, device="cpu").scatter_(
        0, order, torch.arange(order.shape[0], device="cpu")
    )
    y, merged = y[order], merged[order]

    centre = (merged[:, None] * y).sum(0)
    centred = y - centre
    size = float(centred.abs().max())  # first: squares of very large or small numbers leave float64's range
    scale = 1.0
    if size > 0:
        spread = math.sqrt(float((merged[:, None] * (centred / size).square()).sum()) / y.shape[1])
        scale = size * max(spread, MIN_SPREAD)
    index = torch.where(nu > 0, position[index], -1)
    return Problem(source, centred / scale, merged / merged.sum(), centre, scale, index, given, nu)


def as_matrix(name: str, values: Tensor | NumericArray, least: int = 1) -> Tensor:
    """A finite (m, d) float64 tensor, m at least 1 or what is said, from an array or tensor of any real dtype.

    Raises:
        ValueError: A shape or value does not fit.
        TypeError: A type or dtype does not fit.
    """
    x = _tensor(name, values)
    if x.dim() == 1:
        x = x[:, None]
    if x.dim() != 2 or x.shape[0] < least or x.shape[1] == 0:
        rows = "m, d) with m, d >= 1" if least else "n, d) with d >= 1"
        raise ValueError(f"{name} must have shape ({rows}, got {tuple(x.shape)}")
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).any(1).sum())
        raise ValueError(f"{name} must be finite, got NaN or infinite values in {bad} of {x.shape[0]} rows")
    if x.numel() and float(x.abs().max()) > 1e150:
        raise ValueError(f"{name} must be below 1e150 for their squares to stay finite, got {float(x.abs().max()):.3g}")
    return x


def own(x: Tensor, given: Tensor | NumericArray) -> Tensor:
    """A tensor whose memory is not that of what was given, which may change."""
    shared = isinstance(given, Tensor) and x.data_ptr() == given.data_ptr()
    return x.clone() if shared else x


def _tensor(name: str, values: Tensor | NumericArray) -> Tensor:
    if not isinstance(values, Tensor):
        given = values
        try:
            values = np.asarray(given)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{name} must be an array of numbers: {error}") from None
        if np.ma.is_masked(given):
            raise ValueError(f"{name} must not be masked, got {int(np.ma.getmaskarray(given).sum())} masked values")
        if values.dtype.kind not in "fiub":
            raise TypeError(
                f"{name} must be an array of real numbers, got dtype {values.dtype} of a {type(given).__name__}"
            )
        values = torch.from_numpy(np.array(values, dtype=np.float64, order="C"))
    if values.dtype.is_complex:
        raise TypeError(f"{name} must be real, got {values.dtype}")
    if values.is_nested or values.is_meta or values.layout != torch.strided:
        came = "a nested one" if values.is_nested else "a meta one" if values.is_meta else f"layout {values.layout}"
        raise TypeError(f"{name} must be a dense tensor, got {came}")
    return values.detach().cpu().double().contiguous()


def _weights(weights: Tensor | NumericArray | None, m: int) -> Tensor:
    if weights is None:
        return torch.full((m,), 1 / m, dtype=torch.float64, device="cpu")
    nu = own(_tensor("weights", weights), weights)
    if tuple(nu.shape) != (m,):
        raise ValueError(f"weights must have shape ({m},) to match the targets, got {tuple(nu.shape)}")
    if not bool(torch.isfinite(nu).all()) or bool((nu < 0).any()):
        raise ValueError(
            f"weights must be finite and not negative, got values from {float(nu.min())} to {float(nu.max())}"
        )
    if float(nu.max()) <= 0:
        raise ValueError("weights must not all be zero")
    nu = torch.where(nu < LEAST_WEIGHT * nu.max(), 0.0, nu)
    if abs(float(nu.sum()) - 1) < NORMALISED:
        return nu
    nu = nu / nu.max()  # first: the sum of very large or small numbers leaves float64's range
    return nu / nu.sum()
