"""Parts of networks; torch only."""

from otgen.nn import losses
from otgen.nn.conv import ConvDecoder, ConvEncoder
from otgen.nn.mlp import MLP
from otgen.nn.networks import Critic, critic, decoder, encoder, squash

__all__ = ["MLP", "ConvDecoder", "ConvEncoder", "Critic", "critic", "decoder", "encoder", "losses", "squash"]
