"""Every solver against truths from outside: closed forms, symmetry, a linear program, and its own promise."""

import math
from dataclasses import replace

import numpy as np
import oracles
import ot as pot
import pytest
import torch
from fits import fit
from scipy.stats import norm

from otgen import ConvergenceWarning, data
from otgen.ot.problem import make_problem
from otgen.ot.solvers import base
from otgen.ot.solvers.base import Run, State
from otgen.ot.solvers.newton_step import conjugate_gradients
from otgen.ot.solvers.starts import affine, voronoi
from otgen.ot.sources import make_source

METHODS = ["auto", "newton", "log_ratio"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("d", [1, 2, 5, 17])
def test_two_targets_under_a_normal_source(method, d):
    """Cell 0 is {<x, y_0 - y_1> > h_1 - h_0}: a half-space, whose measure is a value of Phi."""
    y = torch.randn(2, d, generator=torch.Generator().manual_seed(d))
    ot = fit(y, torch.tensor([0.3, 0.7]), source="normal", method=method, tol=1e-4)
    length = float((y[1] - y[0]).norm())
    want = length * norm.ppf(1 - 0.7)
    # chi2 <= 1e-4 allows a mass error of 0.01 sqrt(0.21); the density there turns it into heights.
    slack = 0.01 * math.sqrt(0.21) / norm.pdf(norm.ppf(0.3)) * length
    assert ot.converged_
    assert float(ot.heights_[0] - ot.heights_[1]) == pytest.approx(want, abs=slack)
    assert float(norm.cdf(float(ot.heights_[0] - ot.heights_[1]) / length)) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_one_dimension_uniform(method):
    """Cells are intervals that end at the cumulative weights c_j: h_{j+1} = h_j - c_j (y_{j+1} - y_j)."""
    generator = torch.Generator().manual_seed(1)
    y = torch.rand(7, generator=generator).sort().values * 5
    nu = torch.rand(7, generator=generator) + 0.2
    nu = (nu / nu.sum()).double()
    ot = fit(y, nu, method=method, tol=1e-4 if method != "log_ratio" else 0.01)
    ends = -(ot.heights_[1:] - ot.heights_[:-1]) / (y[1:] - y[:-1]).double()
    torch.testing.assert_close(ends, nu.cumsum(0)[:-1], atol=0.01 if method != "log_ratio" else 0.08, rtol=0)


@pytest.mark.parametrize("source", ["uniform", "normal"])
def test_auto_solves_a_line_at_once(source):
    """Any number of targets, in any order, duplicates included: cells end at the quantiles of the weights."""
    generator = torch.Generator().manual_seed(2)
    y = torch.randn(3000, generator=generator, dtype=torch.float64)
    y[7] = y[5]
    ot = fit(y, source=source, tol=1e-3)
    assert ot.certificate_.exact
    # An end is the quotient of two differences, and heights have their digits from 1 downwards.
    gap = float(y.unique().diff().min())
    assert ot.certificate_.max_relative_error <= 3000 * 4 * 2**-52 / gap
    assert ot.samples_ == 0
    assert len(ot.history_) <= 6  # the start is the solution but for rounding
    x = torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64)
    x = x if source == "uniform" else torch.special.ndtri(x)
    want = y.sort().values[(torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64) * 3000).long()]
    assert float((ot.transport(x)[:, 0] != want).double().mean()) < 0.01  # on a boundary either neighbour may win


@pytest.mark.parametrize("source", ["uniform", "normal"])
def test_symmetry(source):
    d = 4
    y = torch.cat([torch.eye(d), -torch.eye(d)])
    h = fit(y, source=source, tol=2e-5).heights_
    centre = 0.5 if source == "uniform" else 0.0  # what the source is symmetric about adds <centre, y> to every score
    want = -(y.double() @ torch.full((d,), centre).double())
    torch.testing.assert_close(h, want, atol=0.005, rtol=0)


