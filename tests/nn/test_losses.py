import math

import pytest
import torch

from otgen.nn.losses import bce, mse


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
