"""What all adversarial models share: a critic and a generator that learn in turn, on single samples or on packs."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adam, Optimizer

from otgen.models.base import descend
from otgen.models.generative import Generative
from otgen.nn import adversarial
from otgen.nn.networks import Shape
from otgen.ops import check

Betas = tuple[float, float]
"""Decay of Adam's two moments."""


class Adversarial(Generative):
    """A generator and a critic that learn in turn; a subclass names the two losses and the optimiser.

    The order is that of Algorithm 1 of Goodfellow et al. 2014 and of Arjovsky et al. 2017: every step shows the critic
    a fresh batch of data and fresh noise; every `n_critic`-th step goes on to the generator, with fresh noise again.
    So an epoch shows the critic all data once, and the generator takes one step for `n_critic` of the critic's.

    Packing (Lin et al. 2018, PacGAN) works for every subclass: the critic sees `pack` independent samples at a time,
    all real or all generated, one behind the other on the axis of channels or features. To the losses a pack is one
    sample. A batch of b samples has b // `pack` packs, and what is left over is not used.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of the noise.
        width: Channels of our networks at full resolution.
        n_critic: Steps of the critic for one of the generator.
        pack: Samples that the critic sees at a time.
        norm: Normalisation in our critic, as for `otgen.nn.critic`.
        generator: A network of your own from (b, d) to samples as they are to be, (b, *shape); `None` for ours.
        critic: A network of your own from packs (b, pack * c, h, w) or (b, pack * features) to scores (b,); `None` for
            ours.
        seed: Decides the initial weights and the noise of training.
        device: Where the model lives.

    Attributes:
        steps: How many steps the critic has made, int64.
    """

    steps: Tensor

    def __init__(
        self,
        shape: Shape,
        d: int,
        *,
        width: int,
        n_critic: int,
        pack: int,
        norm: str = "none",
        generator: nn.Module | None,
        critic: nn.Module | None,
        seed: int,
        device: str | torch.device,
    ):
        super().__init__(shape, d, seed=seed, device=device)
        self._at_least(1, width=width, n_critic=n_critic, pack=pack)
        self.n_critic, self.pack = n_critic, pack
        with self._building():
            self.generator = self._generator(generator, width)
            self.critic = self._make_critic(critic, width, norm)
        self.register_buffer("steps", torch.tensor(0, device=self._device))

    # ---- what a subclass says ---------------------------------------------------------------------------------------

    @abstractmethod
    def _critic_loss(self, real: Tensor, fake: Tensor, f_real: Tensor, f_fake: Tensor) -> dict[str, Tensor]:
        """Losses of one step of the critic.

        Args:
            real: Packs of real samples, (b, ...).
            fake: Packs of generated samples, like `real`, without gradients.
            f_real: Their scores, (b,).
            f_fake: Their scores, (b,).

        Returns:
            Scalars by name: "critic" is descended, the others are worth a curve.
        """

    @abstractmethod
    def _generator_loss(self, f_fake: Tensor) -> Tensor:
        """What the generator descends, a scalar, from the scores (b,) of its packs."""

    def _score(self, packs: Tensor) -> Tensor:
        """Scores (b,) of packs (b, ...)."""
        return self._exactly(self.critic(packs))

    def _after_critic(self, losses: dict[str, Tensor]) -> None:
        """Do what is to be done after the critic's step, for which it had these losses."""

    def _make_critic(self, given: nn.Module | None, width: int, norm: str) -> nn.Module:
        return self._critic(given, width, norm, self._packed_shape)

    def _optimise(self, make: Callable[[Iterator[nn.Parameter]], Optimizer]) -> None:
        """Give each network an optimiser; the last thing that a constructor does."""
        for name, network in (("critic", self.critic), ("generator", self.generator)):
            self._learning(name, network)
        self.critic_optimiser = make(self.critic.parameters())
        self.generator_optimiser = make(self.generator.parameters())

    def _adam(self, lr: float, betas: Betas) -> Callable[[Iterator[nn.Parameter]], Optimizer]:
        """Makes an Adam, if its numbers are sound."""
        self._positive(lr=lr)
        if (
            not isinstance(betas, (tuple, list))
            or len(betas) != 2
            or not all(check.is_number(beta) and 0 <= beta < 1 for beta in betas)
        ):
            raise ValueError(f"{self._name}: betas must be two numbers in [0, 1), got {betas!r}")
        return partial(Adam, lr=lr, betas=(float(betas[0]), float(betas[1])))

    # ---- what all of them do ----------------------------------------------------------------------------------------

    def step(self, batch: Tensor) -> dict[str, float]:
        """Train the critic on one batch, and the generator if it is its turn.

        Args:
            batch: Samples, (b, *shape), b at least `pack`, on the model's device.

        Returns:
            "critic", "generator" and what else the method knows, all as they were before the step.
        """
        self._check_samples("step", batch)
        if len(batch) < self.pack:
            raise self._too_small(f"pack={self.pack} samples", batch)
        real = self._packs(batch)
        with torch.no_grad():
            fake = self._fake(len(real))
        f_real, f_fake = self._score(real), self._score(fake)
        losses = self._critic_loss(real, fake, f_real, f_fake)
        losses = {"critic": losses["critic"], "generator": self._generator_loss(f_fake.detach()), **losses}
        descend(self.critic_optimiser, losses["critic"])
        self._after_critic(losses)
        self.steps += 1
        if self.steps % self.n_critic == 0:
            descend(self.generator_optimiser, self._generator_loss(self._score(self._fake(len(real)))))
        return {name: loss.item() for name, loss in losses.items()}

    def _decode(self, z: Tensor) -> Tensor:
        samples: Tensor = self.generator(z)
        return samples

    def _fake(self, n: int) -> Tensor:
        """Generate n packs, with gradients, from the noise of training."""
        return self._packs(self._decode(self._noise(n * self.pack)))

    def _packs(self, samples: Tensor) -> Tensor:
        """Put samples (b, c, ...) into packs (b // pack, pack * c, ...), neighbours together."""
        n = len(samples) // self.pack
        return samples[: n * self.pack].reshape(n, *self._packed_shape)

    def _between(self, real: Tensor, fake: Tensor) -> Tensor:
        """Points on the segments from generated to real packs (b, ...), by the noise of training."""
        share = torch.rand(len(real), generator=self.rng, dtype=real.dtype, device="cpu")
        return adversarial.between(real, fake, share.to(real.device))

    @property
    def _packed_shape(self) -> Shape:
        return (self.pack * self.shape[0], *self.shape[1:])

    def _refuse_batch_norm(self) -> None:
        """A gradient by one sample means nothing where the samples of a batch are mixed."""
        if any(isinstance(part, _BatchNorm) for part in self.critic.modules()):
            raise ValueError(f"{self._name}: critic must not have batch normalisation, which mixes samples' gradients")
