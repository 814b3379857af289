"""Figures: what is in them, by their structure, and that they come out as pictures."""

import io
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from otgen import PowerDiagram, SemiDiscreteOT, data, plots


@pytest.fixture(scope="module")
def plane():
    """A map of the square onto 50 points in 25 Gaussians, and each point's Gaussian."""
    ot = SemiDiscreteOT(seed=0, progress=False).fit(data.twenty_five_gaussians(50))
    return ot, torch.arange(50) % 25


@pytest.fixture(scope="module")
def diagram(plane):
    ot, groups = plane
    return plots.planar_map(ot, groups, angle_threshold=0.15, n=500)


def picture(figure):
    return imread(io.BytesIO(plots.render(figure)))


# --- images ----------------------------------------------------------------------------------------------------------


def test_digits_stand_in_rows_with_white_between_them():
    images = torch.arange(1, 6).view(5, 1, 1).expand(5, 2, 3) / 5
    figure = plots.digits_figure(images, images[:4], 1 - images)
    sheet, square, other = (axes.images[0].get_array() for axes in figure.axes)
    assert sheet.shape == (2 * 2 + 1, 3 * 3 + 2)
    assert square.shape == (2 * 2 + 1, 2 * 3 + 1)
    np.testing.assert_allclose(sheet[0], [0.2, 0.2, 0.2, 0, 0.4, 0.4, 0.4, 0, 0.6, 0.6, 0.6], rtol=1e-6)
    np.testing.assert_allclose(sheet[3], [0.8, 0.8, 0.8, 0, 1, 1, 1, 0, 0, 0, 0], rtol=1e-6)
    assert (sheet[2] == 0).all()
    np.testing.assert_allclose(other[0, :3], 0.8, rtol=1e-6)


def test_digits_are_named_and_black_on_white():
    figure = plots.digits_figure(*torch.rand(3, 4, 1, 8, 8).unbind())
    assert [axes.get_title() for axes in figure.axes] == ["real", "reconstructed", "generated"]
    for axes in figure.axes:
        assert axes.images[0].get_clim() == (0, 1)  # a pale image must stay pale
        assert axes.images[0].cmap.name == "gray_r"


@pytest.mark.parametrize("shape", [(0, 8, 8), (4, 3, 8, 8), (8, 8)])
def test_digits_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"images must have shape \(n, h, w\)"):
        plots.digits_figure(*[torch.zeros(shape)] * 3)


# --- power cells -----------------------------------------------------------------------------------------------------


