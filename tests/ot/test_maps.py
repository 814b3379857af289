import math

import oracles
import pytest
import torch
from draws import randn
from fits import fit
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch.testing import assert_close

from otgen import ops
from otgen.ot import PowerDiagram, SemiDiscreteOT
from otgen.ot.maps import (
    Extension,
    Neighbours,
    fill_centroids,
    find_centroids,
    find_neighbours,
    plane_angles,
    shoot_rays,
)
from otgen.ot.problem import make_problem
from otgen.ot.sources import BuiltIn


@pytest.fixture(scope="module")
def fitted():
    """A map onto 60 points in three dimensions; some are duplicates, some have no weight."""
    y = 5 * randn(60, 3) + 20
    y[50:] = y[:10]
    nu = torch.ones(60)
    nu[20:25] = 0
    return SemiDiscreteOT("normal", seed=3, progress=False).fit(y, nu)


# --- the hard map ----------------------------------------------------------------------------------------------------


def test_transport_is_the_target_of_the_best_score(fitted):
    x = randn(500, 3, seed=1)
    scores = x @ fitted.targets_.T + fitted.heights_
    best, j = scores.max(dim=1), fitted.assign(x)
    assert torch.equal(j, best.indices)
    assert_close(fitted.potential(x), best.values)
    assert torch.equal(fitted.transport(x), fitted.targets_[j])
    assert bool((fitted.weights_[j] > 0).all())


def test_transport_is_the_gradient_of_the_potential(fitted):
    x, step = randn(200, 3, seed=2), 1e-6
    difference = torch.stack(
        [(fitted.potential(x + e) - fitted.potential(x - e)) / (2 * step) for e in step * torch.eye(3).double()], dim=1
    )
    inside = torch.isclose(fitted.transport(x + step), fitted.transport(x - step)).all(1)
    assert inside.double().mean() > 0.9
    assert_close(difference[inside], fitted.transport(x)[inside], rtol=1e-6, atol=1e-6)


def test_potential_is_convex(fitted):
    a, b = randn(500, 3, seed=3), randn(500, 3, seed=4)
    middle = fitted.potential((a + b) / 2)
    assert bool((middle <= (fitted.potential(a) + fitted.potential(b)) / 2 + 1e-9).all())


@pytest.mark.parametrize("kind", ["float32", "numpy", "list", "slice"])
def test_samples_may_be_any_real_array(fitted, kind):
    x = randn(7, 3).float()
    given_x = {"float32": x, "numpy": x.numpy(), "list": x.tolist(), "slice": x.repeat(1, 2)[:, 3:]}[kind]
    assert torch.equal(fitted.assign(given_x), fitted.assign(x.double()))


@pytest.mark.parametrize("method", ["assign", "transport", "potential"])
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(4, 2), ValueError, r"x must have shape \(n, 3\) to match the targets, got \(4, 2\)"),
        (torch.zeros(3), ValueError, r"x must have shape \(n, 3\) to match the targets, got \(3,\)"),
        (torch.full((2, 3), math.nan), ValueError, "x must be finite, got NaN or infinite values in 2 of 2 rows"),
        (torch.zeros(2, 3, 1), ValueError, r"x must have shape .*, got \(2, 3, 1\)"),
        (None, TypeError, "x must be an array of real numbers, got dtype object"),
    ],
)
def test_bad_samples_are_refused(fitted, method, x, error, message):
    with pytest.raises(error, match=f"^{message}[^\n]*$"):
        getattr(fitted, method)(x)


# --- angles, neighbours, singular set --------------------------------------------------------------------------------


def test_angles_by_hand():
    y = torch.tensor([[-1.0], [1.0], [0.0], [3.0**0.5]], dtype=torch.float64)
    i, j = torch.tensor([0, 2, 2, 1, 0]), torch.tensor([1, 1, 3, 3, 0])
    assert_close(plane_angles(y, i, j), torch.tensor([90.0, 45, 60, 15, 0], dtype=torch.float64) * math.pi / 180)


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


