"""The training loop: batches in, history out, checkpoints on the way."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from otgen.files import read_safetensors, write_safetensors

FORMAT = 1  # of checkpoint files; a file of another format is refused
BAR_DELAY = 2.0  # seconds before the progress bar appears; what is over by then needs none

History = dict[str, list[float]]

Data = Tensor
"""What can be trained on."""

Callback = Callable[["Trainable", int, dict[str, float]], "bool | None"]
"""Called after each step with the model, the number of steps made and what `step` gave; True ends the run."""


class Trainable(Protocol):
    """What the loop needs of a model; `otgen.models.Model` has it."""

    def step(self, batch: Tensor) -> dict[str, float]:
        """Train on one batch and say how it went, by the same names each time."""

    def check(self, data: Tensor) -> None:
        """Refuse data (n, ...) that it cannot be trained on."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Parameters, with the device and dtype that batches get."""

    def children(self) -> Iterator[nn.Module]:
        """Networks, each of which can be compiled."""

    def state_dict(self) -> dict[str, Any]:
        """All that training changes, as tensors."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> object:
        """Become the model that `state_dict` came from."""


@dataclass(frozen=True)
class Checkpoint:
    """A run after a number of steps.

    Attributes:
        settings: What must be the same for the run to go on: model, data, batch_size, seed.
        step: How many steps were made.
        history: Every value that `step` gave, by name, one per step.
        state: The model's `state_dict`.
    """

    settings: dict[str, Any]
    step: int
    history: History
    state: dict[str, Tensor]


def train(
    model: Trainable,
    data: Tensor,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    amp: bool = False,
    compile: bool | str = False,
) -> History:
    """Train a model on batches of `data`, shuffled anew in every epoch.

    An epoch is n // batch_size steps: batches are full, and the rows left over differ from epoch to epoch. A run that
    was stopped and resumed gives the same model and history, to the last bit, as one that was not (on one machine and
    with the same number of threads).

    Args:
        model: What to train, in place.
        data: Samples, (n, ...), on any device.
        epochs: Length of the whole run in epochs; either this or `steps`.
        steps: Length of the whole run in steps; either this or `epochs`.
        batch_size: Samples in a batch, at most n.
        seed: Decides the order of the samples and nothing else.
        progress: Whether to show a bar on stderr once the run has lasted two seconds.
        checkpoint: File to keep the run in (safetensors), replaced as a whole or not at all; `None` keeps nothing.
        checkpoint_seconds: Time between two checkpoints; there is always one at the end.
        resume: Whether to go on from `checkpoint`. If there is no such file yet, the run starts at the beginning.
        callbacks: Called after each step with the model, the number of steps made and what `step` gave; if one returns
            True, the run ends there.
        amp: Whether to compute in bfloat16 where torch holds that to be safe. It has float32's range, so losses need no
            scaling.
        compile: Whether to compile the networks with torch.compile, or by which of its backends.

    Returns:
        Every value that `model.step` gave, by name, one per step from the first, those before resuming included.
    """
    total = _total_steps(data, epochs, steps, batch_size, seed)
    model.check(data)
    settings = {"model": type(model).__name__, "data": list(data.shape), "batch_size": batch_size, "seed": seed}
    path = _checkpoint_path(checkpoint, resume)
    start, history = _resume(model, path, settings, total) if path and path.exists() else (0, {})
    like = next(model.parameters())
    _compile(model, compile)
    saved = time.monotonic()
    order = islice(_batches(len(data), batch_size, seed), start, total)
    with tqdm(total=total, initial=start, unit="step", delay=BAR_DELAY, disable=not progress) as bar:
        for step, rows in enumerate(order, start + 1):
            with torch.autocast(like.device.type, torch.bfloat16, enabled=amp):
                values = model.step(data[rows].to(like.device, like.dtype))
            _record(history, values, step)
            bar.set_postfix(values, refresh=False)
            bar.update()
            stops = [callback(model, step, values) for callback in callbacks]
            ended = step == total or any(stops)
            # never on an interrupt: it may come between two halves of a step
            if path and (ended or time.monotonic() - saved >= checkpoint_seconds):
                write_checkpoint(path, Checkpoint(settings, step, history, model.state_dict()))
                saved = time.monotonic()
            if ended:
                break
    return history


def write_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint to a safetensors file, which holds the old one until the new one is complete.

    Args:
        path: The file, in a folder that is there.
        checkpoint: What to write.
    """
    tensors = {f"state.{name}": value for name, value in checkpoint.state.items()}
    for name, values in checkpoint.history.items():
        tensors[f"history.{name}"] = torch.tensor(values, dtype=torch.float64)
    about = {"format": FORMAT, "step": checkpoint.step, "settings": checkpoint.settings}
    write_safetensors(path, tensors, {"otgen": json.dumps(about)})


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read what `write_checkpoint` wrote; nothing is unpickled.

    Args:
        path: The file.

    Returns:
        The checkpoint, tensors on the CPU: `model.load_state_dict(read_checkpoint(path).state)`.
    """
    path = Path(path)
    path.open("rb").close()  # a missing file is the system's to report
    try:
        tensors, metadata = read_safetensors(path)
        about = json.loads(metadata.get("otgen", "{}"))
        if about.get("format") != FORMAT:
            raise ValueError(f"its format must be {FORMAT}, got {about.get('format')}")
        settings, step = dict(about["settings"]), int(about["step"])
        history = {name.removeprefix("history."): v for name, v in tensors.items() if name.startswith("history.")}
        state = {name.removeprefix("state."): v for name, v in tensors.items() if name.startswith("state.")}
        if step < 1 or any(values.shape != (step,) for values in history.values()):
            raise ValueError(f"its step must be at least 1 and its history as long, got step {step}")
        return Checkpoint(settings, step, {name: values.tolist() for name, values in history.items()}, state)
    except Exception as error:  # a forged file can raise anything
        raise ValueError(f"read_checkpoint: {path} is not a whole otgen checkpoint: {_one_line(error)}") from error


def _total_steps(data: Tensor, epochs: int | None, steps: int | None, batch_size: int, seed: int) -> int:
    """Check the numbers, and return the length of the run in steps."""
    if not isinstance(data, Tensor):
        raise TypeError(f"train: data must be a torch tensor (n, ...), got {type(data).__name__}")
    if data.ndim < 2 or len(data) < 1:
        raise ValueError(f"train: data must have shape (n, ...) with n >= 1, got {tuple(data.shape)}")
    if not 1 <= batch_size <= len(data):
        raise ValueError(f"train: batch_size must be from 1 to the {len(data)} rows of data, got {batch_size}")
    if seed < 0:
        raise ValueError(f"train: seed must be at least 0, got {seed}")
    if (epochs is None) == (steps is None):
        raise ValueError(f"train: either epochs or steps must be given, got epochs={epochs}, steps={steps}")
    total = steps if steps is not None else (epochs or 0) * (len(data) // batch_size)
    if total < 1:
        raise ValueError(f"train: epochs or steps must be at least 1, got epochs={epochs}, steps={steps}")
    return total


def _checkpoint_path(checkpoint: str | os.PathLike[str] | None, resume: bool) -> Path | None:
    """Find out before the first step what would spoil the last."""
    if checkpoint is None:
        if resume:
            raise ValueError("train: resume needs the path of a checkpoint, got None")
        return None
    path = Path(checkpoint)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"train: the checkpoint's folder must exist, got {path.parent}")
    if path.exists() and not resume:
        raise FileExistsError(f"train: {path} is there already; go on from it with resume=True, or remove it")
    return path


def _resume(model: Trainable, path: Path, settings: dict[str, Any], total: int) -> tuple[int, History]:
    """Load a checkpoint into the model, and return its step and history."""
    old = read_checkpoint(path)
    for name, value in settings.items():
        if old.settings.get(name) != value:
            raise ValueError(f"train: {path} was made with {name}={old.settings.get(name)}, got {name}={value}")
    if old.step > total:
        raise ValueError(f"train: {path} has {old.step} steps behind it, more than the {total} asked for")
    try:
        model.load_state_dict(old.state)
    except Exception as error:  # a forged file can raise anything, and torch's message fills many lines
        raise ValueError(f"train: {path} does not fit the model: {_one_line(error)}") from error
    return old.step, old.history


def _batches(n: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Row numbers (batch_size,) of each batch, without end; the past costs next to nothing to replay."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(n, generator=generator)
        yield from torch.split(order[: n // batch_size * batch_size], batch_size)


def _record(history: History, values: dict[str, float], step: int) -> None:
    """Append the values of one step, if they are sound."""
    if step > 1 and values.keys() != history.keys():
        raise ValueError(f"train: step must return {sorted(history)} each time, got {sorted(values)} at step {step}")
    for name, value in values.items():
        if not isfinite(value):
            raise FloatingPointError(f"train: {name} must stay finite, got {value} at step {step}; try a smaller lr")
        history.setdefault(name, []).append(value)


def _compile(model: Trainable, how: bool | str) -> None:
    """Compile each network in place, which leaves the names in `state_dict` as they are."""
    if how is False:
        return
    if getattr(model, "second_order", False):
        raise ValueError(f"train: {type(model).__name__} takes gradients of gradients, which torch.compile cannot")
    for network in model.children():
        network.compile(**({} if how is True else {"backend": how}))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
