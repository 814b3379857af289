import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from otgen.nn import adversarial as loss

LOG3 = math.log(3.0)  # its sigmoid is 3/4


def tensor(*values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


# --- values by hand --------------------------------------------------------------------------------------------------


def test_gan_by_hand():
    real, fake = tensor(LOG3, 0.0), tensor(-LOG3, LOG3)
    critic = (math.log(4 / 3) + math.log(2)) / 2 + (math.log(4 / 3) + math.log(4)) / 2
    assert_close(loss.gan_critic(real, fake), torch.tensor(critic).double())
    assert_close(loss.minimax_generator(fake), torch.tensor((math.log(3 / 4) + math.log(1 / 4)) / 2).double())
    assert_close(loss.nonsaturating_generator(fake), torch.tensor((math.log(4) + math.log(4 / 3)) / 2).double())


def test_gan_at_large_scores_is_finite_and_exact():
    sure = tensor(1000.0)
    assert loss.gan_critic(sure, -sure) == 0
    assert loss.gan_critic(-sure, sure) == 2000
    assert loss.minimax_generator(sure) == -1000
    assert loss.nonsaturating_generator(-sure) == 1000


def test_best_critic_reaches_log_4_minus_twice_jensen_shannon():
    """Data uniform on {0, 1}, generated uniform on {1, 2}: JS is half of log 2, so the least value is log 2."""
    scores = nn.Parameter(tensor(0.0, 0.0, 0.0))
    assert_close(loss.gan_critic(scores[:2], scores[1:]).detach(), torch.tensor(math.log(4)).double())
    optimiser = torch.optim.LBFGS([scores], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        value = loss.gan_critic(scores[:2], scores[1:])
        value.backward()
        return value

    optimiser.step(closure)
    value = loss.gan_critic(scores[:2], scores[1:]).item()
    assert math.log(2) < value < math.log(2) + 1e-4
    assert abs(scores[1].item()) < 1e-3  # where both are equally likely, D is a half
    assert scores[0] > 5
    assert scores[2] < -5


def test_nonsaturating_gradient_is_that_of_kl_less_twice_jensen_shannon():
    """Arjovsky and Bottou 2017, theorem 2.5: against the best critic of data N(0, 1) and generated N(t, 1), at t."""
    t, z = tensor(0.7, grad=True), torch.special.ndtri((torch.arange(100_000).double() + 0.5) / 100_000)
    scores = t.detach() * (t.detach() / 2 - (z + t))  # log of the densities' ratio
    (got,) = torch.autograd.grad(loss.nonsaturating_generator(scores), t)
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    data, made = (torch.exp(-0.5 * (x - mean).square()) / math.sqrt(2 * math.pi) for mean in (0.0, t))
    middle = (data + made) / 2
    twice_js = torch.trapezoid(data * (data / middle).log() + made * (made / middle).log(), x)
    (wanted,) = torch.autograd.grad(0.5 * t.square().sum() - twice_js, t)
    assert_close(got, wanted, rtol=1e-4, atol=0.0)


def test_least_squares_by_hand():
    real, fake = tensor(2.0, 1.0), tensor(-1.0, 3.0)
    assert_close(loss.least_squares_critic(real, fake), tensor(0.5 * 0.5 + 0.5 * 5.0)[0])
    assert_close(loss.least_squares_generator(fake), tensor(0.5 * (4.0 + 4.0) / 2)[0])
    half = tensor(0.5)
    assert_close(loss.least_squares_critic(half, half), tensor(0.25)[0])


def test_wasserstein_by_hand():
    real, fake = tensor(2.0, 1.0), tensor(-1.0, 4.0)
    assert_close(loss.wasserstein_critic(real, fake), tensor(0.0)[0])
    assert_close(loss.wasserstein_critic(real, fake - 3), tensor(-3.0)[0])
    assert_close(loss.wasserstein_generator(fake), tensor(-1.5)[0])


def test_hinge_by_hand():
    real, fake = tensor(2.0, 0.5), tensor(-3.0, 1.0)  # 0 and ½; 0 and 2
    assert_close(loss.hinge_critic(real, fake), tensor(0.25 + 1.0)[0])
    zero = tensor(0.0)
    assert_close(loss.hinge_critic(zero, zero), tensor(2.0)[0])


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (loss.minimax_generator, lambda s: -s.sigmoid()),
        (loss.nonsaturating_generator, lambda s: -(-s).sigmoid()),
        (loss.least_squares_generator, lambda s: s - 1),
        (loss.wasserstein_generator, lambda s: -torch.ones_like(s)),
    ],
)
def test_gradient_by_the_score(function, wanted):
    scores = tensor(-8.0, -0.5, 3.0, grad=True)
    function(scores).backward()
    assert_close(scores.grad, wanted(scores.detach()) / 3)


