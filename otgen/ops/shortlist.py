"""Winners of fixed samples under heights that change a little, without scoring again."""

import math

import torch
from torch import Tensor

from otgen import _ext
from otgen.ops import check
from otgen.ops.assign import assign
from otgen.ops.topk import topk

LENGTH = 8
"""Targets listed for a sample: at 96 bytes (128 in float64), and few samples need more after a small step."""


class Shortlist:
    """The best few targets of each sample under some heights, from which `assign` finds winners under others.

    A change of heights changes scores by exactly that much, so the list and a bound on all other scores settle most
    samples; those that are left are scored anew. For line searches and other steps on samples that stay the same.

    Args:
        x: Samples, (n, d), float32 or float64; kept, not copied where it is dense.
        y: Targets, (m, d), like `x`; likewise.
        h: Heights, (m,), like `x`; copied.
        k: Targets listed for a sample, 2 <= k; a longer list stands larger changes of the heights, and costs more.

    Attributes:
        scored: Samples that the last `assign` scored anew. Where they are many, make a new list at the new heights.

    Raises:
        ValueError: A shape, device or value does not fit; only the CPU has this function.
        TypeError: A dtype or type does not fit.
    """

    def __init__(self, x: Tensor, y: Tensor, h: Tensor, k: int = LENGTH) -> None:
        y, h = check.targets("Shortlist", y, h)
        x = check.samples("Shortlist", x, y)
        check.integer("Shortlist", "k", k, 2)
        if y.is_cuda:
            raise ValueError("Shortlist: tensors must be on the CPU, got cuda")
        self._x, self._y = x, y
        self._h = h.clone()  # the caller's may change in place
        self._k = min(k, y.shape[0])
        self._index, self._score = topk(x, y, h, self._k)
        # Torch may have been told to take denormal numbers for zero.
        self._tiny = torch.finfo(x.dtype).tiny
        # Squares of float64 numbers may have become zero, too.
        lost = math.sqrt(x.shape[1]) * (self._tiny if x.dtype == torch.float32 else math.sqrt(self._tiny))
        self._norm = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64) + lost
        self._y_norm = float(torch.linalg.vector_norm(y, dim=1, dtype=torch.float64).max()) + lost
        self.scored = 0

    def assign(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Find each sample's best target under new heights; the same as `otgen.ops.assign(x, y, h)`, to the bit.

        Args:
            h: Heights, (m,), like those of the list.

        Returns:
            Index (n,), int64, and score (n,), like `x`.
        """
        x, y = self._x, self._y
        _, h = check.targets("Shortlist.assign", y, h)
        (n, d), m = x.shape, y.shape[0]
        rise = h.double() - self._h.double()
        # Twice the error of a score, as csrc/cpu/reassign.cpp has it, and a little more for the rounding of the bound.
        unit = 0.0 if x.dtype == torch.float64 else 2.0**-24
        sums = 2.01 * (d + 4) * 2.0**-53
        size = float(h.abs().max()) + float(self._h.abs().max())
        winner = torch.empty(n, dtype=torch.int64, device="cpu")
        score = torch.empty(n, dtype=x.dtype, device="cpu")
        _ext.reassign(
            check.word(x.dtype), x.data_ptr(), y.data_ptr(), h.data_ptr(), rise.data_ptr(), self._index.data_ptr(),
            self._score.data_ptr(), self._norm.data_ptr(), float(rise.max()), 2.01 * unit, 2 * sums * self._y_norm,
            sums * size + 4 * self._tiny, n, m, d, self._k, check.where(y), winner.data_ptr(),
            score.data_ptr(),
        )  # fmt: skip
        left = torch.nonzero(winner < 0)[:, 0]
        self.scored = left.numel()
        if self.scored:
            winner[left], score[left] = assign(x[left], y, h)
        return winner, score
