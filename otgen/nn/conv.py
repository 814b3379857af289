"""Convolutional encoder and decoder for images of any size from 8 x 8 up.

Both walk the same pyramid of sizes, which halves each side until none is above 4 (28 x 28: 28, 14, 7, 4), and double
the channels on the way down. The encoder halves by strided convolutions. The decoder stretches to the exact size of
the level above by nearest neighbours and then convolves, so odd sizes come back whole and no checkerboard appears
(Odena et al. 2016, "Deconvolution and Checkerboard Artifacts"). GroupNorm instead of BatchNorm: an image's code depends
on that image alone, for any batch, in training as afterwards.
"""

import math
from collections.abc import Callable
from itertools import pairwise

from torch import nn

from otgen.nn.norms import Normaliser, group

SMALLEST = 8  # side of the smallest image; below it an MLP serves better
LAST = 4  # longest side at which the pyramid stops: 3 or 4 pixels, enough to place a stroke
WIDEST = 8  # most channels, in units of `width`; parameters would grow fourfold with each level otherwise


class ConvEncoder(nn.Sequential):
    """Images (b, c, h, w) to codes (b, d).

    Args:
        shape: Size of one image, (c, h, w), with h and w at least 8.
        d: Size of a code.
        width: Channels at full resolution.
        norm: Makes a normalisation layer for a number of channels.
        activation: Makes an activation layer.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        d: int,
        width: int = 32,
        norm: Normaliser = group,
        activation: Callable[[], nn.Module] = nn.SiLU,
    ):
        _check("ConvEncoder", shape, d, width)
        levels = _pyramid(shape, width)
        layers = _block(shape[0], levels[0][0], norm=norm, activation=activation)
        for above, below in pairwise(levels):
            stride = (1 + (below[1] < above[1]), 1 + (below[2] < above[2]))
            layers += _block(above[0], below[0], stride, norm, activation)
        super().__init__(*layers, nn.Flatten(), nn.Linear(math.prod(levels[-1]), d))


class ConvDecoder(nn.Sequential):
    """Codes (b, d) to images (b, c, h, w); the last layer is linear, so any real number may come out.

    Args:
        d: Size of a code.
        shape: Size of one image, (c, h, w), with h and w at least 8.
        width: Channels at full resolution.
    """

    def __init__(self, d: int, shape: tuple[int, int, int], width: int = 32):
        _check("ConvDecoder", shape, d, width)
        levels = _pyramid(shape, width)[::-1]
        layers: list[nn.Module] = [nn.Linear(d, math.prod(levels[0])), nn.Unflatten(1, levels[0]), nn.SiLU()]
        for below, above in pairwise(levels):
            layers += [nn.Upsample(above[1:], mode="nearest"), *_block(below[0], above[0])]
        super().__init__(*layers, nn.Conv2d(width, shape[0], 3, padding=1))


def _pyramid(shape: tuple[int, int, int], width: int) -> list[tuple[int, int, int]]:
    """(channels, height, width) of each level, the full resolution first."""
    levels = [(width, *shape[1:])]
    while max(levels[-1][1:]) > LAST:
        channels, h, w = levels[-1]
        # halves are rounded up, as a convolution of size 3, stride 2 and padding 1 does
        h, w = (math.ceil(side / 2) if side > LAST else side for side in (h, w))
        levels.append((min(2 * channels, WIDEST * width), h, w))
    return levels


def _block(
    inputs: int,
    outputs: int,
    stride: tuple[int, int] = (1, 1),
    norm: Normaliser = group,
    activation: Callable[[], nn.Module] = nn.SiLU,
) -> list[nn.Module]:
    """Convolution, normalisation, activation."""
    layers = [nn.Conv2d(inputs, outputs, 3, stride, padding=1), norm(outputs), activation()]
    return [layer for layer in layers if not isinstance(layer, nn.Identity)]


def _check(name: str, shape: tuple[int, int, int], d: int, width: int) -> None:
    if len(shape) != 3 or shape[0] < 1 or min(shape[1:]) < SMALLEST:
        raise ValueError(f"{name}: shape must be (c, h, w) with c >= 1 and h, w >= {SMALLEST}, got {tuple(shape)}")
    if d < 1 or width < 1:
        raise ValueError(f"{name}: d and width must be at least 1, got d={d}, width={width}")
