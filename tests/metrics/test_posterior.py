import math

import pytest
import torch
from draws import normal, spread_is_honest
from torch.testing import assert_close

from otgen.metrics import aggregate_posterior
from otgen.metrics.posterior import log_marginal


def test_log_marginal_is_the_mean_of_densities():
    z, mu, logvar = normal(30, 3, seed=1), 2 * normal(40, 3, seed=2), normal(40, 3, seed=3) - 2
    density = torch.distributions.Normal(mu, (0.5 * logvar).exp()).log_prob(z[:, None]).sum(2)
    assert_close(log_marginal(z, 0 * z, mu, logvar), density.logsumexp(1) - math.log(40), rtol=1e-9, atol=1e-9)
    half = log_marginal(0.5 * z, 0.5 * z, mu, logvar)
    assert_close(half, density.logsumexp(1) - math.log(40), rtol=1e-9, atol=1e-9)


def test_narrow_posteriors_lose_no_digits():
    mu = 3 * normal(50, 4)
    logvar = torch.full((50, 4), -10.0, dtype=torch.float64)
    z = mu + 0.003 * normal(50, 4, seed=1)
    density = torch.distributions.Normal(mu, (0.5 * logvar).exp()).log_prob(z[:, None]).sum(2)
    assert_close(log_marginal(z, 0 * z, mu, logvar), density.logsumexp(1) - math.log(50), rtol=1e-8, atol=1e-8)


def test_normal_codes_have_a_closed_form(seed):
    # mu ~ N(0, s2), variance v: q(z) is nearly N(0, s2 + v), so I = log(1 + s2/v)/2 for each dimension
    n, d, s2, v = 4000, 2, 1.5, 0.3
    mu = math.sqrt(s2) * normal(n, d, seed=seed)
    result = aggregate_posterior(mu, torch.full((n, d), math.log(v), dtype=torch.float64), seed=seed)
    information = d * 0.5 * math.log(1 + s2 / v)
    marginal = d * 0.5 * (s2 + v - 1 - math.log(s2 + v))
    assert abs(result.mutual_information.value - information) < 5 * result.mutual_information.spread + 0.01
    assert abs(result.marginal_kl.value - marginal) < 5 * result.marginal_kl.spread + 0.02
    assert not result.saturated
    assert result.elbo is None


def test_few_posteriors_leave_holes_in_codes_that_follow_the_prior(seed):
    # mu ~ N(0, 1 - v): the codes of all data are N(0, I), and the mean of n posteriors comes near it as n grows
    v = torch.full((1797, 10), 0.3, dtype=torch.float64)
    mu = (1 - v).sqrt() * normal(1797, 10, seed=seed)
    floor = aggregate_posterior(mu, v.log(), seed=seed).marginal_kl.value
    assert 0.35 < floor < 0.7
    assert aggregate_posterior(mu[:300], v[:300].log(), seed=seed).marginal_kl.value > floor + 0.3


def test_the_parts_add_up():
    mu, logvar = normal(100, 3), normal(100, 3, seed=1) - 1
    result = aggregate_posterior(mu, logvar, normal(100, seed=2) - 50, draws=3)
    whole = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
    assert result.mean_kl.value == pytest.approx(float(whole.mean()))
    parts = result.mutual_information.value + result.marginal_kl.value
    assert parts == pytest.approx(result.mean_kl.value, rel=1e-12)
    assert result.elbo.value == pytest.approx(float((normal(100, seed=2) - 50 - whole).mean()))


def test_a_collapsed_encoder_carries_nothing():
    result = aggregate_posterior(torch.zeros(200, 4), torch.zeros(200, 4))
    assert result.mean_kl.value == 0
    assert result.mutual_information.value == pytest.approx(0, abs=1e-12)
    assert result.marginal_kl.value == pytest.approx(0, abs=1e-12)


def test_posteriors_apart_saturate_at_log_n():
    result = aggregate_posterior(10 * normal(300, 5), torch.full((300, 5), -8.0, dtype=torch.float64), draws=3)
    assert result.saturated
    assert result.mutual_information.value == pytest.approx(math.log(300), abs=1e-6)
    assert result.mutual_information.spread == pytest.approx(0, abs=1e-6)
    assert result.marginal_kl.spread == pytest.approx(result.mean_kl.spread, rel=1e-6)
    again = aggregate_posterior(10 * normal(30, 5).repeat(10, 1), torch.full((300, 5), -8.0, dtype=torch.float64))
    assert again.mutual_information.value == pytest.approx(math.log(30), abs=1e-6)
    assert not again.saturated


def test_where_all_posteriors_are_as_far_from_the_prior_the_marginal_has_the_spread_of_the_information():
    mu = torch.nn.functional.normalize(normal(100, 3))
    result = aggregate_posterior(mu, torch.full_like(mu, -2.0))
    assert result.mean_kl.spread == pytest.approx(0, abs=1e-12)
    assert result.marginal_kl.spread == pytest.approx(result.mutual_information.spread) != pytest.approx(0)


@pytest.mark.parametrize("logvar", [-20.0, -38.0, -70.0, -300.0])
def test_posteriors_of_next_to_no_width_are_told_apart(logvar):
    mu = 10 + normal(200, 4)
    result = aggregate_posterior(mu, torch.full_like(mu, logvar))
    assert result.mutual_information.value == pytest.approx(math.log(200), abs=1e-9)
    assert result.marginal_kl.value == pytest.approx(result.mean_kl.value - math.log(200), rel=1e-12)


def test_variances_that_are_no_numbers_are_refused_by_name():
    for wrong in (-1000.0, 800.0):
        with pytest.raises(ValueError, match=rf"logvar must lie in \[-300, 300\], got {wrong:g} to {wrong:g}"):
            aggregate_posterior(torch.zeros(9, 3), torch.full((9, 3), wrong))


def test_the_spread_is_honest():
    n, d = 300, 2
    logvar = torch.full((n, d), -1.5, dtype=torch.float64)
    results = [aggregate_posterior(normal(n, d, seed=s), logvar, seed=s) for s in range(60)]
    for name in ("mean_kl", "mutual_information", "marginal_kl"):
        scores = [getattr(r, name) for r in results]
        spread_is_honest([s.value for s in scores], [s.spread for s in scores], 0.5, 2.0)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"logvar must have shape \(9, 3\)"):
        aggregate_posterior(torch.zeros(9, 3), torch.zeros(8, 3))
    with pytest.raises(ValueError, match=r"log_likelihood must have shape \(9,\), got \(8,\)"):
        aggregate_posterior(torch.zeros(9, 3), torch.zeros(9, 3), torch.zeros(8))
    with pytest.raises(TypeError, match="log_likelihood must be a torch.Tensor, got list"):
        aggregate_posterior(torch.zeros(9, 3), torch.zeros(9, 3), [0.0] * 9)
    with pytest.raises(TypeError, match="draws must be an int, got float"):
        aggregate_posterior(torch.zeros(9, 3), torch.zeros(9, 3), draws=1.5)
