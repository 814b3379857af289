"""The face that all models have in common: what holds for every one, and what a newcomer's model gets for free."""

import gc
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import torch
from fits import assert_same_state
from small_models import Mean, data, fit, small
from torch import nn
from torch.testing import assert_close

from otgen.models import AE, AEOT, AEOTGAN, MODELS, VAE, Autoencoder, Generative, Model, load
from otgen.models.state import as_generator, evaluating

SHAPES = [(2,), (1, 8, 8)]

each_model = pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


# --- every model -----------------------------------------------------------------------------------------------------


@each_shape
@each_model
def test_torchs_default_device_changes_nothing(kind, shape, tmp_path):
    model = fit(small(kind, shape), data(shape))
    samples = model.sample(5, generator=1) if isinstance(model, Generative) else None
    with torch.device("meta"):  # without memory: whatever is made there by mistake cannot be read
        new = small(kind, shape)
        model.save(tmp_path / "m")
        again = load(tmp_path / "m")
        if samples is not None:
            assert torch.equal(again.sample(5, generator=1), samples)
    assert {part.device.type for part in new.parameters()} == {"cpu"}


@each_model
def test_a_caller_without_gradients_gets_the_same_model(kind):
    plain = fit(small(kind, (2,)), data((2,)))
    with torch.no_grad():
        model = fit(small(kind, (2,)), data((2,)))
    assert_same_state(model.state_dict(), plain.state_dict())


@each_model
def test_a_models_memory_is_free_once_nobody_has_it(kind):
    model = fit(small(kind, (2,)), data((2,)))
    alive = weakref.ref(model)
    gc.disable()  # which may be a long time in coming
    try:
        del model
        assert alive() is None
    finally:
        gc.enable()


@each_shape
@each_model
def test_a_saved_model_is_the_same_model(kind, shape, tmp_path, monkeypatch):
    model, x = fit(small(kind, shape, seed=3), data(shape)), data(shape)
    model.save(tmp_path / "m")
    for module, name in [(pickle, "loads"), (pickle, "load"), (pickle, "Unpickler"), (torch, "load")]:
        monkeypatch.setattr(module, name, None)
    torch.manual_seed(1)  # nothing may hang on torch's global state
    again = load(tmp_path / "m")
    assert type(again) is kind
    assert again.recipe == model.recipe
    assert {k: v.tolist() for k, v in again.history_.items()} == {k: v.tolist() for k, v in model.history_.items()}
    assert_same_state(again.state_dict(), model.state_dict())
    if isinstance(model, Generative):
        assert_close(again.sample(5, 7), model.sample(5, 7), rtol=0, atol=0)
        assert not torch.equal(model.sample(5, 7), model.sample(5, 8))
    else:
        assert_close(again.reconstruct(x), model.reconstruct(x), rtol=0, atol=0)
    fit(model, x)
    fit(again, x)
    assert_same_state(again.state_dict(), model.state_dict())


@each_shape
@each_model
def test_a_stopped_run_goes_on_exactly(kind, shape, tmp_path):
    x, path = data(shape), tmp_path / "c"
    whole = fit(small(kind, shape), x, steps=7)
    first = fit(small(kind, shape), x, steps=7, checkpoint=path, callbacks=[lambda model, step, values: step == 3])
    assert {len(values) for values in first.history_.values()} == {3}
    rest = small(kind, shape)
    with torch.no_grad():
        for parameter in rest.parameters():
            parameter.mul_(0.5)
    fit(rest, x, steps=7, checkpoint=path, resume=True)
    for name in whole.history_:
        np.testing.assert_array_equal(rest.history_[name], whole.history_[name], err_msg=name)
    assert_same_state(rest.state_dict(), whole.state_dict())


@each_shape
@each_model
def test_what_a_model_makes_has_the_datas_shape_and_range(kind, shape):
    model, x = fit(small(kind, shape), data(shape)), data(shape, 4)
    assert all(values.shape == (4,) for values in model.history_.values())
    z = torch.randn(4, model.d)
    ways = {"decode": lambda: model.decode(z), "sample": lambda: model.sample(4)}
    if isinstance(model, Autoencoder) or kind is AEOTGAN:
        assert model.encode(x).shape == (4, model.d)
        ways["reconstruct"] = lambda: model.reconstruct(x)
        ways["interpolate"] = lambda: model.interpolate(x[:2], x[2:], steps=2).flatten(0, 1)
    else:
        ways["interpolate"] = lambda: model.interpolate(z[:2], z[2:], steps=2).flatten(0, 1)
    if not isinstance(model, Generative):
        del ways["sample"]
    for name, way in ways.items():
        made = way()
        assert made.shape == (4, *shape), name
        assert not made.requires_grad
        assert made.isfinite().all()
        assert len(shape) == 1 or (made.min() >= 0 and made.max() <= 1)


