from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_same_bits
from problems import HARD, SIZES, crowd, hard, one_ulp, random_problem, same, widen
from torch.testing import assert_close

from otgen import ops
from otgen.ops import reference


def check(x, y, h, device="cpu"):
    """Hold assign to the reference, bit for bit."""
    index, score = ops.assign(x.to(device), y.to(device), h.to(device))
    want_index, want_score = reference.assign(x, y, h)
    assert_same_bits(index.cpu(), want_index)
    assert_same_bits(score.cpu(), want_score)


@pytest.mark.parametrize(("n", "m", "d"), SIZES)
def test_equals_reference_at_all_sizes(isa, dtype, n, m, d):
    check(*random_problem(n, m, d, dtype))


@pytest.mark.parametrize("name", HARD)
def test_equals_reference_on_hard_problems(isa, dtype, name):
    # Only instruction sets prune targets, and the emulated GPU is slow.
    for lay in (same, widen, crowd) if isa in ops.instruction_sets() else (same, widen):
        problem, best = hard(name, dtype, lay)
        for got, want in zip(ops.assign(*problem), best, strict=True):
            assert_same_bits(got, want[:, 0])


@pytest.mark.parametrize("name", HARD)
def test_equals_reference_on_device(device, dtype, name):
    check(*HARD[name](dtype), device)


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 255, 256, 257, 511, 1025])
def test_every_number_of_samples(isa, n):
    check(*random_problem(n, 40, 3))
    check(*random_problem(n, 700, 3))
    check(*random_problem(n, 40, 20))


@pytest.mark.parametrize("m", [*range(1, 35), 95, 96, 97])
@pytest.mark.parametrize("d", [3, 20])
def test_every_last_group(isa, m, d):
    x, y, h = random_problem(40, m, d)
    h[-1] += 2  # the last target is a good one
    check(x, y, h)


def test_float64_decides_what_float32_cannot_see(isa):
    # <x, y> + h is 1 + 2^-25 and 1 + 2^-26 and 1 for targets 0, 1 and 2: all the same in float32.
    x = torch.tensor([[1.0, 1.0]])
    y = torch.tensor([[1.0, 2**-26], [1.0, 2**-25], [1.0, 0.0]])
    index, score = ops.assign(x, y, torch.zeros(3))
    assert index.tolist() == [1]
    assert score.tolist() == [1.0]
    index, _ = ops.assign(x, y[[2, 0]], torch.zeros(2))
    assert index.tolist() == [1]


def test_a_tie_goes_to_the_smallest_index(isa, dtype):
    for first in (0, 1, 11, 12, 500):
        y = torch.zeros(600, 2, dtype=dtype)
        y[first:] = torch.tensor([2.0, 2.0])
        y[first + 1 :: 2] = torch.tensor([1.0, 3.0])  # the same scores where both coordinates are equal
        index, score = ops.assign(torch.ones(70, 2, dtype=dtype), y, torch.ones(600, dtype=dtype))
        assert index.tolist() == [first] * 70
        assert score.tolist() == [5.0] * 70


@pytest.mark.parametrize("name", ["denormal_samples", "denormal_targets", "denormal_heights", "denormal_products"])
def test_denormals_count_also_where_torch_flushes_them(isa, dtype, flush_denormals, name):
    x, y, h = widen(*HARD[name](dtype))
    want = reference.assign(x, y, h)
    flush_denormals()
    index, score = ops.assign(x, y, h)
    torch.set_flush_denormal(False)
    assert_same_bits(index, want[0])
    assert_same_bits(score, want[1])


def test_float64_denormals_count_also_where_torch_flushes_them(isa, flush_denormals):
    for name in ("float64_tiny", "float64_denormal_targets", "float64_denormal_products"):
        x, y, h = widen(*HARD[name](torch.float64))
        want = reference.assign(x, y, h)
        flush_denormals()
        index, score = ops.assign(x, y, h)
        torch.set_flush_denormal(False)
        assert_same_bits(index, want[0])
        assert_same_bits(score, want[1])


def test_slices_of_larger_tensors(isa, dtype):
    x, y, h = random_problem(300, 200, 40, dtype)
    views = [
        (x[7:90, 3:20], y[5:88, 3:20], h[::2][:83]),
        (x.T[3:20, 7:90].T, y[:, ::2][:83, :17], h[100:183]),
        (x[:1, :17].expand(50, 17), y[:83, :1].expand(83, 17), h[:1].expand(83)),
    ]
    for view in views:
        kept = [v.clone() for v in view]
        check(*view)
        for now, before in zip(view, kept, strict=True):
            assert_same_bits(now.contiguous(), before.contiguous())


def test_views_with_a_pending_sign(isa):
    x = torch.tensor([[1 + 2j]]).conj().imag
    assert x.is_neg()
    assert x.is_contiguous()
    index, score = ops.assign(x, torch.tensor([[1.0], [-1.0]]), torch.zeros(2))
    assert index.tolist() == [1]
    assert score.tolist() == [2.0]


def test_what_carries_gradients_is_read_and_gives_none(isa):
    x, y, h = random_problem(40, 30, 3)
    index, score = ops.assign(*(torch.nn.Parameter(v) for v in (x, y, h)))
    assert not score.requires_grad
    assert_same_bits(index, reference.assign(x, y, h)[0])


