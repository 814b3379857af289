"""Models side by side on small images: the same networks, batches and number of them, and what each is scored by."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from otgen import data
from otgen.experiments.experiment import Context, Outcome, check_names
from otgen.metrics import LeNet, compare, memorisation, sharpness, train_lenet
from otgen.models import AE, AEOTGAN, MODELS, Model
from otgen.models.transport import pot_emd
from otgen.seeds import stream

SETS: dict[str, tuple[Callable[[], tuple[Tensor, Tensor]], tuple[int, int, int]]] = {
    "digits": (data.digits, (1, 8, 8)),
    "mnist": (data.mnist, (1, 28, 28)),
}
"""Data sets and the shapes of their images."""

FASTER = {"lr": 1e-3}

CHOICES: dict[str, dict[str, Any]] = {
    "wae-gan": {"critic_lr": 1e-4},
    "gan": FASTER,
    "lsgan": FASTER,
    "pacgan": FASTER,
    "wgan": {"lr": 5e-4},
    "wgan-gp": FASTER,
    "wgan-div": FASTER,
    "wgan-qc": FASTER,
    "sngan": FASTER,
    "began": {"codes": 16, "gamma": 1.0, "rate": 0.2, "lr": 3e-4},
}
"""What differs from a model's defaults, the papers', as those need more steps than small images are given."""

DATA = "data"
"""Stands where a model's name stands: the half that no model sees, scored against the other."""

SHOWN = 36
"""Images to look at."""

DIRECTIONS = 64
"""Of the sliced distances: all of them share these, so few will do."""


def images_of(name: str) -> tuple[Tensor, Tensor]:
    """Images (n, c, h, w) in [0, 1] and labels (n,) of one of `SETS`."""
    load, shape = SETS[name]
    x, labels = load()
    return x.view(-1, *shape), labels


def images_and_lenet(context: Context, name: str) -> tuple[Tensor, LeNet]:
    """Images of one of `SETS`, and the classifier of its labels, in whose features they are compared."""
    x, labels = images_of(name)
    return x, train_lenet(x, labels, seed=context.seed, cache=context.cache)


def check(settings: Any) -> None:
    """Refuse data sets and models that there are not, or not without a package that is missing."""
    check_names(settings, "sets", SETS)
    check_names(settings, "models", MODELS)
    if "wgan-qc" in settings["models"]:
        pot_emd("wgan-qc")  # before any work


def unlike(models: Sequence[str]) -> str:
    """Say which models are not trained with their defaults, or not like the others, in a sentence; "" if none."""
    said = {name: ", ".join(f"{key} {value:g}" for key, value in CHOICES.get(name, {}).items()) for name in models}
    said |= {name: "half of the batches for its autoencoder" for name in models if MODELS.get(name) is AEOTGAN}
    some = ", ".join(f"{name} ({what})" for name, what in said.items() if what)
    return f" Settings are the models' defaults but for {some}." if some else ""


def shuffled(x: Tensor, seed: int) -> Tensor:
    """Samples (n, ...) in an order by chance, to be parted into halves."""
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(stream(seed, "halves")))]


def halves(x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Part images (n, ...) by chance into two halves of as many: those that a model sees, and those it does not."""
    seen, unseen = shuffled(x, seed)[: 2 * (len(x) // 2)].chunk(2)
    return seen, unseen


def train(context: Context, name: str, x: Tensor, seed: int, **choices: Any) -> Model:
    """Train one model on images; `d`, `width`, `steps` and `batch` come from the settings.

    Args:
        context: Of the experiment.
        name: Of `MODELS`.
        x: Images, (n, c, h, w).
        seed: Of weights, order and noise.
        **choices: What else differs from the model's defaults, on top of `CHOICES`.

    Returns:
        The trained model.
    """
    s = context.settings
    steps, extra = s["steps"], CHOICES.get(name, {}) | choices
    if MODELS[name] is AEOTGAN:
        steps //= 2  # as many for its autoencoder as for the training against the critic
        extra["ae_epochs"] = max(1, steps // (len(x) // s["batch"]))
        extra["head_start"] = steps // 10
    kind: Callable[..., Model] = MODELS[name]
    model = kind(tuple(x.shape[1:]), s["d"], width=s["width"], seed=seed, device=context.device, **extra)
    return model.fit(x, steps=steps, batch_size=s["batch"], seed=seed, progress=False)


def score(context: Context, place: str, name: str, repeat: int) -> Outcome:
    """Train a model on one half of the data, draw as many images, and score them beside the half it has not seen.

    An autoencoder, which cannot generate, shows its reconstructions of what it was trained on. FID is against the
    unseen half, so copies gain nothing; the data's own score, one half against the other, is of as many images. Copies
    show in the distance to the nearest image of the half that was seen over that of the other, in the features of the
    FID: 1 for new images, 0 for copies. What it is for data, three thirds say.
    """
    x, lenet = images_and_lenet(context, place)
    seed = context.seed + repeat
    seen, unseen = halves(x, seed)
    half = len(seen)
    if name == DATA:
        x = torch.cat([seen, unseen])
        made, thirds = seen, x[: 3 * (len(x) // 3)].chunk(3)
    else:
        model = train(context, name, seen, seed)
        made = model.reconstruct(seen) if MODELS[name] is AE else model.sample(half, generator=stream(seed, "measured"))
        made = made.cpu().clamp(0, 1)
        thirds = (made, seen, unseen)
    (report,) = compare(unseen, made, lenet, ("FID",), seed=seed)
    near = memorisation(*map(lenet, thirds), seed=seed)
    values: dict[str, Any] = {
        "set": place,
        "model": name,
        "repeat": repeat,
        "n": half,
        "metric": report.name,
        "accuracy": lenet.accuracy,
        "fid": report.score.value,
        "fid_error": report.score.spread,
        "ratio": near.ratio.value,
        "nearer": near.nearer.value,
        "sharpness": sharpness(x if name == DATA else made).value,
    }
    return Outcome(values, {"images": made[:SHOWN].clone()})
