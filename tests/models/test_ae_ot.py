"""OTPrior, AE-OT and AE-OT-GAN: what stands on the transport map."""

import copy
import os
import signal

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus
from torch.testing import assert_close
from torch.utils.data import DataLoader, IterableDataset

from otgen import data
from otgen.models import AE, AEOT, AEOTGAN, OTPrior, load
from otgen.nn import critic
from otgen.ot import NotFittedError, SemiDiscreteOT

SHAPE = (1, 8, 8)


def images(n=60):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def codes():
    return data.mixture(80, 3)


@pytest.fixture(scope="module")
def fitted(codes):
    return OTPrior(tol=0.5, seed=2).fit(codes, progress=False)


# --- the prior -------------------------------------------------------------------------------------------------------


def test_prior_makes_codes_of_the_extended_map(codes, fitted):
    new = fitted.sample(500, 3)
    assert (new.shape, new.dtype) == ((500, 3), torch.float32)
    assert fitted.ot_.converged_
    assert not any((new == code).all(1).any() for code in codes)  # blends, not copies
    assert_close(new.mean(0), codes.mean(0), atol=0.3, rtol=0)
    assert (new.std(0) / codes.std(0) - 1).abs().max() < 0.35
    assert_close(fitted.sample(500, 3), new, rtol=0, atol=0)
    a, b = (fitted.sample(9, torch.Generator().manual_seed(1)) for _ in range(2))
    assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(fitted.sample(500, 4), new)


def test_prior_keeps_dtype_and_settings(codes):
    prior = OTPrior("normal", tol=0.7, method="log_ratio", seed=5, max_samples=10**7).fit(
        codes.double(), progress=False
    )
    assert prior.sample(4, 0).dtype == torch.float64
    assert (prior.ot_.source, prior.ot_.tol, prior.ot_.method, prior.ot_.seed) == ("normal", 0.7, "log_ratio", 5)
    assert prior.ot_.max_samples == 10**7
    weights = torch.zeros(80).index_fill(0, torch.arange(40), 1.0)
    weighted = OTPrior(tol=0.7).fit(codes, weights, progress=False)
    assert (weighted.ot_.weights_[40:] == 0).all()


def test_prior_refuses_to_sample_before_it_is_fitted():
    for call in (lambda: OTPrior().sample(3), lambda: OTPrior().save("x")):
        with pytest.raises(NotFittedError, match="this OTPrior is not fitted yet: call fit"):
            call()


def test_prior_is_kept_in_files_and_states(fitted, tmp_path):
    fitted.save(tmp_path / "map.safetensors")
    again = OTPrior.load(tmp_path / "map.safetensors")
    assert_close(again.sample(20, 1), fitted.sample(20, 1), rtol=0, atol=0)
    assert SemiDiscreteOT.load(tmp_path / "map.safetensors").converged_
    inside = nn.Sequential(nn.Linear(2, 2), OTPrior())
    state = nn.Sequential(nn.Linear(2, 2), fitted).state_dict()
    inside.load_state_dict(state)
    assert_close(inside[1].sample(20, 1), fitted.sample(20, 1), rtol=0, atol=0)
    with pytest.raises(RuntimeError, match=r"1.ot.\*: state: not a whole map of otgen"):
        inside.load_state_dict(state | {"1.ot.heights": torch.zeros(3, dtype=torch.float64)})
    with pytest.raises(RuntimeError, match=r"1.ot.\*: "):
        inside.load_state_dict({name: value for name, value in state.items() if name != "1.ot.record"})


def test_settings_of_a_prior_come_back_from_its_file(codes, tmp_path):
    prior = OTPrior("normal", angle_threshold=0.7, tol=0.5, method="newton", seed=3).fit(codes, progress=False)
    prior.save(tmp_path / "map.safetensors")
    again = OTPrior.load(tmp_path / "map.safetensors", angle_threshold=0.7)
    assert (again.settings, again.angle_threshold) == (prior.settings, 0.7)
    assert_close(again.sample(20, 5), prior.sample(20, 5), rtol=0, atol=0)
    wider = OTPrior.load(tmp_path / "map.safetensors", angle_threshold=3.0)
    assert not torch.equal(wider.sample(20, 5), prior.sample(20, 5))


def test_a_prior_shares_no_memory_with_the_state_it_was_loaded_from(fitted):
    state, prior = copy.deepcopy(fitted.state_dict()), OTPrior()
    prior.load_state_dict(state)
    for value in state.values():
        value.zero_()
    assert_close(prior.sample(20, 5), fitted.sample(20, 5), rtol=0, atol=0)


