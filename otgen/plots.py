"""Figures: data in, a matplotlib figure out; no display and no state shared with anybody's pyplot.

The only module that imports matplotlib, and only when a figure is made: the rest of otgen works without it.
"""

import io
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
"""Okabe and Ito's colours for all kinds of colour vision, grey in place of black."""

DPI = 150

BOXES = {"uniform": (0.0, 1.0), "normal": (-3.0, 3.0)}
"""What is shown of each source: [low, high]^2; three deviations hold 99.5 % of the plane's normal."""

GAP = 1
"""Pixels between two images of a sheet."""

ENLARGED = 10
"""Targets in the panel that looks closely."""

ROUNDING = 1e-17
"""Errors below it are drawn at it: a logarithmic axis has no place for those that are zero."""


class Polygon(Protocol):
    """A cell of the plane; `otgen.ops.Cell` is one."""

    @property
    def corners(self) -> Tensor:
        """In counter-clockwise order, (k, 2)."""

    @property
    def neighbours(self) -> Tensor:
        """The cell behind each edge, (k,), int64, or a negative number."""


@runtime_checkable
class PlanarCells(Protocol):
    """What `power_diagram` asks of a diagram; `otgen.PowerDiagram` has it."""

    domain: Any
    sites: Tensor
    centroids: Tensor
    measures: Tensor

    def cells(self) -> Sequence[Polygon]:
        """One a site."""


@runtime_checkable
class PlanarMap(Protocol):
    """What `planar_map` asks of a fitted map; `otgen.SemiDiscreteOT` has it."""

    source: Any
    targets_: Tensor
    weights_: Tensor
    cell_measures_: Tensor
    centroids_: Tensor

    def cells(self) -> Sequence[Polygon]:
        """One a target."""

    def sample(self, n: int, angle_threshold: float, *, seed: int, return_info: Literal[True]) -> tuple[Tensor, Any]:
        """New points, and a record with the nearest cells as `targets`."""


