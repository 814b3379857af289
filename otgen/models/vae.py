"""The variational autoencoder."""

import torch
from torch import Tensor, nn
from torch.optim import Adam

from otgen.models.autoencoder import Autoencoder
from otgen.models.base import descend
from otgen.models.generative import Generative
from otgen.nn import losses
from otgen.nn.networks import Shape

LIKELIHOODS = ("gaussian", "bernoulli")
LOG_VAR = 10.0  # log-variances are kept in [-10, 10], beyond which their exponentials blow the first steps up


class VAE(Autoencoder, Generative):
    """Variational autoencoder: minimises `E_q[-log p(x|z)] + beta KL(q(z|x) || N(0, I))`, minus the ELBO for beta 1.

    Kingma and Welling 2014, "Auto-Encoding Variational Bayes", equation 10 with one sample per image and Adam as in
    their section 5's successors; beta: Higgins et al. 2017. The encoder gives mean and log-variance of q(z|x), a normal
    distribution. `encode` returns the mean, and samples are the decoder's means, which is why they are smoother than
    the data. A mean squared error in place of the Gaussian likelihood would multiply beta by the number of pixels and
    let all codes collapse to the prior.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of a code; `None` for 16, or the number of features if that is less.
        beta: Weight of the divergence; 1 is the paper's bound on the likelihood.
        likelihood: "gaussian", or "bernoulli" for images that are nearly black and white (on grey ones it is a loss, no
            likelihood).
        gamma: Variance of the Gaussian; `None` for the likeliest one for each batch, which needs no tuning.
        lr: Learning rate of Adam.
        width: Channels of our networks at full resolution.
        network: Which of our networks: "plain", "wae" or "ae-ot"; see `otgen.nn.encoder`.
        encoder: A network of your own from (b, *shape) to (b, 2 d), means and then log-variances; `None` for ours.
        decoder: A network of your own from (b, d) to samples as they are to be, (b, *shape); `None` for ours.
        seed: Decides the initial weights and the noise of training.
        device: Where the model lives.
    """

    def __init__(
        self,
        shape: Shape,
        d: int | None = None,
        *,
        beta: float = 1.0,
        likelihood: str = "gaussian",
        gamma: float | None = None,
        lr: float = 1e-3,
        width: int = 32,
        network: str = "plain",
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        self._positive(lr=lr, beta=beta, **({} if gamma is None else {"gamma": gamma}))
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"VAE: likelihood must be one of {', '.join(LIKELIHOODS)}, got {likelihood!r}")
        if likelihood == "bernoulli" and gamma is not None:
            raise ValueError(f'VAE: gamma is the variance of likelihood="gaussian", got gamma={gamma} with "bernoulli"')
        super().__init__(
            shape, d, width=width, network=network, encoder=encoder, decoder=decoder, codes=2, seed=seed, device=device
        )
        self._images_only(likelihood == "bernoulli", 'likelihood="bernoulli"')
        self.beta, self.likelihood, self.gamma = beta, likelihood, gamma
        self.optimiser = Adam(self.parameters(), lr=lr)

    def step(self, batch: Tensor) -> dict[str, float]:
        """Train on one batch (b, *shape).

        Returns:
            "loss", "reconstruction" (minus log-likelihood) and "kl", in nats per sample, as they were before the step.
        """
        self._check_samples("step", batch)
        mean, log_var = self._posterior(batch)
        z = mean + (0.5 * log_var).exp() * self._noise(len(batch))
        if self.likelihood == "bernoulli":
            reconstruction = self._bce(z, batch)
        else:
            reconstruction = losses.gaussian(self._decode(z), batch, self.gamma)
        kl = losses.kl(mean, log_var)
        loss = reconstruction + self.beta * kl
        descend(self.optimiser, loss)
        return {"loss": loss.item(), "reconstruction": reconstruction.item(), "kl": kl.item()}

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), (b, d) each."""
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        return mean, log_var.clamp(-LOG_VAR, LOG_VAR)

    def _encode(self, x: Tensor) -> Tensor:
        return self._posterior(x)[0]
