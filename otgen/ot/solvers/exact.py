"""Exact cells in one, two and three dimensions: damped Newton to rounding, no samples.

Algorithm 1 of Kitagawa, Mérigot and Thibert 2019, "Convergence of a Newton algorithm for semi-discrete optimal
transport": cells never get smaller than half the smallest of what they start with and what they should have, and every
step decreases the error by its share; then the number of steps is finite and the last ones converge quadratically. All
are by secants instead of tangents, which are the same at the solution and lead there in fewer steps from afar.
"""

import math
from typing import Any, NamedTuple

import scipy.sparse
import torch
from torch import Tensor

from otgen import ops
from otgen.bars import Bar
from otgen.ot.certificate import certify_exactly
from otgen.ot.problem import Problem
from otgen.ot.solvers.base import Run, Solution, State
from otgen.ot.solvers.linear import DIRECT, Linear
from otgen.ot.solvers.quantiles import by_coordinates, on_a_line

GOAL = 1e-9
"""Largest relative error of a cell at which the heights are exact for every purpose."""

EPSILON = 2.0**-52
"""Relative rounding of a height. Where that moves more than `GOAL` of a cell (between close targets), it is reached."""

ROUNDING = 1e-5
"""Below this error a step that no longer halves it has met rounding as well, and the search ends."""

SMALLEST_STEP = 2.0**-40
"""A step that must be damped below this leads nowhere."""

ENOUGH = 0.01
"""No residual need be smaller than this part of `GOAL` of the smallest cell."""

NORMAL_WIDTH = 6.0
"""Width over which targets are laid at the start under the normal source: three standard deviations to both sides of
its mean, where a cell still has some mass."""

SOME = 500
"""Targets, spread over all, between which starts are compared."""


class Point(NamedTuple):
    """Heights and their diagram."""

    h: Tensor
    diagram: ops.Diagram


def knows(problem: Problem) -> bool:
    """Whether exact cells are to be had: three dimensions at most, and a source of known density."""
    return problem.d <= ops.MAX_DIM and problem.source.name in ("uniform", "normal")


@ops.torch_on_one_thread()  # so that sums do not depend on the number of threads
@ops.blas_on_one_thread()
def solve(run: Run, identity: str = "") -> Solution:
    """Find the heights, in the units of the problem.

    Raises:
        ValueError: The problem has no exact cells.
    """
    problem = run.problem
    if not knows(problem):
        came = f"{problem.d} dimensions and the {problem.source.name} source"
        raise ValueError(f"method exact wants targets of 1 to 3 dimensions and a named source, got {came}")
    search = _Search(problem)
    before = run.resume(State, identity)
    step, start = (0, run.start) if before is None else (before.step, before.h)
    point = search.start(start)
    search.floor = 0.5 * min(float((point.diagram.measures / search.nu).min()), 1.0)
    with Bar(desc="exact", unit=" steps", initial=step, disable=not run.progress) as bar:
        while True:
            _record(run, step, search.nu, point.diagram.measures)
            bar.set_postfix_str(f"largest relative error {search.error(point):.2g}", refresh=False)
            if search.error(point) <= max(GOAL, search.rounding(point)):
                break
            after, done = search.step(point)
            step, point = step + 1, after
            bar.update()
            run.save(State(search.given(point.h), step), identity)
            if done:
                _record(run, step, search.nu, point.diagram.measures)
                break
    measures, first, second = (search.given(getattr(point.diagram, name)) for name in ("measures", "first", "second"))
    h = search.given(point.h)
    certificate = certify_exactly(problem, h, measures, first, float(second.sum()))
    return Solution(
        h, certificate.holds(run.tol), certificate, measures, run.history, run.used, first / measures[:, None]
    )


