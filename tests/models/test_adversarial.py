"""What holds for every adversarial model; each model's own loss is tested in its own file."""

import math

import pytest
import torch
from fits import assert_same_state
from generators import Constant
from torch import nn
from torch.testing import assert_close

from otgen.models import BEGAN, GAN, MODELS, SNGAN, WGAN, WGANGP, WGANQC, Adversarial, Model, PacGAN, WGANDiv, load
from otgen.train import train

CLASSES = {name: cls for name, cls in MODELS.items() if issubclass(cls, Adversarial)}
each_class = pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)


def vectors(n=48, features=2, seed=0):
    return torch.randn(n, features, generator=torch.Generator().manual_seed(seed))


def images(n=48, seed=0):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_all_nine_are_listed():
    names = {"gan", "lsgan", "pacgan", "wgan", "wgan-gp", "wgan-div", "wgan-qc", "sngan", "began"}
    assert names <= set(CLASSES)
    assert len(set(CLASSES.values())) == len(CLASSES)


# --- every size ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2,), (50,), (1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 32, 32), (1, 64, 64)], ids=str)
@each_class
def test_every_size_trains_and_samples(cls, shape):
    model = cls(shape, 5, width=2, n_critic=1)
    values = model.step(torch.rand(4, *shape))
    assert list(values)[:2] == ["critic", "generator"]
    assert all(math.isfinite(value) for value in values.values())
    samples = model.sample(3)
    assert samples.shape == (3, *shape)
    assert not samples.requires_grad
    if len(shape) == 3:
        assert samples.min() > 0
        assert samples.max() < 1


def test_vectors_are_not_squashed():
    model = GAN((2,), 3, width=2)
    with torch.no_grad():
        list(model.generator.modules())[-2].bias.fill_(7.0)  # of the last linear layer; an identity follows
    assert (model.sample(50) > 1).all()


@each_class
def test_encoding_is_refused(cls):
    model = cls((2,), 3, width=2)
    for method in (model.encode, model.reconstruct):
        with pytest.raises(TypeError, match=f"{cls.__name__} cannot (encode|reconstruct): "):
            method(vectors())
    assert model.interpolate(torch.zeros(2, 3), torch.ones(2, 3), steps=4).shape == (2, 4, 2)


# --- taking turns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_critic", [1, 3])
@each_class
def test_the_generator_learns_every_n_critic_th_step(cls, n_critic):
    model = cls((2,), 3, width=2, n_critic=n_critic)
    for step in range(1, 8):
        critic, generator = weights(model.critic), weights(model.generator)
        model.step(vectors(16, seed=step))
        assert not torch.equal(weights(model.critic), critic)
        assert torch.equal(weights(model.generator), generator) == (step % n_critic != 0)


@pytest.mark.parametrize(
    ("cls", "n_critic"),
    [(GAN, 1), (PacGAN, 1), (WGAN, 5), (WGANGP, 5), (WGANDiv, 5), (WGANQC, 1), (SNGAN, 5), (BEGAN, 1)],
)
def test_papers_number_of_critic_steps(cls, n_critic):
    assert cls((2,), width=2).n_critic == n_critic


def test_the_generator_gets_noise_of_its_own_and_leaves_the_critic_alone():
    model, seen = GAN((2,), 3, width=2), []
    model.generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.step(vectors(16))
    assert [len(z) for z in seen] == [16, 16]
    assert not torch.equal(*seen)
    critic = weights(model.critic)
    model.critic_optimiser.step = lambda: None
    model.step(vectors(16))
    assert_close(weights(model.critic), critic, rtol=0, atol=0)


@each_class
def test_losses_are_those_before_the_step(cls):
    """The second step of the same model on the same batch differs, that of a copy does not."""
    a, b, x = cls((2,), 3, width=2, seed=4), cls((2,), 3, width=2, seed=4), vectors(16)
    first = a.step(x)
    assert b.step(x) == first
    assert a.step(x) != first


@each_class
def test_seed_decides_everything_and_spares_the_global_state(cls):
    before = torch.get_rng_state()
    models = [cls((1, 8, 8), 3, width=2, seed=seed) for seed in (1, 1, 2)]
    for model in models:
        for _ in range(2):
            model.step(images(8))
    assert_close(torch.get_rng_state(), before, rtol=0, atol=0)
    assert_same_state(models[0].state_dict(), models[1].state_dict())
    assert not torch.equal(weights(models[0].generator), weights(models[2].generator))


# --- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"n_critic": 4, "pack": 2}], ids=["default", "packed"])
@each_class
def test_resumed_run_is_bit_identical(cls, options, tmp_path):
    """Stopped between two turns of the generator; optimisers, noise, counter, control and power iteration go on."""
    whole, first, second = (cls((2,), 3, width=2, seed=3, **options) for _ in range(3))
    run = {"batch_size": 8, "progress": False}
    wanted = train(whole, vectors(), steps=10, **run)
    train(first, vectors(), steps=7, checkpoint=tmp_path / "a", **run)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.mul_(0.5)  # all of it must come from the file
    history = train(second, vectors(), steps=10, checkpoint=tmp_path / "a", resume=True, **run)
    assert {name: list(values) for name, values in history.items()} == {k: list(v) for k, v in wanted.items()}
    assert_same_state(second.state_dict(), whole.state_dict())