def test_prior_takes_arrays_and_refuses_whole_numbers(codes):
    prior = OTPrior(tol=0.5, seed=2).fit(codes.numpy()[::-1].astype(">f4"), progress=False)
    assert prior.sample(4, 0).dtype == torch.float32
    for wrong, wanted in [(codes.long(), "torch.int64"), (codes.long().numpy(), "torch.int64")]:
        prior = OTPrior()
        with pytest.raises(TypeError, match=f"^OTPrior.fit: codes must be floating-point numbers, got {wanted}$"):
            prior.fit(wrong, progress=False)
        assert prior.ot_ is None
    with pytest.raises(TypeError, match=r"^OTPrior.fit: codes must be a tensor or array \(m, d\), got list$"):
        OTPrior().fit([[1.0]])


def test_precision_comes_back_with_the_state(codes):
    prior, again = OTPrior(tol=0.5).fit(codes.double(), progress=False), OTPrior()
    again.load_state_dict(prior.state_dict())
    assert_close(again.sample(4, 0), prior.sample(4, 0), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"source": "cauchy"}, "source must be one of uniform, normal or a callable, got 'cauchy'"),
        ({"source": len}, "source must be a name, got builtin_function_or_method"),
        ({"tol": -1}, "tol must be a positive number, got -1"),
        ({"tol": "a"}, "tol must be a positive number, got 'a'"),
        ({"angle_threshold": "wide"}, r'angle_threshold must be "auto" or an angle in \(0, pi\], got \'wide\''),
        ({"angle_threshold": -0.1}, r'angle_threshold must be "auto" or an angle in \(0, pi\], got -0.1'),
        ({"method": "magic"}, "method must be one of .*, got 'magic'"),
        ({"max_samples": 0}, "max_samples must be .*, got 0"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_trained(settings, wanted):
    kinds = [OTPrior]
    kinds += (
        [lambda **s: AEOT((2,), 2, width=2, **s)] if settings.keys() <= {"source", "tol", "angle_threshold"} else []
    )
    kinds += [lambda **s: AEOTGAN((2,), 2, width=2, **s)] if "tol" in settings else []
    for kind in kinds:
        with pytest.raises((TypeError, ValueError), match=f"^OTPrior: {wanted}$"):
            kind(**settings)


# --- AE-OT -----------------------------------------------------------------------------------------------------------


def test_aeot_trains_as_the_autoencoder_does_and_maps_to_its_codes():
    x, run = images(), {"steps": 4, "batch_size": 8, "progress": False}
    ae, aeot = AE(SHAPE, 3, width=2).fit(x, **run), AEOT(SHAPE, 3, width=2, tol=5.0).fit(x, **run)
    assert aeot.history_["loss"].tolist() == ae.history_["loss"].tolist()
    assert_close(aeot.prior.ot_.targets_.float(), ae.encode(x))
    codes = aeot.prior.sample(7, torch.Generator().manual_seed(1))
    assert_close(aeot.sample(7, torch.Generator().manual_seed(1)), aeot.decode(codes))


def test_the_prior_of_aeot_has_its_settings():
    given = {"source": "normal", "tol": 0.03, "seed": 7}
    prior = AEOT(SHAPE, 3, width=2, angle_threshold=0.5, **given).prior
    assert prior.settings == given | {"method": "auto", "max_samples": None}
    assert prior.angle_threshold == 0.5


def test_aeot_takes_trained_networks(tmp_path):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    decoder = nn.Sequential(nn.Linear(3, 64), nn.Sigmoid(), nn.Unflatten(1, SHAPE))
    before = copy.deepcopy(encoder.state_dict())
    aeot = AEOT(SHAPE, 3, encoder=encoder, decoder=decoder, tol=5.0)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        aeot.sample(3)
    assert aeot.fit_prior(images(), progress=False) is aeot
    assert aeot.fitted
    for name, value in encoder.state_dict().items():
        assert_close(value, before[name], rtol=0, atol=0)
    assert aeot.sample(5, 0).shape == (5, *SHAPE)
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        aeot.fit_prior(images() * 255, progress=False)


def test_aeot_takes_frozen_networks_and_does_not_train_them():
    encoder, decoder = nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2).requires_grad_(False)
    aeot = AEOT((2,), 2, encoder=encoder, decoder=decoder, tol=5.0)
    x = torch.rand(60, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"^AEOT: encoder or decoder must have parameters to learn, got Linear and"):
        aeot.fit(x, steps=1, batch_size=8, progress=False)
    assert aeot.fit_prior(x, progress=False).sample(5, 0).shape == (5, 2)
    encoder.requires_grad_(True)
    assert aeot.fit(x, steps=1, batch_size=8, progress=False).fitted
    with pytest.raises(ValueError, match="must have parameters to learn, got Identity and Identity"):
        AEOT((2,), 2, encoder=nn.Identity(), decoder=nn.Identity())


class Endless(IterableDataset):
    def __iter__(self):
        return iter(lambda: torch.rand(2), None)