def render(figure: "Figure") -> bytes:
    """Return a figure as a PNG file's contents."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


# --- images ----------------------------------------------------------------------------------------------------------


def digits_figure(real: Tensor, reconstructed: Tensor, generated: Tensor) -> "Figure":
    """Show real, reconstructed and generated images side by side, each as a sheet of rows.

    Args:
        real: Images, (n, h, w) or (n, 1, h, w), in [0, 1], 0 for the background.
        reconstructed: Their reconstructions, which stand where the real ones do.
        generated: New images, of the same size.

    Returns:
        A figure with three axes.
    """
    sheets = {"real": real, "reconstructed": reconstructed, "generated": generated}
    figure = figure_of(12, 4.4, between=0.05)
    for axes, (name, images) in zip(figure.subplots(1, 3), sheets.items(), strict=True):
        axes.imshow(sheet(images), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(name)
        axes.set_axis_off()
    return figure


def contact_sheet(rows: Mapping[str, Tensor]) -> "Figure":
    """Show a row of images for each name, to compare at a glance.

    Args:
        rows: Images (n, h, w) or (n, 1, h, w) in [0, 1], 0 for the background, as many of one size for each name.

    Returns:
        A figure with an axes per name.
    """
    if not rows:
        raise ValueError("contact_sheet: there must be at least one row, got none")
    figure = figure_of(9, 0.45 * len(rows) + 0.2, between=0.02)
    for axes, (name, images) in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows.items(), strict=True):
        axes.imshow(sheet(images, len(images)), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        axes.set_ylabel(name, rotation=0, horizontalalignment="right", verticalalignment="center")
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def sheet(images: Tensor, columns: int | None = None) -> NDArray[np.float64]:
    """Lay images (n, h, w) or (n, 1, h, w), a tensor or array, out in rows and columns, with white between them."""
    images = torch.as_tensor(images, device="cpu")
    if images.dim() == 4 and images.shape[1] == 1:
        images = images[:, 0]
    if images.dim() != 3 or len(images) == 0:
        raise ValueError(f"sheet: images must have shape (n, h, w) with n >= 1, got {tuple(images.shape)}")
    n, h, w = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    page = np.zeros((math.ceil(n / columns) * (h + GAP) - GAP, columns * (w + GAP) - GAP))
    for i, image in enumerate(images.detach().cpu().double().numpy()):
        top, left = (h + GAP) * (i // columns), (w + GAP) * (i % columns)
        page[top : top + h, left : left + w] = image
    return page


def points_figure(points: Tensor) -> "Figure":
    """Show points of the plane, (n, 2), a tensor or array, with equal scales on both axes."""
    points = torch.as_tensor(points, device="cpu")
    if points.dim() != 2 or points.shape[1] != 2:
        raise ValueError(f"points_figure: points must have shape (n, 2), got {tuple(points.shape)}")
    figure = figure_of(5, 5)
    axes = figure.subplots()
    x, y = points.detach().cpu().double().numpy().T
    axes.scatter(x, y, s=4, color=PALETTE[0], linewidths=0)
    axes.set_aspect("equal")
    return figure


# --- power cells -----------------------------------------------------------------------------------------------------


def power_diagram(
    of: "PlanarCells | PlanarMap",
    groups: Tensor | None = None,
    *,
    colour: Literal["target", "mass"] = "target",
    arrows: bool = True,
    angle_threshold: float | Literal["auto"] | None = None,
    axes: "Axes | None" = None,
) -> "Figure":
    """Draw the power cells of the plane, exactly, with the transport map and its singular set.

    Args:
        of: A fitted map of the plane from a named source, or an `otgen.PowerDiagram`.
        groups: A number from 0 up for each target, (m,), int64, that decides its colour, such as the mode it belongs
            to; `None` for one of its own each.
        colour: What a cell's colour says: which "target" it belongs to, or its "mass" relative to the mean.
        arrows: Whether to draw an arrow from each cell's centroid to its target.
        angle_threshold: Facets between planes that meet at a larger angle, in radians, are drawn in black: the singular
            set. "auto" for a fitted map's own, `None` for none.
        axes: Where to draw; `None` for a figure of its own.

    Returns:
        The figure.

    Raises:
        ValueError: It is not a diagram of the plane, a shape does not fit, or the threshold is no angle in (0, pi].
        TypeError: It is no diagram and no map that is fitted.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    targets, centroids, measures, box = _parts("power_diagram", of)
    m = len(targets)
    groups = torch.arange(m, device="cpu") if groups is None else torch.as_tensor(groups, device="cpu").cpu()
    if tuple(groups.shape) != (m,) or groups.dtype.is_floating_point:
        wanted, came = f"shape ({m},) and hold whole numbers", f"{tuple(groups.shape)} and {groups.dtype}"
        raise ValueError(f"power_diagram: groups must have {wanted}, got {came}")
    if colour not in ("target", "mass"):
        raise ValueError(f"power_diagram: colour must be target or mass, got {colour!r}")
    threshold = None if angle_threshold is None else _angle("power_diagram", of, angle_threshold)
    figure = axes.get_figure(root=True) if axes is not None else figure_of(7, 6.5)
    assert figure is not None  # axes that were removed from theirs
    if axes is None:
        axes = figure.subplots()
    cells = of.cells()
    if colour == "mass":
        _, same = targets.unique(dim=0, return_inverse=True)  # exact duplicates share a cell and divide its mass
        share = m * torch.zeros_like(measures).index_add_(0, same, measures)[same].numpy()
        scale = ScalarMappable(Normalize(0, max(2.0, float(share.max()))), "viridis")
        colours = np.asarray(scale.to_rgba(share))[:, :3]
        figure.colorbar(scale, ax=axes, label="mass of a cell, relative to the mean", shrink=0.8)
    else:
        colours = _colours(groups)
    _draw_cells(axes, cells, colours, pale=arrows and colour == "target")
    if threshold is not None:
        pairs, segments = edges(cells)
        weights = of.weights_ if isinstance(of, PlanarMap) else measures  # as `singular_set` centres and scales
        angles = facet_angles(targets, weights, pairs)
        _draw_facets(axes, segments[angles > threshold])
    low, high = box
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    if arrows:
        _draw_arrows(axes, centroids, targets, colours)
        x, y = _limits(torch.cat([targets, torch.tensor([low, high], dtype=torch.float64, device="cpu")]))
        axes.set(xlim=x, ylim=y, xlabel="$x_1$, $y_1$", ylabel="$x_2$, $y_2$")
    return figure


