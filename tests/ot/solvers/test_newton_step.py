import math
from dataclasses import replace

import oracles
import pytest
import torch
from draws import randn
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import on_a_line
from torch.testing import assert_close

from otgen import data
from otgen.ops import Measure
from otgen.ot import SemiDiscreteOT
from otgen.ot.problem import make_problem
from otgen.ot.solvers import newton_step, starts
from otgen.ot.solvers.base import Run
from otgen.ot.solvers.halves import Seen, measure
from otgen.ot.solvers.newton_step import conjugate_gradients
from otgen.ot.sources import CHUNK, BuiltIn, Custom


def running(problem):
    return Run(problem, tol=0.01, max_samples=10**9, seed=0)


# --- conjugate gradients ---------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    m=st.integers(1, 30),
    density=st.floats(0, 1),
    seed=st.integers(0, 10**6),
    range_=st.sampled_from([0.0, 3.0]),
    small=st.sampled_from([1e-3, 1.0]),
)
def test_conjugate_gradients_solve_the_dense_system(m, density, seed, range_, small):
    generator = torch.Generator().manual_seed(seed)
    i, j = torch.triu_indices(m, m, 1)
    kept = torch.rand(i.shape, generator=generator) < density  # may fall apart into several components
    edges = torch.stack([i[kept], j[kept]], dim=1)
    weights = 10 ** (range_ * torch.rand(len(edges), generator=generator, dtype=torch.float64))
    diagonal = small * (0.1 + torch.rand(m, generator=generator, dtype=torch.float64))
    b = torch.randn(m, generator=generator, dtype=torch.float64)
    adjacency = torch.zeros(m, m, dtype=torch.float64)
    adjacency[edges[:, 0], edges[:, 1]] = weights
    adjacency += adjacency.T.clone()
    matrix = torch.diag(adjacency.sum(1) + diagonal) - adjacency
    want = torch.linalg.solve(matrix, b)
    assert_close(conjugate_gradients(edges, weights, diagonal, b, tol=1e-13), want, rtol=1e-6, atol=1e-7)
    rough = conjugate_gradients(edges, weights, diagonal, b, tol=1e-2)
    precondition = torch.diag(matrix)

    def residual(s):
        return float(((matrix @ s - b).square() / precondition).sum().sqrt())

    assert residual(rough) <= 1e-2 * residual(torch.zeros(m, dtype=torch.float64)) + 1e-12


