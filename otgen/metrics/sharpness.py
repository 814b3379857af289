"""Sharpness of images: the variance of their Laplacian."""

from torch.nn.functional import conv2d

from otgen.metrics.score import Score, Values, average, on_cpu
from otgen.ops import check

LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""


def sharpness(images: Values) -> Score:
    """Average over images the variance of the Laplacian of each (Tolstikhin et al. 2018, appendix D).

    Blur lowers it, and noise raises it as detail does (white noise of variance v scores 20 v), so larger is not better:
    report it beside the data's own. It grows with the square of the range of values.

    Args:
        images: (n, c, h, w), floating, n >= 2, c 1 (grey) or 3 (colour), h and w at least 4, in one range of values.

    Returns:
        The mean, in squared units of the values.

    Raises:
        ValueError: A shape or value does not fit.
        TypeError: Not a tensor or array of floating point.
    """
    images = check.tensor("sharpness", "images", on_cpu(images), ("n", "c", "h", "w")).double()
    n, c, h, w = images.shape
    if n < 2 or c not in (1, 3) or min(h, w) < 4:
        wanted = "shape (n, c, h, w) with n >= 2, c 1 or 3, and h, w >= 4"
        raise ValueError(f"sharpness: images must have {wanted}, got {tuple(images.shape)}")
    if c == 3:
        images = (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    edges = conv2d(images, images.new_tensor(LAPLACIAN).view(1, 1, 3, 3))
    return average(edges.flatten(1).var(1, correction=0))
