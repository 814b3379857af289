"""The lecture's Algorithm 1 (An et al., AE-OT), transcribed from its listing and run beside the solver."""

import math
from dataclasses import replace

import numpy as np
import oracles
import pytest
import torch
from torch.testing import assert_close

from otgen import ops
from otgen.ot import ConvergenceWarning, SemiDiscreteOT
from otgen.ot.problem import make_problem
from otgen.ot.solvers import adam
from otgen.ot.solvers.adam import Adam
from otgen.ot.solvers.base import Run
from otgen.ot.sources import BuiltIn
from otgen.seeds import stream


def algorithm_1(problem, name, seed, steps, samples, patience, rate):
    """Lines 3 to 11 in NumPy: heights and N after every step, samples drawn as the solver names them."""
    y, nu = problem.y.numpy(), problem.nu.numpy()
    h = np.zeros(len(y))  # 3
    first, second = np.zeros(len(y)), np.zeros(len(y))
    n, lowest, since, path = samples, math.inf, 0, []
    for t in range(steps):  # 4
        x = ops.sample(name, n, y.shape[1], seed=stream(seed, "adam", t)).double().numpy()  # 5
        scores = x @ y.T + h
        gradient = np.bincount(scores.argmax(1), minlength=len(y)) / n - nu  # 6
        energy = scores.max(1).mean() - h @ nu
        gradient = gradient - gradient.mean()  # 7
        first = 0.9 * first + 0.1 * gradient  # 8, with beta_1 = 0.9 and beta_2 = 0.5
        second = 0.5 * second + 0.5 * gradient**2
        step = (first / (1 - 0.9 ** (t + 1))) / (np.sqrt(second / (1 - 0.5 ** (t + 1))) + 1e-8)
        h = h - rate * step
        if energy < lowest:
            lowest, since = energy, 0
        else:
            since += 1
        if since == patience:  # 9: E(h) has not decreased for s steps
            n, lowest, since = 2 * n, math.inf, 0  # 10
        path.append((h - h.mean(), n))
    return path


@pytest.mark.parametrize("name", ["uniform", "normal"])
@pytest.mark.parametrize("seed", range(2))
def test_every_step_is_algorithm_1(name, seed, monkeypatch):
    monkeypatch.setattr(adam, "PATIENCE", 4)
    generator = torch.Generator().manual_seed(seed)
    y, nu = torch.randn(30, 3, generator=generator), torch.rand(30, generator=generator) + 0.1
    problem = make_problem(BuiltIn(name), y, nu)
    run, solver = Run(problem, tol=0.01, max_samples=10**9, seed=seed), Adam()
    rate = adam.RATE * problem.source.std(3) * math.sqrt(3)
    state = solver.start(problem, run)
    assert not bool(state.h.any())
    path = algorithm_1(problem, name, seed, 90, state.n, 4, rate)
    doublings = 0
    for h, n in path:
        before = state.n
        state = solver.step(problem, state, run)
        assert_close(state.h, torch.from_numpy(h), rtol=0, atol=1e-9)
        assert state.n == n
        doublings += state.n == 2 * before
    assert doublings >= 2
    assert run.used == sum(row["n"] for row in run.history)


def test_it_starts_where_it_is_told():
    problem = make_problem(BuiltIn("uniform"), torch.tensor([0.0, 1.0, 2.0, 3.0]))
    run = Run(problem, tol=0.01, max_samples=10**9, seed=0, start=torch.arange(4).double())
    assert Adam().start(problem, run).h.tolist() == [0, 1, 2, 3]


def test_with_more_samples_the_energy_is_compared_anew():
    problem = make_problem(BuiltIn("uniform"), torch.tensor([0.0, 1.0, 2.0, 3.0]))
    run = Run(problem, tol=0.01, max_samples=10**9, seed=0)
    before = replace(Adam().start(problem, run), lowest=-math.inf, since=adam.PATIENCE - 1)
    after = Adam().step(problem, before, run)
    assert (after.n, after.lowest, after.since) == (2 * before.n, math.inf, 0)


def test_first_step_by_hand():
    """From h = 0 all mass goes to the largest target: gradient (-1/4, -1/4, -1/4, 3/4), and each moves by the rate.

    Bias correction makes the first step m / sqrt(v) = g / |g|, whatever the betas are.
    """
    problem = make_problem(BuiltIn("uniform"), torch.tensor([0.0, 1.0, 2.0, 3.0]))
    run = Run(problem, tol=0.01, max_samples=10**9, seed=0)
    counts = run.measure(torch.zeros(4, dtype=torch.float64), 1000, "adam", 0, independent=True).counts
    assert counts.tolist() == [0, 0, 0, 1000]
    state = Adam().step(problem, Adam().start(problem, run), run)
    rate = 0.01 * math.sqrt(1 / 12)
    want = rate * torch.tensor([1.0, 1, 1, -1], dtype=torch.float64)
    assert_close(state.h, want - want.mean(), rtol=1e-6, atol=0)
    assert run.history[0]["empty"] == 3


def test_samples_are_not_doubled_without_end(monkeypatch):
    monkeypatch.setattr(adam, "PATIENCE", 1)
    monkeypatch.setattr(adam, "MAX_SAMPLES", 300)
    problem = make_problem(BuiltIn("normal"), torch.randn(10, 2, generator=torch.Generator().manual_seed(0)))
    run, solver = Run(problem, tol=0.01, max_samples=10**9, seed=0), Adam()
    state = solver.start(problem, run)
    for _ in range(40):
        state = solver.step(problem, state, run)
    assert state.n == 3000


def test_it_reaches_an_easy_goal():
    y, nu = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0.4, 0.6], dtype=torch.float64)
    ot = SemiDiscreteOT("normal", method="adam", tol=0.005, progress=False).fit(y, nu)
    assert ot.converged_
    assert_close(oracles.two_targets_normal(y, ot.heights_), nu, rtol=0, atol=0.05)


def test_it_says_so_where_it_does_not_get_there():
    y = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    with pytest.warns(ConvergenceWarning, match="chi2 <= 1e-05 was not certified"):
        ot = SemiDiscreteOT(method="adam", tol=1e-5, max_samples=300_000, progress=False).fit(y)
    assert not ot.converged_
    chi2 = [row["chi2"] for row in ot.history_]
    assert min(chi2[-10:]) < 0.5 * chi2[0]
