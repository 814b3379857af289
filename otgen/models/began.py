"""BEGAN: the critic is an autoencoder, and a control keeps the two networks in balance."""

import math

import torch
from torch import Tensor, nn

from otgen.models.adversarial import Adversarial, Betas
from otgen.nn import adversarial, decoder, encoder, squash
from otgen.nn.networks import Shape

CODES = 64  # the paper's size of the critic's codes


class BEGAN(Adversarial):
    """GAN whose critic is an autoencoder that wants to copy real samples well and generated ones badly, in balance.

    Berthelot et al. 2017, "BEGAN: Boundary Equilibrium Generative Adversarial Networks", section 3.4. With L(v) the
    mean absolute error of the copy of v, the critic descends `L(x) - k L(G(z))`, the generator `L(G(z))`, and `k ← k +
    rate (gamma L(x) - L(G(z)))`, cut to [0, 1] and 0 at first. "convergence" is `L(x) + |gamma L(x) - L(G(z))|`. The
    paper's noise is uniform in [-1, 1]; here it is N(0, I), as in all models. Known trouble: few modes, and in runs of
    some thousand steps the control hardly moves; raise `gamma` and `rate`. It is made for images: among vectors of a
    few numbers its generator ends in one point.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of the noise.
        gamma: Wanted ratio of L(G(z)) to L(x), in (0, 1]; lower for cleaner samples, higher for more diverse ones.
        rate: Step size of the control, the paper's λ_k.
        codes: Size of the critic's codes, the paper's N_h; `None` for 64, or half the numbers of a pack if that is
            less, since a critic that can copy its input tells nothing.
        lr: Learning rate of both Adams.
        betas: Decay of their moments.
        width: Channels of our networks at full resolution.
        n_critic: Steps of the critic for one of the generator.
        pack: Samples that the critic sees at a time; see `PacGAN`.
        generator: A network of your own; see `Adversarial`.
        critic: A network of your own from packs to their reconstructions, (b, pack * c, h, w) both; `None` for ours.
        seed: Decides the initial weights and the noise of training.
        device: Where the model lives.

    Attributes:
        k: The control, in [0, 1].
    """

    k: Tensor

    def __init__(
        self,
        shape: Shape,
        d: int = 64,
        *,
        gamma: float = 0.75,
        rate: float = 1e-3,
        codes: int | None = None,
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
        self._positive(gamma=gamma, rate=rate)
        if codes is not None:
            self._at_least(1, codes=codes)
        if gamma > 1:
            raise ValueError(f"{self._name}: gamma must lie in (0, 1], got {gamma!r}")
        self.codes = codes  # the critic is built in the next call
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
        self.gamma, self.rate = gamma, rate
        self.register_buffer("k", torch.zeros((), device=self._device))
        self._optimise(self._adam(lr, betas))

    def _critic_loss(self, real: Tensor, fake: Tensor, f_real: Tensor, f_fake: Tensor) -> dict[str, Tensor]:
        l_real, l_fake = f_real.mean(), f_fake.mean()
        return {
            "critic": l_real - self.k * l_fake,
            "real": l_real,
            "fake": l_fake,
            "k": self.k.clone(),
            "convergence": adversarial.imbalance(l_real, l_fake, self.gamma),
        }

    def _generator_loss(self, f_fake: Tensor) -> Tensor:
        return f_fake.mean()

    def _score(self, packs: Tensor) -> Tensor:
        """Mean absolute error (b,) of the reconstructions of packs (b, ...); low for real ones."""
        errors: Tensor = (self.critic(packs) - packs).abs().to(self._like.dtype)
        return errors.flatten(1).mean(dim=1)

    def _after_critic(self, losses: dict[str, Tensor]) -> None:
        self.k.copy_(adversarial.balance(self.k, losses["real"], losses["fake"], self.gamma, self.rate))

    def _make_critic(self, given: nn.Module | None, width: int, norm: str) -> nn.Module:
        shape = self._packed_shape
        codes = min(CODES, max(1, math.prod(shape) // 2)) if self.codes is None else self.codes
        if given is not None:
            return self._given("critic", given, shape, shape)
        return nn.Sequential(encoder(shape, codes, width), decoder(codes, shape, width), squash(shape))
