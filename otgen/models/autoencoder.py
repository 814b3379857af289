"""What all autoencoders have in common: two networks, and the way there and back."""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy

from otgen.models.base import Model
from otgen.nn import losses, networks
from otgen.nn.networks import Shape

LARGEST = 16  # default size of a code: enough for digits and faces of 64 pixels to be known again


class Autoencoder(Model):
    """A model with an encoder and a decoder; a subclass adds optimisers and `step`.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of a code; `None` for 16, or the number of features if that is less.
        width: Channels of our networks at full resolution.
        network: Which of our networks: "plain", "wae" or "ae-ot"; see `otgen.nn.encoder`.
        encoder: A network of your own from (b, *shape) to (b, codes * d); `None` for ours.
        decoder: A network of your own from (b, d) to samples as they are to be, (b, *shape); `None` for ours.
        codes: How many vectors of size d the encoder makes: 2 if it makes means and log-variances.
        seed: Decides the initial weights and the noise of training.
        device: Where the model lives.

    Attributes:
        encoder: From samples (b, *shape) to codes.
        decoder: From codes (b, d) to samples before `squash`: take `nn.Sequential(decoder, squash)` elsewhere.
        squash: Puts images of our decoder into [0, 1]; nothing for vectors and behind a decoder of your own.
    """

    def __init__(
        self,
        shape: Shape,
        d: int | None = None,
        *,
        width: int = 32,
        network: str = "plain",
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        codes: int = 1,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        Model.__init__(self, shape, seed=seed, device=device)
        d = min(LARGEST, torch.Size(self.shape).numel()) if d is None else d
        self._at_least(1, d=d, width=width)
        self.d = d
        with self._building():
            if encoder is None:
                self.encoder = networks.encoder(self.shape, codes * d, width, network)
            else:
                self.encoder = self._given("encoder", encoder, self.shape, (codes * d,))
            if decoder is None:
                self.decoder = networks.decoder(d, self.shape, width, network)
            else:
                self.decoder = self._given("decoder", decoder, (d,), self.shape)
            self.squash = networks.squash(self.shape) if decoder is None else nn.Identity()
        self._learning("encoder or decoder", self.encoder, self.decoder)

    def _encode(self, x: Tensor) -> Tensor:
        codes: Tensor = self.encoder(x)
        return codes

    def _decode(self, z: Tensor) -> Tensor:
        samples: Tensor = self.squash(self.decoder(z))
        return samples

    def _mse(self, z: Tensor, x: Tensor) -> Tensor:
        """Squared error of the samples decoded from z, summed over each, averaged over the batch."""
        return losses.mse(self._decode(z), x)

    def _bce(self, z: Tensor, x: Tensor) -> Tensor:
        """Binary cross-entropy of the images decoded from z, summed over each, averaged over the batch."""
        if isinstance(self.squash, nn.Sigmoid):
            return losses.bce(self.decoder(z), x)
        samples = self._decode(z).to(x.dtype)  # a network of the user's own
        low, high = samples.min().item(), samples.max().item()
        if not (low >= 0 and high <= 1):
            wanted = "decoder must make numbers in [0, 1] for cross-entropy, as one that ends in a sigmoid does"
            raise ValueError(f"{self._name}: {wanted}, got {low:g} to {high:g}")
        with torch.autocast(x.device.type, enabled=False):  # which refuses this loss on a GPU
            return binary_cross_entropy(samples, x, reduction="sum") / len(x)

    def _images_only(self, asked: bool, what: str) -> None:
        """Refuse a choice that is for numbers in [0, 1] where samples are any real numbers."""
        if asked and len(self.shape) == 1:
            raise ValueError(f"{self._name}: {what} is for images in [0, 1], got plain vectors of shape {self.shape}")
