"""What a trained model does: sample, encode, decode, and what follows from these."""

from collections.abc import Callable

import torch
from torch import Tensor

from otgen.models.checks import Checked
from otgen.models.state import evaluating
from otgen.ops import check

BATCH = 1024  # samples that go through a network at a time where nothing is trained


class Face(Checked):
    """Methods that every model has, on top of the hooks `_encode` and `_decode`, which a model has or has not.

    Whatever needs a hook that is missing says so in one line.
    """

    hints: dict[str, str] = {"encode": "it has no encoder", "decode": "it has no decoder"}
    """Why this kind of model lacks a method and what to take instead, by the method's name."""

    def sample(self, n: int, generator: torch.Generator | int | None = None, batch_size: int = BATCH) -> Tensor:
        """Refused with a `TypeError`: the model makes no samples; only those that are `Generative` do."""
        raise self._cannot("sample")

    def encode(self, x: Tensor, batch_size: int = BATCH) -> Tensor:
        """Find the codes of samples, without gradients.

        Args:
            x: Samples, (n, *shape), on any device.
            batch_size: How many go through the network at a time, which bounds the memory.

        Returns:
            Codes, (n, d), on the model's device.

        Raises:
            TypeError: The model has no encoder.
        """
        self._require("encode", "_encode")
        self._check_samples("encode", x)
        return self._in_batches(self._encode, x, batch_size)

    def decode(self, z: Tensor, batch_size: int = BATCH) -> Tensor:
        """Make samples from codes, without gradients.

        Args:
            z: Codes, (n, d), on any device.
            batch_size: How many go through the network at a time, which bounds the memory.

        Returns:
            Samples, (n, *shape), on the model's device.

        Raises:
            TypeError: The model has no decoder.
        """
        self._require("decode", "_decode")
        self._check_codes("decode", z)
        return self._in_batches(self._decode, z, batch_size)

    def reconstruct(self, x: Tensor, batch_size: int = BATCH) -> Tensor:
        """Return `decode(encode(x))`: samples (n, *shape) for samples (n, *shape).

        Raises:
            TypeError: The model has no encoder.
        """
        self._require("reconstruct", "_encode", "_decode")
        self._check_samples("reconstruct", x)
        return self._in_batches(lambda part: self._decode(self._encode(part)), x, batch_size)

    def interpolate(self, a: Tensor, b: Tensor, steps: int = 8) -> Tensor:
        """Walk from each a to its b, along the straight line between their codes.

        Args:
            a: Samples, (n, *shape), or codes, (n, d), if the model has no encoder.
            b: Like `a`.
            steps: Number of samples on each way, both ends included, at least 2.

        Returns:
            Samples, (n, steps, *shape), on the model's device.

        Raises:
            TypeError: The model has no decoder.
        """
        self._require("interpolate", "_decode")
        if not check.is_whole(steps) or steps < 2:
            raise ValueError(f"{self._name}.interpolate: steps must be a whole number >= 2, got {steps!r}")
        for given in (a, b):
            (self._check_samples if self._has("_encode") else self._check_codes)("interpolate", given)
        if a.shape != b.shape:
            raise ValueError(
                f"{self._name}.interpolate: a and b must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}"
            )
        if self._has("_encode"):
            a, b = self.encode(a), self.encode(b)
        t = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device).view(1, steps, 1)
        path = torch.lerp(a[:, None], b[:, None], t)
        samples = self.decode(path.flatten(0, 1))
        return samples.view(len(a), steps, *self.shape)

    def _encode(self, x: Tensor) -> Tensor:
        """Codes (b, d) of samples (b, *shape), on the model's device, with gradients."""
        raise self._cannot("encode")

    def _decode(self, z: Tensor) -> Tensor:
        """Samples (b, *shape) from codes (b, d), on the model's device, with gradients."""
        raise self._cannot("decode")

    def _in_batches(self, function: Callable[[Tensor], Tensor], x: Tensor, batch_size: int) -> Tensor:
        self._at_least(1, batch_size=batch_size)
        with evaluating(self):
            return torch.cat([function(part.to(self.device)) for part in torch.split(x, batch_size)])

    def _has(self, hook: str) -> bool:
        return getattr(type(self), hook) is not getattr(Face, hook)

    def _require(self, method: str, *hooks: str) -> None:
        for hook in hooks:
            if not self._has(hook):
                raise self._cannot(method, hook.strip("_"))

    def _cannot(self, method: str, why: str | None = None) -> TypeError:
        hints = Face.hints | self.hints
        return TypeError(f"{self._name} cannot {method}: {hints.get(method) or hints.get(why or '', 'it lacks a way')}")
