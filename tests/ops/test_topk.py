import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_same_bits
from problems import HARD, SIZES, crowd, hard, random_problem, same, widen

from otgen import ops
from otgen.ops import reference


def check(x, y, h, k, device="cpu"):
    """Hold topk to the reference, bit for bit."""
    index, score = ops.topk(x.to(device), y.to(device), h.to(device), k)
    want_index, want_score = reference.topk(x, y, h, k)
    assert_same_bits(index.cpu(), want_index)
    assert_same_bits(score.cpu(), want_score)


@pytest.mark.parametrize(("n", "m", "d"), SIZES)
def test_equals_reference_at_all_sizes(isa, dtype, n, m, d):
    check(*random_problem(n, m, d, dtype), min(m, 7))


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("k", [2, 5, 19])
def test_equals_reference_on_hard_problems(isa, dtype, name, k):
    if k == 19 and isa.startswith("emulated"):
        pytest.skip("slow, and the same code as 5")
    # Only instruction sets prune targets, and the emulated GPU is slow.
    for lay in (same, widen, crowd) if isa in ops.instruction_sets() else (same, widen):
        problem, best = hard(name, dtype, lay)
        for got, want in zip(ops.topk(*problem, k), best, strict=True):
            assert_same_bits(got, want[:, :k])


@pytest.mark.parametrize("name", ["lattice", "clusters", "offset_1e7", "alike_groups"])
@pytest.mark.parametrize("k", [3, 50])
def test_many_samples_of_one_hard_problem(isa, name, k):
    x, y, h = crowd(*HARD[name](torch.float32))
    times = 9 if isa in ops.instruction_sets() else 1  # only there targets are pruned, and the emulated GPU is slow
    check(x.repeat(times, 1) * torch.linspace(0.1, 3, times * len(x))[:, None], y, h, k)


@pytest.mark.parametrize("name", ["duplicates", "last_place", "offset_1e7", "alike", "norms_1e38"])
def test_equals_reference_on_device(device, dtype, name):
    check(*HARD[name](dtype), 5, device)


@pytest.mark.parametrize("m", [1, 2, 11, 12, 13, 24, 25, 100])
def test_all_targets_in_order(isa, dtype, m):
    check(*random_problem(40, m, 20, dtype), m)


@pytest.mark.parametrize("m", [17, 25, 37, 44, 100])
@pytest.mark.parametrize("d", [12, 48, 130])
def test_what_fills_the_last_group_is_no_target(isa, dtype, m, d):
    """One target on this side of the mean, all others on that one, in the order of the group before the last.

    A target at the mean would come second, and so would the first one again.
    """
    g = torch.Generator().manual_seed(m)
    y = -1 + 0.01 * torch.randn(m, d, generator=g, dtype=dtype)
    y[m // 2] += m
    x = torch.linspace(-1, 1, 64, dtype=dtype)[:, None] + 0.01 * torch.randn(64, d, generator=g, dtype=dtype)
    check(x, y, torch.linspace(3, -3, m, dtype=dtype), 2)


@pytest.mark.parametrize("k", [1, 2, 3, 12, 13, 64, 65, 100, 300, 1000])
def test_every_k(isa, k):
    n = 5 if isa.startswith("emulated") and k > 13 else 70  # slow
    for d in (2, 6, 20):
        check(*random_problem(n, 2000, d), k)


@pytest.mark.parametrize("k", [1, 12, 13, 24, 60])
def test_ties_come_in_order_of_index(isa, dtype, k):
    y = torch.zeros(600, 2, dtype=dtype)
    y[7::10] = 1.0  # sixty best, all equal; the rest are equal too
    index, score = ops.topk(torch.ones(40, 2, dtype=dtype), y, torch.zeros(600, dtype=dtype), k)
    assert_same_bits(index, torch.arange(7, 600, 10)[:k].expand(40, -1))
    assert_same_bits(score, torch.full((40, k), 2.0, dtype=dtype))
    if k == 60:
        index, _ = ops.topk(torch.ones(40, 2, dtype=dtype), y, torch.zeros(600, dtype=dtype), 66)
        assert index[0, 60:].tolist() == [0, 1, 2, 3, 4, 5]


def test_no_samples(isa, dtype):
    index, score = ops.topk(*random_problem(0, 5, 2, dtype), 3)
    assert_same_bits(index, torch.empty(0, 3, dtype=torch.int64))
    assert_same_bits(score, torch.empty(0, 3, dtype=dtype))


def test_begins_with_assign_and_with_fewer(isa, dtype):
    x, y, h = HARD["lattice"](dtype)
    index, score = ops.topk(x, y, h, 30)
    assert_same_bits(index[:, 0], ops.assign(x, y, h)[0])
    assert_same_bits(score[:, 0], ops.assign(x, y, h)[1])
    assert_same_bits(index[:, :8], ops.topk(x, y, h, 8)[0])


def test_slices_of_larger_tensors(isa, dtype):
    x, y, h = random_problem(300, 200, 40, dtype)
    check(x[7:90, 3:20], y[5:88, 3:20], h[::2][:83], 5)
    check(x.T[3:20, 7:90].T, y[:, ::2][:83, :17], h[100:183], 5)


@pytest.mark.parametrize("n", [1, 40, 3000])
def test_threads_change_nothing(each_thread_count, dtype, n):
    x, y, h = random_problem(n, 700, 9, dtype)
    results = [ops.topk(x, y, h, 6) for _ in each_thread_count()]
    for index, score in results[1:]:
        assert_same_bits(index, results[0][0])
        assert_same_bits(score, results[0][1])


@given(
    st.integers(0, 2**32),
    st.sampled_from([1, 3, 50]),
    st.integers(1, 150),
    st.integers(1, 5),
    st.floats(0, 1),
    st.sampled_from([0.0, 1e5]),
)
def test_equals_reference_whatever_the_numbers(isa, dtype, seed, reach, m, d, share, shift):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((45, d), (m, d), (m,))
    x, y, h = (torch.randint(-reach, reach + 1, shape, generator=generator).to(dtype) / 3 for shape in shapes)
    check(x, y + shift, h, max(1, round(share * m)))
