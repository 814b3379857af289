"""AE-OT: an autoencoder, and optimal transport from noise to its codes."""

from typing import Literal

import torch
from torch import Tensor, nn

from otgen.models.ae import AE
from otgen.models.generative import Generative
from otgen.models.ot_prior import OTPrior, not_fitted
from otgen.nn.networks import Shape
from otgen.train import Data, Samples, Setup, as_samples


class AEOT(AE, Generative):
    """Autoencoder whose codes are made from noise by the extended semi-discrete optimal map.

    An et al. 2020, "AE-OT: A New Generative Model Based on Extended Semi-Discrete Optimal Transport", and the lecture's
    Algorithms 1 and 2: `fit` trains the autoencoder, then solves the transport from noise to the codes of all data, and
    certifies it; `sample` draws codes by the extended map and decodes them. No network has to represent a map that
    jumps, so no mode is lost or mixed. Generation is as good as the decoder is between neighbouring codes, and too
    small a threshold makes decoded copies of the training data.

    Networks that are trained already are taken over by `AEOT(shape, d, encoder=..., decoder=...).fit_prior(data)`.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of a code; `None` for 16, or the number of features if that is less.
        width: Channels of our networks at full resolution.
        lr: Learning rate of Adam.
        loss: "mse", or "bce" for images that are nearly black and white.
        source: The noise: "uniform" for the unit cube, "normal" for N(0, I).
        angle_threshold: Largest angle between cells that is blended across, as for `OTPrior`.
        tol: Goal for the certificate's chi2, as for `SemiDiscreteOT`.
        network: Which of our networks: "plain", "wae" or "ae-ot"; see `otgen.nn.encoder`.
        encoder: A network of your own from (b, *shape) to (b, d); `None` for ours.
        decoder: A network of your own from (b, d) to samples as they are to be, (b, *shape); `None` for ours.
        seed: Decides the initial weights and the transport's samples.
        device: Where the networks live; the transport is solved on the CPU.

    Attributes:
        prior: The fitted `OTPrior`; `prior.ot_.certificate_` says how exact the map is.
    """

    def __init__(
        self,
        shape: Shape,
        d: int | None = None,
        *,
        width: int = 32,
        lr: float = 1e-3,
        loss: str = "mse",
        source: str = "uniform",
        angle_threshold: float | Literal["auto"] = "auto",
        tol: float = 0.01,
        network: str = "plain",
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        super().__init__(
            shape,
            d,
            width=width,
            lr=lr,
            loss=loss,
            network=network,
            encoder=encoder,
            decoder=decoder,
            seed=seed,
            device=device,
        )
        self.prior = OTPrior(source, angle_threshold=angle_threshold, tol=tol, seed=seed)

    @property
    def fitted(self) -> bool:
        """Whether the transport has been solved."""
        return self.prior.ot_ is not None

    def fit_prior(self, data: Data, *, progress: bool = True) -> "AEOT":
        """Solve the transport from noise to the codes of the data, and leave the networks as they are.

        Args:
            data: As for `fit`.
            progress: Whether to show a bar once it lasts over two seconds.

        Returns:
            The model itself.
        """
        samples = as_samples(data, self.shape, 1)
        self._need_an_end(samples)
        for piece in samples.look():
            self.check(piece)
        codes = torch.cat([self.encode(piece.to(self._like.dtype)) for piece in samples.once()])
        self.prior.fit(codes, progress=progress)
        return self

    def prepare(self, data: Samples, setup: Setup) -> None:
        """Refuse data that are not known to end, as the transport needs the codes of all, and networks all frozen."""
        super()._learning("encoder or decoder", self.encoder, self.decoder)
        self._need_an_end(data)

    def finish(self, data: Samples, setup: Setup) -> None:
        """Solve the transport from noise to the codes."""
        self.fit_prior(data, progress=setup.progress)

    def _learning(self, name: str, *networks: nn.Module) -> None:
        """Let `fit` ask whether parameters can change, as `fit_prior` takes frozen ones; some there must be."""
        if not any(list(network.parameters()) for network in networks):
            super()._learning(name, *networks)

    def _need_an_end(self, data: Samples) -> None:
        if data.size[0] < 0:
            raise TypeError(f"{self._name} needs the codes of all data: they must have a length, got a stream without")

    def _noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw codes by the extended map, (n, d)."""
        if not self.fitted:
            raise not_fitted(self._name, "data")
        return self.prior.sample(n, self.rng if generator is None else generator).to(self.device)
