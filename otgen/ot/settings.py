"""What a fit and its maps may be told: checked before any work."""

import math
import os
from pathlib import Path
from typing import Any

import torch

from otgen import ops
from otgen.ops import check
from otgen.ot.solvers import METHODS

LEAST_TOL = 1e-100
"""Far below what rounding leaves; the default budget stays a number."""

LARGEST_TOL = 1e100
"""Far above what any heights have; its square stays a number."""


def check_settings(
    method: Any, tol: Any, max_samples: Any, seed: Any, checkpoint: Any = None, device: Any = "cpu"
) -> None:
    """Check the arguments of `SemiDiscreteOT` but the source.

    Raises:
        ValueError: A value does not fit.
        TypeError: The checkpoint is no path.
        OSError: There can be no checkpoint.
    """
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if not check.is_number(tol) or not 0 < tol < math.inf:
        raise ValueError(f"tol must be a positive number, got {tol!r}")
    try:
        number = float(tol)
    except OverflowError:
        number = math.inf
    if not LEAST_TOL <= number <= LARGEST_TOL:
        raise ValueError(f"tol must be in [{LEAST_TOL:g}, {LARGEST_TOL:g}], got {tol!r}")
    if max_samples is not None:
        whole("max_samples", max_samples, 1, "None or an int")
    whole("seed", seed, 0)
    if checkpoint is not None:
        if not isinstance(checkpoint, (str, os.PathLike)) or not os.fspath(checkpoint):
            raise TypeError(f"checkpoint must be the path of a file or None, got {checkpoint!r}")
        if not Path(checkpoint).absolute().parent.is_dir():
            raise FileNotFoundError(f"checkpoint must be in a folder that exists, got {checkpoint}")
        if Path(checkpoint).is_dir():
            raise IsADirectoryError(f"checkpoint must be a file, got the folder {checkpoint}")
    cuda = ops.has_cuda() and torch.cuda.is_available()
    if str(device) not in ("cpu", "cpu:0") and not (cuda and str(device).partition(":")[0] == "cuda"):
        missing = "torch finds no GPU" if ops.has_cuda() else "for CUDA, install otgen where the compiler nvcc is"
        known = "cpu or cuda" if cuda else f"cpu ({missing})"
        raise ValueError(f"device must be {known}, got {device!r}")


def check_angle(value: Any) -> float:
    """An angle in radians, also of numpy's types, or a tensor of one number.

    Raises:
        ValueError: It is none.
    """
    value = value.item() if isinstance(value, torch.Tensor) and value.dim() == 0 else value
    if not check.is_number(value) or not 0 < float(value) <= math.pi:
        raise ValueError(f'angle_threshold must be "auto" or an angle in (0, pi], got {value!r}')
    return float(value)


def whole(name: str, value: Any, least: int, wanted: str = "an int") -> int:
    """A whole number, also numpy's.

    Raises:
        ValueError: It is none, or too small or large.
    """
    if not check.is_whole(value) or not least <= int(value) < 2**63:
        raise ValueError(f"{name} must be {wanted} in [{least}, 2^63), got {value!r}")
    return int(value)
