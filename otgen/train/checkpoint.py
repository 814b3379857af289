"""A run in one safetensors file: the model's state and the history as tensors, the rest as JSON."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from otgen.files import must_open, one_line, read_safetensors, write_safetensors

FORMAT = 1  # of checkpoint files; a file of another format is refused

History = dict[str, NDArray[np.float64]]
"""Every value that a model's `step` gave, by name, (steps,)."""


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


def write_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint to a safetensors file, which holds the old one until the new one is complete.

    Args:
        path: The file, in a folder that is there.
        checkpoint: What to write.
    """
    about = {"format": FORMAT, "step": checkpoint.step, "settings": checkpoint.settings}
    tensors, names = pack(checkpoint.state, checkpoint.history)
    write_safetensors(path, tensors, {"otgen": json.dumps(about), **names})


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read what `write_checkpoint` wrote; nothing is unpickled.

    Args:
        path: The file.

    Returns:
        The checkpoint, tensors on the CPU: `model.load_state_dict(read_checkpoint(path).state)`.
    """
    path = Path(path)
    must_open(path)
    try:
        tensors, metadata = read_safetensors(path)
        about = json.loads(metadata.get("otgen", "{}"))
        if about.get("format") != FORMAT:
            raise ValueError(f"its format must be {FORMAT}, got {about.get('format')}")
        settings, step = dict(about["settings"]), int(about["step"])
        state, history = unpack(tensors, metadata)
        if step < 0 or any(values.shape != (step,) for values in history.values()):
            raise ValueError(f"its step must be at least 0 and its history as long, got step {step}")
        return Checkpoint(settings, step, history, state)
    except Exception as error:  # a forged file can raise anything
        raise ValueError(f"read_checkpoint: {path} is not a whole otgen checkpoint: {one_line(error)}") from error


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint; another file of that name is left alone."""
    try:
        read_checkpoint(path)
    except (OSError, ValueError):
        return
    path.unlink()


def pack(state: dict[str, Tensor], history: History) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Put a model's state and history side by side, as `state.name` and `history.name`.

    Returns:
        The tensors, and metadata with the order of the history's names, which a file of tensors does not keep.

    Raises:
        TypeError: The state holds what is no tensor, such as a network's extra state.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"a model's state must be tensors alone, got {type(value).__name__} for {name}")
    tensors = {f"state.{name}": value for name, value in state.items()}
    tensors |= {f"history.{name}": torch.from_numpy(np.asarray(v, np.float64)) for name, v in history.items()}
    return tensors, {"history": json.dumps(list(history))}


def unpack(tensors: dict[str, Tensor], metadata: dict[str, str]) -> tuple[dict[str, Tensor], History]:
    """Take apart what `pack` put together; in files of before the history has no order.

    Raises:
        ValueError: The metadata are damaged.
    """
    names = json.loads(metadata.get("history", "[]"))
    if not isinstance(names, list):
        raise ValueError(f"the history's names must be a list, got {names!r}")
    order = {str(name): index for index, name in enumerate(names)}
    history = {name.removeprefix("history."): v for name, v in tensors.items() if name.startswith("history.")}
    state = {name.removeprefix("state."): v for name, v in tensors.items() if name.startswith("state.")}
    return state, {name: history[name].double().numpy() for name in sorted(history, key=lambda n: order.get(n, -1))}
