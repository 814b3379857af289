import pytest
import torch
from torch import nn
from torch.testing import assert_close

from otgen.nn import critic, decoder, encoder, squash
from otgen.nn.norms import NORMS

SHAPES = [(1,), (2,), (50,), (1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 32, 32), (1, 64, 64)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape):
    x, z = torch.rand(3, *shape), torch.randn(3, 5)
    assert encoder(shape, 5, 2)(x).shape == (3, 5)
    assert decoder(5, shape, 2)(z).shape == (3, *shape)
    assert critic(shape, 2)(x).shape == (3,)
    assert critic(shape, 2)(x[:1]).shape == (1,)
    assert squash(shape)(decoder(5, shape, 2)(100 * z)).abs().max() <= (1 if len(shape) == 3 else float("inf"))


@pytest.mark.parametrize("kind", ["wae", "ae-ot"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 32, 32), (3, 64, 64)], ids=str)
def test_networks_of_the_lecture(shape, kind):
    if kind == "ae-ot" and shape[1] == 28:
        with pytest.raises(ValueError, match=r"AEOTEncoder: h and w must be equal, a power of 2 .* \(1, 28, 28\)"):
            encoder(shape, 5, 2, kind)
        return
    assert encoder(shape, 5, 2, kind)(torch.rand(3, *shape)).shape == (3, 5)
    assert decoder(5, shape, 2, kind)(torch.randn(3, 5)).shape == (3, *shape)


def channels(network, kind):
    return [layer.out_channels for layer in network if isinstance(layer, kind)]


def test_widths_of_the_lecture():
    shape = (3, 64, 64)
    assert channels(encoder(shape, 64, 128, "wae"), nn.Conv2d) == [128, 256, 512, 1024]
    wae = decoder(64, shape, 128, "wae")
    assert wae[0].out_features == 8 * 8 * 1024
    assert channels(wae, nn.ConvTranspose2d) == [512, 256, 128, 3]
    mnist = decoder(8, (1, 28, 28), 128, "wae")
    assert mnist[0].out_features == 7 * 7 * 1024
    assert channels(mnist, nn.ConvTranspose2d) == [512, 256, 1]
    assert channels(encoder(shape, 100, 80, "ae-ot"), nn.Conv2d) == [80, 160, 320, 640, 100]
    assert channels(decoder(100, shape, 80, "ae-ot"), nn.ConvTranspose2d) == [640, 320, 160, 80, 3]


def kinds(network):
    return [type(layer) for layer in network if not isinstance(layer, nn.Flatten | nn.Unflatten)]


def test_layers_of_the_lecture():
    """Each convolution is followed by batch normalisation and an activation, but for the last one."""
    shape, block = (3, 64, 64), [nn.BatchNorm2d, nn.ReLU]
    assert kinds(encoder(shape, 5, 2, "wae")) == [nn.Conv2d, *block] * 4 + [nn.Linear]
    assert kinds(decoder(5, shape, 2, "wae")) == [nn.Linear] + [nn.ConvTranspose2d, *block] * 3 + [nn.ConvTranspose2d]
    block = [nn.BatchNorm2d, nn.LeakyReLU]
    networks = encoder(shape, 5, 2, "ae-ot"), decoder(5, shape, 2, "ae-ot")
    for network, layer in zip(networks, (nn.Conv2d, nn.ConvTranspose2d), strict=True):
        assert kinds(network) == [layer, *block] * 4 + [layer]
        assert {part.negative_slope for part in network if isinstance(part, nn.LeakyReLU)} == {0.1}
        assert {part.kernel_size for part in network if isinstance(part, layer)} == {(4, 4)}


def test_networks_of_vectors_have_three_hidden_layers():
    for network in (encoder((2,), 5, 4), decoder(5, (2,), 4), critic((2,), 4)):
        sizes = [part.out_features for part in network.modules() if isinstance(part, nn.Linear)]
        assert sizes[:-1] == [32, 32, 32]
    assert {part.negative_slope for part in critic((2,), 4).modules() if isinstance(part, nn.LeakyReLU)} == {0.2}


