"""Parts of networks; torch only."""

from otgen.nn import losses
from otgen.nn.conv import ConvDecoder, ConvEncoder
from otgen.nn.mlp import MLP

__all__ = ["MLP", "ConvDecoder", "ConvEncoder", "losses"]
