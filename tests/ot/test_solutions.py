"""What heights must satisfy, whoever found them: truths from outside, and invariances."""

import math

import numpy as np
import oracles
import pytest
import torch
from draws import rand, randn
from fits import assert_same_fit, fit, same_heights
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

# --- truths from outside ---------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(
    d=st.integers(1, 9), share=st.floats(0.05, 0.95), size=st.sampled_from([1e-3, 1.0, 50.0]), seed=st.integers(0, 99)
)
def test_two_targets_under_a_normal_source(d, share, size, seed):
    y, nu = size * randn(2, d, seed=seed), torch.tensor([1 - share, share], dtype=torch.float64)
    ot = fit(y, nu, "normal", tol=1e-3, seed=seed)
    want = oracles.two_heights_normal(y, nu)
    assert_close(
        oracles.two_targets_normal(y, ot.heights_), nu, rtol=0, atol=math.sqrt(1e-3 * share * (1 - share)) * 1.3
    )
    assert_close(ot.heights_, want, rtol=0, atol=0.3 * float((y[0] - y[1]).norm()))
    assert ot.converged_


@settings(max_examples=12)
@given(m=st.integers(1, 40), seed=st.integers(0, 99), skew=st.sampled_from([0.0, 1.0]))
def test_sorted_targets_on_a_line(m, seed, skew):
    y, nu = randn(m, 1, seed=seed).sort(dim=0).values, (rand(m, seed=seed) + 0.05) ** skew
    nu = nu / nu.sum()
    ot = fit(y, nu, seed=seed)
    assert ot.converged_
    assert float(((oracles.uniform_1d(y, ot.heights_) - nu) ** 2 / nu).sum()) <= 0.01
    same_heights(ot.heights_, oracles.heights_1d(y, nu), 0.05)


@pytest.mark.parametrize("d", [2, 5])
@pytest.mark.parametrize("method", ["auto", "newton", "log_ratio"])
def test_symmetry_makes_heights_equal(d, method):
    y = torch.cat([torch.eye(d), -torch.eye(d)])
    ot = fit(y, source="normal", method=method, tol=1e-3)
    assert ot.converged_
    # A cell that is a tenth too large for its height: its facets' measure over |y_i - y_j| sums to more than 0.05.
    assert float(ot.heights_.abs().max()) < 0.05


@pytest.mark.parametrize("method", ["auto", "newton", "log_ratio"])
def test_linear_program(method):
    """A source of 500 points is a linear program: weak duality holds, and the gap is small."""
    points, y = randn(500, 3, seed=1), randn(9, 3, seed=2)
    nu = (rand(9, seed=3) + 0.3) / (rand(9, seed=3) + 0.3).sum()

    def source(n, generator):
        return points[torch.randint(500, (n,), generator=generator)]

    ot = fit(y, nu, source, method=method, tol=0.003)
    value = oracles.linear_program(points, y, nu)
    dual = oracles.dual_value(points, y, ot.heights_, nu)
    assert dual <= value + 1e-9
    assert dual >= value - 0.005 * value
    cost, interval = ot.cost(50_000)
    assert interval[0] - 0.02 * value < value < interval[1] + 0.02 * value
    assert_close(ot.certificate(200_000).dual, value, rtol=0.02, atol=0)


@pytest.mark.parametrize("seed", range(3))
def test_energy_has_its_minimum_there(seed):
    """E is convex along segments, its gradient is histogram less weights, and the fit lowers it to the minimum."""
    y, nu = randn(12, 3, seed=seed), (rand(12, seed=seed) + 0.1) / (rand(12, seed=seed) + 0.1).sum()
    ot = fit(y, nu, "normal", tol=1e-3, seed=seed)
    x, h = randn(200_000, 3, seed=seed + 50), ot.heights_
    least = oracles.energy(x, y, h, nu)
    for k in range(8):
        step = randn(12, seed=k) * 0.3
        along = [oracles.energy(x, y, h + t * step, nu) for t in (-1.0, -0.5, 0.0, 0.5, 1.0)]
        assert all(2 * along[i] <= along[i - 1] + along[i + 1] + 1e-12 for i in (1, 2, 3))
        assert min(along) >= least - 1e-4
        e = 1e-4 * step / step.norm()
        slope = (oracles.energy(x, y, h + step + e, nu) - oracles.energy(x, y, h + step - e, nu)) / 2
        assert_close(slope, float(oracles.gradient(x, y, h + step, nu) @ e), rtol=0, atol=2e-7)
    chi2 = float((oracles.gradient(x, y, h, nu).square() / nu).sum())
    assert chi2 < 1e-3 + 5 * 12 / 200_000


# --- invariances -----------------------------------------------------------------------------------------------------

problems = st.tuples(st.integers(2, 40), st.integers(2, 6), st.integers(0, 10**6))


def of(problem):
    m, d, seed = problem
    return randn(m, d, seed=seed), rand(m, seed=seed) + 0.2, seed


@settings(max_examples=10)
@given(problem=problems, deviations=st.sampled_from([1.0, -30.0, 1e4]), source=st.sampled_from(["uniform", "normal"]))
def test_translation_changes_nothing_but_the_values(problem, deviations, source):
    y, nu, seed = of(problem)
    shift = deviations * y.std() * randn(y.shape[1], seed=seed).sign()
    plain, moved = fit(y, nu, source, seed=seed), fit(y + shift, nu, source, seed=seed)
    same_heights(moved.heights_, plain.heights_, 1e-8)
    assert_close(moved.cell_measures_, plain.cell_measures_, rtol=0, atol=1e-4)
    x = randn(300, y.shape[1], seed=seed)
    assert float((moved.assign(x) == plain.assign(x)).double().mean()) > 0.99