@pytest.mark.parametrize("data", [vectors(), images()], ids=["vectors", "images"])
@each_class
def test_saved_and_loaded_model_samples_and_goes_on_alike(cls, data, tmp_path):
    model = cls(tuple(data.shape[1:]), 3, width=2, pack=2, n_critic=2).fit(data, steps=3, batch_size=8, progress=False)
    model.save(tmp_path / "m")
    other = load(tmp_path / "m")
    assert type(other) is cls
    assert other.pack == other.n_critic == 2
    assert_close(other.sample(20, 5), model.sample(20, 5), rtol=0, atol=0)
    assert other.step(data[:8]) == model.step(data[:8])
    assert_same_state(other.state_dict(), model.state_dict())


@each_class
def test_bfloat16(cls):
    """Losses are means of float32 numbers, near those of full precision."""
    full, half = (cls((1, 8, 8), 3, width=2, pack=2, n_critic=1) for _ in range(2))
    full.fit(images(), steps=2, batch_size=16, progress=False)
    half.fit(images(), steps=2, batch_size=16, progress=False, amp=True)
    for name, values in full.history_.items():
        assert abs(values[0] - half.history_[name][0]) < 0.05
        assert values[0] != half.history_[name][0] or name == "k"
    assert half.sample(2).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert half._score(half._fake(4)).dtype == torch.float32


@pytest.mark.parametrize("cls", [WGANGP, WGANDiv, WGANQC])
def test_gradients_of_gradients_cannot_be_compiled(cls):
    with pytest.raises(ValueError, match=f"^train: {cls.__name__} takes gradients of gradients, which torch.compile"):
        cls((2,), 3, width=2).fit(vectors(), steps=1, batch_size=8, compile=True, progress=False)


# --- packing ---------------------------------------------------------------------------------------------------------


def test_packs_by_hand():
    model = GAN((2,), 3, width=2, pack=2)
    assert model._packs(torch.arange(10.0).view(5, 2)).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    model = GAN((3, 8, 8), 3, width=2, pack=2)
    x = torch.rand(4, 3, 8, 8)
    assert_close(model._packs(x), torch.stack([torch.cat([x[0], x[1]]), torch.cat([x[2], x[3]])]))
    assert GAN((2,), 3, width=2)._packs(x[:, 0, 0, :2]).shape == (4, 2)


@pytest.mark.parametrize("shape", [(2,), (3, 8, 8)], ids=str)
@each_class
def test_packs_are_all_real_or_all_generated(cls, shape):
    """Real samples are ones, generated ones zeros: a critic that saw a pack of both would see both numbers in it."""
    model = cls(shape, 3, width=2, pack=3, n_critic=1, generator=Constant(shape))
    seen, score = [], model._score
    model._score = lambda packs: (seen.append(packs.detach().clone()), score(packs))[1]
    model.step(torch.ones(12, *shape))
    real, fake, *between, last = seen
    assert len(between) == (cls in (WGANGP, WGANDiv, WGANQC))  # where the gradient's length is taken
    for packs in seen:
        assert packs.shape == (4, 3 * shape[0], *shape[1:])
    assert (real == 1).all()
    assert (fake == 0).all()
    assert (last == 0).all()


def test_a_pack_holds_different_samples():
    model, seen = GAN((2,), 3, width=2, pack=3), []
    model.critic.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    x = vectors(9)
    model.step(x)
    assert torch.equal(seen[0].view(9, 2), x)
    for packs in seen[1:]:
        assert len(packs.view(9, 2).unique(dim=0)) == 9


def test_what_does_not_fill_a_pack_is_left_over():
    model, seen = PacGAN((2,), 3, width=2, pack=3), []
    model.critic.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    model.step(vectors(11))
    assert seen == [3, 3, 3]
    with pytest.raises(
        ValueError, match=r"PacGAN.step: a batch must hold at least pack=3 samples, got 2; .* drop_last=True$"
    ):
        model.step(vectors(2))


def test_pacgan_packs_by_default_and_is_a_gan_otherwise():
    x = vectors(16)
    assert PacGAN((2,), 3).pack == 2
    assert PacGAN((2,), 3, width=2).step(x) == GAN((2,), 3, width=2, pack=2).step(x)


# --- own networks and what is refused --------------------------------------------------------------------------------


def test_networks_of_ones_own(tmp_path):
    def own():
        return {"generator": nn.Linear(3, 2), "critic": nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))}

    model = WGANGP((2,), 3, pack=2, **own()).fit(vectors(), steps=6, batch_size=8, progress=False)
    model.save(tmp_path / "m")
    with pytest.raises(ValueError, match=r"WGANGP was made with .* of your own"):
        load(tmp_path / "m")
    assert_close(load(tmp_path / "m", **own()).sample(9, 1), model.sample(9, 1), rtol=0, atol=0)


