import math

import pytest
import torch
from generators import Point, Shift
from torch import nn
from torch.nn.functional import logsigmoid
from torch.testing import assert_close

from otgen.models import GAN, LSGAN


def slope():
    """A critic <w, x> + c."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))


def batches(steps, b=8):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(b, 2, generator=generator) + 1 for _ in range(steps)]


@pytest.mark.parametrize("loss", ["nonsaturating", "minimax"])
def test_algorithm_1_by_hand(loss):
    """Goodfellow et al. 2014, Algorithm 1, written out for a linear critic and a generator of one point."""
    model = GAN((2,), 3, loss=loss, lr=0.1, generator=Point([0.3, -0.2]), critic=slope())
    f, y = slope(), nn.Parameter(torch.tensor([0.3, -0.2]))
    ascend_f = torch.optim.Adam(f.parameters(), lr=0.1, betas=(0.5, 0.999), maximize=True)
    descend_y = torch.optim.Adam([y], lr=0.1, betas=(0.5, 0.999))
    for x in batches(5):
        value = logsigmoid(f(x)).mean() + logsigmoid(-f(y[None].detach())).mean()
        fooled = logsigmoid(-f(y[None])).mean() if loss == "minimax" else -logsigmoid(f(y[None])).mean()
        got = model.step(x)
        assert_close(got["critic"], -value.item(), rtol=1e-5, atol=1e-6)
        assert_close(got["generator"], fooled.item(), rtol=1e-5, atol=1e-6)
        ascend_f.zero_grad()
        value.backward()
        ascend_f.step()
        fooled = logsigmoid(-f(y[None])).mean() if loss == "minimax" else -logsigmoid(f(y[None])).mean()
        descend_y.zero_grad()
        fooled.backward()
        descend_y.step()
        assert_close(model.generator.point, y)
        assert_close(model.critic[0].weight, f[0].weight)


def test_lsgan_by_hand():
    model = LSGAN((2,), 3, lr=0.1, generator=Point([0.3, -0.2]), critic=slope())
    f, y = slope(), torch.tensor([[0.3, -0.2]])
    (x,) = batches(1)
    got = model.step(x)
    assert_close(got["critic"], (0.5 * (f(x) - 1).square().mean() + 0.5 * f(y).square().mean()).item())
    assert_close(got["generator"], (0.5 * (f(y) - 1).square().mean()).item())
    moved = model.generator.point - y[0]
    down = model.critic[0].weight[0] * (1 - model.critic(y))  # minus the gradient, by the critic after its step
    assert_close(moved, 0.1 * down.sign())  # Adam's first step has the length lr in every coordinate


@pytest.mark.parametrize("cls", [GAN, LSGAN])
def test_critic_alone_reaches_its_optimum(cls):
    """Generated samples far from the data can be told; if they are the data, log 4 or ¼ is the least value."""
    least = math.log(4) if cls is GAN else 0.25
    for offset, low, high in [(4.0, 0.0, 0.02), (0.0, least - 0.02, least + 0.02)]:
        model = cls((2,), 2, width=4, lr=3e-3, n_critic=1000, generator=Shift(2))
        generator = torch.Generator().manual_seed(0)
        values = [model.step(torch.randn(256, 2, generator=generator) + offset)["critic"] for _ in range(200)]
        assert low < sum(values[-20:]) / 20 < high


def test_a_sure_critic_stops_the_minimax_generator_only():
    """The gradient of log(1 - D) is -D ∇f, that of -log D is -(1 - D) ∇f."""
    slopes = {}
    for loss in ("minimax", "nonsaturating"):
        model = GAN((2,), 3, loss=loss, lr=1e-9, generator=Point([-5.0, 0.0]), critic=slope())
        with torch.no_grad():
            model.critic[0].weight.copy_(torch.tensor([[3.0, 0.0]]))
            model.critic[0].bias.zero_()
        model.step(torch.full((4, 2), 5.0))
        slopes[loss] = model.generator.point.grad[0].item()
    d = torch.tensor(-15.0).sigmoid().item()
    assert_close(slopes["minimax"], -3 * d, rtol=1e-4, atol=0)
    assert_close(slopes["nonsaturating"], -3 * (1 - d), rtol=1e-4, atol=0)