def test_one_call_equals_many(isa, dtype):
    x, y, h = random_problem(300, 100, 5, dtype)
    index, score = ops.assign(x, y, h)
    parts = [ops.assign(part, y, h) for part in x.split([1, 33, 64, 202])]
    assert_same_bits(torch.cat([i for i, _ in parts]), index)
    assert_same_bits(torch.cat([s for _, s in parts]), score)


@pytest.mark.parametrize("n", [1, 40, 3000])
def test_threads_change_nothing(each_thread_count, dtype, n):
    x, y, h = random_problem(n, 700, 9, dtype)
    results = [ops.assign(x, y, h) for _ in each_thread_count()]
    for index, score in results[1:]:
        assert_same_bits(index, results[0][0])
        assert_same_bits(score, results[0][1])


def test_permuting_targets_permutes_winners(isa):
    x, y, h = random_problem(300, 200, 6)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    index, score = ops.assign(x, y, h)
    permuted, same_score = ops.assign(x, y[order], h[order])
    assert_same_bits(order[permuted], index)
    assert_same_bits(same_score, score)


def test_voronoi_heights_find_nearest_neighbours(isa):
    x, y, _ = random_problem(200, 300, 3, torch.float64)
    index, score = ops.assign(x, y, -0.5 * (y * y).sum(1))
    distance, nearest = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    assert_same_bits(index, nearest)
    assert_close(0.5 * (x * x).sum(1) - score, 0.5 * distance**2)


@cache  # for all instruction sets
def where_targets_are_pruned(d, lay):
    """A problem, and the 40 best targets of its samples."""
    x, y, h = random_problem(3000, 1500, d)
    if lay == "clusters":
        y = y[:12].repeat(125, 1) + 3e-3 * y
    h = torch.zeros(1500) if lay == "flat" else -0.5 * y.square().sum(1) * (1 + 0.1 * h.tanh())
    return (x, y, h), reference.topk(x, y, h, 40)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("k", [1, 2, 3, 40])
@pytest.mark.parametrize("lay", ["voronoi", "clusters", "flat"])
def test_equals_reference_where_targets_are_pruned(isa, d, k, lay):
    (x, y, h), want = where_targets_are_pruned(d, lay)
    n = 100 if isa.startswith("emulated") else len(x)  # only the CPU prunes, and emulation is slow
    for got, best in zip(ops.topk(x[:n], y, h, k), want, strict=True):
        assert_same_bits(got, best[:n, :k])


@pytest.mark.parametrize("name", ["lattice", "clusters", "offset_1e7", "alike_groups"])
@pytest.mark.parametrize("lay", [same, widen, crowd])
def test_many_samples_of_one_hard_problem(isa, name, lay):
    x, y, h = lay(*HARD[name](torch.float32))
    check(x.repeat(9, 1) * torch.linspace(0.1, 3, 9 * len(x))[:, None], y, h)


@st.composite
def problems(draw):
    """Problems full of ties and near-ties: a coarse lattice, moved, scaled, and shaken in the last places."""
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    n, m, d = draw(st.integers(1, 70)), draw(st.integers(1, 60)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    reach = draw(st.sampled_from([1, 2, 5, 1000]))

    def numbers(*shape, exponent, shift):
        v = torch.randint(-reach, reach + 1, shape, generator=generator).to(dtype) * 2.0**exponent + shift
        if draw(st.booleans()):
            v = one_ulp(v, (torch.rand(shape, generator=generator) < 0.3).long() * (v != 0))
        return v

    exponents, shifts = st.integers(-60, 60), st.sampled_from([0.0, 0.0, 1.0, 1e4])
    x = numbers(n, d, exponent=draw(exponents), shift=draw(shifts))
    y = numbers(m, d, exponent=draw(exponents), shift=draw(shifts))
    h = numbers(m, exponent=draw(exponents), shift=draw(shifts))
    if draw(st.booleans()):
        h = (-0.5 * y.double().square().sum(1)).clamp(min=-1e38).to(dtype)  # must be finite
    return draw(st.sampled_from([same, widen, crowd]))(x, y, h)


@given(problems())
def test_equals_reference_whatever_the_numbers(isa, problem):
    check(*problem)


@pytest.mark.parametrize("isa", ["baseline"], indirect=True)  # the slowest
def test_progress_is_told_and_may_stop_the_call(isa):
    x, y, h = random_problem(200_000, 2000, 16)
    told = []
    ops.assign(x, y, h, progress=told.append)
    assert told
    assert told == sorted(told)
    assert told[0] > 0
    assert told[-1] <= 1

    best = []
    ops.topk(x, y, h, 2, progress=best.append)
    assert best == sorted(best)
    assert best

    def stop(_):
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        ops.assign(x, y, h, progress=stop)
    check(x[:100], y, h)  # and nothing is left behind


def test_memory_stays_far_below_the_matrix_of_scores(start_python):
    code = """
import re, torch
from otgen import ops
def peak():  # getrusage's ru_maxrss would begin with the parent's
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
y, h, x = torch.randn(200_000, 128), torch.randn(200_000), torch.randn(1500, 128)
before = peak()
ops.assign(x, y, h)
ops.topk(x, y, h, 20)
ops.measure(y, h, "normal", 1500, pairs=True)
ops.soft_assign(x[:300], y, h, 1.0)
print(peak() - before)
"""
    process = start_python(code)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert 50e6 < int(out) < 400e6  # a packed copy of the targets is 102 MB; the matrix would be 1200 MB
