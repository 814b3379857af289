import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_same_bits
from problems import random_problem
from torch.testing import assert_close

from otgen import ops
from otgen.ops import reference
from otgen.ops.laplacian import by_sorting


def dense(edges, weights, m):
    """The matrix that a list of edges stands for."""
    adjacency = torch.zeros(m, m, dtype=torch.float64)
    adjacency[edges[:, 0], edges[:, 1]] = weights
    adjacency += adjacency.T.clone()
    return torch.diag(adjacency.sum(1)) - adjacency


def check(pairs, gaps, bandwidth, n, device="cpu"):
    """Hold laplacian to the reference, and its list of edges to its form."""
    check_one(pairs, gaps, bandwidth, n, device, local=True)
    return check_one(pairs, gaps, bandwidth, n, device, local=False)


def check_one(pairs, gaps, bandwidth, n, device, local):
    m = len(bandwidth)
    found = ops.laplacian(pairs.to(device), gaps.to(device), bandwidth.to(device), n, local=local)
    edges, weights = (v.cpu() for v in found)
    assert edges.dtype == torch.int64
    assert weights.dtype == torch.float64
    assert edges.shape == (len(weights), 2)
    assert bool((edges[:, 0] < edges[:, 1]).all())
    assert bool((torch.diff(edges[:, 0] * m + edges[:, 1]) > 0).all())  # sorted, and each but once
    assert bool((weights > 0).all())
    matrix = dense(edges, weights, m)
    assert_close(matrix, reference.laplacian(pairs, gaps, bandwidth, n, local=local), rtol=1e-12, atol=1e-15)
    return matrix


def test_threads_change_nothing(each_thread_count):
    pairs, gaps, bandwidth = random_pairs(20_000, 1500)
    results = [ops.laplacian(pairs, gaps, bandwidth, 20_000) for _ in each_thread_count()]
    assert len(results[0][0]) > 1000
    for edges, weights in results[1:]:
        assert_same_bits(edges, results[0][0])
        assert_same_bits(weights, results[0][1])


def random_pairs(p, m, seed=0):
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(m, (p,), generator=generator)
    second = (first + torch.randint(1, m, (p,), generator=generator)) % m
    gaps, bandwidth = torch.rand(p, generator=generator), 0.1 + torch.rand(m, generator=generator)
    return torch.stack([first, second], dim=1).int(), gaps, bandwidth


@pytest.mark.parametrize(("p", "m"), [(0, 1), (0, 5), (1, 2), (17, 2), (33, 7), (1000, 13), (2003, 97), (50, 1000)])
def test_equals_reference_at_all_sizes(p, m):
    pairs, gaps, bandwidth = random_pairs(p, m) if p else (torch.empty(0, 2).int(), torch.empty(0), torch.ones(m))
    check(pairs, gaps, bandwidth, max(1, p))
    check(pairs, gaps, bandwidth, 3 * p + 7)


@pytest.mark.parametrize(("p", "m"), [(0, 1), (1, 2), (17, 2), (2003, 97), (50, 1000)])
@pytest.mark.parametrize("local", [False, True])
def test_torch_version_for_cuda_gives_the_same_bits(p, m, local):
    pairs, gaps, bandwidth = random_pairs(p, m) if p else (torch.empty(0, 2).int(), torch.empty(0), torch.ones(m))
    edges, weights = ops.laplacian(pairs, gaps, bandwidth, p + 1, local=local)
    same_edges, same_weights = by_sorting(pairs, gaps, bandwidth, 1.0 / (p + 1), local)
    assert_same_bits(same_edges, edges)
    assert_same_bits(same_weights, weights)


def test_equals_reference_on_device(device):
    check(*random_pairs(300, 20), 300, device)


@given(st.integers(0, 200), st.integers(2, 12), st.integers(0, 2**32))
def test_equals_reference_on_gaps_that_meet_the_bandwidth(p, m, seed):
    pairs, gaps, bandwidth = random_pairs(p, m, seed)
    matrix = check(pairs, (4 * gaps).round() / 4, (4 * bandwidth).ceil() / 4, p + 1)
    assert float(torch.linalg.eigvalsh(matrix).min()) > -1e-12


def test_numbers_worked_out_by_hand():
    pairs = torch.tensor([[0, 1], [1, 0], [2, 1], [1, 2], [0, 2], [0, 1]], dtype=torch.int32)
    gaps = torch.tensor([0.1, 0.0, 0.3, 0.5, 0.1, 0.25])
    edges, weights = ops.laplacian(pairs, gaps, torch.tensor([0.25, 1.0, 0.5]), 10)
    # {0, 1}: one of cell 0 below 0.25 (a gap as wide as the band is out), one of cell 1 below 1; {0, 2}: one of cell 0;
    # {1, 2}: one of cell 1, and one of cell 2 below 0.5. A sample adds 1 / (20 bandwidth).
    assert edges.tolist() == [[0, 1], [0, 2], [1, 2]]
    want = torch.tensor([1 / 5 + 1 / 20, 1 / 5, 1 / 20 + 1 / 10], dtype=torch.float64)
    assert_close(weights, want)
    local = ops.laplacian(pairs, gaps, torch.tensor([0.25, 1.0, 0.5]), 10, local=True)[1]
    want = torch.tensor([16 / 17 * 2 / 5 + 1 / 17 / 10, 4 / 5 * 2 / 5, 1 / 5 / 10 + 4 / 5 / 5], dtype=torch.float64)
    assert_close(local, want)


