import math

import pytest
import torch

from otgen.nn.losses import bce, gaussian, kl, laplacian, mmd, mse


def test_mse_by_hand():
    x_hat = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 1.0]]])
    x = torch.tensor([[[1.0, 0.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    # image 0: 4 + 9, image 1: 1; the mean is 7 (the mean over all pixels would be 1.75)
    torch.testing.assert_close(mse(x_hat, x), torch.tensor(7.0))


def test_bce_by_hand():
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), -math.log(3.0)]])  # sigmoids 1/2, 1/2, 3/4, 1/4
    x = torch.tensor([[0.0, 1.0], [1.0, 0.5]])
    first = 2 * math.log(2)
    second = -math.log(0.75) - 0.5 * math.log(0.25) - 0.5 * math.log(0.75)
    torch.testing.assert_close(bce(logits, x), torch.tensor((first + second) / 2))


def test_bce_at_large_logits_is_finite_and_exact():
    x = torch.tensor([[1.0, 0.0]])
    torch.testing.assert_close(bce(torch.tensor([[-1000.0, 1000.0]]), x), torch.tensor(2000.0))
    torch.testing.assert_close(bce(torch.tensor([[1000.0, -1000.0]]), x), torch.tensor(0.0))


@pytest.mark.parametrize("loss", [mse, bce])
def test_gradient(loss):
    torch.manual_seed(0)
    out, x = torch.randn(3, 1, 2, 2, dtype=torch.float64, requires_grad=True), torch.rand(3, 1, 2, 2).double()
    loss(out, x).backward()
    wanted = 2 * (out - x) / 3 if loss is mse else (out.sigmoid() - x) / 3
    torch.testing.assert_close(out.grad, wanted.detach())


@pytest.mark.parametrize("loss", [mse, bce])
def test_bad_shapes(loss):
    with pytest.raises(ValueError, match=r"one shape \(b, ...\), got \(2, 1, 8, 8\) and \(2, 8, 8\)"):
        loss(torch.zeros(2, 1, 8, 8), torch.zeros(2, 8, 8))
    with pytest.raises(ValueError, match=r"one shape \(b, ...\), got \(8,\) and \(8,\)"):
        loss(torch.zeros(8), torch.zeros(8))


# --- VAE -------------------------------------------------------------------------------------------------------------


def test_gaussian_by_hand():
    x_hat, x = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # squared errors 4 and 1, their mean 2.5; two numbers per sample
    wanted = 2.5 / (2 * 0.5) + math.log(2 * math.pi * 0.5)
    torch.testing.assert_close(gaussian(x_hat, x, 0.5), torch.tensor(wanted))
    best = 2.5 / 2  # of the variance: the mean over all numbers is 1.25
    torch.testing.assert_close(gaussian(x_hat, x), torch.tensor(1 + math.log(2 * math.pi * best)))


def test_gaussian_is_minus_the_log_density_and_least_at_the_best_variance():
    torch.manual_seed(0)
    x_hat, x = torch.randn(7, 3), torch.randn(7, 3)
    density = torch.distributions.Normal(x_hat, math.sqrt(0.7)).log_prob(x).sum(1).mean()
    torch.testing.assert_close(gaussian(x_hat, x, 0.7), -density)
    best = gaussian(x_hat, x)
    gamma = (x_hat - x).square().mean().item()
    torch.testing.assert_close(gaussian(x_hat, x, gamma), best)
    assert best < gaussian(x_hat, x, 0.9 * gamma)
    assert best < gaussian(x_hat, x, 1.1 * gamma)
    least = torch.tensor(1.5 * math.log(2 * math.pi * 1e-6))
    torch.testing.assert_close(gaussian(x, x), least)  # of an exact batch the variance is 1e-6


def test_kl_by_hand():
    mean, log_var = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, math.log(2.0)], [0.0, 0.0]])
    # 1/2 (1) + 1/2 (2 - log 2 - 1) for the first, 0 for the second
    torch.testing.assert_close(kl(mean, log_var), torch.tensor((0.5 + 0.5 * (1 - math.log(2))) / 2))
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * log_var).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(kl(mean, log_var), theirs.sum(1).mean())


