"""Exact power diagrams against exact arithmetic, closed forms, scipy, samples, and themselves."""

import copy
import math
import threading

import numpy as np
import oracles
import pytest
import torch
from draws import rand
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull, Voronoi
from scipy.special import ndtr
from torch.testing import assert_close

from otgen import ops
from otgen.ops import Domain

SOURCES = ["uniform", "normal"]
MEAN = {"uniform": 0.5, "normal": 0.0}
SECOND = {"uniform": 1 / 3, "normal": 1.0}


def sites(m, d, seed=0, source="uniform"):
    """Targets about where the source is, and heights of Voronoi cells that are moved a little."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.rand(m, d, generator=generator, dtype=torch.float64)
    y = y if source == "uniform" else 4 * y - 2
    return y, -0.5 * y.square().sum(1) + 0.3 / m * torch.rand(m, generator=generator, dtype=torch.float64)


def diagram(y, h, domain="uniform"):
    return ops.Sites(y).diagram(h, ops.cube(domain, y.shape[1]) if isinstance(domain, str) else domain)


def voronoi(y, domain="uniform"):
    return diagram(y, -0.5 * y.square().sum(1), domain)


def cells(y, h, domain="uniform"):
    domain = ops.cube(domain, y.shape[1]) if isinstance(domain, str) else domain
    return ops.Sites(y).cells(h, domain, torch.arange(len(y)))


def assert_all_there(found, source, atol=1e-12):
    """Cells fill the source: its mass, mean and second moment are the sums over them."""
    d = found.first.shape[1]
    assert bool((found.measures >= 0).all())
    assert_close(float(found.measures.sum()), 1.0, rtol=0, atol=atol)
    assert_close(found.first.sum(0), torch.full((d,), MEAN[source], dtype=torch.float64), rtol=0, atol=atol)
    assert_close(float(found.second.sum()), d * SECOND[source], rtol=0, atol=10 * atol)


# --- whole and parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("m", [1, 2, 7, 9, 300])
def test_cells_fill_the_source(source, d, m):
    y, h = sites(m, d, source=source)
    assert_all_there(diagram(y, h, source), source)


@pytest.mark.parametrize("d", [2, 3])
def test_equal_heights_make_voronoi_cells(d):
    """SciPy's, of the points and their mirror images in the sides of the cube: cells, facets and neighbours."""
    m = 40
    y = sites(m, d)[0].numpy()
    mirrored = [np.where(np.arange(d) == axis, 2 * side - y, y) for axis in range(d) for side in (0, 1)]
    theirs = Voronoi(np.concatenate([y, *mirrored]))
    found = voronoi(torch.from_numpy(y))
    hulls = [ConvexHull(theirs.vertices[theirs.regions[theirs.point_region[j]]]).volume for j in range(m)]
    assert_close(found.measures, torch.tensor(hulls, dtype=torch.float64), rtol=0, atol=1e-11)
    ours = dict(zip(map(tuple, found.pairs.tolist()), found.facets.tolist(), strict=True))
    for pair, ring in zip(theirs.ridge_points.tolist(), theirs.ridge_vertices, strict=True):
        if max(pair) >= m:
            continue
        corners = theirs.vertices[ring]
        spread = np.linalg.svd(corners - corners[0])[2][: d - 1]  # an orthogonal frame of the ridge
        flat = (corners - corners[0]) @ spread.T
        size = ConvexHull(flat).volume if d == 3 else np.ptp(flat)
        assert_close(ours.pop(tuple(sorted(pair)), 0.0), float(size), rtol=0, atol=1e-10)
    assert max(ours.values(), default=0) < 1e-10  # what is left are ties


