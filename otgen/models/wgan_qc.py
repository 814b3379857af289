"""WGAN-QC: the critic learns the dual of each batch's transport problem, solved exactly."""

import math

import torch
from torch import Tensor, nn

from otgen.models.adversarial import Adversarial, Betas
from otgen.models.transport import pot_emd, solve_batch
from otgen.nn import adversarial
from otgen.nn.networks import Shape


class WGANQC(Adversarial):
    """WGAN whose critic regresses the exact dual of the transport between each batch and as many generated samples.

    Liu, Gu and Samaras 2019, "Wasserstein GAN with Quadratic Transport Cost". The cost is `½ K |x - y|²` with K = 1 /
    (numbers in a sample). POT solves the linear program; the constant that its dual leaves free is chosen so that the
    dual's mean is 0. The critic descends `½ (E f(x) - E t)² + ½ E (f(y) - t_y)²`, t being the dual, and
    `4 √K gamma` times `½ E (|∇f(y)| / (2 √K) - ½ √K |x_y - y|)²`, x_y being the partner of y; the generator raises
    `E f(y)`. "cost" is the batch's transport cost, "gap" is `E f(x) - E f(y)`, which follows it. The paper's averaging
    of the generator's weights in the last steps is left out.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of the noise.
        gamma: Weight of the gradient's regularisation.
        lr: Learning rate of both Adams.
        betas: Decay of their moments.
        width: Channels of our networks at full resolution.
        n_critic: Steps of the critic for one of the generator.
        pack: Samples that the critic sees at a time; see `PacGAN`.
        generator: A network of your own; see `Adversarial`.
        critic: A network of your own; see `Adversarial`.
        seed: Decides the initial weights and the noise of training.
        device: Where the model lives.

    Raises:
        ImportError: POT, an optional package, is not installed.
    """

    second_order = True

    def __init__(
        self,
        shape: Shape,
        d: int = 128,
        *,
        gamma: float = 0.1,
        lr: float = 1e-4,
        betas: Betas = (0.5, 0.999),
        width: int = 32,
        n_critic: int = 1,
        pack: int = 1,
        generator: nn.Module | None = None,
        critic: nn.Module | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        pot_emd(self._name)  # before any work
        self._positive(gamma=gamma)
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
        self.gamma, self.scale = gamma, 1 / math.prod(self._packed_shape)
        self._optimise(self._adam(lr, betas))

    def _critic_loss(self, real: Tensor, fake: Tensor, f_real: Tensor, f_fake: Tensor) -> dict[str, Tensor]:
        solved = solve_batch(real, fake, self.scale)
        regression = adversarial.dual_regression(f_real, f_fake, solved.dual_real, solved.dual_fake)
        distance = (real[solved.partner] - fake).flatten(1).norm(dim=1)
        penalty = adversarial.transport_penalty(adversarial.gradient_norms(self._score, fake), distance, self.scale)
        return {
            "critic": regression + 4 * math.sqrt(self.scale) * self.gamma * penalty,
            "gap": f_real.mean() - f_fake.mean(),
            "cost": solved.cost,
            "penalty": penalty,
        }

    def _generator_loss(self, f_fake: Tensor) -> Tensor:
        return adversarial.wasserstein_generator(f_fake)
