"""Newton on exact cells: to rounding on everything named, right where closed forms exist, and unmoved by bad input."""

import math

import numpy as np
import oracles
import ot as pot
import pytest
import scipy.sparse
import torch
from draws import rand, randn
from threadpoolctl import threadpool_limits
from torch.testing import assert_close

from otgen import PowerDiagram, SemiDiscreteOT, data, ops
from otgen.ot import ConvergenceWarning, checkpoint
from otgen.ot.problem import make_problem
from otgen.ot.solvers import Run, exact
from otgen.ot.solvers.base import State
from otgen.ot.solvers.linear import Linear
from otgen.ot.sources import make_source

SOURCES = ["uniform", "normal"]


def fit(y, nu=None, **options):
    return SemiDiscreteOT(**{"method": "exact", "progress": False} | options).fit(y, nu)


def assert_exact(ot, error=1e-9):
    """Every cell has its weight, and the certificate says how nearly."""
    c = ot.certificate_
    assert c.exact
    assert ot.converged_
    assert ot.samples_ == c.samples == 0
    assert c.max_relative_error <= error
    assert_close(ot.cell_measures_, ot.weights_, rtol=2 * error, atol=0)
    assert abs(c.gap) <= 1e-9 * max(1.0, abs(c.primal))


@pytest.mark.parametrize("d", [2, 3])
def test_multigrid_leads_where_a_factorisation_does(d, monkeypatch):
    y = rand(1500, d)
    direct = fit(y)
    monkeypatch.setattr(exact, "DIRECT", {d: 0})
    monkeypatch.setattr("otgen.ot.solvers.linear.splu", None)  # it is not used
    found = fit(y)
    assert_exact(found)
    assert_close(found.heights_, direct.heights_, rtol=0, atol=1e-8)


def test_the_same_numbers_whatever_numpy_drew_and_however_many_threads(monkeypatch):
    y = rand(12_000, 3)  # enough for BLAS to use threads
    monkeypatch.setattr(exact, "DIRECT", {3: 0})
    found = []
    for blas in (1, 2):
        np.random.seed(blas)  # noqa: NPY002  the generator that multigrid would ask
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        with threadpool_limits(blas, user_api="blas"):
            found.append(fit(y).heights_)
        assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    oracles.assert_same_bits(*found)


def test_what_no_longer_inverts_is_made_anew():
    """The inverse of a Hessian of before may be far from the present one's, or that be singular."""
    here, there = (laplacian(10 ** (3 * rand(2999, seed=seed))) for seed in (0, 1))
    linear, right = Linear(direct=10**6), rand(3000, seed=2)
    right -= right.mean()
    for matrix in (here, there):
        found = linear.solve(matrix, right, 0.1)
        assert_close(torch.from_numpy(matrix @ (found[1:] - found[0]).numpy()), right[1:], rtol=0, atol=1e-6)
    broken = rand(2999, seed=1)
    broken[1500:1502] = 0.0  # one node is alone
    for one in (Linear(direct=10**6), linear):
        with pytest.raises(RuntimeError, match="singular"):
            one.solve(laplacian(broken), right, 0.1)


def laplacian(weights):
    """Of a chain, without its first row and column."""
    m = len(weights) + 1
    below = scipy.sparse.coo_array((-weights.numpy(), (range(1, m), range(m - 1))), shape=(m, m)).tocsr()
    full = below + below.T
    full = full - scipy.sparse.diags_array(np.asarray(full.sum(1)))
    return full.tocsr()[1:, 1:]


@pytest.mark.parametrize("method", ["exact", "auto"])
def test_cells_without_facets_end_in_an_honest_answer(method):
    """Widths over nineteen orders of magnitude: more than float64 has digits for."""
    generator = torch.Generator().manual_seed(83)
    y = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    y = y * torch.exp(8 * torch.randn(200, 1, generator=generator, dtype=torch.float64))
    with pytest.warns(ConvergenceWarning):
        ot = fit(y, 1 / torch.arange(1, 201) ** 1.5, method=method, source="normal")
    assert not ot.converged_
    assert bool(ot.heights_.isfinite().all())


# --- named problems --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "name",
    ["eight-gaussians-256", "twenty-five-gaussians-256", "swiss-roll-256", "two-moons-256", "checkerboard-256"],
)
def test_named_problems_of_the_plane(name, source):
    ot = fit(*data.problem(name), source=source)
    assert_exact(ot)
    assert len(ot.history_) < 40


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["", "-zipf", "-dirty"])
@pytest.mark.parametrize(
    "name",
    [
        "eight-gaussians-2000",
        "twenty-five-gaussians-2000",
        "swiss-roll-2000",
        "two-moons-2000",
        "checkerboard-2000",
        "sphere-2000x3",
    ],
)
def test_larger_named_problems(name, suffix):
    ot = fit(*data.problem(name + suffix))
    assert_exact(ot, max(1e-9, float(moved_by_rounding(ot).clamp_max(1e-8))))


