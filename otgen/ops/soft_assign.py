"""Soft assignment: the entropic counterpart of assign."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from otgen import _ext
from otgen.ops import check


def soft_assign(x: Tensor, y: Tensor, h: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Smooth maximum of each sample's scores, and how much of the samples each target takes.

    Args:
        x: Samples, (n, d), float32 or float64.
        y: Targets, (m, d), like `x`.
        h: Heights, (m,), like `x`.
        eps: Smoothing, in units of the scores, positive.

    Returns:
        `eps * logsumexp(s / eps)` (n,) and the column sums of `softmax(s / eps)` (m,), like `x`, where
        s_ij = <x_i, y_j> + h_j. Both carry gradients to `x`, `y` and `h`. No (n, m) matrix is made.

    Raises:
        ValueError: A shape, device or value does not fit.
        TypeError: A dtype or type does not fit.
    """
    check.targets("soft_assign", y, h)
    check.samples("soft_assign", x, y)
    check.positive("soft_assign", "eps", eps)
    value, columns = _SoftAssign.apply(x, y, h, float(eps))  # type: ignore[no-untyped-call]
    return value, columns


class _SoftAssign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, h: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        x, y, h = check.dense(x), check.dense(y), check.dense(h)
        value, columns = x.new_empty(x.shape[0]), x.new_empty(y.shape[0])
        space = check.space("soft_assign", x, x.shape[0], *y.shape)
        _ext.soft_assign(
            check.word(x.dtype), x.data_ptr(), y.data_ptr(), h.data_ptr(), x.shape[0], y.shape[0], y.shape[1], eps,
            check.where(x, space), value.data_ptr(), columns.data_ptr(),
        )  # fmt: skip
        ctx.save_for_backward(x, y, h)
        ctx.eps = eps
        return value, columns

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_value: Tensor, grad_columns: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, y, h = ctx.saved_tensors
        grad_value, grad_columns = check.dense(grad_value), check.dense(grad_columns)
        space = check.space("soft_assign_grad", x, x.shape[0], *y.shape)
        grad_x, grad_y, grad_h = torch.empty_like(x), torch.empty_like(y), torch.empty_like(h)
        _ext.soft_assign_grad(
            check.word(x.dtype), x.data_ptr(), y.data_ptr(), h.data_ptr(), grad_value.data_ptr(),
            grad_columns.data_ptr(), x.shape[0], y.shape[0], y.shape[1], ctx.eps, check.where(x, space),
            grad_x.data_ptr(), grad_y.data_ptr(), grad_h.data_ptr(),
        )  # fmt: skip
        return grad_x, grad_y, grad_h, None
