"""A model in one safetensors file: its tensors, and as JSON its class and what its constructor was given."""

import json
import os
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from torch import Tensor, nn

from otgen.files import read_safetensors, write_safetensors
from otgen.train import History
from otgen.train.checkpoint import pack, unpack

FORMAT = "otgen-model-1"


@dataclass(frozen=True)
class Recipe:
    """How to build a model.

    Attributes:
        name: Of its class.
        arguments: Of its constructor, by name: numbers, strings, truth values, `None`, tuples of these, networks, and
            the recipes of other models.
    """

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """What a file holds of a model.

    Attributes:
        recipe: How to build it; a `Foreign` stands for a network of the user's own.
        state: Its `state_dict`.
        history: Its `history_`.
    """

    recipe: Recipe
    state: dict[str, Tensor]
    history: History


@dataclass(frozen=True)
class Foreign:
    """A network that the user made, of which a file holds the weights but not the code.

    Attributes:
        name: Of its class.
    """

    name: str


def write(path: str | os.PathLike[str], recipe: Recipe, state: dict[str, Tensor], history: History) -> None:
    """Write a model, whole or not at all.

    Raises:
        TypeError: An argument of its constructor cannot be written down.
    """
    tensors, names = pack(state, history)
    write_safetensors(path, tensors, {"format": FORMAT, "recipe": json.dumps(_encode(recipe)), **names})


def read(path: str | os.PathLike[str]) -> Stored:
    """Read a model's file.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is damaged, or not a model of otgen.
    """
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        checkpoint = '"step"' in metadata.get("otgen", "")
        came = metadata.get("format", "a checkpoint, from which resume goes on" if checkpoint else "another file")
        raise ValueError(f"{path}: wanted a model saved by otgen ({FORMAT}), got {came}")
    try:
        recipe = _decode(json.loads(metadata["recipe"]))
        if not isinstance(recipe, Recipe):
            raise ValueError("it names no class")
        return Stored(recipe, *unpack(tensors, metadata))
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a whole model of otgen: {error}") from None


def _encode(value: Any) -> Any:
    """Turn an argument into what JSON knows; whatever is not a plain value becomes a dict with a key that says what."""
    if isinstance(value, Tensor) and value.dim() == 0:  # an angle may be one
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Real):  # numpy's
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, (tuple, list)):
        return [_encode(item) for item in value]
    if isinstance(value, Recipe):
        return {"model": value.name, "arguments": {key: _encode(item) for key, item in value.arguments.items()}}
    if isinstance(value, nn.Module):
        return {"network": type(value).__name__}
    raise TypeError(f"save: an argument of the constructor cannot be written down: {type(value).__name__}")


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    if isinstance(value, dict) and "network" in value:
        return Foreign(str(value["network"]))
    if isinstance(value, dict):
        return Recipe(str(value["model"]), {str(key): _decode(item) for key, item in value["arguments"].items()})
    return value
