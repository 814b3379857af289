"""Modules whose `state_dict` holds optimisers and random generators too, so that training can go on from it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from otgen.ops import check
from otgen.seeds import stream, torch_seeded


class Stateful(nn.Module):
    """A module that keeps what training changes in attributes of four kinds, all of which are in its `state_dict`.

    They are submodules, buffers (counters, moving averages), `torch.optim.Optimizer`s and `torch.Generator`s, and in
    the dict they are tensors and nothing else. So a module built with the same arguments and given that dict goes on
    exactly where the other stood. Learning rates and the like are not in it: they are the constructor's arguments, and
    a schedule is a function of a counter.
    """

    def _attributes(self, kind: type) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if isinstance(value, kind)}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Stateful":
        """Move and convert optimisers with the parameters: their moments are like these, their counters stay."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for optimiser in self._attributes(Optimizer).values():
            for fields in optimiser.state.values():
                moments = {
                    name: value for name, value in fields.items() if isinstance(value, Tensor) and name != "step"
                }
                fields.update({name: fn(value) for name, value in moments.items()})
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Add optimisers as `name.index of parameter.field` and generators as `name`."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, optimiser in self._attributes(Optimizer).items():
            for index, fields in optimiser.state_dict()["state"].items():
                values = {field: value for field, value in fields.items() if value is not None}
                destination.update({f"{prefix}{name}.{index}.{field}": value for field, value in values.items()})
        for name, generator in self._attributes(torch.Generator).items():
            destination[prefix + name] = generator.get_state()

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
        """Take out what `_save_to_state_dict` added, and leave the rest to torch."""
        rest = dict(state_dict)
        for name, optimiser in self._attributes(Optimizer).items():
            start = f"{prefix}{name}."
            fields = {key.removeprefix(start): rest.pop(key) for key in state_dict if key.startswith(start)}
            error_msgs += [f"{start}{error}" for error in _load_optimiser(optimiser, fields)]
        for name, generator in self._attributes(torch.Generator).items():
            if prefix + name in rest:
                try:
                    generator.set_state(rest.pop(prefix + name).cpu())
                except (RuntimeError, TypeError) as error:  # wrong size, wrong dtype
                    error_msgs.append(f"{prefix}{name}: {error}")
            elif strict:
                missing_keys.append(prefix + name)
        super()._load_from_state_dict(rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights from `seed`, and leave torch's global random state as it was.

    Networks made inside are made on the CPU, so that a seed means the same weights on every device.
    """
    with torch.device("cpu"), torch_seeded(seed):
        yield


def as_generator(generator: torch.Generator | int | None) -> torch.Generator:
    """A generator from a seed; `None` is torch's own, on the CPU."""
    if isinstance(generator, torch.Generator):
        return generator
    if generator is None:
        return torch.default_generator
    if not check.is_whole(generator):
        raise TypeError(f"generator must be a torch.Generator, a seed or None, got {type(generator).__name__}")
    return torch.Generator().manual_seed(stream(int(generator), "sample"))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Let a module neither train nor keep gradients, and leave each of its parts in the mode in which it was.

    Several threads may do so at once, also with parts of it: the first one to use a part looks what its mode was, the
    last one restores it.
    """
    parts = list(module.modules())
    with _evaluated_lock:
        for part in parts:
            users, mode = _evaluated.get(part, (0, part.training))
            _evaluated[part] = users + 1, mode
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        with _evaluated_lock:
            for part in parts:
                users, mode = _evaluated.pop(part)
                if users > 1:
                    _evaluated[part] = users - 1, mode
                else:
                    part.training = mode


_evaluated: WeakKeyDictionary[nn.Module, tuple[int, bool]] = WeakKeyDictionary()
_evaluated_lock = Lock()


def _load_optimiser(optimiser: Optimizer, fields: dict[str, Tensor]) -> list[str]:
    """Give an optimiser the state whose keys read `index.field`; return what is wrong with it, if anything."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in fields.items():
        index, _, field = key.partition(".")
        if not (index.isdecimal() and int(index) < len(parameters)):
            return [f"{key}: there are {len(parameters)} parameters"]
        wanted = parameters[int(index)].shape
        if value.ndim > 0 and value.shape != wanted:
            return [f"{key}: shape must be {tuple(wanted)}, got {tuple(value.shape)}"]
        # torch would keep the tensor itself, and two models would share their moments
        state.setdefault(int(index), {})[field] = value.clone()
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return []