@pytest.mark.parametrize(("m", "d"), [(40, 1), (25, 2), (12, 3)])
def test_measures_are_those_of_exact_arithmetic(m, d):
    y, h = sites(m, d, seed=3)
    assert_close(diagram(y, h).measures, oracles.power_cells_uniform(y, h), rtol=0, atol=1e-14)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_samples_fall_into_cells_as_often_as_measured(source, d):
    y, h = sites(60, d, source=source)
    n = 10**6
    p = diagram(y, h, source).measures
    counts = ops.measure(y, h, source, n, seed=5).counts.double()
    assert_close(counts[p == 0].sum(), torch.zeros((), dtype=torch.float64))
    some = p > 0
    z = (counts - n * p)[some] / (n * p * (1 - p))[some].sqrt()
    assert float(z.abs().max()) < 5
    assert 0.4 < float(z.square().mean()) < 1.8


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_facets_are_the_hessian(source, d):
    """How fast measures change with heights is facet / distance: central differences, exact to second order."""
    y, h = sites(30, d, seed=1, source=source)
    found = diagram(y, h, source)
    i, j = found.pairs.unbind(1)
    want = torch.zeros(30, 30, dtype=torch.float64)
    want[i, j] = want[j, i] = -found.facets / (y[i] - y[j]).norm(dim=1)
    want -= torch.diag(want.sum(1))
    step = 1e-6
    for k in range(0, 30, 7):
        up, down = h.clone(), h.clone()
        up[k], down[k] = h[k] + step, h[k] - step
        change = (diagram(y, up, source).measures - diagram(y, down, source).measures) / (2 * step)
        assert_close(change, want[k], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_threads_change_no_bit(source, d, each_thread_count):
    y, h = sites(1500, d, source=source)
    first = None
    for _ in each_thread_count():
        found = diagram(y, h, source)
        first = first or found
        for name in ("measures", "first", "second", "facets"):
            oracles.assert_same_bits(getattr(found, name), getattr(first, name))
        assert_close(found.pairs, first.pairs, rtol=0, atol=0)


def test_the_order_of_the_targets_does_not_matter():
    y, h = sites(500, 2)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    assert_close(diagram(y[order], h[order]).measures, diagram(y, h).measures[order], rtol=0, atol=1e-15)
    assert sorted(ops.Sites(y).order().tolist()) == list(range(500))


def test_heights_may_change_and_change_back():
    y, h = sites(200, 3)
    index, cube = ops.Sites(y), ops.cube("uniform", 3)
    before = index.diagram(h, cube).measures
    index.diagram(h + y[:, 0], cube)
    oracles.assert_same_bits(index.diagram(h, cube).measures, before)


# --- closed forms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_cells_on_a_line(source):
    y, h = sites(50, 1, source=source)
    y, h = y.sort(0).values, torch.zeros(50, dtype=torch.float64)
    h[1:] = -((torch.arange(1, 50, dtype=torch.float64) / 50) * y[:, 0].diff()).cumsum(0)  # ends at k / 50
    found = diagram(y, h, source)
    if source == "uniform":
        want = oracles.uniform_1d(y, h)
        density = torch.ones(49, dtype=torch.float64)
    else:
        ends = np.concatenate([[-np.inf], np.arange(1, 50) / 50, [np.inf]])
        want = torch.from_numpy(np.diff(ndtr(ends)))
        density = torch.from_numpy(np.exp(-(ends[1:-1] ** 2) / 2) / math.sqrt(2 * math.pi))
    assert_close(found.measures, want, rtol=0, atol=1e-14)
    order = found.pairs[:, 0].argsort()
    assert found.pairs[order].tolist() == [[k, k + 1] for k in range(49)]
    assert_close(found.facets[order], density, rtol=1e-12, atol=0)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("shift", [0.0, 1e-9, 0.7, -2.5, 7.0])
def test_half_spaces_of_a_normal(d, shift):
    """Measure Phi(t), first moment -phi(t) along the normal, facet phi(t), t the distance of the plane."""
    y = torch.randn(2, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    length = (y[0] - y[1]).norm()
    h = torch.tensor([shift, 0.0], dtype=torch.float64) * length
    found = diagram(y, h, "normal")
    assert_close(found.measures, oracles.two_targets_normal(y, h), rtol=0, atol=1e-13)
    density = math.exp(-shift * shift / 2) / math.sqrt(2 * math.pi)
    assert_close(found.first[0], density * (y[0] - y[1]) / length, rtol=0, atol=1e-13)
    assert_close(float(found.facets[0]), density, rtol=1e-12, atol=0)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("middle", [0.0, 0.3, 1e-15, 1e-14, 1e-12, 1e-10, 1e-9, 1e-8, 1e-6, 1.0])
def test_normal_measures_of_boxes(d, turned, middle):
    """Voronoi cells of a grid are boxes with walls at `middle` plus whole numbers: with 0 and 1 the origin is a corner.

    Turned boxes have the same measures, since the normal density is round.
    """
    ticks = middle + torch.arange(-3, 3, dtype=torch.float64) + 0.5
    y = torch.cartesian_prod(*[ticks] * d)
    walls = np.concatenate([[-np.inf], middle + np.arange(-2, 3), [np.inf]])
    line = torch.from_numpy(np.diff(ndtr(walls)))
    want = line[:, None] * line if d == 2 else line[:, None, None] * line[:, None] * line
    if turned:
        y = y @ torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    found = voronoi(y, "normal")
    assert_close(found.measures, want.flatten(), rtol=0, atol=1e-12)
    assert_all_there(found, "normal")


@pytest.mark.parametrize(("d", "axes"), [(2, 1), (2, 2), (3, 1), (3, 2), (3, 3)])
def test_normal_cells_with_the_origin_on_a_face_an_edge_or_a_corner(d, axes):
    """Symmetric in as many axes as the grid has two targets: all cells alike."""
    y = torch.cartesian_prod(*[torch.tensor([-0.7, 0.7], dtype=torch.float64)] * axes).view(-1, axes)
    y = torch.cat([y, torch.zeros(len(y), d - axes, dtype=torch.float64)], dim=1)
    found = voronoi(y, "normal")
    assert_close(found.measures, torch.full((2**axes,), 0.5**axes, dtype=torch.float64), rtol=0, atol=1e-13)
    want = y / 0.7 * math.sqrt(2 / math.pi) * 0.5**axes
    assert_close(found.first, want, rtol=0, atol=1e-13)


@pytest.mark.parametrize("m", [3, 7, 2000])
@pytest.mark.parametrize("lift", [0.0, 1.0])
def test_normal_wedges(m, lift):
    """Targets on a circle, equally high: wedges with their tip at the origin, in space with their edge through it."""
    t = 2 * math.pi * torch.arange(m, dtype=torch.float64) / m
    y = torch.stack([t.cos(), t.sin(), torch.full_like(t, lift)], dim=1)
    for d in (2, 3):
        found = voronoi(y[:, :d].contiguous(), "normal")
        assert_close(found.measures, torch.full((m,), 1 / m, dtype=torch.float64), rtol=0, atol=1e-13)


@pytest.mark.parametrize("d", [2, 3])
def test_slabs_askew(d):
    """Targets on a line askew: <x, a> of the uniform cube has a closed form, and every slab's box holds most others."""
    a = torch.arange(1, d + 1, dtype=torch.float64)
    s = (torch.arange(3000) + rand(3000) / 2) / 3000  # no two so close that rounding decides where they meet
    h = -0.5 * a.sum() * s.square()
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(1))
    found = diagram((s[:, None] * a)[order], h[order]).measures
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * d)
    between = (a.sum() * (s[1:] + s[:-1]) / 2)[:, None]
    signs = (-1) ** corners.sum(1)
    below = (signs * (between - corners @ a).clamp_min(0) ** d).sum(1) / (math.factorial(d) * a.prod())
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    assert_close(found, torch.cat([zero, below, one]).diff()[order], rtol=0, atol=1e-11)


