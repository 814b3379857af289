import pytest
import torch
from generators import Line, line
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm
from torch.testing import assert_close

from otgen.models import SNGAN


def matrices(network):
    """Weights in use, each as a matrix (outputs, the rest)."""
    return [part.weight.detach().flatten(1) for part in network.modules() if isinstance(part, (nn.Linear, nn.Conv2d))]


@pytest.mark.parametrize("shape", [(2,), (1, 8, 8)], ids=str)
def test_every_weight_keeps_its_largest_singular_value_at_one(shape):
    model = SNGAN(shape, 3, width=2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        model.step(torch.rand(16, *shape, generator=generator))
    sizes = [torch.linalg.svdvals(matrix)[0].item() for matrix in matrices(model.critic)]
    assert len(sizes) >= 3
    assert all(0.999 < size < 1.05 for size in sizes)  # a power iteration's estimate is never too large
    assert any(abs(torch.linalg.svdvals(matrix)[0] - 1) > 0.05 for matrix in matrices(model.generator))


def test_critic_of_vectors_is_1_lipschitz():
    model = SNGAN((2,), 3, width=2, lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        model.step(4 * torch.randn(32, 2, generator=generator) + 3)
    a, b = (4 * torch.randn(500, 2, generator=generator) for _ in range(2))
    model.eval()
    with torch.no_grad():
        slopes = (model.critic(a) - model.critic(b)).abs() / (a - b).norm(dim=1)
    assert 0.05 < slopes.max() < 1.05


def test_hinge_between_parallel_lines():
    """With a slope of at most 1, lines at distance 1 are told apart by ±½ at best: a loss of 1 and a gap of 1."""

    model = SNGAN((2,), 1, width=4, lr=3e-3, betas=(0.5, 0.9), n_critic=10_000, generator=Line())
    generator = torch.Generator().manual_seed(0)
    values = [model.step(line(128, 1.0, generator)) for _ in range(300)]
    gap = sum(value["gap"] for value in values[-20:]) / 20
    assert 0.7 < gap < 1.05
    assert_close(values[-1]["critic"], 2 - values[-1]["gap"], rtol=1e-4, atol=1e-4)  # nothing is beyond ±1


def test_only_spectral_normalisation_counts():
    def critic(norm):
        return nn.Sequential(norm(nn.Linear(2, 1)), nn.Flatten(0))

    for norm in (parametrizations.spectral_norm, spectral_norm):
        SNGAN((2,), 3, width=2, critic=critic(norm))
    with pytest.raises(ValueError, match="^SNGAN: critic must have spectral normalisation .* got Sequential without$"):
        SNGAN((2,), 3, width=2, critic=critic(parametrizations.weight_norm))
