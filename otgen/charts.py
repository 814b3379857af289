"""Charts from plain data: curves with bands, points in the plane, sheets of images; one panel or many."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from otgen.plots import PALETTE, figure_of, plain_numbers, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 4.6, 3.7
"""Inches of a panel."""

CROWDED = 5
"""Words below an axis that stand upright beside each other."""

SHORT = 200.0
"""Range of a logarithmic axis below which 20 is written as 20: powers of ten alone would be too few."""


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        x: Where.
        y: Values; a nan is a gap.
        label: For the legend; empty for none.
        band: Half-width of a band around it, at each x; `None` for none.
        style: As matplotlib writes it: "-", "--", ":", "o-", "o".
        colour: Number in the palette.
    """

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    band: Sequence[float] | None = None
    style: str = "-"
    colour: int = 0


@dataclass(frozen=True)
class Cloud:
    """Points in the plane.

    Attributes:
        points: (n, 2).
        label: For the legend; empty for none.
        colour: Number in the palette.
        size: Of a point, in points squared.
        marker: As matplotlib writes it.
        alpha: Opacity.
    """

    points: Tensor
    label: str = ""
    colour: int = 0
    size: float = 4
    marker: str = "o"
    alpha: float = 1.0


@dataclass(frozen=True)
class Panel:
    """One pair of axes: what is in it and what stands around it.

    Attributes:
        title: Above it.
        xlabel: Below it.
        ylabel: Beside it.
        lines: Curves.
        clouds: Points, drawn before the curves.
        images: A sheet of images (n, h, w) or (n, 1, h, w) in [0, 1] instead of all else; `None` for none.
        marks: Values of x with a thin upright line, and their labels.
        ticks: Values of x and what stands below them instead of numbers, slanted if there are many.
        xscale: "linear", "log" or "symlog".
        yscale: As `xscale`.
        xlim: Range of x; `None` for that of the data.
        ylim: Range of y.
        equal: Whether a unit is as long on both axes.
    """

    title: str = ""
    xlabel: str = ""
    ylabel: str = ""
    lines: Sequence[Line] = ()
    clouds: Sequence[Cloud] = ()
    images: Tensor | None = None
    marks: dict[float, str] = field(default_factory=dict)
    ticks: dict[float, str] = field(default_factory=dict)
    xscale: str = "linear"
    yscale: str = "linear"
    xlim: tuple[float, float] | None = None
    ylim: tuple[float, float] | None = None
    equal: bool = False


def chart(panels: Sequence[Panel], columns: int = 3) -> "Figure":
    """Draw panels in rows.

    Args:
        panels: One at least.
        columns: Most panels in a row.

    Returns:
        A figure with one pair of axes for each panel.
    """
    if not panels:
        raise ValueError("chart: there must be at least one panel, got none")
    if columns < 1:
        raise ValueError(f"chart: columns must be at least 1, got {columns}")
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = figure_of(WIDTH * columns, HEIGHT * rows, between=0.04)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for one, panel in zip(axes, panels, strict=False):
        _draw(one, panel)
    for one in axes[len(panels) :]:
        one.set_axis_off()
    return figure


def _draw(axes: Any, panel: Panel) -> None:
    axes.set_title(panel.title, fontsize=10)
    if panel.images is not None:
        axes.imshow(sheet(panel.images), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        return
    for cloud in panel.clouds:
        x, y = cloud.points.detach().cpu().numpy().T
        look = {"s": cloud.size, "color": _colour(cloud.colour), "marker": cloud.marker, "alpha": cloud.alpha}
        axes.scatter(x, y, label=cloud.label or None, linewidths=0.8 if cloud.marker in "+x" else 0, **look)
    for line in panel.lines:
        colour = _colour(line.colour)
        axes.plot(line.x, line.y, line.style, label=line.label or None, color=colour, markersize=4, linewidth=1.4)
        if line.band is not None:
            low = [y - b for y, b in zip(line.y, line.band, strict=True)]
            high = [y + b for y, b in zip(line.y, line.band, strict=True)]
            axes.fill_between(line.x, low, high, color=colour, alpha=0.2, linewidth=0)
    for x, label in panel.marks.items():
        axes.axvline(x, color="black", linewidth=0.8, linestyle=":")
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "rotation": 90, "va": "top", "ha": "right"}
        axes.annotate(label, (x, 0.75), fontsize=7, **place)
    axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel, xscale=panel.xscale, yscale=panel.yscale)
    if panel.xlim is not None:
        axes.set_xlim(*panel.xlim)
    if panel.ylim is not None:
        axes.set_ylim(*panel.ylim)
    if panel.equal:
        axes.set_aspect("equal")
    if panel.ticks:
        slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if len(panel.ticks) > CROWDED else {}
        axes.set_xticks(list(panel.ticks), list(panel.ticks.values()), **slant)
    axes.tick_params(labelsize=8, which="both")
    for axis, scale in ((axes.xaxis, panel.xscale), (axes.yaxis, panel.yscale)):
        low, high = axis.get_view_interval()
        if scale == "log" and high < SHORT * low:
            plain_numbers(axis)
    axes.grid(True, linewidth=0.4, alpha=0.4)
    if any(line.label for line in panel.lines) or any(cloud.label for cloud in panel.clouds):
        axes.legend(fontsize=7)


def _colour(number: int) -> str:
    return PALETTE[number % len(PALETTE)]
