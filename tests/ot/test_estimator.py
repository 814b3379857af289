import ast
import copy
import json
import math
import pickle
import struct
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import otgen
from otgen import data, ops
from otgen.files import read_safetensors, write_safetensors
from otgen.ot import ConvergenceWarning, NotFittedError, SemiDiscreteOT
from otgen.ot.solvers.base import CENTROID_SAMPLES


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fit(y, weights=None, source="uniform", **options):
    return SemiDiscreteOT(source, progress=False, **options).fit(y, weights)


def without_time(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def assert_same_fit(a, b):
    """Check that two fits are the same to the last bit, but for the seconds they took."""
    for name in ("heights_", "targets_", "weights_", "cell_measures_", "centroids_"):
        oracles.assert_same_bits(getattr(a, name), getattr(b, name))
    assert a.certificate_ == b.certificate_
    assert (a.converged_, a.samples_) == (b.converged_, b.samples_)
    assert without_time(a.history_) == without_time(b.history_)


def same_heights(a, b, rtol):
    """Check heights up to a constant, in units of their spread."""
    a, b = a - a.mean(), b - b.mean()
    assert_close(a, b, rtol=0, atol=rtol * float(b.abs().max()))


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


# --- what a fit says of itself ---------------------------------------------------------------------------------------


def test_attributes_have_the_stated_shapes():
    ot = fit(randn(25, 4).float(), rand(25).float(), seed=9)
    assert ot.heights_.shape == ot.weights_.shape == ot.cell_measures_.shape == (25,)
    assert ot.targets_.shape == ot.centroids_.shape == (25, 4)
    for name in ("heights_", "targets_", "weights_", "cell_measures_", "centroids_"):
        assert getattr(ot, name).dtype == torch.float64
    assert_close(float(ot.heights_.mean()), 0.0, rtol=0, atol=1e-12)
    assert_close(float(ot.weights_.sum()), 1.0)
    assert_close(float(ot.cell_measures_.sum()), 1.0)
    c = ot.certificate_
    chi2 = float(((ot.cell_measures_ - ot.weights_).square() / ot.weights_).sum())
    assert_close(chi2, c.chi2, rtol=0, atol=2 * 25 / c.samples)
    assert ot.samples_ >= ot.history_[-1]["samples"] + c.samples
    assert {"step", "samples", "n", "chi2", "tv", "tv_floor", "empty", "seconds"} == set(ot.history_[0])
    samples = [row["samples"] for row in ot.history_]
    assert samples == sorted(samples)
    json.dumps(ot.history_)


def test_an_exact_fit_has_the_same_attributes():
    ot = fit(randn(25, 3).float(), rand(25).float(), seed=9)
    assert ot.certificate_.exact
    assert ot.samples_ == ot.certificate_.samples == 0
    assert ot.certificate_.max_relative_error <= 1e-9
    assert_close(ot.cell_measures_, ot.weights_, rtol=1e-9, atol=0)
    assert ot.targets_.shape == ot.centroids_.shape == (25, 3)
    for name in ("heights_", "targets_", "weights_", "cell_measures_", "centroids_"):
        assert getattr(ot, name).dtype == torch.float64
    assert {"step", "samples", "n", "chi2", "tv", "tv_floor", "empty", "seconds"} == set(ot.history_[0])
    assert [row["samples"] for row in ot.history_] == [0] * len(ot.history_)
    json.dumps(ot.history_)


def test_samples_are_counted():
    """What `samples_` says is what the source was asked for; annealing, at d <= 3, counts samples it uses again."""
    asked = []

    def source(n, generator):
        asked.append(n)
        return torch.rand(n, d, generator=generator)

    for d in (3, 8):
        asked.clear()
        ot = fit(randn(40, d), source=source)
        drawn = sum(asked) - 16384  # the pilot sample only steers, and is not counted
        assert drawn <= ot.samples_ if d == 3 else drawn == ot.samples_


@pytest.mark.parametrize("method", ["auto", "newton", "log_ratio", "adam"])
@pytest.mark.parametrize("budget", [1, 3000, 40_000])
def test_what_is_not_reached_is_said(method, budget):
    y = data.problem("swiss-roll-256")[0]
    y = torch.cat([y, torch.zeros(256, 2, dtype=y.dtype)], 1)  # where auto samples
    with pytest.warns(ConvergenceWarning) as caught:
        ot = fit(y, method=method, tol=1e-5, max_samples=budget)
    assert ot.converged_ is False
    c = ot.certificate_
    assert not c.holds(1e-5)
    message = str(caught[0].message)
    spent = ot.samples_ - (10_000 if c.samples < 256 * CENTROID_SAMPLES else 0)
    for part in ("chi2 <= 1e-05 was not certified", f"after {spent:,} samples", f"chi2 is {c.chi2:.3g}", "raise tol"):
        assert part in message
    assert f"{c.empty_cells} cells are empty" in message
    assert "\n" not in message
    assert caught[0].filename == __file__
    steps = max((row["n"] for row in ot.history_), default=0)
    start = 40 * 256 + 256  # guesses or one round of annealing
    assert spent <= budget + steps + start + c.samples


def test_budget_of_one_look_is_kept_with_tiny_weights():
    """Weights that nothing can be certified of do not make a certificate of astronomical size."""
    nu = torch.tensor([1.0] * 10 + [1e-30] * 5, dtype=torch.float64)
    with pytest.warns(ConvergenceWarning):
        ot = fit(randn(15, 4), nu, max_samples=20_000)
    assert ot.samples_ < 200_000
    assert bool(torch.isfinite(ot.heights_).all())


def test_no_warning_where_it_converged():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit(randn(20, 2)).converged_ is True


def test_progress_is_silent_when_fast(capsys):
    SemiDiscreteOT(progress=True).fit(randn(10, 2))
    assert capsys.readouterr() == ("", "")


# --- the smallest and the strangest problems -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "newton", "log_ratio", "adam"])
@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("source", ["uniform", "normal"])
def test_few_targets(method, m, d, source):
    tol = 0.05 if method == "adam" else 0.01
    ot = fit(randn(m, d, seed=m), source=source, method=method, tol=tol)
    assert ot.converged_
    assert ot.certificate(100_000, seed=1).chi2 <= tol * 1.05
    if m == 1:
        assert ot.heights_.tolist() == [0.0]
        assert ot.cell_measures_.tolist() == [1.0]
        assert ot.certificate_.chi2 == 0


@pytest.mark.parametrize("method", ["auto", "newton", "log_ratio", "adam"])
def test_all_targets_equal(method):
    ot = fit(torch.full((7, 3), 2.5), rand(7), method=method)
    assert ot.converged_
    assert ot.heights_.tolist() == [0.0] * 7
    assert_close(ot.cell_measures_, ot.weights_)
    assert torch.equal(ot.transport(rand(5, 3)), torch.full((5, 3), 2.5, dtype=torch.float64))


@pytest.mark.parametrize("m", [5, 60])
def test_collinear_targets_in_space(m):
    """Three dimensions in name, one in fact: under a normal source as if on a line."""
    direction = torch.tensor([1.0, -2.0, 2.0], dtype=torch.float64) / 3
    t = randn(m, 1).sort(dim=0).values
    ot = fit(t * direction + 5, source="normal", tol=0.005)
    assert ot.converged_
    ends = torch.special.ndtri(torch.arange(1, m, dtype=torch.float64) / m)
    h = -torch.cat([torch.zeros(1), (ends * t[:, 0].diff()).cumsum(0)])
    x = ot.certificate(100_000, heights=h)  # the line's solution is this problem's
    assert x.chi2 < 0.001


@pytest.mark.parametrize("source", ["uniform", "normal"])
@pytest.mark.parametrize(("m", "d"), [(2, 2), (3, 1), (20, 2), (20, 5), (100, 2), (100, 8)])
def test_one_weight_dominates(source, m, d):
    """The others have 0.001 between them: not always certified within the budget, but never wrongly."""
    nu = torch.full((m,), 0.001 / (m - 1), dtype=torch.float64)
    nu[0] = 0.999
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ot = fit(randn(m, d), nu, source)
    assert ot.converged_ or m * d > 10
    assert bool(torch.isfinite(ot.heights_).all())
    assert float(ot.cell_measures_[0]) == pytest.approx(0.999, abs=0.005)
    c = ot.certificate(2_000_000, seed=1)
    assert not ot.converged_ or c.chi2 - 3 * c.chi2_se < 0.01


def test_an_outlier_gets_its_share():
    y = randn(50, 3)
    y[17] *= 100
    ot = fit(y)
    assert ot.converged_
    assert float(ot.cell_measures_[17]) == pytest.approx(0.02, abs=0.008)


@pytest.mark.parametrize("source", [
    lambda n, g: torch.randint(0, 2, (n, 2), generator=g).double(),
    lambda n, g: torch.randn(n, 2, generator=g) / torch.randn(n, 1, generator=g),
    lambda n, g: torch.cat([torch.rand(n, 1, generator=g), torch.zeros(n, 1)], 1),
], ids=["four atoms", "no moments", "a segment"])  # fmt: skip
def test_strange_sources_end_in_an_honest_answer(source):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ot = fit(randn(12, 2), source=source, max_samples=100_000)
    assert bool(torch.isfinite(ot.heights_).all())
    chi2 = ot.certificate(50_000, seed=5).chi2
    assert not ot.converged_ or chi2 < 0.012
    assert ot.converged_ or ot.samples_ > 50_000


# --- refit -----------------------------------------------------------------------------------------------------------


def test_refit_costs_less_than_a_fit():
    y = data.problem("mixture-500x8")[0]
    warm = cold = 0
    for seed in range(3):
        new = torch.cat([y, y[:25] + 0.3 * randn(25, 8, seed=seed)])
        ot = fit(y, seed=seed)
        ot.refit(new)
        assert ot.converged_
        assert ot.certificate(200_000, seed=99).chi2 < 0.01
        warm, cold = warm + ot.samples_, cold + fit(new, seed=seed).samples_
    assert warm < 0.9 * cold


@pytest.mark.parametrize("change", ["removed", "weights", "added", "moved", "zeroed", "unzeroed", "duplicated", "same"])
def test_refit_reaches_the_solution_of_the_new_problem(change):
    y, nu = randn(80, 4), rand(80) + 0.3
    old = (y, nu)
    new = {
        "removed": (y[:50], nu[:50]),
        "weights": (y, rand(80, seed=5) + 0.3),
        "added": (torch.cat([y, 2 * randn(30, 4, seed=6)]), torch.cat([nu, nu[:30]])),
        "moved": (y + 0.05 * randn(80, 4, seed=7), nu),
        "zeroed": (y, torch.where(torch.arange(80) < 20, 0.0, nu)),
        "unzeroed": (y, nu),
        "duplicated": (torch.cat([y, y[:10]]), torch.cat([nu, nu[:10]])),
        "same": (y, nu),
    }[change]
    if change == "unzeroed":
        old = (y, torch.where(torch.arange(80) < 20, 0.0, nu))
    ot = fit(*old)
    assert ot.refit(*new) is ot
    assert ot.converged_
    assert ot.heights_.shape == new[1].shape
    assert_close(ot.targets_, new[0])
    assert_close(ot.weights_, new[1] / new[1].sum())
    want = fit(*new)
    assert ot.certificate(200_000, heights=want.heights_, seed=3).chi2 < 0.01
    assert ot.certificate(200_000, seed=3).chi2 < 0.01


def test_refit_of_the_same_problem_starts_at_its_solution():
    y, nu = data.problem("mixture-500x8")
    ot = fit(y, nu)
    before = ot.samples_
    ot.refit(y, nu)
    assert ot.samples_ < before
    first = ot.history_[0]  # of heights that are right to 0.01; the noise of its own is what its samples make it
    assert first["chi2"] < 0.01 + 2 * 2 * (500 / first["n"]) / 500**0.5


def test_refit_after_zero_weights_does_not_start_from_their_heights():
    """Targets without weight have heights far below all others; given weight, they start as new ones do."""
    y, nu = randn(80, 4), torch.ones(80)
    ot = fit(y, torch.where(torch.arange(80) < 20, 0.0, nu))
    ot.refit(y, nu)
    assert ot.history_[0]["chi2"] < 1.0
    assert ot.history_[0]["empty"] <= 4


def test_refit_in_another_dimension_is_refused():
    ot = fit(randn(10, 3))
    with pytest.raises(ValueError, match="^refit: targets must have 3 coordinates as before, got 2$"):
        ot.refit(randn(10, 2))
    assert ot.heights_.shape == (10,)


# --- errors ----------------------------------------------------------------------------------------------------------

BAD_SETTINGS = [
    ({"source": "gaussian"}, ValueError, "source must be one of uniform, normal or a callable, got 'gaussian'"),
    ({"source": 3}, TypeError, "source must be one of uniform, normal or a callable, got int"),
    ({"method": "sgd"}, ValueError, "method must be one of auto, exact, newton, log_ratio, adam, got 'sgd'"),
    ({"method": None}, ValueError, "method must be one of .*, got None"),
    ({"method": ["auto"]}, ValueError, r"method must be one of .*, got \['auto'\]"),
    *(
        ({"tol": tol}, ValueError, "tol must be a positive number, got ")
        for tol in (0, -1, math.nan, math.inf, "a", True)
    ),
    ({"tol": None}, ValueError, "tol must be a positive number, got None"),
    *(
        ({"max_samples": budget}, ValueError, "max_samples must be a positive int or None, got ")
        for budget in (0, -5, 1.5, True, "3")
    ),
    *(
        ({"seed": seed}, ValueError, r"seed must be an int in \[0, 2\^63\), got ")
        for seed in (-1, 2**63, 1.0, True, None, "a")
    ),
    *(
        ({"device": device}, ValueError, "device must be cpu.*, got ")
        for device in ("banana", None, 3, "meta", *([] if ops.has_cuda() else ["cuda"]))
    ),
    ({"checkpoint": 3}, TypeError, "expected str, bytes or os.PathLike object, not int"),
    ({"checkpoint": "/nowhere/at/all.safetensors"}, FileNotFoundError, "checkpoint must be in a folder that exists"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD_SETTINGS, ids=lambda v: str(v)[:40])
def test_bad_settings_are_refused_before_any_work(options, error, message, monkeypatch):
    ot = fit(randn(5, 2))
    monkeypatch.setattr("otgen.ot.estimator.solve", None)
    for name, value in options.items():
        setattr(ot, name, value)
    for call in (SemiDiscreteOT(**options).fit, ot.fit, ot.refit):
        with pytest.raises(error, match=f"^[^\n]*{message}[^\n]*$"):
            call(randn(5, 2))


@pytest.mark.parametrize("method", ["newton", "log_ratio", "adam"])
@pytest.mark.parametrize("source", ["uniform", "normal", lambda n, g: torch.rand(n, 5, generator=g)])
def test_a_device_changes_nothing(device, source, method):
    y, options = randn(30, 5), {"method": method, "source": source, "max_samples": 30_000}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        here, there = fit(y, **options), fit(y, device=device, **options)
    assert_same_fit(there, here)
    x = randn(50, 5, seed=1)
    oracles.assert_same_bits(there.transport(x), here.transport(x))
    oracles.assert_same_bits(there.potential(x), here.potential(x))


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "cpu:0"])
def test_the_processor_has_several_names(device):
    assert fit(randn(5, 2), device=device).converged_


