import math

import pytest
import torch
from draws import rand, randn
from torch.testing import assert_close

from otgen import data, ops
from otgen.ot.certificate import chi2_estimate, total_variation
from otgen.ot.problem import make_problem
from otgen.ot.solvers import starts
from otgen.ot.solvers.base import Run
from otgen.ot.solvers.quantiles import by_coordinates, on_a_line
from otgen.ot.solvers.starts import affine, best_guess, carried, samples_to_carry, taking, voronoi
from otgen.ot.sources import BuiltIn, Custom


def running(problem, budget=10**9, seed=0):
    return Run(problem, tol=0.01, max_samples=budget, seed=seed)


def chi2_of(problem, h, n=None):
    counts = problem.source.measure(problem.y, h, n or 200 * problem.m, 4321).counts
    return chi2_estimate(counts, problem.nu)[0]


@pytest.mark.parametrize(
    "source", [BuiltIn("uniform"), BuiltIn("normal"), Custom(lambda n, g: torch.rand(n, 4, generator=g))]
)
@pytest.mark.parametrize("shrink", [1.0, 0.25])
def test_voronoi_heights_assign_the_nearest_target(source, shrink):
    problem = make_problem(source, 7 * randn(50, 4) + 3, torch.rand(50, generator=torch.Generator().manual_seed(0)))
    x = source.sample(500, 4, 1).double()
    laid = source.mean(4) + shrink * source.std(4) * problem.y  # the targets, laid over the source
    nearest = torch.cdist(x, laid).argmin(dim=1)
    assert torch.equal(ops.assign(x, problem.y, voronoi(problem, shrink))[0], nearest)


def test_affine_heights_are_minus_the_conjugate_of_the_map_between_gaussians():
    """u(x) = <x - a, A (x - a)> / 2 has u*(y) = <a, y> + <y, A^-1 y> / 2; A is the root of the targets' covariance."""
    y, a = randn(200, 3) @ randn(3, 3, seed=1) + 4, torch.full((3,), 0.5, dtype=torch.float64)
    problem = make_problem(BuiltIn("uniform"), y)
    values, vectors = torch.linalg.eigh(problem.y.T @ problem.y / 200)
    inverse = vectors @ torch.diag(math.sqrt(1 / 12) / values.sqrt()) @ vectors.T
    want = -(problem.y @ a + 0.5 * ((problem.y @ inverse) * problem.y).sum(1))
    assert_close(affine(problem), want)


def test_affine_heights_survive_targets_on_a_plane():
    problem = make_problem(BuiltIn("normal"), randn(30, 2) @ randn(2, 6, seed=1))
    assert bool(torch.isfinite(affine(problem)).all())


def tv_of(problem, h):
    return total_variation(problem.source.measure(problem.y, h, 50_000, 77).counts, problem.nu)


def shrunk(problem, guess):
    flat = -(problem.y @ problem.source.mean(problem.d))
    return [tv_of(problem, flat + shrink * (guess - flat)) for shrink in starts.SHRINKS]


@pytest.mark.parametrize(
    "name", ["mixture-300x8", "mixture-2000x32", "sphere-300x5", "two-moons-256", "mixture-300x8-dirty"]
)
def test_the_best_guess_is_the_best(name):
    problem = make_problem(BuiltIn("uniform"), *data.problem(name))
    tv = shrunk(problem, affine(problem)) + shrunk(problem, voronoi(problem, 1.0))
    assert tv_of(problem, best_guess(problem, running(problem))) <= min(tv) + 0.03


def test_a_guess_knows_the_weights():
    problem = make_problem(BuiltIn("uniform"), *data.problem("mixture-2000x32-zipf"))
    assert tv_of(problem, best_guess(problem, running(problem))) < 0.4 * min(shrunk(problem, affine(problem)))


def test_weights_are_let_be_where_scores_hang_together(monkeypatch):
    """Targets near a plane: logarithms of weights are not tried."""
    y, nu = randn(500, 2) @ randn(2, 20, seed=1), 1 / torch.arange(1, 501, dtype=torch.float64)
    problem = make_problem(BuiltIn("normal"), y + 0.01 * randn(500, 20, seed=2), nu)
    plain = best_guess(problem, running(problem))
    monkeypatch.setattr(starts, "EVEN", math.inf)
    assert torch.equal(best_guess(problem, running(problem)), plain)


def test_of_one_target_and_in_many_dimensions(monkeypatch):
    one = make_problem(BuiltIn("uniform"), randn(1, 5))
    assert best_guess(one, running(one)).shape == (1,)
    monkeypatch.setattr(starts, "MAX_GAUSSIAN_DIM", 4)
    monkeypatch.setattr(starts, "affine", None)  # it is not asked
    problem = make_problem(BuiltIn("uniform"), *data.problem("sphere-300x5"))
    tv = tv_of(problem, best_guess(problem, running(problem)))
    assert tv <= min(shrunk(problem, voronoi(problem, 1.0))) + 0.03


