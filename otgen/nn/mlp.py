"""Fully connected networks."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

from otgen.nn.norms import Normaliser, nothing


class MLP(nn.Sequential):
    """Linear layers with a normalisation and an activation between each two, none after the last.

    Maps (b, sizes[0]) to (b, sizes[-1]).

    Args:
        sizes: Features of the input, of every hidden layer and of the output; two numbers at least.
        activation: Makes one activation layer, such as `nn.ReLU`.
        norm: Makes a normalisation layer for a number of features; by default there is none.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Callable[[], nn.Module] = nn.ReLU,
        norm: Normaliser = nothing,
    ):
        if len(sizes) < 2 or any(size < 1 for size in sizes):
            raise ValueError(f"MLP: sizes must be two or more numbers >= 1, got {tuple(sizes)}")
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), norm(outputs), activation()]
        kept = [layer for layer in layers[:-2] if not isinstance(layer, nn.Identity)]
        super().__init__(*kept)
