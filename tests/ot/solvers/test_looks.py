"""How often a run may look at its heights: the stated confidence holds for all certificates together."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from counts import reached, share_below, wanted
from draws import randn
from fits import fit
from torch.testing import assert_close

from otgen.ops import Measure
from otgen.ot import ConvergenceWarning
from otgen.ot.certificate import CONFIDENCE, Certificate
from otgen.ot.problem import make_problem
from otgen.ot.solvers import Run
from otgen.ot.solvers.base import State, _look, solve_by_samples
from otgen.ot.sources import BuiltIn


class Multinomial(Run):
    """A run whose measurements are drawn from known cell measures."""

    def __init__(self, problem, w, tol, seed):
        super().__init__(problem, tol=tol, max_samples=10**9, seed=seed)
        self.w = w
        self.rng = np.random.default_rng(seed)

    def measure(self, h, n, name, index, *, pairs=False, centroids=False, independent=False):
        self.spend(n)
        return Measure(torch.from_numpy(self.rng.multinomial(n, self.w)), 0.0)


class Hopeful:
    """A solver that makes no progress and asks for a certificate ten times."""

    name = "hopeful"
    state = State

    def start(self, problem, run):
        return State(torch.zeros(problem.m, dtype=torch.float64), expected=0.0)

    def step(self, problem, state, run):
        return replace(state, step=state.step + 1, expected=0.0, exhausted=state.looks >= 10)


def converged_by_luck(m, kind, times, start):
    nu = wanted(kind, m)
    problem = make_problem(BuiltIn("uniform"), np.arange(float(m)), nu)
    w = reached(nu, 0.0101, "last", np.random.default_rng(0))
    return np.mean(
        [solve_by_samples(Hopeful(), Multinomial(problem, w, 0.01, start + k)).converged for k in range(times)]
    )


@pytest.mark.parametrize(("m", "kind"), [(10, "equal"), (2, "tiny1e-4")])
def test_repeated_looks_keep_the_stated_confidence(m, kind):
    """What is 1 % beyond the tolerance is certified at most once in twenty runs, though each looks ten times."""
    assert converged_by_luck(m, kind, 200, 0) < share_below(0.05, times=200)


@pytest.mark.slow
@pytest.mark.parametrize(("m", "kind"), [(2, "equal"), (10, "equal"), (200, "zipf"), (50, "one"), (2, "tiny1e-5")])
def test_repeated_looks_keep_the_stated_confidence_in_many_runs(m, kind):
    assert converged_by_luck(m, kind, 1500, 10**6) < share_below(0.05, times=1500)


def test_looks_get_smaller_and_smaller_shares_of_the_error():
    """Look k may err with probability 0.05 / (k (k + 1)): 1/2, 1/6, 1/12, ... of it, which sum to one."""
    seen = []

    class Spy(Certificate):
        def holds(self, tol, confidence=CONFIDENCE):
            seen.append(self.share)
            return False

    class Watched(Multinomial):
        def certify(self, h, counted, look, share):
            return Spy(**asdict(super().certify(h, counted, look, share)))

    problem = make_problem(BuiltIn("uniform"), np.arange(3.0))
    solve_by_samples(Hopeful(), Watched(problem, np.ones(3) / 3, 0.1, 0))
    assert_close(seen, [1 / (k * (k + 1)) for k in range(1, len(seen) + 1)])
    assert len(seen) >= 10


def test_bounds_hold_however_often_a_fit_has_looked():
    """Though it stops at the look that came out well; and what it claims is what its bound says."""
    nu = wanted("equal", 10)
    problem = make_problem(BuiltIn("uniform"), np.arange(10.0), nu)
    w = reached(nu, 0.0099, "last", np.random.default_rng(0))
    found = [solve_by_samples(Hopeful(), Multinomial(problem, w, 0.01, k)) for k in range(200)]
    assert np.mean([s.certificate.upper() < 0.0099 for s in found]) < share_below(0.05, times=200)
    assert all(s.converged == (s.certificate.upper() <= 0.01) for s in found)
    assert {s.converged for s in found} == {True, False}


@pytest.mark.parametrize("better", [0, 0.5])
def test_the_last_certificate_of_a_fit_that_gave_up_is_a_look(better):
    class Hopeless(Hopeful):
        def start(self, problem, run):
            return State(torch.zeros(problem.m, dtype=torch.float64), looks=2, exhausted=True)

    nu = wanted("equal", 10)
    problem = make_problem(BuiltIn("uniform"), np.arange(10.0), nu)
    w = reached(nu, 0.02 - 0.02 * better, "last", np.random.default_rng(0))
    solution = solve_by_samples(Hopeless(), Multinomial(problem, w, 0.02, 0))
    assert solution.certificate.share == 1 / 12
    assert solution.converged == solution.certificate.holds(0.02) == (better > 0)


def test_a_look_that_fails_by_little_is_doubled():
    """And then certifies on the samples of both; one that fails clearly is not."""
    nu, rng = wanted("equal", 40), np.random.default_rng(0)
    problem = make_problem(BuiltIn("uniform"), np.arange(40.0), nu)

    def looked(chi2):
        found = []
        for k in range(60):
            run = Multinomial(problem, reached(nu, chi2, "all", rng), 0.01, k)
            passed, looks, certificate, counted = _look(run, State(torch.zeros(40), expected=0.007))
            assert run.used == certificate.samples == int(counted.counts.sum())
            assert passed == certificate.holds(0.01)
            assert certificate.share == (1 / 2 if looks == 1 else 1 / 6)
            found.append((passed, looks))
        return found

    near, beyond = looked(0.0075), looked(0.013)
    assert (True, 2) in near
    assert sum(passed for passed, _ in near) > 40
    assert sum(passed for passed, _ in beyond) == 0
    assert sum(looks for _, looks in beyond) < 66


def test_a_look_that_cannot_hold_does_not_take_the_samples_of_the_steps(seed):
    """A weight of 1e-10 wants ten times the budget for itself; the other cells are as good as without it."""
    y, weights = randn(100, 5, seed=seed), torch.ones(100)
    weights[0] = 1e-8
    with pytest.warns(ConvergenceWarning, match="make the least weights zero: 1e-10 of the whole wants"):
        ot = fit(y, weights, source="normal", seed=seed)
    steps = sum(record["n"] for record in ot.history_)
    assert steps > 0.4 * ot.samples_
    assert ot.certificate(200_000, seed=1).tv < 0.025  # 0.009 of it are sampling; 0.014 to 0.053 where looks came first


@pytest.mark.parametrize("source", ["normal", lambda n, generator: torch.randn(n, 5, generator=generator)])
def test_heights_that_are_known_are_looked_at_whatever_it_takes(source):
    """On a line they come without a sample, and once only."""
    weights = torch.ones(20)
    weights[0] = 1e-9
    with pytest.warns(ConvergenceWarning):
        ot = fit(torch.arange(20.0)[:, None] * torch.ones(5), weights, source=source, max_samples=100_000)
    assert ot.certificate(50_000, seed=1).tv < 0.03
