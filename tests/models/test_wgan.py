import pytest
import torch
from generators import Line, Shift, line
from torch import nn
from torch.testing import assert_close

from otgen.models import WGAN, WGANGP, WGANDiv
from otgen.nn.adversarial import gradient_norms

THETA = 1.0  # distance of the two parallel lines of Arjovsky et al. 2017, example 1


def gap_between_lines(model, steps):
    """The mean of the last gaps of a critic that learns alone."""
    generator = torch.Generator().manual_seed(0)
    gaps = [model.step(line(128, THETA, generator))["gap"] for _ in range(steps)]
    return sum(gaps[-50:]) / 50


def test_weights_stay_in_the_box():
    """The step is a tenth of the box: were the clipping done before it, the weights would be outside afterwards."""
    model = WGAN((2,), 3, width=2, clip=0.01, lr=1e-3, n_critic=2)
    assert max(parameter.abs().max() for parameter in model.critic.parameters()) > 0.1
    generator, free = torch.Generator().manual_seed(0), 0.0
    for _ in range(20):
        model.step(torch.randn(32, 2, generator=generator))
        largest = [parameter.abs().max().item() for parameter in model.critic.parameters()]
        assert max(largest) == pytest.approx(0.01, rel=1e-6)  # some weight is at the wall
        assert all(value <= model.clip + 1e-9 for value in largest)
        free = max(free, *(parameter.abs().max().item() for parameter in model.generator.parameters()))
    assert free > 0.1  # the generator is not clipped


def test_the_box_belongs_to_a_width():
    """Gradient of the score by the image after some steps: 1e-5 in a narrow critic, of order 1 if the box grows."""
    x = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0)).round()
    lengths = []
    for clip in (0.01, 0.04):
        model = WGAN((1, 28, 28), 4, width=8, clip=clip, lr=clip / 5)
        for _ in range(8):
            model.step(x)
        lengths.append(gradient_norms(model.critic, x).mean().item())
    assert 1e-8 < lengths[0] < 1e-3
    assert 0.1 < lengths[1] < 1000


def test_algorithm_1_by_hand():
    """Arjovsky et al. 2017, Algorithm 1, for a critic <w, x> and a generator z + a."""

    critic = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Flatten(0))
    with torch.no_grad():
        critic[0].weight.copy_(torch.tensor([[0.004, -0.004]]))
    model = WGAN((2,), 2, clip=0.01, lr=1e-3, n_critic=3, generator=Shift(2), critic=critic)
    w, a, v_w, v_a = torch.tensor([0.004, -0.004]), torch.zeros(2), torch.zeros(2), torch.zeros(2)
    noise = torch.Generator()
    noise.set_state(model.rng.get_state())
    for step in range(1, 10):
        x = torch.full((4, 2), 0.1 * step)
        z = torch.randn(4, 2, generator=noise)
        gap = (x @ w).mean() - ((z + a) @ w).mean()
        got = model.step(x)
        assert_close(got["gap"], gap.item())
        assert_close(got["critic"], -gap.item())
        assert_close(got["generator"], -((z + a) @ w).mean().item())
        g_w = x.mean(dim=0) - (z + a).mean(dim=0)
        v_w = 0.99 * v_w + 0.01 * g_w.square()  # torch's RMSProp forgets with 0.99
        w = (w + 1e-3 * g_w / (v_w.sqrt() + 1e-8)).clamp(-0.01, 0.01)
        if step % 3 == 0:
            torch.randn(4, 2, generator=noise)
            v_a = 0.99 * v_a + 0.01 * w.square()
            a = a + 1e-3 * w / (v_a.sqrt() + 1e-8)
        assert_close(model.critic[0].weight[0], w)
        assert_close(model.generator.a, a)


def test_gradient_penalty_between_lines():
    """A slope s costs λ (s - 1)² and gains s θ: the best is 1 + θ/(2λ), the gap that times θ."""
    model = WGANGP((2,), 1, width=4, lr=3e-3, penalty=5.0, n_critic=10_000, generator=Line())
    gap = gap_between_lines(model, 300)
    assert abs(gap - THETA * (1 + THETA / 10)) < 0.05


def test_divergence_between_lines():
    """A slope s costs k s^p and gains s θ: the best is (θ/(k p))^(1/(p - 1))."""
    model = WGANDiv((2,), 1, width=4, lr=3e-3, n_critic=10_000, generator=Line())
    gap = gap_between_lines(model, 300)
    assert abs(gap - THETA * (THETA / 12) ** 0.2) < 0.03


@pytest.mark.parametrize(("cls", "weight"), [(WGANGP, "penalty"), (WGANDiv, "k")])
def test_loss_is_made_of_its_parts(cls, weight):
    values = cls((2,), 1, width=2, generator=Line(), **{weight: 7.0}).step(line(16, THETA, torch.Generator()))
    assert_close(values["critic"], -values["gap"] + 7 * values["penalty"], rtol=1e-5, atol=1e-6)
    assert values["penalty"] > 0


def test_penalty_is_taken_between_the_samples():
    """On the segments, a point for each pair and a share for each point."""
    model = WGANGP((2,), 2, width=2)
    real, fake = torch.ones(2000, 2), torch.zeros(2000, 2)
    points = model._between(real, fake)
    assert_close(points[:, 0], points[:, 1])
    assert 0 <= points.min() < 0.01
    assert 0.99 < points.max() <= 1
    assert abs(points.mean() - 0.5) < 0.03