@pytest.mark.parametrize("source", ["uniform", "normal"])
@pytest.mark.parametrize("d", [2, 3])
def test_by_coordinates_is_right_for_products_and_leaves_no_cell_empty(d, source):
    axes, shares = [randn(5, seed=k) for k in range(d)], [rand(5, seed=k) + 0.1 for k in range(d)]
    y, nu = torch.cartesian_prod(*axes), torch.cartesian_prod(*shares).prod(dim=1)
    for targets, weights in ((y, nu), (randn(400, d), rand(400) + 0.01)):
        problem = make_problem(BuiltIn(source), targets, weights)
        found = ops.Sites(problem.y).diagram(by_coordinates(problem), ops.cube(source, d)).measures
        assert bool((found > 0).all())
        if targets is y:
            assert_close(found, problem.nu, rtol=1e-9, atol=0)


@pytest.mark.parametrize("d", [2, 3])
def test_by_coordinates_in_other_axes(d):
    """Turned targets under the normal source are as near to their solution as they were."""
    turn = torch.linalg.qr(1 + torch.eye(d, dtype=torch.float64)).Q
    y = randn(500, d) * torch.tensor([5.0, 1.0, 0.3], dtype=torch.float64)[:d]
    problem = make_problem(BuiltIn("normal"), y @ turn.T)
    straight = by_coordinates(make_problem(BuiltIn("normal"), y))
    found = by_coordinates(problem, turn)
    assert_close(found - found.mean(), straight - straight.mean(), rtol=0, atol=1e-9)
    assert tv_of(problem, found) < 0.3 < tv_of(problem, by_coordinates(problem))


@pytest.mark.parametrize("source", ["uniform", "normal"])
def test_on_a_line_the_start_is_the_solution(source):
    nu = torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.01
    problem = make_problem(BuiltIn(source), randn(50, 1), nu)
    assert abs(chi2_of(problem, on_a_line(problem), 10**6)) < 3e-4
    assert on_a_line(make_problem(BuiltIn("uniform"), randn(5, 2))) is None
    assert on_a_line(make_problem(Custom(lambda n, g: torch.rand(n, 1, generator=g)), randn(5, 1))) is None


def samples(problem):
    return problem.source.sample(samples_to_carry(problem), problem.d, 0)


def test_heights_are_carried_over_alike_however_far_targets_lie():
    source, y, new = BuiltIn("uniform"), rand(200, 3), rand(20, 3, seed=1)
    h = 0.1 * randn(200)
    far = torch.tensor([2.0**39, -(2.0**40), 2.0**38], dtype=torch.float64)

    def start(shift):
        old = make_problem(source, (y + far) - far + shift)  # the same digits are left wherever they lie
        problem = make_problem(source, torch.cat([(y[50:] + far) - far, (new + far) - far]) + shift)
        return carried(problem, old, h, samples(problem))

    assert_close(start(far), start(0.0), rtol=0, atol=1e-5)


def test_targets_that_were_there_keep_their_heights_whatever_the_new_scale():
    y, h = randn(20, 4), randn(20, seed=1)
    old = make_problem(BuiltIn("uniform"), y)
    new = make_problem(BuiltIn("uniform"), torch.cat([y, 50 + randn(3, 4)]))
    moved = new.scale * carried(new, old, h, samples(new))[:20] - old.scale * h
    assert_close(moved, moved[:1].expand(20))


@pytest.mark.parametrize("d", [2, 6])
@pytest.mark.parametrize("few", [0, starts.FEW])
def test_shares_of_less_than_a_sample_are_not_taken(d, few, monkeypatch):
    """A sample is the least that can be counted; lighter targets stay just below the potential."""
    monkeypatch.setattr(starts, "FEW", few)
    problem, y, n = make_problem(BuiltIn("uniform"), randn(40, d)), 0.5 * randn(50, d, seed=1), 2000
    h = best_guess(problem, running(problem))

    def seen(seed, n):
        x = problem.source.sample(n, d, seed).double()
        return x, (x @ problem.y.T + h).max(dim=1).values

    x, u = seen(0, n)
    fresh, above = seen(1, 500_000)
    lead = fresh @ y.T - above[:, None]
    before = torch.full((50,), math.inf)
    for share in (3.0, 1.0, 0.5, 1e-6):
        start = taking(y, x, u, torch.full((50,), share / n))
        assert bool((start < before).all())
        taken = float((lead > -start).double().mean()) * n
        assert taken < 0.25 if share == 1e-6 else 0.3 * min(share, share**2) < taken < 2 * share
        before = start
    spread = lead.topk(2000, dim=0).values
    assert bool((-start < spread[0] + 12 * (spread[0] - spread[-1])).all())
