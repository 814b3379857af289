import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from otgen.models import BEGAN


def data(n=32, seed=0):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_losses_by_hand():
    model = BEGAN((1, 8, 8), 3, width=2, gamma=0.5, rate=0.1)
    model.k.fill_(0.4)
    x, noise = data(), torch.Generator()
    noise.set_state(model.rng.get_state())
    y = model.generator(torch.randn(32, 3, generator=noise)).detach()
    real, fake = ((model.critic(v) - v).abs().mean().item() for v in (x, y))
    got = model.step(x)
    assert_close(got["real"], real)
    assert_close(got["fake"], fake)
    assert_close(got["critic"], real - 0.4 * fake)
    assert_close(got["generator"], fake)
    assert_close(got["convergence"], real + abs(0.5 * real - fake))
    assert_close(got["k"], 0.4)
    assert_close(model.k.item(), 0.4 + 0.1 * (0.5 * real - fake))
    assert_close(model.step(x)["k"], 0.4 + 0.1 * (0.5 * real - fake))


@pytest.mark.parametrize("rate", [1e-3, 100.0])
def test_control_starts_at_nought_and_stays_in_the_box(rate):
    model, seen = BEGAN((1, 8, 8), 3, width=2, rate=rate), []
    assert model.k == 0
    for step in range(60):
        model.step(data(8, seed=step))
        seen.append(model.k.item())
    assert 0 <= min(seen) <= max(seen) <= 1
    assert max(seen) == 1 if rate == 100 else 0 < max(seen) < 0.1
    assert not model.k.requires_grad


@pytest.mark.parametrize(
    ("shape", "options", "codes"),
    [((2,), {}, 1), ((1, 8, 8), {}, 32), ((1, 8, 8), {"pack": 3}, 64), ((3, 16, 16), {}, 64), ((2,), {"codes": 5}, 5)],
)
def test_size_of_the_codes(shape, options, codes):
    critic = BEGAN(shape, 3, width=2, **options).critic
    sizes = [part.out_features for part in critic.modules() if isinstance(part, nn.Linear)]
    assert codes in sizes
    x = torch.rand(2, options.get("pack", 1) * shape[0], *shape[1:])
    assert critic[0](x).shape == (2, codes)
    assert math.prod(critic(x).shape) == x.numel()
