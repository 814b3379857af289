import math
from dataclasses import fields, replace

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from otgen import data
from otgen.ot import ConvergenceWarning, SemiDiscreteOT
from otgen.ot.certificate import chi2_estimate
from otgen.ot.problem import make_problem
from otgen.ot.solvers import newton
from otgen.ot.solvers.base import Run
from otgen.ot.solvers.newton import Newton, NewtonState, conjugate_gradients, first_samples
from otgen.ot.sources import BuiltIn


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def line(m=12, seed=0):
    """Sorted targets on a line, in the problem's units, and the exact heights; the Hessian has 1 / |y_i - y_{i+1}|."""
    nu = torch.rand(m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.3
    y = torch.linspace(-2, 2, m, dtype=torch.float64) + 0.05 * randn(m, seed=seed)
    problem = make_problem(BuiltIn("uniform"), y, nu)
    return problem, oracles.heights_1d(problem.y, problem.nu)


def running(problem, tol=0.01, budget=10**9, **options):
    return Run(problem, tol=tol, max_samples=budget, seed=0, **options)


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
    problem, exact = line()
    h = exact + 0.002 * randn(12, seed=1)
    state = NewtonState(h, n=400_000, step=1, damping=0.1)
    run = running(problem)
    seen = newton._measure(problem, state, run)
    move, courant, raised = newton._newton_step(problem, state, seen, 1.0, run)
    stiff = 1 / problem.y[:, 0].diff()
    hessian = torch.diag(torch.cat([stiff, torch.zeros(1)]) + torch.cat([torch.zeros(1), stiff]))
    hessian -= torch.diag(stiff, 1) + torch.diag(stiff, -1)
    want = -torch.linalg.pinv(hessian) @ seen.residual
    assert float(move @ want) > 0.98 * float(move.norm() * want.norm())
    assert 0.9 < float(move.norm() / want.norm()) < 1.1
    assert float(seen.residual @ move) < 0
    assert not bool(raised.any())
    assert 0 < courant < 1
    left = oracles.uniform_1d(problem.y, h + move) - problem.nu
    assert float((left**2 / problem.nu).sum()) < 0.05 * float((seen.residual**2 / problem.nu).sum())


@pytest.mark.parametrize("d", [1, 2, 4, 16, 500])
def test_band_mean_is_that_of_a_power_law(d):
    """Gaps t of a cell whose measure is s^d at height s: the share beyond t is (1 - t / s)^d."""
    t = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    beyond = (1 - t) ** d
    mean = float(torch.trapezoid(beyond, t))
    width = min(newton.BANDWIDTH * mean, 1.0)
    within = 1 - (1 - width) ** d
    assert newton.band_mean(d) == pytest.approx(within / (newton.BANDWIDTH * mean) / d, rel=1e-4)


@pytest.mark.parametrize("d", [1, 2, 7, 64])
@pytest.mark.parametrize("ratio", [1e-3, 0.5, 1.0, 1.0001, 30.0])
def test_a_secant_takes_a_cell_to_its_weight_at_once(d, ratio):
    """A cell of measure s^d alone: Newton's step with the secant for its slope lands where the measure is right."""
    w = 1.1**d
    secant = newton._secant(torch.tensor([w], dtype=torch.float64), torch.tensor([ratio], dtype=torch.float64), 1.0, d)
    after = 1.1 + (ratio - 1) * w / (d * float(secant) / 1.1)
    assert after**d == pytest.approx(ratio * w, rel=1e-5 if abs(ratio - 1) < 0.01 else 1e-9)


def test_a_secant_believes_only_the_signal():
    w, ratio = torch.tensor([2.0]).double(), torch.tensor([5.0]).double()
    assert float(newton._secant(w, ratio, 0.0, 4)) == 2.0
    assert 2.0 < float(newton._secant(w, ratio, 0.5, 4)) < float(newton._secant(w, ratio, 1.0, 4))


@pytest.mark.parametrize("seed", range(4))
def test_a_step_goes_downhill(seed):
    """Whatever the heights: the energy falls along the move, and no step exchanges more than the mass there is."""
    problem = make_problem(BuiltIn("normal"), randn(40, 3, seed=seed))
    run = running(problem)
    h = randn(40, seed=seed) * 10 ** (seed - 2.0)
    state = Newton().start(problem, running(problem, start=h))
    after = Newton().step(problem, state, run)
    assert after.slope < 0
    x = problem.source.sample(100_000, 3, 99).double()
    before = oracles.energy(x, problem.y, after.base, problem.nu)
    assert oracles.energy(x, problem.y, after.base + 0.2 * after.move, problem.nu) < before
    assert_close(after.h, after.base + after.move - (after.base + after.move).mean())


def test_a_step_too_far_is_taken_back():
    """Where the energy has turned steeply upwards along the last step, a part of it is undone."""
    problem, exact = line()
    move = 0.1 * (randn(12, seed=2) - randn(12, seed=2).mean())
    base = exact - 0.25 * move  # the minimum along the step is at a quarter of it
    run = running(problem)
    w = oracles.uniform_1d(problem.y, base)
    slope = float((w - problem.nu) @ move)
    assert slope < 0
    state = NewtonState(base + move, n=50_000, base=base, move=move, slope=slope, step=1)
    after = Newton().step(problem, state, run)
    part = float((after.h - base) @ move / (move @ move))
    assert 0.1 <= part <= 0.7
    assert_close(after.h - after.h.mean(), (base + part * move) - (base + part * move).mean(), rtol=0, atol=1e-9)
    assert after.damping > state.damping

    def energy(h):
        return oracles.energy(torch.linspace(0, 1, 20_001).double()[:, None], problem.y, h, problem.nu)

    assert energy(after.h) < energy(state.h)


def test_a_step_that_was_right_is_kept():
    problem, exact = line()
    move = 0.1 * randn(12, seed=2)
    base = exact - move
    slope = float((oracles.uniform_1d(problem.y, base) - problem.nu) @ move)
    w = oracles.uniform_1d(problem.y, base)
    signal = float(((w - problem.nu) ** 2 / problem.nu).sum())
    state = NewtonState(exact, n=50_000, base=base, move=move, slope=slope, signal=signal, linear=1e-4, step=1)
    after = Newton().step(problem, state, running(problem))
    assert after.damping == state.damping / 2
    crooked = Newton().step(problem, replace(state, signal=1e-9, linear=1e-9), running(problem))
    assert after.damping < crooked.damping < state.damping
    assert_close(after.base - after.base.mean(), exact - exact.mean(), rtol=0, atol=1e-9)
    assert chi2_estimate(problem.source.measure(problem.y, after.h, 10**5, 5).counts, problem.nu)[0] < 0.005


def test_a_step_depends_on_its_state_alone():
    problem = make_problem(BuiltIn("uniform"), *data.problem("mixture-100x5"))
    solver, run = Newton(), running(problem)
    state = solver.start(problem, run)
    for _ in range(4):
        state, again = solver.step(problem, state, run), solver.step(problem, state, running(problem))
        for field in fields(state):
            a, b = getattr(state, field.name), getattr(again, field.name)
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name


# --- empty cells -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [3.0, 100.0, 1e6])
def test_empty_cells_are_raised_to_their_share(depth):
    problem = make_problem(BuiltIn("uniform"), randn(30, 2))
    sunk = SemiDiscreteOT(progress=False).fit(randn(30, 2)).heights_ / problem.scale
    sunk[17] -= depth
    run, state = running(problem), NewtonState(sunk, n=6000, step=1)
    counted = newton._measure(problem, replace(state, step=0), run).counted
    assert torch.nonzero(counted.counts == 0).flatten().tolist() == [17]
    raised = newton._raise_empty(problem, state, counted.counts, counted.pairs[:, 0], float(counted.gaps.mean()), run)
    assert torch.nonzero(raised).flatten().tolist() == [17]
    after = problem.source.measure(problem.y, sunk + raised, 200_000, 7).counts / 200_000
    assert_close(float(after[17]), 1 / 30, rtol=0.1, atol=0)


def test_cells_that_are_near_are_left_to_the_step():
    """So are cells of which no sample was to be expected."""
    problem = make_problem(BuiltIn("uniform"), randn(30, 2), torch.tensor([1.0] * 29 + [1e-5]))
    h = -0.15 * problem.y.square().sum(1)
    h[29] -= 100
    run = running(problem)
    winners = run.measure(h, 3000, "newton", -1, pairs=True).pairs[:, 0]
    counts = torch.full((30,), 100)
    counts[29] = 0
    assert not bool(newton._raise_empty(problem, NewtonState(h, n=3000), counts, winners, 1.0, run).any())
    counts[3] = 0  # by chance: it needs no raising
    assert not bool(newton._raise_empty(problem, NewtonState(h, n=3000), counts, winners, 1.0, run).any())


def test_an_outlier_is_found():
    y = randn(60, 3)
    y[11] *= 30
    ot = SemiDiscreteOT(method="newton", progress=False).fit(y)
    assert ot.converged_
    assert float(ot.cell_measures_[11]) == pytest.approx(1 / 60, abs=0.006)


# --- the whole -------------------------------------------------------------------------------------------------------


def test_first_samples_see_the_smaller_weights():
    def first(nu, tol=0.01):
        problem = make_problem(BuiltIn("uniform"), torch.arange(float(len(nu))), nu)
        return first_samples(problem, running(problem, tol))

    assert first(torch.ones(1000)) == 10_000
    assert first(torch.ones(10)) == 2000
    assert 10_000 < first(1 / torch.arange(1, 1001).double() ** 1.2) <= 40_000
    assert first(torch.ones(1000), tol=1.0) == 2000
    tiny = torch.full((500,), 1e-300, dtype=torch.float64)
    assert first(torch.cat([torch.ones(500, dtype=torch.float64), tiny])) == 40_000


@pytest.mark.parametrize("name", ["mixture-300x8", "mixture-300x16-zipf", "mixture-300x8-dirty", "sphere-300x5"])
@pytest.mark.parametrize("source", ["uniform", "normal"])
def test_it_reaches_its_tolerance(name, source):
    y, nu = data.problem(name)
    ot = SemiDiscreteOT(source, method="newton", progress=False).fit(y, nu)
    assert ot.converged_
    c = ot.certificate(300_000, seed=1)
    assert c.chi2 < 0.01
    assert ot.samples_ < 30 * 300 / 0.01


def test_it_follows_the_floor_of_sampling():
    """Far below the default tolerance, the price stays near the samples that any method needs: m / chi2."""
    y, nu = data.problem("mixture-300x8")
    ot = SemiDiscreteOT(method="newton", tol=3e-4, progress=False).fit(y, nu)
    assert ot.converged_
    assert ot.samples_ < 12 * 300 / 3e-4
    assert ot.certificate(3_000_000, seed=1).chi2 < 3e-4


def test_it_starts_where_it_is_told():
    problem = make_problem(BuiltIn("uniform"), *data.problem("mixture-100x5"))
    h = randn(100)
    state = Newton().start(problem, running(problem, start=h))
    assert_close(state.h, h - h.mean())
    assert state.n == first_samples(problem, running(problem))


def test_it_gives_up_where_nothing_is_left_to_gain(monkeypatch):
    monkeypatch.setattr(newton, "HOPELESS", 2)
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])

    def source(n, generator):  # four atoms: no cell can have a third
        return corners[torch.randint(4, (n,), generator=generator)]

    with pytest.warns(ConvergenceWarning):
        ot = SemiDiscreteOT(source, method="newton", max_samples=10**8, progress=False).fit(randn(3, 2))
    assert not ot.converged_
    assert ot.samples_ < 10**7


