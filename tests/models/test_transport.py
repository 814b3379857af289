import sys

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.testing import assert_close

from otgen.models.transport import pot_emd, solve_batch


def batches(b, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, *shape, generator=generator, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize("unit", [1.0, 1e-8, 1e8])
def test_units_do_not_matter(unit):
    """POT's tolerances are absolute: the dual of a batch of small numbers was that of another problem."""
    x, y = batches(64, (2,), seed=0)
    solved, small = solve_batch(x, y, scale=1.0), solve_batch(unit * x, unit * y, scale=1.0)
    cost = 0.5 * torch.cdist(x, y).square()
    assert_close(small.cost / unit**2, cost[linear_sum_assignment(cost.numpy())].mean())
    assert small.partner.tolist() == solved.partner.tolist()
    gap = cost - (small.dual_real[:, None] - small.dual_fake[None, :]) / unit**2
    assert gap.min() > -1e-9
    assert_close(gap[small.partner, torch.arange(64)], torch.zeros(64, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("b", "shape"), [(1, (2,)), (7, (2,)), (64, (2,)), (17, (1, 8, 8)), (128, (3, 4, 4))])
def test_dual_against_an_assignment(b, shape):
    x, y = batches(b, shape, seed=b)
    solved = solve_batch(x, y + 0.5, scale=0.3)
    cost = 0.15 * torch.cdist(x.flatten(1), y.flatten(1) + 0.5).square()
    rows, columns = linear_sum_assignment(cost.numpy())
    least = cost[rows, columns].mean()
    assert_close(solved.cost, least)
    assert solved.partner[columns].tolist() == rows.tolist()
    # feasible, tight at the partners, and as high as the primal is low: it is the dual's optimum
    gap = cost - (solved.dual_real[:, None] - solved.dual_fake[None, :])
    assert gap.min() > -1e-9
    assert_close(gap[solved.partner, torch.arange(b)], torch.zeros(b, dtype=torch.float64), atol=1e-9, rtol=0)
    assert_close(solved.dual_real.mean() - solved.dual_fake.mean(), least)
    assert_close((solved.dual_real.sum() + solved.dual_fake.sum()).item(), 0.0, atol=1e-9, rtol=0)


def test_a_translation_by_hand():
    """All points moved by a: the cost is ½ scale |a|², a point's partner is itself moved, the dual is linear."""
    x, _ = batches(20, (3,), seed=0)
    a = torch.tensor([0.4, -0.2, 0.4], dtype=torch.float64)
    solved = solve_batch(x, x - a, scale=2.0)
    assert solved.partner.tolist() == list(range(20))
    assert_close(solved.cost.item(), 0.36)
    assert_close(solved.dual_real - solved.dual_fake, torch.full((20,), 0.36, dtype=torch.float64))


def test_batches_that_are_one_point_cost_nothing():
    x = torch.ones(4, 2)
    solved = solve_batch(x, x, scale=1.0)
    for value in (solved.cost, solved.dual_real, solved.dual_fake):
        assert_close(value, torch.zeros_like(value))


def test_a_large_batch_is_solved_to_the_end():
    """It takes over 30 000 pivots; a linear program is at its optimum where primal and dual agree."""
    x, y = batches(2000, (2,), seed=0)
    solved = solve_batch(x, y, scale=1.0)
    assert solved.partner.unique().numel() == 2000
    primal = 0.5 * (x[solved.partner] - y).square().sum(1).mean()
    assert_close(solved.cost, primal)
    assert_close(solved.dual_real.mean() - solved.dual_fake.mean(), primal)


def test_types_are_those_of_the_samples():
    x, y = (z.float().requires_grad_() for z in batches(5, (2,), seed=1))
    solved = solve_batch(x, y, scale=1.0)
    assert solved.dual_real.dtype == solved.dual_fake.dtype == torch.float32
    assert not any(value.requires_grad for value in vars(solved).values())
    assert solved.partner.dtype == torch.int64


def test_pot_is_asked_for_by_name(monkeypatch):
    pot_emd("WGANQC")
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match=r'WGANQC: wanted POT, which is not installed: pip install "otgen\[pot\]"'):
        pot_emd("WGANQC")
