import pytest
import torch
from draws import randn
from fits import assert_same_fit, fit, same_heights
from torch.testing import assert_close

from otgen import data
from otgen.ot import ConvergenceWarning, SemiDiscreteOT
from otgen.ot.problem import make_problem
from otgen.ot.solvers import exact
from otgen.ot.solvers.auto import Auto
from otgen.ot.solvers.base import Run
from otgen.ot.solvers.multiscale import multiscale
from otgen.ot.solvers.quantiles import sampled_on_a_line
from otgen.ot.solvers.starts import best_guess
from otgen.ot.sources import BuiltIn, Custom


def certified(name, seed=0, source="uniform", tol=0.01):
    """Fit a named problem and hold it to samples of its own: certified means certified."""
    y, nu = data.problem(name, seed)
    ot = SemiDiscreteOT(source, seed=seed, tol=tol, progress=False).fit(y, nu)
    assert ot.converged_
    assert ot.certificate_.holds(tol)
    again = ot.certificate(200 * len(y), seed=98765)
    assert again.chi2 - 3 * again.chi2_se < tol
    assert ot.samples_ < 110 * len(y) / tol
    return ot


@pytest.mark.parametrize("source", ["uniform", "normal"])
@pytest.mark.parametrize(
    "name",
    [
        "eight-gaussians-256",
        "twenty-five-gaussians-256",
        "swiss-roll-256",
        "two-moons-256",
        "checkerboard-256",
        "clusters-256",
        "mixture-500x8",
        "sphere-300x3",
    ],
)
def test_small_problems_are_certified(name, source):
    certified(name, source=source)


def test_digits_are_certified():
    certified("digits-1797x64")


@pytest.mark.parametrize("seed", range(4))
def test_other_seeds_are_certified(seed):
    certified("mixture-300x8", seed)
    certified("swiss-roll-256", seed)


def test_most_seeds_of_a_mixture_stay_within_a_small_budget():
    spent = [certified("mixture-200x6", seed).samples_ for seed in range(6)]
    assert sorted(spent)[3] < 25 * 200 / 0.01


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_every_seed_of_the_large_mixture_is_certified(seed):
    ot = certified("mixture-2000x16", seed)
    assert ot.samples_ < 20 * 2000 / 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clusters-1000", "checkerboard-2000", "two-moons-2000"])
@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_of_the_toy_sets_are_certified(name, seed):
    certified(name, seed)


# --- how it chooses --------------------------------------------------------------------------------------------------


def started(name, **options):
    return started_at(*data.problem(name), **options)


def started_at(targets, weights=None, **options):
    problem = make_problem(BuiltIn("uniform"), targets, weights)
    run = Run(problem, tol=0.01, max_samples=10**8, seed=0, **options)
    return problem, run, Auto().start(problem, run)


@pytest.mark.parametrize("d", [2, 4])
def test_heights_that_are_near_are_its_start(d):
    """Others are no better than none."""
    problem, run, own = started(f"mixture-200x{d}")
    near = fit(problem.given, source="uniform").heights_ / problem.scale
    _, run, state = started(f"mixture-200x{d}", start=near)
    assert_close(state.h, near - near.mean())
    assert run.used == 1000
    _, run, state = started(f"mixture-200x{d}", start=0.1 * near)
    assert torch.equal(state.h, own.h)


@pytest.mark.parametrize(("d", "heights"), [(2, multiscale), (6, multiscale), (7, best_guess)])
def test_in_low_dimension_it_begins_with_groups(d, heights):
    problem, run, state = started(f"mixture-300x{d}")
    h = heights(problem, Run(problem, tol=0.01, max_samples=10**8, seed=0))
    assert_close(state.h, h - h.mean(), rtol=0, atol=1e-12)


def far(d, away):
    """A hundred targets and one that is far from them."""
    return torch.cat([randn(100, d), torch.full((1, d), away, dtype=torch.float64)])


@pytest.mark.parametrize("source", ["uniform", "normal"])
@pytest.mark.parametrize("away", [1e6, 1e9, 1e12])
def test_outliers_have_cells_however_far_they_are(source, away):
    ot = fit(far(3, away), source=source)
    assert ot.certificate_.exact
    assert ot.converged_
    assert ot.certificate(50_000, seed=5).chi2 < 0.01


