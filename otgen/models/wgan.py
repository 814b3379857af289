"""Wasserstein GANs: the critic kept Lipschitz by clipping, or its gradient by a penalty."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import RMSprop

from otgen.models.adversarial import Adversarial, Betas
from otgen.nn import adversarial
from otgen.nn.networks import Shape


class WGAN(Adversarial):
    """GAN whose critic's weights stay in a box, so it is K-Lipschitz: `min_G max_f E f(x) - E f(G(z))`, about K W1.

    Arjovsky et al. 2017, "Wasserstein GAN", Algorithm 1: RMSProp, and after every step of the critic its weights are
    clipped. "gap" is `E f(x) - E f(G(z))`; nobody knows K, so do not take it for W1. Known trouble: Adam and other
    momentum make it jump, and a critic in a small box learns little more than straight slopes. A box belongs to a
    width: 0.01 suits a `width` of 32 and more, but on images of 28 pixels one of 8 leaves a gradient of 1e-5, and blobs
    for samples; below 32 take `clip` in inverse proportion.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of the noise.
        clip: Half the side of the box, the paper's c; every weight and bias of the critic lies in [-clip, clip].
        lr: Learning rate of both RMSProps.
        width: Channels of our networks at full resolution.
        n_critic: Steps of the critic for one of the generator.
        pack: Samples that the critic sees at a time; see `PacGAN`.
        generator: A network of your own; see `Adversarial`.
        critic: A network of your own; see `Adversarial`.
        seed: Decides the initial weights and the noise of training.
        device: Where the model lives.
    """

    def __init__(
        self,
        shape: Shape,
        d: int = 64,
        *,
        clip: float = 0.01,
        lr: float = 5e-5,
        width: int = 32,
        n_critic: int = 5,
        pack: int = 1,
        generator: nn.Module | None = None,
        critic: nn.Module | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        self._positive(clip=clip, lr=lr)
        super().__init__(
            shape,
            d,
            width=width,
            n_critic=n_critic,
            pack=pack,
            generator=generator,
            critic=critic,
            seed=seed,
            device=device,
        )
        self.clip = clip
        self._optimise(partial(RMSprop, lr=lr))

    def _critic_loss(self, real: Tensor, fake: Tensor, f_real: Tensor, f_fake: Tensor) -> dict[str, Tensor]:
        loss = adversarial.wasserstein_critic(f_real, f_fake)
        return {"critic": loss, "gap": -loss}

    def _generator_loss(self, f_fake: Tensor) -> Tensor:
        return adversarial.wasserstein_generator(f_fake)

    @torch.no_grad()
    def _after_critic(self, losses: dict[str, Tensor]) -> None:
        for parameter in self.critic.parameters():
            parameter.clamp_(-self.clip, self.clip)


class WGANGP(Adversarial):
    """WGAN whose critic is held to gradients of length 1 between real and generated samples.

    Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", Algorithm 1: the critic descends
    `E f(G(z)) - E f(x) + penalty E (|∇f(x̂)| - 1)²`, each x̂ uniform on the segment from a generated sample to a real
    one. "gap" is `E f(x) - E f(G(z))`. The critic has no batch normalisation, since its gradient is per sample.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of the noise.
        penalty: Weight of the penalty, the paper's λ; 0.1 for its sets in the plane.
        lr: Learning rate of both Adams.
        betas: Decay of their moments.
        width: Channels of our networks at full resolution.
        n_critic: Steps of the critic for one of the generator.
        pack: Samples that the critic sees at a time; see `PacGAN`.
        generator: A network of your own; see `Adversarial`.
        critic: A network of your own; see `Adversarial`.
        seed: Decides the initial weights and the noise of training.
        device: Where the model lives.
    """

    second_order = True

    def __init__(
        self,
        shape: Shape,
        d: int = 64,
        *,
        penalty: float = 10.0,
        lr: float = 1e-4,
        betas: Betas = (0.0, 0.9),
        width: int = 32,
        n_critic: int = 5,
        pack: int = 1,
        generator: nn.Module | None = None,
        critic: nn.Module | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        self._positive(penalty=penalty)
        super().__init__(
            shape,
            d,
            width=width,
            n_critic=n_critic,
            pack=pack,
            generator=generator,
            critic=critic,
            seed=seed,
            device=device,
        )
        self._refuse_batch_norm()
        self.penalty = penalty
        self._optimise(self._adam(lr, betas))

    def _critic_loss(self, real: Tensor, fake: Tensor, f_real: Tensor, f_fake: Tensor) -> dict[str, Tensor]:
        loss = adversarial.wasserstein_critic(f_real, f_fake)
        penalty = adversarial.unit_penalty(adversarial.gradient_norms(self._score, self._between(real, fake)))
        return {"critic": loss + self.penalty * penalty, "gap": -loss, "penalty": penalty}

    def _generator_loss(self, f_fake: Tensor) -> Tensor:
        return adversarial.wasserstein_generator(f_fake)


class WGANDiv(Adversarial):
    """WGAN whose critic pays for a power of its gradient, instead of keeping a bound: the Wasserstein divergence.

    Wu et al. 2018, "Wasserstein Divergence for GANs", Algorithm 1: the critic descends
    `E f(G(z)) - E f(x) + k E |∇f(x̂)|^p`, each x̂ uniform on the segment from a generated sample to a real one; the
    paper's sign of f is the other one. f need not be Lipschitz, so "gap", `E f(x) - E f(G(z))`, is no distance.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of the noise.
        k: Weight of the penalty.
        p: Power of the gradient's length, above 1.
        lr: Learning rate of both Adams.
        betas: Decay of their moments.
        width: Channels of our networks at full resolution.
        n_critic: Steps of the critic for one of the generator.
        pack: Samples that the critic sees at a time; see `PacGAN`.
        generator: A network of your own; see `Adversarial`.
        critic: A network of your own; see `Adversarial`.
        seed: Decides the initial weights and the noise of training.
        device: Where the model lives.
    """

    second_order = True

    def __init__(
        self,
        shape: Shape,
        d: int = 64,
        *,
        k: float = 2.0,
        p: float = 6.0,
        lr: float = 2e-4,
        betas: Betas = (0.5, 0.999),
        width: int = 32,
        n_critic: int = 5,
        pack: int = 1,
        generator: nn.Module | None = None,
        critic: nn.Module | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        self._positive(k=k, p=p)
        if p <= 1:
            raise ValueError(f"{self._name}: p must be above 1, or the critic's loss has no least value, got {p!r}")
        super().__init__(
            shape,
            d,
            width=width,
            n_critic=n_critic,
            pack=pack,
            generator=generator,
            critic=critic,
            seed=seed,
            device=device,
        )
        self._refuse_batch_norm()
        self.k, self.p = k, p
        self._optimise(self._adam(lr, betas))

    def _critic_loss(self, real: Tensor, fake: Tensor, f_real: Tensor, f_fake: Tensor) -> dict[str, Tensor]:
        loss = adversarial.wasserstein_critic(f_real, f_fake)
        penalty = adversarial.power_penalty(adversarial.gradient_norms(self._score, self._between(real, fake)), self.p)
        return {"critic": loss + self.k * penalty, "gap": -loss, "penalty": penalty}

    def _generator_loss(self, f_fake: Tensor) -> Tensor:
        return adversarial.wasserstein_generator(f_fake)
