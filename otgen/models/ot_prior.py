"""A prior fitted after training: optimal transport from noise to the codes of any encoder."""

import os
from typing import Any, Literal

import torch
from torch import Tensor, nn

from otgen.models.state import as_generator
from otgen.ot import NotFittedError, SemiDiscreteOT
from otgen.ot.problem import NumericArray
from otgen.ot.settings import check_angle, check_settings
from otgen.ot.sources import make_source

PREFIX = "ot."  # of the map's tensors among those of the module
RECORD, LIKE = "record", "like"


class OTPrior(nn.Module):
    """Makes new codes that are distributed like given ones: `OTPrior().fit(codes).sample(n)`.

    The semi-discrete optimal map T from noise to the codes (the lecture's Algorithm 1) is extended across its cells
    (Algorithm 2), but not across its singular set, where modes of the codes meet: An et al. 2020, "AE-OT: A New
    Generative Model Based on Extended Semi-Discrete Optimal Transport". The codes may come from any encoder, also your
    own: take the decoder that belongs to it. The map is part of `state_dict`, so a module that holds a prior is saved
    with it.

    Args:
        source: The noise: "uniform" for the unit cube, "normal" for N(0, I).
        angle_threshold: Largest angle, in radians, between the planes of two cells that are blended; "auto" is the
            median over samples, as for `SemiDiscreteOT.sample`. Smaller makes copies of the codes, larger mixes modes.
        tol: Goal for the certificate's chi2, as for `SemiDiscreteOT`.
        method: Solver, as for `SemiDiscreteOT`.
        max_samples: Budget of noise samples, as for `SemiDiscreteOT`.
        seed: Decides every sample of the fit.

    Attributes:
        ot_: The fitted `SemiDiscreteOT`, which knows heights, certificate and singular set; `None` before `fit`.
    """

    def __init__(
        self,
        source: str = "uniform",
        *,
        angle_threshold: float | Literal["auto"] = "auto",
        tol: float = 0.01,
        method: Literal["auto", "exact", "newton", "log_ratio", "adam"] = "auto",
        max_samples: int | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.angle_threshold = angle_threshold
        self.settings: dict[str, Any] = {
            "source": source,
            "tol": tol,
            "method": method,
            "max_samples": max_samples,
            "seed": seed,
        }
        self._check_settings()
        self.ot_: SemiDiscreteOT | None = None
        self.register_buffer("like", torch.empty(0, device="cpu"), persistent=False)  # the codes' dtype and device

    like: Tensor

    def _check_settings(self) -> None:
        numbers = {name: value for name, value in self.settings.items() if name != "source"}
        try:
            check_settings(**numbers)
            if not isinstance(self.settings["source"], str):  # a file could not hold it
                raise TypeError(f"source must be a name, got {type(self.settings['source']).__name__}")
            make_source(self.settings["source"])
            if self.angle_threshold != "auto":
                check_angle(self.angle_threshold)
        except (TypeError, ValueError) as error:
            raise type(error)(f"OTPrior: {error}") from None

    def fit(
        self,
        codes: Tensor | NumericArray,
        weights: Tensor | NumericArray | None = None,
        *,
        progress: bool = True,
    ) -> "OTPrior":
        """Find the map from noise to codes.

        Args:
            codes: (m, d), floating, a tensor on any device or an array.
            weights: Their masses, (m,); `None` for equal ones.
            progress: Whether to show a bar once the fit lasts over two seconds.

        Returns:
            The prior itself. `ot_.converged_` says whether the goal was certified; if not, there is a warning, too.

        Raises:
            TypeError: The codes are not floating-point numbers.
            ValueError: A shape or value does not fit.
        """
        like = _none_of(codes)
        if not like.is_floating_point():
            raise TypeError(f"OTPrior.fit: codes must be floating-point numbers, got {like.dtype}")
        self.ot_ = SemiDiscreteOT(**self.settings, progress=progress).fit(codes, weights)
        self.like = like
        return self

    def sample(self, n: int, generator: torch.Generator | int | None = None) -> Tensor:
        """Make new codes.

        Args:
            n: How many.
            generator: Source of randomness, or a seed; `None` is torch's own.

        Returns:
            Codes, (n, d), of the dtype and on the device of those that it was fitted to.

        Raises:
            NotFittedError: There are no codes yet.
            ValueError: The threshold rejects nearly everything.
        """
        if self.ot_ is None:
            raise not_fitted("OTPrior", "codes")
        rng = as_generator(generator)
        seed = int(torch.randint(2**62, (), generator=rng, device=rng.device))
        return self.ot_.sample(n, self.angle_threshold, seed=seed).to(self.like)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the map to one safetensors file, which `SemiDiscreteOT.load` and `otgen sample` read, too."""
        if self.ot_ is None:
            raise not_fitted("OTPrior", "codes")
        self.ot_.save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, angle_threshold: float | Literal["auto"] = "auto") -> "OTPrior":
        """Read a map that `save` wrote; codes come as float32 on the CPU until `to` says otherwise."""
        ot = SemiDiscreteOT.load(path)
        prior = cls(str(ot.source), angle_threshold=angle_threshold, tol=ot.tol, method=ot.method, seed=ot.seed)
        prior.ot_ = ot
        return prior

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Add the map's tensors, its record as bytes, and no numbers of the codes' dtype."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.ot_ is not None:
            tensors, record = self.ot_.state()
            destination.update({f"{prefix}{PREFIX}{name}": value for name, value in tensors.items()})
            destination[f"{prefix}{PREFIX}{RECORD}"] = torch.frombuffer(bytearray(record.encode()), dtype=torch.uint8)
            destination[f"{prefix}{PREFIX}{LIKE}"] = self.like

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Take the map out, if there is one, and leave the rest to torch."""
        start = f"{prefix}{PREFIX}"
        tensors = {key.removeprefix(start): state_dict[key].cpu() for key in state_dict if key.startswith(start)}
        rest = {key: value for key, value in state_dict.items() if not key.startswith(start)}
        self.ot_ = None
        if tensors:
            self.like = self.like.to(tensors.pop(LIKE, self.like).dtype)
            try:
                record = bytes(tensors.pop(RECORD).tolist()).decode()
                self.ot_ = SemiDiscreteOT.from_state(tensors, record)
            except (KeyError, ValueError) as error:
                error_msgs.append(f"{start}*: {error}")
        super()._load_from_state_dict(rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)


def not_fitted(name: str, data: str) -> NotFittedError:
    """Say what to call first."""
    return NotFittedError(f"this {name} is not fitted yet: call fit({data}) first")


def _none_of(codes: Tensor | NumericArray) -> Tensor:
    """A tensor without numbers, of the codes' dtype and on their device."""
    if isinstance(codes, Tensor):
        return codes.new_empty(0)
    if not hasattr(codes, "dtype"):
        raise TypeError(f"OTPrior.fit: codes must be a tensor or array (m, d), got {type(codes).__name__}")
    none = codes.reshape(-1)[:0]
    return torch.from_numpy(none.astype(none.dtype.newbyteorder("=")))