def planar_map(
    ot: PlanarMap,
    groups: Tensor | None = None,
    *,
    angle_threshold: float | Literal["auto"] = "auto",
    n: int = 4000,
    seed: int = 0,
) -> "Figure":
    """Show a planar map: its cells and singular set, where it sends them, and what it generates.

    Args:
        ot: A fitted map of the plane from the "uniform" or the "normal" source.
        groups: As for `power_diagram`.
        angle_threshold: Above it, in radians, a facet is singular and is not blended across; "auto" for the map's own.
        n: Points to generate.
        seed: Decides those points.

    Returns:
        A figure with six axes. Above: cells with the singular set, arrows from the cells' centroids to their targets,
        angles between neighbouring cells. Below: points generated by blending across the facets that are not singular,
        some of those enlarged, points generated by blending across everything.

    Raises:
        ValueError: It is not a map of the plane from a named source, or a shape or number does not fit.
        TypeError: It is no map that is fitted.
    """
    _parts("planar_map", ot, PlanarMap)
    angle_threshold = _angle("planar_map", ot, angle_threshold)
    points, info = ot.sample(n, angle_threshold, seed=seed, return_info=True)
    mixed, mixed_info = ot.sample(n, math.pi, seed=seed, return_info=True)
    figure = figure_of(16, 10.5)
    (top_left, top, top_right), (bottom_left, bottom, bottom_right) = figure.subplots(2, 3)
    power_diagram(ot, groups, arrows=False, angle_threshold=angle_threshold, axes=top_left)
    top_left.set_title("power cells of the source; black: the singular set")
    power_diagram(ot, groups, axes=top)
    top.set_title("transport map: cell centroids to targets")
    angles = facet_angles(ot.targets_, ot.weights_, edges(ot.cells())[0])
    _draw_angles(top_right, angles, angle_threshold)

    colours = _colours(torch.arange(len(ot.targets_), device="cpu") if groups is None else groups)
    _draw_generated(bottom_left, ot.targets_, points, colours[info.targets.numpy()])
    bottom_left.set_title("generated, not blended across the singular set")
    _draw_generated(bottom, ot.targets_, points, colours[info.targets.numpy()], size=12)
    bottom.set_title("the same, enlarged (+: targets)")
    _draw_generated(bottom_right, ot.targets_, mixed, colours[mixed_info.targets.numpy()])
    bottom_right.set_title("generated, blended across it as well")
    whole, part = _limits(ot.targets_), _close_up(ot.targets_)
    for axes, (x, y) in ((bottom_left, whole), (bottom, part), (bottom_right, whole)):
        axes.set(xlim=x, ylim=y)
    return figure


def _angle(name: str, of: "PlanarCells | PlanarMap", threshold: Any) -> float:
    """A threshold in radians."""
    own = getattr(of, "singular_set", None)
    if threshold == "auto" and own is not None:
        return float(own().threshold)
    threshold = threshold.item() if isinstance(threshold, Tensor) and threshold.dim() == 0 else threshold
    if isinstance(threshold, bool) or not isinstance(threshold, Real) or not 0 < float(threshold) <= math.pi:
        wanted = "an angle" if own is None else '"auto" or an angle'
        raise ValueError(f"{name}: angle_threshold must be {wanted} in (0, pi], got {threshold!r}")
    return float(threshold)


def _parts(
    name: str, of: "PlanarCells | PlanarMap", wanted: type = PlanarCells
) -> tuple[Tensor, Tensor, Tensor, tuple[list[float], list[float]]]:
    """Targets, centroids and measures of a diagram or a map, and the lowest and highest corner of what is shown."""
    if isinstance(of, PlanarMap):
        targets, centroids, measures = of.targets_, of.centroids_, of.cell_measures_
        domain = of.source
    elif wanted is PlanarMap or not isinstance(of, PlanarCells):
        came = f"{type(of).__name__}{' that is not fitted' if hasattr(of, 'fit') else ''}"
        either = "" if wanted is PlanarMap else " or an otgen.PowerDiagram"
        raise TypeError(f"{name}: it must be a fitted map{either}, got a {came}")
    else:
        targets, centroids, measures = of.sites, of.centroids, of.measures
        domain = of.domain
    if targets.shape[1] != 2:
        raise ValueError(f"{name}: the diagram must be one of the plane, got {targets.shape[1]} dimensions")
    if isinstance(domain, str) and domain in BOXES:
        low, high = BOXES[domain]
        return targets, centroids, measures, ([low, low], [high, high])
    if callable(domain):
        there = "; otgen.PowerDiagram(targets_, heights_, domain) has its cells"
        raise ValueError(f"{name}: the source must be one of {', '.join(BOXES)}, got {domain!r}{there}")
    corners = torch.as_tensor(domain, device="cpu").double()
    return targets, centroids, measures, (corners.amin(0).tolist(), corners.amax(0).tolist())


