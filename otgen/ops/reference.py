"""The ops in plain torch, one idea a line: what tests and benchmarks hold the kernels to.

Scores are summed from h, one coordinate after the other, in float64: the order that decides winners.
"""

import torch
from torch import Tensor


def scores(x: Tensor, y: Tensor, h: Tensor) -> Tensor:
    """Scores <x_i, y_j> + h_j, (n, m), float64."""
    s = h.double().expand(x.shape[0], -1).clone()
    for k in range(x.shape[1]):
        s += x[:, k, None].double() * y[None, :, k].double()
    return s


def assign(x: Tensor, y: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Index (n,) and score (n,) of the best target; of equal scores the smallest index."""
    index, score = topk(x, y, h, 1)
    return index[:, 0], score[:, 0]


def topk(x: Tensor, y: Tensor, h: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Indices (n, k) and scores (n, k) in falling order; of equal scores the smaller index first."""
    s, index = scores(x, y, h).sort(dim=1, descending=True, stable=True)
    return index[:, :k], s[:, :k].to(x.dtype)


def laplacian(pairs: Tensor, gaps: Tensor, bandwidth: Tensor, n: int, *, local: bool = False) -> Tensor:
    """The Laplacian as a dense (m, m) matrix, float64."""
    m = bandwidth.shape[0]
    adjacency = torch.zeros(m, m, dtype=torch.float64)
    for (i, j), gap in zip(pairs.tolist(), gaps.tolist(), strict=True):
        e, other = float(bandwidth[i]), float(bandwidth[j])
        share = other**2 / (e**2 + other**2) if local else 0.5
        if gap < e:
            adjacency[i, j] += share / (n * e)
            adjacency[j, i] += share / (n * e)
    return torch.diag(adjacency.sum(1)) - adjacency


def soft_assign(x: Tensor, y: Tensor, h: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Smooth maximum (n,) and column sums of the softmax (m,)."""
    s = (x @ y.T + h) / eps
    return eps * s.logsumexp(dim=1), s.softmax(dim=1).sum(dim=0)