def test_a_loader_gives_the_codes_of_all_its_batches():
    aeot = AEOT((2,), 2, width=2, tol=5.0).fit_prior(DataLoader(torch.rand(20, 2), 8), progress=False)
    assert len(aeot.prior.ot_.targets_) == 20


@pytest.mark.parametrize("kind", [AEOT, AEOTGAN])
def test_data_without_an_end_are_refused_before_training(kind):
    model = kind((2,), 2, width=2)
    seen = []
    with pytest.raises(TypeError, match="^AEOT needs the codes of all data: they must have a length, got a stream"):
        model.fit(Endless(), steps=1, batch_size=4, progress=False, callbacks=[lambda *_: seen.append(1)])
    with pytest.raises(TypeError, match="^AEOT needs the codes of all data"):
        AEOT((2,), 2, width=2).fit_prior(Endless())
    assert seen == []


@pytest.mark.parametrize("kind", [AEOT, AEOTGAN])
def test_sampling_before_fit_names_the_model(kind):
    with pytest.raises(NotFittedError, match=rf"^this {kind.__name__} is not fitted yet: call fit\(data\) first$"):
        kind((2,), 2, width=2).sample(3)


# --- AE-OT-GAN -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aeot():
    return AEOT(SHAPE, 3, width=2, tol=5.0).fit(images(), steps=4, batch_size=8, progress=False)