def edges(cells: Sequence[Polygon]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pairs of neighbouring cells, (p, 2), the smaller first, and the edges between them, (p, 2 ends, 2)."""
    pairs, segments = [], []
    named = {j for cell in cells for j in cell.neighbours.tolist()}  # of exact duplicates, which share a cell, one is
    for i, cell in enumerate(cells):
        corners, others = cell.corners.numpy(), cell.neighbours.numpy()
        (own,) = np.nonzero((others > i) & (i in named))
        pairs.append(np.stack([np.full(len(own), i), others[own]], axis=1))
        segments.append(np.stack([corners[own], corners[(own + 1) % max(1, len(corners))]], axis=1))
    return np.concatenate(pairs), np.concatenate(segments)


def facet_angles(targets: Tensor, weights: Tensor, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dihedral angles (p,) in radians between the planes of pairs (p, 2) of targets, centred and scaled."""
    y = targets.numpy() - weights.numpy() @ targets.numpy()
    y = y / (np.sqrt((weights.numpy() @ (y * y)).mean()) or 1.0)
    normals = np.concatenate([y, -np.ones((len(y), 1))], axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    a, b = normals[pairs[:, 0]], normals[pairs[:, 1]]
    # Kahan's formula: cosines tell no angles below 1e-8 apart, which is what there is beside one far target.
    angles: NDArray[np.float64] = 2 * np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    return angles


def _draw_cells(axes: "Axes", cells: Sequence[Polygon], colours: NDArray[np.float64], pale: bool) -> None:
    """Paint the cells, with thin white lines between them."""
    from matplotlib.collections import PolyCollection

    shown = [i for i, cell in enumerate(cells) if len(cell.corners)]
    faces = (1 - 0.35 * (1 - colours) if pale else colours)[shown]
    corners = [cells[i].corners.numpy() for i in shown]
    axes.add_collection(PolyCollection(corners, facecolors=faces, edgecolors="white", linewidths=0.4), autolim=False)


def _draw_facets(axes: "Axes", segments: NDArray[np.float64]) -> None:
    from matplotlib.collections import LineCollection

    lines = LineCollection(list(segments), colors="black", linewidths=1.8, capstyle="round")
    axes.add_collection(lines, autolim=False)


def _draw_arrows(axes: "Axes", centroids: Tensor, targets: Tensor, colours: NDArray[np.float64]) -> None:
    """Draw an arrow from each cell to its target."""
    start, end = centroids.numpy(), targets.numpy()
    known = np.isfinite(start).all(axis=1)  # a target without mass has no cell
    start, end, colours = start[known], end[known], colours[known]
    arrows: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.0018, "headwidth": 5}
    axes.quiver(*start.T, *(end - start).T, color=0.85 * colours, zorder=2, **arrows)
    axes.scatter(end[:, 0], end[:, 1], s=9, color=0.6 * colours, zorder=3)


def _draw_angles(axes: "Axes", angles: NDArray[np.float64], threshold: float) -> None:
    """Draw a histogram of the angles on a logarithmic scale."""
    shown = angles[angles > 0]
    bins = np.geomspace(min(shown.min(initial=threshold), 0.9 * threshold), math.pi, 41)
    axes.hist(shown, bins=list(bins), color=PALETTE[4])
    above = np.count_nonzero(angles > threshold) / max(1, len(angles))
    axes.axvline(threshold, color="black", label=f"threshold {threshold:.3g}: {above:.0%} above")
    axes.set(xscale="log", xlabel="angle between the planes of two cells (rad)", ylabel="facets")
    axes.set_title("angles between neighbouring cells")
    axes.legend()


def _draw_generated(
    axes: "Axes", targets: Tensor, points: Tensor, colours: NDArray[np.float64], size: float = 4
) -> None:
    (x, y), (u, v) = targets.numpy().T, points.numpy().T
    axes.scatter(x, y, s=4 * size, marker="+", color="black", linewidths=0.25 * math.sqrt(size))
    axes.scatter(u, v, s=size, color=colours, linewidths=0)
    axes.set(xlabel="$y_1$", ylabel="$y_2$", aspect="equal")


def _close_up(targets: Tensor) -> tuple[tuple[float, float], tuple[float, float]]:
    """Ranges of the two coordinates, of one length, with the target nearest to the mean and others close to it."""
    centre = targets[(targets - targets.mean(0)).norm(dim=1).argmin()]
    near = targets[(targets - centre).norm(dim=1).argsort()[:ENLARGED]]
    middle, half = (near.amin(0) + near.amax(0)) / 2, (near.amax(0) - near.amin(0)).max() / 2
    return _limits(torch.stack([middle - half, middle + half]))


def _colours(groups: Tensor) -> NDArray[np.float64]:
    """A colour (m, 3) for each target by its group."""
    from matplotlib.colors import to_rgb

    palette: NDArray[np.float64] = np.array([to_rgb(name) for name in PALETTE])
    colours: NDArray[np.float64] = palette[torch.as_tensor(groups, device="cpu").cpu().numpy() % len(PALETTE)]
    return colours


def _limits(points: Tensor) -> tuple[tuple[float, float], tuple[float, float]]:
    """Ranges of the two coordinates with a margin of 5 %."""
    low, high = points.amin(0), points.amax(0)
    margin = 0.05 * float((high - low).max()) or 1.0  # a single point has no range
    (left, bottom), (right, top) = (low - margin).tolist(), (high + margin).tolist()
    return (left, right), (bottom, top)


# --- convergence -----------------------------------------------------------------------------------------------------


def convergence(history: Sequence[dict[str, float]]) -> "Figure":
    """Show how the error of a fit fell with the samples it spent, beside what sampling alone would show, or with steps.

    The floor is that of independent samples. Up to ten dimensions steps take Sobol points, which show less: the error
    may fall below it.

    Args:
        history: `history_` of a fitted map: records with "samples", "tv" and "tv_floor"; where cells were computed and
            "samples" is 0, with "step", "chi2" and "tv".

    Returns:
        A figure with one pair of axes.

    Raises:
        ValueError: There is no record.
        TypeError: It is the history of a model.
    """
    if isinstance(history, Mapping):
        raise TypeError("convergence: the history must be that of a map, a list of records, got a model's")
    if not history:
        raise ValueError("convergence: the history must hold at least one measurement, got none")
    figure = figure_of(7, 4.5)
    axes = figure.subplots()
    draw = _against_samples if any(record["samples"] for record in history) else _against_steps
    draw(axes, history)
    axes.set_title("convergence of the semi-discrete fit")
    axes.grid(True, which="both", linewidth=0.4, alpha=0.5)
    axes.legend()
    return figure


def _against_samples(axes: Any, history: Sequence[dict[str, float]]) -> None:
    from matplotlib.ticker import EngFormatter

    samples, floor = ([record[key] for record in history] for key in ("samples", "tv_floor"))
    axes.loglog(samples, [record["tv"] for record in history], "o-", color=PALETTE[0], label="error of the cells")
    axes.loglog(samples, floor, "s--", color=PALETTE[1], label="sampling floor: exact cells, independent samples")
    axes.set(xlabel="source samples spent", ylabel="total variation")
    plain_numbers(axes.xaxis, EngFormatter(sep=""))
    plain_numbers(axes.yaxis)


def _against_steps(axes: Any, history: Sequence[dict[str, float]]) -> None:
    """Draw the errors of a fit with exact cells, step by step; what is below rounding stands at it."""
    from matplotlib.ticker import MaxNLocator

    step = [record["step"] for record in history]
    for name, mark, colour, label in (
        ("tv", "o-", PALETTE[0], "total variation"),
        ("chi2", "s--", PALETTE[1], "chi2"),
    ):
        axes.semilogy(step, [max(record[name], ROUNDING) for record in history], mark, color=colour, label=label)
    axes.set(xlabel="Newton steps, no samples", ylabel="error of the cells")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def plain_numbers(axis: Any, form: Any = "{x:g}") -> None:
    """Write 1, 2, 5, 10, 20 and so on along a logarithmic axis, in the form that a string or formatter gives them."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(form)
    axis.set_minor_formatter(NullFormatter())


def figure_of(width: float, height: float, between: float = 0.02) -> "Figure":
    """Make an empty figure, width x height in inches, with a part of the axes' width between them."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError('plots: wanted matplotlib, which is not installed: pip install "otgen[demo]"') from error
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.08, wspace=between))
