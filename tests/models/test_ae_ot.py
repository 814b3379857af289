"""OTPrior, AE-OT and AE-OT-GAN: what stands on the transport map."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from otgen import data
from otgen.models import AE, AEOT, AEOTGAN, OTPrior, load
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
    prior = OTPrior("normal", tol=0.7, method="log_ratio", seed=5).fit(codes.double(), progress=False)
    assert prior.sample(4, 0).dtype == torch.float64
    assert (prior.ot_.source, prior.ot_.tol, prior.ot_.method, prior.ot_.seed) == ("normal", 0.7, "log_ratio", 5)
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


# --- AE-OT -----------------------------------------------------------------------------------------------------------


def test_aeot_trains_as_the_autoencoder_does_and_maps_to_its_codes():
    x, run = images(), {"steps": 4, "batch_size": 8, "progress": False}
    ae, aeot = AE(SHAPE, 3, width=2).fit(x, **run), AEOT(SHAPE, 3, width=2, tol=5.0).fit(x, **run)
    assert aeot.history_["loss"].tolist() == ae.history_["loss"].tolist()
    assert_close(aeot.prior.ot_.targets_.float(), ae.encode(x))
    codes = aeot.prior.sample(7, torch.Generator().manual_seed(1))
    assert_close(aeot.sample(7, torch.Generator().manual_seed(1)), aeot.decode(codes))


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


# --- AE-OT-GAN -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aeot():
    return AEOT(SHAPE, 3, width=2, tol=5.0).fit(images(), steps=4, batch_size=8, progress=False)


def test_generator_starts_as_the_decoder(aeot):
    z = torch.randn(5, 3)
    assert_close(AEOTGAN(SHAPE, aeot=aeot, width=2).decode(z), aeot.decode(z), rtol=0, atol=0)
    gan = AEOTGAN(SHAPE, 3, width=2, tol=5.0, ae_epochs=2, head_start=9)
    assert not gan.aeot.fitted
    gan.fit(images(), steps=2, batch_size=8, progress=False)
    assert gan.aeot.fitted
    assert len(gan.aeot.history_["loss"]) == 2 * (60 // 8)
    assert_close(gan.decode(z), gan.aeot.decode(z), rtol=0, atol=0)  # the critic alone has learnt


def test_losses_of_aeotgan_by_hand(aeot):
    gan, x = AEOTGAN(SHAPE, aeot=copy.deepcopy(aeot), width=2, head_start=0), images(8)
    again = aeot.reconstruct(x)
    encoder = copy.deepcopy(gan.aeot.state_dict())
    values = gan.step(x)
    assert values["content"] == pytest.approx((again - x).square().mean().item(), rel=1e-4)
    with torch.no_grad():  # the critic has made its step, and one power iteration each time it was asked
        feature = (gan.critic.features(again) - gan.critic.features(x)).square().mean()
    assert values["feature"] == pytest.approx(feature.item(), rel=0.2)
    assert not torch.equal(gan.decode(torch.ones(1, 3)), aeot.decode(torch.ones(1, 3)))
    after = gan.aeot.state_dict()
    assert all(torch.equal(after[name], encoder[name]) for name in encoder if name.startswith(("encoder", "decoder")))


def test_aeotgan_with_a_fitted_aeot_is_saved_whole(aeot, tmp_path):
    gan = AEOTGAN(SHAPE, aeot=aeot, width=2, feature=0.0).fit(images(), steps=2, batch_size=8, progress=False)
    gan.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert_close(again.sample(4, 0), gan.sample(4, 0), rtol=0, atol=0)
    assert_close(again.reconstruct(images(3)), gan.reconstruct(images(3)), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "error", "wanted"),
    [
        ({"aeot": 3}, TypeError, "AEOTGAN: aeot must be an AEOT, got int"),
        ({"aeot": AEOT((2,), 2, width=2)}, ValueError, r"AEOTGAN: shape and d must be those of aeot, \(2,\) and 2"),
        ({"content": -1.0}, ValueError, "AEOTGAN: content and feature must be numbers >= 0, got -1.0 and 0.1"),
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