@pytest.mark.parametrize(
    ("y", "nu", "error"),
    [
        ([[1.0, math.nan]], None, ValueError),
        (np.zeros((0, 2)), None, ValueError),
        (np.array([[1, None]]), None, TypeError),
        ("abc", None, TypeError),
        (np.ones((2, 2)) * 1j, None, TypeError),
        (np.ones((2, 2)), [-1, 2], ValueError),
        (np.ones((2, 2)), [0, 0], ValueError),
        (np.ones((2, 2)), [1, 2, 3], ValueError),
    ],
)
@pytest.mark.parametrize("call", ["fit", "refit"])
def test_bad_data_is_refused_and_leaves_the_last_fit(call, y, nu, error):
    ot = fit(randn(6, 2))
    before = ot.heights_
    with pytest.raises(error, match="^(targets|weights) must [^\n]*$"):
        getattr(ot, call)(y, nu)
    assert ot.heights_ is before


def test_nothing_works_before_fit(tmp_path):
    ot = SemiDiscreteOT()
    x = rand(3, 2)
    calls = {
        "refit": (x,), "certificate": (), "cost": (), "assign": (x,), "transport": (x,), "potential": (x,),
        "sample": (3,), "singular_set": (), "save": (tmp_path / "x",),
    }  # fmt: skip
    for name, arguments in calls.items():
        with pytest.raises(NotFittedError, match=r"^[^\n]*SemiDiscreteOT [^\n]* yet: call fit\(targets\) first$"):
            getattr(ot, name)(*arguments)
    for name in ("heights_", "certificate_", "converged_", "centroids_"):
        with pytest.raises(NotFittedError, match=rf"^SemiDiscreteOT has no {name} yet: call fit\(targets\) first$"):
            getattr(ot, name)
        assert not hasattr(ot, name)
    with pytest.raises(AttributeError, match="^SemiDiscreteOT has no attribute 'banana'$"):
        _ = ot.banana
    assert not list(tmp_path.iterdir())


