"""From images to features: what a distance between sets of images looks at, and a name that says what it was."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from otgen.files import one_line, read_safetensors
from otgen.ops import check

DIGITS = 8
"""Hexadecimal digits of a fingerprint: two of 1000 networks agree with probability 1e-4."""

BATCH = 512
"""Images that go through a network at a time."""


class Extractor(Protocol):
    """What the reports ask of an extractor.

    Attributes:
        dim: Features of an image.
        fingerprint: Name that differs between any two extractors whose scores must not be compared.
    """

    dim: int
    fingerprint: str

    def __call__(self, images: Tensor) -> Tensor:
        """Turn images (n, c, h, w) into features (n, dim), float64 on the CPU, without gradients."""


class Pixels:
    """The pixels themselves.

    Args:
        shape: Size of one image, (c, h, w).
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.dim = int(torch.Size(self.shape).numel())
        self.fingerprint = "pixels-" + "x".join(map(str, self.shape))

    def __call__(self, images: Tensor) -> Tensor:
        """Turn images (n, c, h, w) into features (n, dim), float64."""
        return as_images("Pixels", images, self.shape).double().flatten(1)


class PCA:
    """Coordinates along the first principal components of some images, divided by the components' deviations.

    Args:
        images: Images to take the components from, (n, c, h, w), n > k.
        k: How many components.
    """

    def __init__(self, images: Tensor, k: int) -> None:
        self.shape = tuple(images.shape[1:])
        x = as_images("PCA", images, self.shape).double().flatten(1)
        check.integer("PCA", "k", k, 1, min(len(x) - 1, x.shape[1]))
        self.dim, self.mean = k, x.mean(0)
        values, vectors = torch.linalg.eigh((x - self.mean).T @ (x - self.mean) / (len(x) - 1))
        values, vectors = values.flip(0)[:k], vectors.flip(1)[:, :k]
        if not float(values[-1]) > 1e-12 * float(values[0]):
            raise ValueError(f"PCA: k must be at most the rank of the images, got {k}")
        sign = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        self.axes = vectors * sign / values.sqrt()
        self.fingerprint = f"pca{k}-{digest([x])}"

    def __call__(self, images: Tensor) -> Tensor:
        """Turn images (n, c, h, w) into features (n, dim), float64."""
        scores: Tensor = (as_images("PCA", images, self.shape).double().flatten(1) - self.mean) @ self.axes
        return scores


class Network:
    """A network given by the user, such as Inception up to its last pooling.

    otgen brings no definition of Inception, as it could not be checked without its weights: pass the module that they
    belong to. Its preprocessing (size, range of values) is the module's own affair.

    Args:
        module: Images (b, c, h, w) to features (b, dim) or (b, dim, 1, 1). A plain module: TorchScript archives hold
            code, which would run unread.
        dim: Features of an image.
        weights: State dict as a .safetensors file, loaded strictly; `None` where the module holds its weights already.
        name: First part of the fingerprint; the second is a hash of the module's layers and weights.
    """

    def __init__(
        self, module: nn.Module, dim: int, weights: str | os.PathLike[str] | None = None, name: str = "network"
    ) -> None:
        if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
            raise TypeError(f"Network: module must be a plain torch.nn.Module, got {type(module).__name__}")
        if weights is not None:
            state, _ = read_safetensors(weights)
            try:
                module.load_state_dict(state)
            except RuntimeError as error:
                reason = one_line(error)
                raise ValueError(f"Network: {os.fspath(weights)} does not fit the module: {reason}") from error
        self.module = module.eval()
        self.dim = check.integer("Network", "dim", dim, 1)
        made = f"{module!r} {dim} {list(module.state_dict())}".encode()
        described = torch.frombuffer(bytearray(made), dtype=torch.uint8)
        self.fingerprint = f"{name}-{digest([described, *module.state_dict().values()])}"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Turn images (n, c, h, w) into features (n, dim), float64 on the CPU."""
        like = next(self.module.parameters(), torch.empty(0, device="cpu"))
        parts = [self.module(part.to(like)).double().cpu() for part in torch.split(as_images("Network", images), BATCH)]
        features = torch.cat(parts)
        if features.dim() == 4 and features.shape[2:] == (1, 1):
            features = features[:, :, 0, 0]
        if features.shape != (len(images), self.dim):
            wanted = f"features (b, {self.dim})"
            raise ValueError(f"Network: the module must return {wanted}, got {tuple(features.shape)} for all images")
        return features


def as_images(extractor: str, images: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """Check images (n, c, h, w), n >= 1, finite, and of one size if it is given.

    Raises:
        ValueError: A shape or value does not fit.
        TypeError: Not a tensor of floating point.
    """
    if not isinstance(images, Tensor) or not images.dtype.is_floating_point:
        came = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"{extractor}: images must be a tensor of floating point, got {came}")
    fits = images.dim() == 4 and len(images) > 0 and (shape is None or images.shape[1:] == torch.Size(shape))
    if not fits:
        wanted = ", ".join(map(str, ("n", *(shape or ("c", "h", "w")))))
        raise ValueError(f"{extractor}: images must have shape ({wanted}) with n >= 1, got {tuple(images.shape)}")
    if not bool(torch.isfinite(images).all()):
        raise ValueError(f"{extractor}: images must be finite, got NaN or infinite values")
    return images.detach()


def digest(tensors: Iterable[Tensor]) -> str:
    """Hash the shapes, dtypes and bytes of tensors in their order."""
    total = hashlib.blake2b(digest_size=DIGITS // 2)
    for tensor in tensors:
        total.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
