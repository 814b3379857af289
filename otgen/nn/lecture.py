"""The networks that the lecture shows: those of WAE and of AE-OT, for images of any width.

Both halve the image by strided convolutions with batch normalisation, so a code depends on its batch while they train.
WAE: Tolstikhin et al. 2018, "Wasserstein Auto-Encoders", section 4 and appendix F. AE-OT: An et al. 2020, "AE-OT: A New
Generative Model Based on Extended Semi-Discrete Optimal Transport".
"""

from itertools import pairwise

from torch import nn

Image = tuple[int, int, int]

LEAK = 0.1  # slope of AE-OT's leaky ReLU


class WAEEncoder(nn.Sequential):
    """Four convolutions of width, 2, 4 and 8 times the width, each with stride 2, and a linear layer.

    Args:
        shape: Size of an image, (c, h, w), sides multiples of 4 and at least 8.
        d: Size of a code.
        width: Channels of the first convolution; 128 in the paper.
    """

    def __init__(self, shape: Image, d: int, width: int = 128):
        _check_fours("WAEEncoder", shape)
        channels = (shape[0], width, 2 * width, 4 * width, 8 * width)
        layers: list[nn.Module] = []
        h, w = shape[1:]
        for inputs, outputs in pairwise(channels):
            layers += [nn.Conv2d(inputs, outputs, 5, 2, padding=2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            h, w = (h + 1) // 2, (w + 1) // 2
        super().__init__(*layers, nn.Flatten(), nn.Linear(channels[-1] * h * w, d))


class WAEDecoder(nn.Sequential):
    """A linear layer to an eighth of the image, then fractionally strided convolutions.

    To a quarter where a side is below 64 pixels or no multiple of 8. For 64 pixels these are the lecture's: 8 x 8 x
    1024, then 512, 256 and 128 channels, then the image. For 28 pixels they are the paper's for MNIST: 7 x 7 x 1024,
    then 512 and 256.

    Args:
        d: Size of a code.
        shape: Size of an image, (c, h, w), sides multiples of 4 and at least 8.
        width: An eighth of the channels at the start; 128 in the paper.
    """

    def __init__(self, d: int, shape: Image, width: int = 128):
        _check_fours("WAEDecoder", shape)
        large = min(shape[1:]) >= 64 and all(side % 8 == 0 for side in shape[1:])
        channels = (8 * width, 4 * width, 2 * width, width) if large else (8 * width, 4 * width, 2 * width)
        share = 2 ** (len(channels) - 1)
        start = (channels[0], shape[1] // share, shape[2] // share)
        layers: list[nn.Module] = [nn.Linear(d, start[0] * start[1] * start[2]), nn.Unflatten(1, start)]
        for inputs, outputs in pairwise(channels):
            layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, padding=1, bias=False), nn.BatchNorm2d(outputs)]
            layers.append(nn.ReLU())
        super().__init__(*layers, nn.ConvTranspose2d(channels[-1], shape[0], 3, 1, padding=1))


class AEOTEncoder(nn.Sequential):
    """Convolutions 4-2-1 (size, stride, padding) down to 4 x 4, channels doubled each time, and one of size 4.

    Args:
        shape: Size of an image, (c, h, h), h a power of 2 and at least 8.
        d: Size of a code.
        width: Channels of the first convolution; 80 in the authors' code, which makes 640 of them for 64 pixels.
    """

    def __init__(self, shape: Image, d: int, width: int = 80):
        channels = _halvings("AEOTEncoder", shape, width)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((shape[0], *channels)):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, padding=1, bias=False), nn.BatchNorm2d(outputs)]
            layers.append(nn.LeakyReLU(LEAK))
        super().__init__(*layers, nn.Conv2d(channels[-1], d, 4), nn.Flatten())


class AEOTDecoder(nn.Sequential):
    """The mirror image of `AEOTEncoder`, with transposed convolutions.

    Args:
        d: Size of a code.
        shape: Size of an image, (c, h, h), h a power of 2 and at least 8.
        width: Channels before the last convolution; 80 in the authors' code.
    """

    def __init__(self, d: int, shape: Image, width: int = 80):
        channels = _halvings("AEOTDecoder", shape, width)[::-1]
        layers: list[nn.Module] = [nn.Unflatten(1, (d, 1, 1)), nn.ConvTranspose2d(d, channels[0], 4, bias=False)]
        for inputs, outputs in pairwise(channels):
            layers += [nn.BatchNorm2d(inputs), nn.LeakyReLU(LEAK)]
            layers.append(nn.ConvTranspose2d(inputs, outputs, 4, 2, padding=1, bias=False))
        layers += [nn.BatchNorm2d(channels[-1]), nn.LeakyReLU(LEAK)]
        super().__init__(*layers, nn.ConvTranspose2d(channels[-1], shape[0], 4, 2, padding=1))


def _halvings(name: str, shape: Image, width: int) -> tuple[int, ...]:
    """Channels of each level on the way down to 4 x 4."""
    if shape[1] != shape[2] or shape[1] < 8 or shape[1] & (shape[1] - 1):
        raise ValueError(f"{name}: h and w must be equal, a power of 2 and at least 8, got shape {shape}")
    return tuple(width * 2**level for level in range(shape[1].bit_length() - 3))


def _check_fours(name: str, shape: Image) -> None:
    if not all(side % 4 == 0 and side >= 8 for side in shape[1:]):
        raise ValueError(f"{name}: h and w must be multiples of 4 and at least 8, got shape {shape}")
