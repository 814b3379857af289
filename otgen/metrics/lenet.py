"""A small classifier trained on the labelled data itself: features for FID and its kin where nothing is downloaded."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Adam
from torch.optim.lr_scheduler import OneCycleLR

from otgen.files import read_safetensors, write_safetensors
from otgen.metrics.extractors import BATCH, as_images, digest
from otgen.ops import check
from otgen.seeds import torch_seeded

FEATURES = 84
"""Width of the layer before the last in LeCun et al. 1998."""

HELD_OUT = 0.2
"""Part of the labelled data that the classifier is not trained on, to say how good it is."""

LR = 3e-3
"""Peak of the learning rate."""

SMALLEST = 8
"""Side of the smallest image: its half is the grid of 4 x 4 that the dense layers see."""


class LeNet:
    """Features of a LeNet-like classifier: its last hidden layer, each feature with mean 0 and variance 1 on the data.

    Standardised, as the scale of a hidden layer is arbitrary and FID grows with its square. Make one by `train_lenet`.

    Args:
        network: The layers, on the CPU.
        shape: Size of one image, (c, h, w).
        classes: How many it tells apart.
        accuracy: On the labelled images that it was not trained on.

    Attributes:
        dim: 84.
        fingerprint: "lenet-" and a hash of the weights: networks trained on other data, with another seed or on another
            machine have other ones, and their scores are not comparable.
    """

    def __init__(self, network: "Layers", shape: tuple[int, int, int], classes: int, accuracy: float) -> None:
        self.network, self.shape, self.classes, self.accuracy = network.eval(), shape, classes, accuracy
        self.dim = FEATURES
        self.fingerprint = f"lenet-{digest(network.state_dict().values())}"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Turn images (n, c, h, w) into features (n, 84), float64."""
        images = as_images("LeNet", images, self.shape).float().cpu()
        return torch.cat([self.network.features(part) for part in torch.split(images, BATCH)]).double()

    @torch.no_grad()
    def classify(self, images: Tensor) -> Tensor:
        """Tell the classes (n,), int64, of images (n, c, h, w)."""
        images = as_images("LeNet", images, self.shape).float().cpu()
        return torch.cat([self.network(part).argmax(1) for part in torch.split(images, BATCH)])


class Layers(nn.Module):
    """Two convolutions, two hidden dense layers, and the classes.

    SiLU instead of the original's tanh; like it and unlike ReLU it leaves no feature that is constant on the data.

    Args:
        channels: Of the images.
        classes: How many.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        kind: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}  # whatever torch's defaults are
        self.body = nn.Sequential(
            nn.Conv2d(channels, 16, 5, padding=2, **kind), nn.SiLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 5, padding=2, **kind), nn.SiLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
            nn.Linear(512, 120, **kind), nn.SiLU(), nn.Linear(120, FEATURES, **kind), nn.SiLU(),
        )  # fmt: skip
        self.head = nn.Linear(FEATURES, classes, **kind)
        self.register_buffer("mean", torch.zeros(FEATURES, **kind))
        self.register_buffer("std", torch.ones(FEATURES, **kind))

    def features(self, images: Tensor) -> Tensor:
        """Standardised features (b, 84) of images (b, c, h, w)."""
        standard: Tensor = (self.body(images) - self.mean) / self.std
        return standard

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, classes) of images (b, c, h, w)."""
        logits: Tensor = self.head(self.body(images))
        return logits