def test_no_gap_is_small_enough():
    pairs, gaps, bandwidth = random_pairs(50, 6)
    edges, weights = ops.laplacian(pairs, gaps + 2, bandwidth, 50)
    assert edges.shape == (0, 2)
    assert weights.shape == (0,)


def test_order_of_samples_is_indifferent():
    pairs, gaps, bandwidth = random_pairs(500, 9)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    first = ops.laplacian(pairs, gaps, bandwidth, 500)
    assert_close(ops.laplacian(pairs[order], gaps[order], bandwidth, 500), first, rtol=0, atol=0)
    same = torch.full((9,), 0.5)  # then it does not matter either which of the two was best
    assert_close(ops.laplacian(pairs.flip(1), gaps, same, 500), ops.laplacian(pairs, gaps, same, 500), rtol=0, atol=0)


def test_slices_of_larger_tensors():
    pairs, gaps, bandwidth = random_pairs(300, 20)
    wide = torch.zeros(300, 5, dtype=torch.int32)
    wide[:, 1:4:2] = pairs
    spread = torch.zeros(300, 2)
    spread[:, 1] = gaps
    check(wide[::3, 1:4:2], spread[::3, 1], bandwidth.repeat(2)[:20], 100)


def test_inputs_are_left_alone():
    pairs, gaps, bandwidth = random_pairs(300, 20)
    kept = [v.clone() for v in (pairs, gaps, bandwidth)]
    ops.laplacian(pairs, gaps, bandwidth, 300)
    assert_close([pairs, gaps, bandwidth], kept, rtol=0, atol=0)


@pytest.mark.parametrize("d", [1, 3, 10])
def test_two_targets_under_the_normal_source(d, seed):
    """H_01 is the density of the normal law at the facet, over the distance of the targets."""
    y = random_problem(1, 2, d, seed=seed)[1]
    distance, facet = float((y[0] - y[1]).norm()), 0.4
    h = torch.tensor([facet * distance, 0.0])
    density = math.exp(-0.5 * facet**2) / math.sqrt(2 * math.pi)
    n, e = 100_000, 0.1 * distance
    got = ops.measure(y, h, "normal", n, seed, pairs=True)
    edges, weights = ops.laplacian(got.pairs, got.gaps, torch.full((2,), e), n)
    assert edges.tolist() == [[0, 1]]
    noise = 5 * (density * 2 * e / distance * n) ** 0.5 / (2 * e * n)
    assert_close(float(weights), density / distance, rtol=0.005, atol=noise)


def test_each_side_of_a_facet_has_a_bandwidth_of_its_own(seed):
    """A far target's cell has gaps ten times as large as its neighbours': with its own bandwidth more of them count."""
    y = random_problem(1, 30, 2, seed=seed)[1]
    h = -0.5 * (y * y).sum(1)
    y[0], h[0] = torch.tensor([30.0, 0.0]), -30.0  # its cell is about where the first coordinate is above 1
    n = 200_000
    got = ops.measure(y, h, "normal", n, seed, sobol=True, pairs=True)
    winner = got.pairs[:, 0].long()
    gap = torch.bincount(winner, got.gaps.double(), 30) / got.counts.clamp_min(1)
    narrow, wide = (torch.full((30,), 0.02 * float(gap[1:].mean()) + 1e-6) for _ in (0, 1))
    wide[0] = 0.02 * float(gap[0])
    assert float(wide[0]) > 5 * float(narrow[0])
    fine, coarse = (ops.laplacian(got.pairs, got.gaps, width, n)[1].sum() for width in (narrow, wide))
    assert float(coarse) != float(fine)
    assert_close(float(coarse), float(fine), rtol=0.1, atol=0)


def test_it_is_the_derivative_of_the_measure():
    """A small step of one height moves as much mass as the Laplacian says, on fresh samples."""
    y = random_problem(1, 12, 2)[1]
    n, h = 2**20, -0.5 * (y * y).sum(1)
    got = ops.measure(y, h, "normal", n, seed=1, sobol=True, pairs=True)
    edges, weights = ops.laplacian(got.pairs, got.gaps, torch.full((12,), 0.02), n)
    step = torch.zeros(12)
    step[int(got.counts.argmax())] = 0.02
    moved = ops.measure(y, h + step, "normal", n, seed=2, sobol=True).counts
    before = ops.measure(y, h - step, "normal", n, seed=2, sobol=True).counts
    change = (moved - before).double() / n
    assert_close(dense(edges, weights, 12) @ (2 * step).double(), change, rtol=0, atol=1e-3)
    assert float(change.abs().max()) > 0.02
