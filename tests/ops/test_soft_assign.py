import pytest
import torch
from problems import random_problem
from torch.testing import assert_close

from otgen import ops
from otgen.ops import reference

PARTS = ["value", "columns", "grad_x", "grad_y", "grad_h"]


def values_and_gradients(op, x, y, h, eps):
    """Both outputs of a soft assignment and the gradients of a random combination of them, float64."""
    inputs = [v.detach().requires_grad_() for v in (x, y, h)]  # a clone of a slice would be dense
    value, columns = op(*inputs, eps)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(len(v), generator=generator).to(v) for v in (value, columns)]
    (weights[0] @ value + weights[1] @ columns).backward()
    return [v.detach().double() for v in (value, columns, *(v.grad for v in inputs))]


def problem(n, m, d, dtype=torch.float64, seed=0):
    """Scores of the order of 1 in any dimension."""
    x, y, h = random_problem(n, m, d, dtype, seed)
    return x, y / d**0.5, h


SIZES = [
    (1, 1, 1),
    (1, 2, 3),
    (31, 1, 2),
    (32, 12, 4),
    (33, 13, 5),
    (37, 101, 33),
    (65, 25, 64),
    (300, 40, 2),
    (3, 5, 700),
]


@pytest.mark.parametrize(("n", "m", "d"), SIZES)
@pytest.mark.parametrize("eps", [0.05, 1.0, 20.0])
def test_equals_reference_at_all_sizes(isa, n, m, d, eps):
    inputs = problem(n, m, d)
    got = values_and_gradients(ops.soft_assign, *inputs, eps)
    want = values_and_gradients(reference.soft_assign, *inputs, eps)
    for name, a, b in zip(PARTS, got, want, strict=True):
        assert_close(a, b, rtol=1e-11, atol=1e-11 * max(1, 1 / eps), msg=lambda text, name=name: f"{name}: {text}")


def test_equals_reference_on_device(device, dtype):
    x, y, h = (v.to(device) for v in problem(40, 30, 5, dtype))
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-11}
    got, want = (values_and_gradients(op, x, y, h, 0.5) for op in (ops.soft_assign, reference.soft_assign))
    assert_close(got, want, **tolerance)


@pytest.mark.parametrize(("n", "m", "d"), [(37, 13, 3), (120, 257, 8), (65, 100, 64), (33, 50, 2048), (20, 2000, 16)])
@pytest.mark.parametrize("eps", [1e-3, 1e-2, 0.3, 1.0, 100.0])
def test_float32_errs_at_most_twice_as_much_as_plain_torch(isa, n, m, d, eps):
    # The geometric mean over several problems, because the errors of one may hang on the rounding of a near-tie.
    logs = torch.zeros(5, dtype=torch.float64)
    for seed in range(12):
        inputs = problem(n, m, d, torch.float32, seed)
        want = values_and_gradients(reference.soft_assign, *(v.double() for v in inputs), eps)
        for sign, op in ((1, ops.soft_assign), (-1, reference.soft_assign)):
            got = values_and_gradients(op, *inputs, eps)
            errors = [(a - b).norm() / b.norm() for a, b in zip(got, want, strict=True)]
            logs += sign * torch.stack(errors).clamp(min=1e-10).log()
    ratios = dict(zip(PARTS, (logs / 12).exp().tolist(), strict=True))
    assert max(ratios.values()) <= 2, ratios


@pytest.mark.parametrize(("n", "m", "d"), [(65, 100, 64), (33, 50, 700), (130, 257, 8)])
@pytest.mark.parametrize("eps", [1e-2, 0.3, 100.0])
def test_float32_errs_no_more_than_its_roundings_allow(isa, n, m, d, eps):
    """A first-order bound, with u = 2^-24, from the errors of the scores on.

    A score errs by e <= (d + 34) u (|h| + |x||y|): d products and at most 34 sums of sums. The smooth maximum moves by
    no more than the scores do. An exponential errs by e / eps for its score and for the largest, by 2 u of its argument
    and by 4 u of itself; so does the sum, which adds at most 34 in float32. Twice as much is allowed for all of it.
    """
    x, y, h = problem(n, m, d, torch.float32)
    value, columns = ops.soft_assign(x, y, h, eps)
    u = 2.0**-24
    x, y, h = x.double(), y.double(), h.double()
    off = ((d + 34) * u * (h.abs() + x.abs() @ y.T.abs())).amax(dim=1)
    t = (x @ y.T + h) / eps
    share = t.softmax(dim=1)
    depth = t.amax(dim=1, keepdim=True) - t
    smeared = 2 * u * (share * depth).sum(dim=1) + 40 * u
    want = eps * t.logsumexp(dim=1)
    assert bool(((value - want).abs() <= 2 * (off + eps * smeared + u * want.abs())).all())
    relative = 2 * (2 * off / eps + smeared)[:, None] + 2 * (2 * u * depth + 8 * u)
    moved = (share * relative.expm1()).sum(dim=0) + n * 2.0**-120  # what vanishes in float32
    assert bool(((columns - share.sum(dim=0)).abs() <= moved + u * columns).all())