def test_linear_program_on_a_finite_source():
    """The source draws from 400 points; POT solves the transport between those and the targets exactly."""
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(400, 2, generator=generator, dtype=torch.float64)
    y = torch.randn(5, 2, generator=generator, dtype=torch.float64)

    def source(n, generator):
        return points[torch.randint(0, 400, (n,), generator=generator)]

    cost = pot.dist(points.numpy(), y.numpy())
    exact = pot.emd2(np.full(400, 1 / 400), np.full(5, 0.2), cost)
    with pytest.warns(ConvergenceWarning):  # atoms of 1/400 cannot be split
        ot = fit(y, source=source, tol=1e-6, max_samples=2_000_000)
    dual = float((points.square().sum(1) - 2 * ot.potential(points)).mean()
                 + (y.square().sum(1) + 2 * ot.heights_).mean())  # fmt: skip
    assert dual <= exact + 1e-9
    assert dual == pytest.approx(exact, rel=2e-3)


def test_conjugate_gradients_solve():
    generator = torch.Generator().manual_seed(0)
    m = 30
    edges = torch.tensor([(i, j) for i in range(m) for j in range(i + 1, m) if (i * j) % 3 == 1])
    weights = torch.rand(len(edges), generator=generator, dtype=torch.float64)
    diagonal = torch.rand(m, generator=generator, dtype=torch.float64) + 0.1
    b = torch.randn(m, generator=generator, dtype=torch.float64)
    matrix = torch.diag(diagonal)
    for (i, j), w in zip(edges.tolist(), weights.tolist(), strict=True):
        matrix[i, i] += w
        matrix[j, j] += w
        matrix[i, j] -= w
        matrix[j, i] -= w
    want = torch.linalg.solve(matrix, b)
    torch.testing.assert_close(conjugate_gradients(edges, weights, diagonal, b, tol=1e-10), want)


def test_affine_start_is_exact_between_gaussians():
    """For targets drawn from N(0, diag(s^2)) the affine map is optimal, so its cells are nearly equal."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(300, 3, generator=generator) * torch.tensor([1.0, 3.0, 0.3])
    problem = make_problem(make_source("normal"), y)
    run = Run(problem, tol=0.01, max_samples=1, seed=0)
    n = 60_000
    chi2 = {
        name: float(((run.measure(h, n, name, 0).counts / n - problem.nu) ** 2 / problem.nu).sum())
        for name, h in (("affine", affine(problem)), ("voronoi", voronoi(problem, 1.0)))
    }
    assert chi2["affine"] < 1.5
    assert chi2["affine"] < 0.5 * chi2["voronoi"]


def test_adam_is_the_lectures_algorithm():
    """Its first step from h = 0: Adam's step has the size of the rate and the sign of the mean-free gradient."""
    y, nu = data.problem("mixture-50x4")
    with pytest.warns(ConvergenceWarning):
        ot = fit(y, nu, method="adam", max_samples=1)
    problem = make_problem(make_source("uniform"), y, nu)
    run = Run(problem, tol=0.01, max_samples=1, seed=0)
    counts = run.measure(torch.zeros(50).double(), 1000, "adam", 0, independent=True).counts
    gradient = counts / 1000 - nu
    gradient = gradient - gradient.mean()
    rate = 0.01 * math.sqrt(1 / 12) * math.sqrt(4) * problem.scale
    want = -rate * gradient.sign()
    want = want - want.mean()
    torch.testing.assert_close(ot.heights_, want, rtol=1e-4, atol=1e-9)
    assert not ot.converged_
    assert len(ot.history_) == 1


