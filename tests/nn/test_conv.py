import pytest
import torch
from torch import nn

from otgen.nn import ConvDecoder, ConvEncoder

SHAPES = [(1, 8, 8), (3, 9, 13), (1, 28, 28), (3, 32, 32), (2, 8, 37), (3, 64, 48)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("b", [1, 3])
def test_shapes(shape, b):
    encoder, decoder = ConvEncoder(shape, 5, width=4), ConvDecoder(5, shape, width=4)
    assert encoder(torch.rand(b, *shape)).shape == (b, 5)
    assert decoder(torch.randn(b, 5)).shape == (b, *shape)


@pytest.mark.parametrize("width", [1, 3, 20, 50])
def test_any_width(width):
    encoder, decoder = ConvEncoder((1, 9, 17), 2, width=width), ConvDecoder(2, (1, 9, 17), width=width)
    assert decoder(encoder(torch.rand(2, 1, 9, 17))).shape == (2, 1, 9, 17)


def test_pyramid():
    strides = [layer.stride for layer in ConvEncoder((1, 8, 28), 2, width=4) if isinstance(layer, nn.Conv2d)]
    assert strides == [(1, 1), (2, 2), (1, 2), (1, 2)]  # 8 x 28, 4 x 14, 4 x 7, 4 x 4
    channels = [layer.out_channels for layer in ConvEncoder((3, 128, 128), 2, width=2) if isinstance(layer, nn.Conv2d)]
    assert channels == [2, 4, 8, 16, 16, 16]


@pytest.mark.parametrize(("width", "groups"), [(4, [1, 1]), (32, [2, 4]), (50, [1, 2])])
def test_groups_of_about_sixteen_channels(width, groups):
    encoder = ConvEncoder((1, 8, 8), 2, width=width)
    assert [layer.num_groups for layer in encoder if isinstance(layer, nn.GroupNorm)] == groups


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 13, 9)])
def test_every_pixel_counts(shape):
    encoder, decoder = ConvEncoder(shape, 3, width=4), ConvDecoder(3, shape, width=4)
    x = torch.rand(1, *shape, requires_grad=True)
    encoder(x).square().sum().backward()
    assert x.grad.abs().min() > 0
    z = torch.randn(1, 3, requires_grad=True)
    decoder(z).square().sum().backward()
    assert z.grad.abs().min() > 0


def test_code_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    encoder, x = ConvEncoder((1, 8, 8), 3, width=8), torch.rand(4, 1, 8, 8)
    together, alone = encoder(x), torch.cat([encoder(image[None]) for image in x])
    torch.testing.assert_close(together, alone)
    assert together.std(dim=0).min() > 1e-3  # or anything constant would pass


@pytest.mark.parametrize("shape", [(1, 8), (0, 8, 8), (1, 7, 8), (1, 8, 7)])
@pytest.mark.parametrize("build", [lambda s: ConvEncoder(s, 2), lambda s: ConvDecoder(2, s)])
def test_bad_shape(build, shape):
    with pytest.raises(ValueError, match=r"shape must be \(c, h, w\) with c >= 1 and h, w >= 8, got \("):
        build(shape)


@pytest.mark.parametrize(("d", "width"), [(0, 4), (4, 0)])
def test_bad_sizes(d, width):
    with pytest.raises(ValueError, match=rf"ConvEncoder: d and width must be at least 1, got d={d}, width={width}"):
        ConvEncoder((1, 8, 8), d, width)
    with pytest.raises(ValueError, match=rf"ConvDecoder: d and width must be at least 1, got d={d}, width={width}"):
        ConvDecoder(d, (1, 8, 8), width)
