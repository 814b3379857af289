"""Wasserstein autoencoders: WAE-GAN and WAE-MMD, the two algorithms of the lecture."""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.optim import Adam

from otgen.models.autoencoder import Autoencoder
from otgen.models.base import descend
from otgen.models.generative import Generative
from otgen.nn import MLP, losses
from otgen.nn.adversarial import gan_critic, nonsaturating_generator
from otgen.nn.networks import Shape

BETAS = (0.5, 0.999)  # of Adam, as in the authors' code
PAPER_WEIGHT = 10 / 0.05 / 784  # lambda per pixel: the paper's 10 for MNIST over the factor of the cost in its code
ADVERSARY = (512, 512, 512, 512)  # hidden units of the latent discriminator, as in the lecture


class WAE(Autoencoder, Generative):
    """What both share: the cost of reconstruction, and a penalty that draws all codes together to the prior N(0, I).

    Tolstikhin et al. 2018, "Wasserstein Auto-Encoders": `E c(x, G(E(x))) + penalty_weight D(Q_Z, P_Z)` with
    `c(x, y) = |x - y|^2`, summed over a sample, and a deterministic encoder E. Unlike a VAE's the codes of two images
    need not overlap; only their whole distribution must look like the prior. Where codes have more dimensions than the
    data, the codes lie on a thin set that no penalty makes fill the space, and samples from between come out poor.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of a code; `None` for 16, or the number of features if that is less.
        penalty_weight: The paper's lambda; `None` for the paper's for MNIST, in proportion to the number of pixels.
        lr: Learning rate of the autoencoder's Adam.
        width: Channels of our networks at full resolution.
        network: Which of our networks: "plain", "wae" or "ae-ot"; see `otgen.nn.encoder`.
        encoder: A network of your own from (b, *shape) to (b, d); `None` for ours.
        decoder: A network of your own from (b, d) to samples as they are to be, (b, *shape); `None` for ours.
        seed: Decides the initial weights and the noise of training.
        device: Where the model lives.
    """

    def __init__(
        self,
        shape: Shape,
        d: int | None = None,
        *,
        penalty_weight: float | None = None,
        lr: float = 1e-3,
        width: int = 32,
        network: str = "plain",
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        self._positive(lr=lr, **({} if penalty_weight is None else {"penalty_weight": penalty_weight}))
        super().__init__(
            shape, d, width=width, network=network, encoder=encoder, decoder=decoder, seed=seed, device=device
        )
        numbers = torch.Size(self.shape).numel()
        self.penalty_weight = PAPER_WEIGHT * numbers if penalty_weight is None else penalty_weight
        self.optimiser = Adam(nn.ModuleList([self.encoder, self.decoder]).parameters(), lr=lr, betas=BETAS)

    def step(self, batch: Tensor) -> dict[str, float]:
        """Train on one batch (b, *shape), b at least 2.

        Returns:
            "loss", "reconstruction" and "penalty", and what else the method knows, as they were before the step.
        """
        self._check_samples("step", batch)
        if len(batch) < 2:
            raise self._too_small("2 samples", batch)
        codes, prior = self._encode(batch), self._noise(len(batch))
        penalty, values = self._penalty(codes, prior)
        reconstruction = self._mse(codes, batch)
        loss = reconstruction + self.penalty_weight * penalty
        descend(self.optimiser, loss)
        return {"loss": loss.item(), "reconstruction": reconstruction.item(), "penalty": penalty.item()} | values

    @abstractmethod
    def _penalty(self, codes: Tensor, prior: Tensor) -> tuple[Tensor, dict[str, float]]:
        """How far codes (b, d) are from the prior's sample (b, d): a scalar with gradients; and more for the curves."""


class WAEGAN(WAE):
    """WAE whose penalty is an adversary's that tells codes from the prior (Algorithm 1 of the paper and the lecture).

    Each step first lets the discriminator ascend `lambda/n sum log D(z_i) + log(1 - D(E(x_i)))`, then the autoencoder
    descend `1/n sum c(x_i, G(E(x_i))) - lambda log D(E(x_i))`. The discriminator has four hidden layers of 512 units.
    The paper's lambda for MNIST is 10, and 200 beside a cost without the factor 0.05 of the authors' code. Their
    schedule of learning rates and pretraining of the encoder are left out. Known trouble: an adversary that learns
    faster than the encoder drives the codes about, and the decoder blurs; "critic" far below log 4 = 1.39 shows it, and
    a smaller `critic_lr` cures it.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of a code; `None` for 16, or the number of features if that is less.
        penalty_weight: The paper's lambda; `None` for the paper's for MNIST, in proportion to the number of pixels.
        lr: Learning rate of the autoencoder's Adam.
        critic_lr: Learning rate of the discriminator's Adam.
        width: Channels of our networks at full resolution.
        network: Which of our networks: "plain", "wae" or "ae-ot"; see `otgen.nn.encoder`.
        encoder: A network of your own from (b, *shape) to (b, d); `None` for ours.
        decoder: A network of your own from (b, d) to samples as they are to be, (b, *shape); `None` for ours.
        critic: A discriminator of your own from (b, d) to (b,) scores, before the sigmoid; `None` for ours.
        seed: Decides the initial weights and the noise of training.
        device: Where the model lives.
    """

    def __init__(
        self,
        shape: Shape,
        d: int | None = None,
        *,
        penalty_weight: float | None = None,
        lr: float = 1e-3,
        critic_lr: float = 5e-4,
        width: int = 32,
        network: str = "plain",
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        critic: nn.Module | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        self._positive(critic_lr=critic_lr)
        super().__init__(
            shape,
            d,
            penalty_weight=penalty_weight,
            lr=lr,
            width=width,
            network=network,
            encoder=encoder,
            decoder=decoder,
            seed=seed,
            device=device,
        )
        with self._building("critic"):
            if critic is None:
                self.critic: nn.Module = nn.Sequential(MLP((self.d, *ADVERSARY, 1)), nn.Flatten(0))
            else:
                self.critic = self._given("critic", critic, (self.d,), ())
        self._learning("critic", self.critic)
        self.critic_optimiser = Adam(self.critic.parameters(), lr=critic_lr, betas=BETAS)

    def _penalty(self, codes: Tensor, prior: Tensor) -> tuple[Tensor, dict[str, float]]:
        critic = gan_critic(self._score(prior), self._score(codes.detach()))
        descend(self.critic_optimiser, self.penalty_weight * critic)
        return nonsaturating_generator(self._score(codes)), {"critic": critic.item()}

    def _score(self, codes: Tensor) -> Tensor:
        return self._exactly(self.critic(codes))


class WAEMMD(WAE):
    """WAE whose penalty is the maximum mean discrepancy to the prior (Algorithm 2 of the paper and the lecture).

    The estimate is unbiased, so it may be negative, and its noise is that of one batch: take batches of 64 or more.
    The paper's lambda for MNIST is 10, and 200 beside a cost without the factor 0.05 of the authors' code. Their
    schedule of learning rates is left out.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of a code; `None` for 16, or the number of features if that is less.
        penalty_weight: The paper's lambda; `None` for the paper's for MNIST, in proportion to the number of pixels.
        lr: Learning rate of Adam.
        width: Channels of our networks at full resolution.
        network: Which of our networks: "plain", "wae" or "ae-ot"; see `otgen.nn.encoder`.
        encoder: A network of your own from (b, *shape) to (b, d); `None` for ours.
        decoder: A network of your own from (b, d) to samples as they are to be, (b, *shape); `None` for ours.
        seed: Decides the initial weights and the noise of training.
        device: Where the model lives.
    """

    def _penalty(self, codes: Tensor, prior: Tensor) -> tuple[Tensor, dict[str, float]]:
        return losses.mmd(prior, codes), {}