@each_model
def test_training_and_sampling_spare_the_global_state(kind):
    before = torch.get_rng_state()
    a, b = (fit(small(kind, (2,), seed=4), data((2,))) for _ in range(2))
    assert_same_state(a.state_dict(), b.state_dict())
    if isinstance(a, Generative):
        a.sample(3, 0)
        a.sample(3, torch.Generator().manual_seed(1))
    assert_close(torch.get_rng_state(), before, rtol=0, atol=0)


@each_model
def test_bad_arguments_are_refused_in_one_line(kind):
    cases = [
        (
            {"shape": (8, 8)},
            ValueError,
            r"shape must be \(features,\) or \(c, h, w\), whole numbers >= 1, got \(8, 8\)",
        ),
        ({"shape": (0,)}, ValueError, "shape must be"),
        ({"shape": 3}, ValueError, "shape must be"),
        ({"shape": (2,), "d": 0}, ValueError, "d must be a whole number >= 1, got 0"),
        ({"shape": (2,), "width": 0}, ValueError, "width must be a whole number >= 1, got 0"),
        ({"shape": (2,), "lr": -1.0}, ValueError, "lr must be a positive number, got -1.0"),
        ({"shape": (2,), "lr": float("nan")}, ValueError, "lr must be a positive number, got nan"),
        ({"shape": (2,), "lr": float("inf")}, ValueError, "lr must be a positive number, got inf"),
        ({"shape": (2,), "seed": -1}, ValueError, "seed must be a whole number >= 0"),
        ({"shape": (2,), "seed": 2**63}, ValueError, "seed must be a whole number >= 0 and below 2"),
        ({"shape": (2,), "seed": True}, ValueError, "seed must be a whole number >= 0"),
        ({"shape": (2,), "device": None}, ValueError, "device must be one that torch finds here, got None"),
        ({"shape": (2,), "device": "abacus"}, ValueError, "device must be one that torch finds here, got 'abacus'"),
        ({"shape": (2,), "shoes": 2}, TypeError, "unexpected keyword argument 'shoes'"),
    ]
    for arguments, error, wanted in cases:
        with pytest.raises(error, match=wanted) as caught:
            kind(**arguments)
        assert "\n" not in str(caught.value)