def test_automatic_threshold_is_the_median_over_samples():
    found = Neighbours(torch.zeros(4, 2).long(), torch.tensor([10, 1, 5, 4]), torch.tensor([0.4, 0.1, 0.2, 0.3]))
    assert [found.quantile(q) for q in (0.0, 0.05, 0.06, 0.3, 0.31, 0.5, 0.51, 1.0)] == pytest.approx(
        [0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4]
    )
    ot = SemiDiscreteOT(progress=False).fit(randn(50, 3))
    threshold = ot.singular_set().threshold
    neighbours = find_neighbours(ot._problem, ot._h, ot.seed)
    below = neighbours.counts[neighbours.angles <= threshold].sum() / neighbours.counts.sum()
    above = neighbours.counts[neighbours.angles >= threshold].sum() / neighbours.counts.sum()
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


# --- Algorithm 2 -----------------------------------------------------------------------------------------------------


def algorithm_2(x, centroids, y, values, threshold):
    """Lines 5 to 10 of the lecture's Algorithm 2 for one sample, in plain Python; None where it is abandoned."""
    d = len(x)
    distances = [math.dist(x, c) for c in centroids]
    near = sorted(range(len(centroids)), key=distances.__getitem__)[: d + 1]  # line 5
    planes = [[*y[i], -1.0] for i in near]

    def angle(a, b):
        cosine = sum(p * q for p, q in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
        return math.acos(max(-1.0, min(1.0, cosine)))

    angles = [angle(planes[0], plane) for plane in planes]  # line 6
    selected = [k for k in range(1, len(near)) if angles[k] <= threshold]  # line 7
    if not selected and len(near) > 1:  # line 8
        return None
    inverse = {k: 1 / distances[near[k]] for k in [0, *selected]}  # line 9
    weights = {near[k]: v / sum(inverse.values()) for k, v in inverse.items()}
    return [sum(w * values[i][c] for i, w in weights.items()) for c in range(d)], len(weights), near[0]


@settings(max_examples=60)
@given(
    m=st.integers(1, 25),
    d=st.integers(1, 6),
    seed=st.integers(0, 10**6),
    threshold=st.sampled_from([0.2, 0.5, 1.0, 1.5, 2.5, math.pi]),
)
def test_extension_is_algorithm_2(m, d, seed, threshold):
    problem = make_problem(BuiltIn("uniform"), 10 * randn(m, d, seed=seed) - 3)
    values = problem.y * problem.scale + problem.centre
    centroids = torch.rand(m, d, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    extension = Extension(problem.source, problem.y, values, centroids, threshold)
    x = problem.source.sample(40, d, seed=seed).double()
    points, kept, mask = extension(x)
    want = [algorithm_2(row, centroids.tolist(), problem.y.tolist(), values.tolist(), threshold) for row in x.tolist()]
    assert kept.tolist() == [i for i, w in enumerate(want) if w is not None]
    want = [w for w in want if w is not None]
    assert_close(points, torch.tensor([w[0] for w in want], dtype=torch.float64).view(-1, d), rtol=1e-9, atol=1e-9)
    assert mask.sum(1).tolist() == [w[1] for w in want]


def test_a_sample_on_a_centroid_gets_its_target():
    y, centroids = randn(9, 3), randn(9, 3, seed=1)
    extension = Extension(BuiltIn("normal"), y, 7 * y, centroids, math.pi)
    points, kept, mask = extension(centroids)
    assert_close(points, 7 * y)
    assert kept.tolist() == list(range(9))
    assert bool((mask.sum(1) == 4).all())


@pytest.mark.parametrize("threshold", [0.4, 1.0, "auto", math.pi])
def test_what_sampling_says_of_itself_is_true(fitted, threshold):
    points, info = fitted.sample(3000, threshold, seed=17, return_info=True)
    assert torch.equal(points, fitted.sample(3000, threshold, seed=17))
    assert points.shape == info.x.shape == (3000, 3)
    assert points.dtype == info.x.dtype == torch.float64
    assert info.threshold == (fitted.singular_set().threshold if threshold == "auto" else threshold)
    weighted = (fitted.weights_ > 0) & (torch.arange(60) < 50)  # the first of every distinct target
    rows = torch.nonzero(weighted)[:, 0]
    centroids, values = fitted.centroids_[weighted], fitted.targets_[weighted]
    mean = fitted.weights_ @ fitted.targets_
    variance = float((fitted.weights_[:, None] * (fitted.targets_ - mean).square()).sum()) / 3
    scaled = (values - mean) / math.sqrt(variance)
    for i in range(0, 3000, 60):
        want = algorithm_2(info.x[i].tolist(), centroids.tolist(), scaled.tolist(), values.tolist(), info.threshold)
        assert want is not None
        assert_close(points[i], torch.tensor(want[0], dtype=torch.float64))
        assert info.blended[i] == want[1]
        assert info.targets[i] == rows[want[2]]
    assert int(info.blended.min()) >= 2
    assert int(info.blended.max()) <= 4
    x = randn(4000, 3, seed=99)  # the share that other samples of the source lose
    abandoned = [
        algorithm_2(row, centroids.tolist(), scaled.tolist(), values.tolist(), info.threshold) is None
        for row in x[:1500].tolist()
    ]
    assert info.rejected == pytest.approx(sum(abandoned) / 1500, abs=0.06)


def test_threshold_from_too_small_to_large(fitted):
    with pytest.raises(ValueError, match=r"^sample: angle_threshold 1e-06 rejects 100.00% of the samples[^\n]*$"):
        fitted.sample(10, 1e-6)
    shares = [fitted.sample(100, t, return_info=True)[1].rejected for t in (0.15, 0.3, 0.6, 1.2, math.pi)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.5
    assert shares[-1] == 0
    assert bool((fitted.sample(500, math.pi, return_info=True)[1].blended == 4).all())


def test_generated_points_are_new_and_lie_among_the_targets(fitted):
    points = fitted.sample(2000)
    distance = torch.cdist(points, fitted.targets_).min(dim=1).values
    assert float((distance > 1e-6).double().mean()) > 0.99
    lo, hi = fitted.targets_.min(0).values, fitted.targets_.max(0).values
    assert bool(((points >= lo) & (points <= hi)).all())


def test_nothing_is_generated_between_modes():
    """At a threshold below the angle between two clusters, every point lies in the hull of one of them."""
    side = torch.arange(200) % 2
    y = 0.2 * randn(200, 2) + 20.0 * side[:, None]
    ot = SemiDiscreteOT(progress=False).fit(y)
    first = ot.sample(2000, 0.9)[:, 0]
    assert not bool(((first > 2) & (first < 18)).any())
    assert float((first > 10).double().mean()) == pytest.approx(0.5, abs=0.08)
    mixed = ot.sample(2000, math.pi)[:, 0]
    assert bool(((mixed > 2) & (mixed < 18)).any())


def test_generation_moves_with_the_targets():
    y = randn(50, 2)
    plain = SemiDiscreteOT(progress=False).fit(y).sample(300, 0.7, return_info=True)
    moved = SemiDiscreteOT(progress=False).fit(1e3 * y + 1e6).sample(300, 0.7, return_info=True)
    assert_close((moved[0] - 1e6) / 1e3, plain[0], rtol=0, atol=1e-6)
    assert moved[1].rejected == plain[1].rejected
    assert torch.equal(moved[1].blended, plain[1].blended)


def test_seeds_of_generation(fitted):
    assert torch.equal(fitted.sample(50), fitted.sample(50, seed=3))  # the fit's seed
    assert not torch.equal(fitted.sample(50), fitted.sample(50, seed=4))
    assert torch.equal(fitted.sample(50, seed=4)[:20], fitted.sample(20, seed=4))


def test_no_sample_is_drawn_twice(fitted, seed):
    points, info = fitted.sample(2000, 0.15, seed=seed, return_info=True)
    assert info.rejected > 0.5  # of twice as many as wanted, so that they were drawn in more than one piece
    assert len(info.x.unique(dim=0)) == len(points.unique(dim=0)) == 2000


@pytest.mark.parametrize("m", [1, 2])
def test_one_and_two_targets(m):
    y = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]], dtype=torch.float64)[:m]
    ot = SemiDiscreteOT(progress=False).fit(y)
    points, info = ot.sample(200, math.pi, return_info=True)
    assert bool((info.blended == m).all())
    if m == 1:
        assert torch.equal(points, y.expand(200, 3))
        assert torch.equal(ot.sample(10), y.expand(10, 3))
        assert ot.singular_set().pairs.shape == (0, 2)
    else:
        t = (points - y[0])[:, 0] / 4
        assert_close(points, y[0] + t[:, None] * (y[1] - y[0]))
        assert bool(((t > 0) & (t < 1)).all())