def test_estimator_can_be_copied_and_printed():
    ot = fit(randn(5, 2), seed=3)
    assert_same_fit(copy.deepcopy(ot), ot)
    assert_same_fit(pickle.loads(pickle.dumps(ot)), ot)
    assert repr(ot) == "SemiDiscreteOT(source='uniform', method='auto', tol=0.01, max_samples=None, seed=3)"
    copy.copy(SemiDiscreteOT())


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """A fit with duplicates and weightless targets, and the file it was saved to."""
    y = 3 * randn(40, 3) + 100
    y[35:] = y[:5]
    nu = rand(40)
    nu[[7, 8]] = 0
    ot = fit(y, nu, "normal", tol=0.02, seed=12)
    path = tmp_path / "map.safetensors"
    ot.save(path)
    return ot, path


def test_what_is_loaded_behaves_to_the_last_bit(saved):
    ot, path = saved
    other = SemiDiscreteOT.load(str(path))
    assert_same_fit(other, ot)
    assert other.history_ == ot.history_
    assert (other.source, other.method, other.tol, other.seed) == ("normal", "auto", 0.02, 12)
    x = randn(300, 3)
    for call in ("assign", "transport", "potential"):
        oracles.assert_same_bits(getattr(other, call)(x), getattr(ot, call)(x))
    for a, b in zip(other.sample(200, return_info=True), ot.sample(200, return_info=True), strict=True):
        if isinstance(a, torch.Tensor):
            oracles.assert_same_bits(a, b)
        else:
            assert (a.threshold, a.rejected) == (b.threshold, b.rejected)
            assert torch.equal(a.targets, b.targets)
    assert other.certificate(seed=4) == ot.certificate(seed=4)
    assert other.cost() == ot.cost()
    assert torch.equal(other.singular_set().pairs, ot.singular_set().pairs)
    assert_same_fit(other.refit(ot.targets_[:30]), ot.refit(ot.targets_[:30]))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("seed", range(10))
