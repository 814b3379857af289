"""Exact power diagrams in one, two and three dimensions."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock

import numpy as np
import torch
from torch import Tensor

from otgen import _ext
from otgen.ops import check
from otgen.ops.threads import threads

REACH = 10.0
"""The normal source is cut off at this coordinate; less than 1e-22 of its mass lies beyond."""

MOST_REACH = 1e4
"""Coordinates of a domain of the normal source, whose integrals take the longer the wider it is."""

LARGEST = 1e150
"""Of targets and heights: the product of two is finite."""

LEAST = 1e-300
"""Length, area or volume of a domain: the inverse is finite."""

MAX_DIM = 3

SmallCell = _ext.SmallCell
"""A cell has less than it must."""


@dataclass(frozen=True)
class Domain:
    """Where a source of known density lives.

    Attributes:
        source: "uniform" or "normal".
        corners: For the uniform source the ends of an interval (2, 1), the corners of a convex polygon in
            counter-clockwise order (k, 2), or the lowest and highest corner of a box (2, 3), float64; for the normal
            one something of the same kind that holds its mass.
    """

    source: str
    corners: Tensor

    @property
    def d(self) -> int:
        """Dimension."""
        return self.corners.shape[1]


@dataclass(frozen=True)
class Diagram:
    """Integrals of the source's density over power cells and their facets.

    Attributes:
        measures: Of the cells, (m,), float64.
        first: Integral of x over each cell, (m, d), float64; divided by the measure it is the centroid.
        second: Integral of |x|^2 over each cell, (m,), float64.
        pairs: Cells that share a facet, (f, 2), int64, i < j. Where targets all but coincide, or many planes meet, a
            pair may stand there more than once, each time with a part of the facet.
        facets: Integral of the density over each of these facets, (f,), float64; in one dimension its value there.
    """

    measures: Tensor
    first: Tensor
    second: Tensor
    pairs: Tensor
    facets: Tensor


@dataclass(frozen=True)
class Cell:
    """One power cell.

    Attributes:
        corners: (k, d), float64; of a polygon in counter-clockwise order. Empty for an empty cell.
        faces: Rows of `corners` of each facet, (*,), int64, counter-clockwise seen from outside. Edge i of a polygon
            goes from corner i to the next.
        neighbours: The target behind each facet, or -1 - k for side k of the domain, (faces,), int64. A polygon's goes
            from its corner k to the next, a rectangle's corners being those of a polygon from the lowest on; sides 2 i
            and 2 i + 1 of an interval or a box in space are the low and the high one along coordinate i.
    """

    corners: Tensor
    faces: list[Tensor]
    neighbours: Tensor


def cube(source: str, d: int) -> Domain:
    """The domain of a named source: [0, 1]^d for "uniform", all of R^d (cut off at 10) for "normal"."""
    check.source("power_diagram", source)
    low, high = (0.0, 1.0) if source == "uniform" else (-REACH, REACH)
    if d == 2:
        return Domain(
            source,
            torch.tensor([[low, low], [high, low], [high, high], [low, high]], dtype=torch.float64, device="cpu"),
        )
    return Domain(source, torch.tensor([[low] * d, [high] * d], dtype=torch.float64, device="cpu"))


class Sites:
    """Targets indexed for power diagrams, which can then be had for one choice of heights after another.

    Cell j is the part of the domain where `<x, y_j> + h_j` is largest. Of exact duplicates the highest has the cell, of
    equally high ones the first. Time grows like m log m, also with clustered targets and strong heights, and like m^2
    only where nearly all cells meet in one point or border on one cell. The result does not depend on the number of
    threads.

    Args:
        y: Targets, (m, d), float64, d at most 3.

    Raises:
        ValueError: A shape or value does not fit.
        TypeError: A type does not fit.
    """

    def __init__(self, y: Tensor) -> None:
        y = check.tensor("power_diagram", "y", y, ("m", "d"))
        if y.dtype != torch.float64:
            raise TypeError(f"power_diagram: y must be float64, got {check.word(y.dtype)}")
        if not (1 <= y.shape[1] <= MAX_DIM and y.shape[0] >= 1):
            raise ValueError(
                f"power_diagram: y must have shape (m, d) with m >= 1, d from 1 to 3, got {tuple(y.shape)}"
            )
        if y.device.type != "cpu":
            raise ValueError(f"power_diagram: y must be on the CPU, got {y.device}")
        _refuse_huge("y", y)
        self.m, self.d = y.shape
        self._y = y.clone()  # a copy of this index is built from it
        self._lock, self._busy = RLock(), False
        self._tree = _ext.SiteTree(y.data_ptr(), self.m, self.d, threads())

    def __reduce__(self) -> tuple[type["Sites"], tuple[Tensor]]:
        """Copies, and other processes, build an index of their own."""
        return Sites, (self._y,)

    def order(self) -> Tensor:
        """Targets in an order in which near ones stand close to each other, (m,), int64."""
        numbers = torch.empty(self.m, dtype=torch.int64, device="cpu")
        self._tree.order(numbers.data_ptr())
        return numbers

    def diagram(
        self, h: Tensor, domain: Domain, progress: check.Progress | None = None, *, near: Tensor | None = None,
        least: Tensor | None = None,
    ) -> Diagram:  # fmt: skip
        """Measure all cells and facets.

        Args:
            h: Heights, (m,), float64.
            domain: Of the source; as many dimensions as the targets.
            progress: Told the fraction done about ten times a second; `None` for nobody.
            near: Pairs of targets that are likely to be neighbours, (k, 2), int64, such as `Diagram.pairs` for other
                heights: cells are cut by these first, which takes three quarters of the time where they are right.
                Whatever they are, only rounding tells results apart. `None` for none.
            least: Measures that the cells must have, (m,), float64; `None` for 0.

        Raises:
            SmallCell: A cell has less; told at once.
        """
        check.progress("power_diagram", progress)
        none = torch.empty(0, 2, dtype=torch.int64, device="cpu")
        near = check.indices("power_diagram", "near", none if near is None else near, 2, self.m)
        if least is not None:
            least = check.tensor("power_diagram", "least", least, (self.m,), like=self._y)
        measures, second = torch.empty(2, self.m, dtype=torch.float64, device="cpu").unbind()
        first = torch.empty(self.m, self.d, dtype=torch.float64, device="cpu")
        with self._set(h, domain) as corners:
            pairs, facets = self._tree.diagram(
                domain.source, corners.data_ptr(), corners.shape[0], threads(), progress, near.data_ptr(), len(near),
                0 if least is None else least.data_ptr(), measures.data_ptr(), first.data_ptr(), second.data_ptr(),
            )  # fmt: skip
        return Diagram(measures, first, second, _tensor(pairs).view(-1, 2), _tensor(facets))

    def cells(self, h: Tensor, domain: Domain, which: Tensor) -> list[Cell]:
        """Make the cells of some targets.

        Args:
            h: Heights, (m,), float64.
            domain: Of the source.
            which: Targets, (k,), int64.
        """
        which = check.indices("power_diagram", "which", which, None, self.m)
        with self._set(h, domain) as corners:
            columns = self._tree.cells(
                domain.source, corners.data_ptr(), corners.shape[0], which.data_ptr(), which.shape[0]
            )
        sizes, points, labels, loop_sizes, loops = (_tensor(column) for column in columns)
        corners, faces = sizes.view(-1, 2).unbind(dim=1)
        all_corners = points.view(-1, self.d).split(corners.tolist())
        all_labels = labels.split(faces.tolist())
        if self.d == 3:
            rings = loops.split(loop_sizes.tolist())
            ends = faces.cumsum(0).tolist()
            all_faces = [list(rings[end - count : end]) for end, count in zip(ends, faces.tolist(), strict=True)]
        else:
            all_faces = [_edges(count, self.d) for count in corners.tolist()]
        return [Cell(*parts) for parts in zip(all_corners, all_faces, all_labels, strict=True)]

    @contextmanager
    def _set(self, h: Tensor, domain: Domain) -> Iterator[Tensor]:
        """Keep the heights in the tree, for one caller at a time; gives the domain's corners, dense."""
        h = check.tensor("power_diagram", "h", h, (self.m,), like=self._y)
        _refuse_huge("h", h)
        if not isinstance(domain, Domain):
            raise TypeError(f"power_diagram: domain must be a Domain, got {type(domain).__name__}")
        if domain.d != self.d:
            raise ValueError(f"power_diagram: the domain must have {self.d} dimensions, got {domain.d}")
        check.source("power_diagram", domain.source)
        corners = check.tensor("power_diagram", "corners", domain.corners, ("k", self.d), like=self._y)
        count = corners.shape[0]
        if not (count >= 3 if self.d == 2 else count == 2):
            wanted = "3 at least" if self.d == 2 else "2"
            raise ValueError(f"power_diagram: corners must be {wanted}, got {count}")
        if count == 2 and not bool((corners[0] < corners[1]).all()):
            raise ValueError(f"power_diagram: corners must be a lowest and a highest one, got {corners.tolist()}")
        if not LEAST < (size := _size(corners)) < math.inf:
            turn = "counter-clockwise and " if self.d == 2 else ""
            raise ValueError(f"power_diagram: corners must be {turn}of a finite size above {LEAST:g}, got {size:.3g}")
        if domain.source == "normal" and float(corners.abs().max()) > MOST_REACH:
            raise ValueError(f"power_diagram: corners of the normal source must be within {MOST_REACH:g}")
        with self._lock:
            if self._busy:
                raise RuntimeError("power_diagram: these sites are at work, on the diagram whose progress this is")
            self._busy = True
            try:
                self._tree.set_heights(h.data_ptr(), threads())
                yield corners
            finally:
                self._busy = False


def _refuse_huge(name: str, values: Tensor) -> None:
    """Refuse numbers whose products with others of their size leave float64's range."""
    if (largest := float(values.abs().max())) > LARGEST:
        raise ValueError(f"power_diagram: {name} must be within {LARGEST:g}, got {largest:.3g}")


def _size(corners: Tensor) -> float:
    """Of a box from its lowest and highest corner, or of a polygon: negative where its corners are clockwise."""
    away = corners[1:] - corners[0]
    if corners.shape[1] != 2:
        return float(away.prod())
    a, b = away[:-1], away[1:]
    return 0.5 * float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum())


def _edges(corners: int, d: int) -> list[Tensor]:
    """Facets of an interval, its ends, or of a polygon, its edges."""
    if d == 1:
        return [torch.tensor([k], device="cpu") for k in range(corners)]
    return [torch.tensor([k, (k + 1) % corners], device="cpu") for k in range(corners)]


def _tensor(column: "_ext.IntColumn | _ext.DoubleColumn") -> Tensor:
    """A tensor over the memory of a column, which it keeps alive."""
    return torch.from_numpy(np.asarray(column))
