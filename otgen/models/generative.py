"""Models that make new samples by themselves."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from otgen.models.base import Model
from otgen.models.face import BATCH
from otgen.models.state import as_generator, evaluating
from otgen.nn import decoder, squash
from otgen.nn.networks import Shape
from otgen.ops import check


class Generative(Model):
    """A model that makes new samples by itself, from noise.

    A model without such a way, like the plain autoencoder, is a `Model` whose `sample` says so: ask
    `isinstance(model, Generative)`.

    Args:
        shape: Size of a sample, as for `Model`.
        d: Size of the noise.
        seed: Decides the initial weights and the noise of training.
        device: Where the model lives.
    """

    def __init__(self, shape: Shape, d: int, *, seed: int = 0, device: str | torch.device = "cpu"):
        super().__init__(shape, seed=seed, device=device)
        self._at_least(1, d=d)
        self.d = d

    @abstractmethod
    def _decode(self, z: Tensor) -> Tensor:
        """Samples (b, *shape) from noise (b, d), on the model's device, with gradients."""

    def _noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw from the prior N(0, I).

        Args:
            n: How many.
            generator: Source of randomness; `None` is `self.rng`, for training.

        Returns:
            Noise, (n, d), on the model's device.
        """
        rng = self.rng if generator is None else generator
        drawn = torch.randn(n, self.d, generator=rng, device=rng.device, dtype=self._like.dtype)
        return drawn.to(self.device)

    def sample(self, n: int, generator: torch.Generator | int | None = None, batch_size: int = BATCH) -> Tensor:
        """Draw new samples, without gradients.

        Args:
            n: How many.
            generator: Source of randomness, or a seed; `None` is torch's own.
            batch_size: How many go through the network at a time, which bounds the memory.

        Returns:
            Samples, (n, *shape), on the model's device.

        Raises:
            ValueError: A number does not fit, or the model needs a `fit` first.
            TypeError: The generator is none.
        """
        if not check.is_whole(n) or n < 1:
            raise ValueError(f"{self._name}.sample: n must be a whole number >= 1, got {n!r}")
        with evaluating(self):
            z = self._noise(n, as_generator(generator))
        return self._in_batches(self._decode, z, batch_size)

    def _generator(self, given: nn.Module | None, width: int) -> nn.Module:
        """A network from noise (b, d) to samples (b, *shape): ours by size, or the user's."""
        if given is not None:
            return self._given("generator", given, (self.d,), self.shape)
        self._at_least(1, width=width)
        return nn.Sequential(decoder(self.d, self.shape, width), squash(self.shape))
