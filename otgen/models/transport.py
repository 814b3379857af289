"""Optimal transport between two batches of the same size, solved exactly by POT, which is an optional package."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PIVOTS = 10_000_000  # most steps of POT's network simplex, whose own limit of 100 000 a large batch may reach


@dataclass(frozen=True)
class BatchTransport:
    """The solution of a transport problem between real samples x and generated samples y, b of each.

    Attributes:
        cost: Least mean cost, scalar, like the samples.
        dual_real: f(x_i), (b,), like the samples.
        dual_fake: f(y_j), (b,), like the samples: `f(x_i) - f(y_j) <= c(x_i, y_j)`, with equality for partners, so
            `mean f(x) - mean f(y)` is the least mean cost. The constant that a dual leaves free is chosen so that the
            mean of all 2b numbers is 0.
        partner: For each generated sample the number of its real partner, (b,), int64.
    """

    cost: Tensor
    dual_real: Tensor
    dual_fake: Tensor
    partner: Tensor


def pot_emd(name: str) -> Callable[..., Any]:
    """Find POT's network simplex.

    Args:
        name: Who wants it.

    Raises:
        ImportError: POT is not installed.
    """
    try:
        from ot import emd
    except ImportError as error:
        raise ImportError(f'{name}: wanted POT, which is not installed: pip install "otgen[pot]"') from error
    found: Callable[..., Any] = emd
    return found


def solve_batch(real: Tensor, fake: Tensor, scale: float) -> BatchTransport:
    """Solve the linear program for the cost `c(x, y) = scale ½|x - y|²`, every sample with weight 1/b.

    Args:
        real: x, (b, ...), floating.
        fake: y, like `real`.
        scale: The cost's factor.

    Returns:
        Least cost, dual and partners, on the samples' device; solved on the CPU in float64.
    """
    x, y = (samples.detach().flatten(1).to("cpu", torch.float64) for samples in (real, fake))
    cost = 0.5 * scale * torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
    unit = float(cost.max()) or 1.0  # POT's tolerances are absolute
    weights = torch.full((len(x),), 1 / len(x), dtype=torch.float64, device="cpu")
    plan, log = pot_emd("solve_batch")(weights, weights, cost / unit, numItermax=PIVOTS, log=True, center_dual=False)
    # with equal weights a vertex of the polytope is a permutation, up to the factor 1/b
    f_x, f_y = unit * log["u"], -unit * log["v"]
    middle = (f_x.mean() + f_y.mean()) / 2
    return BatchTransport(
        torch.as_tensor(unit * log["cost"], dtype=torch.float64, device="cpu").to(real),
        (f_x - middle).to(real),
        (f_y - middle).to(real),
        plan.argmax(dim=0).to(real.device),
    )
