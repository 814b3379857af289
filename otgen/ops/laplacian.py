"""The Newton Hessian, estimated from samples near the facets."""

import torch
from torch import Tensor

from otgen import _ext
from otgen.ops import check
from otgen.ops.threads import threads


def laplacian(pairs: Tensor, gaps: Tensor, bandwidth: Tensor, n: int, *, local: bool = False) -> tuple[Tensor, Tensor]:
    """Estimate the Hessian of the energy, a graph Laplacian, from best and second-best targets.

    A sample whose two best scores differ by less than e lies within e / |y_i - y_j| of the facet between their cells,
    so H_ij = mu(facet) / |y_i - y_j| is about #{samples in cell i, j second, with gap < e} / (n e). The samples in cell
    j say the same again, with a bandwidth of their own: gaps of neighbours may differ by orders of magnitude. The
    weight is a mean of both.

    Args:
        pairs: Best and second-best target of each sample, (p, 2), int32.
        gaps: Their difference in score, (p,), float32.
        bandwidth: Of each cell, (m,), float32, positive; a sample uses that of its best target as e.
        n: Number of samples the pairs were found among (p, if all are given).
        local: Weigh both by the inverse squares of their bandwidths, for the slope right at the facet: where a small
            cell borders on a large one samples grow dense with the distance from the small one's facet, and the large
            one's band overrates it. Else they count alike, for steps about as long as the bands.

    Returns:
        Edges (e, 2), int64, i < j, sorted, and weights (e,), float64, positive. The Laplacian has -weight off the
        diagonal and rows summing to zero: it is symmetric and positive semi-definite by construction.

    Raises:
        ValueError: A shape, device or value does not fit.
        TypeError: A dtype or type does not fit.
        RuntimeError: A CUDA graph is being captured, or CUDA reports an error.
    """
    p = gaps.shape[0] if isinstance(gaps, Tensor) and gaps.dim() == 1 else 0
    if isinstance(gaps, Tensor) and gaps.is_cuda and torch.cuda.is_current_stream_capturing():
        raise RuntimeError("laplacian: reads how many edges there are, so it cannot be captured in a CUDA graph")
    gaps = check.tensor("laplacian", "gaps", gaps, ("p",)).float()
    bandwidth = check.tensor("laplacian", "bandwidth", bandwidth, ("m",)).float()
    check.integer("laplacian", "n", n, max(1, p))
    m = bandwidth.shape[0]
    if not isinstance(pairs, Tensor) or pairs.dtype != torch.int32:
        came = check.word(pairs.dtype) if isinstance(pairs, Tensor) else type(pairs).__name__
        raise TypeError(f"laplacian: pairs must be a torch.Tensor of int32, got {came}")
    if tuple(pairs.shape) != (p, 2):
        raise ValueError(f"laplacian: pairs must have shape ({p}, 2), got {tuple(pairs.shape)}")
    if pairs.device != gaps.device:
        raise ValueError(f"laplacian: pairs must be on {gaps.device} like the other tensors, got {pairs.device}")
    if p and not (int(pairs.min()) >= 0 and int(pairs.max()) < m):
        raise ValueError(f"laplacian: pairs must lie in [0, {m}), got {int(pairs.min())} to {int(pairs.max())}")
    if bool((pairs[:, 0] == pairs[:, 1]).any()):
        raise ValueError("laplacian: pairs must be of two different targets, got one twice")
    if not bool(((bandwidth > 0) & (bandwidth < float("inf"))).all()):
        came = f"{float(bandwidth.min())} to {float(bandwidth.max())}"
        raise ValueError(f"laplacian: bandwidth must be positive and finite as float32, got {came}")
    pairs = pairs.contiguous()
    if pairs.is_cuda:
        return by_sorting(pairs, gaps, bandwidth, 1.0 / n, local)
    edges = torch.empty(p, 2, dtype=torch.int64, device="cpu")
    weights = torch.empty(p, dtype=torch.float64, device="cpu")
    count = _ext.laplacian(
        pairs.data_ptr(), gaps.data_ptr(), bandwidth.data_ptr(), p, m, 1.0 / n, bool(local), threads(),
        edges.data_ptr(), weights.data_ptr(),
    )  # fmt: skip
    return edges[:count].clone(), weights[:count].clone()


def by_sorting(
    pairs: Tensor, gaps: Tensor, bandwidth: Tensor, scale: float, local: bool = False
) -> tuple[Tensor, Tensor]:
    """Do what the kernel of the CPU does with torch's own sort, which runs on every device; the same bits.

    Args:
        pairs: As `laplacian` takes them, checked, (p, 2), int32.
        gaps: Likewise, (p,), float32.
        bandwidth: Likewise, (m,), float32.
        scale: A sample adds scale * share / bandwidth to its edge.
        local: Whether shares go by the inverse squares of the bandwidths; else they are halves.

    Returns:
        Edges and weights as `laplacian` gives them.
    """
    m = bandwidth.shape[0]
    kept = pairs[gaps < bandwidth[pairs[:, 0].long()]].long()
    ends, side = kept.sort(dim=1)
    keys, edge = torch.unique(ends[:, 0] * m + ends[:, 1], return_inverse=True)
    edges = torch.stack([keys // m, keys % m], dim=1)
    hits = torch.bincount(2 * edge + side[:, 0], minlength=2 * len(keys)).reshape(-1, 2).double()
    e = bandwidth[edges].double()
    square = e.square()
    share = square.flip(1) / square.sum(1, keepdim=True) if local else 0.5
    return edges, scale * (share * (hits / e)).sum(1)