class _Search:
    """Newton's method on the targets in an order in which neighbours stand close, which the linear algebra likes."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.order = ops.Sites(problem.y).order()
        self.y, self.nu = problem.y[self.order].contiguous(), problem.nu[self.order]
        self.sites = ops.Sites(self.y)
        self.domain = ops.cube(problem.source.name, problem.d)
        self.floor = 0.0
        self._linear = Linear(DIRECT[problem.d])

    def given(self, values: Tensor) -> Tensor:
        """Values in the problem's order."""
        out = torch.empty_like(values)
        out[self.order] = values
        return out

    def error(self, point: Point) -> float:
        """Largest relative error of a cell."""
        return float((point.diagram.measures / self.nu - 1).abs().max())

    def rounding(self, point: Point) -> float:
        """Largest relative error that the rounding of heights alone makes in a cell."""
        i, j, weight = self.edges(point)
        rate = torch.bincount(i, weight, len(self.nu)) + torch.bincount(j, weight, len(self.nu))
        return EPSILON * float(point.h.abs().max()) * float((rate / self.nu).max())

    def edges(self, point: Point) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs of neighbouring cells i, j, and how fast mass moves between them as heights change."""
        i, j = point.diagram.pairs.unbind(dim=1)
        return i, j, point.diagram.facets / (self.y[i] - self.y[j]).norm(dim=1)

    def at(self, h: Tensor, near: Point | None = None, least: float = 0.0) -> Point:
        """The diagram of heights, which takes less time if that of heights near by is at hand.

        Raises:
            SmallCell: A cell has less than `least` times what it should.
        """
        h = h - h.mean()
        pairs = None if near is None else near.diagram.pairs
        return Point(h, self.sites.diagram(h, self.domain, near=pairs, least=least * self.nu))

    def start(self, h: Tensor | None) -> Point:
        """A point without empty cells, from `h` (in the problem's order) if it is given and leaves none empty."""
        if h is None and self.problem.d == 1:
            h = on_a_line(self.problem)
        if h is not None:
            point = self.at(h[self.order])
            if _none_empty(point):
                return point
        return self._safe()

    def _safe(self) -> Point:
        """The guess that looks nearest of those without an empty cell, or of all if each has one."""
        guesses = sorted(self._guesses(), key=self._distance)
        safe = (point for point in map(self.at, guesses) if _none_empty(point))
        return next(safe, None) or self.at(guesses[0])

    def _guesses(self) -> list[Tensor]:
        """Heights, (m,), that leave no cell empty but for rounding."""
        # The solutions along the axes added up: a cell contains the box of its cells there.
        guesses = [by_coordinates(self.problem)[self.order]]
        if self.problem.source.name == "normal":
            principal = torch.linalg.eigh(self.problem.covariance).eigenvectors
            guesses.append(by_coordinates(self.problem, principal)[self.order])
        # Voronoi cells of the targets laid over the source: each holds its own target.
        low, high = self.y.amin(0), self.y.amax(0)
        width = 1.0 if self.problem.source.name == "uniform" else NORMAL_WIDTH
        widest = float((high - low).max()) or 1.0  # one target
        away = self.y - (low + high) / 2
        middle = self.problem.source.mean(self.problem.d)
        guesses.append(-0.5 * (width / widest) * away.square().sum(1) - away @ middle)
        return guesses

    def _distance(self, h: Tensor) -> float:
        """Total variation, between some of the targets alone."""
        some = slice(None, None, math.ceil(self.problem.m / SOME))
        nu = self.nu[some] / self.nu[some].sum()
        found = ops.Sites(self.y[some].contiguous()).diagram(h[some].contiguous(), self.domain)
        return float((found.measures - nu).abs().sum()) / 2

    def step(self, point: Point) -> tuple[Point, bool]:
        """A damped Newton step, and whether it was the last that helps."""
        missing, wanted = self.nu - point.diagram.measures, self._wanted(point.diagram.measures)
        try:
            enough = ENOUGH * GOAL * float(self.nu.min())
            direction = self._linear.solve(self._hessian(point), wanted, self.error(point), enough)
        except RuntimeError:  # of a cell whose facets have no area: targets differ too much in distance
            return point, True
        norm, error, damping = self._norm(missing), self.error(point), 1.0
        slope = min(1.0, float((missing * wanted / self.nu).sum()) / norm**2)  # a full step may end at the solution
        while damping >= SMALLEST_STEP:
            try:
                after = self.at(point.h + damping * direction, near=point, least=self.floor)
            except ops.SmallCell:
                damping /= 2
                continue
            norm_after = self._norm(self.nu - after.diagram.measures)
            error_after = self.error(after)
            if error < ROUNDING and norm_after > 0.5 * norm and error_after > 0.5 * error:
                return (after if error_after < error else point), True
            if norm_after <= (1 - 0.5 * slope * damping) * norm:
                return after, False
            damping /= 2
        return point, True

    def _wanted(self, measures: Tensor) -> Tensor:
        """What the tangent must give the cells, (m,), for secants to give them what they lack.

        About where a cell begins its measure grows like a power d of its height, so one that has too much sinks further
        than its tangent says, and one that has too little rises less. It does rise, so that small enough a step leaves
        no cell smaller than it was or should be.
        """
        d = self.problem.d
        change = d * (measures ** (1 - 1 / d) * self.nu ** (1 / d) - measures)
        return change - change.sum() * self.nu

    def _norm(self, missing: Tensor) -> float:
        """The square root of chi2, in which what a step wants is a descent for any weights."""
        return float((missing.square() / self.nu).sum().sqrt())

    def _hessian(self, point: Point) -> Any:
        """The graph Laplacian with weights facet / distance, without the first row and column: positive definite."""
        i, j, weight = self.edges(point)
        m = self.nu.shape[0]
        degree = (torch.bincount(i, weight, m) + torch.bincount(j, weight, m)).double()  # whole numbers if none meet
        inner = i > 0
        above = ((i[inner] - 1).numpy(), (j[inner] - 1).numpy())
        upper = scipy.sparse.coo_array((-weight[inner].numpy(), above), shape=(m - 1, m - 1)).tocsr()
        return upper + upper.T.tocsr() + scipy.sparse.diags_array(degree[1:].numpy(), format="csr")


def _none_empty(point: Point) -> bool:
    return bool((point.diagram.measures > 0).all())


def _record(run: Run, step: int, nu: Tensor, measures: Tensor) -> None:
    """Add a diagram to the history."""
    away = measures - nu
    chi2, tv = float((away.square() / nu).sum()), float(away.abs().sum()) / 2
    run.record(step, 0, chi2, tv, int((measures == 0).sum()))