@each_model
def test_data_that_do_not_fit_are_refused_before_any_work(kind):
    model = small(kind, (1, 8, 8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"fit: images must lie in \[0, 1\], got 0 to 255: take x / 255"):
        fit(model, torch.cat([torch.zeros(9, 1, 8, 8), torch.full((9, 1, 8, 8), 255.0)]))
    with pytest.raises(ValueError, match=r"must have shape \(n, 1, 8, 8\), got \(48, 2\)"):
        fit(model, data((2,)))
    assert_same_state(model.state_dict(), before)


# --- what makes no sense ---------------------------------------------------------------------------------------------


def test_methods_without_a_way_say_what_to_do():
    mean, ae = Mean((2,)), AE((2,), width=2)
    x = data((2,), 3)
    for call, wanted in [
        (lambda: ae.sample(3), "AE cannot sample: fit an OTPrior to its codes, or use AEOT"),
        (lambda: mean.encode(x), "Mean cannot encode: it has no encoder"),
        (lambda: mean.reconstruct(x), "Mean cannot reconstruct: it has no encoder"),
        (
            lambda: MODELS["glann"]((2,), width=2).encode(x),
            "GLANN cannot encode: it learns one code per train",
        ),
        (lambda: MODELS["glann"]((2,), width=2).step(x), "GLANN cannot step: .* call fit"),
    ]:
        with pytest.raises(TypeError, match=f"^{wanted}"):
            call()


def test_arguments_of_methods():
    mean = Mean((2,))
    for n in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="Mean.sample: n must be a whole number >= 1, got"):
            mean.sample(n)
    with pytest.raises(TypeError, match="generator must be a torch.Generator, a seed or None, got str"):
        mean.sample(2, "0")
    with pytest.raises(ValueError, match=r"Mean.decode: codes must have shape \(n, 1\), got \(3, 2\)"):
        mean.decode(torch.zeros(3, 2))
    with pytest.raises(TypeError, match="Mean.decode: codes must be a torch tensor, got list"):
        mean.decode([1.0])
    for steps in (1, 0, 2.0, True):
        with pytest.raises(ValueError, match="Mean.interpolate: steps must be a whole number >= 2, got"):
            mean.interpolate(torch.zeros(2, 1), torch.zeros(2, 1), steps=steps)
    with pytest.raises(TypeError, match="Mean.interpolate: codes must be a torch tensor, got list"):
        mean.interpolate([1.0], [2.0])
    with pytest.raises(ValueError, match=r"Mean.interpolate: codes must have shape \(n, 1\), got \(2, 3\)"):
        mean.interpolate(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"AE.interpolate: vectors must have shape \(n, 2\), got \(2, 3\)"):
        AE((2,), width=2).interpolate(torch.zeros(2, 3), torch.zeros(2, 3))
    ae, x = AE((2,), width=2), torch.zeros(2, 2)
    for call in (ae.encode, ae.decode, ae.reconstruct, lambda x, batch_size: mean.sample(3, 0, batch_size)):
        for batch_size in (0, -1, 2.5):
            with pytest.raises(ValueError, match="batch_size must be a whole number >= 1, got"):
                call(x, batch_size=batch_size)
    with pytest.raises(ValueError, match=r"AE.encode: vectors must have shape \(n, 2\), got \(0, 5\)$"):
        ae.encode(torch.empty(0, 5))
    with pytest.raises(ValueError, match=r"AE.reconstruct: vectors must have shape \(n, 2\), got \(1, 5\)$"):
        ae.reconstruct(torch.zeros(1, 5))
    with pytest.raises(ValueError, match=r"AE.step: vectors must be at least one, got none$"):
        ae.step(torch.empty(0, 2))
    for bad in (float("inf"), -float("inf")):
        with pytest.raises(ValueError, match="AE.encode: vectors must be finite, got"):
            ae.encode(torch.tensor([[bad, 0.0]]))
    with pytest.raises(ValueError, match=r"a and b must have one shape, got \(2, 1\) and \(3, 1\)"):
        mean.interpolate(torch.zeros(2, 1), torch.zeros(3, 1))


def test_interpolation_is_a_straight_line_between_codes():
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[4.0], [1.0]])
    wanted = torch.tensor([[0.0, 0.1, 0.2, 0.3, 0.4], [0.1] * 5])[..., None].expand(2, 5, 2)
    assert_close(Mean((2,)).interpolate(a, b, steps=5), wanted)
    ae, x = AE((2,), width=4), data((2,), 2)
    path = ae.interpolate(x[:1], x[1:], steps=3)[0]
    assert_close(path[[0, 2]], ae.reconstruct(x))
    assert_close(path[1:2], ae.decode(ae.encode(x).mean(0, keepdim=True)))


