"""The autoencoder: the space in which the semi-discrete maps work."""

import torch
from torch import Tensor, nn
from torch.optim import Adam

from otgen.models.autoencoder import Autoencoder
from otgen.models.base import descend
from otgen.nn.networks import Shape

LOSSES = ("mse", "bce")


class AE(Autoencoder):
    """Autoencoder: encoder E and decoder D that minimise `mean_batch sum_pixels (x - D(E(x)))^2`.

    Hinton and Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks". The error is summed over
    a sample and averaged over the batch. The scale of the codes is free: standardise them before comparing distances.
    An autoencoder cannot generate: `sample` says so.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of a code; `None` for 16, or the number of features if that is less.
        width: Channels of our networks at full resolution.
        lr: Learning rate of Adam.
        loss: "mse", or "bce" for images that are nearly black and white.
        network: Which of our networks: "plain", "wae" or "ae-ot"; see `otgen.nn.encoder`.
        encoder: A network of your own from (b, *shape) to (b, d); `None` for ours.
        decoder: A network of your own from (b, d) to samples as they are to be, (b, *shape); `None` for ours.
        seed: Decides the initial weights.
        device: Where the model lives.
    """

    hints = {"sample": "fit an OTPrior to its codes, or use AEOT"}

    def __init__(
        self,
        shape: Shape,
        d: int | None = None,
        *,
        width: int = 32,
        lr: float = 1e-3,
        loss: str = "mse",
        network: str = "plain",
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        self._positive(lr=lr)
        if loss not in LOSSES:
            raise ValueError(f"{self._name}: loss must be one of {', '.join(LOSSES)}, got {loss!r}")
        super().__init__(
            shape, d, width=width, network=network, encoder=encoder, decoder=decoder, seed=seed, device=device
        )
        self._images_only(loss == "bce", 'loss="bce"')
        self.loss = loss
        self.optimiser = Adam(self.parameters(), lr=lr)

    def step(self, batch: Tensor) -> dict[str, float]:
        """Train on one batch (b, *shape), b at least 1; "loss" is as it was before the step."""
        self._check_samples("step", batch)
        error = self._mse if self.loss == "mse" else self._bce
        loss = error(self._encode(batch), batch)
        descend(self.optimiser, loss)
        return {"loss": loss.item()}