@pytest.mark.parametrize(
    "name",
    [
        "twenty-five-gaussians-256",
        "eight-gaussians-256",
        "mixture-500x8",
        "mixture-300x20-dirty",
        "mixture-300x20-zipf",
    ],
)
def test_auto_certifies(name):
    y, nu = data.problem(name)
    ot = fit(y, nu)
    assert ot.converged_
    assert ot.certificate(400 * len(y), seed=12345).holds(0.0125)  # a second opinion, on other samples


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["", "-zipf", "-dirty"])
@pytest.mark.parametrize("name", ["mixture-2000x16", "mixture-2000x32", "digits-1797x64", "sphere-2000x3"])
def test_auto_certifies_the_named_problems(name, suffix):
    y, nu = data.problem(name + suffix)
    ot = fit(y, nu)
    assert ot.converged_
    assert ot.certificate(200 * len(y), seed=54321).holds(0.0125)


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", ["eight-gaussians", "twenty-five-gaussians", "swiss-roll", "two-moons", "checkerboard"]
)
def test_auto_certifies_the_toy_sets(family):
    y, nu = data.problem(f"{family}-2000")
    assert fit(y, nu).converged_


@pytest.mark.parametrize(("factor", "offset"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1e4)])
def test_units_do_not_matter(factor, offset):
    y = data.mixture(200, 6).double()
    std = float(y.std())
    plain = fit(y)
    moved = fit(y * factor + offset * std)
    x = torch.rand(500, 6)
    torch.testing.assert_close(moved.heights_ / factor, plain.heights_, rtol=0, atol=1e-6 * std)
    assert float((moved.assign(x) != plain.assign(x)).double().mean()) < 0.01


def test_budget_is_kept_and_said():
    y, nu = data.problem("mixture-500x8")
    with pytest.warns(ConvergenceWarning, match=r"chi2 <= 0.0001 was not certified after .*: chi2 is .*max_samples$"):
        ot = fit(y, nu, tol=1e-4, max_samples=100_000)
    assert not ot.converged_
    assert not ot.certificate_.holds(1e-4)
    assert ot.history_[-1]["samples"] <= 100_000 + ot.history_[-1]["n"] + 200_000


def test_a_second_look_counts_new_samples_together_with_those_of_the_first(monkeypatch, seed):
    y, nu = torch.tensor([[1.0, 2.0], [-1.0, 0.5]], dtype=torch.float64), torch.tensor([0.3, 0.7], dtype=torch.float64)
    problem, n = make_problem(make_source("normal"), y, nu), 4000
    h = problem.heights_in(oracles.two_heights_normal(y, nu))
    first, second = (Run(problem, 1.0, n, seed).fresh(h, n, look) for look in (0, 1))
    seen = Run(problem, 1.0, n, seed).certify(h, first, 0, 1 / 2)
    tol = seen.chi2 + 0.8 * (replace(seen, share=1 / 6).upper() - seen.chi2)
    assert not seen.holds(tol)  # by little
    monkeypatch.setattr(base, "samples_of_look", lambda *_: n)
    run = Run(problem, tol, 10**6, seed)
    passed, looks, certificate, counted = base._look(run, State(h))
    assert (looks, run.used, certificate.samples) == (2, 2 * n, 2 * n)
    assert torch.equal(counted.counts, first.counts + second.counts)
    assert not torch.equal(first.counts, second.counts)
    assert passed == certificate.holds(tol)
    assert certificate.share == 1 / 6


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_matter(threads):
    y, nu = data.problem("mixture-100x5")
    want = fit(y, nu)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = fit(y, nu)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(got.cell_measures_, want.cell_measures_, rtol=0, atol=1e-3)
    torch.testing.assert_close(got.heights_, want.heights_, rtol=0, atol=1e-9)


@pytest.mark.parametrize("y", [[[0.3, 0.4]], [[1.0], [1.0], [1.0]], [[0.0], [5.0]], np.zeros((4, 3))])
def test_the_smallest_problems(y):
    ot = fit(np.asarray(y))
    assert ot.converged_
    assert float(ot.cell_measures_.sum()) == pytest.approx(1)
    torch.testing.assert_close(ot.cell_measures_, ot.weights_, rtol=0, atol=0.1)
