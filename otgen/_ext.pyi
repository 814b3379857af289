"""Types of the compiled module; csrc/module.cpp is the other half. Tensors are given by their addresses."""

from collections.abc import Callable

_Progress = Callable[[float], None] | None
_Where = tuple[int, int, int, int]

cuda: bool
emulated: bool
moment_scale: float

def isa() -> str: ...
def available_isas() -> list[str]: ...
def set_isa(name: str) -> None: ...
def peak_gflops(threads: int, /) -> float: ...
def emulate(on: bool) -> None: ...  # where `emulated`
def emulating() -> bool: ...
def cuda_filter() -> str: ...  # where `cuda` or `emulated`, like the next two
def cuda_filters() -> list[str]: ...
def set_cuda_filter(name: str) -> None: ...
def rounding(filter: str, a: int, b: int, n: int, k: int, where: _Where, c: int, /) -> None: ...  # likewise
def space(op: str, dtype: str, device: int, n: int, m: int, d: int, k: int, /) -> int: ...
def sample(
    source: str, seed: int, first: int, directions: int, images: int, n: int, d: int, where: _Where, x: int, /
) -> None: ...
def assign(
    dtype: str, x: int, y: int, h: int, n: int, m: int, d: int, where: _Where, progress: _Progress,
    winner: int, score: int, /,
) -> None: ...  # fmt: skip
def topk(
    dtype: str, x: int, y: int, h: int, n: int, m: int, d: int, k: int, where: _Where, progress: _Progress,
    index: int, score: int, /,
) -> None: ...  # fmt: skip
def reassign(
    dtype: str, x: int, y: int, h: int, rise: int, index: int, score: int, norm: int, highest_rise: float,
    slack_score: float, slack_norm: float, slack: float, n: int, m: int, d: int, k: int, where: _Where, winner: int,
    new_score: int, /,
) -> None: ...  # fmt: skip
def measure(
    dtype: str, y: int, h: int, source: str, seed: int, first: int, directions: int, images: int,
    n: int, m: int, d: int, where: _Where, progress: _Progress, counts: int, pairs: int, gaps: int, moments: int, /,
) -> float: ...  # fmt: skip
def soft_assign(
    dtype: str, x: int, y: int, h: int, n: int, m: int, d: int, eps: float, where: _Where, value: int, columns: int, /
) -> None: ...
def soft_assign_grad(
    dtype: str, x: int, y: int, h: int, grad_value: int, grad_columns: int, n: int, m: int, d: int, eps: float,
    where: _Where, grad_x: int, grad_y: int, grad_h: int, /,
) -> None: ...  # fmt: skip
def laplacian(
    pairs: int, gaps: int, bandwidth: int, p: int, m: int, scale: float, local: bool, threads: int,
    edges: int, weights: int, /,
) -> int: ...  # fmt: skip

class IntColumn:
    def __buffer__(self, flags: int, /) -> memoryview: ...

class DoubleColumn:
    def __buffer__(self, flags: int, /) -> memoryview: ...

class SmallCell(Exception): ...

class SiteTree:
    def __init__(self, y: int, m: int, d: int, threads: int, /) -> None: ...
    def order(self, numbers: int, /) -> None: ...
    def set_heights(self, h: int, threads: int, /) -> None: ...
    def diagram(
        self, source: str, corners: int, count: int, threads: int, progress: _Progress, near: int, near_count: int,
        least: int, measures: int, first: int, second: int, /,
    ) -> tuple[IntColumn, DoubleColumn]: ...  # fmt: skip
    def cells(
        self, source: str, corners: int, count: int, which: int, cells: int, /
    ) -> tuple[IntColumn, DoubleColumn, IntColumn, IntColumn, IntColumn]: ...
