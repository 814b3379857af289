import math
import re

import pytest
import torch
from draws import gaussian, normal, spread_is_honest
from torch.testing import assert_close

from otgen.metrics import fid, frechet, kid
from otgen.metrics.fid import moments

D = 6


def spd(seed, scale=1.0):
    root = normal(D, D, seed=seed) * scale
    return root @ root.T


def test_commuting_covariances_have_a_closed_form():
    a, b = normal(D, seed=1).exp(), normal(D, seed=2).exp()
    rotation = torch.linalg.qr(normal(D, D, seed=3)).Q
    m1, m2 = normal(D, seed=4), normal(D, seed=5)
    got = frechet(m1, rotation * a @ rotation.T, m2, rotation * b @ rotation.T)
    assert_close(got, (m1 - m2).square().sum() + (a.sqrt() - b.sqrt()).square().sum())


def test_general_covariances_agree_with_the_eigenvalues_of_the_product():
    s1, s2, zero = spd(1), spd(2, 3.0), torch.zeros(D, dtype=torch.float64)
    roots = torch.linalg.eigvals(s1 @ s2).real.sqrt().sum()  # fine for six well-conditioned dimensions
    assert_close(frechet(zero, s1, zero, s2), s1.trace() + s2.trace() - 2 * roots, rtol=1e-9, atol=1e-9)


def test_equal_and_singular_covariances():
    flat = torch.zeros(D, D, dtype=torch.float64)
    flat[0, 0] = 4.0
    mean = normal(D)
    assert float(frechet(mean, flat, mean, flat)) == pytest.approx(0, abs=1e-12)
    assert float(frechet(mean, spd(1), mean, spd(1))) == pytest.approx(0, abs=1e-10)
    assert float(frechet(mean, flat, mean, 0 * flat)) == pytest.approx(4.0)
    assert float(frechet(mean, flat, mean + 1, flat)) == pytest.approx(D)


def test_the_distance_of_equal_covariances_is_never_negative(seed):
    mean = normal(D)
    assert float(frechet(mean, spd(seed), mean, spd(seed))) >= 0


def test_moments():
    x = normal(50, D)
    assert_close(moments(x), (x.mean(0), x.T.cov()))


def test_samples_reach_the_distance_of_their_distributions(seed):
    m1, m2 = torch.zeros(D, dtype=torch.float64), torch.full((D,), 0.5, dtype=torch.float64)
    r1, r2 = torch.eye(D, dtype=torch.float64), 1.5 * torch.eye(D, dtype=torch.float64)
    score = fid(gaussian(4000, m1, r1, seed), gaussian(4000, m2, r2, 1000 + seed))
    truth = 6 * (0.25 + 0.25)
    assert abs(score.value - score.bias - truth) < 6 * score.spread
    assert 0.02 < score.spread < 0.4
    assert score.n == 4000


def test_the_spread_is_honest_and_the_bias_is_found():
    shift = torch.full((D,), 0.5, dtype=torch.float64)
    scores = [fid(normal(300, D, seed=s), normal(300, D, seed=500 + s) + shift) for s in range(60)]
    spread_is_honest([s.value for s in scores], [s.spread for s in scores])
    value, bias = (sum(v) / 60 for v in ([s.value for s in scores], [s.bias for s in scores]))
    error = torch.tensor([s.value for s in scores]).std() / math.sqrt(60)
    assert bias > 0.02  # there is one: d(d + 7)/(4n)-like
    assert abs(value - bias - 6 * 0.25) < 4 * error
    assert value - 6 * 0.25 > 0.5 * bias


def test_float32_and_unequal_sizes():
    x, y = normal(100, D).float(), normal(80, D, seed=1).float()
    assert fid(x, y).n == 80
    assert fid(x, y).value == pytest.approx(fid(x.double(), y.double()).value, rel=1e-12)


def test_columns_must_agree():
    with pytest.raises(ValueError, match=r"fid: y must have shape \(n, 6\), got \(80, 3\)"):
        fid(normal(100, D), normal(80, 3))


def test_torchmetrics_agrees():
    image = pytest.importorskip("torchmetrics.image.fid")
    x, y = normal(200, D, seed=1), normal(150, D, seed=2) @ spd(3)
    assert float(image._compute_fid(*moments(x), *moments(y))) == pytest.approx(fid(x, y).value, rel=1e-9)


def test_halves_of_two_samples_have_no_covariance():
    with pytest.raises(ValueError, match=r"fid: x must have shape \(n, d\) with n >= 4"):
        fid(normal(3, 2), normal(3, 2), groups=2)
    assert fid(normal(4, 2), normal(4, 2, seed=1), groups=2).value > 0


@pytest.mark.parametrize(("metric", "largest"), [(fid, "1e+70"), (kid, "1e+45")])
def test_what_leaves_the_range_of_numbers_is_refused(metric, largest):
    x = normal(40, 3) * 1e100
    with pytest.raises(ValueError, match=re.escape(f"x must be at most {largest} for its powers to stay finite")):
        metric(x, x)
    assert math.isfinite(metric(x * (float(largest) / 1e101), normal(40, 3)).value)
