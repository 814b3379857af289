import pytest
import torch
from fits import assert_same_state
from torch import nn
from torch.nn.functional import binary_cross_entropy
from torch.testing import assert_close

from otgen.models import AE, MODELS, VAE, Generative, Model, autoencoder

SHAPE = (1, 8, 8)


def blobs(n, shape=SHAPE, seed=0):
    """Images (n, c, h, w) of one bright spot each: a set with two degrees of freedom."""
    generator = torch.Generator().manual_seed(seed)
    c, h, w = shape
    centre = torch.rand(n, 2, generator=generator) * 0.6 + 0.2
    rows, columns = torch.linspace(0, 1, h).view(1, h, 1), torch.linspace(0, 1, w).view(1, 1, w)
    square = (rows - centre[:, 0].view(n, 1, 1)) ** 2 + (columns - centre[:, 1].view(n, 1, 1)) ** 2
    return torch.exp(-30 * square)[:, None].repeat(1, c, 1, 1)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 11, 9), (1, 28, 28)])
def test_shapes(shape):
    ae = AE(shape, 5, width=4)
    x = torch.rand(3, *shape)
    z = ae.encode(x)
    assert z.shape == (3, 5)
    assert ae.decode(z).shape == (3, *shape)
    assert ae.reconstruct(x).shape == (3, *shape)
    assert not z.requires_grad
    assert not ae.decode(z).requires_grad
    assert ae.encode(x[:0]).shape == (0, 5)
    assert ae.decode(z[:0]).shape == (0, *shape)


def test_batch_size_changes_nothing_but_memory():
    ae, x = AE(SHAPE, 3, width=4), blobs(7)
    assert_close(ae.encode(x, batch_size=2), ae.encode(x))
    assert_close(ae.reconstruct(x, batch_size=3), ae.decode(ae.encode(x)))
    seen = []
    ae.encoder.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    ae.encode(x, batch_size=3)
    assert seen == [3, 3, 1]


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_training_reduces_the_loss(loss):
    ae, x = AE(SHAPE, 4, width=8, lr=3e-3, loss=loss), blobs(64)
    before = (ae.reconstruct(x) - x).square().sum() / 64
    first = ae.step(x)["loss"]
    for _ in range(100):
        last = ae.step(x)["loss"]
    after = (ae.reconstruct(x) - x).square().sum() / 64
    floor = 0 if loss == "mse" else torch.special.entr(torch.stack([x, 1 - x]).double()).sum().item() / 64
    assert 0 < last - floor < 0.05 * (first - floor)
    assert 0 < after < 0.05 * before


def test_loss_is_per_image_summed_over_pixels():
    ae, x = AE(SHAPE, 2, width=4), blobs(5)
    wanted = sum(((ae.reconstruct(image[None]) - image) ** 2).sum().item() for image in x) / 5
    assert ae.step(x) == {"loss": pytest.approx(wanted, rel=1e-5)}


def test_seed_decides_the_weights_and_spares_the_global_state():
    state = torch.get_rng_state()
    a, b, c = AE(SHAPE, 2, width=4, seed=1), AE(SHAPE, 2, width=4, seed=1), AE(SHAPE, 2, width=4, seed=2)
    assert_close(torch.get_rng_state(), state, rtol=0, atol=0)
    a.step(blobs(5))
    b.step(blobs(5))
    assert_close(torch.get_rng_state(), state, rtol=0, atol=0)
    assert_same_state(a.state_dict(), b.state_dict())
    assert (a.encoder[0].weight - c.encoder[0].weight).abs().min() > 1e-5


def test_state_dict_holds_the_optimiser():
    """A copy made from the state goes on as the original does; one with fresh Adam moments does not."""
    x = blobs(16)
    a, b, weights_only = (AE(SHAPE, 2, width=4, seed=seed) for seed in (0, 1, 1))
    for _ in range(3):
        a.step(x)
    b.load_state_dict(a.state_dict())
    weights_only.load_state_dict({k: v for k, v in a.state_dict().items() if not k.startswith("optimiser.")})
    assert all(isinstance(value, torch.Tensor) for value in a.state_dict().values())
    for model in (a, b, weights_only):
        model.step(x)
    assert_same_state(a.state_dict(), b.state_dict())
    assert (a.encoder[0].weight - weights_only.encoder[0].weight).abs().max() > 1e-5


def test_a_trained_model_becomes_a_fresh_one_again():
    trained, fresh = AE(SHAPE, 2, width=4), AE(SHAPE, 2, width=4)
    trained.step(blobs(4))
    trained.load_state_dict(fresh.state_dict())
    for model in (trained, fresh):
        model.step(blobs(4))
    assert_same_state(trained.state_dict(), fresh.state_dict())


def test_loaded_state_is_a_copy():
    a, b = AE(SHAPE, 2, width=4), AE(SHAPE, 2, width=4)
    a.step(blobs(4))
    b.load_state_dict(a.state_dict())
    before = {name: value.clone() for name, value in a.state_dict().items()}
    b.step(blobs(4))
    assert_same_state(a.state_dict(), before)


