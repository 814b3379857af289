import math

import pytest
import torch
from draws import randn
from fits import fit
from scipy.optimize import linprog
from torch.testing import assert_close

from otgen import ops
from otgen.ot import PowerDiagram, SemiDiscreteOT, maps
from otgen.ot.maps import (
    ALIKE,
    Neighbours,
    Planes,
    fill_centroids,
    find_centroids,
    find_neighbours,
    plane_angles,
    shoot_rays,
)
from otgen.ot.problem import make_problem
from otgen.ot.sources import BuiltIn

# --- angles, neighbours, singular set --------------------------------------------------------------------------------


def test_angles_by_hand():
    y = torch.tensor([[-1.0], [1.0], [0.0], [3.0**0.5]], dtype=torch.float64)
    i, j = torch.tensor([0, 2, 2, 1, 0]), torch.tensor([1, 1, 3, 3, 0])
    assert_close(plane_angles(y, i, j), torch.tensor([90.0, 45, 60, 15, 0], dtype=torch.float64) * math.pi / 180)


@pytest.mark.parametrize("small", [1e-3, 1e-8, 1e-12])
def test_small_and_large_angles_keep_their_digits(small):
    y = torch.tensor([[0.0, 0.0], [0.0, small], [1e4, 0.0], [-1e4, 0.0]], dtype=torch.float64)
    angles = plane_angles(y, torch.tensor([0, 0, 2]), torch.tensor([1, 0, 3]))
    assert_close(angles, torch.tensor([math.atan(small), 0, math.pi - 2e-4], dtype=torch.float64), rtol=1e-11, atol=0)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize(("m", "d"), [(40, 1), (30, 3), (12, 300)])
def test_cosines_decide_as_angles_do(m, d, scale):
    y = scale * randn(m, d)
    near = torch.randint(m, (50, 7), generator=torch.Generator().manual_seed(0))
    angles, planes = plane_angles(y, near[:, :1], near), Planes(y)
    for angle in [1e-9, 0.5, 3.0, math.pi, *angles[:, :3].flatten().tolist()]:
        for ulps in (-2, 0, 2):  # angles have an error of their own
            threshold = angle * (1 + ulps * 2**-52)
            wrong = planes.within(near, threshold) != (angles <= threshold)
            assert bool(((angles[wrong] - threshold).abs() <= 2**-51 * angle).all())


def test_angles_are_asked_only_where_cosines_do_not_tell(monkeypatch):
    def asked(threshold):
        pairs = 0

        def spy(y, i, j):
            nonlocal pairs
            pairs += j.numel()
            return plane_angles(y, i, j)

        monkeypatch.setattr(maps, "plane_angles", spy)
        Planes(randn(500, 64)).within(torch.arange(500).view(50, 10), threshold)
        return pairs

    assert (asked(0.5), asked(1.5)) == (0, 0)
    assert asked(1e-9) == 50  # the first of each row and itself


def test_rays_are_followed_a_few_at_a_time(fitted, monkeypatch):
    whole = shoot_rays(fitted._problem, fitted._h, 0)
    monkeypatch.setattr(maps, "RAYS", 512)
    few = shoot_rays(fitted._problem, fitted._h, 0)
    assert torch.equal(few, few.unique(dim=0))
    assert abs(len(few) - len(whole)) < 0.1 * len(whole)


@pytest.mark.parametrize(("source", "m"), [("uniform", 2), ("uniform", 7), ("normal", 30)])
def test_neighbours_on_a_line_are_next_to_each_other(source, m):
    """And the angle between two lines is the difference of their slopes' arctangents."""
    y = randn(m, 1, seed=m)
    ot = SemiDiscreteOT(source, progress=False).fit(100 * y + 7)
    order = y[:, 0].argsort()
    slopes = ((y - y.mean()) / y.std(correction=0))[:, 0][order].arctan()
    angles = torch.diff(slopes)
    for threshold in (1e-9, 1.001 * float(angles.median()), 1.001 * float(angles.max())):
        jumps = ot.singular_set(threshold)
        want = [tuple(sorted(order[k : k + 2].tolist())) for k in range(m - 1) if angles[k] > threshold]
        assert sorted(map(tuple, jumps.pairs.tolist())) == sorted(want)
        assert jumps.threshold == threshold
        by_pair = dict(zip(map(tuple, jumps.pairs.tolist()), jumps.angles.tolist(), strict=True))
        for k in range(m - 1):
            pair = tuple(sorted(order[k : k + 2].tolist()))
            if pair in by_pair:
                assert_close(by_pair[pair], float(angles[k]), rtol=1e-9, atol=1e-9)


