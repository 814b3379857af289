import copy
import json
import sys

import pytest
import torch
from torch.testing import assert_close

from otgen import data
from otgen.files import read_safetensors, write_safetensors
from otgen.metrics import LeNet, train_lenet
from otgen.metrics.lenet import Layers, _fit


@pytest.fixture(scope="module")
def digits():
    pixels, labels = data.digits()
    return pixels.view(-1, 1, 8, 8), labels


@pytest.fixture(scope="module")
def lenet(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lenet")
    return train_lenet(*digits, epochs=8, cache=folder), folder


def test_it_tells_digits_apart(lenet, digits):
    extractor = lenet[0]
    assert extractor.accuracy > 0.94
    assert float((extractor.classify(digits[0]) == digits[1]).double().mean()) > 0.95
    assert extractor.classes == 10


def test_features_are_standardised(lenet, digits):
    features = lenet[0](digits[0])
    assert features.shape == (1797, lenet[0].dim)
    assert features.dtype == torch.float64
    assert_close(features.mean(0), torch.zeros(84, dtype=torch.float64), atol=1e-4, rtol=0)
    assert_close(features.std(0), torch.ones(84, dtype=torch.float64), atol=1e-3, rtol=0)


def test_features_have_no_gradient(lenet):
    assert not lenet[0](torch.rand(5, 1, 8, 8).requires_grad_()).requires_grad


def test_it_is_trained_for_a_caller_without_gradients(digits):
    images, labels = digits[0][:50], digits[1][:50]
    plain = train_lenet(images, labels, epochs=1)
    with torch.no_grad():
        assert train_lenet(images, labels, epochs=1).fingerprint == plain.fingerprint


def test_a_feature_that_is_the_same_for_all_images_stays_finite():
    extractor = train_lenet(torch.full((20, 1, 8, 8), 0.5), torch.arange(20) % 2, epochs=1)
    assert extractor(torch.rand(5, 1, 8, 8)).isfinite().all()


def test_the_accuracy_is_that_on_images_held_out():
    """Labels dealt out at random can be learnt by heart, of the 48 of 60 images that are there to be learnt."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(60, 1, 8, 8, generator=generator), torch.randint(4, (60,), generator=generator)
    extractor = train_lenet(images, labels, epochs=100, batch_size=10)
    assert int((extractor.classify(images) == labels).sum()) == 48 + round(12 * extractor.accuracy) < 60


def test_the_cache_gives_the_same_network(lenet, digits):
    extractor, folder = lenet
    (path,) = folder.iterdir()
    before = path.stat().st_mtime_ns
    again = train_lenet(*digits, epochs=8, cache=folder)
    assert path.stat().st_mtime_ns == before
    assert (again.fingerprint, again.accuracy) == (extractor.fingerprint, extractor.accuracy)
    assert_close(again(digits[0][:9]), extractor(digits[0][:9]), rtol=0, atol=0)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="wanted a whole .safetensors file"):
        train_lenet(*digits, epochs=8, cache=folder)


def test_settings_and_seed_make_another_network(digits, tmp_path):
    images, labels = digits[0][:200], digits[1][:200]
    state = torch.get_rng_state()
    names = {train_lenet(images, labels, epochs=1, seed=s, cache=tmp_path).fingerprint for s in (0, 1)}
    names.add(train_lenet(images, labels, epochs=2, cache=tmp_path).fingerprint)
    names.add(train_lenet(images, labels.flip(0), epochs=1, cache=tmp_path).fingerprint)
    assert len(names) == len(list(tmp_path.iterdir())) == 4
    assert all(name.startswith("lenet-") and len(name) == 14 for name in names)
    assert torch.equal(state, torch.get_rng_state())


def test_the_seed_decides_the_weights_at_first_and_the_order_of_the_images(monkeypatch):
    images, labels = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    network = Layers(1, 2)
    trained = [copy.deepcopy(network) for _ in range(2)]
    for seed in (0, 1):
        _fit(trained[seed], images, labels, 1, 4, seed)
    assert not torch.equal(trained[0].head.weight, trained[1].head.weight)
    monkeypatch.setattr(sys.modules["otgen.metrics.lenet"], "_fit", lambda *_: 0.5)
    assert len({train_lenet(images, labels, seed=seed).fingerprint for seed in (0, 1)}) == 2


def test_the_cache_may_lie_in_folders_that_are_not_there_yet(tmp_path):
    images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 2
    train_lenet(images, labels, epochs=1, cache=tmp_path / "a" / "b")
    assert len(list((tmp_path / "a" / "b").iterdir())) == 1


@pytest.mark.parametrize(("dtype", "device"), [(torch.float64, "cpu"), (torch.float32, "meta")], ids=str)
def test_torchs_defaults_do_not_matter(dtype, device):
    images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 2
    plain = train_lenet(images, labels, epochs=1)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device), torch.autocast("cpu", torch.bfloat16):
            other = train_lenet(images, labels, epochs=1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert other.fingerprint == plain.fingerprint


def test_any_size_and_colour():
    images = torch.rand(40, 3, 28, 17, generator=torch.Generator().manual_seed(0))
    extractor = train_lenet(images, torch.arange(40) % 3, epochs=1, batch_size=16)
    assert isinstance(extractor, LeNet)
    assert extractor(images).shape == (40, 84)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": torch.zeros(20, 1, 7, 8)}, ValueError, "images must be at least 8 x 8"),
        ({"labels": torch.zeros(20)}, TypeError, r"labels must be int64 of shape \(20,\)"),
        ({"labels": torch.arange(19) % 2}, ValueError, r"labels must be int64 of shape \(20,\)"),
        ({"labels": torch.zeros(20, dtype=torch.int64)}, ValueError, "two classes numbered from 0"),
        ({"labels": torch.arange(20) % 3 - 1}, ValueError, "two classes numbered from 0"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
    ],
)
def test_bad_input(change, error, message):
    given = {"images": torch.zeros(20, 1, 8, 8), "labels": torch.arange(20) % 2} | change
    with pytest.raises(error, match=message):
        train_lenet(**given)


@pytest.mark.parametrize(
    ("weights", "about", "message"),
    [
        ({}, {"accuracy": float("nan")}, r"its accuracy must lie in \[0, 1\], got nan"),
        ({}, {"accuracy": -1}, r"its accuracy must lie in \[0, 1\], got -1"),
        ({}, {"accuracy": 77}, r"its accuracy must lie in \[0, 1\], got 77"),
        ({"head.bias": torch.full((2,), float("nan"))}, {"accuracy": 0.5}, "its weights must be finite"),
        ({"std": torch.zeros(84)}, {"accuracy": 0.5}, "its weights must be finite and its std positive"),
    ],
)
def test_a_forged_cache_is_refused(tmp_path, weights, about, message):
    images, labels = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    train_lenet(images, labels, epochs=1, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    write_safetensors(path, read_safetensors(path)[0] | weights, {"otgen": json.dumps(about)})
    with pytest.raises(ValueError, match=f"{path.name} is not a whole LeNet of otgen; remove it: {message}"):
        train_lenet(images, labels, epochs=1, cache=tmp_path)