def test_gradients_pass_gradcheck(isa):
    for n, m, d, eps in [(3, 5, 2, 0.7), (2, 14, 1, 0.2), (34, 3, 2, 1.5)]:
        inputs = [v.requires_grad_() for v in problem(n, m, d)]
        assert torch.autograd.gradcheck(lambda x, y, h, eps=eps: ops.soft_assign(x, y, h, eps), inputs, atol=1e-6)


@pytest.mark.parametrize("wanted", range(3))
def test_gradient_of_one_input_or_one_output_alone(wanted):
    inputs = problem(20, 15, 4)
    for part in (0, 1):
        for op in (ops.soft_assign, reference.soft_assign):
            leaf = [v.clone() for v in inputs]
            leaf[wanted].requires_grad_()
            (op(*leaf, 0.5)[part] ** 2).sum().backward()
            if op is ops.soft_assign:
                got = leaf[wanted].grad
        assert_close(got, leaf[wanted].grad)


def test_gradient_of_the_sum_is_the_softmax():
    """Moving a height by t moves the sum of the values by t times the target's share."""
    x, y, h = problem(50, 9, 3)
    h.requires_grad_()
    value, columns = ops.soft_assign(x, y, h, 0.3)
    value.sum().backward()
    assert_close(h.grad, columns.detach())


def test_no_second_derivatives_rather_than_wrong_ones():
    x, y, h = problem(20, 15, 4)
    h.requires_grad_()
    (first,) = torch.autograd.grad(ops.soft_assign(x, y, h, 0.5)[0].square().sum(), h, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_nothing_needs_a_gradient():
    value, columns = ops.soft_assign(*problem(20, 15, 4), 0.5)
    assert not value.requires_grad
    assert not columns.requires_grad


@pytest.mark.parametrize("eps", [1e-300, 1e-30, 1e-6, 1e-3, 1.0, 1e3, 1e30])
def test_bounds_between_hard_and_soft(isa, dtype, eps):
    x, y, h = problem(70, 40, 5, dtype)
    value, columns = ops.soft_assign(x, y, h, eps)
    hard = ops.assign(x, y, h)[1]
    slack = 1e-6 * float(hard.abs().max()) + 1e-6 * eps if dtype == torch.float32 else 1e-14 * max(1, eps)
    assert bool((value >= hard - slack).all())
    assert bool((value <= hard + eps * torch.tensor(40.0).log().item() + slack).all())
    assert_close(float(columns.sum()), 70.0, rtol=1e-6, atol=0)
    assert bool((columns >= 0).all())


@pytest.mark.parametrize("eps", [5e-324, 1e-310, 1e-39, 1e-12])
def test_tiny_smoothing_is_the_hard_assignment(isa, dtype, eps):
    x, y, h = problem(70, 40, 5, dtype)
    index, score = ops.assign(x, y, h)
    value, columns, grad_x, grad_y, grad_h = values_and_gradients(ops.soft_assign, x, y, h, eps)
    rounding = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-14, "atol": 1e-14}
    assert_close(value, score.double(), **rounding)
    assert_close(columns, index.bincount(minlength=40).double())
    weights = torch.randn(70, generator=torch.Generator().manual_seed(1)).to(dtype).double()
    winners = torch.nn.functional.one_hot(index, 40).double()
    assert_close(grad_x, weights[:, None] * y[index].double(), rtol=1e-6, atol=1e-7)
    assert_close(grad_y, winners.T @ (weights[:, None] * x.double()), rtol=1e-5, atol=1e-6)
    assert_close(grad_h, winners.T @ weights, rtol=1e-5, atol=1e-6)