def moved_by_rounding(ot):
    """What a rounding of all heights moves of a cell, at most, relatively."""
    diagram = PowerDiagram(ot.targets_, ot.heights_)
    rates = torch.zeros_like(ot.weights_).index_add_(0, diagram.pairs.T.reshape(-1), diagram.hessian().repeat(2))
    return 2.0**-52 * ot.heights_.abs().max() * (rates / ot.weights_)[ot.weights_ > 0].max()


@pytest.mark.parametrize("source", SOURCES)
def test_tight_clusters(source):
    """Twelve clusters of spread 0.003, on which sampling methods crawl."""
    centres = randn(12, 2)
    y = centres[torch.arange(600) % 12] + 0.003 * randn(600, 2, seed=1)
    assert_exact(fit(y, source=source))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_random_targets_and_weights(d, source):
    ot = fit(randn(300, d), rand(300) + 0.1, source=source)
    assert_exact(ot, 1e-9 if d > 1 else 1e-6)
    n = 400_000
    counts = torch.bincount(ot.assign(ot._problem.source.sample(n, d, 99)), minlength=300)
    z = (counts - n * ot.weights_) / (n * ot.weights_).sqrt()
    assert float(z.square().mean()) < 1.5


# --- closed forms ----------------------------------------------------------------------------------------------------


def test_a_line():
    y, nu = 5 * rand(50, 1).sort(0).values, rand(50, seed=1) + 0.2
    nu = nu / nu.sum()
    ot = fit(y, nu)
    assert_close(ot.heights_, oracles.heights_1d(y, nu), rtol=0, atol=1e-12)
    assert_close(ot.certificate_.primal, oracles.cost_1d(y, nu), rtol=1e-12, atol=0)
    assert_close(ot.certificate_.dual, oracles.cost_1d(y, nu), rtol=1e-12, atol=0)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("small", [0.5, 0.1, 1e-3, 1e-8, 1e-12])
