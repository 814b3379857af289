"""The one gate for the arguments of the kernels: says what was wanted and what came, before any work."""

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from otgen import _ext

Progress = Callable[[float], None]
"""Called about ten times a second with the fraction that is done."""

SOURCES = ("uniform", "normal")
"""Sources whose samples the kernels make themselves."""

MAX_INDEX = 2**62
"""Samples are numbered in int64; this leaves room for `first + n`."""

DTYPES = (torch.float32, torch.float64)


def tensor(op: str, name: str, value: Tensor, shape: tuple[int | str, ...], like: Tensor | None = None) -> Tensor:
    """Check one tensor: type, dtype, device, shape (letters stand for any size), finite values; return it dense."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a torch.Tensor, got {type(value).__name__}")
    if value.is_nested or value.layout != torch.strided:
        came = "a nested one" if value.is_nested else _word(value.layout)
        raise TypeError(f"{op}: {name} must be a dense (strided) tensor, got {came}")
    if value.dtype not in DTYPES:
        raise TypeError(f"{op}: {name} must be float32 or float64, got {_dtype(value)}")
    if like is not None and value.dtype != like.dtype:
        raise TypeError(f"{op}: {name} must have the dtype of the other tensors, {_dtype(like)}, got {_dtype(value)}")
    if like is not None and value.device != like.device:
        raise ValueError(f"{op}: {name} must be on {like.device} like the other tensors, got {value.device}")
    fits = value.dim() == len(shape) and all(
        isinstance(want, str) or size == want for size, want in zip(value.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(s) for s in shape) + ("," if len(shape) == 1 else "")
        raise ValueError(f"{op}: {name} must have shape ({wanted}), got {tuple(value.shape)}")
    if value.device.type != "cpu" and not (value.is_cuda and _ext.cuda):
        raise ValueError(
            f"{op}: {name} is on {value.device}, but this build of otgen has kernels for the CPU only"
            " (install it from source where the CUDA compiler nvcc is found)"
        )
    if value.numel() and not all(bool(torch.isfinite(end)) for end in value.aminmax()):  # one pass; NaN is passed on
        raise ValueError(f"{op}: {name} must be finite, got {_count_bad(value)} NaN or infinite values")
    return dense(value.detach())


def dense(value: Tensor) -> Tensor:
    """Row-major memory that holds the very numbers: no strides, no pending change of sign."""
    return value.resolve_neg().contiguous()


def targets(op: str, y: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Check targets (m, d) and heights (m,), m >= 1 and d >= 1."""
    y = tensor(op, "y", y, ("m", "d"))
    if y.shape[0] == 0 or y.shape[1] == 0:
        raise ValueError(f"{op}: y must hold at least one target of at least one coordinate, got {tuple(y.shape)}")
    return y, tensor(op, "h", h, (y.shape[0],), like=y)


def samples(op: str, x: Tensor, y: Tensor) -> Tensor:
    """Check samples (n, d) against checked targets."""
    if isinstance(x, Tensor) and x.dim() == 2 and x.shape[1] != y.shape[1]:
        raise ValueError(
            f"{op}: x must have shape (n, {y.shape[1]}) to match y of shape {tuple(y.shape)}, got {tuple(x.shape)}"
        )
    return tensor(op, "x", x, ("n", y.shape[1]), like=y)


def integer(op: str, name: str, value: int, low: int, high: int | None = None) -> int:
    """Check a whole number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{op}: {name} must be an int, got {type(value).__name__}")
    if value < low or (high is not None and value > high):
        wanted = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{op}: {name} must be {wanted}, got {value}")
    return value


def positive(op: str, name: str, value: float) -> float:
    """Check a finite number above zero."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{op}: {name} must be a number, got {type(value).__name__}")
    if not 0 < value <= sys.float_info.max:
        raise ValueError(f"{op}: {name} must be positive and finite, got {value}")
    return float(value)


def source(op: str, value: str) -> str:
    """Check the name of a source."""
    if value not in SOURCES:
        raise ValueError(f"{op}: source must be one of {', '.join(SOURCES)}, got {value!r}")
    return value


def stream(op: str, seed: int, first: int) -> None:
    """Check what names samples: the seed and the number of the first."""
    integer(op, "seed", seed, 0, 2**63 - 1)
    integer(op, "first", first, 0, MAX_INDEX)


def progress(op: str, value: Progress | None) -> None:
    """Check a callback."""
    if value is not None and not callable(value):
        raise TypeError(f"{op}: progress must be a function or None, got {type(value).__name__}")


def threads() -> int:
    """As many as torch uses."""
    return torch.get_num_threads()


def name(dtype: torch.dtype) -> str:
    """`float32` or `float64`, as the extension knows them."""
    return _word(dtype)


def _word(constant: object) -> str:
    return str(constant).removeprefix("torch.")


def _dtype(value: Tensor) -> str:
    return name(value.dtype)


def _count_bad(value: Tensor) -> int:
    return int((~torch.isfinite(value)).sum())