def test_neighbours_of_a_square_share_a_side():
    y = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]], dtype=torch.float64)
    problem = make_problem(BuiltIn("uniform"), y)
    h = -(problem.y @ problem.source.mean(2))  # the cells are the quarters of the cube
    found = find_neighbours(problem, h, seed=0)
    assert found.pairs.tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]
    assert found.counts.sum() == 10_000
    assert_close(found.counts / 2500, torch.ones(4), rtol=0, atol=0.1)
    # <(1, 1, -1), (1, -1, -1)> = 1 and both have length sqrt(3)
    assert_close(found.angles, torch.full((4,), math.acos(1 / 3), dtype=torch.float64))
    far = find_neighbours(problem, h + torch.tensor([0.5, 0, 0, 0.5]), seed=0)  # now 0 and 3 meet, 1 and 2 do not
    assert [0, 3] in far.pairs.tolist()
    assert [1, 2] not in far.pairs.tolist()


def test_the_seed_decides_the_samples_and_the_rays():
    problem = make_problem(BuiltIn("normal"), randn(60, 8))
    h = -0.5 * problem.y.square().sum(1)
    counts = [find_neighbours(problem, h, seed).counts.tolist() for seed in (0, 0, 1)]
    rays = [shoot_rays(problem, h, seed).tolist() for seed in (0, 0, 1)]
    assert counts[0] == counts[1] != counts[2]
    assert rays[0] == rays[1] != rays[2]


def test_singular_set_is_where_the_map_jumps():
    """Two clusters far apart: cells of one meet cells of the other at a large angle, and their own at a small one."""
    side = torch.arange(100) % 2
    y = 0.2 * randn(100, 2) + 20.0 * side[:, None]
    ot = SemiDiscreteOT(progress=False).fit(y)
    jumps = ot.singular_set(1.0)
    assert jumps.pairs.shape[0] >= 3
    assert bool((side[jumps.pairs].sum(1) == 1).all())
    assert bool((jumps.angles > 1.0).all())
    every = ot.singular_set(1e-12)
    within = every.angles[side[every.pairs].sum(1) != 1]
    assert float(within.max()) < 0.5
    assert ot.singular_set(math.pi).pairs.shape == (0, 2)


@pytest.mark.parametrize(("m", "d", "seed"), [(25, 2, 0), (25, 2, 1), (15, 3, 2), (8, 5, 3)])
def test_pairs_of_the_singular_set_are_all_the_true_neighbours(m, d, seed):
    """Two cells share a facet where their scores are equal and above all others by a margin: a linear program.

    Every pair that is reported has such a point in the cube, and every pair with a margin worth the name is reported.
    """
    ot = SemiDiscreteOT(seed=seed, progress=False).fit(randn(m, d, seed=seed))
    y, h = ot.targets_.numpy(), ot.heights_.numpy()
    found = set(map(tuple, ot.singular_set(1e-9).pairs.tolist()))
    for i in range(m):
        for j in range(i + 1, m):
            others = [k for k in range(m) if k not in (i, j)]
            solved = linprog(
                [0.0] * d + [-1.0],
                A_ub=[[*(y[k] - y[i]), 1.0] for k in others],
                b_ub=[h[i] - h[k] for k in others],
                A_eq=[[*(y[i] - y[j]), 0.0]],
                b_eq=[h[j] - h[i]],
                bounds=[(0, 1)] * d + [(None, 10)],
            )
            margin = -solved.fun if solved.success else -math.inf
            assert (i, j) not in found or margin > -1e-7
            assert (i, j) in found or margin < (0.02 if d == 2 else 0.1)


@pytest.mark.parametrize(("source", "reached"), [("uniform", "uniform"), ("normal", [[-30.0] * 3, [30.0] * 3])])
def test_rays_find_nearly_all_facets_and_nothing_else(source, reached, seed):
    ot = fit(randn(60, 3, seed=seed), source=source, seed=seed)
    y, h = ot._problem.y, ot._h
    found = shoot_rays(ot._problem, h, seed).tolist()
    assert found == sorted(found)
    every = PowerDiagram(y, h, reached).pairs.tolist()
    assert all(pair in every for pair in found)
    cells = PowerDiagram(y, h, source)
    hit = torch.tensor([pair in found for pair in cells.pairs.tolist()])
    assert cells.facets[hit].sum() > 0.99 * cells.facets.sum()


