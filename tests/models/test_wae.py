import pytest
import torch
from torch import nn
from torch.nn.functional import softplus
from torch.testing import assert_close

from otgen.models import WAEGAN, WAEMMD
from otgen.models.state import seeded
from otgen.nn import MLP, losses

SHAPE = (1, 8, 8)


def images(n=16):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(5))


def prior(model, n=16):
    return torch.randn(n, model.d, generator=torch.Generator().set_state(model.rng.get_state()))


def test_mmd_loss_is_the_lectures():
    wae, x = WAEMMD(SHAPE, 3, width=4, penalty_weight=7.0), images()
    z, codes = prior(wae), wae.encode(x)
    cost = (wae.decode(codes) - x).square().flatten(1).sum(1).mean()
    penalty = losses.mmd(z, codes)
    values = wae.step(x)
    assert values["reconstruction"] == pytest.approx(cost.item(), rel=1e-5)
    assert values["penalty"] == pytest.approx(penalty.item(), rel=1e-4)
    assert values["loss"] == pytest.approx((cost + 7 * penalty).item(), rel=1e-5)


def test_a_negative_estimate_stays_negative():
    """The estimate is unbiased, and the codes are drawn from the prior."""
    wae, x = (
        WAEMMD((2,), 2, width=2, encoder=nn.Identity()),
        torch.randn(64, 2, generator=torch.Generator().manual_seed(1)),
    )
    penalty = losses.mmd(prior(wae, 64), x).item()
    assert wae.step(x)["penalty"] == pytest.approx(penalty, rel=1e-4)
    assert penalty < 0


def test_gan_steps_the_adversary_first_and_then_the_autoencoder():
    """Lines of Algorithm 1: the discriminator ascends, and the autoencoder meets the one that has learnt."""
    wae, x = WAEGAN(SHAPE, 3, width=4, penalty_weight=7.0), images()
    z, codes = prior(wae), wae.encode(x)
    before = [parameter.clone() for parameter in wae.critic.parameters()]
    with torch.no_grad():
        critic = softplus(-wae.critic(z)).mean() + softplus(wae.critic(codes)).mean()
    values = wae.step(x)
    assert values["critic"] == pytest.approx(critic.item(), rel=1e-5)
    assert any(not torch.equal(a, b) for a, b in zip(before, wae.critic.parameters(), strict=True))
    with torch.no_grad():
        learnt = softplus(-wae.critic(codes)).mean()  # -log D of the discriminator after its step
    assert values["penalty"] == pytest.approx(learnt.item(), rel=1e-5)
    assert values["loss"] == pytest.approx(values["reconstruction"] + 7 * values["penalty"], rel=1e-5)


def test_the_autoencoder_does_not_teach_the_adversary():
    wae, x = WAEGAN(SHAPE, 3, width=4), images()
    wae.critic_optimiser.step = lambda: None
    before = [parameter.clone() for parameter in wae.critic.parameters()]
    wae.step(x)
    for a, b in zip(before, wae.critic.parameters(), strict=True):
        assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [WAEGAN, WAEMMD])
def test_default_weight_is_the_papers_in_proportion_to_the_pixels(kind):
    assert kind((1, 28, 28), width=2).penalty_weight == pytest.approx(200)
    assert kind(SHAPE, width=2).penalty_weight == pytest.approx(200 * 64 / 784)


@pytest.mark.parametrize("kind", [WAEGAN, WAEMMD])
def test_codes_come_to_look_like_the_prior(kind):
    """Codes of fresh points by their first two moments; without a penalty they stay where the encoder put them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 2, generator=generator) * torch.tensor([0.1, 3.0]) + 5
    with seeded(1):  # the game goes another way for every adversary
        adversary = {"critic": nn.Sequential(MLP((2, 32, 32, 1)), nn.Flatten(0))} if kind is WAEGAN else {}
    wae = kind((2,), 2, width=4, penalty_weight=20.0, lr=3e-3, **adversary)
    before = wae.encode(x)
    assert before.std(0).max() < 0.5  # far from the prior's 1
    codes = wae.fit(x, steps=200, batch_size=128, progress=False).encode(x)
    assert codes.mean(0).abs().max() < 0.7
    assert codes.std(0).min() > 0.15
    assert 0.6 < codes.std(0).max() < 1.8


def test_lecture_discriminator_and_bad_arguments():
    sizes = [layer.out_features for layer in WAEGAN(SHAPE, 5, width=2).critic.modules() if isinstance(layer, nn.Linear)]
    assert sizes == [512, 512, 512, 512, 1]
    mine = nn.Sequential(nn.Linear(5, 1), nn.Flatten(0))
    assert WAEGAN(SHAPE, 5, width=2, critic=mine).critic is mine
    with pytest.raises(ValueError, match=r"WAEGAN: critic must make \(b,\) from \(b, 5\), got \(b, 1\)"):
        WAEGAN(SHAPE, 5, width=2, critic=nn.Linear(5, 1))
    for kind in (WAEGAN, WAEMMD):
        with pytest.raises(ValueError, match="penalty_weight must be a positive number, got 0"):
            kind(SHAPE, penalty_weight=0)
        with pytest.raises(ValueError, match="step: a batch must hold at least 2 samples, got 1; .* drop_last=True$"):
            kind(SHAPE, width=2).step(images(1))
        assert kind(SHAPE, width=2).step(images(2))["reconstruction"] > 0


def test_the_adversary_has_random_numbers_of_its_own():
    wae = WAEGAN((16,), width=64)
    assert not torch.equal(wae.encoder[2].weight, wae.critic[0][2].weight)


class Tied(nn.Module):
    """The transpose of another layer."""

    def __init__(self, other):
        super().__init__()
        self.other = other

    def forward(self, z):
        return z @ self.other.weight


@pytest.mark.parametrize("kind", [WAEMMD, WAEGAN])
def test_weights_that_are_tied_move_once_a_step(kind):
    layer = nn.Linear(2, 2, bias=False)
    before = layer.weight.detach().clone()
    model = kind((2,), 2, encoder=layer, decoder=Tied(layer), lr=1e-3)
    model.step(torch.randn(32, 2, generator=torch.Generator().manual_seed(0)))
    assert float((layer.weight.detach() - before).abs().max()) == pytest.approx(1e-3, rel=1e-3)


def test_mixed_precision_does_not_round_the_losses_of_the_critic():
    model = WAEGAN((2,), 2)
    x = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        value = model.step(x)["critic"]
    assert value != float(torch.tensor(value).bfloat16())
