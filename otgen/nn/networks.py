"""Networks by the size of a sample: convolutional for images, fully connected for plain vectors.

`shape` is (c, h, w) for an image and (features,) for a vector. `width` is the number of channels at full resolution;
a fully connected network has HIDDEN layers of UNITS * width units. What comes out is linear: a model that promises
images in [0, 1] puts `squash` behind its decoder.
"""

from collections.abc import Callable
from numbers import Integral

from torch import Tensor, nn

from otgen.nn import lecture
from otgen.nn.conv import ConvDecoder, ConvEncoder
from otgen.nn.mlp import MLP
from otgen.nn.norms import normaliser, spectral

HIDDEN = 3  # hidden layers, as WGAN-GP's networks for toy sets have
UNITS = 8  # hidden units per unit of width: 256 at the usual width of 32
LEAK = 0.2  # slope of a critic's leaky ReLU (Radford et al. 2016, DCGAN)

Shape = tuple[int, ...]

Maker = Callable[..., nn.Module]

KINDS: dict[str, tuple[Maker, Maker]] = {
    "plain": (ConvEncoder, ConvDecoder),
    "wae": (lecture.WAEEncoder, lecture.WAEDecoder),
    "ae-ot": (lecture.AEOTEncoder, lecture.AEOTDecoder),
}
"""Encoders and decoders of images."""


def encoder(shape: Shape, d: int, width: int = 32, kind: str = "plain") -> nn.Module:
    """Make a network from samples (b, *shape) to codes (b, d).

    Args:
        shape: Size of a sample.
        d: Size of a code.
        width: Channels at full resolution.
        kind: "plain", or for images the network of the lecture, "wae" (Tolstikhin et al. 2018; its width is 128) or
            "ae-ot" (An et al. 2020; its width is 80).
    """
    _check("encoder", shape, kind)
    if len(shape) == 1:
        return MLP((shape[0], *_hidden(width), d), nn.SiLU)
    return KINDS[kind][0]((shape[0], shape[1], shape[2]), d, width)


def decoder(d: int, shape: Shape, width: int = 32, kind: str = "plain") -> nn.Module:
    """Make a network from codes (b, d) to samples (b, *shape), any real numbers; a GAN's generator is one, too.

    Args:
        d: Size of a code.
        shape: Size of a sample.
        width: Channels at full resolution.
        kind: As for `encoder`.
    """
    _check("decoder", shape, kind)
    if len(shape) == 1:
        return MLP((d, *_hidden(width), shape[0]), nn.SiLU)
    return KINDS[kind][1](d, (shape[0], shape[1], shape[2]), width)


def critic(shape: Shape, width: int = 32, norm: str = "none") -> "Critic":
    """Make a network from samples (b, *shape) to scores (b,).

    Args:
        shape: Size of a sample.
        width: Channels at full resolution.
        norm: "none", "layer" (over a sample: the one to take beside a gradient penalty), "batch", "group" or
            "spectral" (every weight divided by its largest singular value, Miyato et al. 2018).
    """
    return Critic(shape, width, norm)


class Critic(nn.Module):
    """A trunk from samples to features and a linear head from features to a score.

    Args:
        shape: Size of a sample.
        width: Channels at full resolution.
        norm: As for `critic`.
    """

    def __init__(self, shape: Shape, width: int = 32, norm: str = "none"):
        super().__init__()
        check_shape("critic", shape)
        make_norm = normaliser(norm, images=len(shape) == 3)
        if len(shape) == 1:
            layers = list(MLP((shape[0], *_hidden(width), 1), _leaky, make_norm))
        else:
            layers = list(ConvEncoder((shape[0], shape[1], shape[2]), 1, width, make_norm, _leaky))
        self.trunk, self.head = nn.Sequential(*layers[:-1]), layers[-1]
        if norm == "spectral":
            spectral(self)

    def features(self, x: Tensor) -> Tensor:
        """What the score is read from: (b, ...) for samples (b, *shape)."""
        features: Tensor = self.trunk(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Scores (b,) of samples (b, *shape)."""
        score: Tensor = self.head(self.trunk(x))
        return score.squeeze(1)


def squash(shape: Shape) -> nn.Module:
    """The last layer of a network that makes samples: a sigmoid for images, nothing for vectors."""
    return nn.Sigmoid() if len(shape) == 3 else nn.Identity()


def check_shape(name: str, shape: Shape) -> None:
    """Refuse what is neither (features,) nor (c, h, w)."""
    whole = isinstance(shape, tuple) and all(
        isinstance(side, Integral) and not isinstance(side, bool) and side >= 1 for side in shape
    )
    if not whole or len(shape) not in (1, 3):
        raise ValueError(f"{name}: shape must be (features,) or (c, h, w), whole numbers >= 1, got {shape!r}")


def _check(name: str, shape: Shape, kind: str) -> None:
    check_shape(name, shape)
    if kind not in KINDS:
        raise ValueError(f"{name}: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind != "plain" and len(shape) == 1:
        raise ValueError(f"{name}: kind {kind!r} is for images (c, h, w), got shape {shape}")


def _hidden(width: int) -> tuple[int, ...]:
    return (UNITS * width,) * HIDDEN


def _leaky() -> nn.Module:
    return nn.LeakyReLU(LEAK)
