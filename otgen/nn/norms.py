"""Normalisation layers by name."""

import math
from collections.abc import Callable

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

GROUP = 16  # channels per group of GroupNorm, the best in Wu and He 2018, table 3
NORMS = ("none", "layer", "group", "batch", "spectral")

Normaliser = Callable[[int], nn.Module]
"""Makes a normalisation layer for a number of channels."""


def nothing(channels: int) -> nn.Module:
    """No normalisation; networks leave this layer out."""
    return nn.Identity()


def layer(channels: int) -> nn.Module:
    """One mean and deviation over all numbers of a sample, and a weight and bias per channel."""
    return nn.GroupNorm(1, channels)


def group(channels: int) -> nn.Module:
    """GroupNorm with about GROUP channels in a group."""
    return nn.GroupNorm(math.gcd(channels, max(1, channels // GROUP)), channels)


def normaliser(name: str, images: bool) -> Normaliser:
    """What makes the layers of a kind.

    Args:
        name: One of NORMS; "spectral" adds no layer, as it is the weights that `spectral` divides.
        images: Whether they stand in a convolutional network.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {name!r}")
    batch = nn.BatchNorm2d if images else nn.BatchNorm1d
    return {"layer": layer, "group": group, "batch": batch}.get(name, nothing)


def spectral(network: nn.Module) -> None:
    """Divide every weight of a network by its largest singular value, by one power iteration a step, in place.

    Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks". A convolution's weight counts as
    the matrix (outputs, the rest), which bounds that matrix and not the operator.
    """
    for part in list(network.modules()):
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            spectral_norm(part)
