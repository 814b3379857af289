"""Models side by side on small images: the same networks, batches and number of them, and what each is scored by."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from otgen import data
from otgen.experiments.experiment import Context, Outcome
from otgen.metrics import compare, sharpness, train_lenet
from otgen.models import AE, AEOTGAN, MODELS, Model
from otgen.ot.streams import stream

SETS: dict[str, tuple[Callable[[], tuple[Tensor, Tensor]], tuple[int, int, int]]] = {
    "digits": (data.digits, (1, 8, 8)),
    "mnist": (data.mnist, (1, 28, 28)),
}
"""Data sets and the shapes of their images."""

CHOICES: dict[str, dict[str, Any]] = {
    "wgan": {"lr": 5e-4},
    "began": {"codes": 16, "gamma": 1.0, "rate": 0.2, "lr": 3e-4},
}
"""What differs from a model's defaults, as those need more steps than small images are given."""

DATA = "data"
"""Stands where a model's name stands: the data scored against themselves."""

SHOWN = 36
"""Images to look at."""

BLOCK = 2
"""An AE-OT-GAN's share of the batches: one half for its autoencoder, one for the training against the critic."""


def images_of(name: str) -> tuple[Tensor, Tensor]:
    """Images (n, c, h, w) in [0, 1] and labels (n,) of one of `SETS`."""
    load, shape = SETS[name]
    x, labels = load()
    return x.view(-1, *shape), labels


def check(settings: Any) -> None:
    """Refuse data sets and models that there are not."""
    for key, known in (("sets", SETS), ("models", MODELS)):
        unknown = [name for name in settings[key] if name not in known]
        if unknown:
            raise ValueError(f"{key} must be of {', '.join(known)}, got {unknown[0]!r}")


def train(context: Context, name: str, x: Tensor, seed: int) -> Model:
    """Train one model on images; `d`, `width`, `steps` and `batch` come from the settings.

    Args:
        context: Of the experiment.
        name: Of `MODELS`.
        x: Images, (n, c, h, w).
        seed: Of weights, order and noise.

    Returns:
        The trained model.
    """
    s = context.settings
    steps, extra = s["steps"], dict(CHOICES.get(name, {}))
    if MODELS[name] is AEOTGAN:
        steps //= BLOCK
        extra["ae_epochs"] = max(1, steps // (len(x) // s["batch"]))
        extra["head_start"] = steps // 10
    kind: Callable[..., Model] = MODELS[name]
    model = kind(tuple(x.shape[1:]), s["d"], width=s["width"], seed=seed, device=context.device, **extra)
    return model.fit(x, steps=steps, batch_size=s["batch"], seed=seed, progress=False)


def score(context: Context, place: str, name: str, repeat: int) -> Outcome:
    """Train a model, draw as many images as there are data, and measure FID and sharpness.

    An autoencoder, which cannot generate, shows its reconstructions of the data, and the data show themselves.
    """
    x, labels = images_of(place)
    lenet = train_lenet(x, labels, seed=context.seed, cache=context.cache)
    seed = context.seed + repeat
    values: dict[str, Any] = {"set": place, "model": name, "repeat": repeat, "n": len(x)}
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(stream(seed, "halves")))
    if name == DATA:
        made, real = x[order].chunk(2)
    else:
        model, real = train(context, name, x, seed), x
        if isinstance(model, AE) and MODELS[name] is AE:
            made = model.reconstruct(x[order])
        else:
            made = model.sample(len(x), generator=stream(seed, "measured"))
        made = made.cpu().clamp(0, 1)
    (report,) = compare(real, made, lenet, ("FID",), seed=seed)
    values |= {
        "metric": report.name,
        "accuracy": lenet.accuracy,
        "fid": report.score.value,
        "fid_error": report.score.spread,
        "floor": report.floor.value,
        "sharpness": sharpness(x if name == DATA else made).value,
    }
    return Outcome(values, {"images": made[:SHOWN].clone()})
