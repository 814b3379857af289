"""Losses as pure functions of tensors.

Every reconstruction loss is summed over the numbers of a sample and averaged over the batch. The sum is what the
likelihoods say, and it keeps the weight of any further term the same for every image size.
"""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def mse(x_hat: Tensor, x: Tensor) -> Tensor:
    """Squared error, summed over each sample, averaged over the batch.

    Args:
        x_hat: Reconstructions, (b, ...), floating.
        x: What they should be, like `x_hat`.

    Returns:
        Scalar, like `x_hat`: `mean_b sum (x_hat_b - x_b)^2`.
    """
    _check("mse", x_hat, x)
    return (x_hat - x).square().flatten(1).sum(dim=1).mean()


def bce(logits: Tensor, x: Tensor) -> Tensor:
    """Binary cross-entropy from logits, summed over each sample, averaged over the batch.

    Its least value is the entropy of `x`, which is 0 only where every number is 0 or 1.

    Args:
        logits: Reconstructions before the sigmoid, (b, ...), floating.
        x: What they should be, like `logits`, in [0, 1].

    Returns:
        Scalar, like `logits`: `mean_b sum -x log s - (1 - x) log(1 - s)` with `s = sigmoid(logits)`.
    """
    _check("bce", logits, x)
    return binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(dim=1).mean()


def _check(name: str, x_hat: Tensor, x: Tensor) -> None:
    # unequal shapes would broadcast, and train towards something else without a word
    if x_hat.shape != x.shape or x.ndim < 2:
        raise ValueError(f"{name}: both must have one shape (b, ...), got {tuple(x_hat.shape)} and {tuple(x.shape)}")