# --- degenerate input ------------------------------------------------------------------------------------------------


@st.composite
def degenerate(draw):
    """Targets and heights that are hard to clip by, small enough for exact arithmetic."""
    d = draw(st.integers(1, 3))
    m = draw(st.integers(1, {1: 40, 2: 20, 3: 9}[d]))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    kind = draw(st.sampled_from(["grid", "sphere", "line", "same", "near", "offset", "clusters", "huge", "tiny"]))
    y, size = rng.random((m, d)), 10.0 ** draw(st.integers(0, 14))
    if kind == "grid":
        y = rng.integers(0, 3, (m, d)) / 2
    elif kind == "sphere":
        y = y - 0.5
        y = 0.5 + 0.3 * y / np.linalg.norm(y, axis=1, keepdims=True)
    elif kind == "line":
        y = np.outer(rng.random(m), rng.normal(size=d))
    elif kind == "same":
        y = y[rng.integers(0, m // 2 + 1, m)]
    elif kind == "near":
        y = y[rng.integers(0, m // 3 + 1, m)] + rng.normal(size=(m, d)) * 10.0 ** -draw(st.integers(12, 300))
    elif kind == "offset":
        y = y / size + rng.normal(size=d) * 10.0 ** draw(st.integers(0, 4))
    elif kind == "clusters":
        y = rng.random((3, d))[rng.integers(0, 3, m)] + rng.normal(size=(m, d)) / size
    elif kind in ("huge", "tiny"):
        y = y * size ** (7 if kind == "huge" else -7)
    tied = -y @ rng.random(d)  # all planes meet in one point
    heights = {
        "voronoi": -0.5 * (y * y).sum(1),
        "zero": np.zeros(m),
        "tied": tied,
        "loose": tied + 0.05 * np.ptp(y) * rng.random(m),
        "wild": rng.normal(size=m) * np.abs(y).max(),
        "huge": rng.normal(size=m) * 1e9,
    }
    return torch.from_numpy(y), torch.from_numpy(heights[draw(st.sampled_from(sorted(heights)))])


@given(degenerate())
def test_degenerate_cells_are_measured_right(problem):
    y, h = problem
    found = diagram(y, h)
    assert_close(found.measures, oracles.power_cells_uniform(y, h), rtol=0, atol=1e-11)
    assert_all_there(found, "uniform", atol=1e-11)


@given(degenerate())
def test_degenerate_cells_fill_a_normal(problem):
    y, h = problem
    assert_all_there(diagram(y, h, "normal"), "normal", atol=1e-10)


@pytest.mark.parametrize("seed", range(20))
def test_cones_of_a_normal_balance(seed):
    """Cells that all meet in one point, up to rounding: no face as small as rounding may weigh like a real one."""
    y = torch.randn(300, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = voronoi(y / y.norm(dim=1, keepdim=True), "normal")
    assert_close(found.first.sum(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-13)
    assert_close(float(found.second.sum()), 3.0, rtol=0, atol=1e-13)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_duplicates_anywhere_share_nothing(d):
    """The highest has the cell, of equally high ones the first, whatever part of the index they are in."""
    y = torch.full((100, d), 0.25, dtype=torch.float64)
    y[::3] = 0.75
    h = -0.5 * y.square().sum(1)
    h[[50, 61]] += 0.01
    h[[48, 60]] += 0.01
    found = diagram(y, h)
    assert torch.nonzero(found.measures)[:, 0].tolist() == [48, 50]
    assert_close(float(found.measures.sum()), 1.0, rtol=0, atol=1e-15)
    assert found.pairs.tolist() == [[48, 50]]


@pytest.mark.parametrize("d", [1, 2, 3])
def test_cells_have_no_neighbours_among_duplicates_that_have_none(d):
    y, h = sites(200, d)
    y[::2] = y[::2].mul(4).floor() / 4
    y[0], y[2], h[0], h[2] = 0.0, -0.0, 0.0, 0.0  # at the same place
    rank = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    all_y, all_h = torch.cat([y, y])[rank].contiguous(), torch.cat([h, h - 0.1 * (rank[:200] % 2)])[rank].contiguous()
    found = diagram(all_y, all_h)
    assert_close(float(found.measures.sum()), 1.0, rtol=0, atol=1e-13)
    mine = torch.nonzero(found.measures)[:, 0]
    alone = diagram(all_y[mine].contiguous(), all_h[mine].contiguous())
    assert_close(found.measures[mine], alone.measures, rtol=0, atol=1e-15)
    assert sorted(map(tuple, found.pairs.tolist())) == sorted(map(tuple, mine[alone.pairs].tolist()))
    assert_close(float(found.facets.sum()), float(alone.facets.sum()), rtol=1e-12, atol=0)


@pytest.mark.parametrize("spread", [1e-6, 1e-9, 1e-12])
def test_cuts_among_rivals_that_all_but_tie(spread):
    """Scores of a tight cluster agree to its spread; a cut that is lost in their rounding is still made."""
    y, _ = sites(200, 1, seed=2)
    y = 0.7 + spread * y
    h = -0.4 * y[:, 0] - 0.1 * (y[:, 0] - 0.7).square() / spread
    assert_close(diagram(y, h).measures, oracles.power_cells_uniform(y, h), rtol=0, atol=1e-12)


def test_a_star():
    """2000 targets on a circle around one: a cell with 2000 sides."""
    t = 2 * math.pi * torch.arange(2000, dtype=torch.float64) / 2000
    y = torch.cat([torch.zeros(1, 2, dtype=torch.float64), torch.stack([t.cos(), t.sin()], 1)])
    h = -y @ torch.tensor([0.5, 0.5], dtype=torch.float64)
    h[1:] -= 0.3  # the cell in the middle is a polygon about the circle of radius 0.3
    found = diagram(y, h)
    assert_close(float(found.measures[0]), 2000 * math.tan(math.pi / 2000) * 0.09, rtol=1e-12, atol=0)
    assert_all_there(found, "uniform")
    assert len(cells(y, h)[0].neighbours) == 2000


def test_hidden_targets_have_nothing():
    y, h = sites(100, 2)
    h[::2] -= 5.0
    found = diagram(y, h)
    assert bool((found.measures[::2] == 0).all())
    assert bool((found.pairs % 2 == 1).all())
    assert_close(found.measures[1::2], diagram(y[1::2].contiguous(), h[1::2]).measures, rtol=0, atol=1e-15)
    assert all(len(cell.corners) == len(cell.faces) == len(cell.neighbours) == 0 for cell in cells(y, h)[::2])


# --- domains ---------------------------------------------------------------------------------------------------------


def polygon(corners):
    return Domain("uniform", torch.as_tensor(corners, dtype=torch.float64).contiguous())


def regular(k):
    t = 2 * math.pi * torch.arange(k, dtype=torch.float64) / k
    return torch.stack([t.cos(), t.sin()], 1)


POLYGONS = {
    "triangle": [[0.0, 0.0], [1.0, 0.0], [0.2, 0.9]],
    "sliver": [[0.0, 0.0], [1.0, 0.0], [1.0, 1e-9], [0.0, 2e-9]],
    "hexagon": regular(6),
    "1000-gon": regular(1000),
    "far": regular(5) + 1000,
}


@pytest.mark.parametrize("name", POLYGONS)
def test_polygons_as_domains(name):
    corners = torch.as_tensor(POLYGONS[name], dtype=torch.float64)
    low, high = corners.amin(0), corners.amax(0)
    y = low + (high - low) * sites(50, 2)[0]
    h = -0.5 * ((y - low) / (high - low)).square().sum(1)
    y = (y - low) / (high - low) / (high - low)  # cells stretched like the polygon
    h = h - y @ low
    found = diagram(y, h, polygon(corners))
    assert_close(float(found.measures.sum()), 1.0, rtol=0, atol=1e-11)
    a, b = corners, corners.roll(-1, 0)
    turn = (a - a[0])[:, 0] * (b - a[0])[:, 1] - (a - a[0])[:, 1] * (b - a[0])[:, 0]
    centroid = a[0] + (turn[:, None] * (a + b - 2 * a[0])).sum(0) / (3 * turn.sum())
    assert_close(found.first.sum(0), centroid, rtol=1e-12, atol=1e-11)
    alone = diagram(y[:1].contiguous(), h[:1], polygon(corners))
    assert_close(float(alone.measures[0]), 1.0, rtol=0, atol=1e-12)
    edges = b - a
    sides = torch.stack([edges[:, 1], -edges[:, 0]], 1)
    if len(corners) < 10:
        for p in (0, 7, 20):
            bounds = torch.cat([(sides * a).sum(1), h[p] - torch.cat([h[:p], h[p + 1 :]])])
            normals = torch.cat([sides, torch.cat([y[:p], y[p + 1 :]]) - y[p]])
            bounds = bounds - normals @ a[0]  # about a corner
            body = oracles.polytope_volume(normals.tolist(), bounds.tolist())
            assert_close(float(found.measures[p]), 2 * body / float(turn.sum()), rtol=1e-8, atol=1e-10)


def test_a_box_as_a_domain():
    y, h = sites(100, 3)
    low, high = torch.tensor([[-1.0, 2.0, 0.0], [1.0, 2.5, 7.0]], dtype=torch.float64)
    found = diagram(y / (high - low), h - (y / (high - low)) @ low, Domain("uniform", torch.stack([low, high])))
    assert_close(found.measures, diagram(y, h).measures, rtol=0, atol=1e-13)
    assert_close(found.first.sum(0), (low + high) / 2, rtol=0, atol=1e-12)


# --- the cells themselves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_intervals(source):
    y, h = sites(40, 1, source=source)
    low, high = ops.cube(source, 1).corners[:, 0].tolist()
    made = [(cell, j) for j, cell in enumerate(cells(y, h, source)) if len(cell.corners)]
    made.sort(key=lambda pair: float(pair[0].corners[0]))
    ends = torch.stack([cell.corners[:, 0] for cell, _ in made])
    assert (float(ends[0, 0]), float(ends[-1, 1])) == (low, high)
    assert_close(ends[1:, 0], ends[:-1, 1], rtol=0, atol=1e-14)
    numbers = [-1, *(j for _, j in made), -2]
    for k, (cell, _) in enumerate(made):
        assert cell.neighbours.tolist() == [numbers[k], numbers[k + 2]]
        assert [face.tolist() for face in cell.faces] == [[0], [1]]


@pytest.mark.parametrize("kind", ["random", "grid", "circle"])
def test_polygons_close_and_turn_left(kind):
    y, h = sites(60, 2)
    if kind == "grid":
        y = torch.cartesian_prod(*[torch.arange(7, dtype=torch.float64) / 7] * 2)
    if kind == "circle":
        y = regular(30) / 3 + 0.5
    h = h if kind == "random" else -0.5 * y.square().sum(1)
    found = diagram(y, h)
    pairs = set()
    for j, cell in enumerate(cells(y, h)):
        a, b = cell.corners, cell.corners.roll(-1, 0)
        assert [face.tolist() for face in cell.faces] == [[k, (k + 1) % len(a)] for k in range(len(a))]
        area = 0.5 * float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum())
        assert_close(area, float(found.measures[j]), rtol=0, atol=1e-13)
        edges, after = b - a, b.roll(-1, 0) - b
        assert bool((edges[:, 0] * after[:, 1] - edges[:, 1] * after[:, 0] > -1e-15).all())
        for edge, neighbour in zip(edges, cell.neighbours.tolist(), strict=True):
            if neighbour >= 0 and float(edge.norm()) > 1e-12:
                pairs.add((j, neighbour))
                step = y[neighbour] - y[j]
                assert float(edge[1] * step[0] - edge[0] * step[1]) > 0  # the neighbour lies outside
    assert pairs == {(j, i) for i, j in pairs}
    big = found.facets > 1e-12
    assert {(i, j) for i, j in pairs if i < j} == set(map(tuple, found.pairs[big].tolist()))


@pytest.mark.parametrize("kind", ["random", "grid", "plane"])
@pytest.mark.parametrize("source", SOURCES)
def test_polyhedra_close_and_face_outwards(kind, source):
    y, h = sites(40, 3, source=source)
    if kind == "grid":
        y = torch.cartesian_prod(*[torch.arange(4, dtype=torch.float64) / 4] * 3)
    if kind == "plane":
        y[:, 2] = 0.5
    h = h if kind == "random" else -0.5 * y.square().sum(1)
    found = diagram(y, h, Domain("uniform", ops.cube(source, 3).corners))
    total = 1.0 if source == "uniform" else 20.0**3
    pairs = set()
    for j, cell in enumerate(cells(y, h, source)):
        middle = cell.corners.mean(0)
        walked, volume = [], 0.0
        for face, neighbour in zip(cell.faces, cell.neighbours.tolist(), strict=True):
            walked += list(zip(face.tolist(), face.roll(-1).tolist(), strict=True))
            ring = cell.corners[face]
            spokes = ring[1:] - ring[0]
            normal = torch.linalg.cross(spokes[:-1], spokes[1:]).sum(0) / 2
            volume += float(normal @ (ring[0] - middle)) / 3
            if float(normal.norm()) < 1e-12 * total:
                continue
            outside = (cell.corners - ring[0]) @ (normal / normal.norm())
            assert float(outside.max()) < 1e-9  # convex, and the face points outwards
            if neighbour >= 0:
                pairs.add((j, neighbour))
                assert float(normal @ (y[neighbour] - y[j])) > 0
        assert len(set(walked)) == len(walked)
        assert set(walked) == {(b, a) for a, b in walked}  # closed: every edge once in each direction
        assert_close(volume / total, float(found.measures[j]), rtol=0, atol=1e-12)
    assert pairs == {(j, i) for i, j in pairs}


def test_cells_come_in_the_order_asked_for():
    y, h = sites(30, 3)
    index, cube = ops.Sites(y), ops.cube("uniform", 3)
    every = index.cells(h, cube, torch.arange(30))
    some = index.cells(h, cube, torch.tensor([7, 3, 3]))
    for cell, j in zip(some, (7, 3, 3), strict=True):
        assert_close(cell.corners, every[j].corners, rtol=0, atol=0)
        assert_close(cell.neighbours, every[j].neighbours, rtol=0, atol=0)
    assert index.cells(h, cube, torch.arange(0)) == []


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (torch.rand(5, 2), TypeError, "y must be float64, got float32"),
        (torch.rand(5, 4).double(), ValueError, r"y must have shape \(m, d\) with m >= 1, d from 1 to 3"),
        (torch.rand(0, 2).double(), ValueError, r"y must have shape \(m, d\) with m >= 1, d from 1 to 3"),
        (torch.rand(5).double(), ValueError, r"y must have shape \(m, d\), got \(5,\)"),
        (torch.full((2, 2), math.nan).double(), ValueError, "y must be finite, got 4 NaN or infinite values"),
        ([[0.0]], TypeError, "y must be a torch.Tensor, got list"),
    ],
)
def test_bad_targets_are_refused(y, error, message):
    with pytest.raises(error, match=f"^power_diagram: {message}[^\n]*$"):
        ops.Sites(y)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"h": torch.zeros(4).double()}, ValueError, r"h must have shape \(5,\), got \(4,\)"),
        ({"h": torch.zeros(5)}, TypeError, "h must have the dtype of the other tensors"),
        ({"h": torch.full((5,), math.inf).double()}, ValueError, "h must be finite"),
        ({"domain": ops.cube("uniform", 3)}, ValueError, "the domain must have 2 dimensions, got 3"),
        ({"domain": Domain("disk", torch.zeros(4, 2).double())}, ValueError, "source must be one of uniform, normal"),
        ({"domain": Domain("uniform", torch.zeros(4, 2))}, TypeError, "corners must have the dtype of the other"),
        ({"domain": Domain("uniform", torch.zeros(2, 2).double())}, ValueError, "corners must be 3 at least, got 2"),
        ({"which": torch.tensor([0, 5])}, ValueError, r"which must lie in \[0, 5\), got 0 to 5"),
        ({"which": torch.tensor([-1])}, ValueError, r"which must lie in \[0, 5\), got -1 to -1"),
        ({"which": torch.tensor([0.0])}, TypeError, r"which must be int64 \(k,\), got torch.float32 \(1,\)"),
    ],
)
def test_bad_heights_domains_and_numbers_are_refused(change, error, message):
    y, h = sites(5, 2)
    given = {"h": h, "domain": ops.cube("uniform", 2), "which": torch.arange(5)} | change
    with pytest.raises(error, match=f"^power_diagram: {message}[^\n]*$"):
        ops.Sites(y).cells(given["h"], given["domain"], given["which"])


