import math
import sys

import numpy as np
import pytest
import torch
from draws import normal, spread_is_honest
from oracles import two_cost_normal
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance

from otgen import SemiDiscreteOT
from otgen.metrics import Score, exact_wasserstein, semi_discrete_wasserstein, sliced_wasserstein, wasserstein_1d


@pytest.mark.parametrize(("n", "m"), [(30, 30), (30, 47), (11, 40)])
def test_on_the_line_scipy_and_pot_agree(n, m):
    pot = pytest.importorskip("ot")
    x, y = normal(n, seed=1), 2 * normal(m, seed=2) + 1
    assert wasserstein_1d(x, y).value == pytest.approx(wasserstein_distance(x.numpy(), y.numpy()), rel=1e-12)
    want = pot.emd2_1d(x.numpy(), y.numpy()) ** 0.5
    assert wasserstein_1d(x, y, p=2).value == pytest.approx(float(want), rel=1e-9)


def test_on_the_line_normals_have_a_closed_form(seed):
    x, y = normal(5000, seed=seed), 2 * normal(5000, seed=1000 + seed) + 1
    score = wasserstein_1d(x, y, p=2)
    assert abs(score.value - math.sqrt(2)) < 6 * score.spread + 0.01  # (m1 - m2)^2 + (s1 - s2)^2 = 2
    assert 0.005 < score.spread < 0.1


def test_the_spread_on_the_line_is_honest():
    scores = [wasserstein_1d(normal(200, seed=s), normal(200, seed=500 + s, shift=1.0)) for s in range(60)]
    spread_is_honest([s.value for s in scores], [s.spread for s in scores])


def test_exact_is_exact_where_the_plan_is_known():
    x = normal(60, 5)
    shift = torch.tensor([3.0, 0, 0, 4.0, 0], dtype=torch.float64)
    score = exact_wasserstein(x, (x + shift)[torch.randperm(60)])
    assert score.value == pytest.approx(5.0)  # a shift is the gradient of a convex function
    assert exact_wasserstein(x, x.flip(0)).value == pytest.approx(0, abs=1e-9)
    assert exact_wasserstein(x, x.flip(0)).spread == 0


@pytest.mark.parametrize("unit", [1e-8, 1e80])
@pytest.mark.parametrize("p", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("distance", [wasserstein_1d, sliced_wasserstein, exact_wasserstein])
def test_units_do_not_matter(distance, p, unit):
    """Tolerances of the solver are absolute, and powers of large or small numbers leave what a float can hold."""
    shape = (60,) if distance is wasserstein_1d else (60, 3)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    y = 2 * torch.randn(*shape, generator=generator, dtype=torch.float64)[:50] + 1
    one, scaled = distance(x, y, p), distance(unit * x, unit * y, p)
    assert scaled.value / unit == pytest.approx(one.value, rel=1e-9)
    assert scaled.spread / unit == pytest.approx(one.spread, rel=1e-6)
    if distance is exact_wasserstein:
        assert distance(unit * x, unit * (x + 1), p).value / unit == pytest.approx(math.sqrt(3), rel=1e-9)


def test_exact_agrees_with_the_line():
    x, y = normal(40, 1, seed=1), normal(33, 1, seed=2, shift=0.7)
    for p in (1.0, 2.0, 3.0):
        assert exact_wasserstein(x, y, p).value == pytest.approx(wasserstein_1d(x[:, 0], y[:, 0], p).value, rel=1e-9)


def test_the_spread_to_a_point_has_a_closed_form():
    x, point = normal(50, 3), torch.zeros(40, 3)
    squares = x.square().sum(1)
    want = float(squares.std()) / math.sqrt(50) / (2 * math.sqrt(float(squares.mean())))
    for score in (exact_wasserstein(x, point), exact_wasserstein(point, x)):
        assert score.value == pytest.approx(math.sqrt(float(squares.mean())))
        assert score.spread == pytest.approx(want)


def test_the_spread_of_the_exact_distance_is_honest():
    scores = [exact_wasserstein(normal(80, 2, seed=s), normal(80, 2, seed=500 + s, shift=1.0)) for s in range(60)]
    spread_is_honest([s.value for s in scores], [s.spread for s in scores])


def test_sliced_of_a_shift_and_against_pot():
    x = normal(500, 8)
    shift = torch.full((8,), 1.0, dtype=torch.float64)
    score = sliced_wasserstein(x, x + shift, directions=1000)
    truth = float(shift.norm()) / math.sqrt(8)
    assert abs(score.value - truth) < 4 * score.spread
    assert score.spread < 0.05 * truth
    assert sliced_wasserstein(x, x) == Score(0.0, 0.0, 500)
    pot = pytest.importorskip("ot")
    y = 2 * normal(300, 8, seed=3)
    v = np.random.default_rng(0).normal(size=(8, 1000))
    want = pot.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=v / np.linalg.norm(v, axis=0))
    assert sliced_wasserstein(x, y, directions=1000).value == pytest.approx(float(want), rel=0.03)


def test_sliced_far_from_the_origin_and_of_one_point():
    x, y = (v.bfloat16().double() for v in (normal(50, 4).clamp_min(0.01), normal(40, 4, seed=1).clamp_min(0.01)))
    far = 2.0**36  # beside which such short numbers keep all digits
    assert sliced_wasserstein(x + far, y + far).value == pytest.approx(sliced_wasserstein(x, y).value, rel=1e-9)
    for metric in (sliced_wasserstein, exact_wasserstein):
        score = metric(torch.ones(10, 2), torch.ones(12, 2))
        assert (score.value, score.spread, score.n) == (0, 0, 10)
    with pytest.raises(ValueError, match="directions must be at least 2, got 1"):
        sliced_wasserstein(x, y, directions=1)


