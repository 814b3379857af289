"""Every argument of a constructor arrives where its docstring says."""

import inspect

import pytest
import torch
from torch.optim import Optimizer

from otgen.models import AEOT, AEOTGAN, MODELS

SHAPE = (1, 8, 8)
SMALL = {"d": 4, "width": 2}
OTHER = {
    "d": 3, "width": 3, "seed": 1, "network": "wae", "likelihood": "bernoulli",
    "lr": 0.03, "critic_lr": 0.03, "codes_lr": 0.03, "betas": (0.25, 0.75), "n_critic": 7, "pack": 3,
    "source": "normal", "angle_threshold": 0.5, "tol": 0.03, "beta": 3.0, "gamma": 0.3, "warmup": 3,
    "penalty_weight": 3.0, "clip": 0.3, "penalty": 3.0, "k": 3.0, "p": 3.0, "rate": 0.03, "codes": 3,
    "sampler_epochs": 3, "ae_epochs": 3, "content": 3.0, "feature": 3.0, "head_start": 3,
}  # fmt: skip
"""A value of each argument that is nobody's default."""

MAY_BE_ZERO = ("seed", "warmup", "head_start", "content", "feature")
OBJECTS = ("self", "shape", "device", "encoder", "decoder", "generator", "critic", "aeot")
ARGUMENTS = [
    (kind, name)
    for kind in MODELS
    for name in inspect.signature(MODELS[kind].__init__).parameters
    if name not in OBJECTS
]
NUMBERS = [(kind, name) for kind, name in ARGUMENTS if isinstance(OTHER.get(name), (int, float))]


def small(kind, **arguments):
    return MODELS[kind](SHAPE, **(SMALL | ({"codes": 2} if kind == "began" else {}) | arguments))


def other(kind, name):
    if name == "loss":
        return "bce" if kind in ("ae", "ae-ot") else "minimax"
    return OTHER[name]


def traces(model):
    """All that a constructor leaves behind, without what `save` writes down of its arguments."""
    found = {name: value.shape for name, value in model.state_dict().items()}
    for where, part in model.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, Optimizer):
                found[where, name] = [{k: v for k, v in group.items() if k != "params"} for group in value.param_groups]
            elif inspect.isroutine(value):
                found[where, name] = value.__name__
            elif isinstance(value, (bool, int, float, str, tuple, dict)) and not name.startswith("_"):
                found[where, name] = repr(value)
    return found


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, name in ARGUMENTS if name != "seed"])
def test_every_argument_leaves_a_trace(kind, name):
    assert traces(small(kind)) != traces(small(kind, **{name: other(kind, name)}))


@pytest.mark.parametrize("kind", MODELS)
def test_the_seed_decides_every_weight(kind):
    one, two = small(kind), small(kind, seed=1)
    for (where, p), q in zip(one.named_parameters(), two.parameters(), strict=True):
        assert p.dim() < 2 or p.numel() == 0 or not torch.equal(p, q), where


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_every_number_is_checked(kind, name):
    wrong = -1 if name in MAY_BE_ZERO else 0
    with pytest.raises(ValueError, match=rf"^\w+: .*\b{name}\b.* must be .*, got .*{wrong}"):
        small(kind, **{name: wrong})


RATES = {("wae-gan", "critic_optimiser"): "critic_lr", ("glann", "codes_optimiser"): "codes_lr"}
"""Whose rate an optimiser has; of the others it is `lr`."""


@pytest.mark.parametrize("kind", MODELS)
def test_every_optimiser_has_its_rate_and_moments(kind):
    """Models that ask for no moments have those of their papers or of Adam."""
    names = inspect.signature(MODELS[kind].__init__).parameters
    given = {"lr": 0.01, "critic_lr": 0.02, "codes_lr": 0.03, "betas": (0.25, 0.75)}
    model = small(kind, **{name: value for name, value in given.items() if name in names})
    betas = (0.5, 0.999) if kind in ("wae-gan", "wae-mmd", "glann", "ae-ot-gan") else (0.9, 0.999)
    for name, optimiser in ((name, value) for name, value in vars(model).items() if isinstance(value, Optimizer)):
        (group,) = optimiser.param_groups
        if name == "sampler_optimiser":  # Hoshen et al. 2019
            assert (group["lr"], group["weight_decay"]) == (1e-3, 1e-5)
            continue
        assert group["lr"] == given[RATES.get((kind, name), "lr")], name
        if "betas" in group:
            assert group["betas"] == (given["betas"] if "betas" in names else betas), name


def test_the_autoencoder_of_aeotgan_has_its_arguments():
    arguments = {"width": 3, "tol": 0.03, "seed": 1}
    inside, alone = AEOTGAN(SHAPE, 3, **arguments).aeot, AEOT(SHAPE, 3, **arguments)
    assert traces(inside) == traces(alone)
    for p, q in zip(inside.parameters(), alone.parameters(), strict=True):
        assert torch.equal(p, q)
