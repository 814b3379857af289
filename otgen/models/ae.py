"""The autoencoder: the space in which the semi-discrete maps work."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Adam

from otgen.models.base import Model, seeded
from otgen.nn import ConvDecoder, ConvEncoder, losses

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": lambda logits, x: losses.mse(logits.sigmoid(), x),
    "bce": losses.bce,
}


class AE(Model):
    """Autoencoder: encoder E and decoder D that minimise `mean_batch sum_pixels (x - D(E(x)))^2`.

    Hinton and Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks"; the reduction is that of
    card 1 in algorithms.md. Images lie in [0, 1], and so does what D gives, by a sigmoid. The scale of the codes is
    free: standardise them before comparing distances. An autoencoder cannot generate, so it has no `sample`.

    Args:
        shape: Size of one image, (c, h, w), with h and w at least 8.
        d: Size of a code.
        width: Channels at full resolution.
        lr: Learning rate of Adam.
        loss: "mse", or "bce" for images that are nearly black and white.
        seed: Decides the initial weights.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        d: int,
        width: int = 32,
        lr: float = 1e-3,
        loss: str = "mse",
        seed: int = 0,
    ):
        super().__init__()
        if not 0 < lr < float("inf"):
            raise ValueError(f"AE: lr must be a positive number, got {lr}")
        if loss not in LOSSES:
            raise ValueError(f"AE: loss must be one of {', '.join(LOSSES)}, got {loss!r}")
        self.shape, self.d = tuple(shape), d
        self.loss = LOSSES[loss]
        with seeded(seed):
            self.encoder = ConvEncoder(shape, d, width)
            self.decoder = ConvDecoder(d, shape, width)
        self.optimiser = Adam(self.parameters(), lr=lr)

    def step(self, batch: Tensor) -> dict[str, float]:
        """Train on one batch.

        Args:
            batch: Images, (b, c, h, w), b at least 1, in [0, 1], on the model's device.

        Returns:
            "loss", as it was before the step.
        """
        self._check_images("step", batch)
        if len(batch) == 0:
            raise ValueError("AE.step: images must be at least one, got none")
        loss = self.loss(self.decoder(self.encoder(batch)), batch)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return {"loss": loss.item()}

    @torch.no_grad()
    def encode(self, x: Tensor, batch_size: int = 1024) -> Tensor:
        """Find the codes of images, without gradients.

        Args:
            x: Images, (n, c, h, w), in [0, 1], on any device.
            batch_size: How many go through the network at a time, which bounds the memory.

        Returns:
            Codes, (n, d), on the model's device.
        """
        self._check_images("encode", x)
        return torch.cat([self.encoder(part.to(self._like.device)) for part in torch.split(x, batch_size)])

    @torch.no_grad()
    def decode(self, z: Tensor, batch_size: int = 1024) -> Tensor:
        """Make images from codes, without gradients.

        Args:
            z: Codes, (n, d), on any device.
            batch_size: How many go through the network at a time, which bounds the memory.

        Returns:
            Images, (n, c, h, w), in [0, 1], on the model's device.
        """
        self._check("decode", "codes", z, (self.d,))
        return torch.cat([self.decoder(part.to(self._like.device)).sigmoid() for part in torch.split(z, batch_size)])

    def reconstruct(self, x: Tensor, batch_size: int = 1024) -> Tensor:
        """Return `decode(encode(x))`: images (n, c, h, w) for images (n, c, h, w)."""
        return self.decode(self.encode(x, batch_size), batch_size)

    @property
    def _like(self) -> Tensor:
        """A tensor with the model's dtype and device."""
        return next(self.parameters())

    def _check(self, method: str, name: str, x: Tensor, shape: tuple[int, ...]) -> None:
        if x.ndim != 1 + len(shape) or x.shape[1:] != shape:
            wanted = ", ".join(map(str, ("n", *shape)))
            raise ValueError(f"AE.{method}: {name} must have shape ({wanted}), got {tuple(x.shape)}")
        if x.dtype != self._like.dtype:
            raise TypeError(f"AE.{method}: {name} must be {self._like.dtype} like the model, got {x.dtype}")

    def _check_images(self, method: str, x: Tensor) -> None:
        self._check(method, "images", x, self.shape)
        if len(x) > 0 and not ((low := x.min().item()) >= 0 and x.max().item() <= 1):  # false for NaN as well
            raise ValueError(f"AE.{method}: images must lie in [0, 1], got {low:g} to {x.max().item():g}")
