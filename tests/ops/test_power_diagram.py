"""Exact power diagrams against exact arithmetic, closed forms, scipy, samples, and themselves."""

import math

import numpy as np
import oracles
import pytest
import torch
from diagrams import SOURCES, assert_all_there, cells, diagram, sites, voronoi
from draws import rand
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull, Voronoi
from scipy.special import ndtr
from torch.testing import assert_close

from otgen import ops

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


@pytest.mark.parametrize("d", [1, 2, 3])
def test_far_cells_of_a_normal_keep_their_digits(d):
    """Half-spaces with much less mass than the rounding of 1, but for what is cut off."""
    y = torch.randn(2, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    for shift, lost in ((7.0, 1e-10), (9.0, 1e-4)):
        h = torch.tensor([-shift, 0.0], dtype=torch.float64) * (y[0] - y[1]).norm()
        assert_close(float(diagram(y, h, "normal").measures[0]), float(ndtr(-shift)), rtol=lost, atol=0)


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


def test_wedges_of_a_normal_are_whole():
    """Edges at their common tip are as short as rounding: none may tell on which side the origin lies."""
    for seed in range(30):
        r = np.random.default_rng(seed)
        y = r.normal(size=(300, 2))
        found = diagram(torch.from_numpy(y), torch.from_numpy(-y @ r.normal(size=2)), "normal")
        assert_all_there(found, "normal")


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


def test_no_part_is_lost_among_rivals_that_all_but_tie():
    """The bounds of the index are sums of other terms than the scores are, and as uncertain."""
    for seed in range(30):
        r = np.random.default_rng(seed)
        y = torch.from_numpy(0.7 + 1e-14 * r.random((200, 1)))
        h = -y[:, 0] * r.random() - 0.1 * (y[:, 0] - 0.7).square() / 1e-14
        assert_close(float(diagram(y, h).measures.sum()), 1.0, rtol=0, atol=1e-12)


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


@pytest.mark.parametrize("seed", range(5))
def test_planes_that_all_but_coincide_leave_whole_moments(seed):
    """Targets on a line whose planes are one but for rounding: cells between the outermost are nothing."""
    r = np.random.default_rng(seed)
    y = np.outer(r.random(200), r.normal(size=3)) + r.normal(size=3)
    found = ops.Sites(torch.from_numpy(y)).diagram(torch.from_numpy(-y @ r.random(3)), ops.cube("normal", 3))
    assert_all_there(found, "normal")
