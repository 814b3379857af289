"""AE-OT-GAN: a generator that starts as AE-OT's decoder, and is fed by the extended map."""

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.optim import Adam

from otgen.models.ae_ot import AEOT
from otgen.models.base import descend
from otgen.models.generative import Generative
from otgen.models.ot_prior import not_fitted
from otgen.models.state import evaluating
from otgen.nn.adversarial import gan_critic, nonsaturating_generator
from otgen.nn.networks import Shape
from otgen.ops import check
from otgen.train import Samples, Setup

BETAS = (0.5, 0.999)  # of both Adams, as in DCGAN


class AEOTGAN(Generative):
    """Adversarial training of AE-OT's decoder on codes that optimal transport makes.

    After An et al. 2020, "AE-OT-GAN: Training GANs from Data Specific Latent Distribution": (1) train an autoencoder,
    (2) solve the transport T from noise to its codes, (3) start the generator G from the decoder, (4) train G against a
    critic f with `-log sigmoid f(G(z)) + content E|G(E(x)) - x|^2 + feature E|phi(G(E(x))) - phi(x)|^2`, z codes of the
    extended map, phi what the critic's score is read from, E the encoder, which stays as it is; both means are over all
    numbers. As the codes lie where the data's do, G need not represent a map that jumps. The weights, the critic with
    spectral normalisation and its head start are ours, not the paper's.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of a code; `None` for 16, or the number of features if that is less.
        aeot: An AEOT to start from, which `fit` trains first if it is not fitted; `None` for one of our own.
        ae_epochs: Its epochs.
        content: Weight of the content loss.
        feature: Weight of the feature loss.
        head_start: Steps in which the critic alone learns.
        lr: Learning rate of both Adams.
        width: Channels of our networks at full resolution.
        critic: A network of your own from (b, *shape) to scores (b,), with a method `features(x)` unless `feature` is
            0; `None` for ours.
        tol: Goal for the certificate's chi2 of an AEOT of our own, as for `SemiDiscreteOT`.
        seed: Decides the initial weights and the noise of training.
        device: Where the model lives.
    """

    steps: Tensor

    def __init__(
        self,
        shape: Shape,
        d: int | None = None,
        *,
        aeot: AEOT | None = None,
        ae_epochs: int = 20,
        content: float = 1.0,
        feature: float = 0.1,
        head_start: int = 100,
        lr: float = 2e-4,
        width: int = 32,
        critic: nn.Module | None = None,
        tol: float = 0.01,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        self._positive(lr=lr)
        self._at_least(0, head_start=head_start)
        self._at_least(1, ae_epochs=ae_epochs)
        if not all(check.is_number(weight) and 0 <= weight < float("inf") for weight in (content, feature)):
            raise ValueError(f"AEOTGAN: content and feature must be numbers >= 0, got {content!r} and {feature!r}")
        if aeot is None:
            aeot = AEOT(shape, d, width=width, tol=tol, seed=seed, device=device)
        elif not isinstance(aeot, AEOT):
            raise TypeError(f"AEOTGAN: aeot must be an AEOT, got {type(aeot).__name__}")
        elif (tuple(shape) if isinstance(shape, Sequence) else shape) != aeot.shape or d not in (None, aeot.d):
            raise ValueError(f"AEOTGAN: shape and d must be those of aeot, {aeot.shape} and {aeot.d}, got {shape}, {d}")
        super().__init__(shape, aeot.d, seed=seed, device=device)
        self.ae_epochs, self.content, self.feature, self.head_start = ae_epochs, content, feature, head_start
        with self._building("critic"):
            self.aeot = aeot
            self.generator = nn.Sequential(deepcopy(aeot.decoder), deepcopy(aeot.squash))
            self.critic = self._critic(critic, width, "spectral")
        self.features: Callable[[Tensor], Tensor] | None = getattr(self.critic, "features", None)
        if feature > 0 and not callable(self.features):
            raise TypeError("AEOTGAN: critic must have a method features(x), or feature must be 0")
        self.register_buffer("steps", torch.tensor(0, device=self._device))
        self._learning("generator", self.generator)
        self._learning("critic", self.critic)
        self.generator_optimiser = Adam(self.generator.parameters(), lr=lr, betas=BETAS)
        self.critic_optimiser = Adam(self.critic.parameters(), lr=lr, betas=BETAS)

    def prepare(self, data: Samples, setup: Setup) -> None:
        """Train AE-OT if that is still to be done, and start the generator from its decoder."""
        if not self.aeot.fitted:
            self.aeot._need_an_end(data)
            self.aeot.fit(data, epochs=self.ae_epochs, **vars(setup))
        if self.steps == 0:
            self.generator[0].load_state_dict(self.aeot.decoder.state_dict())

    def step(self, batch: Tensor) -> dict[str, float]:
        """Train critic and generator on one batch (b, *shape).

        Returns:
            "generator", "critic", "content" and "feature", without their weights, as they were before the step.
        """
        self._check_samples("step", batch)
        with evaluating(self.aeot):
            codes = self.aeot._encode(batch)
        fake = self._decode(self._noise(len(batch)))
        critic = gan_critic(self._score(batch), self._score(fake.detach()))
        descend(self.critic_optimiser, critic)
        again = self._decode(codes)
        adversarial = nonsaturating_generator(self._score(fake))
        content = (again - batch).square().mean()
        feature = self._feature_loss(again, batch)
        if self.steps >= self.head_start:
            descend(self.generator_optimiser, adversarial + self.content * content + self.feature * feature)
        self.steps += 1
        values = {"generator": adversarial, "critic": critic, "content": content, "feature": feature}
        return {name: value.item() for name, value in values.items()}

    def _score(self, x: Tensor) -> Tensor:
        return self._exactly(self.critic(x))

    def _feature_loss(self, again: Tensor, batch: Tensor) -> Tensor:
        """Mean squared distance between the features of reconstructions and of samples, for the generator alone."""
        if self.features is None:
            return again.new_zeros(())
        return (self.features(again) - self.features(batch).detach()).square().mean()

    def _encode(self, x: Tensor) -> Tensor:
        return self.aeot._encode(x)

    def _decode(self, z: Tensor) -> Tensor:
        samples: Tensor = self.generator(z)
        return samples

    def _noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw codes by the extended map, (n, d)."""
        if not self.aeot.fitted:
            raise not_fitted(self._name, "data")
        return self.aeot._noise(n, self.rng if generator is None else generator)
