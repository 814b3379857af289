"""Fixtures for all tests, and what runs by default.

`pytest` leaves out the tests marked `slow` (seeds 3-99 of every statistical test); `pytest -m slow` runs those, and
`pytest -m "slow or not slow"` everything. `--hypothesis-profile=explore` looks for new counterexamples for minutes.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

# Torch's OpenMP threads would spin between calls and keep others from the cores: on a busy machine five times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from hypothesis import HealthCheck, settings

from otgen import _ext, ops

# Shells start background jobs with it ignored, and children inherit that: tests of Ctrl-C would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

QUICK_SEEDS = range(3)
ALL_SEEDS = range(100)

# The fixture `isa` is set for a whole property test rather than for each of its examples, which is what is wanted.
COMMON = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
settings.register_profile("reproducible", max_examples=40, derandomize=True, **COMMON)
settings.register_profile("explore", max_examples=3000, **COMMON)
settings.load_profile("reproducible")


NO_GPU = not (_ext.cuda and torch.cuda.is_available())


class OnGPU:
    """A function of otgen.ops that takes tensors of the CPU to the GPU, and its results back."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *args, **kwargs):
        there = tuple(v.cuda() if isinstance(v, torch.Tensor) else v for v in args)
        if self.function.__name__ == "sample":
            kwargs.setdefault("device", "cuda")
        return self.back(self.function(*there, **kwargs))

    def back(self, value):
        if isinstance(value, (torch.Tensor, ops.Measure)):
            return value.cpu()
        return tuple(map(self.back, value)) if isinstance(value, tuple) else value


GPU_OPS = ("assign", "topk", "measure", "laplacian", "soft_assign", "sample")


def pytest_addoption(parser):
    parser.addoption("--on-gpu", action="store_true", help="run the kernels of every test on the GPU")


@pytest.fixture(autouse=True)
def everything_on_gpu(request):
    """With --on-gpu the whole suite, solvers and models too."""
    if request.config.option.on_gpu:
        request.getfixturevalue("on_gpu")


@pytest.fixture
def on_gpu(monkeypatch):
    """All of otgen.ops on the GPU, whoever calls it with tensors of the CPU."""
    for name in GPU_OPS:
        monkeypatch.setattr(ops, name, OnGPU(getattr(ops, name)))


# Where the CUDA kernels were built for the host (-DOTGEN_CUDA=EMULATE), they are one more way to run every op.
EMULATED = [f"emulated-{name}" for name in _ext.cuda_filters()] if _ext.emulated else []


@pytest.fixture(
    params=[*_ext.available_isas(), *EMULATED, *([] if NO_GPU else [pytest.param("cuda", marks=pytest.mark.gpu)])]
)
def isa(request):
    """Every instruction set of this machine in turn, the GPU, and the emulated one with each of its filters."""
    if request.param == "cuda":
        request.getfixturevalue("on_gpu")
        yield request.param
        return
    if request.param in EMULATED:
        before = _ext.cuda_filter()
        _ext.set_cuda_filter(request.param.removeprefix("emulated-"))
        _ext.emulate(True)
        yield request.param
        _ext.emulate(False)
        _ext.set_cuda_filter(before)
        return
    before = _ext.isa()
    _ext.set_isa(request.param)
    yield request.param
    _ext.set_isa(before)


@pytest.fixture
def each_isa():
    """An iterator over the instruction sets, for tests that compare one with another."""
    before = _ext.isa()

    def walk():
        for name in _ext.available_isas():
            _ext.set_isa(name)
            yield name

    yield walk
    _ext.set_isa(before)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture(
    params=[
        "cpu",
        pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(NO_GPU, reason="no CUDA device or build")]),
    ]
)
def device(request):
    return torch.device(request.param)


@pytest.fixture(params=[s if s in QUICK_SEEDS else pytest.param(s, marks=pytest.mark.slow) for s in ALL_SEEDS])
def seed(request):
    """Seeds 0-99, of which all but a few are slow: a statistical test must hold for each of them."""
    return request.param


@pytest.fixture
def each_thread_count():
    """An iterator over numbers of threads: one, two, and more than there are cores or blocks."""
    before = torch.get_num_threads()

    def walk():
        for count in (1, 2, 3, 8):
            torch.set_num_threads(count)
            yield count

    yield walk
    torch.set_num_threads(before)


@pytest.fixture
def flush_denormals():
    """Torch's thread state in which denormal numbers count as zero; call it to enter."""

    def enter():
        if not torch.set_flush_denormal(True):
            pytest.skip("this processor cannot flush denormals")

    yield enter
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def start_python():
    """Start another Python on a piece of code; it imports the otgen that these tests import."""
    package = str(Path(_ext.__file__).parents[1])

    def start(code, **environ):
        return subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=package,  # where -c looks first
            env={**os.environ, "OMP_NUM_THREADS": "2", **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(autouse=True, scope="session")
def away_from_the_checkout(tmp_path_factory):
    """Subprocesses must import the installed package, not the source folder of that name, which lacks the extension."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(before)
