import signal
import sys
import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_same_bits, mean_abs_normal, two_targets_normal, uniform_1d
from problems import HARD, KINDS, STREAMS, random_problem, widen
from torch.testing import assert_close

from otgen import ops
from otgen.ops import reference

# Starts of streams: within a tile, at 2^32 for a 32-bit counter, at 2^30 where a Sobol run ends, far beyond both.
FIRSTS = [0, 5, 32, 2**30 - 45, 2**32 - 45, 3 * 2**30 - 7, 2**40 + 1, 2**62 - 200]
SCALE = 2.0**32  # sums of samples are kept in this unit


def targets(m, d, dtype=torch.float32, seed=0):
    return random_problem(1, m, d, dtype, seed)[1:]


def check(y, h, source, n, device="cpu", **stream):
    """Hold all that measure counts to the reference on the samples of the same stream."""
    got = ops.measure(y.to(device), h.to(device), source, n, pairs=len(y) > 1, centroids=True, **stream)
    x = ops.sample(source, n, y.shape[1], **stream).to(y.dtype)
    scores = reference.scores(x, y, h)
    index = reference.topk(x, y, h, min(2, len(y)))[0]
    best = scores.gather(1, index)
    assert_same_bits(got.counts.cpu(), index[:, 0].bincount(minlength=len(y)))
    assert_close(got.mean_u, float(best[:, 0].mean()), rtol=1e-12, atol=1e-300)
    if len(y) > 1:
        assert_same_bits(got.pairs.cpu(), index.int())
        assert_same_bits(got.gaps.cpu(), (best[:, 0] - best[:, 1]).to(y.dtype))
    moments = torch.zeros(y.shape, dtype=torch.float64).index_add(0, index[:, 0], (x.double() * SCALE).round())
    assert_same_bits(got.centroids.cpu(), moments / (SCALE * got.counts[:, None].cpu()))


@pytest.mark.parametrize(("source", "kind"), STREAMS)
@pytest.mark.parametrize("first", FIRSTS)
def test_equals_reference_on_the_same_samples(isa, dtype, source, kind, first):
    check(*targets(50, 5, dtype), source, 150, seed=3, first=first, **kind)
    check(*targets(50, 40, dtype), source, 150, seed=3, first=first, **kind)


@pytest.mark.parametrize(("source", "kind"), STREAMS)
def test_equals_reference_on_device(device, dtype, source, kind):
    check(*targets(50, 5, dtype), source, 150, device, seed=2**63 - 1, first=7, **kind)


def test_moments_of_many_numbers(each_thread_count):
    """They stand once for all threads, which here meet in two cells; fewer every thread has for itself."""
    check(*targets(300, 240), "normal", 3000)
    y, h = targets(2, 40_000)
    all_centroids = [ops.measure(y, h, "normal", 2000, centroids=True).centroids for _ in each_thread_count()]
    for centroids in all_centroids[1:]:
        assert_same_bits(centroids, all_centroids[0])


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 255, 256, 257, 1000])
@pytest.mark.parametrize("first", [0, 1, 31])
@pytest.mark.parametrize("images", [1, 4, 16])
def test_every_number_of_samples(isa, n, first, images):
    check(*targets(30, 3), "normal", n, first=first, images=images)


@pytest.mark.parametrize(("m", "d"), [(1, 1), (2, 1), (1, 7), (12, 3), (13, 4), (30, 11), (1025, 64), (61, 1823)])
@pytest.mark.parametrize("images", [1, 2, 4, 8, 16])
def test_every_shape(isa, dtype, m, d, images):
    check(*targets(m, d, dtype), "uniform", 100, images=images)


@pytest.mark.parametrize(
    "name", ["duplicates", "lattice", "last_place", "offset_1e7", "alike", "outlier", "norms_1e38"]
)
@pytest.mark.parametrize("source", ["uniform", "normal"])
@pytest.mark.parametrize("images", [1, 4, 16])
def test_hard_targets(isa, dtype, name, source, images):
    check(*HARD[name](dtype)[1:], source, 200, images=images)
    check(*widen(*HARD[name](dtype))[1:], source, 200, images=images)