@pytest.mark.parametrize(
    "function", [loss.gan_critic, loss.least_squares_critic, loss.wasserstein_critic, loss.hinge_critic]
)
def test_critics_want_real_samples_high(function):
    real, fake = tensor(0.2, -0.3, grad=True), tensor(0.1, -0.4, grad=True)
    function(real, fake).backward()
    assert (real.grad < 0).all()
    if function is not loss.least_squares_critic:
        assert (fake.grad > 0).all()
    else:  # pulls towards 0 from both sides
        assert_close(fake.grad.sign(), fake.detach().sign())


# --- gradients of the critic -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2,), (3, 4, 5)])
def test_penalties_of_a_linear_critic(shape):
    """For f(x) = <w, x> + c the gradient is w everywhere, so every penalty has a closed form."""
    w = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    length = w.norm().item()
    norms = loss.gradient_norms(
        lambda x: (w * x).flatten(1).sum(dim=1, keepdim=True) + 7, torch.randn(6, *shape).double()
    )
    assert_close(norms, torch.full((6,), length).double())
    assert_close(loss.unit_penalty(norms).item(), (length - 1) ** 2)
    assert_close(loss.power_penalty(norms, 6).item(), length**6)
    assert_close(loss.transport_penalty(norms, torch.zeros(6).double(), 0.25).item(), 0.5 * length**2)


def test_norm_is_per_sample_and_may_differ_between_samples():
    x = tensor(3.0, 4.0, 0.0, 2.0).view(2, 2)
    assert_close(loss.gradient_norms(lambda x: 0.5 * x.square().sum(dim=1), x), tensor(5.0, 2.0))


def test_penalty_trains_the_critic():
    critic = nn.Linear(2, 1).double()
    with torch.no_grad():
        critic.weight.copy_(tensor(3.0, 4.0))
    loss.unit_penalty(loss.gradient_norms(critic, torch.randn(5, 2).double())).backward()
    assert_close(critic.weight.grad, 2 * (5 - 1) * tensor(3.0, 4.0).view(1, 2) / 5)


def test_penalty_of_a_flat_critic_is_finite():
    critic = nn.Linear(2, 1)
    nn.init.zeros_(critic.weight)
    value = loss.unit_penalty(loss.gradient_norms(critic, torch.randn(5, 2)))
    value.backward()
    assert value == 1
    assert_close(critic.weight.grad, torch.zeros(1, 2))


def test_norms_leave_the_samples_and_their_maker_alone():
    maker = nn.Linear(2, 2)
    x = maker(torch.randn(4, 2))
    loss.gradient_norms(lambda x: x.square().sum(dim=1), x).sum().backward()
    assert maker.weight.grad is None
    x = torch.randn(4, 2)
    loss.gradient_norms(lambda x: x.square().sum(dim=1), x)
    assert not x.requires_grad
    with torch.no_grad():  # asked for inside no_grad they are still found
        assert_close(loss.gradient_norms(lambda x: x.sum(dim=1), torch.randn(3, 4)), torch.full((3,), 2.0))


def test_between_by_hand():
    real, fake = torch.ones(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)
    share = torch.tensor([0.0, 0.25, 1.0])
    assert_close(loss.between(real, fake, share), share.view(3, 1, 1, 1).expand(3, 1, 2, 2))
    with pytest.raises(ValueError, match=r"between: both must have one shape, got \(3, 1, 2, 2\) and \(2, 1, 2, 2\)"):
        loss.between(real, fake[:2], share)


# --- transport and balance -------------------------------------------------------------------------------------------


def test_dual_regression_by_hand():
    real, fake = tensor(1.0, 3.0).view(2, 1), tensor(0.0, 1.0).view(2, 1)
    value = loss.dual_regression(real, fake, tensor(2.0, 4.0), tensor(1.0, 3.0))
    assert_close(value.item(), 0.5 * (2 - 3) ** 2 + 0.5 * (1 + 4) / 2)
    assert loss.dual_regression(real, fake, tensor(0.0, 4.0), fake.view(2)) == 0  # real ones count by their mean


def test_transport_penalty_vanishes_where_the_gradient_fits():
    distance = tensor(1.0, 2.0)
    assert_close(loss.transport_penalty(0.25 * distance, distance, 0.25).item(), 0.0)
    # scale ¼: gradient / 1 - distance / 4 = 1 - ¼ and 1 - ½
    assert_close(loss.transport_penalty(tensor(1.0, 1.0), distance, 0.25).item(), 0.5 * (0.75**2 + 0.5**2) / 2)


def test_balance_by_hand():
    k, half = tensor(0.5)[0], tensor(0.5)[0]
    assert_close(loss.balance(k, half, 2 * half, 0.75, 0.1).item(), 0.5 + 0.1 * (0.375 - 1.0))
    assert_close(loss.imbalance(half, 2 * half, 0.75).item(), 0.5 + 0.625)
    assert_close(loss.imbalance(half, 0.25 * half, 0.75).item(), 0.5 + 0.25)
    assert loss.balance(k, 100 * half, half, 1.0, 1.0) == 1
    assert loss.balance(k, half, 100 * half, 1.0, 1.0) == 0
    assert not loss.balance(k, tensor(0.5, grad=True)[0], half, 1.0, 1.0).requires_grad