def test_two_targets(d, small):
    y, nu = randn(2, d, seed=d), torch.tensor([small, 1 - small], dtype=torch.float64)
    ot = fit(y, nu, source="normal")
    assert_exact(ot, max(1e-9, 1e-15 / small))
    assert_close(ot.heights_, oracles.two_heights_normal(y, nu), rtol=max(1e-9, 1e-15 / small), atol=1e-12)
    assert_close(ot.certificate_.primal, oracles.two_cost_normal(y, nu), rtol=1e-10, atol=0)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_one_target(d, source):
    """Alone, several times, or the only one with weight: it has everything."""
    spread = {"uniform": 1 / 12, "normal": 1.0}[source]
    centre = {"uniform": 0.5, "normal": 0.0}[source]
    y = torch.full((1, d), 3.0, dtype=torch.float64)
    cost = d * (spread + (3.0 - centre) ** 2)
    for targets, nu in (
        (y, None),
        (y.expand(5, d), None),
        (torch.cat([y, randn(3, d)]), torch.tensor([2.0, 0, 0, 0])),
    ):
        ot = fit(targets, nu, source=source)
        assert_exact(ot)
        assert_close(ot.certificate_.primal, cost, rtol=1e-12, atol=0)
        assert_close(ot.centroids_[0], torch.full((d,), centre, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("d", [2, 3])
def test_symmetric_targets_have_symmetric_cells(d):
    y = torch.cat([torch.eye(d), -torch.eye(d)]).double()
    h = fit(y).heights_
    assert_close(h, -(y @ torch.full((d,), 0.5, dtype=torch.float64)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("d", [2, 3])
def test_a_grid_keeps_its_boxes(d):
    """Targets in the middles of equal boxes: the map moves each box to its middle."""
    k = 6
    y = torch.cartesian_prod(*[(torch.arange(k, dtype=torch.float64) + 0.5) / k] * d)
    ot = fit(y)
    assert_exact(ot)
    assert_close(ot.centroids_, y, rtol=0, atol=1e-9)
    assert_close(ot.certificate_.primal, d / (12 * k * k), rtol=1e-9, atol=0)


@pytest.mark.parametrize("d", [1, 2])
def test_linear_program_on_a_fine_grid(d):
    """POT's, from the middles of a grid: spread out in their boxes they are a plan for the cube."""
    k = 2000 if d == 1 else 40
    y, nu = rand(6, d), rand(6, seed=1) + 0.2
    nu = nu / nu.sum()
    x = torch.cartesian_prod(*[(torch.arange(k, dtype=torch.float64) + 0.5) / k] * d).view(-1, d)
    cost = pot.dist(x.numpy(), y.numpy())
    theirs = pot.emd2(np.full(len(x), 1 / len(x)), nu.numpy(), cost, numItermax=10**6)
    ours = fit(y, nu).certificate_.primal
    assert ours == pytest.approx(theirs + d / (12 * k * k), abs=2e-4)
    assert ours <= theirs + d / (12 * k * k) + 1e-12  # theirs, each box spread out, is a plan for the cube


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_gradient_of_the_cost_by_the_targets(d, source):
    """It is 2 (nu_j y_j - integral of x over cell j)."""
    y, nu = randn(12, d), rand(12, seed=1) + 0.2
    ot = fit(y, nu, source=source)
    want = 2 * ot.weights_[:, None] * (ot.targets_ - ot.centroids_)
    step = 1e-4
    for j in (0, 5):
        for axis in range(d):
            costs = []
            for sign in (1, -1):
                moved = y.clone()
                moved[j, axis] += sign * step
                costs.append(fit(moved, nu, source=source).certificate_.primal)
            assert_close((costs[0] - costs[1]) / (2 * step), float(want[j, axis]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_cost_is_that_of_samples(d, source):
    ot = fit(randn(40, d), source=source)
    mean, (low, high) = ot.cost(200_000)
    assert mean - 2 * (mean - low) < ot.certificate_.primal < mean + 2 * (high - mean)
    assert ot.certificate(200_000, seed=1).chi2 < 6 * ot.certificate(200_000, seed=1).chi2_se


@pytest.mark.parametrize(
    ("method", "d", "source"),
    [
        ("newton", 1, "uniform"),
        ("newton", 2, "uniform"),
        ("newton", 2, "normal"),
        ("newton", 3, "uniform"),
        ("newton", 3, "normal"),
        ("log_ratio", 2, "uniform"),
    ],
)
def test_sampling_methods_find_the_exact_heights(method, d, source):
    """The measures that their heights really have keep to the tolerance that they certified on samples."""
    y = randn(40, d)
    sampled, computed = fit(y, source=source, method=method), fit(y, source=source)
    assert sampled.converged_
    measures = ops.Sites(y).diagram(sampled.heights_, ops.cube(source, d)).measures
    assert float(((measures - 1 / 40).square() * 40).sum()) < 0.01
    assert_close(sampled.heights_, computed.heights_, rtol=0, atol=0.2 * float(computed.heights_.std()))


# --- degenerate problems ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("d", "flat"), [(2, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("turned", [False, True])
def test_targets_on_a_line_or_in_a_plane(d, flat, turned, source):
    y = torch.zeros(50, d, dtype=torch.float64)
    y[:, :flat] = randn(50, flat)
    if turned:
        y = y @ torch.linalg.qr(randn(d, d, seed=7))[0] + 3
    assert_exact(fit(y, source=source), 1e-7)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("factor", "shift"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1e4), (1e-3, 1e3)])
def test_units_and_place_do_not_matter(factor, shift, source):
    y = randn(100, 2)
    plain, moved = fit(y, source=source), fit(factor * y + shift, source=source)
    assert_exact(moved)
    assert_close(moved.centroids_, plain.centroids_, rtol=0, atol=1e-7)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_duplicates_share_and_zero_weights_get_nothing(d):
    y = randn(30, d)
    y[20:25] = y[3]
    nu = rand(30, seed=1) + 0.1
    nu[7] = 0
    ot = fit(y, nu)
    assert_exact(ot)
    assert float(ot.cell_measures_[7]) == 0
    assert not bool((ot.assign(rand(10_000, d)) == 7).any())
    assert_close(ot.heights_[20:25], ot.heights_[3].expand(5), rtol=0, atol=0)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("d", [2, 3])
def test_tiny_weights(d, source):
    nu = torch.ones(40, dtype=torch.float64)
    nu[::4] = 1e-6
    assert_exact(fit(randn(40, d), nu, source=source), 1e-7)
    nu[::4] = 1e-12
    ot = fit(randn(40, d), nu, source=source)
    assert_exact(ot, 0.05)  # their cells are as exact as the largest ones: to rounding of the whole
    assert_close(ot.cell_measures_, ot.weights_, rtol=0, atol=2e-15)
    assert len(ot.history_) < 100


def test_zipf_weights():
    assert_exact(fit(randn(300, 2), 1 / torch.arange(1, 301).double() ** 2))


def test_outliers():
    y = randn(200, 2)
    y[:3] *= 1000
    assert_exact(fit(y), 1e-7)


# --- start, checkpoint, refit ----------------------------------------------------------------------------------------


def test_it_starts_where_it_is_told():
    problem = make_problem(make_source("uniform"), randn(50, 2))
    first = exact.solve(Run(problem, 0.01, 1, 0))
    again = exact.solve(Run(problem, 0.01, 1, 0, start=first.h))
    assert len(again.history) == 1
    assert_close(again.h, first.h, rtol=0, atol=1e-15)


@pytest.mark.parametrize("size", [1.0, 100.0])
def test_a_start_with_empty_cells_is_mended(size):
    problem = make_problem(make_source("uniform"), randn(50, 2))
    want = exact.solve(Run(problem, 0.01, 1, 0)).h
    found = exact.solve(Run(problem, 0.01, 1, 0, start=want + size * randn(50, seed=3)))
    assert found.converged
    assert_close(found.h, want, rtol=0, atol=1e-10)


def test_refit_after_targets_were_added_moved_and_removed():
    y = randn(100, 2)
    ot = fit(y)
    ot.refit(torch.cat([y[10:], 3 * randn(20, 2, seed=1)]))
    assert_exact(ot)
    ot.refit(y + 0.01 * randn(100, 2, seed=2))
    assert_exact(ot)


def test_a_run_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    problem = make_problem(make_source("uniform"), *data.problem("swiss-roll-256"))
    want = exact.solve(Run(problem, 0.01, 1, 0))

    class PowerCut(Exception):
        pass

    def save(path, state, *rest):
        kept(path, state, *rest)
        if state.step == 4:
            raise PowerCut

    kept = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", save)
    path = tmp_path / "run"
    with pytest.raises(PowerCut):
        exact.solve(Run(problem, 0.01, 1, 0, path=path), "name")
    monkeypatch.undo()
    assert checkpoint.load(path, State, "name", problem.m)[0].step == 4
    found = exact.solve(Run(problem, 0.01, 1, 0, path=path), "name")
    assert_close(found.h, want.h, rtol=0, atol=1e-10)
    steps = [record["step"] for record in found.history]
    assert steps == sorted(set(steps))
    assert steps[-1] == len(steps) - 1


@pytest.mark.parametrize("name", ["twenty-five-gaussians-2000", "sphere-2000x3"])
def test_it_starts_from_the_guess_that_looks_nearest(name):
    """Clusters are best moved by coordinates, a sphere best shrunk."""
    problem = make_problem(make_source("normal"), *data.problem(name))
    search = exact._Search(problem)
    tv = [float((search.at(h).diagram.measures - search.nu).abs().sum()) / 2 for h in search._guesses()]
    assert (min(tv[:2]) == min(tv)) == name.startswith("twenty-five")
    found = search.start(None).diagram.measures
    assert_close(float((found - search.nu).abs().sum()) / 2, min(tv), rtol=0, atol=1e-12)


def test_secants_need_fewer_steps_than_tangents(monkeypatch):
    def steps():
        return [fit(rand(2000, d)).history_[-1]["step"] for d in (2, 3)]

    few = steps()
    monkeypatch.setattr(exact._Search, "_wanted", lambda search, measures: search.nu - measures)
    assert all(a <= 5 and a < b for a, b in zip(few, steps(), strict=True))


def test_history_falls():
    ot = fit(*data.problem("swiss-roll-256"))
    chi2 = [record["chi2"] for record in ot.history_]
    assert chi2[-1] < 1e-15
    assert [record["empty"] for record in ot.history_] == [0] * len(chi2)
    assert all(record["samples"] == record["n"] == 0 for record in ot.history_)


# --- what it cannot do -----------------------------------------------------------------------------------------------


def test_other_dimensions_and_sources_are_refused():
    with pytest.raises(
        ValueError, match="1 to 3 dimensions and a named source, got 4 dimensions and the uniform source"
    ):
        fit(randn(5, 4))
    with pytest.raises(ValueError, match="1 to 3 dimensions and a named source, got 2 dimensions and the .* source"):
        fit(randn(5, 2), source=lambda n, generator: torch.rand(n, 2, generator=generator))


@pytest.mark.parametrize(
    ("source", "d", "auto"), [("uniform", 3, True), ("normal", 1, True), ("uniform", 4, False), ("callable", 2, False)]
)
def test_auto_computes_cells_where_it_can(source, d, auto):
    given = (lambda n, generator: torch.rand(n, d, generator=generator)) if source == "callable" else source
    assert fit(randn(10, d), source=given, method="auto", tol=0.05).certificate_.exact is auto


def test_a_tolerance_beyond_rounding_is_not_claimed():
    with pytest.warns(Warning, match="was not certified"):
        ot = fit(randn(20, 2), tol=1e-40)
    assert ot.certificate_.exact
    assert not ot.converged_
    assert math.isfinite(ot.certificate_.chi2)
