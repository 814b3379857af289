"""The pipeline of csrc/cuda/wgmma.cu where it has rounds to go: several chunks, stages, blocks and teams."""

import pytest
import torch
from oracles import assert_same_bits
from problems import random_problem

from otgen import _ext, ops

PLACES = [
    pytest.param("emulated", marks=pytest.mark.skipif(not _ext.emulated, reason="built without -DOTGEN_CUDA=EMULATE")),
    pytest.param("cuda", marks=pytest.mark.gpu),
]


@pytest.fixture(params=PLACES)
def on_warp_groups(request):
    """Calls a function of tensors where there are warp groups, emulated or real."""
    emulated = request.param == "emulated"
    if not emulated and not (_ext.cuda and torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9):
        pytest.skip("no CUDA device of compute capability 9.0, or no build for it")

    def call(f, *tensors):
        before = _ext.cuda_filter()
        _ext.set_cuda_filter("wgmma")
        if emulated:
            _ext.emulate(True)
        try:
            results = f(*(tensors if emulated else (v.cuda() for v in tensors)))
        finally:
            if emulated:
                _ext.emulate(False)
            _ext.set_cuda_filter(before)
        return [v.cpu() for v in results]

    return call


# One block and several; a team without samples; one chunk of coordinates and more than there are stages; samples that
# stay in shared memory (d <= 256) and that come with every tile.
@pytest.mark.parametrize(
    ("n", "m", "d"), [(100, 1500, 64), (600, 900, 20), (600, 500, 130), (300, 700, 256), (520, 300, 400)]
)
@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_best_equal_those_of_the_cpu(on_warp_groups, n, m, d, k):
    x, y, h = random_problem(n, m, d)
    got = on_warp_groups(lambda x, y, h: ops.topk(x, y, h, k), x, y, h)
    for a, b in zip(got, ops.topk(x, y, h, k), strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_lists_that_grow_longer_than_there_is_room_for(on_warp_groups, k):
    """Better and better targets, and many that are as good: every tile has something to note."""
    x, y, h = random_problem(300, 700, 70)
    h = torch.linspace(0, 40, 700) + h
    y = y[torch.arange(700) // 3]
    got = on_warp_groups(lambda x, y, h: ops.topk(x, y, h, k), x, y, h)
    for a, b in zip(got, ops.topk(x, y, h, k), strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("k", [1, 2])
def test_what_is_not_a_number_gives_an_index_in_range(on_warp_groups, monkeypatch, k):
    x, y, h = random_problem(300, 200, 5)
    x[3, 1], x[4, 0], y[7, 2] = float("nan"), float("inf"), float("nan")
    monkeypatch.setattr(torch, "isfinite", lambda v: torch.ones_like(v, dtype=torch.bool))  # as on a GPU
    index, _ = on_warp_groups(lambda x, y, h: ops.topk(x, y, h, k), x, y, h)
    assert int(index.min()) >= 0
    assert int(index.max()) < 200
