"""Heights from the source's quantiles: of targets on a line, and coordinate by coordinate."""

import torch
from torch import Tensor

from otgen.ot.problem import Problem
from otgen.ot.solvers.base import Run
from otgen.ot.sources import CHUNK


def on_a_line(problem: Problem) -> Tensor | None:
    """The solution for targets on a line, (m,), where the source's quantiles along it are known; otherwise `None`."""
    if problem.d > 1 and problem.source.name != "normal":
        return None
    place = problem.line.place
    ends = problem.source.quantile(_shares(problem, place))
    return None if ends is None else _heights_on(place, ends)


def by_coordinates(problem: Problem, axes: Tensor | None = None) -> Tensor:
    """Heights of the map that moves every coordinate on its own, (m,), for a source whose quantiles are known.

    They are the sum of the solutions along the axes, and right for targets and weights that are products.

    Args:
        problem: What is to be solved.
        axes: The columns of a rotation, (d, d), for an isotropic source; `None` for the coordinates' own.
    """
    heights = torch.zeros_like(problem.nu)
    for place in (problem.y if axes is None else problem.y @ axes).unbind(dim=1):
        ends = problem.source.quantile(_shares(problem, place))
        assert ends is not None
        heights += _heights_on(place, ends)
    return heights


def sampled_on_a_line(problem: Problem, run: Run, n: int, index: int) -> Tensor:
    """Heights for targets on a line, (m,), from quantiles of n samples along it: chi2 is m / n.

    Args:
        problem: What is solved.
        run: Chooses the samples.
        n: Samples.
        index: Number of the stream.
    """
    place, direction, _ = problem.line
    sizes = [min(CHUNK, n - start) for start in range(0, n, CHUNK)]
    drawn = (run.sample(size, f"line {index}", i).double() for i, size in enumerate(sizes))
    x = torch.cat([samples @ direction for samples in drawn]).sort().values
    above = (_shares(problem, place) * n).long().clamp(1, n - 1)
    return _heights_on(place, (x[above - 1] + x[above]) / 2)


def _shares(problem: Problem, place: Tensor) -> Tensor:
    """Of the source below where cells end, (m - 1,), for targets at these places of a line."""
    return problem.nu[place.argsort()].cumsum(0)[:-1].clamp(1e-300, 1 - 2**-53)


def _heights_on(place: Tensor, ends: Tensor) -> Tensor:
    """Heights with which cells, intervals, end there, where neighbours score alike.

    The ends are quantiles q(c_j) for the cumulative weights c_j of the sorted targets t_j: `h_{j+1} = h_j - q(c_j)
    (t_{j+1} - t_j)`.
    """
    sites, order = place.sort()
    h = torch.zeros_like(place)
    h[order[1:]] = -(ends * sites.diff()).cumsum(0)
    return h