@pytest.mark.parametrize(("source", "middle"), [("uniform", 0.5), ("normal", 0.0)])
def test_images_that_score_alike(isa, dtype, source, middle):
    """Targets in pairs y, -y of which the image of a sample has the one's score where the sample has the other's."""
    y, h = targets(200, 40, dtype)
    y = torch.cat([y, -y])
    check(y, (torch.cat([h, h]).double() - middle * y.double().sum(1)).to(dtype), source, 500, images=2)


def test_slices_of_larger_tensors(isa, dtype):
    y, h = targets(80, 12, dtype)
    check(y[3:60:2, 1:6], h[::2][:29], "normal", 100)


def test_first_alone_or_with_others_makes_no_difference(isa):
    y, h = targets(40, 3)
    for kind in KINDS:
        whole = ops.measure(y, h, "normal", 300, seed=1, first=11, **kind, pairs=True, centroids=True)
        plain = ops.measure(y, h, "normal", 300, seed=1, first=11, **kind)
        assert plain.pairs is None
        assert plain.gaps is None
        assert plain.centroids is None
        assert_same_bits(plain.counts, whole.counts)
        assert plain.mean_u == whole.mean_u


@given(
    st.integers(1, 400),
    st.floats(0, 1),
    st.sampled_from(FIRSTS),
    st.integers(0, 2**63 - 1),
    st.sampled_from(STREAMS),
)
def test_a_range_in_two_calls_adds_up(n, share, first, seed, stream):
    y, h = targets(20, 3)
    source, kind = stream
    k = round(share * n)

    def part(n, first):
        if n == 0:
            return None
        return ops.measure(y, h, source, n, seed, first=first, **kind, pairs=True, centroids=True)

    whole, parts = part(n, first), [p for p in (part(k, first), part(n - k, first + k)) if p]
    together = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    assert_same_bits(together.counts, whole.counts)
    assert_close(together.mean_u, whole.mean_u, rtol=1e-12, atol=1e-13)
    assert_same_bits(together.pairs, whole.pairs)
    assert_same_bits(together.gaps, whole.gaps)
    assert_close(together.centroids, whole.centroids, rtol=1e-9, atol=1e-12, equal_nan=True)


def test_means_of_ones_own_samples_add_up_by_their_numbers():
    one = ops.Measure(torch.tensor([1, 0]), 1.0, mean=torch.tensor([2.0]), second_moment=4.0)
    other = ops.Measure(torch.tensor([1, 2]), 5.0, mean=torch.tensor([6.0]), second_moment=40.0)
    both = one + other
    assert (both.counts.tolist(), both.mean_u, both.mean.tolist(), both.second_moment) == ([2, 2], 4, [5], 31)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "d"), [(20, 6), (10_007, 6), (10_007, 40), (10_007, 240)])
def test_threads_change_nothing(each_thread_count, kind, n, d):
    y, h = targets(300, d)
    results = [ops.measure(y, h, "normal", n, first=9, **kind, pairs=True, centroids=True) for _ in each_thread_count()]
    for result in results[1:]:
        check_same(result, results[0])
    assert int(results[0].counts.sum()) == n


@pytest.mark.parametrize("d", [6, 40])
@pytest.mark.parametrize("images", [1, 4, 16])
def test_instruction_sets_change_nothing(each_isa, dtype, d, images):
    y, h = targets(300, d, dtype)
    options = {"first": 9, "images": images, "pairs": True, "centroids": True}
    results = [ops.measure(y, h, "normal", 5003, **options) for _ in each_isa()]
    for result in results[1:]:
        check_same(result, results[0])


def check_same(a, b):
    for name in ("counts", "pairs", "gaps", "centroids"):
        assert_same_bits(getattr(a, name), getattr(b, name))
    assert a.mean_u == b.mean_u