def test_generated_points_have_the_spread_of_the_targets():
    """In one dimension the extension interpolates: quantiles of the generated points are those of the targets."""
    y = randn(300, 1)
    points = SemiDiscreteOT(tol=0.005, progress=False).fit(y).sample(20_000, math.pi)[:, 0]
    q = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    assert_close(points.quantile(q), y[:, 0].quantile(q), rtol=0, atol=0.15)


def test_extending_given_samples_is_what_sampling_does(fitted):
    points, info = fitted.sample(300, 1.0, seed=5, return_info=True)
    assert_close(fitted.extend(info.x, 1.0), points)
    x = randn(2000, 3, seed=6)
    few = fitted.extend(x, 0.5)
    abandoned = few.isnan().any(1)
    assert 0.01 < abandoned.double().mean() < 0.99
    assert bool(few[abandoned].isnan().all())
    with pytest.raises(ValueError, match=r"^x must have shape \(n, 3\) to match the targets, got \(4, 2\)"):
        fitted.extend(torch.zeros(4, 2))


def test_neighbours_are_gathered_a_few_samples_at_a_time(fitted, monkeypatch):
    x = randn(500, 3, seed=6)
    whole = fitted.extend(x, 1.0)
    monkeypatch.setattr("otgen.ot.maps.GATHERED", 100)
    assert_close(fitted.extend(x, 1.0), whole, equal_nan=True)
    monkeypatch.setattr("otgen.ot.maps.GATHERED", 1)
    assert_close(fitted.extend(x[:20], 1.0), whole[:20], equal_nan=True)