def test_one_target_needs_no_step():
    problem = make_problem(BuiltIn("uniform"), torch.ones(1, 3))
    state = Newton().start(problem, running(problem))
    after = Newton().step(problem, state, running(problem))
    assert after.expected == 0.0
    assert after.h.tolist() == [0.0]
    assert math.isinf(state.expected)
    assert replace(after, step=0, expected=math.inf, best=math.inf, stall=0, best_tv=math.inf, idle=0).n == state.n


# --- how much of a step is taken -------------------------------------------------------------------------------------


def test_gains_leave_what_was_foreseen():
    """Errors of known size seen through known noise: what `_left` says is left, and it is near the least."""
    m, n = 4000, 200_000
    generator = torch.Generator().manual_seed(0)
    problem = make_problem(BuiltIn("uniform"), randn(m, 2))
    noise = m / n
    for signal in (0.1 * noise, noise, 10 * noise):
        error = (signal / m * problem.nu).sqrt() * randn(m, seed=1)
        error[0] = 30 * (noise / m * problem.nu[0]).sqrt()  # one whose error is certain
        found = error + (noise / m * problem.nu).sqrt() * torch.randn(m, generator=generator, dtype=torch.float64)
        chi2 = float((error.square() / problem.nu).sum())
        seen = newton._Seen(None, found, chi2, 0.0, noise)
        gain = newton._gains(problem, seen, chi2)
        assert float(gain[0]) > 0.98
        assert float(gain.median()) == pytest.approx(chi2 / (chi2 + noise), rel=0.01)
        left = float(((error - gain * found).square() / problem.nu).sum())
        blur = 2 * noise / m**0.5  # the standard error of a measured chi2
        assert newton._left(problem, seen, gain) == pytest.approx(left, rel=0.05, abs=2 * blur)
        assert left < 1.1 * chi2 * noise / (chi2 + noise)
