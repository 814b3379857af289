"""What the estimator promises beside its solution: what it says of itself, strange problems, refits, errors."""

import copy
import json
import math
import pickle
import warnings

import numpy as np
import oracles
import pytest
import torch
from draws import rand, randn
from fits import assert_same_fit, fit
from torch.testing import assert_close

from otgen import data
from otgen.ot import ConvergenceWarning, NotFittedError, SemiDiscreteOT, estimator
from otgen.ot.solvers.base import CENTROID_SAMPLES, Run
from otgen.ot.sources import CHUNK

# --- what a fit says of itself ---------------------------------------------------------------------------------------


def test_attributes_have_the_stated_shapes():
    ot = fit(randn(25, 4).float(), rand(25).float(), seed=9)
    assert ot.heights_.shape == ot.weights_.shape == ot.cell_measures_.shape == (25,)
    assert ot.targets_.shape == ot.centroids_.shape == (25, 4)
    assert ot.n_features_in_ == 4
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


@pytest.mark.parametrize(("m", "d"), [(40, 8), (500, 2)])
def test_samples_are_counted(m, d, monkeypatch):
    """What `samples_` says is what the source was asked for, also for groups of targets in low dimension."""
    asked, twice, sample = [], [], Run.sample

    def source(n, generator):
        asked.append(n)
        return torch.rand(n, d, generator=generator)

    def spied(self, n, name, index, *, again=False):
        twice.append(n if again else 0)  # a measurement's samples, drawn once more to raise cells that are empty
        return sample(self, n, name, index, again=again)

    monkeypatch.setattr(Run, "sample", spied)
    ot = fit(randn(m, d) ** 3, source=source)
    assert sum(asked) == ot.samples_ + sum(twice) + 16_384  # the pilot sample only steers