def test_angles_do_not_depend_on_place_and_scale():
    y = randn(40, 2)
    plain = SemiDiscreteOT(progress=False).fit(y)
    moved = SemiDiscreteOT(progress=False).fit(1e3 * y + 1e6)
    for threshold in (0.3, 0.8, "auto"):
        a, b = plain.singular_set(threshold), moved.singular_set(threshold)
        assert torch.equal(a.pairs, b.pairs)
        assert_close(a.angles, b.angles, rtol=0, atol=1e-6)


def test_another_fit_has_neighbours_of_its_own():
    ot = SemiDiscreteOT(progress=False).fit(randn(30, 3))
    before = ot.singular_set().threshold
    again = ot.fit(randn(30, 3, seed=1)).singular_set().threshold
    assert again == SemiDiscreteOT(progress=False).fit(randn(30, 3, seed=1)).singular_set().threshold != before


def test_automatic_threshold_is_the_median_over_samples():
    found = Neighbours(torch.zeros(4, 2).long(), torch.tensor([10, 1, 5, 4]), torch.tensor([0.4, 0.1, 0.2, 0.3]))
    assert [found.quantile(q) for q in (0.0, 0.05, 0.06, 0.3, 0.31, 0.5, 0.51, 1.0)] == pytest.approx(
        [0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4]
    )
    ot = SemiDiscreteOT(progress=False).fit(randn(50, 3))
    threshold = ot.singular_set().threshold
    neighbours = find_neighbours(ot._problem, ot._h, ot.seed)
    below = neighbours.counts[neighbours.angles <= threshold].sum() / neighbours.counts.sum()
    above = neighbours.counts[neighbours.angles * (1 + 2 * ALIKE) >= threshold].sum() / neighbours.counts.sum()
    assert below >= 0.5
    assert above >= 0.5


def test_rows_are_those_of_the_given_targets(fitted):
    every = fitted.singular_set(1e-6)
    rows = every.pairs.unique()
    assert not set(rows.tolist()) & set(range(20, 25))  # no weight
    assert not set(rows.tolist()) & set(range(50, 60))  # copies of the first ten
    assert len(rows) == 45


# --- centroids -------------------------------------------------------------------------------------------------------


def test_centroids_of_intervals_are_their_middles():
    nu = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
    y = torch.tensor([[0.0], [1.0], [5.0], [6.0]], dtype=torch.float64)
    ot = SemiDiscreteOT(tol=1e-4, progress=False).fit(y, nu)
    ends = nu.cumsum(0)
    assert_close(ot.centroids_[:, 0], ends - nu / 2, rtol=0, atol=0.01)


def test_centroids_are_means_of_the_cells(fitted):
    x = ops.sample("normal", 200_000, 3, seed=123).double()
    j = fitted.assign(x)
    sums = torch.zeros(60, 3, dtype=torch.float64).index_add_(0, j, x)
    counts = torch.bincount(j, minlength=60)[:, None]
    kept = (counts[:, 0] > 0) & (torch.arange(60) < 50)
    assert_close(fitted.centroids_[kept], (sums / counts)[kept], rtol=0, atol=0.15)
    assert_close(fitted.centroids_[50:], fitted.centroids_[:10])
    assert bool(fitted.centroids_[20:25].isnan().all())


def test_centroid_of_a_cell_that_is_empty_is_the_sample_nearest_to_it():
    problem = make_problem(BuiltIn("uniform"), randn(12, 2))
    h = -0.15 * problem.y.square().sum(1)
    h[4] -= 10
    found = find_centroids(problem, h, seed=5, n=4000)
    missed = found.isnan().any(1)
    assert bool(missed[4])
    centroids = fill_centroids(problem, h, found, seed=5)
    assert_close(centroids[~missed], found[~missed], rtol=0, atol=0)
    x = problem.source.sample(4000, 2, 0, kind=problem.kind).double()
    lack = ((x @ problem.y.T + h).max(dim=1).values - x @ problem.y[4] - h[4]).min()
    c = centroids[4]
    assert bool(((c >= 0) & (c <= 1)).all())
    assert_close((c @ problem.y.T + h).max() - c @ problem.y[4] - h[4], lack, rtol=0, atol=0.05)
    assert bool(torch.isfinite(centroids).all())