@settings(max_examples=10)
@given(
    problem=problems,
    scale=st.sampled_from([1e-6, 0.37, 1e6, 1e-140, 1e120]),
    source=st.sampled_from(["uniform", "normal"]),
)
def test_scaling_scales_heights(problem, scale, source):
    y, nu, seed = of(problem)
    plain, scaled = fit(y, nu, source, seed=seed), fit(y * scale, nu, source, seed=seed)
    same_heights(scaled.heights_ / scale, plain.heights_, 1e-8)
    assert_close(scaled.certificate_.chi2, plain.certificate_.chi2, rtol=0, atol=1e-3)
    assert (scaled.samples_, scaled.converged_) == (plain.samples_, plain.converged_)


@settings(max_examples=10)
@given(problem=problems)
def test_permuting_targets_permutes_heights(problem):
    y, nu, seed = of(problem)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    plain, permuted = fit(y, nu, seed=seed), fit(y[order], nu[order], seed=seed)
    same_heights(permuted.heights_, plain.heights_[order], 1e-6)


@settings(max_examples=10)
@given(problem=problems, copies=st.integers(1, 20))
def test_splitting_a_target_changes_nothing(problem, copies):
    y, nu, seed = of(problem)
    pick = torch.randint(len(y), (copies,), generator=torch.Generator().manual_seed(seed))
    share = torch.ones(len(y) + copies, dtype=torch.float64)
    for k, j in enumerate(pick.tolist()):  # each copy takes half of what is left
        share[len(y) + k] = share[j] / 2
        share[j] /= 2
    split = fit(torch.cat([y, y[pick]]), torch.cat([nu, nu[pick]]) * share, seed=seed)
    plain = fit(y, nu, seed=seed)
    same_heights(split.heights_[: len(y)], plain.heights_, 1e-8)
    same_heights(split.heights_[len(y) :] - split.heights_[pick] + plain.heights_[pick], plain.heights_[pick], 1e-8)
    whole = torch.zeros(len(y), dtype=torch.float64).index_add_(
        0, torch.cat([torch.arange(len(y)), pick]), split.cell_measures_
    )
    assert_close(whole, plain.cell_measures_)
    assert_close(
        split.cell_measures_ / split.weights_,
        (plain.cell_measures_ / plain.weights_)[torch.cat([torch.arange(len(y)), pick])],
    )
    assert split.certificate_.targets == len(y)


@settings(max_examples=10)
@given(problem=problems, extra=st.integers(1, 10), far=st.sampled_from([0.1, 1.0, 100.0]))
def test_targets_without_weight_change_nothing(problem, extra, far):
    y, nu, seed = of(problem)
    more = fit(
        torch.cat([far * randn(extra, y.shape[1], seed=seed + 1), y]), torch.cat([torch.zeros(extra), nu]), seed=seed
    )
    plain = fit(y, nu, seed=seed)
    same_heights(more.heights_[extra:], plain.heights_, 1e-8)
    assert bool((more.cell_measures_[:extra] == 0).all())
    assert bool((more.weights_[:extra] == 0).all())
    assert bool((more.assign(rand(2000, y.shape[1], seed=seed)) >= extra).all())
    assert more.certificate_.samples == plain.certificate_.samples
    assert bool(more.centroids_[:extra].isnan().all())


def test_unit_of_the_weights_does_not_matter():
    y, nu = randn(30, 3), rand(30)
    assert_same_fit(fit(y, nu), fit(y, nu * 8))
    same_heights(fit(y, (nu * 1000).round()).heights_, fit(y, (nu * 1000).round().int().numpy()).heights_, 1e-12)


def test_dtype_of_the_targets_does_not_matter():
    y = randn(30, 3).float()
    want = fit(y)
    for other in (y.double(), y.numpy(), y.tolist(), np.asfortranarray(y.numpy()), torch.cat([y, y], 1)[:, :3]):
        assert_same_fit(fit(other), want)


@pytest.mark.parametrize("method", ["auto", "newton", "log_ratio", "adam"])
@pytest.mark.parametrize("source", ["uniform", lambda n, generator: torch.randn(n, 4, generator=generator)])
def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads(method, source):
    y, nu = randn(100, 4), rand(100) + 0.3
    before, fits = torch.get_num_threads(), []
    try:
        for threads in (1, 1, 2, 3):
            torch.set_num_threads(threads)
            fits.append(fit(y, nu, source, method=method, tol=0.1, seed=5))
    finally:
        torch.set_num_threads(before)
    for other in fits[1:]:
        assert_same_fit(other, fits[0])


def test_seeds_differ_but_within_the_certificate():
    y = randn(60, 4)
    fits = [fit(y, seed=seed) for seed in range(6)]
    assert len({float(ot.heights_[0]) for ot in fits}) == 6
    for ot in fits:  # every fit, held to samples that no other has seen
        assert ot.converged_
        assert ot.certificate(200_000, seed=777).chi2 < 0.01
    spread = torch.stack([ot.heights_ for ot in fits]).std(0)
    assert float(spread.max()) < 0.1 * float(fits[0].heights_.std())


def test_fitting_again_starts_anew():
    y, other = randn(40, 3), randn(30, 2, seed=1)
    ot = fit(y)
    ot.fit(other)
    assert_same_fit(ot, fit(other))