@pytest.mark.parametrize("source", ["uniform", "normal"])
def test_targets_without_weight_win_nowhere_however_far_out(source):
    y, nu = randn(40, 2), torch.ones(40)
    y[:5], nu[:5] = 20 * y[:5], 0
    ot = fit(y, nu, source=source)
    x = 1e6 * randn(500, 2, seed=3)
    assert int(ot.assign(x).min()) >= 5
    assert_close(ot.potential(x), (x @ y[5:].T + ot.heights_[5:]).amax(1))
    assert torch.equal(ot.transport(x), y[ot.assign(x)])


def test_no_samples_have_no_cells(fitted):
    none = torch.empty(0, 3)
    assert fitted.assign(none).shape == (0,)
    assert fitted.transport(none).shape == fitted.extend(none).shape == (0, 3)


@pytest.mark.parametrize("seed", [-1, 1.5, "a", 2**70])
def test_bad_seeds_are_refused(fitted, seed):
    for call in (fitted.sample, fitted.cost):
        with pytest.raises(ValueError, match=r"seed must be an int in \[0, 2\^63\), got"):
            call(10, seed=seed)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3", None])
def test_bad_number_of_points_is_refused(fitted, n):
    with pytest.raises(ValueError, match=r"^sample: n must be an int in \[1, 2\^63\), got [^\n]*$"):
        fitted.sample(n)


