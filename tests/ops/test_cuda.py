"""What only a GPU can show, and the answers of its kernels at sizes that the emulation does not reach."""

import pytest
import torch
from oracles import assert_same_bits
from problems import HARD, SIZES, random_problem, widen

from otgen import _ext, ops

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (_ext.cuda and torch.cuda.is_available()), reason="no CUDA device or build"),
]


@pytest.fixture(params=_ext.cuda_filters() if _ext.cuda else ["none"])
def cuda_filter(request):
    """Every filter of the search in turn."""
    if request.param == "wgmma" and torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("only compute capability 9.0 has wgmma")
    before = _ext.cuda_filter()
    _ext.set_cuda_filter(request.param)
    yield request.param
    _ext.set_cuda_filter(before)


def there(*tensors):
    return tuple(v.cuda() for v in tensors)


def check_search(x, y, h):
    """Hold assign and topk to the CPU's, bit for bit."""
    for k in {1, min(2, len(y)), min(5, len(y))}:
        for got, want in zip(ops.topk(*there(x, y, h), k), ops.topk(x, y, h, k), strict=True):
            assert_same_bits(got.cpu(), want)
    for got, want in zip(ops.assign(*there(x, y, h)), ops.assign(x, y, h), strict=True):
        assert_same_bits(got.cpu(), want)


@pytest.mark.parametrize(("n", "m", "d"), [*SIZES, (40_000, 3001, 64), (3000, 40_001, 20), (2000, 5000, 300)])
def test_the_search_equals_that_of_the_cpu(cuda_filter, dtype, n, m, d):
    check_search(*random_problem(n, m, d, dtype))


@pytest.mark.parametrize("name", HARD)
def test_the_search_equals_that_of_the_cpu_on_hard_problems(cuda_filter, dtype, name):
    check_search(*HARD[name](dtype))
    check_search(*widen(*HARD[name](dtype)))


def test_several_slabs_of_samples(cuda_filter):
    check_search(*random_problem((1 << 18) + 1, 50, 3))


@pytest.mark.parametrize("images", [1, 2, 16])
@pytest.mark.parametrize("sobol", [False, True])
@pytest.mark.parametrize("source", ["uniform", "normal"])
def test_samples_and_measures_equal_those_of_the_cpu(cuda_filter, dtype, source, sobol, images):
    y, h = random_problem(1, 1001, 8, dtype)[1:]
    n, stream = 600_001, {"seed": 7, "first": 1_000_003, "sobol": sobol, "images": images}
    assert_same_bits(
        ops.sample(source, n, 8, device="cuda", **stream).cpu(), ops.sample(source, n, 8, device="cpu", **stream)
    )
    got = ops.measure(*there(y, h), source, n, pairs=True, centroids=True, **stream)
    want = ops.measure(y, h, source, n, pairs=True, centroids=True, **stream)
    for name in ("counts", "pairs", "gaps", "centroids"):
        assert getattr(got, name).is_cuda
        assert_same_bits(getattr(got, name).cpu(), getattr(want, name))
    assert got.mean_u == want.mean_u


def test_every_call_gives_the_same(cuda_filter):
    y, h = there(*random_problem(1, 3000, 20)[1:])
    first = ops.measure(y, h, "normal", 300_000)
    for _ in range(5):
        again = ops.measure(y, h, "normal", 300_000)
        assert_same_bits(again.counts, first.counts)
        assert again.mean_u == first.mean_u
    x = torch.randn(1000, 20, device="cuda")
    value, columns = ops.soft_assign(x, y, h, 0.1)
    for _ in range(5):
        same_value, same_columns = ops.soft_assign(x, y, h, 0.1)
        assert_same_bits(same_value, value)
        assert_same_bits(same_columns, columns)


