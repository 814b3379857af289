"""GLANN: images without an encoder or an adversary, by nearest neighbours."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.optim import Adam

from otgen import ops
from otgen.bars import Bar
from otgen.models.base import descend
from otgen.models.generative import Generative
from otgen.nn import MLP, losses
from otgen.nn.networks import Shape
from otgen.train import Samples, Setup

NOISE = 32  # numbers of noise that the sampler maps to a code; this and the next two are the paper's
HIDDEN = (128, 128)  # units of the sampler
POOL = 2  # candidates drawn for every code
SAMPLER_LR, SAMPLER_DECAY, SAMPLER_BATCH = 1e-3, 1e-5, 128  # the authors', who have the decay beside a mean over d
BETAS = (0.5, 0.999)  # of the generator; the authors have them for the sampler, too


class GLANN(Generative):
    """Codes on the unit sphere learnt with the generator (GLO), then a map from noise to the codes (IMLE).

    Hoshen, Li and Malik 2019, "Non-Adversarial Image Synthesis with Generative Latent Nearest Neighbors". GLO
    (Bojanowski et al. 2018): every training sample x_i has a code z_i of its own, and `sum_i l(G(z_i), x_i)` is
    minimised by all z_i and G. IMLE (Li and Malik 2018), after the last step: in every epoch draw noise e, find for
    each code the nearest T(e), and draw that one to it. Samples are G(T(e)). The nearest candidate is sought for each
    code and not the other way round, or codes without a candidate near would be dropped. The error l is the distance of
    Laplacian pyramids of GLO's paper instead of a VGG network's, and the squared error for vectors; halving the
    learning rates is left out.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        d: Size of a code.
        lr: Learning rate of the generator's Adam.
        codes_lr: Learning rate of the codes' Adam.
        sampler_epochs: Epochs of IMLE.
        width: Channels of our networks at full resolution.
        generator: A network of your own from (b, d) to samples as they are to be, (b, *shape); `None` for ours.
        seed: Decides the initial weights and codes, and the noise.
        device: Where the model lives.

    Attributes:
        codes: Code of each training sample, (n, d); empty before `fit`.
    """

    hints = {
        "encode": "it learns one code per training sample, kept in `codes`",
        "step": "it learns one code per training sample, so it must know which they are: call fit",
    }

    def __init__(
        self,
        shape: Shape,
        d: int = 64,
        *,
        lr: float = 1e-3,
        codes_lr: float = 1e-2,
        sampler_epochs: int = 50,
        width: int = 32,
        generator: nn.Module | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        self._positive(lr=lr, codes_lr=codes_lr)
        self._at_least(1, sampler_epochs=sampler_epochs, width=width)
        super().__init__(shape, d, seed=seed, device=device)
        self.codes_lr, self.sampler_epochs = codes_lr, sampler_epochs
        with self._building():
            self.generator = self._generator(generator, width)
            self.sampler = MLP((NOISE, *HIDDEN, d), nn.ReLU, nn.BatchNorm1d)
        self._learning("generator", self.generator)
        self.generator_optimiser = Adam(self.generator.parameters(), lr=lr, betas=BETAS)
        self.sampler_optimiser = Adam(self.sampler.parameters(), lr=SAMPLER_LR, weight_decay=SAMPLER_DECAY)
        self._allocate(0)

    def prepare(self, data: Samples, setup: Setup) -> None:
        """Give every sample a code, drawn uniformly from the sphere; those of an earlier `fit` on as many are kept."""
        n = data.size[0]
        if not data.numbered:
            raise TypeError("GLANN learns one code per sample: data must be in memory, in files or a Dataset")
        if len(self.codes) != n:
            self._allocate(n)

    def step(self, batch: Tensor) -> dict[str, float]:
        """Refused, as it must be known which samples they are; `fit` calls `step_rows`."""
        raise self._cannot("step")

    def step_rows(self, batch: Tensor, rows: Tensor | None) -> dict[str, float]:
        """Train the generator and the codes of samples (b, *shape) with numbers (b,)."""
        self._check_samples("step", batch)
        if rows is None:
            raise self._cannot("step")
        error = losses.laplacian if len(self.shape) == 3 else losses.mse
        loss = error(self._decode(self.codes[rows.to(self.device)]), batch)
        self.codes_optimiser.zero_grad()
        descend(self.generator_optimiser, loss)
        self.codes_optimiser.step()
        with torch.no_grad():
            self.codes.copy_(normalize(self.codes))
        return {"loss": loss.item()}

    def finish(self, data: Samples, setup: Setup) -> None:
        """Fit the sampler to the codes: IMLE."""
        codes = self.codes.detach()
        for _ in Bar(range(self.sampler_epochs), desc="IMLE", disable=not setup.progress):
            noise = self._nearest_noise(codes)
            order = torch.randperm(len(codes), generator=self.rng, device="cpu")
            for rows in torch.split(order, SAMPLER_BATCH):
                if len(rows) > 1:  # one alone has no batch statistics
                    descend(self.sampler_optimiser, losses.mse(self.sampler(noise[rows]), codes[rows]))

    def _nearest_noise(self, codes: Tensor) -> Tensor:
        """The noise (n, NOISE) whose image is nearest to each code (n, d), among POOL n candidates."""
        noise = self._normal(POOL * len(codes), self.rng)
        with torch.no_grad():
            candidates = self.sampler(noise)
        # the nearest y is the one with the largest <x, y> - |y|^2 / 2
        nearest = ops.assign(codes.cpu(), candidates.cpu(), -0.5 * candidates.cpu().square().sum(dim=1))[0]
        return noise[nearest.to(self.device)]

    def _normal(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.randn(n, NOISE, generator=rng, device=rng.device, dtype=self._like.dtype).to(self.device)

    def _noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw codes by the sampler, (n, d)."""
        codes: Tensor = self.sampler(self._normal(n, self.rng if generator is None else generator))
        return codes

    def _decode(self, z: Tensor) -> Tensor:
        samples: Tensor = self.generator(normalize(z))
        return samples

    def _allocate(self, n: int) -> None:
        """Make codes (n, d) uniform on the sphere, and their optimiser."""
        drawn = torch.randn(n, self.d, generator=self.rng, dtype=self._like.dtype, device="cpu")
        self.codes = nn.Parameter(normalize(drawn).to(self.device))
        self.codes_optimiser = Adam([self.codes], lr=self.codes_lr, betas=BETAS)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Make room for as many codes as there are."""
        if prefix + "codes" in state_dict:
            self._allocate(len(state_dict[prefix + "codes"]))
        super()._load_from_state_dict(state_dict, prefix, *rest)