def test_sampling_uses_the_generator_and_leaves_modes_alone():
    mean = Mean((2,))
    assert_close(mean.sample(3, 0), mean.sample(3, as_generator(0)), rtol=0, atol=0)
    assert_close(mean.sample(3, 0), mean.decode(torch.randn(3, 1, generator=as_generator(0))), rtol=0, atol=0)
    assert not torch.equal(torch.randn(3, generator=Mean((2,), seed=1).rng), torch.randn(3, generator=Mean((2,)).rng))
    data_of_the_same_seed = torch.randn(3, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(torch.randn(3, generator=as_generator(0)), data_of_the_same_seed)
    assert not torch.equal(torch.randn(3, generator=mean.rng), data_of_the_same_seed)
    torch.manual_seed(0)
    a = mean.sample(3)
    assert not torch.equal(a, mean.sample(3))
    vae = VAE((1, 8, 8), width=2, network="wae")
    vae.encoder.eval()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    vae.sample(4, 0)
    vae.encode(data((1, 8, 8), 4))
    assert not any(part.training for part in vae.encoder.modules())
    assert all(part.training for part in vae.decoder.modules())
    assert_same_state(vae.state_dict(), before)


def test_no_more_than_a_batch_goes_through_a_network_at_a_time():
    ae, seen = AE((2,), d=3, width=2), []
    for network in (ae.encoder, ae.decoder):
        network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    ae.decode(ae.encode(data((2,), 10), batch_size=4), batch_size=6)
    assert seen == [4, 4, 2, 6, 4]


def test_numbers_of_numpy_are_numbers(tmp_path):
    x = data((2,))
    one, other = VAE((2,), width=2, seed=3), VAE((2,), width=2, seed=np.int64(3))
    fit(one, x, batch_size=8, steps=2)
    fit(other, x, batch_size=np.int64(8), steps=np.int32(2), seed=np.int64(0), checkpoint=tmp_path / "c")
    assert_same_state(one.state_dict(), other.state_dict())
    assert_close(one.sample(2, 3), other.sample(np.int64(2), np.int64(3)), rtol=0, atol=0)
    assert other.interpolate(x[:1], x[1:2], steps=np.int64(5)).shape == (1, 5, 2)
    other.save(tmp_path / "m")
    assert list(load(tmp_path / "m").history_) == list(one.history_) == ["loss", "reconstruction", "kl"]


def test_channels_last_are_not_reshaped():
    with pytest.raises(ValueError, match=r"got \(8, 8, 8, 3\): take x.permute\(0, 3, 1, 2\)$"):
        fit(AE((3, 8, 8), width=2), torch.rand(8, 8, 8, 3))
    with pytest.raises(ValueError, match=r"got \(8, 3, 4, 16\)$"):
        fit(AE((3, 8, 8), width=2), torch.rand(8, 3, 4, 16))


@each_model
def test_training_goes_on_in_another_precision(kind):
    model, x = small(kind, (2,)), data((2,))
    fit(model, x, steps=3)
    fit(model.double(), x, steps=3)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert all(np.isfinite(values).all() for values in model.history_.values())


def test_threads_change_no_model():
    """Torch has one generator for all threads, and a model one mode: each is used in turn."""
    x = data((2,))

    def state(seed):
        model = VAE((2,), width=2, seed=seed)
        fit(model, x, steps=20)
        return model.state_dict()

    alone = [state(seed) for seed in range(6)]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(6) as pool:
        for one, other in zip(alone, pool.map(state, range(6)), strict=True):
            assert_same_state(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_part_stays_as_another_thread_wants_it():
    whole, inside, leave, modes = nn.Sequential(nn.Linear(2, 2)), Event(), Event(), []

    def use_a_part():
        with evaluating(whole[0]):
            inside.set()
            leave.wait()
            modes.append(whole[0].training)

    with ThreadPoolExecutor(1) as pool:
        with evaluating(whole):
            used = pool.submit(use_a_part)
            inside.wait()
        assert whole.training
        leave.set()
        used.result()
    assert modes == [False]
    assert whole[0].training


def test_threads_leave_modes_as_they_were():
    net = nn.Sequential(nn.Linear(2, 64), nn.Dropout(0.5), nn.Linear(64, 3))
    ae, x = AE((2,), d=3, width=2, encoder=net), data((2,), 500)
    wanted = ae.encode(x)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ae.encode(x, batch_size=10), range(40)))
    assert all(torch.allclose(codes, wanted) for codes in found)
    assert all(part.training for part in ae.modules())


# --- networks of one's own -------------------------------------------------------------------------------------------


def test_a_network_of_ones_own_is_taken_and_checked():
    net = nn.Linear(1, 2)
    assert Mean((2,), net=net).net is net
    for bad, error, wanted in [
        (3, TypeError, "Mean: net must be a torch.nn.Module, got int"),
        (nn.Linear(1, 3), ValueError, r"Mean: net must make \(b, 2\) from \(b, 1\), got \(b, 3\)"),
        (nn.Linear(4, 2), ValueError, r"Mean: net must take \(b, 1\), but: "),
    ]:
        with pytest.raises(error, match=wanted):
            Mean((2,), net=bad)


@pytest.mark.parametrize("kind", [AE, VAE, MODELS["wae-mmd"], MODELS["wae-gan"], AEOT])
def test_an_autoencoder_of_ones_own_networks(kind, tmp_path):
    def nets():
        torch.manual_seed(0)
        size = 6 if kind is VAE else 3
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, size), nn.BatchNorm1d(size))
        return encoder, nn.Sequential(nn.Linear(3, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))

    encoder, decoder = nets()
    tol = {"tol": 5.0} if kind is AEOT else {}
    model = fit(kind((1, 8, 8), 3, encoder=encoder, decoder=decoder, **tol), data((1, 8, 8)))
    assert model.encoder is encoder
    z = torch.randn(2, 3)
    assert_close(model.decode(z), decoder.eval()(z).detach())  # as it is: no second sigmoid
    model.save(tmp_path / "m")
    with pytest.raises(ValueError, match=f"{kind.__name__} was made with encoder=a Sequential of your own: load"):
        load(tmp_path / "m")
    encoder, decoder = nets()
    again = load(tmp_path / "m", encoder=encoder, decoder=decoder)
    assert_close(again.reconstruct(data((1, 8, 8))), model.reconstruct(data((1, 8, 8))), rtol=0, atol=0)


