"""SNGAN: every weight of the critic divided by its largest singular value."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from otgen.models.adversarial import Adversarial, Betas
from otgen.nn import adversarial
from otgen.nn.networks import Shape


class SNGAN(Adversarial):
    """GAN whose critic's weights are divided by their largest singular values, which makes it about 1-Lipschitz.

    Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks", equations 16 and 17 (hinge loss):
    the critic descends `E relu(1 - f(x)) + E relu(1 + f(G(z)))`, the generator `-E f(G(z))`. There is one power
    iteration at each use of a weight. A convolution's matrix is its kernel, reshaped, and to bound that is not to bound
    the operator. The paper's linear decay of the step size is left out, as a model does not know how long it will
    train.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of the noise.
        lr: Learning rate of both Adams.
        betas: Decay of their moments.
        width: Channels of our networks at full resolution.
        n_critic: Steps of the critic for one of the generator.
        pack: Samples that the critic sees at a time; see `PacGAN`.
        generator: A network of your own; see `Adversarial`.
        critic: A network of your own, with spectral normalisation; see `Adversarial`.
        seed: Decides the initial weights and the noise of training.
        device: Where the model lives.
    """

    def __init__(
        self,
        shape: Shape,
        d: int = 128,
        *,
        lr: float = 2e-4,
        betas: Betas = (0.0, 0.9),
        width: int = 32,
        n_critic: int = 5,
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
            norm="spectral",
            generator=generator,
            critic=critic,
            seed=seed,
            device=device,
        )
        if not any(_is_spectral(part) for part in self.critic.modules()):
            wanted = "spectral normalisation (torch.nn.utils.parametrizations.spectral_norm)"
            raise ValueError(f"{self._name}: critic must have {wanted}, got {type(self.critic).__name__} without")
        self._optimise(self._adam(lr, betas))

    def _critic_loss(self, real: Tensor, fake: Tensor, f_real: Tensor, f_fake: Tensor) -> dict[str, Tensor]:
        return {"critic": adversarial.hinge_critic(f_real, f_fake), "gap": f_real.mean() - f_fake.mean()}

    def _generator_loss(self, f_fake: Tensor) -> Tensor:
        return adversarial.wasserstein_generator(f_fake)


def _is_spectral(part: nn.Module) -> bool:
    """Whether a part is a spectral normalisation, or has one of torch's older kind."""
    old = any(isinstance(hook, SpectralNorm) for hook in part._forward_pre_hooks.values())
    return old or isinstance(part, _SpectralNorm)