def test_the_callers_stream_is_used(cuda_filter):
    x, y, h = random_problem(2000, 300, 8)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # about a tenth of a second, before the targets are there
        late = tuple(v.cuda(non_blocking=True) for v in (x, y, h))
        index, score = ops.assign(*late)
    stream.synchronize()
    want = ops.assign(x, y, h)
    assert_same_bits(index.cpu(), want[0])
    assert_same_bits(score.cpu(), want[1])


def test_a_call_does_not_wait(cuda_filter):
    x, y, h = there(*random_problem(2000, 300, 8))
    ops.assign(x, y, h), ops.topk(x, y, h, 2), ops.soft_assign(x, y, h, 1.0)  # what is done once is done
    torch.cuda.synchronize()
    torch.cuda._sleep(1_000_000_000)
    ops.assign(x, y, h), ops.topk(x, y, h, 2), ops.soft_assign(x, y, h, 1.0)
    ops.sample("normal", 1000, 3, sobol=True, device="cuda")
    assert not torch.cuda.current_stream().query()
    torch.cuda.synchronize()


def test_calls_can_be_captured_in_a_graph(cuda_filter):
    x, y, h = there(*random_problem(2000, 300, 8))
    ops.assign(x, y, h), ops.topk(x, y, h, 2), ops.soft_assign(x, y, h, 1.0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = [*ops.assign(x, y, h), *ops.topk(x, y, h, 2), *ops.soft_assign(x, y, h, 1.0)]
    for seed in (1, 2):
        x.copy_(random_problem(2000, 1, 8, seed=seed)[0])
        graph.replay()
        want = [*ops.assign(x, y, h), *ops.topk(x, y, h, 2), *ops.soft_assign(x, y, h, 1.0)]
        for a, b in zip(got, want, strict=True):
            assert_same_bits(a, b)


def test_measure_says_that_it_cannot_be_captured():
    y, h = there(*random_problem(1, 300, 8)[1:])
    wanted = pytest.raises(RuntimeError, match="measure: reads its result, so it cannot be captured in a CUDA graph")
    with wanted, torch.cuda.graph(torch.cuda.CUDAGraph()):
        ops.measure(y, h, "normal", 1000)


def test_laplacian_says_that_it_cannot_be_captured():
    pairs, gaps, bandwidth = torch.tensor([[0, 1]], dtype=torch.int32).cuda(), *there(torch.ones(1), torch.ones(2))
    wanted = pytest.raises(RuntimeError, match="laplacian: reads how many edges there are, so it cannot be captured")
    with wanted, torch.cuda.graph(torch.cuda.CUDAGraph()):
        ops.laplacian(pairs, gaps, bandwidth, 1)


def test_memory_stays_within_a_gigabyte(cuda_filter):
    y, h = torch.randn(200_000, 128, device="cuda"), torch.randn(200_000, device="cuda")
    x = torch.randn(2000, 128, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    ops.assign(x, y, h)
    ops.measure(y, h, "normal", 2000, pairs=True)
    assert torch.cuda.max_memory_allocated() - before < 1 << 30


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_a_device_that_is_not_the_current_one():
    x, y, h = random_problem(2000, 300, 8)
    index, _ = ops.assign(*(v.to("cuda:1") for v in (x, y, h)))
    assert index.device == torch.device("cuda:1")
    assert torch.cuda.current_device() == 0
    assert_same_bits(index.cpu(), ops.assign(x, y, h)[0])


def test_what_is_not_a_number_gives_an_index_in_range(cuda_filter):
    x, y, h = there(*random_problem(300, 200, 5))
    x[3, 1], x[4, 0], y[7, 2], h[9] = float("nan"), float("inf"), float("nan"), float("inf")
    for k in (1, 2):
        index, _ = ops.topk(x, y, h, k)
        assert int(index.min()) >= 0
        assert int(index.max()) < 200


def test_progress_is_told():
    told = []
    ops.assign(*there(*random_problem(2_000_000, 3000, 32)), progress=told.append)
    assert told == sorted(told)
    assert all(0 < part <= 1 for part in told)
