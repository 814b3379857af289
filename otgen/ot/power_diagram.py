"""Power diagrams on their own: exact cells of weighted sites in one, two and three dimensions."""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from otgen import ops
from otgen.ops.check import SOURCES
from otgen.ot.problem import NumericArray, as_matrix, own

FLAT = 1e-12
"""A domain whose size this falls below, relative to its longest side, is taken for one without inside."""

LEAST, LARGEST = 1e-60, 1e60
"""Longest side of a domain, and coordinates of it and of sites, whose powers stay within float64's range."""


class PowerDiagram:
    """Cells `W_j = {x in the domain : <x, y_j> + h_j >= <x, y_i> + h_i for all i}`, with what the source has on them.

    In words of weights w_j, as in |x - y_j|^2 - w_j, the heights are `h_j = (w_j - |y_j|^2) / 2`. Nothing is sampled:
    cells are intervals, polygons or polyhedra, found by clipping (Aurenhammer 1987, "Power diagrams"), and integrals of
    the source over them are right to rounding. Time grows like m log m but where nearly all cells meet in one point or
    border on one cell; a million sites of the plane take seconds.

    Args:
        sites: y, (m, d), d at most 3; an array or tensor of any real dtype. Of exact duplicates the highest has the
            cell, of equally high ones the first.
        heights: h, (m,); `None` for `-|y|^2 / 2`, which makes the cells Voronoi cells.
        domain: "uniform" for the uniform density on the unit cube [0, 1]^d, "normal" for N(0, I) on all of R^d, or
            the support of a uniform density: the lowest and highest corner of a box, (2, d), or in the plane the
            corners of a convex polygon in order, (k, 2), k >= 3.

    Attributes:
        sites: (m, d), float64.
        domain: As given.
        heights: (m,), float64.
        measures: Share of the source in each cell, (m,), float64; 0 for hidden sites.
        centroids: Mean of the source over each cell, (m, d), float64; NaN for hidden sites.
        second_moments: Integral of |x|^2 over each cell, (m,), float64.
        costs: Integral of |x - y_j|^2 over each cell, (m,), float64: what it costs to bring its mass to its site.
        pairs: Sites whose cells share a facet, (f, 2), int64, i < j.
        facets: Integral of the density over each of these facets, (f,), float64.

    Raises:
        ValueError: A shape or value does not fit.
        TypeError: A type does not fit.

    Example:
        >>> diagram = PowerDiagram(torch.rand(1000, 2))
        >>> diagram.measures.sum()
        tensor(1., dtype=torch.float64)
    """

    def __init__(
        self,
        sites: Tensor | NumericArray,
        heights: Tensor | NumericArray | None = None,
        domain: Literal["uniform", "normal"] | Tensor | NumericArray = "uniform",
    ) -> None:
        y = own(as_matrix("PowerDiagram: sites", sites), sites)
        m, d = y.shape
        if d > ops.MAX_DIM:
            raise ValueError(f"PowerDiagram: sites must have at most {ops.MAX_DIM} coordinates, got {d}")
        if float(y.abs().max()) > LARGEST:
            raise ValueError(f"PowerDiagram: sites must be at most {LARGEST:g}, got {float(y.abs().max()):.3g}")
        at = _domain(domain, d)
        # Sites and source about their own centres, so that nothing cancels where either lies far from the origin:
        # <x, y> + h is <x - o, y - c> + (h + <o, y - c>) but for what is the same for all sites.
        self._origin = (
            at.corners.mean(0) if at.source == "uniform" else torch.zeros(d, dtype=torch.float64, device="cpu")
        )
        self._domain = ops.Domain(at.source, (at.corners - self._origin).contiguous())
        turned = not isinstance(domain, str) and len(domain) > 2 and not torch.equal(at.corners, as_matrix("", domain))
        self._turned = len(at.corners) if turned else 0  # corners of a polygon that was given clockwise
        centre = y.mean(0)
        away = y - centre
        if heights is None:
            self.heights = -0.5 * y.square().sum(1)
            self._h = -0.5 * away.square().sum(1) - away @ (centre - self._origin)
        else:
            given = own(as_matrix("PowerDiagram: heights", heights), heights)
            if tuple(given.shape) != (m, 1):
                raise ValueError(f"PowerDiagram: heights must have shape ({m},), got {tuple(np.shape(heights))}")
            self.heights = given[:, 0]
            self._h = self.heights + away @ self._origin
        self.sites, self.domain = y, domain
        self._index = ops.Sites(away)
        found = self._index.diagram(self._h, self._domain)
        self.measures, self.pairs, self.facets = found.measures, found.pairs, found.facets
        self.centroids = self._origin + found.first / found.measures[:, None]
        first = found.first + found.measures[:, None] * self._origin
        self.second_moments = found.second + (found.first + first) @ self._origin
        to_origin = away + (centre - self._origin)
        self.costs = (
            found.second - 2 * (found.first * to_origin).sum(1) + found.measures * to_origin.square().sum(1)
        ).clamp_min(0)

    def __repr__(self) -> str:
        m, d = self.sites.shape
        return f"PowerDiagram({m} sites in {d} dimensions, {int((self.measures > 0).sum())} cells)"

    def hessian(self) -> Tensor:
        """Off-diagonal entries of the Hessian of the energy, negated, (f,), float64: facet / |y_i - y_j| for `pairs`.

        How fast mass moves from cell i to cell j as h_j rises: -d measures_i / d h_j.
        """
        i, j = self.pairs.unbind(dim=1)
        rate: Tensor = self.facets / (self.sites[i] - self.sites[j]).norm(dim=1)
        return rate

    def cells(self, which: Tensor | NumericArray | None = None) -> list[ops.Cell]:
        """Make cells as intervals, polygons or polyhedra; of the normal source cut off at coordinates of 10.

        Args:
            which: Rows of the sites, (k,), integers; `None` for all.

        Returns:
            An `otgen.ops.Cell` each, with `corners`, `faces` and `neighbours`. Side k of a polygon goes from the k-th
            corner given to the next.
        """
        m = self.sites.shape[0]
        if which is not None and not isinstance(which, Tensor):
            which = torch.tensor(np.asarray(which).tolist())  # of any strides and byte order
        rows = torch.arange(m, device="cpu") if which is None else which.cpu()
        if rows.numel() == 0 or not (rows.is_floating_point() or rows.is_complex() or rows.dtype == torch.bool):
            rows = rows.long()
        cells = self._index.cells(self._h, self._domain, rows)
        return [ops.Cell(cell.corners + self._origin, cell.faces, self._as_given(cell.neighbours)) for cell in cells]

    def _as_given(self, neighbours: Tensor) -> Tensor:
        """Neighbours with the domain's sides numbered as its corners were given."""
        if not self._turned:
            return neighbours
        return torch.where(neighbours < 0, -1 - (neighbours - 1) % self._turned, neighbours)


