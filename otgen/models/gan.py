"""Generative adversarial networks whose critic tells real from generated: GAN, LSGAN, PacGAN."""

import torch
from torch import Tensor, nn

from otgen.models.adversarial import Adversarial, Betas
from otgen.nn import adversarial
from otgen.nn.networks import Shape

LOSSES = {"nonsaturating": adversarial.nonsaturating_generator, "minimax": adversarial.minimax_generator}


class GAN(Adversarial):
    """The generator G fools a critic D that tells real from generated: `min_G max_D E log D(x) + E log(1 - D(G(z)))`.

    Goodfellow et al. 2014, "Generative Adversarial Nets", Algorithm 1 with k = 1; the step size and Adam's moments are
    those of Radford et al. 2016 (DCGAN), section 4. D is the sigmoid of the critic's score. At the best critic the
    value is 2 JS(data, generated) - log 4. Known trouble: a critic that is sure of itself leaves the minimax loss
    without a gradient, and whole modes of the data may be missing from the samples.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of the noise.
        loss: The generator's: "nonsaturating" (`-E log D(G(z))`) or "minimax" (`E log(1 - D(G(z)))`).
        lr: Learning rate of both Adams.
        betas: Decay of their moments; the usual 0.9 for the first oscillates.
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
        loss: str = "nonsaturating",
        lr: float = 2e-4,
        betas: Betas = (0.5, 0.999),
        width: int = 32,
        n_critic: int = 1,
        pack: int = 1,
        generator: nn.Module | None = None,
        critic: nn.Module | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        if loss not in LOSSES:
            raise ValueError(f"{self._name}: loss must be one of {', '.join(LOSSES)}, got {loss!r}")
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
        self.loss = LOSSES[loss]
        self._optimise(self._adam(lr, betas))

    def _critic_loss(self, real: Tensor, fake: Tensor, f_real: Tensor, f_fake: Tensor) -> dict[str, Tensor]:
        return {"critic": adversarial.gan_critic(f_real, f_fake)}

    def _generator_loss(self, f_fake: Tensor) -> Tensor:
        return self.loss(f_fake)


class PacGAN(GAN):
    """GAN whose critic sees `pack` independent samples at a time, so that missing modes catch its eye.

    Lin et al. 2018, "PacGAN: The Power of Two Samples in Generative Adversarial Networks". The generator and the losses
    are those of `GAN`, the critic's first layer is wider. Every other `Adversarial` takes `pack`, too.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of the noise.
        pack: Samples in a pack; the paper's experiments have 2, 3 and 4.
        loss: The generator's, as for `GAN`.
        lr: Learning rate of both Adams.
        betas: Decay of their moments.
        width: Channels of our networks at full resolution.
        n_critic: Steps of the critic for one of the generator.
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
        pack: int = 2,
        loss: str = "nonsaturating",
        lr: float = 2e-4,
        betas: Betas = (0.5, 0.999),
        width: int = 32,
        n_critic: int = 1,
        generator: nn.Module | None = None,
        critic: nn.Module | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        super().__init__(
            shape,
            d,
            width=width,
            n_critic=n_critic,
            pack=pack,
            loss=loss,
            lr=lr,
            betas=betas,
            generator=generator,
            critic=critic,
            seed=seed,
            device=device,
        )


class LSGAN(Adversarial):
    """GAN whose critic regresses labels, 1 for real and 0 for generated, by least squares; the generator wants 1.

    Mao et al. 2017, "Least Squares Generative Adversarial Networks", equation 9: `½ E (f(x) - 1)² + ½ E f(G(z))²` for
    the critic, `½ E (f(G(z)) - 1)²` for the generator, f without a sigmoid. Samples that the critic holds for real but
    that lie far from the data still pull. The step size and Adam's moments are those of DCGAN.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of the noise.
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

    def __init__(
        self,
        shape: Shape,
        d: int = 64,
        *,
        lr: float = 2e-4,
        betas: Betas = (0.5, 0.999),
        width: int = 32,
        n_critic: int = 1,
        pack: int = 1,
        generator: nn.Module | None = None,
        critic: nn.Module | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
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
        self._optimise(self._adam(lr, betas))

    def _critic_loss(self, real: Tensor, fake: Tensor, f_real: Tensor, f_fake: Tensor) -> dict[str, Tensor]:
        return {"critic": adversarial.least_squares_critic(f_real, f_fake)}

    def _generator_loss(self, f_fake: Tensor) -> Tensor:
        return adversarial.least_squares_generator(f_fake)
