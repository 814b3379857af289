"""What experiments on adversarial training share: a critic's estimate and gradients, and whether curves go together."""

import math
from collections.abc import Callable

import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from otgen.models import GAN, Adversarial
from otgen.nn import adversarial


@torch.no_grad()
def estimate(model: Adversarial, real: Tensor, fake: Tensor) -> float:
    """The critic's estimate of the distance that its loss stands for.

    A GAN's discriminator gives a lower bound of the Jensen-Shannon divergence in nats, log 2 minus half its
    cross-entropy (Goodfellow et al. 2014, section 4.1); a Wasserstein critic `E f(x) - E f(G(z))`, in units of K W1.

    Args:
        model: Not packing, or each sample would need others beside it.
        real: Samples, (n, *shape), on the model's device.
        fake: Generated ones, (m, *shape).
    """
    f_real, f_fake = model.critic(real), model.critic(fake)
    if isinstance(model, GAN):
        return float(torch.tensor(2.0).log() - adversarial.gan_critic(f_real, f_fake) / 2)
    return -float(adversarial.wasserstein_critic(f_real, f_fake))


def gradient_and_noise(
    loss: Callable[[Tensor], Tensor], network: nn.Module, generator: nn.Module, z: Tensor, batch: int
) -> tuple[float, float]:
    """A loss's gradient by the generator's parameters: length of the mean over batches of z, and noise between them."""
    batches = []
    for part in z.split(batch):
        grads = torch.autograd.grad(loss(network(generator(part))), list(generator.parameters()))
        batches.append(torch.cat([grad.flatten() for grad in grads]).double())
    each = torch.stack(batches)
    return float(each.mean(0).norm()), math.sqrt(float(each.var(0).sum()))


def rank_correlation(a: list[float], b: list[float]) -> float:
    """Spearman's correlation of two curves: Pearson's of the ranks, equal values sharing one; 0 if one is constant."""
    ranks = [torch.from_numpy(rankdata(values)) for values in (a, b)]
    x, y = (rank - rank.mean() for rank in ranks)
    size = float(x.norm() * y.norm())
    return float(x @ y) / size if size > 0 else 0.0
