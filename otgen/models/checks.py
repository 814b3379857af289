"""What a model refuses, each in one line that says what was wanted, what came, and where it is known the mend."""

from math import isfinite

import torch
from torch import Tensor, nn

from otgen.files import one_line
from otgen.models.state import Stateful, evaluating
from otgen.nn.networks import Shape
from otgen.ops import check

OVERSHOOT = 0.4  # at most, beyond [0, 1], of images there that were rounded or resized; other ranges reach further


class Checked(Stateful):
    """A module that checks the arguments of its constructor and methods, under the name of its class.

    Attributes:
        shape: Size of a sample.
        d: Size of a code, where there are codes.
    """

    shape: Shape
    d: int
    _device: torch.device

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def _like(self) -> Tensor:
        """A tensor with the model's dtype and device."""
        return next(self.parameters())

    def _exactly(self, made: Tensor) -> Tensor:
        """What a network made in the model's dtype: under `amp` sums of bfloat16 numbers would be rounded to 8 bits."""
        return made.to(self._like.dtype)

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self._like.device

    # ---- arguments of the constructor -------------------------------------------------------------------------------

    def _given(self, name: str, network: nn.Module, inputs: Shape, outputs: Shape) -> nn.Module:
        """Return a network of the user's own if it maps (b, *inputs) to (b, *outputs)."""
        if not isinstance(network, nn.Module):
            raise TypeError(f"{self._name}: {name} must be a torch.nn.Module, got {type(network).__name__}")
        network.to(self._device)
        with evaluating(network):
            try:
                made = network(torch.zeros(2, *inputs, device=self._device))
            except Exception as error:  # a user's network can raise anything
                reason = one_line(error)
                raise ValueError(f"{self._name}: {name} must take {sized(inputs)}, but: {reason}") from error
        if not isinstance(made, Tensor) or tuple(made.shape) != (2, *outputs):
            came = type(made).__name__
            if isinstance(made, Tensor):
                shape = tuple(made.shape)
                came = sized(shape[1:]) if shape[:1] == (2,) else f"{shape} from b = 2"
            raise ValueError(f"{self._name}: {name} must make {sized(outputs)} from {sized(inputs)}, got {came}")
        return network

    def _learning(self, name: str, *networks: nn.Module) -> None:
        """Refuse networks of which none has parameters that can change."""
        if not any(parameter.requires_grad for network in networks for parameter in network.parameters()):
            came = " and ".join(type(network).__name__ for network in networks)
            raise ValueError(f"{self._name}: {name} must have parameters to learn, got {came}")

    def _positive(self, **numbers: float) -> None:
        """Refuse an argument that is not a positive finite number."""
        for name, value in numbers.items():
            if not check.is_number(value) or not (value > 0 and isfinite(value)):
                raise ValueError(f"{self._name}: {name} must be a positive number, got {value!r}")

    def _at_least(self, least: int, **numbers: int) -> None:
        """Refuse an argument that is not a whole number, or below the least."""
        for name, value in numbers.items():
            if not check.is_whole(value) or value < least:
                raise ValueError(f"{self._name}: {name} must be a whole number >= {least}, got {value!r}")

    # ---- samples and codes ------------------------------------------------------------------------------------------

    def _check_samples(self, method: str, x: Tensor) -> None:
        what = "images" if len(self.shape) == 3 else "vectors"
        self._check_tensor(method, what, x, self.shape)
        if len(x) == 0 and method in ("step", "fit"):
            raise ValueError(f"{self._name}.{method}: {what} must be at least one, got none")
        if len(x) == 0:
            return
        low, high = x.min().item(), x.max().item()
        if what == "images" and not (low >= 0 and high <= 1):  # true for NaN as well
            raise ValueError(
                f"{self._name}.{method}: images must lie in [0, 1], got {low:.9g} to {high:.9g}{_mend(low, high)}"
            )
        if not (isfinite(low) and isfinite(high)):
            raise ValueError(f"{self._name}.{method}: vectors must be finite, got {low:g} to {high:g}")

    def _too_small(self, least: str, batch: Tensor) -> ValueError:
        return ValueError(
            f"{self._name}.step: a batch must hold at least {least}, got {len(batch)}; a DataLoader leaves the rest"
            " of an epoch out with drop_last=True"
        )

    def _check_codes(self, method: str, z: Tensor) -> None:
        self._check_tensor(method, "codes", z, (self.d,))

    def _check_tensor(self, method: str, what: str, x: Tensor, shape: Shape) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"{self._name}.{method}: {what} must be a torch tensor, got {type(x).__name__}")
        if x.shape[1:] != shape:
            mend = ""
            if len(shape) == 3 and x.ndim == 4:  # a reshape would scramble the pixels
                mend = ": take x.permute(0, 3, 1, 2)" if x.shape[1:] == (*shape[1:], shape[0]) else ""
            elif x.ndim > 1 and x.shape[1:].numel() == torch.Size(shape).numel():
                mend = f": take x.reshape(-1, {', '.join(map(str, shape))})"
            raise ValueError(
                f"{self._name}.{method}: {what} must have shape {sized(shape, 'n')}, got {tuple(x.shape)}{mend}"
            )
        if method == "fit" and x.dtype.is_floating_point:  # the loop makes each batch like the model
            return
        if x.dtype != self._like.dtype:
            mend = "x.float() / 255" if x.dtype == torch.uint8 and len(shape) == 3 else f"x.to({self._like.dtype})"
            raise TypeError(
                f"{self._name}.{method}: {what} must be {self._like.dtype} like the model, got {x.dtype}: take {mend}"
            )


def sized(shape: Shape, first: str = "b") -> str:
    """A size in a message: (b, 2) for (2,)."""
    return f"({', '.join(map(str, (first, *shape)))}{',' if not shape else ''})"


def _mend(low: float, high: float) -> str:
    if low > -OVERSHOOT and high < 1 + OVERSHOOT:
        return ": take x.clamp(0, 1)"
    if -1 <= low < 0 and high <= 1:
        return ": take (x + 1) / 2"
    if low >= 0 and 1 < high <= 255:
        return ": take x / 255"
    return ": take (x - x.min()) / (x.max() - x.min())" if isfinite(low) and isfinite(high) else ""
