import math
import sys

import pytest
import torch
from draws import kid_by_definition, normal, spread_is_honest

from otgen.metrics import kid


def test_it_is_the_unbiased_estimate():
    x, y = normal(40, 5, seed=1), normal(23, 5, seed=2, shift=0.3)
    score = kid(x, y)
    assert score.value == pytest.approx(kid_by_definition(x, y), rel=1e-12)
    assert (score.n, score.bias) == (23, 0.0)


def test_it_is_the_jackknife():
    x, y = normal(12, 3, seed=1), normal(9, 3, seed=2, shift=0.5)
    without_x = torch.tensor([kid_by_definition(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(12)])
    without_y = torch.tensor([kid_by_definition(x, torch.cat([y[:i], y[i + 1 :]])) for i in range(9)])
    variance = 11 * without_x.double().var(correction=0) + 8 * without_y.double().var(correction=0)
    assert kid(x, y).spread == pytest.approx(math.sqrt(float(variance)), rel=1e-5)


def test_many_rows_at_a_time_or_few(monkeypatch):
    x, y = normal(40, 5, seed=1), normal(23, 5, seed=2)
    whole = kid(x, y)
    monkeypatch.setattr(sys.modules["otgen.metrics.kid"], "ENTRIES", 100)
    assert kid(x, y).value == pytest.approx(whole.value, rel=1e-12, abs=1e-14)
    assert kid(x, y).spread == pytest.approx(whole.spread, rel=1e-12)


def test_equal_distributions_score_zero_on_average():
    scores = [kid(normal(100, 4, seed=s), normal(100, 4, seed=1000 + s)) for s in range(200)]
    values = torch.tensor([s.value for s in scores])
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(200)
    assert float((values < 0).double().mean()) > 0.3
    spread_is_honest(values.tolist(), [s.spread for s in scores], 0.9, 2.2)  # cautious where there is no difference


def test_the_spread_is_honest_where_there_is_a_difference():
    scores = [kid(normal(150, 4, seed=s), normal(150, 4, seed=1000 + s, shift=0.5)) for s in range(100)]
    spread_is_honest([s.value for s in scores], [s.spread for s in scores], 0.75, 1.35)


def test_point_masses_have_a_closed_form():
    # kernel of constant vectors c: (c^2 + 1)^3
    score = kid(torch.zeros(5, 3), torch.ones(4, 3))
    assert score.value == pytest.approx(1 + 8 - 2)
    assert score.spread == pytest.approx(0, abs=1e-9)


def test_torchmetrics_agrees():
    image = pytest.importorskip("torchmetrics.image.kid")
    x, y = normal(60, 5, seed=1), normal(60, 5, seed=2, shift=0.4)
    assert float(image.poly_mmd(x, y)) == pytest.approx(kid(x, y).value, rel=1e-9)


def test_three_samples_are_needed():
    with pytest.raises(ValueError, match="kid: x must have shape .* n >= 3"):
        kid(torch.zeros(2, 3), torch.zeros(9, 3))