# --- WAE -------------------------------------------------------------------------------------------------------------


def kernel(a, b):
    """The lecture's kernel between two codes in one dimension, by hand."""
    return sum(2 * s / (2 * s + (a - b) ** 2) for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0))


def test_mmd_by_hand():
    z, q = [0.0, 1.0], [2.0, 5.0]
    within = 2 * kernel(0, 1) / 2 + 2 * kernel(2, 5) / 2
    across = 2 * (kernel(0, 2) + kernel(0, 5) + kernel(1, 2) + kernel(1, 5)) / 4
    got = mmd(torch.tensor(z)[:, None], torch.tensor(q)[:, None])
    torch.testing.assert_close(got, torch.tensor(within - across))


def test_mmd_is_unbiased_and_may_be_negative():
    generator = torch.Generator().manual_seed(0)
    same = torch.stack([mmd(*torch.randn(2, 16, 3, generator=generator)) for _ in range(400)])
    assert (same < 0).any()
    assert same.mean().abs() < 4 * same.std() / 20
    apart = torch.stack(
        [mmd(torch.randn(16, 3, generator=generator), 2 + torch.randn(16, 3, generator=generator)) for _ in range(50)]
    )
    assert apart.min() > same.max()
    far = mmd(torch.zeros(4, 2), torch.full((4, 2), 1e6))
    torch.testing.assert_close(far, torch.tensor(14.0))  # 7 kernels within each sample, nothing across
    with pytest.raises(ValueError, match="mmd: there must be at least 2 samples, got 1"):
        mmd(torch.zeros(1, 2), torch.zeros(1, 2))


def test_mmd_does_not_depend_on_where_the_origin_is():
    """Squares of large numbers would leave no digit of small differences."""
    z, q = torch.randn(2, 64, 3, generator=torch.Generator().manual_seed(0)).mul(64).round() / 64
    torch.testing.assert_close(mmd(z + 4096, q + 4096), mmd(z, q))


# --- GLO -------------------------------------------------------------------------------------------------------------


def test_laplacian_by_hand():
    x = torch.zeros(1, 1, 3, 3)
    torch.testing.assert_close(laplacian(x + 1, x), torch.tensor(9.0))  # too small to be halved: the plain distance
    x = torch.zeros(2, 1, 4, 4)
    # a constant loses nothing by halving, and the four numbers left weigh four times as much
    torch.testing.assert_close(laplacian(x + torch.tensor([1.0, 3.0]).view(2, 1, 1, 1), x), torch.tensor(2 * 4 * 4.0))
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)[None, None]
    torch.testing.assert_close(laplacian(board, torch.zeros(1, 1, 4, 4)), torch.tensor(16.0))  # all lost at once
    # each row halved is 0 1 and stretched 0 1/4 3/4 1: of 0 0 1 1 two quarters are lost, in four rows
    step = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 4, 4)
    torch.testing.assert_close(laplacian(step, torch.zeros(1, 1, 4, 4)), torch.tensor(4 * 0.5 + 4 * 2))
    x = torch.zeros(1, 1, 5, 7)  # halves are rounded up: 3 x 4 are left
    torch.testing.assert_close(laplacian(x + 1, x), torch.tensor(4 * 12.0))


def test_laplacian_is_averaged_over_the_batch():
    a, b = torch.rand(2, 5, 3, 9, 13, generator=torch.Generator().manual_seed(0))
    alone = [laplacian(a[i : i + 1], b[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(laplacian(a, b), torch.stack(alone).mean())


def test_laplacian_is_a_distance():
    torch.manual_seed(0)
    a, b, c = torch.rand(3, 2, 3, 9, 13)
    assert laplacian(a, a) == 0
    torch.testing.assert_close(laplacian(a, b), laplacian(b, a))
    assert 0 < laplacian(a, c) < laplacian(a, b) + laplacian(b, c)


@pytest.mark.parametrize("loss", [gaussian, kl, mmd, laplacian])
def test_bad_shapes_of_the_others(loss):
    with pytest.raises(ValueError, match=r"one shape \(b, ...\), got \(2, 8\) and \(2, 1\)"):
        loss(torch.zeros(2, 8), torch.zeros(2, 1))
