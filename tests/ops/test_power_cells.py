"""Domains of power diagrams, the cells themselves, and what is refused."""

import copy
import math
import threading

import oracles
import pytest
import torch
from diagrams import SOURCES, cells, diagram, sites
from torch.testing import assert_close

from otgen import ops
from otgen.ops import Domain

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


@pytest.mark.parametrize(
    "corners",
    [
        [[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]],  # clockwise
        [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]],  # flat
        [[0.0, 0.0], [1e-160, 0.0], [0.0, 1e-160]],
        [[0.0, 0.0], [1e160, 0.0], [0.0, 1e160]],
        [[0.0] * 3, [1e-120] * 3],
        [[0.0] * 3, [1e120] * 3],
    ],
)
def test_domains_without_a_size_are_refused(corners):
    domain = polygon(corners)
    y, h = sites(5, domain.d)
    with pytest.raises(ValueError, match="^power_diagram: corners must be [^\n]*of a finite size above 1e-300, got"):
        diagram(y, h, domain)


def test_copies_have_the_sites_of_the_original():
    y = torch.rand(20, 2, dtype=torch.float64)
    h, sites = torch.zeros(20, dtype=torch.float64), ops.Sites(y)
    y.mul_(0.5)
    wanted = sites.diagram(h, ops.cube("uniform", 2)).measures
    assert torch.equal(copy.deepcopy(sites).diagram(h, ops.cube("uniform", 2)).measures, wanted)