def test_corners_may_lie_anywhere_in_memory():
    y, h = sites(50, 2)
    square = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    wide = torch.stack([square, torch.full_like(square, math.nan)], dim=2).flatten(1)[:, ::2]
    plain = diagram(y, h, Domain("uniform", square))
    for corners in (square.T.contiguous().T, wide):
        assert not corners.is_contiguous()
        assert torch.equal(diagram(y, h, Domain("uniform", corners)).measures, plain.measures)
        found = ops.Sites(y).cells(h, Domain("uniform", corners), torch.arange(50))
        assert_close(sum(float(area(cell.corners)) for cell in found), 2.0)


def area(corners):
    a, b = corners, corners.roll(-1, 0)
    return (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2


def test_sites_serve_one_thread_after_the_other():
    y, h = sites(3000, 2)
    shared, heights = (
        ops.Sites(y),
        [h, h + 1e-4 * torch.randn(3000, generator=torch.Generator().manual_seed(1)).double()],
    )
    wanted = [diagram(y, each).measures for each in heights]
    wrong = []

    def work(i):
        for _ in range(10):
            if not torch.equal(shared.diagram(heights[i], ops.cube("uniform", 2)).measures, wanted[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_sites_at_work_are_not_asked_for_more():
    y, h = sites(300_000, 2)
    shared = ops.Sites(y)
    with pytest.raises(RuntimeError, match="^power_diagram: these sites are at work, on the diagram whose progress"):
        shared.diagram(h, ops.cube("uniform", 2), lambda done: shared.diagram(h, ops.cube("uniform", 2)))
    assert_close(float(shared.diagram(h, ops.cube("uniform", 2)).measures.sum()), 1.0)


def test_a_wide_domain_of_the_normal_source_is_refused():
    y, h = sites(5, 2, source="normal")
    for half, fits in ((100.0, True), (1e17, False)):
        box = Domain("normal", half * torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64))
        if fits:
            assert_close(float(diagram(y, h, box).measures.sum()), 1.0)
        else:
            with pytest.raises(ValueError, match="^power_diagram: corners of the normal source must be within 10000$"):
                diagram(y, h, box)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("source", ["uniform", "normal"])
@pytest.mark.parametrize("decades", [4, 8, 12])
def test_planes_of_all_sizes_through_one_point(source, decades, seed):
    """Cells are then cones, with one for each corner of the convex hull; corners at the tip are apart by rounding."""
    r = np.random.default_rng(seed)
    y = r.normal(size=(1000, 3)) * 10.0 ** r.uniform(-decades, 0, (1000, 1))
    tip = 0.2 + 0.6 * r.random(3) if source == "uniform" else r.normal(size=3)
    found = ops.Sites(torch.from_numpy(y)).diagram(torch.from_numpy(-y @ tip), ops.cube(source, 3))
    hull = ConvexHull(y)
    assert sorted(torch.nonzero(found.measures)[:, 0].tolist()) == sorted(hull.vertices.tolist())
    assert float(found.measures.sum()) == pytest.approx(1, abs=1e-13)
    edges = {tuple(sorted(edge)) for a, b, c in hull.simplices.tolist() for edge in ((a, b), (b, c), (c, a))}
    clear = found.pairs[found.facets > 1e-12].tolist()
    assert {tuple(pair) for pair in clear} <= edges


@pytest.mark.parametrize(("name", "least"), [("y", 1e151), ("h", -1e300)])
def test_numbers_whose_products_overflow_are_refused(name, least):
    y, h = torch.rand(20, 2, dtype=torch.float64), torch.zeros(20, dtype=torch.float64)
    {"y": y, "h": h}[name][3] = least
    with pytest.raises(ValueError, match=f"power_diagram: {name} must be within 1e\\+150, got 1"):
        ops.Sites(y).diagram(h, ops.cube("uniform", 2))


def test_domains_must_be_such():
    sites, h = ops.Sites(torch.rand(20, 3, dtype=torch.float64)), torch.zeros(20, dtype=torch.float64)
    with pytest.raises(TypeError, match="power_diagram: domain must be a Domain, got str"):
        sites.diagram(h, "uniform")
    flat = torch.tensor([[0.0, 0, 0], [1, 1, 0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="power_diagram: corners must be a lowest and a highest one, got"):
        sites.diagram(h, ops.Domain("uniform", flat))


def test_copies_have_the_sites_of_the_original():
    y = torch.rand(20, 2, dtype=torch.float64)
    h, sites = torch.zeros(20, dtype=torch.float64), ops.Sites(y)
    y.mul_(0.5)
    wanted = sites.diagram(h, ops.cube("uniform", 2)).measures
    assert torch.equal(copy.deepcopy(sites).diagram(h, ops.cube("uniform", 2)).measures, wanted)