def test_a_look_at_a_network_leaves_its_batch_statistics_alone():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    AE((3,), 2, width=2, encoder=net)
    assert net[1].num_batches_tracked == 0
    assert net.training


class Reshaped(nn.Linear):
    """A layer whose output is taken for another number of samples."""

    def forward(self, x):
        return super().forward(x).view(-1, 2)


class Summed(nn.Linear):
    """A layer that adds all scores up."""

    def forward(self, x):
        return super().forward(x).sum()


def test_networks_that_lose_the_batch_are_refused_by_what_they_make():
    with pytest.raises(ValueError, match=r"AE: encoder must make \(b, 2\) from \(b, 3\), got \(4, 2\) from b = 2$"):
        AE((3,), 2, width=2, encoder=Reshaped(3, 4))
    with pytest.raises(ValueError, match=r"GAN: critic must make \(b,\) from \(b, 3\), got \(\) from b = 2$"):
        MODELS["gan"]((3,), 2, width=2, critic=Summed(3, 1))
    with pytest.raises(ValueError, match=r"GAN: critic must make \(b,\) from \(b, 3\), got \(b, 1\)$"):
        MODELS["gan"]((3,), 2, width=2, critic=nn.Linear(3, 1))


def test_networks_without_parameters_are_refused_where_they_must_learn():
    flat = nn.Flatten(0)
    for build, wanted in [
        (
            lambda: AE((2,), 2, encoder=nn.Identity(), decoder=nn.Identity()),
            "AE: encoder or decoder .* got Identity and",
        ),
        (lambda: MODELS["wae-gan"]((2,), 1, width=2, critic=flat), "WAEGAN: critic .* got Flatten"),
        (lambda: MODELS["glann"]((2,), 2, generator=nn.Identity()), "GLANN: generator .* got Identity"),
        (lambda: MODELS["gan"]((2,), 2, generator=nn.Identity()), "GAN: generator .* got Identity"),
    ]:
        with pytest.raises(ValueError, match=wanted.replace(".*", "must have parameters to learn,")):
            build()
    AE((2,), 2, width=2, encoder=nn.Identity())


# --- models of one's own ---------------------------------------------------------------------------------------------


def test_a_model_of_ones_own_trains_and_resumes(tmp_path):
    x = data((2,)) + 3
    model = Mean((2,)).fit(x, steps=9, batch_size=8, progress=False)
    assert_close(model.mean.detach(), x.mean(0), atol=0.3, rtol=0)
    with pytest.raises(TypeError, match="save: an argument of the constructor cannot be written down: Generator"):
        Mean((2,), other=torch.Generator()).save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_model_must_have_its_step():
    with pytest.raises(TypeError, match="abstract method"):
        type("NoStep", (Model,), {})((2,))


@pytest.mark.parametrize("kind", [AE, VAE])
def test_networks_that_cannot_learn_are_refused(kind):
    networks = {name: nn.Sequential(nn.Flatten(), nn.LazyLinear(k)) for name, k in (("encoder", 8), ("decoder", 2))}
    networks["encoder"] = nn.Linear(2, 2 if kind is AE else 4)
    networks["decoder"] = nn.Linear(2, 2)
    for network in networks.values():
        network.requires_grad_(False)
    with pytest.raises(ValueError, match="must have parameters to learn"):
        kind((2,), d=2, **networks)


def test_cross_entropy_wants_a_decoder_that_makes_shares():
    decoder = nn.Sequential(nn.Linear(4, 64), nn.Unflatten(1, (1, 8, 8)))
    model = AE((1, 8, 8), d=4, width=2, decoder=decoder, loss="bce")
    with pytest.raises(ValueError, match=r"AE: decoder must make numbers in \[0, 1\] for cross-entropy, as one that"):
        model.step(torch.rand(8, 1, 8, 8))