def test_weights_come_back_to_the_last_bit(tmp_path, seed):
    """They are normalised once; normalising what is normalised must not move it by a rounding."""
    ot = fit(randn(30, 2, seed=seed), rand(30, seed=seed), tol=0.5)
    ot.save(tmp_path / "map")
    assert_same_fit(SemiDiscreteOT.load(tmp_path / "map"), ot)


def test_loading_again_and_again_changes_nothing(saved):
    _, path = saved
    before = path.read_bytes()
    SemiDiscreteOT.load(path).save(path)
    a, b = read_safetensors(path), None
    path.write_bytes(before)
    b = read_safetensors(path)
    assert a[1] == b[1]
    for name in a[0]:
        oracles.assert_same_bits(a[0][name], b[0][name])


def test_custom_source_must_be_given_again(tmp_path):
    def source(n, generator):
        return torch.randn(n, 2, generator=generator)

    ot = fit(randn(10, 2), source=source)
    ot.save(tmp_path / "map")
    with pytest.raises(ValueError, match=r"map: [^\n]*custom source: pass load\(path, source=...\)$"):
        SemiDiscreteOT.load(tmp_path / "map")
    other = SemiDiscreteOT.load(tmp_path / "map", source)
    assert_same_fit(other, ot)
    assert other.certificate(seed=1) == ot.certificate(seed=1)


