import math
from types import SimpleNamespace

import pytest
import torch
from draws import randn

from otgen import data, ops
from otgen.ot import SemiDiscreteOT
from otgen.ot.problem import make_problem
from otgen.ot.solvers.base import Run
from otgen.ot.solvers.halves import Seen, gains, left_by, measure
from otgen.ot.sources import BuiltIn


@pytest.mark.parametrize("source", ["uniform", "normal"])
@pytest.mark.parametrize("d", [4, 16, 32])
def test_chi2_is_unbiased_and_its_doubt_right(d, source):
    """Over many measurements of the same heights, whose chi2 is known from three times their samples in all."""
    y, nu = data.problem(f"mixture-300x{d}")
    ot = SemiDiscreteOT(source, tol=0.1, progress=False).fit(y, nu)
    problem = make_problem(BuiltIn(source), y, nu)
    h = problem.heights_in(ot.heights_)
    run = Run(problem, tol=0.01, max_samples=10**9, seed=0)
    times = 240
    seen = [measure(problem, h, 12_000, k, run) for k in range(times)]
    many = 8_000_000
    w = problem.source.measure(problem.y, h, many, 7).counts / many
    true = float(((w - problem.nu) ** 2 / problem.nu).sum()) - 300 / many
    chi2 = torch.tensor([s.chi2 for s in seen])
    doubt = math.hypot(float(chi2.std()) / times**0.5, 2 * math.sqrt(true / many))  # of the mean, and of what is known
    assert float(chi2.mean()) == pytest.approx(true, abs=4 * doubt)
    assert float(chi2.std()) < 1.6 * seen[0].doubt
    mean = torch.stack([s.residual for s in seen]).mean(0)
    spread = torch.tensor([float(((s.residual - mean) ** 2 / problem.nu).sum()) for s in seen]).mean()
    assert float(torch.tensor([s.noise for s in seen]).mean()) == pytest.approx(
        float(spread) * times / (times - 1), rel=0.05
    )


def test_no_sample_is_measured_twice():
    problem = make_problem(BuiltIn("normal"), randn(30, 16))
    run = Run(problem, tol=0.01, max_samples=10**9, seed=0)
    gaps = torch.cat([measure(problem, torch.zeros_like(problem.nu), 1000, k, run).counted.gaps for k in range(3)])
    assert gaps.unique().numel() == run.used == 3000


def test_halves_that_agree_by_chance_have_the_noise_of_one_more_cell():
    problem = make_problem(BuiltIn("normal"), randn(2, 16))
    half = ops.Measure(torch.tensor([30, 70]), 0.0)
    seen = measure(problem, torch.zeros(2), 200, 0, SimpleNamespace(measure=lambda *_, **__: half))
    independent = (60 + 140) / 0.5 / 200**2
    assert seen.chi2 == pytest.approx(2 * 0.2**2 / 0.5)
    assert seen.noise == pytest.approx(independent / 2 / 3)
    assert seen.doubt == pytest.approx(2 * math.sqrt((independent + seen.chi2) * seen.noise / 2))


def test_gains_leave_what_was_foreseen():
    """Errors of known size seen through known noise: what `left_by` says is left, and it is near the least."""
    m, n = 4000, 200_000
    generator = torch.Generator().manual_seed(0)
    problem = make_problem(BuiltIn("uniform"), randn(m, 2))
    noise = m / n
    for signal in (0.1 * noise, noise, 10 * noise):
        error = (signal / m * problem.nu).sqrt() * randn(m, seed=1)
        error[0] = 30 * (noise / m * problem.nu[0]).sqrt()  # one whose error is certain
        found = error + (noise / m * problem.nu).sqrt() * torch.randn(m, generator=generator, dtype=torch.float64)
        chi2 = float((error.square() / problem.nu).sum())
        seen = Seen(None, n, found, chi2, 0.0, noise)
        gain = gains(problem, seen, chi2)
        assert float(gain[0]) > 0.98
        assert float(gain.median()) == pytest.approx(chi2 / (chi2 + noise), rel=0.01)
        left = float(((error - gain * found).square() / problem.nu).sum())
        blur = 2 * noise / m**0.5  # the standard error of a measured chi2
        assert left_by(problem, seen, gain) == pytest.approx(left, rel=0.05, abs=2 * blur)
        assert left < 1.1 * chi2 * noise / (chi2 + noise)