def test_generator_starts_as_the_decoder(aeot):
    z = torch.randn(5, 3)
    assert_close(AEOTGAN(SHAPE, aeot=aeot, width=2).decode(z), aeot.decode(z), rtol=0, atol=0)
    gan = AEOTGAN(SHAPE, 3, width=2, tol=5.0, ae_epochs=2, head_start=2)
    assert not gan.aeot.fitted
    gan.fit(images(), steps=2, batch_size=8, progress=False)
    assert gan.aeot.fitted
    assert len(gan.aeot.history_["loss"]) == 2 * (60 // 8)
    assert_close(gan.decode(z), gan.aeot.decode(z), rtol=0, atol=0)  # the critic alone has learnt


def test_a_second_fit_goes_on_with_the_generator(aeot):
    gan = AEOTGAN(SHAPE, aeot=aeot, width=2, head_start=0).fit(images(), steps=2, batch_size=8, progress=False)
    assert len(aeot.history_["loss"]) == 4  # it was fitted before, and no more since
    z = torch.randn(5, 3)
    before, gan.head_start = gan.decode(z), 9  # from now on the critic alone learns
    assert_close(gan.fit(images(), steps=1, batch_size=8, progress=False).decode(z), before, rtol=0, atol=0)


def test_losses_of_aeotgan_by_hand(aeot):
    """The critic's is that before its step, the generator's that after it."""
    plain = critic(SHAPE, 2)  # spectral normalisation changes the scores whenever they are asked for
    gan, x = AEOTGAN(SHAPE, aeot=aeot, critic=plain, head_start=0), images(8)
    codes = aeot.prior.sample(8, torch.Generator().set_state(gan.rng.get_state()))
    again, fake = aeot.reconstruct(x), aeot.decode(codes)
    before = (softplus(-gan.critic(x)).mean() + softplus(gan.critic(fake)).mean()).item()
    values = gan.step(x)
    assert values["critic"] == pytest.approx(before, rel=1e-5)
    assert values["generator"] == pytest.approx(softplus(-gan.critic(fake)).mean().item(), rel=1e-5)
    assert values["content"] == pytest.approx((again - x).square().mean().item(), rel=1e-4)
    feature = (gan.critic.features(again) - gan.critic.features(x)).square().mean().item()
    assert values["feature"] == pytest.approx(feature, rel=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert gan._score(x).dtype == torch.float32


@pytest.mark.parametrize("weight", ["content", "feature"])
def test_each_weight_of_aeotgan_pulls_at_the_generator(weight, aeot):
    def gradient(value):
        gan = AEOTGAN(SHAPE, aeot=aeot, width=2, head_start=0, **{"content": 0.0, "feature": 0.0, weight: value})
        gan.step(images(8))
        return torch.cat([parameter.grad.flatten() for parameter in gan.generator.parameters()])

    assert not torch.allclose(gradient(0.0), gradient(100.0), atol=1e-7, rtol=1e-3)


@pytest.mark.parametrize("network", ["plain", "wae"])
def test_aeotgan_trains_the_generator_and_leaves_the_autoencoder(network):
    """Batch statistics included, which the WAE's networks keep."""
    aeot = AEOT(SHAPE, 3, width=2, tol=5.0, network=network).fit(images(), steps=1, batch_size=8, progress=False)
    gan, before = AEOTGAN(SHAPE, aeot=aeot, width=2, head_start=0), copy.deepcopy(aeot.state_dict())
    z = torch.ones(1, 3)
    assert_close(gan.decode(z), aeot.decode(z), rtol=0, atol=0)
    gan.step(images(8))
    assert not torch.equal(gan.decode(z), aeot.decode(z))
    for name, value in aeot.state_dict().items():
        assert_close(value, before[name], rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_aeotgan_with_a_fitted_aeot_is_saved_whole(aeot, tmp_path):
    gan = AEOTGAN(SHAPE, aeot=aeot, width=2, feature=0.0).fit(images(), steps=2, batch_size=8, progress=False)
    gan.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert_close(again.sample(4, 0), gan.sample(4, 0), rtol=0, atol=0)
    assert_close(again.reconstruct(images(3)), gan.reconstruct(images(3)), rtol=0, atol=0)


@pytest.mark.parametrize("stop", [3, 14])
def test_pretraining_that_was_stopped_goes_on_exactly(stop, tmp_path, monkeypatch):
    """Seven steps make an epoch of the autoencoder's two; after the last comes the transport, stopped, too."""

    def build():
        return AEOTGAN(SHAPE, 3, width=2, tol=5.0, ae_epochs=2, head_start=1)

    run = {"steps": 3, "batch_size": 8, "seed": 4, "amp": True, "progress": False}
    whole, path = build().fit(images(), **run), tmp_path / "run"
    taught, step = [], AEOT.step

    def stopped(self, batch):
        taught.append(torch.is_autocast_enabled("cpu"))
        if len(taught) == stop:
            signal.raise_signal(signal.SIGINT)
        return step(self, batch)

    monkeypatch.setattr(AEOT, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        build().fit(images(), checkpoint=path, **run)
    assert os.listdir(tmp_path) == ["run.prepare"]
    with pytest.raises(FileExistsError, match=r"run.prepare is there already; go on from it with resume=True"):
        build().fit(images(), checkpoint=path, **run)
    rest = build().fit(images(), checkpoint=path, resume=True, **run)
    assert taught == [True] * 14
    assert os.listdir(tmp_path) == ["run"]
    a, b = rest.state_dict(), whole.state_dict()
    assert a.keys() == b.keys()
    for name in [name for name in a if not name.endswith("ot.record")]:  # it says how long the solver took
        assert_close(a[name], b[name], rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_the_runs_seed_reaches_the_pretraining():
    a, b = (
        AEOTGAN((2,), 2, width=2, tol=5.0, ae_epochs=1).fit(
            torch.rand(20, 2, generator=torch.Generator().manual_seed(1)),
            steps=1,
            batch_size=8,
            seed=seed,
            progress=False,
        )
        for seed in (1, 2)
    )
    assert not torch.equal(a.aeot.encoder[0].weight, b.aeot.encoder[0].weight)


def test_the_critic_has_random_numbers_of_its_own():
    gan = AEOTGAN(SHAPE, 2, width=8)
    assert not torch.equal(gan.critic.trunk[0].parametrizations.weight.original, gan.aeot.encoder[0].weight)


@pytest.mark.parametrize(
    ("arguments", "error", "wanted"),
    [
        ({"aeot": 3}, TypeError, "AEOTGAN: aeot must be an AEOT, got int"),
        ({"aeot": AEOT((2,), 2, width=2)}, ValueError, r"AEOTGAN: shape and d must be those of aeot, \(2,\) and 2"),
        ({"aeot": AEOT(SHAPE, 2, width=2)}, ValueError, "AEOTGAN: shape and d must be those of aeot"),
        ({"content": -1.0}, ValueError, "AEOTGAN: content and feature must be numbers >= 0, got -1.0 and 0.1"),
        ({"content": "a"}, ValueError, "AEOTGAN: content and feature must be numbers >= 0, got 'a' and 0.1"),
        ({"feature": None}, ValueError, "AEOTGAN: content and feature must be numbers >= 0, got 1.0 and None"),
        (
            {"aeot": AEOT((2,), 2, width=2), "shape": 2},
            ValueError,
            r"AEOTGAN: shape and d must be those of aeot, \(2,\) and 2, got 2",
        ),
        (
            {"critic": nn.Sequential(nn.Flatten(), nn.AvgPool1d(64), nn.Flatten(0)), "feature": 0.0},
            ValueError,
            "AEOTGAN: critic must have parameters to learn, got Sequential",
        ),
        ({"head_start": -1}, ValueError, "AEOTGAN: head_start must be a whole number >= 0, got -1"),
        (
            {"critic": nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Flatten(0))},
            TypeError,
            r"AEOTGAN: critic must have a method features\(x\), or feature must be 0",
        ),
    ],
)
def test_bad_arguments_of_aeotgan(arguments, error, wanted):
    with pytest.raises(error, match=wanted):
        AEOTGAN(**({"shape": SHAPE, "d": 3, "width": 2} | arguments))