@pytest.mark.parametrize(("side", "start"), [(28, 7), (32, 8), (56, 14), (64, 8)])
def test_the_wae_decoder_starts_at_a_quarter_below_64_pixels(side, start):
    assert decoder(5, (3, side, side), 2, "wae")[0].out_features == 8 * 2 * start * start


@pytest.mark.parametrize("shape", [(1, 68, 68), (1, 64, 68), (1, 64, 32)], ids=str)
def test_sides_of_the_wae_networks_need_not_be_powers_of_two(shape):
    assert decoder(5, shape, 2, "wae")(torch.randn(3, 5)).shape == (3, *shape)


@pytest.mark.parametrize("side", [4, 10])
def test_sides_of_the_wae_networks_are_multiples_of_four(side):
    for make in (lambda shape: encoder(shape, 5, 2, "wae"), lambda shape: decoder(5, shape, 2, "wae")):
        with pytest.raises(ValueError, match="h and w must be multiples of 4 and at least 8, got shape"):
            make((1, side, side))


@pytest.mark.parametrize("shape", [(3,), (1, 8, 8), (3, 20, 28)], ids=str)
def test_the_critics_only_activation_is_the_leaky_relu(shape):
    kinds = {type(part) for part in critic(shape, 4, "layer").modules()}
    assert nn.LeakyReLU in kinds
    assert not kinds & {nn.SiLU, nn.ReLU, nn.Tanh}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(3,), (1, 8, 8)], ids=str)
def test_norms_of_the_critic(norm, shape):
    network, x = critic(shape, 4, norm), torch.rand(6, *shape)
    assert network(x).shape == (6,)
    network.train(norm == "batch")  # the power iteration goes on in training, and changes the weights
    mixes = not torch.allclose(network(x)[:3], network(x[:3]), atol=1e-5)
    assert mixes == (norm == "batch")
    kinds = {"layer": nn.GroupNorm, "group": nn.GroupNorm, "batch": nn.modules.batchnorm._BatchNorm}
    has = [part for part in network.modules() if isinstance(part, (nn.GroupNorm, nn.modules.batchnorm._BatchNorm))]
    assert all(isinstance(part, kinds[norm]) for part in has)
    assert bool(has) == (norm in kinds)
    if norm == "layer":
        assert {part.num_groups for part in has} == {1}


def test_spectral_norm_bounds_every_weight():
    network = critic((1, 8, 8), 4, "spectral")
    for _ in range(50):  # a power iteration each
        network(torch.rand(2, 1, 8, 8))
    for part in network.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            largest = torch.linalg.matrix_norm(part.weight.detach().flatten(1), 2)
            assert_close(largest, torch.tensor(1.0), atol=0.02, rtol=0)


def test_the_score_is_read_from_the_features():
    network, x = critic((1, 8, 8), 4), torch.rand(5, 1, 8, 8)
    assert_close(network.head(network.features(x))[:, 0], network(x))
    assert network.features(x).shape[0] == 5


@pytest.mark.parametrize("make", [lambda s: encoder(s, 2), lambda s: decoder(2, s), critic])
@pytest.mark.parametrize("shape", [(), (8, 8), (0,), (1, 8, 8, 8), (2.0,), [2]])
def test_bad_shapes(make, shape):
    with pytest.raises(ValueError, match=r"(encoder|decoder|critic): shape must be \(features,\) or \(c, h, w\)"):
        make(shape)


def test_bad_names():
    with pytest.raises(ValueError, match="norm must be one of none, layer, group, batch, spectral, got 'instance'"):
        critic((2,), 4, "instance")
    with pytest.raises(ValueError, match="encoder: kind must be one of plain, wae, ae-ot, got 'big'"):
        encoder((2,), 4, 2, "big")
    with pytest.raises(ValueError, match=r"decoder: kind 'wae' is for images \(c, h, w\), got shape \(2,\)"):
        decoder(4, (2,), 2, "wae")