def test_conjugate_gradients_of_nothing():
    none, one = torch.empty(0, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    edges = torch.empty(0, 2, dtype=torch.int64)
    assert_close(conjugate_gradients(edges, none, 2 * one, 3 * one), 1.5 * one)
    assert_close(conjugate_gradients(edges, none, one.repeat(4), 0 * one.repeat(4)), 0 * one.repeat(4))


# --- a step ----------------------------------------------------------------------------------------------------------


def test_a_step_is_newtons():
    """On a line near the solution the move is along the solution of the tridiagonal system, and nearly as long."""
    problem = make_problem(BuiltIn("uniform"), *on_a_line())
    exact = oracles.heights_1d(problem.y, problem.nu)
    h = exact + 0.002 * randn(12, seed=1)
    seen = measure(problem, h, 400_000, 0, running(problem))
    move, courant = newton_step.newton_step(problem, seen, torch.ones(12).double(), 0.1)
    stiff = 1 / problem.y[:, 0].diff()
    hessian = torch.diag(torch.cat([stiff, torch.zeros(1)]) + torch.cat([torch.zeros(1), stiff]))
    hessian -= torch.diag(stiff, 1) + torch.diag(stiff, -1)
    want = -torch.linalg.pinv(hessian) @ seen.residual
    assert float(move @ want) > 0.98 * float(move.norm() * want.norm())
    assert 0.9 < float(move.norm() / want.norm()) < 1.1
    assert float(seen.residual @ move) < 0
    assert 0 < courant < 1
    left = oracles.uniform_1d(problem.y, h + move) - problem.nu
    assert float((left**2 / problem.nu).sum()) < 0.05 * float((seen.residual**2 / problem.nu).sum())
    assert float(move.mean()) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("seen_from_both", [False, True])
def test_a_wide_cell_does_not_run_away(seen_from_both):
    """Its neighbours' sides are narrow, and it may be that no sample has been seen there."""
    others, each = 40, 100
    of_wide = torch.stack([torch.zeros(80), 1 + torch.arange(80) % others], dim=1)
    best = 1 + torch.arange(others * each) % others
    of_others = torch.stack([best, best % others + 1], dim=1)
    gaps = torch.cat([torch.linspace(0.1, 20, 80), torch.linspace(0.01, 1, others * each)])
    if seen_from_both:  # in proportion to the bands
        of_others[:others, 1] = 0
        of_others[:others, 0] = 1 + torch.arange(others)
    pairs = torch.cat([of_wide, of_others]).int()
    counts = pairs[:, 0].bincount()
    n, nu = len(pairs), torch.full((others + 1,), 1 / (others + 1), dtype=torch.float64)
    seen = Seen(Measure(counts, 0.0, pairs, gaps), n, counts / n - nu, 0.01, 0.01, 0.01)
    problem = make_problem(BuiltIn("normal"), randn(others + 1, 16))
    half = torch.full((others + 1,), 0.5).double()
    move, _ = newton_step.newton_step(problem, seen, half, 0.01)
    assert 0 < float(move[0]) < 0.5 * float(gaps[:80].mean())


@pytest.mark.parametrize("d", [1, 2, 4, 16, 500])
def test_band_mean_is_that_of_a_power_law(d):
    """Gaps t of a cell whose measure is s^d at height s: the share beyond t is (1 - t / s)^d."""
    t = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    beyond = (1 - t) ** d
    mean = float(torch.trapezoid(beyond, t))
    width = min(newton_step.BANDWIDTH * mean, 1.0)
    within = 1 - (1 - width) ** d
    assert newton_step.band_mean(d) == pytest.approx(within / (newton_step.BANDWIDTH * mean) / d, rel=1e-4)


@pytest.mark.parametrize("d", [1, 2, 7, 64])
@pytest.mark.parametrize("ratio", [1e-3, 0.5, 1.0, 1.0001, 30.0])
def test_a_secant_takes_a_cell_to_its_weight_at_once(d, ratio):
    """A cell of measure s^d alone: Newton's step with the secant for its slope lands where the measure is right."""
    w = 1.1**d
    secant = newton_step._secant(
        torch.tensor([w], dtype=torch.float64), torch.tensor([ratio], dtype=torch.float64), 1.0, d
    )
    after = 1.1 + (ratio - 1) * w / (d * float(secant) / 1.1)
    assert after**d == pytest.approx(ratio * w, rel=1e-5 if abs(ratio - 1) < 0.01 else 1e-9)


def test_a_secant_believes_only_the_signal():
    w, ratio = torch.tensor([2.0]).double(), torch.tensor([5.0]).double()
    assert float(newton_step._secant(w, ratio, 0.0, 4)) == 2.0
    assert 2.0 < float(newton_step._secant(w, ratio, 0.5, 4)) < float(newton_step._secant(w, ratio, 1.0, 4))


# --- empty cells -----------------------------------------------------------------------------------------------------


def sunk_and_seen(source, m, sunk, depth, n):
    """Solved heights of which some have sunk, and what was measured there."""
    y = randn(m, 2)
    h = SemiDiscreteOT(source, tol=0.02, progress=False).fit(y).heights_.double()
    problem = make_problem(Custom(source) if callable(source) else BuiltIn(source), y)
    h = h / problem.scale
    h[sunk] -= depth
    run = running(problem)
    seen = measure(problem, h, n, 0, run)
    assert torch.nonzero(seen.counted.counts == 0).flatten().tolist() == sunk
    return problem, h, seen, run


@pytest.mark.parametrize("depth", [3.0, 100.0, 1e6])
@pytest.mark.parametrize("few", [0, starts.FEW])
def test_empty_cells_are_raised_to_their_share(depth, few, monkeypatch):
    """Wherever the others go: all together, or each a little."""
    monkeypatch.setattr(starts, "FEW", few)
    problem, h, seen, run = sunk_and_seen("uniform", 30, [17], depth, 6000)
    for move in torch.zeros(30), torch.full((30,), -50.0), 0.02 * randn(30, seed=1):
        raised = newton_step.raise_empty(problem, h, move.double(), seen, 0, run)
        assert torch.nonzero(raised).flatten().tolist() == [17]
        after = h + move.index_fill(0, torch.tensor([17]), 0.0) + raised
        assert_close(float(measured(problem, after)[17]), 1 / 30, rtol=0.1, atol=0)


def measured(problem, h):
    return problem.source.measure(problem.y, h, 200_000, 7).counts / 200_000


def test_empty_cells_are_raised_by_the_samples_that_were_measured():
    """Also where a user's sampler makes other ones for another number."""

    def ring(n, generator):
        angle = 2 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
        return (1 + torch.rand(n, 1, generator=generator)) * torch.stack([angle.cos(), angle.sin()], dim=1)

    problem, h, seen, run = sunk_and_seen(ring, 60, [17], 100, 5 * CHUNK // 2)
    raised = newton_step.raise_empty(problem, h, torch.zeros(60), seen, 0, run)
    assert_close(float(measured(problem, h + raised)[17]), 1 / 60, rtol=0.2, atol=0)  # 166 samples were given to it


def test_cells_of_which_no_sample_was_to_be_expected_are_left_to_the_step():
    problem = make_problem(BuiltIn("uniform"), randn(30, 2), torch.tensor([1.0] * 29 + [1e-5]))
    h = -0.15 * problem.y.square().sum(1)
    h[29] -= 100
    run = running(problem)
    seen, counts = measure(problem, h, 3000, 0, run), torch.full((30,), 100)
    counts[29] = 0
    seen = replace(seen, counted=replace(seen.counted, counts=counts))
    assert not bool(newton_step.raise_empty(problem, h, torch.zeros(30), seen, 0, run).any())


def test_cells_in_dense_and_thin_places_settle(seed):
    """Gaps differ a thousandfold: an empty cell that rose as others do would take many times its share."""

    def cubes(n, generator):
        return torch.randn(n, 5, generator=generator) ** 3

    ot = SemiDiscreteOT(cubes, tol=0.02, max_samples=3_000_000, seed=seed, progress=False)
    assert ot.fit(cubes(800, torch.Generator().manual_seed(1))).converged_


def test_pairs_of_cells_keep_to_their_other_neighbours(seed):
    """Targets that lie close have each other's facets in plain view, and few samples at all others."""

    def squares(n, generator):
        return torch.rand(n, 2, generator=generator).square()

    y, nu = data.problem("checkerboard-1000-zipf")
    ot = SemiDiscreteOT(squares, tol=0.02, max_samples=2_000_000, seed=seed, progress=False).fit(y, nu)
    assert ot.converged_
