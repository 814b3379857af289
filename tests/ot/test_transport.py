"""The hard map and its cost."""

import math

import oracles
import pytest
import torch
from draws import rand, randn
from torch.testing import assert_close

from otgen.ot import SemiDiscreteOT

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
    """The means' distance is known, so the interval is that of |x - E x|^2, whose variance is 1/180 a coordinate."""
    cost, (low, high) = SemiDiscreteOT(progress=False).fit(torch.full((1, 2), away, dtype=torch.float64)).cost(1000)
    width = 2 * 1.96 * (2 / 180 / 1000) ** 0.5
    assert_close(cost, 2 * (away - 0.5) ** 2 + 1 / 6, rtol=1e-15, atol=width)
    assert_close(high - low, width, rtol=0.1, atol=2**-52 * 2 * away**2)


def test_cost_of_any_scale():
    """The source is nothing beside such targets, whose squares are known."""
    y = randn(20, 2)
    for scale in (1e60, 1e140):
        cost, (low, high) = SemiDiscreteOT(progress=False).fit(scale * y).cost(1000)
        assert_close(cost / scale / scale, float(y.square().sum(1).mean()), rtol=1e-9, atol=0)
        assert low <= cost <= high < (1 + 1e-9) * cost


@pytest.mark.parametrize("n", [1, 0, 2.5, "10"])
def test_bad_number_of_samples_is_refused(fitted, n):
    with pytest.raises(ValueError, match=r"^cost: n must be an int in \[2, 2\^63\), got [^\n]*$"):
        fitted.cost(n)


# --- far from the origin ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["uniform", "shifted"])
def test_the_map_is_the_certified_one_however_far_targets_lie(source):
    """Of equal weights on a line the k-th smallest target has the k-th part of the source."""
    m, shift = 3000, {"uniform": 0.0, "shifted": 1e5}[source]

    def shifted(n, generator):
        return torch.rand(n, 1, generator=generator, dtype=torch.float64) + shift

    y = rand(m) + (1.7e9 if source == "uniform" else 1e5)
    ot = SemiDiscreteOT(source if source == "uniform" else shifted, tol=0.003, progress=False).fit(y)
    assert ot.converged_
    x = shifted(200_000, torch.Generator().manual_seed(1))
    counts = torch.bincount(ot.assign(x), minlength=m).double()
    assert float(((counts / len(x) - 1 / m).square() * m).sum()) < 0.003 + 2 * m / len(x)
    if source == "uniform":
        right = y.argsort()[((x[:, 0]) * m).long()]
        assert float((ot.assign(x) == right).double().mean()) > 0.999
        assert_close(ot.potential(x), (x * y[right, None])[:, 0] + ot.heights_[right], rtol=1e-15, atol=0)


@pytest.mark.parametrize("away", [1e10, 1e20, 3.4e38, 1e140])
@pytest.mark.parametrize("source", ["uniform", "normal"])
def test_a_target_without_weight_takes_no_digits_from_the_others(source, away):
    """Such as rows of padding."""
    y = randn(100, 2)
    plain = SemiDiscreteOT(source, progress=False).fit(y)
    weights = torch.ones(102)
    weights[[0, 101]] = 0
    padded = torch.cat(
        [torch.full((1, 2), away, dtype=torch.float64), y, torch.full((1, 2), -away, dtype=torch.float64)]
    )
    ot = SemiDiscreteOT(source, progress=False).fit(padded, weights)
    x = randn(5000, 2, seed=1)
    assert torch.equal(ot.assign(x) - 1, plain.assign(x))
    assert_close(ot.heights_[1:-1], plain.heights_, rtol=0, atol=1e-9)
    assert ot.certificate(100_000, heights=ot.heights_).chi2 < 0.01
    assert ot.cost()[0] == pytest.approx(plain.cost()[0])