def refused(path, *parts):
    """Check that a file is refused in one line with its name."""
    with pytest.raises((ValueError, OSError)) as caught:
        SemiDiscreteOT.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    for part in parts:
        assert part in message


def test_file_that_is_cut_off_is_refused(saved):
    _, path = saved
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    for size in [len(whole) * k // 8 for k in range(8)] + [1, 7, 8, 9, header - 1, header, len(whole) - 1]:
        path.write_bytes(whole[:size])
        refused(path)
    path.write_bytes(whole + b"x")
    refused(path)


def test_flipped_bits_in_the_header_never_do_harm(saved):
    """Every byte of the header is damaged once: the file is refused by name, or holds a map all the same."""
    _, path = saved
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    accepted = 0
    for i in range(0, header, 3):
        damaged = bytearray(whole)
        damaged[i] ^= 1 << (i % 7)
        path.write_bytes(bytes(damaged))
        try:
            ot = SemiDiscreteOT.load(path)
        except (ValueError, OSError) as error:
            assert str(path) in str(error), i  # noqa: PT017
            assert "\n" not in str(error), i  # noqa: PT017
        else:
            accepted += 1
            assert ot.transport(torch.zeros(1, 3)).shape == (1, 3)
            assert isinstance(ot.certificate_.upper(), float)
    assert accepted < header / 3 * 0.6


def rewrite(path, change=None, **tensors):
    """Save the file again with other tensors, or with its record changed."""
    held, metadata = read_safetensors(path)
    held |= {name: value for name, value in tensors.items() if value is not None}
    for name, value in tensors.items():
        if value is None:
            del held[name]
    record = json.loads(metadata["record"])
    record = (change(record) or record) if change is not None else record
    write_safetensors(path, held, metadata | {"record": json.dumps(record)})


FORGED_TENSORS = {
    "short heights": {"heights": torch.zeros(3, dtype=torch.float64)},
    "float32 heights": {"heights": torch.zeros(33)},
    "nan heights": {"heights": torch.full((33,), math.nan, dtype=torch.float64)},
    "no heights": {"heights": None},
    "no targets": {"targets": None},
    "other targets": {"targets": torch.zeros(5, 3)},
    "nan targets": {"targets": torch.full((40, 3), math.nan)},
    "flat targets": {"targets": torch.zeros(40)},
    "negative weights": {"weights": torch.full((40,), -1.0)},
    "nan weights": {"weights": torch.full((40,), math.nan)},
    "nan centroids": {"centroids": torch.full((33, 3), math.nan, dtype=torch.float64)},
    "flat centroids": {"centroids": torch.zeros(99, dtype=torch.float64)},
}


@pytest.mark.parametrize("tensors", FORGED_TENSORS.values(), ids=FORGED_TENSORS)
def test_forged_tensors_are_refused(saved, tensors):
    _, path = saved
    rewrite(path, **tensors)
    refused(path, "not a whole map of otgen")


def assign(**changes):
    return lambda record: record | changes


FORGED_RECORDS = {
    "a list": lambda record: [1, 2],
    "a word": lambda record: "x",
    "empty": lambda record: {"x": 1},
    "source": assign(source="banana"),
    "source a number": assign(source=3),
    "samples": assign(samples="many"),
    "infinite samples": assign(samples=math.inf),
    "history": assign(history=3),
    "history of letters": assign(history="abc"),
    "certificate": assign(certificate={"chi2": 1}),
    "certificate a list": assign(certificate=[1]),
    "a word in the certificate": lambda record: record | {"certificate": record["certificate"] | {"chi2": "small"}},
    "settings": assign(settings={"method": "sgd", "tol": 0.01, "seed": 1}),
    "settings a list": assign(settings=[1]),
    "no seed": assign(settings={"method": "auto", "tol": 0.01}),
    "seed": assign(settings={"method": "auto", "tol": 0.01, "seed": -1}),
    "tol": assign(settings={"method": "auto", "tol": None, "seed": 1}),
}


@pytest.mark.parametrize("change", FORGED_RECORDS.values(), ids=FORGED_RECORDS)
def test_forged_records_are_refused(saved, change):
    _, path = saved
    rewrite(path, change)
    refused(path, "not a whole map of otgen")


def test_a_file_sets_nothing_but_what_is_saved(saved, tmp_path):
    """A forged file must not make the estimator write where its user did not ask it to."""
    _, path = saved
    rewrite(path, lambda record: record | {"settings": record["settings"] | {"checkpoint": str(tmp_path / "evil")}})
    try:
        assert SemiDiscreteOT.load(path).checkpoint is None
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017


def test_other_files_are_refused(saved, tmp_path):
    ot, path = saved
    other = tmp_path / "other.safetensors"
    save_file(load_file(path), other)
    refused(other, "expected a map saved by otgen", "got another file")
    write_safetensors(other, {"w": torch.zeros(3)}, {"format": "otgen-model-1"})
    refused(other, "got otgen-model-1")
    SemiDiscreteOT(checkpoint=tmp_path / "run", progress=False).fit(randn(20, 2))
    refused(tmp_path / "run", "got otgen-checkpoint-1")
    np.save(tmp_path / "array.npy", np.zeros(100))
    (tmp_path / "array.npy").rename(other)
    refused(other)
    torch.save({"heights": ot.heights_}, other)
    refused(other)
    other.write_bytes(b"")
    refused(other)
    other.write_bytes(np.random.default_rng(0).bytes(5000))
    refused(other)
    refused(tmp_path)
    refused(tmp_path / "missing")


def test_saving_replaces_whole_or_not_at_all(saved, tmp_path):
    ot, path = saved
    before = path.read_bytes()
    with pytest.raises(OSError, match="missing"):
        ot.save(tmp_path / "missing" / "map")
    with pytest.raises(OSError, match=str(tmp_path)):
        ot.save(tmp_path)
    fit(randn(5, 2)).save(path)
    assert path.read_bytes() != before
    assert SemiDiscreteOT.load(path).heights_.shape == (5,)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_nothing_is_ever_unpickled():
    """No module of otgen imports pickle or its kin, calls torch.load or torch.save, or lets NumPy unpickle."""
    for module in Path(otgen.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names if isinstance(node, (ast.Import, ast.ImportFrom)) else []:
                assert name.split(".")[0] not in {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}, module
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                assert (owner, node.func.attr) not in {("torch", "load"), ("torch", "save"), ("np", "load")}, module
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), module
                assert node.value.value is False, module


def test_certificate_is_in_the_file_in_words(saved):
    ot, path = saved
    record = json.loads(read_safetensors(path)[1]["record"])
    assert record["certificate"] == asdict(ot.certificate_)
