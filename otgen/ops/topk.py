"""Every sample's k best targets."""

import torch
from torch import Tensor

from otgen import _ext
from otgen.ops import check


def topk(x: Tensor, y: Tensor, h: Tensor, k: int, *, progress: check.Progress | None = None) -> tuple[Tensor, Tensor]:
    """Find each sample's k best targets, those with the largest <x_i, y_j> + h_j.

    Args:
        x: Samples, (n, d), float32 or float64.
        y: Targets, (m, d), like `x`.
        h: Heights, (m,), like `x`.
        k: How many, 1 <= k <= m; meant for up to a few hundred.
        progress: Told the fraction done about ten times a second; `None` for nobody.

    Returns:
        Indices (n, k), int64, and scores (n, k), like `x`, in falling order; of equal scores the smaller index first.

    Raises:
        ValueError: A shape, device or value does not fit.
        TypeError: A dtype or type does not fit.

    Same as `((x @ y.T) + h).topk(k, dim=1)`, without the (n, m) matrix, and exact as `assign` is.
    """
    y, h = check.targets("topk", y, h)
    x = check.samples("topk", x, y)
    n, m, d = x.shape[0], *y.shape
    check.integer("topk", "k", k, 1, m)
    check.progress("topk", progress)
    index = torch.empty(n, k, dtype=torch.int64, device=y.device)
    score = torch.empty(n, k, dtype=y.dtype, device=y.device)
    space = check.space("topk", y, n, m, d, k)
    _ext.topk(
        check.word(y.dtype), x.data_ptr(), y.data_ptr(), h.data_ptr(), n, m, d, k,
        check.where(y, space), progress, index.data_ptr(), score.data_ptr(),
    )  # fmt: skip
    return index, score