@pytest.mark.parametrize("method", ["auto", "newton", "log_ratio", "adam"])
@pytest.mark.parametrize("budget", [1, 3000, 40_000])
def test_what_is_not_reached_is_said(method, budget):
    y = data.problem("swiss-roll-256")[0]
    y = torch.cat([y, torch.zeros(256, 2, dtype=y.dtype)], 1)  # where auto samples
    with pytest.warns(ConvergenceWarning) as caught:
        ot = SemiDiscreteOT(method=method, tol=1e-5, max_samples=budget, progress=False).fit(y)
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
    start = 16_000  # guesses for groups, and what carries those over
    assert c.samples <= max(10 * 256, budget // 20)
    assert spent <= budget + steps + start + c.samples


@pytest.mark.parametrize("method", ["auto", "exact"])
def test_what_rounding_leaves_is_not_laid_to_the_method(method):
    with pytest.warns(ConvergenceWarning, match="by exact cells.*; raise tol: this is what rounding leaves"):
        ot = SemiDiscreteOT(method=method, tol=1e-30, progress=False).fit(randn(30, 2))
    assert ot.certificate_.max_relative_error < 1e-8


def test_the_certificate_of_a_fit_that_gave_up_names_its_samples():
    with pytest.warns(ConvergenceWarning):
        ot = fit(randn(200, 5), tol=1e-5, max_samples=40_000)
    c = ot.certificate_
    again = ot.certificate(c.samples, seed=c.seed)
    assert (again.chi2, again.primal) == (c.chi2, c.primal)


@pytest.mark.parametrize(("m", "tol", "budget"), [(50, 0.01, 10**6), (400, 0.01, 4 * 10**6), (300, 1e-4, 3 * 10**8)])
def test_the_default_budget_grows_with_targets_and_accuracy(monkeypatch, m, tol, budget):
    class Stop(Exception):
        pass

    def solve(method, run, identity):
        raise Stop(run.max_samples)

    monkeypatch.setattr(estimator, "solve", solve)
    with pytest.raises(Stop, match=f"^{budget}$"):
        fit(randn(m, 5), tol=tol)


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


def test_centroids_come_with_the_certificate(monkeypatch):
    monkeypatch.setattr(estimator, "find_centroids", None)
    ot = fit(randn(300, 4), tol=0.5)
    assert ot.converged_
    assert ot.certificate_.samples == CENTROID_SAMPLES * 300
    assert bool(torch.isfinite(ot.centroids_).all())


# --- refit -----------------------------------------------------------------------------------------------------------


def test_refit_costs_less_than_a_fit():
    y = data.problem("mixture-500x8")[0]
    warm = cold = 0
    for seed in range(20):  # a look that fails by chance doubles what one of them takes
        new = torch.cat([y, y[:25] + 0.3 * randn(25, 8, seed=seed)])
        ot = fit(y, seed=seed)
        ot.refit(new)
        assert ot.converged_
        assert seed > 2 or ot.certificate(200_000, seed=99).chi2 < 0.01
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


def test_no_two_fits_are_certified_on_the_same_samples():
    """For those of the one before have chosen the start."""
    ot = fit(randn(40, 4))
    seeds = [ot.certificate_.seed, *(ot.refit(ot.targets_).certificate_.seed for _ in range(2))]
    assert len(set(seeds)) == 3


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


def test_a_file_says_what_was_fitted(tmp_path):
    """Settings of the next fit are not those of the last one: a tolerance that was not certified is not written."""
    ot = fit(randn(40, 3), tol=0.05)
    ot.tol, ot.seed, ot.method = 1e-5, 4, "newton"
    ot.save(tmp_path / "m")
    for back in (SemiDiscreteOT.load(tmp_path / "m"), SemiDiscreteOT.from_state(*ot.state())):
        assert (back.tol, back.seed, back.method) == (0.05, 0, "auto")


def test_every_certificate_and_every_chunk_of_a_cost_has_samples_of_its_own():
    ot = fit(randn(40, 4))
    first, second = ot.certificate(), ot.certificate()
    assert first.samples == second.samples == 4000
    assert first.chi2 != second.chi2
    assert ot.cost(2 * CHUNK)[0] != pytest.approx(ot.cost(CHUNK)[0], rel=1e-6)


def test_cells_are_those_of_the_given_targets():
    """Behind a facet lies a row of theirs; duplicates have one cell together, and targets of weight zero none."""
    none, right, left, same = fit([9.0, 1.0, 0.0, 0.0], [0, 1, 1, 1]).cells()
    assert none.corners.shape == (0, 1)
    assert len(none.neighbours) == 0
    for cell, ends, behind in ((right, [2 / 3, 1], [2, -2]), (left, [0, 2 / 3], [-1, 1]), (same, [0, 2 / 3], [-1, 1])):
        at = cell.corners[:, 0][torch.cat(cell.faces)]
        assert at.sort().values.tolist() == pytest.approx(ends, abs=1e-9)
        assert cell.neighbours[at.argsort()].tolist() == behind


def test_heights_that_are_changed_change_no_map():
    ot = fit(randn(40, 3))
    x, before, cost = rand(1000, 3), ot.assign(rand(1000, 3)), ot.cost(1000)
    potential = ot.potential(x)
    ot.heights_.zero_()
    ot.heights_ = torch.zeros(40)
    assert torch.equal(ot.assign(x), before)
    assert torch.equal(ot.potential(x), potential)
    assert ot.cost(1000) == cost
    assert ot.refit(ot.targets_).converged_


def test_a_misspelt_attribute_is_not_called_unfitted():
    for ot in (SemiDiscreteOT(), fit(randn(10, 2))):
        with pytest.raises(AttributeError, match="SemiDiscreteOT has no attribute 'convergd_'") as caught:
            ot.convergd_  # noqa: B018
        assert not isinstance(caught.value, NotFittedError)


def test_autocast_changes_no_fit():
    y = data.mixture(500, 16)
    wanted = fit(y)
    with torch.autocast("cpu"):
        found = fit(y)
    assert_same_fit(found, wanted)


def test_estimator_can_be_copied_and_printed():
    ot = fit(randn(5, 2), seed=3)
    assert_same_fit(copy.deepcopy(ot), ot)
    assert_same_fit(pickle.loads(pickle.dumps(ot)), ot)
    assert repr(ot) == "SemiDiscreteOT(source='uniform', method='auto', tol=0.01, max_samples=None, seed=3)"
    copy.copy(SemiDiscreteOT())


@pytest.mark.parametrize("seed", [56, 68, 88])
def test_looks_keep_to_the_budget(seed):
    """Near the end of the budget, and with one more where the first look fails by little."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ot = fit(randn(200, 8, seed=seed), method="newton", seed=seed, max_samples=60_000)
    step, glance, centroids = ot.history_[-1]["n"], 60_000 // 20, 10_000
    assert ot.samples_ <= 60_000 + step + 2 * glance + centroids


def test_the_seed_is_that_of_the_fit_whatever_its_owner_sets():
    ot = fit(randn(30, 4), seed=3)
    known = ot.sample(5), ot.cost(1000), ot.singular_set().pairs, ot.certificate(1000)
    other = fit(randn(30, 4), seed=3)
    other.seed = 4
    found = other.sample(5), other.cost(1000), other.singular_set().pairs, other.certificate(1000)
    assert torch.equal(found[0], known[0])
    assert found[1] == known[1]
    assert torch.equal(found[2], known[2])
    assert found[3] == known[3]


@pytest.mark.parametrize(
    "x", [np.zeros((2, 2), ">f8"), np.zeros((2, 2), np.longdouble), np.zeros((2, 2))[::-1], np.zeros((2, 2)).tolist()]
)
def test_samples_of_another_dimension_are_refused_in_words(x):
    with pytest.raises(ValueError, match=r"^x must have shape \(n, 3\) to match the targets, got \(2, 2\)$"):
        fit(randn(5, 3)).transport(x)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.ma.masked_array([1.0, 2.0, 3.0], [False, True, False]), "targets must not be masked, got 1 masked values"),
        (torch.zeros(3, 2, device="meta"), "targets must be a dense tensor, got a meta one"),
        (
            torch.nested.nested_tensor([torch.rand(2), torch.rand(2)], layout=torch.jagged),
            "dense tensor, got a nested one",
        ),
    ],
    ids=["masked", "meta", "nested"],
)
def test_strange_targets_are_refused_in_words(y, message):
    with pytest.raises((TypeError, ValueError), match=message):
        fit(y)
