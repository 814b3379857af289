"""Power diagrams as users ask for them: integrals against samples and closed forms, domains of all kinds, bad input."""

import copy
import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
from draws import rand, randn
from torch.testing import assert_close

from otgen import PowerDiagram, SemiDiscreteOT, ops

TRIANGLE = torch.tensor([[-1.0, 0.0], [2.0, 0.0], [0.5, 3.0]], dtype=torch.float64)


def drawn(domain, n, d):
    """Samples of a domain, (n, d)."""
    if isinstance(domain, str):
        return rand(n, d, seed=5) if domain == "uniform" else randn(n, d, seed=5)
    u = rand(n, d, seed=5)
    if len(domain) == 2:
        return domain[0] + u * (domain[1] - domain[0])
    a, b = u.sum(1, keepdim=True).gt(1), domain[1:] - domain[0]
    return domain[0] + torch.where(a, 1 - u, u) @ b


DOMAINS = {
    "cube": ("uniform", 1), "cube 2": ("uniform", 2), "cube 3": ("uniform", 3),
    "normal": ("normal", 1), "normal 2": ("normal", 2), "normal 3": ("normal", 3),
    "box": (torch.tensor([[-3.0], [1.0]], dtype=torch.float64), 1),
    "box 2": (torch.tensor([[4.0, -1.0], [6.0, 0.5]], dtype=torch.float64), 2),
    "box 3": (torch.tensor([[4.0, -1.0, 0.0], [6.0, 0.5, 0.1]], dtype=torch.float64), 3),
    "triangle": (TRIANGLE, 2), "clockwise": (TRIANGLE.flip(0), 2),
}  # fmt: skip


@pytest.mark.parametrize(("domain", "d"), DOMAINS.values(), ids=DOMAINS)
@pytest.mark.parametrize("far", [0.0, 1000.0])
def test_integrals_are_those_of_samples(domain, d, far):
    n = 200_000
    x = drawn(domain, n, d)
    y, h = x[:12] + far, -0.5 * x[:12].square().sum(1) + 0.05 * rand(12, seed=2)  # the same cells however far
    found = PowerDiagram(y, h, domain)
    scores = x @ y.T + h
    winner = scores.argmax(1)
    assert_close(float(found.measures.sum()), 1.0, rtol=1e-12, atol=0)
    for j in range(12):
        mine = (winner == j).double()
        within(found.measures[j], mine)
        within(found.second_moments[j], mine * x.square().sum(1))
        within(found.costs[j], mine * (x - y[j]).square().sum(1))
        for c in range(d):
            within((found.centroids[j, c] * found.measures[j]).nan_to_num(), mine * x[:, c])  # nan where it is hidden


def within(integral, values):
    """An integral is the mean of samples but for five of their standard errors."""
    assert_close(float(integral), float(values.mean()), rtol=0, atol=5 * float(values.std()) / len(values) ** 0.5)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_without_heights_cells_are_those_of_voronoi(d):
    x, y = rand(100_000, d, seed=1), rand(40, d)
    found = PowerDiagram(y)
    nearest = torch.cdist(x, y).argmin(1)
    assert_close(found.heights, -0.5 * y.square().sum(1))
    for j in range(40):
        within(found.measures[j], (nearest == j).double())
    assert_close(float(found.measures.sum()), 1.0, rtol=1e-12, atol=0)
    centre, size = found.centroids, found.measures
    assert_close((centre * size[:, None]).sum(0), torch.full((d,), 0.5, dtype=torch.float64))
    assert_close(float(found.second_moments.sum()), d / 3)