def test_state_of_a_model_inside_another():
    class Pair(Model):
        def __init__(self, seed):
            super().__init__((2,))
            self.ae = AE(SHAPE, 2, width=4, seed=seed)
            self.noise = torch.Generator().manual_seed(seed)
            self.weight = torch.nn.Parameter(torch.ones(2))
            self.rms = torch.optim.RMSprop([self.weight], lr=0.1)

        def step(self, batch):
            self.weight.grad = torch.randn(2, generator=self.noise)
            self.rms.step()
            return self.ae.step(batch)

    a, b, x = Pair(0), Pair(1), blobs(4)
    a.step(x)
    state = {name: value.clone() for name, value in a.state_dict().items()}
    assert {"ae.optimiser.0.exp_avg", "rms.0.square_avg", "noise"} < state.keys()
    b.load_state_dict(state)
    a.step(x)
    b.step(x)
    assert_same_state(a.state_dict(), b.state_dict())
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "noise"'):
        b.load_state_dict({name: value for name, value in state.items() if name != "noise"})
    with pytest.raises(RuntimeError, match=r"noise: .*"):
        b.load_state_dict(state | {"noise": torch.zeros(3)})


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("optimiser.0.exp_avg", torch.zeros(3), r"optimiser.0.exp_avg: shape must be \(4, 1, 3, 3\), got \(3,\)"),
        ("optimiser.18.step", torch.zeros(()), "optimiser.18.step: there are 18 parameters"),
        ("optimiser.x.step", torch.zeros(()), "optimiser.x.step: there are 18 parameters"),
        ("encoder.0.weight", torch.zeros(3), "size mismatch for encoder.0.weight"),
        ("other", torch.zeros(3), 'Unexpected key.* "other"'),
    ],
)
def test_state_that_does_not_fit(key, value, wanted):
    ae = AE(SHAPE, 2, width=4)
    ae.step(blobs(4))
    with pytest.raises(RuntimeError, match=wanted):
        ae.load_state_dict(ae.state_dict() | {key: value})


def test_contract():
    assert MODELS["ae"] is AE
    assert issubclass(AE, Model)
    assert not issubclass(AE, Generative)
    with pytest.raises(TypeError, match="^AE cannot sample: fit an OTPrior to its codes, or use AEOT$"):
        AE(SHAPE, 2, width=4).sample(3)
    with pytest.raises(TypeError, match="abstract method"):
        type("NoSample", (Generative,), {"step": lambda self, batch: {}})()
    with pytest.raises(TypeError, match="abstract method"):
        type("NoStep", (Model,), {})()


@pytest.mark.parametrize(
    ("wanted", "arguments"),
    [
        (r"AE: shape must be \(features,\) or \(c, h, w\), whole numbers >= 1, got \(8, 8\)", {"shape": (8, 8)}),
        ("AE: d must be a whole number >= 1, got 0", {"d": 0}),
        ("AE: lr must be a positive number, got 0", {"lr": 0}),
        ("AE: lr must be a positive number, got nan", {"lr": float("nan")}),
        ("AE: loss must be one of mse, bce, got 'l1'", {"loss": "l1"}),
        ("AE: seed must be a whole number >= 0 and below 2.63, got -1", {"seed": -1}),
    ],
)
def test_bad_arguments(wanted, arguments):
    with pytest.raises(ValueError, match=wanted):
        AE(**({"shape": SHAPE, "d": 2} | arguments))


@pytest.mark.parametrize("method", ["step", "encode", "reconstruct"])
def test_bad_images(method):
    ae, x = AE(SHAPE, 2, width=4), blobs(3)
    call = getattr(ae, method)
    with pytest.raises(ValueError, match=r"images must have shape \(n, 1, 8, 8\), got \(3, 64\)"):
        call(x.flatten(1))
    with pytest.raises(ValueError, match=r"images must have shape \(n, 1, 8, 8\), got \(1, 8, 8\)"):
        call(x[0])
    with pytest.raises(TypeError, match=r"images must be torch.float32 like the model, got torch.float64"):
        call(x.double())
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], got -1 to "):
        call(x.index_fill(0, torch.tensor(0), -1.0))
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], got .* to 255"):
        call(x.index_fill(0, torch.tensor(2), 255.0))
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], got nan to nan"):
        call(x.index_fill(0, torch.tensor(1), float("nan")))


def test_bad_codes_and_empty_batch():
    ae = AE(SHAPE, 2, width=4)
    with pytest.raises(ValueError, match=r"AE.decode: codes must have shape \(n, 2\), got \(5, 3\)"):
        ae.decode(torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"AE.step: images must be at least one, got none"):
        ae.step(blobs(3)[:0])


@pytest.mark.parametrize("kind", [AE, VAE])
def test_cross_entropy_of_a_decoder_of_ones_own_is_left_out_of_autocast(kind, monkeypatch):
    """That of a GPU refuses it."""
    seen = []

    def watch(samples, x, reduction):
        seen.append((torch.is_autocast_enabled("cpu"), samples.dtype))
        return binary_cross_entropy(samples, x, reduction=reduction)

    monkeypatch.setattr(autoencoder, "binary_cross_entropy", watch)
    decoder = nn.Sequential(nn.Linear(2, 64), nn.Sigmoid(), nn.Unflatten(1, SHAPE))
    settings = {"loss": "bce"} if kind is AE else {"likelihood": "bernoulli"}
    kind(SHAPE, 2, width=2, decoder=decoder, **settings).fit(blobs(8), steps=1, batch_size=8, progress=False, amp=True)
    assert seen == [(False, torch.float32)]