def stuck(self, point):
    """Instead of a step to the exact solution: none that helps."""
    return point, True


@pytest.mark.parametrize("source", ["uniform", "normal"])
def test_cells_that_cannot_be_computed_are_sampled(source, monkeypatch):
    """As where facets have no area, or cells no mass, in float64."""
    monkeypatch.setattr(exact._Search, "step", stuck)
    y = far(3, 1e6)
    with pytest.warns(ConvergenceWarning, match='was not certified by exact cells.*take method="auto"'):
        assert not fit(y, source=source, method="exact").converged_
    ot = fit(y, source=source)
    assert ot.converged_
    assert not ot.certificate_.exact
    assert ot.certificate(50_000, seed=5).chi2 < 0.02


def test_sampling_instead_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(exact._Search, "step", stuck)
    y, path, plain = far(3, 1e6), tmp_path / "fit.safetensors", fit(far(3, 1e6))
    step, steps = Auto.step, []

    def killed(self, problem, state, run):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return step(self, problem, state, run)

    monkeypatch.setattr(Auto, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(y, checkpoint=path)
    assert_same_fit(fit(y, checkpoint=path), plain)
    assert len(steps) > 3
    made = len(steps)
    assert_same_fit(fit(y, checkpoint=path), plain)
    assert len(steps) == made


def lognormal(n, generator):
    return torch.randn(n, 1, generator=generator, dtype=torch.float64).exp()


def laid(line, d, off=0.0):
    """Targets of a line, (m, 1), laid into d dimensions in some direction, and a little off it."""
    turn = torch.linalg.qr(randn(d, d, seed=1)).Q
    return torch.cat([line, off * randn(len(line), d - 1, seed=2)], dim=1) @ turn + 5


@pytest.mark.parametrize("zipf", ["", "-zipf"])
@pytest.mark.parametrize("m", [2, 300, 1000])
def test_a_line_under_ones_own_source(m, zipf):
    y, nu = data.problem(f"mixture-{m}x1{zipf}")
    ot = fit(y, nu, source=lognormal)
    assert ot.converged_
    assert ot.certificate(100_000, seed=5).chi2 < 0.015
    assert ot.samples_ < 8000 + 400 * m


@pytest.mark.parametrize("off", [0.0, 1e-7, 1e-5, 1e-3])
@pytest.mark.parametrize("source", ["uniform", "normal"])
def test_a_line_in_space(source, off):
    """Facets between cells are all alike and close together: no start from Voronoi cells has found there."""
    ot = fit(laid(data.problem("mixture-300x1")[0].double(), 8, off), source=source)
    assert ot.converged_
    assert ot.certificate(100_000, seed=5).chi2 < 0.015
    assert ot.samples_ < 10**6


def test_heights_on_a_line_under_the_normal_source_are_those_of_one_dimension():
    line = randn(200, 1)
    same_heights(fit(laid(line, 6), source="normal").heights_, fit(line, source="normal").heights_, 1e-6)


def test_cells_on_a_line_that_get_no_sample_end_at_the_first_of_them():
    problem = make_problem(Custom(lambda n, g: torch.rand(n, 2, generator=g)), [[0, 0], [1, 0], [9, 0]], [1e-9, 3, 1])
    run = Run(problem, tol=0.01, max_samples=10**6, seed=0)
    heights = [sampled_on_a_line(problem, run, 1000, index) for index in (0, 0, 1)]
    assert torch.equal(heights[0], heights[1])
    assert not torch.equal(heights[0], heights[2])
    ends = -heights[0].diff() / problem.line.place.diff()
    assert_close(ends.sort().values, torch.tensor([0.0, 0.75], dtype=torch.float64), rtol=0, atol=0.06)


def test_a_line_with_too_few_samples_is_not_claimed():
    with pytest.warns(ConvergenceWarning):
        ot = fit(data.problem("mixture-300x1")[0], source=lognormal, max_samples=5000)
    assert ot.samples_ < 60_000