def quarters():
    """Four targets whose cells are the quarters of the square."""
    return SemiDiscreteOT(progress=False).fit([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def test_edges_are_those_between_cells():
    pairs, segments = plots.edges(quarters().cells())
    long = np.abs(segments[:, 1] - segments[:, 0]).sum(1) > 1e-9  # in the middle, where all four meet, may be a tie
    assert sorted(pairs[long].tolist()) == [[0, 1], [0, 2], [1, 3], [2, 3]]
    middles = dict(zip(map(tuple, pairs[long].tolist()), segments[long].mean(1).tolist(), strict=True))
    for pair, middle in {(0, 1): (0.5, 0.25), (0, 2): (0.25, 0.5), (1, 3): (0.75, 0.5), (2, 3): (0.5, 0.75)}.items():
        assert middles[pair] == pytest.approx(middle, abs=1e-9)


def test_edges_of_cells_that_duplicates_share_are_there_once():
    y = data.two_moons(20)
    ot = SemiDiscreteOT(progress=False).fit(torch.cat([y[:7], y]))
    pairs, _ = plots.edges(ot.cells())
    assert sorted(pairs.tolist()) == ot.singular_set(1e-15).pairs.sort(dim=1).values.unique(dim=0).tolist()


def test_one_cell_has_no_edges():
    pairs, segments = plots.edges(SemiDiscreteOT(progress=False).fit([[1.0, 2.0]]).cells())
    assert (pairs.shape, segments.shape) == ((0, 2), (0, 2, 2))


def test_facet_angles_are_those_of_the_map(plane):
    ot, _ = plane
    known = ot.singular_set(1e-9)
    angles = plots.facet_angles(ot.targets_, ot.weights_, known.pairs.numpy())
    np.testing.assert_allclose(angles, known.angles.numpy(), rtol=1e-9)


def test_a_rough_map_shows_its_own_singular_set():
    """Cells whose measures are not the weights."""
    weights = torch.rand(60, generator=torch.Generator().manual_seed(0)) ** 2
    ot = SemiDiscreteOT(method="newton", tol=0.3, progress=False).fit(data.two_moons(60), weights)
    for threshold in (0.05, 0.1, 0.2, 0.5):
        lines = plots.power_diagram(ot, arrows=False, angle_threshold=threshold).axes[0].collections[1]
        assert len(lines.get_segments()) == len(ot.singular_set(threshold).pairs)


def test_facet_angles_by_hand():
    # Targets -1 and 1 on an axis of two: their scale is sqrt(1/2), so planes rise by sqrt(2) either way.
    targets, weights = torch.tensor([[4.0, 7.0], [6.0, 7.0]]).double(), torch.tensor([0.5, 0.5]).double()
    angle = plots.facet_angles(targets, weights, np.array([[0, 1]]))
    np.testing.assert_allclose(angle, 2 * math.atan(math.sqrt(2)))
    # With these weights -3/2 and 1/2 from the mean, at a scale of sqrt(3/8).
    angle = plots.facet_angles(targets, torch.tensor([0.25, 0.75]).double(), np.array([[0, 1]]))
    np.testing.assert_allclose(angle, math.atan(math.sqrt(6)) + math.atan(math.sqrt(2 / 3)))


def test_facet_angles_beside_a_target_far_away_are_those_of_the_map():
    y = torch.rand(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y[0] = 1e9
    ot = SemiDiscreteOT(progress=False).fit(y)
    known = ot.singular_set(1e-12)
    angles = plots.facet_angles(ot.targets_, ot.weights_, known.pairs.numpy())
    assert np.median(angles) < 1e-8  # where cosines are 1
    np.testing.assert_allclose(angles, known.angles.numpy(), rtol=1e-4)


def test_the_diagram_shows_six_things_by_name(diagram):
    assert len(diagram.axes) == 6
    titles = [axes.get_title() for axes in diagram.axes]
    for title, word in zip(titles, ["power cells", "map", "angles", "not blended", "enlarged", "blended"], strict=True):
        assert word in title
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in diagram.axes)


def test_cells_fill_the_source_and_targets_the_range(diagram, plane):
    cells, arrows, _, generated, *_ = diagram.axes
    assert (cells.get_xlim(), cells.get_ylim()) == ((0, 1), (0, 1))
    for axes in (arrows, generated):
        for limits, coordinate in ((axes.get_xlim(), 0), (axes.get_ylim(), 1)):
            y = plane[0].targets_[:, coordinate]
            assert limits[0] < float(y.min())
            assert limits[1] > float(y.max())


def test_cells_have_their_gaussians_colours(diagram, plane):
    ot, groups = plane
    drawn = diagram.axes[0].collections[0]
    wanted = np.array([to_rgb(plots.PALETTE[g % len(plots.PALETTE)]) for g in groups.tolist()])
    np.testing.assert_allclose(drawn.get_facecolor()[:, :3], wanted, atol=1e-9)
    for path, centroid in zip(drawn.get_paths(), ot.centroids_.tolist(), strict=True):
        assert path.contains_point(centroid)


def test_the_singular_set_lies_between_gaussians(diagram, plane):
    ot, groups = plane
    segments = np.array(diagram.axes[0].collections[1].get_segments())
    assert 5 < np.abs(segments[:, 1] - segments[:, 0]).sum() < 20  # 8 lines of length 1 or somewhat more
    across = np.stack([segments[:, 0, 1] - segments[:, 1, 1], segments[:, 1, 0] - segments[:, 0, 0]], axis=1)
    middle, step = segments.mean(1), 0.5 * across
    sides = [groups[ot.assign(torch.from_numpy(middle + sign * step))] for sign in (1, -1)]
    assert bool((sides[0] != sides[1]).all())


def test_arrows_lead_from_centroids_to_targets(diagram, plane):
    arrows = next(c for c in diagram.axes[1].collections if hasattr(c, "U"))
    start = np.stack([arrows.X, arrows.Y], 1)
    np.testing.assert_allclose(start, plane[0].centroids_.numpy())
    np.testing.assert_allclose(start + np.stack([arrows.U, arrows.V], 1), plane[0].targets_.numpy())


def test_only_the_last_panel_mixes_gaussians(diagram, plane):
    def share_away(axes):
        points = max((np.asarray(c.get_offsets()) for c in axes.collections), key=len)
        assert len(points) == 500
        distance = torch.cdist(torch.from_numpy(points).double(), plane[0].targets_).amin(1)
        return float((distance > 0.1).double().mean())

    _, _, _, kept, same, mixed = diagram.axes
    assert share_away(kept) == share_away(same) == 0
    assert share_away(mixed) > 0.1


def test_the_enlarged_panel_is_a_square_around_a_few_targets(diagram, plane):
    axes = diagram.axes[4]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert right - left == pytest.approx(top - bottom)
    x, y = plane[0].targets_.unbind(1)
    inside = (x >= left) & (x <= right) & (y >= bottom) & (y <= top)
    assert plots.ENLARGED <= int(inside.sum()) < 25


def test_the_histogram_holds_every_facet_and_the_threshold(diagram, plane):
    axes = diagram.axes[2]
    pairs = plots.edges(plane[0].cells())[0]
    assert sum(bar.get_height() for bar in axes.patches) == len(pairs)
    assert axes.lines[0].get_xdata()[0] == 0.15
    assert axes.get_xscale() == "log"


def test_a_normal_source_has_its_box_and_groups_may_be_left_out():
    ot = SemiDiscreteOT(source="normal", progress=False).fit(data.two_moons(6))
    figure = plots.planar_map(ot, angle_threshold=1.0, n=10)
    assert figure.axes[0].get_xlim() == (-3, 3)
    assert picture(figure).std() > 0.1


def test_a_single_target_is_shown():
    figure = plots.planar_map(SemiDiscreteOT(progress=False).fit([[1.0, 2.0]]), angle_threshold=1.0, n=10)
    assert all(len(lines.get_segments()) == 0 for lines in figure.axes[0].collections[1:])
    plots.render(figure)


def test_maps_that_are_not_of_the_plane_are_refused(plane):
    with pytest.raises(ValueError, match="must be one of the plane, got 3"):
        plots.power_diagram(SemiDiscreteOT(progress=False).fit(torch.rand(4, 3)), angle_threshold=1.0)
    with pytest.raises(ValueError, match=r"groups must have shape \(50,\)"):
        plots.power_diagram(plane[0], torch.zeros(7, dtype=torch.int64), angle_threshold=1.0)
    ot = SemiDiscreteOT(source=lambda n, g: torch.rand(n, 2, generator=g), progress=False).fit(torch.rand(3, 2))
    with pytest.raises(ValueError, match="the source must be one of uniform, normal"):
        plots.power_diagram(ot, angle_threshold=1.0)


# --- convergence -----------------------------------------------------------------------------------------------------


def test_convergence_shows_error_and_floor_on_logarithmic_axes():
    history = [{"samples": 10.0**k, "tv": 2.0**-k, "tv_floor": 3.0**-k} for k in range(3, 6)]
    axes = plots.convergence(history).axes[0]
    error, floor = axes.lines
    assert list(error.get_xdata()) == list(floor.get_xdata()) == [1e3, 1e4, 1e5]
    assert list(error.get_ydata()) == [record["tv"] for record in history]
    assert list(floor.get_ydata()) == [record["tv_floor"] for record in history]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlabel() == "source samples spent"
    assert axes.get_legend().get_texts()[1].get_text() == "sampling floor: exact cells, independent samples"


def test_a_history_of_a_fit_can_be_shown(plane):
    assert len(plots.convergence(plane[0].history_).axes[0].lines[0].get_xdata()) == len(plane[0].history_)
    with pytest.raises(ValueError, match="at least one measurement"):
        plots.convergence([])


def test_a_fit_with_exact_cells_is_shown_by_steps():
    history = [
        {"samples": 0, "step": step, "tv": tv, "tv_floor": 0.0, "chi2": tv**2}
        for step, tv in enumerate((0.5, 1e-3, 1e-7, 0.0))
    ]
    figure = plots.convergence(history)
    axes = figure.axes[0]
    tv, chi2 = axes.lines
    assert list(tv.get_xdata()) == list(chi2.get_xdata()) == [0, 1, 2, 3]
    assert list(tv.get_ydata()) == [0.5, 1e-3, 1e-7, plots.ROUNDING]  # zero has no place on a logarithmic axis
    assert list(chi2.get_ydata()) == pytest.approx([0.25, 1e-6, 1e-14, plots.ROUNDING], rel=1e-12)
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")
    assert axes.get_xlabel() == "Newton steps, no samples"
    plots.render(figure)  # without a warning
    plots.render(plots.convergence(history[-1:]))


# --- files and matplotlib --------------------------------------------------------------------------------------------


def test_rendered_figures_are_png_pictures_that_are_not_blank(diagram):
    image = picture(diagram)
    assert image.shape[:2] == (10.5 * plots.DPI, 16 * plots.DPI)
    assert image[..., :3].std() > 0.1
    dark = (image[..., :3].max(-1) < 0.1).mean()
    assert 0.005 < dark < 0.2


def test_plots_need_matplotlib_only_when_they_draw_and_leave_pyplot_alone():
    code = """
import sys
from otgen import plots
assert "matplotlib" not in sys.modules
plots.convergence([{"samples": 10, "tv": 0.5, "tv_floor": 0.1}])
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_missing_matplotlib_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'matplotlib, which is not installed: pip install "otgen\[demo\]"'):
        plots.convergence([{"samples": 10, "tv": 0.5, "tv_floor": 0.1}])


def test_arrays_are_drawn_as_tensors_are():
    plots.points_figure(np.zeros((3, 2)))
    assert (plots.sheet(np.ones((4, 2, 2))) == plots.sheet(torch.ones(4, 2, 2))).all()


def test_groups_may_be_an_array_of_whole_numbers(plane):
    ot, groups = plane
    assert plots.power_diagram(ot, groups.numpy()).axes
    assert plots.planar_map(ot, groups.numpy(), angle_threshold=0.15, n=20).axes
    with pytest.raises(ValueError, match=r"groups must have shape .* whole numbers, got .* torch.float32"):
        plots.power_diagram(ot, groups.float())


def test_colours_may_tell_masses():
    """Of three cells in a row the outer ones hold as much, and the middle one more."""
    figure = plots.power_diagram(PowerDiagram(torch.tensor([[0.1, 0.5], [0.5, 0.5], [0.9, 0.5]])), colour="mass")
    (cells,) = (some for some in figure.axes[0].collections if type(some) is PolyCollection)
    left, middle, right = cells.get_facecolor()
    assert left == pytest.approx(right, abs=0.01)
    assert max(abs(left - middle)) > 0.1
    with pytest.raises(ValueError, match="power_diagram: colour must be target or mass, got 'measure'"):
        plots.power_diagram(PowerDiagram(torch.rand(3, 2)), colour="measure")


def test_a_cell_that_duplicates_share_has_the_colour_of_its_whole_mass():
    ot = SemiDiscreteOT(progress=False).fit([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    figure = plots.power_diagram(ot, colour="mass", arrows=False)
    single, *both = figure.axes[0].collections[0].get_facecolor()
    assert max(abs(single - both[0])) > 0.1
    assert max(abs(both[0] - both[1])) < 0.01
    assert figure.axes[1].get_ylim()[1] >= 2 - 1e-9


def test_a_map_knows_its_own_threshold(plane):
    ot, _ = plane
    threshold = ot.singular_set().threshold
    assert plots.planar_map(ot, n=20).axes[2].lines[0].get_xdata()[0] == threshold
    singular = [plots.power_diagram(ot, angle_threshold=angle).axes[0].collections for angle in ("auto", threshold)]
    one, other = ([len(lines.get_segments()) for lines in of if hasattr(lines, "get_segments")] for of in singular)
    assert one == other
    diagram = PowerDiagram(torch.rand(5, 2))
    with pytest.raises(ValueError, match=r"power_diagram: angle_threshold must be an angle in \(0, pi\], got 'auto'"):
        plots.power_diagram(diagram, angle_threshold="auto")
    with pytest.raises(ValueError, match=r'angle_threshold must be "auto" or an angle in \(0, pi\], got 4.0'):
        plots.planar_map(ot, angle_threshold=4.0)


def test_the_history_of_a_model_is_not_that_of_a_map():
    with pytest.raises(TypeError, match="convergence: the history must be that of a map, a list of records, got a"):
        plots.convergence({"loss": np.zeros(3)})


def test_what_is_no_diagram_is_named():
    with pytest.raises(
        TypeError, match="a fitted map or an otgen.PowerDiagram, got a SemiDiscreteOT that is not fitted"
    ):
        plots.power_diagram(SemiDiscreteOT())
    with pytest.raises(TypeError, match="got a SemiDiscreteOT that is not fitted"):
        plots.planar_map(SemiDiscreteOT(), angle_threshold=0.2)
    with pytest.raises(TypeError, match="got a Tensor"):
        plots.power_diagram(torch.zeros(3, 2))
    with pytest.raises(TypeError, match=r"^planar_map: it must be a fitted map, got a PowerDiagram$"):
        plots.planar_map(PowerDiagram(torch.rand(3, 2)))


def test_a_map_that_cannot_be_drawn_is_refused_in_the_name_of_the_figure():
    with pytest.raises(ValueError, match=r"^planar_map: the diagram must be one of the plane, got 3 dimensions$"):
        plots.planar_map(SemiDiscreteOT(progress=False).fit(torch.rand(4, 3)))
    ot = SemiDiscreteOT(source=lambda n, g: torch.rand(n, 2, generator=g), progress=False).fit(torch.rand(3, 2))
    with pytest.raises(ValueError, match=r"^planar_map: the source .*otgen.PowerDiagram\(targets_, heights_, domain\)"):
        plots.planar_map(ot)
    plots.power_diagram(PowerDiagram(ot.targets_, ot.heights_, "uniform"))


def test_a_sheet_is_refused_in_its_own_name():
    with pytest.raises(ValueError, match=r"sheet: images must have shape \(n, h, w\)"):
        plots.contact_sheet({"a": torch.zeros(2, 3, 8, 8)})
    with pytest.raises(ValueError, match="contact_sheet: there must be at least one row"):
        plots.contact_sheet({})