def test_huge_smoothing_shares_evenly(isa, dtype):
    x, y, h = problem(70, 40, 5, dtype)
    value, columns = ops.soft_assign(x, y, h, 1e30)
    assert_close(columns, torch.full((40,), 70 / 40, dtype=dtype))
    assert_close(value, torch.full((70,), 1e30 * torch.tensor(40.0).double().log().item(), dtype=dtype))


def test_scores_far_apart_and_far_from_zero(isa):
    """Differences of scores beyond the range of exp, of both signs, with an offset that float32 must not smear."""
    x = torch.tensor([[1.0], [-1.0]])
    value, columns = ops.soft_assign(x, torch.tensor([[3e4], [-3e4], [0.0]]), torch.zeros(3) + 4.0, 1.0)
    assert_close(value, torch.tensor([30_004.0, 30_004.0]))
    assert_close(columns, torch.tensor([1.0, 1.0, 0.0]))
    value, columns = ops.soft_assign(x, torch.zeros(3, 1), torch.tensor([-1e20, -1e20, -1e20]), 1e-3)
    assert_close(value, torch.tensor([-1e20, -1e20]))
    assert_close(columns, torch.full((3,), 2 / 3))


def test_exponential_over_its_whole_range(isa, dtype):
    """Shares exp(-t) / (1 + exp(-t)) of two targets, t from 0 to where they vanish."""
    t = torch.linspace(0, 80 if dtype == torch.float32 else 700, 20_001, dtype=torch.float64).to(dtype)
    share = torch.stack(
        [ops.soft_assign(v[None, None], -torch.eye(2, 1).to(v), torch.zeros(2).to(v), 1.0)[1] for v in t[::37]]
    )
    want = torch.sigmoid(-t[::37].double())
    assert_close(share[:, 0].double(), want, rtol=1.5e-7 if dtype == torch.float32 else 5e-16, atol=0)


def test_constant_in_the_heights_changes_values_alone(isa):
    x, y, h = problem(70, 40, 5)
    value, columns = ops.soft_assign(x, y, h, 0.1)
    moved, same = ops.soft_assign(x, y, h + 100.0, 0.1)
    assert_close(moved, value + 100.0, rtol=1e-14, atol=0)
    assert_close(same, columns, rtol=1e-11, atol=0)


def test_slices_of_larger_tensors(isa, dtype):
    x, y, h = problem(300, 200, 40, dtype)
    views = x[7:90, 3:20], y[:, ::2][:83, 3:20], h[::2][:83]
    want = values_and_gradients(ops.soft_assign, *(v.contiguous() for v in views), 0.5)
    got = values_and_gradients(ops.soft_assign, *views, 0.5)
    assert_close(got, want, rtol=1e-6, atol=1e-13)  # threads add up in any order


def test_gradients_that_come_in_as_slices_or_expanded():
    x, y, h = problem(30, 20, 4)
    h.requires_grad_()
    value, columns = ops.soft_assign(x, y, h, 0.5)
    wide = torch.randn(30, 3, dtype=torch.float64)
    (got,) = torch.autograd.grad(
        [value, columns], h, [wide[:, 1], torch.ones(1).double().expand(20)], retain_graph=True
    )
    (want,) = torch.autograd.grad([value, columns], h, [wide[:, 1].clone(), torch.ones(20).double()])
    assert_close(got, want)


def test_no_samples(isa, dtype):
    inputs = [v.requires_grad_() for v in problem(0, 5, 2, dtype)]
    value, columns = ops.soft_assign(*inputs, 1.0)
    assert value.shape == (0,)
    assert columns.tolist() == [0.0] * 5
    (value.sum() + columns.sum()).backward()
    assert inputs[0].grad.shape == (0, 2)
    assert float(inputs[1].grad.abs().max()) == 0


def test_threads_change_rounding_alone(each_thread_count):
    inputs = problem(1003, 60, 5)
    results = [values_and_gradients(ops.soft_assign, *inputs, 0.3) for _ in each_thread_count()]
    for result in results[1:]:
        assert_close(result[0], results[0][0], rtol=0, atol=0)  # each sample's own
        assert_close(result[2], results[0][2], rtol=0, atol=0)
        assert_close(result, results[0], rtol=1e-12, atol=1e-12)