def _domain(domain: "str | Tensor | NumericArray", d: int) -> ops.Domain:
    """A domain from what the user gave."""
    if isinstance(domain, str):
        if domain not in SOURCES:
            wanted = f"one of {', '.join(SOURCES)} or corners"
            raise ValueError(f"PowerDiagram: domain must be {wanted}, got {domain!r}")
        return ops.cube(domain, d)
    corners = as_matrix("PowerDiagram: domain", domain)
    k, columns = corners.shape
    if columns != d or k < 2 or (d != 2 and k != 2):
        wanted = f"(2, {d})" if d != 2 else "(2, 2) or (k, 2) with k >= 3"
        raise ValueError(f"PowerDiagram: domain must have shape {wanted}, got {tuple(corners.shape)}")
    size = float((corners.amax(0) - corners.amin(0)).max())
    if size < LEAST or float(corners.abs().max()) > LARGEST:
        came = f"a size of {size:.3g} and {float(corners.abs().max()):.3g}"
        raise ValueError(f"PowerDiagram: domain must have sides from {LEAST:g} and lie within {LARGEST:g}, got {came}")
    if k == 2:
        low, high = corners
        if not bool((high - low > FLAT * size).all()):
            came = f"{low.tolist()} and {high.tolist()}"
            raise ValueError(f"PowerDiagram: domain must be a lowest and a highest corner, got {came}")
        if d == 2:
            corners = torch.stack([low, torch.stack([high[0], low[1]]), high, torch.stack([low[0], high[1]])])
        return ops.Domain("uniform", corners.contiguous())
    return ops.Domain("uniform", _convex(corners, size))


def _convex(corners: Tensor, size: float) -> Tensor:
    """Corners of a convex polygon, counter-clockwise."""
    edges = corners.roll(-1, 0) - corners
    after = edges.roll(-1, 0)
    turns = edges[:, 0] * after[:, 1] - edges[:, 1] * after[:, 0]
    if float(turns.sum()) < 0:
        corners, turns = corners.flip(0), -turns
    slack = FLAT * size * size
    angle = torch.atan2(turns, (edges * after).sum(1)).sum() / (2 * math.pi)
    if float(turns.min()) < -slack or float(turns.max()) <= slack or round(abs(float(angle))) != 1:
        raise ValueError("PowerDiagram: domain must be a convex polygon, its corners in order, got one that is not")
    return corners.contiguous()
