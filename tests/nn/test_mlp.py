import pytest
import torch
from torch import nn

from otgen.nn import MLP


def test_computes_what_it_says():
    mlp = MLP((2, 2, 1))
    with torch.no_grad():
        mlp[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        mlp[0].bias.copy_(torch.tensor([0.0, -1.0]))
        mlp[2].weight.copy_(torch.tensor([[1.0, -2.0]]))
        mlp[2].bias.fill_(0.5)
    # hidden relu(3, 4 - 1) = (3, 3) and relu(-1, 0 - 1) = (0, 0); no activation on the negative output
    out = mlp(torch.tensor([[3.0, 4.0], [-1.0, 0.0]]))
    torch.testing.assert_close(out, torch.tensor([[-2.5], [0.5]]))


@pytest.mark.parametrize("sizes", [(3, 1), (2, 7, 5, 4)])
def test_layers(sizes):
    layers = list(MLP(sizes, activation=nn.Tanh))
    assert [(layer.in_features, layer.out_features) for layer in layers[::2]] == list(
        zip(sizes[:-1], sizes[1:], strict=True)
    )
    assert [type(layer) for layer in layers[1::2]] == [nn.Tanh] * (len(sizes) - 2)


@pytest.mark.parametrize("sizes", [(), (3,), (3, 0)])
def test_bad_sizes(sizes):
    with pytest.raises(ValueError, match=r"MLP: sizes must be two or more numbers >= 1, got \("):
        MLP(sizes)
