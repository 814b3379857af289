"""What else finds the best of all targets, called alike; those that are not installed are left out."""

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_info
from torch import Tensor

from otgen import ops

KEOPS_DIMS = (2, 16, 64)
"""PyKeOps compiles a program for every dimension, which takes up to a minute: it gets these."""

_AVX2 = {
    "FAISS_SIMD_LEVEL": "AVX2", "OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2",
}  # fmt: skip
_AVX512 = {
    "FAISS_SIMD_LEVEL": "AVX512", "OPENBLAS_CORETYPE": "SkylakeX", "ATEN_CPU_CAPABILITY": "avx512",
    "MKL_ENABLE_INSTRUCTIONS": "AVX512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
}  # fmt: skip

HELD_TO = {
    "avx2": {"OTGEN_ISA": "avx2", **_AVX2},
    "avx_vnni": {"OTGEN_ISA": "avx_vnni", **_AVX2},
    "avx512": {"OTGEN_ISA": "avx512", **_AVX512},
    "avx512_vnni": {"OTGEN_ISA": "avx512_vnni", **_AVX512},
    "amx_int8": {"OTGEN_ISA": "amx_int8", **_AVX512},
}
"""Environment that holds all contenders to an instruction set. FAISS' wheels from 1.15 on choose by FAISS_SIMD_LEVEL,
not FAISS_OPT_LEVEL, and most of the work of a flat search is its OpenBLAS'."""


@dataclass(frozen=True)
class Peer:
    """A contender.

    Attributes:
        dims: Dimensions it is asked for; `None` for all.
        scores: n m of one call, in units of torch's: slow ones get fewer samples.
        make: Targets (m, d) and heights (m,) to a function from samples (n, d) to the index of the best target, (n,).
    """

    dims: tuple[int, ...] | None
    scores: float
    make: Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]


def best_blas() -> None:
    """Ask OpenBLAS for its AVX-512 kernels where there are any: it does not know every processor that has them.

    Whatever the caller's environment asks for: it is not set for these measurements.
    """
    os.environ.pop("OPENBLAS_L2_SIZE", None)
    if any(name.startswith("avx512") for name in ops.instruction_sets()):
        os.environ["OPENBLAS_CORETYPE"] = "SkylakeX"


def blas_of(library: str) -> str | None:
    """The kernels that a library's OpenBLAS has chosen; `None` if it is not loaded."""
    found = (info for info in threadpool_info() if library in info["filepath"] and "architecture" in info)
    return next((info["architecture"] for info in found), None)


def installed(threads: int) -> dict[str, Peer]:
    """The peers that can be imported; a line for each that cannot."""
    peers = {"torch": Peer(None, 1.0, plain_torch)}
    for name, module, package, make in (
        ("faiss", "faiss", "faiss-cpu", _faiss),
        ("keops", "pykeops", "pykeops", _keops),
    ):
        if importlib.util.find_spec(module) is None:
            print(f"{name} is not installed: left out (pip install {package})", file=sys.stderr)
        else:
            peers[name] = make(threads)
    return peers


def plain_torch(y: Tensor, h: Tensor, chunk: int = 1024) -> Callable[[Tensor], Tensor]:
    """`addmm` and `argmax`, in chunks whose scores fit in memory that is kept: fresh pages would cost half the time."""
    scores = torch.empty(chunk, len(y))

    def search(x: Tensor) -> Tensor:
        parts = x.split(chunk)
        return torch.cat([torch.addmm(h, part, y.T, out=scores[: len(part)]).argmax(dim=1) for part in parts])

    return search


def _faiss(threads: int) -> Peer:
    """FAISS' exact flat inner-product search; the height is one more coordinate."""
    import faiss

    faiss.omp_set_num_threads(threads)

    def make(y: Tensor, h: Tensor) -> Callable[[Tensor], Tensor]:
        index = faiss.IndexFlatIP(y.shape[1] + 1)
        index.add(torch.cat([y, h[:, None]], dim=1).numpy())
        queries: dict[int, np.ndarray] = {}

        def search(x: Tensor) -> Tensor:
            if id(x) not in queries:  # once: it is the contender's own layout
                queries[id(x)] = torch.cat([x, torch.ones(len(x), 1)], dim=1).numpy()
            return torch.from_numpy(index.search(queries[id(x)], 1)[1][:, 0])

        return search

    return Peer(None, 1.0, make)


def _keops(threads: int) -> Peer:
    """PyKeOps' lazy tensors on the CPU, through OpenMP."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import pykeops

    pykeops.set_verbose(False)
    from pykeops.torch import LazyTensor

    def make(y: Tensor, h: Tensor) -> Callable[[Tensor], Tensor]:
        targets, heights = LazyTensor(y[None]), LazyTensor(h[None, :, None])

        def search(x: Tensor) -> Tensor:
            return ((LazyTensor(x[:, None]) | targets) + heights).argmax(dim=1)[:, 0]

        return search

    return Peer(KEOPS_DIMS, 0.05, make)
