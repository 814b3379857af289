"""The map between targets: Algorithm 2 of the lecture."""

import io
import math

import pytest
import torch
from draws import randn
from fits import fit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from tqdm import tqdm

from otgen import bars
from otgen.ot import SemiDiscreteOT, maps
from otgen.ot.maps import Extension, plane_angles
from otgen.ot.problem import make_problem
from otgen.ot.sources import BuiltIn


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
    points, kept, _, mask = extension(x)
    want = [algorithm_2(row, centroids.tolist(), problem.y.tolist(), values.tolist(), threshold) for row in x.tolist()]
    assert kept.tolist() == [i for i, w in enumerate(want) if w is not None]
    want = [w for w in want if w is not None]
    assert_close(points, torch.tensor([w[0] for w in want], dtype=torch.float64).view(-1, d), rtol=1e-9, atol=1e-9)
    assert mask.sum(1).tolist() == [w[1] for w in want]


def test_a_sample_on_a_centroid_gets_its_target():
    y, centroids = randn(9, 3), randn(9, 3, seed=1)
    extension = Extension(BuiltIn("normal"), y, 7 * y, centroids, math.pi)
    points, kept, _, mask = extension(centroids)
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


def test_targets_far_from_their_neighbours_come_less_often(seed):
    """And most angles of all facets are above the median over samples."""
    y = randn(200, 2, seed=seed)
    ot = SemiDiscreteOT("normal", progress=False).fit(y)
    apart = torch.cdist(y, y).fill_diagonal_(math.inf).amin(1)
    far = apart > apart.median()
    auto = ot.singular_set().threshold
    infos = [ot.sample(4000, threshold, return_info=True)[1] for threshold in (auto / 2, auto, math.pi)]
    small, middle, large = (float(far[info.targets].double().mean()) for info in infos)
    assert small + 0.05 < middle < large - 0.05
    assert large == pytest.approx(0.5, abs=0.06)
    assert float((ot.singular_set(1e-9).angles > auto).double().mean()) > 0.6


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


def test_a_threshold_may_be_a_tensor_of_one_number(fitted):
    angle = fitted.singular_set(1e-9).angles.quantile(0.9)
    assert torch.equal(fitted.sample(50, angle), fitted.sample(50, float(angle)))


BAD = [0, -1.0, 4.0, math.nan, math.inf, "large", None, True, torch.ones(1), torch.tensor(4.0)]


@pytest.mark.parametrize("threshold", BAD)
def test_bad_threshold_is_refused(fitted, threshold):
    for call in (lambda: fitted.sample(5, threshold), lambda: fitted.singular_set(threshold)):
        with pytest.raises(ValueError, match=r'^angle_threshold must be "auto" or an angle in \(0, pi\], got [^\n]*$'):
            call()


@pytest.mark.parametrize("corners", [4, 6, 8, 9, 12])
def test_angles_that_are_alike_are_all_within_the_automatic_threshold(corners):
    for turn in range(11):
        t = 2 * math.pi * torch.arange(corners, dtype=torch.float64) / corners + turn / 10
        ot = SemiDiscreteOT("normal", progress=False).fit(torch.stack([t.cos(), t.sin()], dim=1))
        points, info = ot.sample(1000, return_info=True)
        assert info.rejected == 0
        assert info.targets.unique().numel() == corners
        assert len(points) == 1000


def test_generation_knows_jumps_however_far_away_one_target_lies():
    rejected = []
    for away in (1e4, 1e6, 1e10):
        ot = SemiDiscreteOT(progress=False).fit(torch.cat([randn(100, 2), torch.tensor([[away, 0.0]])]))
        rejected.append(ot.sample(2000, return_info=True)[1].rejected)
    assert max(rejected) - min(rejected) < 0.02


def test_numbers_of_gathered_neighbours_are_bounded(fitted, monkeypatch):
    most, within = 0, maps.Planes.within

    def spy(planes, near, threshold):
        nonlocal most
        most = max(most, near.numel() * planes.y.shape[1])
        return within(planes, near, threshold)

    monkeypatch.setattr(maps, "GATHERED", 600)
    monkeypatch.setattr(maps.Planes, "within", spy)
    fitted.extend(randn(500, 3, seed=1))
    assert 0 < most <= 600


def test_targets_are_paired_some_at_a_time(monkeypatch):
    """For the threshold those that samples find, for the singular set those that rays do."""
    ot, sizes = fit(randn(30, 6), tol=0.5), []
    every = ot.singular_set(1e-9)

    def spy(y, i, j):
        sizes.append(len(i))
        return plane_angles(y, i, j)

    monkeypatch.setattr(maps, "PAIRED", 600)
    monkeypatch.setattr(maps, "plane_angles", spy)
    assert_close(ot.singular_set(1e-9).angles, every.angles)
    before = len(sizes)
    assert ot.sample(5).shape == (5, 6)
    assert max(sizes[:before]) == max(sizes[before:]) == 100


def test_what_may_last_is_counted_in_a_bar(monkeypatch):
    shown, hidden = [], []

    def spy(**settings):
        hidden.append(settings["disable"])
        shown.append(tqdm(**settings | {"delay": 0, "file": io.StringIO()}))
        return shown[-1]

    ot = fit(randn(30, 4))
    monkeypatch.setattr(bars, "Bar", spy)
    for ot.progress in (True, False):
        ot._median_angle = None
        ot.sample(500), ot.singular_set(), ot.cost(70_000), ot.certificate(5000)
    counts = {"neighbours": 10_000, "sample": 500, "rays": 10_000, "cost": 70_000, "certificate": 5000}
    assert {bar.desc: bar.total for bar in shown[:5]} == counts
    assert {bar.desc: bar.n for bar in shown[:5] if bar.n} == {
        name: counts[name] for name in ("sample", "rays", "cost")
    }
    assert hidden == [False] * 5 + [True] * 5
