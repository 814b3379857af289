import math

import pytest
import torch
from torch.testing import assert_close

from otgen import data, ops
from otgen.ot import ConvergenceWarning, SemiDiscreteOT
from otgen.ot.problem import make_problem
from otgen.ot.solvers.base import Run
from otgen.ot.solvers.log_ratio import COOLING, LAST_ETA, LogRatio
from otgen.ot.sources import BuiltIn
from otgen.seeds import stream


def problem_and_run(m=40, d=3, seed=0, tol=0.01):
    generator = torch.Generator().manual_seed(seed)
    y, nu = torch.randn(m, d, generator=generator), torch.rand(m, generator=generator) + 0.2
    problem = make_problem(BuiltIn("normal"), y, nu)
    return problem, Run(problem, tol=tol, max_samples=10**9, seed=seed)


def test_a_step_by_hand():
    """h_j falls by eta log((c_j + 1) / (n nu_j + 1)) for the counts c of n fresh samples."""
    problem, run = problem_and_run()
    state = LogRatio().start(problem, run)
    after = LogRatio().step(problem, state, run)
    x = ops.sample("normal", state.n, 3, seed=stream(0, "log-ratio", 0), sobol=True).double()
    top = (x @ problem.y.T + state.h).topk(2, dim=1)
    counts = torch.bincount(top.indices[:, 0], minlength=40)
    h = [
        float(state.h[j]) - state.eta * math.log((int(counts[j]) + 1) / (state.n * float(problem.nu[j]) + 1))
        for j in range(40)
    ]
    want = torch.tensor(h, dtype=torch.float64)
    assert_close(after.h, want - want.mean(), rtol=1e-9, atol=1e-12)
    last = LAST_ETA * float((top.values[:, 0] - top.values[:, 1]).median())
    assert_close(after.eta, max(COOLING * state.eta, last), rtol=1e-5, atol=0)


def test_a_cell_that_is_too_large_falls_and_an_empty_one_rises():
    problem, run = problem_and_run()
    start = LogRatio().start(problem, run)
    tilted = start.h.clone()
    tilted[3] += 2
    tilted[5] -= 50
    run.start = tilted
    state = LogRatio().start(problem, run)
    after = LogRatio().step(problem, state, run)
    move = after.h - state.h
    assert int(move.argmin()) == 3
    assert int(move.argmax()) == 5


def test_eta_cools_to_its_floor_and_samples_grow_then():
    problem, run = problem_and_run(tol=0.002)
    solver = LogRatio()
    state = solver.start(problem, run)
    first = state.n
    for _ in range(60):
        before = state
        state = solver.step(problem, state, run)
        assert state.eta >= COOLING * before.eta * (1 - 1e-12)
        assert state.n in (before.n, 2 * before.n) or state.n == int(2 * 40 / 0.002)
    assert state.n > first
    gaps = run.measure(before.h, before.n, "log-ratio", before.step, pairs=True).gaps
    assert state.eta == pytest.approx(LAST_ETA * float(gaps.median()))


@pytest.mark.parametrize("name", ["mixture-300x8", "sphere-300x6", "mixture-300x16"])
def test_it_reaches_its_tolerance(name):
    y, nu = data.problem(name)
    ot = SemiDiscreteOT(method="log_ratio", progress=False).fit(y, nu)
    assert ot.converged_
    assert ot.certificate(200_000, seed=1).chi2 < 0.01


def test_it_says_so_where_it_stalls():
    """On tight clusters in the plane it is known to stall; it must not pretend."""
    y, nu = data.problem("eight-gaussians-256")
    with pytest.warns(ConvergenceWarning, match="chi2 <= 0.001 was not certified"):
        ot = SemiDiscreteOT(method="log_ratio", tol=0.001, max_samples=1_000_000, progress=False).fit(y, nu)
    assert not ot.converged_
    assert ot.certificate(200_000, seed=1).chi2 > 0.001
