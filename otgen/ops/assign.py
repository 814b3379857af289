"""Every sample's best target."""

import torch
from torch import Tensor

from otgen import _ext
from otgen.ops import check


def assign(x: Tensor, y: Tensor, h: Tensor, *, progress: check.Progress | None = None) -> tuple[Tensor, Tensor]:
    """Find each sample's best target, the j with the largest <x_i, y_j> + h_j.

    Args:
        x: Samples, (n, d), float32 or float64.
        y: Targets, (m, d), like `x`.
        h: Heights, (m,), like `x`.
        progress: Told the fraction done about ten times a second; `None` for nobody.

    Returns:
        Index (n,), int64, and score (n,), like `x`.

    Raises:
        ValueError: A shape, device or value does not fit.
        TypeError: A dtype or type does not fit.

    Same as `((x @ y.T) + h).max(dim=1)`, without the (n, m) matrix, and exact: scores are compared as float64 evaluates
    them from the given numbers, and of equal ones the smallest j wins. The scores carry no gradient: by x it is `y[j]`.
    """
    y, h = check.targets("assign", y, h)
    x = check.samples("assign", x, y)
    check.progress("assign", progress)
    n, m, d = x.shape[0], *y.shape
    winner = torch.empty(n, dtype=torch.int64, device=y.device)
    score = torch.empty(n, dtype=y.dtype, device=y.device)
    space = check.space("topk", y, n, m, d)
    _ext.assign(
        check.word(y.dtype), x.data_ptr(), y.data_ptr(), h.data_ptr(), n, m, d,
        check.where(y, space), progress, winner.data_ptr(), score.data_ptr(),
    )  # fmt: skip
    return winner, score
