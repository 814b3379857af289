"""The variational autoencoder."""

import torch
from torch import Tensor, nn
from torch.optim import Adam

from otgen.models.autoencoder import Autoencoder
from otgen.models.base import descend
from otgen.models.face import BATCH
from otgen.models.generative import Generative
from otgen.nn import losses
from otgen.nn.networks import Shape

LIKELIHOODS = ("gaussian", "bernoulli")
WARMUP = 500  # steps, for vectors: on four sets in the plane the codes lived with it, and on three of them died without
LOG_VAR = 10.0  # log-variances are kept in [-10, 10], beyond which their exponentials blow the first steps up


class VAE(Autoencoder, Generative):
    """Variational autoencoder: minimises `E_q[-log p(x|z)] + beta KL(q(z|x) || N(0, I))`, minus the ELBO for beta 1.

    Kingma and Welling 2014, "Auto-Encoding Variational Bayes", equation 10 with one sample per image, and Adam where
    their section 5 has Adagrad; beta: Higgins et al. 2017. The encoder gives mean and log-variance of q(z|x), a normal
    distribution. `encode` returns the mean, and samples are the decoder's means, which is why they are smoother than
    the data. A mean squared error in place of the Gaussian likelihood would multiply beta by the number of pixels and
    let all codes collapse to the prior. So would, among vectors of a few numbers, the divergence's full weight from the
    first step on, when the decoder makes nothing yet of what a code tells; hence the warm-up (Bowman et al. 2016,
    section 3.1; Sønderby et al. 2016).

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of a code; `None` for 16, or the number of features if that is less.
        beta: Weight of the divergence; 1 is the paper's bound on the likelihood.
        likelihood: "gaussian", or "bernoulli" for images that are nearly black and white (on grey ones it is a loss, no
            likelihood).
        gamma: Variance of the Gaussian; `None` for the likeliest one for each batch, at least 1e-6. For vectors take a
            unit in which errors of 0.001 do not matter.
        warmup: Steps in which the divergence's weight grows from 0 to `beta`, in a line; `None` for 500 for vectors and
            0 for images. If the codes of vectors die all the same (a "kl" near 0), take more, or a small `gamma`.
        lr: Learning rate of Adam.
        width: Channels of our networks at full resolution.
        network: Which of our networks: "plain", "wae" or "ae-ot"; see `otgen.nn.encoder`.
        encoder: A network of your own from (b, *shape) to (b, 2 d), means and then log-variances; `None` for ours.
        decoder: A network of your own from (b, d) to samples as they are to be, (b, *shape); `None` for ours.
        seed: Decides the initial weights and the noise of training.
        device: Where the model lives.

    Attributes:
        steps: How many steps were made, int64.
    """

    steps: Tensor

    def __init__(
        self,
        shape: Shape,
        d: int | None = None,
        *,
        beta: float = 1.0,
        likelihood: str = "gaussian",
        gamma: float | None = None,
        warmup: int | None = None,
        lr: float = 1e-3,
        width: int = 32,
        network: str = "plain",
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        self._positive(lr=lr, beta=beta, **({} if gamma is None else {"gamma": gamma}))
        if warmup is not None:
            self._at_least(0, warmup=warmup)
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"VAE: likelihood must be one of {', '.join(LIKELIHOODS)}, got {likelihood!r}")
        if likelihood == "bernoulli" and gamma is not None:
            raise ValueError(f'VAE: gamma is the variance of likelihood="gaussian", got gamma={gamma} with "bernoulli"')
        super().__init__(
            shape, d, width=width, network=network, encoder=encoder, decoder=decoder, codes=2, seed=seed, device=device
        )
        self._images_only(likelihood == "bernoulli", 'likelihood="bernoulli"')
        self.beta, self.likelihood, self.gamma = beta, likelihood, gamma
        self.warmup = (WARMUP if len(self.shape) == 1 else 0) if warmup is None else warmup
        self.register_buffer("steps", torch.tensor(0, device=self._device))
        self.optimiser = Adam(self.parameters(), lr=lr)

    def step(self, batch: Tensor) -> dict[str, float]:
        """Train on one batch (b, *shape).

        Returns:
            "loss", "reconstruction" (minus log-likelihood) and "kl", in nats per sample, as they were before the step;
            "loss" with the weight that "kl" had.
        """
        self._check_samples("step", batch)
        mean, log_var = self._posterior(batch)
        z = mean + (0.5 * log_var).exp() * self._noise(len(batch))
        if self.likelihood == "bernoulli":
            reconstruction = self._bce(z, batch)
        else:
            reconstruction = losses.gaussian(self._decode(z), batch, self.gamma)
        kl = losses.kl(mean, log_var)
        share = min(1.0, self.steps.item() / self.warmup) if self.warmup else 1.0
        loss = reconstruction + share * self.beta * kl
        descend(self.optimiser, loss)
        self.steps += 1
        return {"loss": loss.item(), "reconstruction": reconstruction.item(), "kl": kl.item()}

    def posterior(self, x: Tensor, batch_size: int = BATCH) -> tuple[Tensor, Tensor]:
        """Find the normal distributions q(z|x), without gradients: what `metrics.aggregate_posterior` takes apart.

        Args:
            x: Samples, (n, *shape), on any device.
            batch_size: How many go through the network at a time, which bounds the memory.

        Returns:
            Means and logarithms of the variances, (n, d) each, on the model's device.
        """
        self._check_samples("posterior", x)
        both = self._in_batches(lambda part: torch.cat(self._posterior(part), dim=1), x, batch_size)
        mean, log_var = both.chunk(2, dim=1)
        return mean, log_var

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), (b, d) each."""
        mean, log_var = self._exactly(self.encoder(x)).chunk(2, dim=1)
        return mean, log_var.clamp(-LOG_VAR, LOG_VAR)

    def _encode(self, x: Tensor) -> Tensor:
        return self._posterior(x)[0]
