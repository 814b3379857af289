"""How far the sums of a GPU's matrix unit are from exact: the test of what the filters on it take for granted."""

import torch
from torch import Tensor

from otgen import _ext
from otgen.ops import check

STEP = 16
"""Coordinates that one instruction takes."""

UNIT = 18 * 2.0**-23
"""What an instruction may add to the relative error, by the model in csrc/cuda/products.h."""

MARGIN = 4
"""The bound that the filter uses is this many times the model's."""

FILTERS = ("bfloat16", "wgmma")
"""The filters that multiply on the matrix unit."""


def rounding_error(
    device: torch.device | str, seed: int = 0, problems: int = 256, filter_name: str = "bfloat16"
) -> dict[str, float]:
    """Multiply hard bfloat16 matrices on the matrix unit and compare with their exact products.

    Args:
        device: A CUDA device.
        seed: Names the random part of the matrices.
        problems: How many of each kind and length, (16, k) times (k, 8).
        filter_name: Whose instruction is tested, "bfloat16" (mma.sync) or "wgmma".

    Returns:
        Kind of matrices -> the largest error, in units of what the model allows. The filter's bound holds where all of
        them are at most `MARGIN`; beyond it, the filter must not be used on this GPU.

    Raises:
        ValueError: This build has no kernels for the device, or the device not that instruction.
    """
    place = check.device("rounding_error", device)
    if place.type == "cpu" and not _ext.emulating():
        raise ValueError(f"rounding_error: device must be a CUDA device, got {place}")
    if filter_name not in FILTERS:
        raise ValueError(f"rounding_error: filter_name must be one of {', '.join(FILTERS)}, got {filter_name!r}")
    generator = torch.Generator().manual_seed(seed)
    worst: dict[str, float] = {}
    for k in (16, 64, 512):
        for kind, (a, b, c) in _problems(problems, k, generator).items():
            worst[kind] = max(worst.get(kind, 0.0), _error(a, b, c, place, filter_name))
    return worst


def _problems(n: int, k: int, generator: torch.Generator) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Matrices (n, 16, k), (n, 8, k), (n, 16, 8), float64, to be rounded to bfloat16."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(n, *shape, generator=generator, dtype=torch.float64, device="cpu")

    def power(*shape: int, reach: int) -> Tensor:
        return 2.0 ** torch.randint(-reach, reach + 1, (n, *shape), generator=generator).double()

    a, b, c = normal(16, k), normal(8, k), normal(16, 8)
    small = 2.0**-12 * (1 + torch.rand(n, 16, k, generator=generator, dtype=torch.float64, device="cpu"))
    return {
        "normal": (a, b, c),
        "all positive": (a.abs(), b.abs(), c.abs()),
        "no start": (a, b, torch.zeros_like(c)),
        "large start": (a, b, 1000 * c),
        "wide exponents": (a * power(16, k, reach=12), b * power(8, k, reach=12), c),
        # Products just below what is kept beside a start of 1: all of them may be cut off, all to one side.
        "cut off": (small, 2.0**-11 * (1 + b.abs().clamp_max(0.9)), torch.ones_like(c)),
        "cut off below": (-small, 2.0**-13 * (1 + b.abs().clamp_max(0.9)), torch.ones_like(c)),
    }


def _error(a: Tensor, b: Tensor, c: Tensor, device: torch.device, filter_name: str) -> float:
    a, b, c = a.bfloat16(), b.bfloat16(), c.float()
    got, there_a, there_b = c.to(device, copy=True), a.to(device), b.to(device)
    n, _, k = a.shape
    _ext.rounding(filter_name, there_a.data_ptr(), there_b.data_ptr(), n, k, check.where(got), got.data_ptr())
    left, right = a.double(), b.double().transpose(1, 2)  # products of two bfloat16 are exact, and so nearly are sums
    exact = c.double() + left @ right
    size = c.double().abs() + left.abs() @ right.abs()
    off = (got.cpu().double() - exact).abs() / size
    return float(off.max()) / (UNIT * (k // STEP))