@pytest.mark.parametrize("p", [1.0, 3.0])
def test_the_spread_of_directions_is_honest(p):
    """They are all that differs between calls, and two points have no spread of their own."""
    scores = [sliced_wasserstein(torch.zeros(10, 3), torch.ones(10, 3), p, directions=50, seed=s) for s in range(100)]
    spread_is_honest([s.value for s in scores], [s.spread for s in scores], 0.75, 1.35)


def test_sliced_in_parts(monkeypatch):
    x, y = normal(50, 4), normal(40, 4, seed=1)
    whole = sliced_wasserstein(x, y)
    monkeypatch.setattr(sys.modules["otgen.metrics.wasserstein"], "ROWS", 300)
    assert sliced_wasserstein(x, y).value == pytest.approx(whole.value, rel=1e-12)
    assert sliced_wasserstein(x, y).spread == pytest.approx(whole.spread, rel=1e-6)


def test_semi_discrete_on_the_line_has_a_closed_form():
    # uniform on [0, 1] to the middles of m equal pieces: W2^2 = 1/(12 m^2)
    m = 20
    y = (torch.arange(m, dtype=torch.float64) + 0.5)[:, None] / m
    result = semi_discrete_wasserstein(y, "uniform")
    assert result.low - 1e-4 <= 1 / (math.sqrt(12) * m) <= result.high + 1e-4
    assert result.distance.value == pytest.approx(1 / (math.sqrt(12) * m), rel=0.02)
    assert result.converged


def test_semi_discrete_takes_its_samples_and_says_what_was_not_certified():
    few, many = (semi_discrete_wasserstein(normal(20, 2), n=n).distance for n in (1000, 100_000))
    assert few.spread == pytest.approx(10 * many.spread, rel=0.3)
    assert not semi_discrete_wasserstein(normal(20, 1), n=1000, tol=1e-90).converged  # and no warning, as this says it


def test_semi_discrete_from_the_normal_source(seed):
    y = torch.tensor([[1.0, 0, 0], [-2.0, 1, 0]], dtype=torch.float64)
    nu = torch.tensor([0.3, 0.7], dtype=torch.float64)
    truth = math.sqrt(two_cost_normal(y, nu))
    result = semi_discrete_wasserstein(y, "normal", weights=nu, tol=1e-4, seed=seed)
    assert result.distance.value == pytest.approx(truth, rel=0.02)
    assert result.low - 0.01 < truth < result.high + 0.01
    assert 0.001 < result.distance.spread < 0.01


def test_the_spread_of_the_semi_discrete_distance_is_honest():
    y = normal(20, 2)
    scores = [semi_discrete_wasserstein(y, n=500, seed=s).distance for s in range(60)]
    spread_is_honest([s.value for s in scores], [s.spread for s in scores], 0.75, 1.35)


@pytest.mark.parametrize("tol", [0.5, 0.02])
def test_the_distance_is_that_of_a_map_with_the_settings_given(tol):
    y, weights = normal(200, 5), torch.linspace(0.5, 1.5, 200, dtype=torch.float64) / 200
    ot = SemiDiscreteOT("normal", tol=tol, seed=3, progress=False).fit(y, weights)
    result = semi_discrete_wasserstein(y, weights=weights, tol=tol, n=1000, seed=3)
    assert result.distance.value == pytest.approx(math.sqrt(ot.cost(1000)[0]))


def test_bad_input(monkeypatch):
    with pytest.raises(ValueError, match="p must be at least 1, got 0.5"):
        wasserstein_1d(normal(20), normal(20), p=0.5)
    with pytest.raises(ValueError, match=r"x must have shape \(n,\), got \(20, 2\)"):
        wasserstein_1d(normal(20, 2), normal(20))
    monkeypatch.setattr(sys.modules["otgen.metrics.wasserstein"], "MOST", 10)
    with pytest.raises(ValueError, match="samples must be at most 10, got 20 and 5"):
        exact_wasserstein(normal(20, 2), normal(5, 2))


def test_without_pot_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match=r'wanted POT, which is not installed: pip install "otgen\[pot]"'):
        exact_wasserstein(normal(20, 2), normal(20, 2))


def test_what_is_no_tensor_is_refused_by_name():
    with pytest.raises(TypeError, match="wasserstein_1d: x must be a torch.Tensor, got list"):
        wasserstein_1d([1.0, 2.0], torch.zeros(20))


@pytest.mark.parametrize("p", [1, 2, 7.5, 50, 400, 1e4])
@pytest.mark.parametrize("shift", [0.1, 1e-7])
def test_a_shift_is_as_far_in_every_order(p, shift):
    x = normal(50, 1, seed=1)[:, 0]
    assert wasserstein_1d(x, x + shift, p).value == pytest.approx(shift, rel=1e-6)
    assert wasserstein_1d(x, (x + shift).repeat(2), p).value == pytest.approx(shift, rel=1e-6)
    sliced = sliced_wasserstein(normal(50, 2), normal(50, 2) + shift, p, directions=50)
    assert 0.85 * shift < sliced.value < math.sqrt(2) * shift


def test_exact_distances_of_high_orders_are_those_of_the_best_assignment():
    x, y = normal(40, 2, seed=1), normal(40, 2, seed=2)
    for p in (1, 3, 10):
        cost = torch.cdist(x, y) ** p
        rows, columns = linear_sum_assignment(cost.numpy())
        truth = float(cost[rows, columns].mean()) ** (1 / p)
        assert exact_wasserstein(x, y, p).value == pytest.approx(truth, rel=1e-6)
    with pytest.raises(ValueError, match="exact_wasserstein: p must be at most 10, got 20"):
        exact_wasserstein(x, y, 20)