def test_denormals_count_also_where_torch_flushes_them(isa, flush_denormals):
    y, h = targets(30, 3, torch.float64)
    y, h = y * 1e-310, h * 1e-310
    want = ops.measure(y, h, "normal", 200, pairs=True)
    flush_denormals()
    got = ops.measure(y, h, "normal", 200, pairs=True)
    torch.set_flush_denormal(False)
    assert_same_bits(got.counts, want.counts)
    assert_same_bits(got.pairs, want.pairs)
    assert_same_bits(got.gaps, want.gaps)
    assert len(want.counts.nonzero()) > 5


# --- against closed forms --------------------------------------------------------------------------------------------


def check_frequencies(counts, expected):
    n = int(counts.sum())
    error = (5 * (expected * (1 - expected) / n).sqrt()).clamp(min=1e-9)
    assert bool(((counts / n - expected).abs() <= error).all())


@pytest.mark.parametrize("d", [1, 5, 32])
def test_two_targets_under_the_normal_source(d, seed):
    y, h = targets(2, d, torch.float64, seed)
    check_frequencies(ops.measure(y, h, "normal", 100_000, seed).counts, two_targets_normal(y, h))


def test_cells_on_a_line_under_the_uniform_source(seed):
    nu = torch.rand(17, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    y = torch.arange(17, dtype=torch.float64)[:, None] ** 1.5
    ends = (nu / nu.sum()).cumsum(0)
    h = -torch.cat([torch.zeros(1), (ends[:-1] * torch.diff(y[:, 0])).cumsum(0)])
    assert_close(uniform_1d(y, h), nu / nu.sum())
    check_frequencies(ops.measure(y, h, "uniform", 100_000, seed).counts, nu / nu.sum())
    sobol = ops.measure(y, h, "uniform", 2**16, seed, sobol=True).counts
    assert int((sobol - 2**16 * nu / nu.sum()).abs().max()) <= 1  # one point in each of 2^16 intervals


def test_symmetry_of_a_cross_polytope(seed):
    eye = torch.eye(6)
    check_frequencies(
        ops.measure(torch.cat([eye, -eye]), torch.zeros(12), "normal", 120_000, seed).counts,
        torch.full((12,), 1 / 12, dtype=torch.float64),
    )


def test_mean_potential_and_centroids_of_two_half_lines(seed):
    n = 100_000
    got = ops.measure(torch.tensor([[-1.0], [1.0]]), torch.zeros(2), "normal", n, seed, centroids=True)
    assert_close(got.mean_u, mean_abs_normal(), rtol=0, atol=5 / n**0.5)
    assert_close(got.centroids[:, 0], torch.tensor([-1.0, 1.0]).double() * mean_abs_normal(), rtol=0, atol=7 / n**0.5)


def test_mean_potential_of_one_target_is_linear(seed):
    y, h = torch.tensor([[2.0, -1.0, 4.0]]), torch.tensor([0.5])
    got = ops.measure(y, h, "uniform", 2**14, seed, sobol=True, centroids=True)
    assert_close(got.mean_u, 3.0, rtol=0, atol=2e-4)
    assert_close(got.centroids, torch.full((1, 3), 0.5, dtype=torch.float64), rtol=0, atol=1e-4)
    assert_close(got.mean_u, float((got.centroids @ y.T.double()).item() + 0.5), rtol=1e-12, atol=0)


@pytest.mark.parametrize("images", [1, 4, 16])
def test_more_samples_than_one_slab_of_sums(images):
    n = 2**25 + 77  # the kernel keeps sums of 2^20 tiles of 32 samples at a time
    y, h = torch.tensor([[0.0], [1.0]]), torch.tensor([0.25, 0.0])
    told = []
    got = ops.measure(y, h, "uniform", n, sobol=True, images=images, progress=told.append)
    assert told == sorted(told)
    assert 0.9 < told[-1] < 1  # the first is done
    assert int(got.counts.sum()) == n
    assert_close(float(got.counts[0]) / n, 0.25, rtol=0, atol=1e-6)
    assert_close(got.mean_u, 0.25**2 + (1 - 0.25**2) / 2, rtol=0, atol=1e-6)


def test_empty_cells_have_no_centroid():
    got = ops.measure(torch.zeros(3, 2), torch.tensor([0.0, 1.0, 0.0]), "uniform", 50, centroids=True)
    assert got.counts.tolist() == [0, 50, 0]
    assert got.centroids.isnan().all(dim=1).tolist() == [True, False, True]


# --- long calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ["baseline"], indirect=True)  # the slowest
def test_other_threads_run_during_a_call(isa):
    y, h = targets(2000, 16)
    ticks, done = 0, threading.Event()

    def count():
        nonlocal ticks
        while not done.wait(0.002):
            ticks += 1

    ticker = threading.Thread(target=count)
    ticker.start()
    start = time.perf_counter()
    ops.measure(y, h, "normal", 200_000)
    seconds = time.perf_counter() - start
    done.set()
    ticker.join()
    assert ticks > 50 * seconds  # of 500 a second; the poll for Ctrl-C alone would let through 10
    assert seconds > 0.1


@pytest.mark.parametrize("op", ["measure", "assign", "soft_assign"])
def test_ctrl_c_ends_a_long_call(start_python, op):
    calls = {
        "measure": 'ops.measure(y, h, "normal", 10**10)',
        "assign": "ops.assign(torch.randn(1, 32).expand(3_000_000, 32), y, h)",
        "soft_assign": "ops.soft_assign(torch.randn(1, 32).expand(1_000_000, 32), y, h, 1.0)",
    }
    code = f"""
import time, torch
from otgen import ops
y, h = torch.randn(20_000, 32), torch.randn(20_000)
print("ready", flush=True)
try:
    {calls[op]}
except KeyboardInterrupt:
    print("interrupted", time.clock_gettime(time.CLOCK_MONOTONIC), flush=True)
    raise
"""
    process = start_python(code)
    try:
        assert process.stdout.readline() == "ready\n", process.communicate(timeout=20)[1]
        time.sleep(1.0)
        assert process.poll() is None  # it is still at work
        sent = time.clock_gettime(time.CLOCK_MONOTONIC)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    word, stopped = out.split()
    assert word == "interrupted"
    assert float(stopped) - sent < 3
    assert "KeyboardInterrupt" in err
    assert process.returncode == -signal.SIGINT


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_fewer_threads_do_where_the_system_starts_no_more(start_python):
    code = """
import resource, torch
from otgen import ops
y, h = torch.randn(100, 3), torch.zeros(100)
want = ops.measure(y, h, "normal", 100_000).counts
pages = int(open("/proc/self/statm").read().split()[0])
room = pages * resource.getpagesize() + 60 * 2**20  # for the stacks of a few threads
torch.set_num_threads(64)
resource.setrlimit(resource.RLIMIT_AS, (room, room))
assert torch.equal(ops.measure(y, h, "normal", 100_000).counts, want)
"""
    process = start_python(code)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 0, err


def test_calls_from_several_threads_at_once(isa):
    y, h = targets(300, 20)
    x = ops.sample("normal", 300 if isa.startswith("emulated") else 2000, 20)  # emulation is slow
    want = ops.assign(x, y, h)
    results = []

    def call():
        results.extend(ops.assign(x, y, h) for _ in range(5))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 20
    for index, score in results:
        assert_same_bits(index, want[0])
        assert_same_bits(score, want[1])


@pytest.mark.parametrize("isa", ["baseline"], indirect=True)  # the slowest
def test_progress_is_told_and_may_stop_the_call(isa):
    y, h = targets(2000, 16)
    told = []
    ops.measure(y, h, "normal", 200_000, progress=told.append)
    assert told
    assert told == sorted(told)
    assert 0 < told[0] <= told[-1] <= 1

    def stop(_):
        raise KeyError("enough")

    start = time.perf_counter()
    with pytest.raises(KeyError, match="enough"):
        ops.measure(y, h, "normal", 10**9, progress=stop)
    assert time.perf_counter() - start < 3
    check(y, h, "normal", 100)  # and nothing is left behind


def test_sums_that_would_leave_64_bits_are_refused():
    with pytest.raises(ValueError, match="^measure: centroids are of at most 268435456 samples, got 268435457$"):
        ops.measure(torch.zeros(1, 1), torch.zeros(1), "uniform", 2**28 + 1, centroids=True)