def test_a_fitted_map_has_the_diagram_of_its_heights():
    ot = SemiDiscreteOT(progress=False).fit(randn(50, 2))
    found = PowerDiagram(ot.targets_, ot.heights_)
    assert_close(found.measures, ot.weights_, rtol=1e-8, atol=0)
    assert_close(float(found.costs.sum()), ot.certificate_.primal)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_hessian_is_how_fast_mass_moves(d):
    y, step = rand(15, d), 1e-6
    found = PowerDiagram(y)
    i = int(found.pairs[0, 0])
    h = found.heights.clone()
    h[i] += step
    moved = (PowerDiagram(y, h).measures - found.measures) / step
    rate = found.hessian()
    for (a, b), r in zip(found.pairs.tolist(), rate.tolist(), strict=True):
        if a == i:
            assert_close(float(moved[b]), -r, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_diagram_can_be_copied_and_sent_to_other_processes(again):
    one = PowerDiagram(rand(30, 2))
    other = again(one)
    assert torch.equal(other.measures, one.measures)
    assert torch.equal(other.cells([3])[0].corners, one.cells([3])[0].corners)


def test_hidden_sites_have_nothing():
    y = torch.tensor([[0.2, 0.5], [0.8, 0.5], [0.5, 0.5]], dtype=torch.float64)
    found = PowerDiagram(y, [0.0, -0.3, -9.0])
    assert found.measures[2] == found.costs[2] == 0
    assert bool(found.centroids[2].isnan().all())
    assert len(found.cells([2])[0].corners) == 0
    assert repr(found) == "PowerDiagram(3 sites in 2 dimensions, 2 cells)"


ROWS = [[0, 3], np.array([0, 3], np.int32), torch.tensor([0, 3]), torch.tensor([0, 1, 3])[::2], (0, 3)]


@pytest.mark.parametrize("which", ROWS, ids=type)
def test_cells_by_any_whole_numbers(which):
    found = PowerDiagram(rand(9, 2), domain=TRIANGLE)
    every = found.cells()
    for cell, j in zip(found.cells(which), (0, 3), strict=True):
        assert torch.equal(cell.corners, every[j].corners)
    assert found.cells([]) == []
    area = sum(float(torch.det(torch.stack([b, a]).T)) for c in every for a, b in _edges(c.corners)) / 2
    assert_close(abs(area), 4.5)  # of the triangle


def test_corners_are_where_the_domain_is():
    left, right = PowerDiagram([[0.25, 0.5], [0.75, 0.5]]).cells()
    for cell, low in ((left, 0.0), (right, 0.5)):
        wanted = [[low, 0.0], [low, 1.0], [low + 0.5, 0.0], [low + 0.5, 1.0]]
        assert_close(torch.tensor(sorted(cell.corners.tolist())), torch.tensor(wanted))


def _edges(corners):
    return zip(corners, corners.roll(-1, 0), strict=True)


@pytest.mark.parametrize("which", [[0.5], [True], [9], [-1], [[0]]], ids=str)
def test_other_rows_are_refused(which):
    with pytest.raises((TypeError, ValueError), match="^power_diagram: which must"):
        PowerDiagram(rand(9, 2)).cells(which)


@pytest.mark.parametrize("seed", range(20))
def test_corners_may_come_clockwise(seed):
    """Angles and sides of the polygon differ."""
    angle = 2 * math.pi * rand(11, seed=seed).sort().values
    polygon, y = torch.stack([3 * angle.cos(), angle.sin()], 1), randn(20, 2, seed=seed)
    one, other = PowerDiagram(y, domain=polygon), PowerDiagram(y, domain=polygon.flip(0))
    assert_close(other.measures, one.measures)


BOXES = [[[0.0] * d, [1.0] * d] for d in (1, 2, 3)]


@pytest.mark.parametrize("turn", [False, True])
def test_sides_are_numbered_as_their_corners_were_given(turn):
    polygon = torch.tensor([[0, 0], [2, 0], [2.5, 1], [1, 2], [0, 1]], dtype=torch.float64)
    polygon = polygon.flip(0) if turn else polygon
    found = 0
    for cell in PowerDiagram(rand(30, 2), domain=polygon).cells():
        for k, ends in zip(cell.neighbours.tolist(), _edges(cell.corners), strict=True):
            if k < 0:
                a, b = polygon[-1 - k], polygon[-k % 5]
                assert abs(float(torch.det(torch.stack([b - a, sum(ends) / 2 - a])))) < 1e-12
                found += 1
    assert found > 5


@pytest.mark.parametrize("domain", [*BOXES, [[0.0, 0.0], [1.0, 0.2], [0.7, 0.7], [0.2, 0.5]]])
@pytest.mark.parametrize("scale", [1e-60, 1e-20, 1e20, 1e60])
def test_any_scale_within_the_limits(domain, scale):
    corners = torch.tensor(domain, dtype=torch.float64)
    y = 0.5 * rand(50, corners.shape[1])
    one, other = PowerDiagram(y, domain=corners), PowerDiagram(scale * y, domain=scale * corners)
    assert_close(other.measures, one.measures, rtol=1e-9, atol=1e-12)
    assert_close(other.costs / scale / scale, one.costs, rtol=1e-9, atol=1e-12)


TURN = 2 * math.pi * torch.arange(5, dtype=torch.float64) / 5
PENTAGON = torch.stack([TURN.cos(), TURN.sin()], 1)


def test_corners_may_lie_on_a_side():
    """But for rounding, which can turn the other way there."""
    more = torch.stack([PENTAGON + share * (PENTAGON.roll(-1, 0) - PENTAGON) for share in (0.0, 0.3, 0.6)], 1)
    y = randn(20, 2)
    assert_close(PowerDiagram(y, domain=more.view(-1, 2)).measures, PowerDiagram(y, domain=PENTAGON).measures)


def test_it_keeps_what_it_was_given():
    y, h = rand(9, 2), rand(9)
    found = PowerDiagram(y, h)
    before = [found.sites.clone(), found.heights.clone()]
    y.zero_()
    h.zero_()
    assert_close([found.sites, found.heights], before)


BAD = {
    "four dimensions": (lambda: PowerDiagram(rand(5, 4)), "sites must have at most 3 coordinates, got 4"),
    "huge sites": (lambda: PowerDiagram(-1e70 * rand(5, 2)), r"sites must be at most 1e\+60, got"),
    "nan": (lambda: PowerDiagram([[math.nan, 0.0]]), "sites must be finite"),
    "heights": (lambda: PowerDiagram(rand(5, 2), rand(4)), r"heights must have shape \(5,\), got \(4,\)"),
    "no domain": (lambda: PowerDiagram(rand(5, 2), domain="disk"), "domain must be one of uniform, normal or corners"),
    "tiny domain": (lambda: PowerDiagram(rand(5, 1), domain=[[0.0], [1e-70]]), "domain must have sides from 1e-60"),
    "huge domain": (lambda: PowerDiagram(rand(5, 1), domain=[[0.0], [1e70]]), "domain must have sides from 1e-60"),
    "flat domain": (lambda: PowerDiagram(rand(5, 2), domain=[[0, 0], [1, 0]]), "domain must be a lowest and a highest"),
    "flat box": (lambda: PowerDiagram(rand(5, 2), domain=[[0, 0], [1, 1e-13]]), "domain must be a lowest and"),
    "flat polygon": (lambda: PowerDiagram(rand(5, 2), domain=[[0, 0], [2, 0], [1, 1e-13]]), "domain must be a convex"),
    "star": (lambda: PowerDiagram(rand(5, 2), domain=PENTAGON[[0, 2, 4, 1, 3]]), "domain must be a convex"),
    "no polygon": (
        lambda: PowerDiagram(rand(5, 2), domain=[[0, 0], [1, 1], [1, 0], [0, 1]]),
        "domain must be a convex",
    ),
    "corners": (lambda: PowerDiagram(rand(5, 3), domain=TRIANGLE), r"domain must have shape \(2, 3\), got \(3, 2\)"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=f"^PowerDiagram: {message}[^\n]*$"):
        make()


@pytest.mark.parametrize("which", [np.array([5, 0, 3])[:0:-1], np.array([3, 0], ">i4")], ids=["strides", "order"])
def test_rows_in_any_memory(which):
    found = PowerDiagram(rand(9, 2))
    wanted = found.cells([3, 0])
    for a, b in zip(found.cells(which), wanted, strict=True):
        assert torch.equal(a.corners, b.corners)


@pytest.mark.parametrize("cells", [PowerDiagram.cells, SemiDiscreteOT.cells])
def test_what_a_cell_has_is_named_where_it_is_given(cells):
    for field in dataclasses.fields(ops.Cell):
        assert f"`{field.name}`" in cells.__doc__
