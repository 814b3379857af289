import math
from dataclasses import fields, replace
from types import SimpleNamespace

import oracles
import pytest
import torch
from draws import randn
from problems import on_a_line
from torch.testing import assert_close

from otgen import data
from otgen.ot import ConvergenceWarning, SemiDiscreteOT
from otgen.ot.certificate import chi2_estimate, sampling_bound
from otgen.ot.problem import make_problem
from otgen.ot.solvers import newton
from otgen.ot.solvers.base import Run, State, solve_by_samples
from otgen.ot.solvers.newton import Newton, NewtonState, first_samples
from otgen.ot.sources import BuiltIn


def running(problem, tol=0.01, budget=10**9, **options):
    return Run(problem, tol=tol, max_samples=budget, seed=0, **options)


# --- a step ----------------------------------------------------------------------------------------------------------


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
    problem = make_problem(BuiltIn("uniform"), *on_a_line())
    exact = oracles.heights_1d(problem.y, problem.nu)
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


def test_what_a_failed_certificate_saw_counts_by_its_certainty():
    problem = make_problem(BuiltIn("normal"), randn(30, 5))
    run = Run(problem, tol=0.01, max_samples=10**9, seed=0)
    start = Newton().start(problem, run)
    for se in (1e-9, 1e9, math.inf):
        assert Newton().step(problem, replace(start, chi2=5.0, chi2_se=se), run).chi2_se == math.inf
    sure, unsure, plain = (row["chi2"] for row in run.history)
    assert sure == pytest.approx(5.0)
    assert unsure == pytest.approx(plain) != pytest.approx(5.0)


def test_a_step_that_was_right_is_kept():
    problem = make_problem(BuiltIn("uniform"), *on_a_line())
    exact = oracles.heights_1d(problem.y, problem.nu)
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


def test_an_outlier_is_found():
    y = randn(60, 3)
    y[11] *= 30
    ot = SemiDiscreteOT(method="newton", progress=False).fit(y)
    assert ot.converged_
    assert float(ot.cell_measures_[11]) == pytest.approx(1 / 60, abs=0.006)


# --- the whole -------------------------------------------------------------------------------------------------------


def test_first_samples_are_ten_per_target():
    def first(m, tol=0.01):
        problem = make_problem(BuiltIn("uniform"), torch.arange(float(m)))
        return first_samples(problem, running(problem, tol))

    assert first(1000) == 10_000
    assert first(10) == 2000
    assert first(1000, tol=1.0) == 2000
    assert first(2000, tol=1.0) == 4000


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


def test_small_cells_beside_large_ones_settle():
    """The slope at their facet is that of the small one, also where the band of the large one reaches far beyond it."""
    y, nu = data.problem("mixture-2000x32-zipf")
    tv = 0.01
    fits = [SemiDiscreteOT(tol=2 * math.pi * tv**2, seed=s, progress=False).fit(y, nu) for s in range(3)]
    assert all(ot.converged_ for ot in fits)
    assert sum(ot.samples_ for ot in fits) / 3 < 2.5 * sampling_bound(2000, tv)


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


def test_who_gives_up_gives_the_best_heights():
    last, best = randn(5), randn(5, seed=1)
    lost = SimpleNamespace(name="lost", state=State, start=lambda *_: State(last, exhausted=True, fallback=best))
    problem = make_problem(BuiltIn("uniform"), randn(5, 4))
    assert torch.equal(solve_by_samples(lost, running(problem)).h, best)


def test_one_target_needs_no_step():
    problem = make_problem(BuiltIn("uniform"), torch.ones(1, 3))
    state = Newton().start(problem, running(problem))
    after = Newton().step(problem, state, running(problem))
    assert after.expected == 0.0
    assert after.h.tolist() == [0.0]
    assert math.isinf(state.expected)
    assert replace(after, step=0, expected=math.inf, best=math.inf, stall=0, best_tv=math.inf, idle=0).n == state.n