class Scores(nn.Sequential):
    """A critic of one's own with a layer before the last one."""

    def __init__(self, *layers):
        super().__init__(nn.Linear(2, 4), *layers, nn.Linear(4, 1), nn.Flatten(0))


@pytest.mark.parametrize("cls", [WGANGP, WGANDiv, WGANQC])
def test_batch_norm_is_refused_where_gradients_count(cls):
    with pytest.raises(ValueError, match=rf"^{cls.__name__}: critic must not have batch normalisation, which mixes"):
        cls((2,), 3, critic=Scores(nn.Sequential(nn.BatchNorm1d(4))))
    cls((2,), 3, critic=Scores(nn.LayerNorm(4)))
    GAN((2,), 3, critic=Scores(nn.BatchNorm1d(4))).step(vectors(8))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"d": 0}, "d must be a whole number >= 1, got 0"),
        ({"width": 0}, "width must be a whole number >= 1, got 0"),
        ({"n_critic": 0}, "n_critic must be a whole number >= 1, got 0"),
        ({"pack": 1.5}, "pack must be a whole number >= 1, got 1.5"),
        ({"lr": -1.0}, "lr must be a positive number, got -1.0"),
        ({"lr": math.nan}, "lr must be a positive number, got nan"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
        ({"device": "nowhere"}, "device must be one that torch finds here, got 'nowhere'"),
        ({"shape": (8, 8)}, r"shape must be \(features,\) or \(c, h, w\)"),
        ({"generator": nn.Linear(3, 5)}, r"generator must make \(b, 2\) from \(b, 3\), got \(b, 5\)"),
        ({"critic": nn.Linear(5, 1)}, r"critic must take \(b, 2\), but: "),
        ({"critic": "mine"}, "critic must be a torch.nn.Module, got str"),
    ],
)
@each_class
def test_bad_arguments(cls, options, wanted):
    options = {"shape": (2,), "d": 3, "width": 2, "pack": 1} | options
    with pytest.raises((ValueError, TypeError), match=f"^{cls.__name__}: {wanted}") as error:
        cls(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("betas", [(0.5,), (1.0, 0.5), (-0.1, 0.5), 0.5, ("a", "b")], ids=str)
@pytest.mark.parametrize("cls", [cls for cls in CLASSES.values() if cls is not WGAN])
def test_bad_betas(cls, betas):
    with pytest.raises(ValueError, match=rf"^{cls.__name__}: betas must be two numbers in \[0, 1\), got "):
        cls((2,), 3, width=2, betas=betas)


@pytest.mark.parametrize(
    ("cls", "options", "wanted"),
    [
        (GAN, {"loss": "wgan"}, "loss must be one of nonsaturating, minimax, got 'wgan'"),
        (PacGAN, {"loss": "wgan"}, "loss must be one of nonsaturating, minimax, got 'wgan'"),
        (WGAN, {"clip": 0}, "clip must be a positive number, got 0"),
        (WGANGP, {"penalty": -1}, "penalty must be a positive number, got -1"),
        (WGANDiv, {"k": 0}, "k must be a positive number, got 0"),
        (WGANDiv, {"p": 1}, "p must be above 1, or the critic's loss has no least value, got 1"),
        (WGANQC, {"gamma": 0}, "gamma must be a positive number, got 0"),
        (SNGAN, {"critic": Scores()}, "critic must have spectral normalisation .* got Scores without"),
        (BEGAN, {"gamma": 1.5}, r"gamma must lie in \(0, 1\], got 1.5"),
        (BEGAN, {"rate": 0}, "rate must be a positive number, got 0"),
        (BEGAN, {"codes": 0}, "codes must be a whole number >= 1, got 0"),
        (BEGAN, {"critic": nn.Linear(2, 1)}, r"critic must make \(b, 2\) from \(b, 2\), got \(b, 1\)"),
    ],
)
def test_bad_arguments_of_one(cls, options, wanted):
    with pytest.raises(ValueError, match=f"^{cls.__name__}: {wanted}"):
        cls((2,), 3, width=2, **options)


@pytest.mark.parametrize("batch", [images(4) * 255, torch.full((4, 1, 8, 8), math.nan), vectors(4)])
def test_bad_batches(batch):
    model = GAN((1, 8, 8), 3, width=2)
    with pytest.raises(ValueError, match=r"^GAN.step: images must "):
        model.step(batch)
    assert model.steps == 0


def test_the_face_is_kept():
    assert issubclass(Adversarial, Model)
    assert all(cls.__doc__ and str(year) in cls.__doc__ for cls, year in zip(CLASSES.values(), YEARS, strict=True))


YEARS = (2014, 2017, 2018, 2017, 2017, 2018, 2019, 2018, 2017)
