import sys

import pytest
import torch
from generators import Line, line
from torch.testing import assert_close

from otgen.models import WGANQC
from otgen.models.transport import solve_batch


def test_critic_between_parallel_lines_learns_the_dual():
    """Cost ½ K θ² with K = ½; f has slope K θ at every generated sample."""

    model = WGANQC((2,), 1, width=4, lr=3e-3, n_critic=10_000, generator=Line())
    generator, theta, values = torch.Generator().manual_seed(0), 2.0, []
    for _ in range(200):
        values.append(model.step(line(64, theta, generator)))
    last = {name: sum(v[name] for v in values[-50:]) / 50 for name in values[0]}
    assert 1.0 <= last["cost"] < 1.1  # two batches of the same law differ along the lines as well
    assert abs(last["gap"] - last["cost"]) < 0.05
    assert last["penalty"] < 0.02 < values[0]["penalty"]


def test_losses_by_hand():
    model = WGANQC((1, 8, 8), 3, width=2, gamma=0.3)
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.Generator()
    noise.set_state(model.rng.get_state())
    y = model.generator(torch.randn(16, 3, generator=noise)).detach().requires_grad_()
    f_x, f_y = model.critic(x), model.critic(y)
    solved = solve_batch(x, y, scale=1 / 64)
    (slopes,) = torch.autograd.grad(f_y.sum(), y, retain_graph=True)
    distance = (x[solved.partner] - y).flatten(1).norm(dim=1)
    penalty = 0.5 * (slopes.flatten(1).norm(dim=1) / (2 / 8) - 0.5 / 8 * distance).square().mean()
    regression = 0.5 * (f_x.mean() - solved.dual_real.mean()) ** 2 + 0.5 * (f_y - solved.dual_fake).square().mean()
    got = model.step(x)
    assert_close(got["penalty"], penalty.item())
    assert_close(got["cost"], solved.cost.item())
    assert_close(got["gap"], (f_x.mean() - f_y.mean()).item())
    assert_close(got["critic"], (regression + 4 / 8 * 0.3 * penalty).item())
    assert_close(got["generator"], -f_y.mean().item())


def test_a_pack_is_one_sample_of_its_own_size():
    assert WGANQC((1, 8, 8), 3, width=2, pack=2).scale == 1 / 128


def test_pot_is_wanted_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match=r'^WGANQC: wanted POT, which is not installed: pip install "otgen\[pot\]"$'):
        WGANQC((2,), 3)
