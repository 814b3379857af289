import pytest
import torch
from draws import normal
from torch import nn
from torch.testing import assert_close

from otgen import data
from otgen.files import write_safetensors
from otgen.metrics import PCA, Network, Pixels
from otgen.metrics.extractors import digest

IMAGES = normal(50, 1, 4, 4).float()


def test_pixels():
    pixels = Pixels((1, 4, 4))
    assert_close(pixels(IMAGES), IMAGES.double().flatten(1))
    assert (pixels.dim, pixels.fingerprint) == (16, "pixels-1x4x4")
    with pytest.raises(ValueError, match=r"Pixels: images must have shape \(n, 1, 4, 4\)"):
        pixels(torch.zeros(2, 1, 4, 5))


def test_pca_whitens_what_it_was_made_from():
    pca = PCA(IMAGES, 5)
    scores = pca(IMAGES)
    assert_close(scores.mean(0), torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)
    assert_close(scores.T.cov(), torch.eye(5, dtype=torch.float64), atol=1e-10, rtol=0)
    want = data.pca(IMAGES.flatten(1).double(), 5)
    assert_close(scores * want.std(0), want, atol=1e-10, rtol=0)


def test_pca_knows_what_it_was_made_from():
    assert PCA(IMAGES, 5).fingerprint == PCA(IMAGES.clone(), 5).fingerprint
    assert PCA(IMAGES, 5).fingerprint != PCA(IMAGES + 1e-3, 5).fingerprint
    assert PCA(IMAGES, 5).fingerprint[:5] == "pca5-"
    with pytest.raises(ValueError, match="k must be at most the rank"):
        PCA(IMAGES[:1].repeat(50, 1, 1, 1) * torch.arange(50.0).view(-1, 1, 1, 1), 3)


@pytest.mark.parametrize("extractor", [Pixels((1, 4, 4)), PCA(IMAGES, 3)], ids=["pixels", "pca"])
def test_features_have_no_gradient(extractor):
    assert not extractor(IMAGES.clone().requires_grad_()).requires_grad


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1))


def test_a_network_and_its_weights_from_a_file(tmp_path):
    module = network(1)
    write_safetensors(tmp_path / "w.safetensors", module.state_dict(), {})
    loaded = Network(network(2), 3, tmp_path / "w.safetensors", name="inception")
    assert loaded.fingerprint == Network(module, 3, name="inception").fingerprint
    assert loaded.fingerprint.startswith("inception-")
    assert loaded.fingerprint != Network(network(2), 3, name="inception").fingerprint
    features = loaded(IMAGES.double())  # which a module of float32 would not take
    assert_close(features, module.eval()(IMAGES).flatten(1).double())
    assert not features.requires_grad
    assert features.dtype == torch.float64


def test_a_network_that_does_not_fit(tmp_path):
    write_safetensors(tmp_path / "w.safetensors", {"other": torch.zeros(2)}, {})
    with pytest.raises(ValueError, match="w.safetensors does not fit the module"):
        Network(network(), 3, tmp_path / "w.safetensors")
    with pytest.raises(FileNotFoundError):
        Network(network(), 3, tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match=r"must return features \(b, 4\), got \(50, 3\)"):
        Network(network(), 4)(IMAGES)
    with pytest.raises(ValueError, match=r"must return features \(b, 3\), got \(50, 3, 3, 3\)"):
        Network(network()[:2], 3)(IMAGES)
    with pytest.raises(TypeError, match=r"must be a plain torch.nn.Module, got function"):
        Network(lambda x: x, 3)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # as torch 2.14 says
def test_an_archive_of_code_is_refused():
    with pytest.raises(TypeError, match=r"must be a plain torch.nn.Module, got RecursiveScriptModule"):
        Network(torch.jit.script(nn.Flatten()), 16)


def test_images_are_checked():
    with pytest.raises(TypeError, match="images must be a tensor of floating point, got torch.uint8"):
        Pixels((1, 4, 4))(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"images must have shape \(n, 1, 4, 4\) with n >= 1, got \(0, 1, 4, 4\)"):
        Pixels((1, 4, 4))(IMAGES[:0])
    with pytest.raises(ValueError, match="images must be finite"):
        Pixels((1, 4, 4))(IMAGES * torch.nan)


def test_digest_sees_values_shapes_and_order():
    a, b = torch.zeros(2, 3), torch.ones(2, 3)
    assert len({digest([a, b]), digest([b, a]), digest([a]), digest([a.view(3, 2)]), digest([a.double()])}) == 5
    assert digest([torch.tensor(1.0)]) == digest([torch.tensor(1.0)])
    x = normal(2, 3)  # how numbers lie in memory does not matter
    assert digest([x.T]) == digest([x.T.contiguous()]) != digest([x.view(3, 2)])


def test_networks_that_differ_in_anything_have_other_names():
    linear = torch.nn.Linear(4, 3)
    networks = [
        torch.nn.Sequential(torch.nn.Flatten(), linear, torch.nn.ReLU()),
        torch.nn.Sequential(torch.nn.Flatten(), linear, torch.nn.Tanh()),
        torch.nn.Sequential(torch.nn.AvgPool2d(2), torch.nn.Flatten()),
        torch.nn.Flatten(),
    ]
    names = [Network(network, dim).fingerprint for network in networks for dim in (3, 4)]
    assert len(set(names)) == len(names)
    assert Network(networks[0], 3).fingerprint == names[0]
