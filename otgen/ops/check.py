"""The one gate for the arguments of the kernels: says what was wanted and what came, before any work."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from otgen import _ext
from otgen.ops.threads import threads

Progress = Callable[[float], None]
"""Called about ten times a second with the fraction that is done."""

SOURCES = ("uniform", "normal")
"""Sources whose samples the kernels make themselves."""

MAX_INDEX = 2**62
"""Samples are numbered in int64; this leaves room for `first + n`."""

IMAGES = (1, 2, 4, 8, 16)
"""Samples of a set: one and its images."""

DTYPES = (torch.float32, torch.float64)


def tensor(op: str, name: str, value: Tensor, shape: tuple[int | str, ...], like: Tensor | None = None) -> Tensor:
    """Check one tensor: type, dtype, device, shape (letters stand for any size), finite values; return it dense.

    Values of CUDA tensors are not looked at: NaN gives meaningless results there, with indices in range.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a torch.Tensor, got {type(value).__name__}")
    if value.is_nested or value.layout != torch.strided:
        came = "a nested one" if value.is_nested else word(value.layout)
        raise TypeError(f"{op}: {name} must be a dense (strided) tensor, got {came}")
    if value.dtype not in DTYPES:
        raise TypeError(f"{op}: {name} must be float32 or float64, got {word(value.dtype)}")
    if like is not None and value.dtype != like.dtype:
        raise TypeError(
            f"{op}: {name} must have the dtype of the other tensors, {word(like.dtype)}, got {word(value.dtype)}"
        )
    if like is not None and value.device != like.device:
        raise ValueError(f"{op}: {name} must be on {like.device} like the other tensors, got {value.device}")
    fits = value.dim() == len(shape) and all(
        isinstance(want, str) or size == want for size, want in zip(value.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(s) for s in shape) + ("," if len(shape) == 1 else "")
        raise ValueError(f"{op}: {name} must have shape ({wanted}), got {tuple(value.shape)}")
    device(op, value.device, f"{name} is on")
    # Reading values of a CUDA tensor would make the host wait, and cannot be captured in a graph.
    look = not value.is_cuda and value.numel() > 0
    if look and not all(bool(torch.isfinite(end)) for end in value.aminmax()):  # one pass; NaN is passed on
        raise ValueError(
            f"{op}: {name} must be finite, got {int((~torch.isfinite(value)).sum())} NaN or infinite values"
        )
    return dense(value.detach())


def device(op: str, value: torch.device | str, what: str = "device is") -> torch.device:
    """Check that this build has kernels for a device; of "cuda" without a number, the current one is meant."""
    place = torch.device(value)
    if place.type == "cpu":
        return place
    if place.type != "cuda" or not _ext.cuda:
        raise ValueError(
            f"{op}: {what} {place}, but this build of otgen has kernels for {'CUDA and ' if _ext.cuda else ''}the CPU"
            " only (for CUDA, install it from source where the compiler nvcc is found)"
        )
    return place if place.index is not None else torch.device("cuda", torch.cuda.current_device())


def indices(op: str, name: str, value: Tensor, columns: int | None, count: int) -> Tensor:
    """Check numbers of `count` things, int64 (k,) or (k, columns) on the CPU; return them dense."""
    wanted = "int64 (k,)" if columns is None else f"int64 (k, {columns})"
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be {wanted}, got {type(value).__name__}")
    fits = value.dim() == 1 if columns is None else value.dim() == 2 and value.shape[1] == columns
    if value.dtype != torch.int64 or not fits:
        raise (TypeError if fits else ValueError)(
            f"{op}: {name} must be {wanted}, got {value.dtype} {tuple(value.shape)}"
        )
    if value.device.type != "cpu":
        raise ValueError(f"{op}: {name} must be on the CPU, got {value.device}")
    if value.numel() and not (int(value.min()) >= 0 and int(value.max()) < count):
        raise ValueError(f"{op}: {name} must lie in [0, {count}), got {int(value.min())} to {int(value.max())}")
    return value.contiguous()


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


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, also one of numpy's."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is a real number, also one of numpy's."""
    return isinstance(value, Real) and not isinstance(value, bool)


def integer(op: str, name: str, value: int, low: int, high: int | None = None) -> int:
    """Check a whole number in [low, high]."""
    if not is_whole(value):
        raise TypeError(f"{op}: {name} must be an int, got {type(value).__name__}")
    if value < low or (high is not None and value > high):
        wanted = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{op}: {name} must be {wanted}, got {value}")
    return int(value)


def positive(op: str, name: str, value: float) -> float:
    """Check a finite number above zero."""
    if not is_number(value):
        raise TypeError(f"{op}: {name} must be a number, got {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:  # of a whole number
        number = math.inf
    if not 0 < number < math.inf:
        raise ValueError(f"{op}: {name} must be positive and finite, got {value}")
    return number


def source(op: str, value: str) -> str:
    """Check the name of a source."""
    if value not in SOURCES:
        raise ValueError(f"{op}: source must be one of {', '.join(SOURCES)}, got {value!r}")
    return value


def stream(op: str, seed: int, first: int) -> None:
    """Check what names samples: the seed and the number of the first."""
    integer(op, "seed", seed, 0, 2**63 - 1)
    integer(op, "first", first, 0, MAX_INDEX)


def images(op: str, value: int) -> None:
    """Check how many samples come in a set."""
    if integer(op, "images", value, 1) not in IMAGES:
        raise ValueError(f"{op}: images must be one of {', '.join(map(str, IMAGES))}, got {value}")


def progress(op: str, value: Progress | None) -> None:
    """Check a callback."""
    if value is not None and not callable(value):
        raise TypeError(f"{op}: progress must be a function or None, got {type(value).__name__}")


Where = tuple[int, int, int, int]
"""Where a kernel runs: threads of the CPU, CUDA device (-1 for none), its current stream, address of work space."""


def where(like: Tensor, space: Tensor | None = None) -> Where:
    """Run on a tensor's device: with as many threads as torch uses, or in its current CUDA stream."""
    stream = torch.cuda.current_stream(like.device).cuda_stream if like.is_cuda else 0
    return threads(), _cuda_index(like), stream, 0 if space is None else space.data_ptr()


def space(op: str, like: Tensor, n: int, m: int, d: int, k: int = 1) -> Tensor:
    """Work space of an op on a tensor's device; empty on the CPU, whose kernels see to it themselves."""
    size = _ext.space(op, word(like.dtype), _cuda_index(like), n, m, d, k)
    return torch.empty(size, dtype=torch.uint8, device=like.device)


def _cuda_index(like: Tensor) -> int:
    return like.device.index if like.is_cuda else -1


def word(constant: object) -> str:
    """A constant of torch without "torch.": `float32` or `float64`, as the extension knows dtypes."""
    return str(constant).removeprefix("torch.")
