"""A certificate that is computed from exact cells, of heights that are no solution."""

import math

import pytest
import torch
from draws import rand, randn
from torch.testing import assert_close

from otgen import ops
from otgen.ot.certificate import certify, certify_exactly
from otgen.ot.problem import make_problem
from otgen.ot.sources import BuiltIn


@pytest.mark.parametrize("source", ["uniform", "normal"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_it_says_what_samples_say(source, d, seed):
    """Forty times: the mean of what they say is known to a sixth of its spread."""
    problem = make_problem(BuiltIn(source), 2 + 3 * randn(8, d, seed=seed), rand(8, seed=seed) + 0.1)
    y, spread = problem.y, problem.source.std(d)
    h = -y @ problem.source.mean(d) - spread * (0.5 * y.square().sum(1) + 0.1 * randn(8, seed=seed + 100))
    h[0] -= 100  # nothing is left to its cell
    cells = ops.Sites(y).diagram(h, ops.cube(source, d))
    exact = certify_exactly(problem, h, cells.measures, cells.first, float(cells.second.sum()))
    counts = [problem.source.measure(y, h, 10_000, 40 * seed + k) for k in range(40)]
    sampled = [certify(problem, h, counted, 0) for counted in counts]
    for name in ("chi2", "primal", "dual", "gap"):
        values = torch.tensor([getattr(c, name) for c in sampled], dtype=torch.float64)
        error = float(values.std()) / math.sqrt(40)
        assert_close(getattr(exact, name), float(values.mean()), rtol=0, atol=6 * error)
    together = certify(problem, h, sum(counts[1:], counts[0]), 0)
    assert_close(exact.tv, together.tv, rtol=0, atol=6 * together.tv_floor)
    error = math.sqrt((1 + exact.max_relative_error) / (together.samples * float(problem.nu.min())))
    assert_close(exact.max_relative_error, together.max_relative_error, rtol=0, atol=6 * error)
    assert 1 <= exact.empty_cells <= together.empty_cells
    assert (exact.exact, exact.samples, exact.targets) == (True, 0, 8)