def train_lenet(
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int = 20,
    batch_size: int = 64,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
) -> LeNet:
    """Train the classifier, or read it from the cache.

    Args:
        images: (n, c, h, w), floating, h and w at least 8.
        labels: Classes from 0 up, (n,), int64. A fifth of the data is held out to measure the accuracy.
        epochs: Passes over the data.
        batch_size: Images in a batch.
        seed: Decides the initial weights, the part held out, and the order of the images.
        cache: Folder, made if it is not there, for the weights: `lenet-KEY.safetensors` with a hash of the data and
            settings for a key. `None` for none.

    Returns:
        The extractor.

    Raises:
        ValueError: A shape, value or number does not fit, or the cached file is damaged.
        TypeError: A type does not fit.
    """
    images = as_images("train_lenet", images).float().cpu()
    labels = _check(images, labels, epochs, batch_size, seed)
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    classes = int(labels.max()) + 1
    settings = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "shape": shape, "classes": classes}
    key = digest([images, labels, torch.tensor([epochs, batch_size, seed], device="cpu")])
    path = None if cache is None else Path(cache) / f"lenet-{key}.safetensors"
    with torch_seeded(seed):
        network = Layers(shape[0], classes)
    if path is not None and path.exists():
        return LeNet(network, shape, classes, _read(path, network))
    with torch.autocast("cpu", enabled=False):  # the caller's would make another network
        accuracy = _fit(network, images, labels, epochs, batch_size, seed)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"otgen": json.dumps({"lenet": settings, "accuracy": accuracy})}
        write_safetensors(path, network.state_dict(), about)
    return LeNet(network, shape, classes, accuracy)


@torch.enable_grad()  # an evaluation is likely to do without
def _fit(network: Layers, images: Tensor, labels: Tensor, epochs: int, batch_size: int, seed: int) -> float:
    """Train in place, set the standardisation, and return the accuracy on what was held out."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator, device="cpu")
    held_out, kept = order.split([int(HELD_OUT * len(images)), len(images) - int(HELD_OUT * len(images))])
    steps = epochs * -(-len(kept) // batch_size)
    optimiser = Adam(network.parameters(), lr=LR)
    schedule = OneCycleLR(optimiser, LR, total_steps=steps + 1)
    for _ in range(epochs):
        for rows in kept[torch.randperm(len(kept), generator=generator, device="cpu")].split(batch_size):
            loss = cross_entropy(network(images[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        hidden = torch.cat([network.body(part) for part in images.split(BATCH)]).double()
        network.mean.copy_(hidden.mean(0))
        network.std.copy_(hidden.std(0).clamp_min(1e-3 * float(hidden.std())))
        right = [(network(images[rows]).argmax(1) == labels[rows]).sum() for rows in held_out.split(BATCH)]
    return float(torch.stack(right).sum()) / len(held_out)


def _read(path: Path, network: Layers) -> float:
    """Load cached weights; return the accuracy that stands beside them."""
    state, about = read_safetensors(path)
    try:
        network.load_state_dict(state)
        if not all(bool(tensor.isfinite().all()) for tensor in state.values()) or not bool((network.std > 0).all()):
            raise ValueError("its weights must be finite and its std positive")
        accuracy = float(json.loads(about["otgen"])["accuracy"])
        if not 0 <= accuracy <= 1:
            raise ValueError(f"its accuracy must lie in [0, 1], got {accuracy}")
        return accuracy
    except Exception as error:  # a forged file can raise anything
        raise ValueError(f"train_lenet: {path} is not a whole LeNet of otgen; remove it: {error}") from error


def _check(images: Tensor, labels: Tensor, epochs: int, batch_size: int, seed: int) -> Tensor:
    """Check what `train_lenet` is given; return the labels on the CPU."""
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        check.integer("train_lenet", name, value, 1)
    check.integer("train_lenet", "seed", seed, 0, 2**63 - 1)
    if min(images.shape[2:]) < SMALLEST:
        raise ValueError(f"train_lenet: images must be at least {SMALLEST} x {SMALLEST}, got {tuple(images.shape)}")
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != (len(images),):
        came = (labels.dtype, tuple(labels.shape)) if isinstance(labels, Tensor) else type(labels).__name__
        kind = ValueError if isinstance(labels, Tensor) and labels.dtype == torch.int64 else TypeError
        raise kind(f"train_lenet: labels must be int64 of shape ({len(images)},), got {came}")
    if len(images) < 10 or int(labels.min()) < 0 or int(labels.max()) < 1:
        raise ValueError("train_lenet: there must be ten images at least, and two classes numbered from 0")
    return labels.cpu()