@pytest.mark.parametrize("threshold", [0, -1.0, 4.0, math.nan, math.inf, "large", None, True, torch.tensor(1.0)])
def test_bad_threshold_is_refused(fitted, threshold):
    for call in (lambda: fitted.sample(5, threshold), lambda: fitted.singular_set(threshold)):
        with pytest.raises(ValueError, match=r'^angle_threshold must be "auto" or an angle in \(0, pi\], got [^\n]*$'):
            call()


# --- cost ------------------------------------------------------------------------------------------------------------


def covers(interval, truth, widen=2.0):
    middle, half = (interval[0] + interval[1]) / 2, (interval[1] - interval[0]) / 2
    return abs(truth - middle) <= widen * half


@pytest.mark.parametrize("d", [1, 3, 20])
def test_cost_from_the_cube_to_its_middle(d):
    ot = SemiDiscreteOT(progress=False).fit(torch.full((1, d), 0.5))
    cost, interval = ot.cost()
    assert interval[0] < cost < interval[1]
    assert covers(interval, d / 12)
    assert interval[1] - interval[0] < 0.01 * d


def test_cost_to_two_targets():
    y, nu = torch.tensor([[2.0, 0.0, 1.0], [-1.0, 3.0, 0.0]]), torch.tensor([0.8, 0.2])
    ot = SemiDiscreteOT("normal", tol=1e-4, progress=False).fit(y, nu)
    cost, interval = ot.cost(400_000)
    assert covers(interval, oracles.two_cost_normal(y, nu), widen=3.0)
    assert interval[1] - interval[0] < 0.02 * cost


def test_cost_on_a_line():
    y, nu = torch.tensor([[-1.0], [0.3], [0.4], [2.0]]), torch.tensor([0.1, 0.5, 0.2, 0.2]).double()
    ot = SemiDiscreteOT(tol=1e-4, progress=False).fit(y, nu)
    assert covers(ot.cost(200_000)[1], oracles.cost_1d(y, nu), widen=3.0)


def test_interval_of_the_cost_is_one_of_95_percent():
    ot = SemiDiscreteOT(progress=False).fit(torch.full((1, 2), 0.5))
    hits = sum(low <= 1 / 6 <= high for low, high in (ot.cost(300, seed=s)[1] for s in range(400)))
    assert 360 <= hits <= 394


def test_cost_is_a_function_of_its_seed(fitted):
    assert fitted.cost(1000) == fitted.cost(1000, seed=3)
    assert fitted.cost(1000) != fitted.cost(1000, seed=4)


@pytest.mark.parametrize("away", [1e4, 1e8, 1e10])
def test_interval_of_a_cost_far_away(away):
    """The standard deviation of |x - y|^2 is there 2 |y| times that of a coordinate; its square would cancel."""
    cost, (low, high) = SemiDiscreteOT(progress=False).fit(torch.full((1, 2), away, dtype=torch.float64)).cost(1000)
    assert_close(cost, 2 * away**2, rtol=1e-3, atol=0)
    assert_close(high - low, 2 * 1.96 * 2 * away * (2 / 12) ** 0.5 / 1000**0.5, rtol=0.1, atol=0)


def test_cost_of_any_scale():
    """Squares of costs would leave float64's range; the source is nothing beside such targets."""
    small, large = (SemiDiscreteOT(progress=False).fit(scale * randn(20, 2)).cost(1000) for scale in (1e60, 1e140))
    assert_close(large[0] / small[0], 1e160, rtol=1e-9, atol=0)
    assert_close((large[1][1] - large[1][0]) / (small[1][1] - small[1][0]), 1e160, rtol=1e-9, atol=0)


@pytest.mark.parametrize("n", [1, 0, 2.5, "10"])
def test_bad_number_of_samples_is_refused(fitted, n):
    with pytest.raises(ValueError, match=r"^cost: n must be an int in \[2, 2\^63\), got [^\n]*$"):
        fitted.cost(n)
