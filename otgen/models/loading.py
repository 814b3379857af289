"""A model from its file."""

import inspect
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from otgen.files import one_line
from otgen.models import storage
from otgen.models.base import Model
from otgen.models.storage import Foreign, Recipe


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu", **networks: nn.Module) -> Model:
    """Read a model that `save` wrote; nothing is unpickled.

    Args:
        path: The file.
        device: Where the model is to live.
        **networks: Networks of your own with which it was made, under the names of the constructor's arguments, as
            new ones: a file holds their weights and not their code.

    Returns:
        The model, which samples as the saved one does, and goes on training where it stood.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is damaged, not a model, or made with networks that are not given.
    """
    stored = storage.read(path)
    try:
        model = _build(stored.recipe, device, networks, None)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    try:
        _take_dtype(model, stored.state)
        model.load_state_dict(stored.state)
    except Exception as error:  # a forged file can raise anything, and torch's message fills many lines
        raise ValueError(f"{path}: its weights do not fit the model: {one_line(error)}") from error
    model.history_ = stored.history
    return model


def _take_dtype(model: Model, state: dict[str, Tensor]) -> None:
    """Bring a model to the precision of the stored one, if that has one."""
    dtypes = {state[name].dtype for name, _ in model.named_parameters() if name in state}
    if len(dtypes) == 1:
        model.to(dtypes.pop())


def _build(recipe: Recipe, device: str | torch.device, networks: dict[str, nn.Module], outer: str | None) -> Model:
    """Build a model; one inside another goes to the outer one's constructor under the name `outer`."""
    # a class that is defined anew, as by a notebook's cell that is run again, takes the place of the one before
    defined = sorted(_subclasses(Model), key=lambda cls: cls._number)
    classes = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in defined}
    known = {cls.__name__: cls for cls in classes.values()}
    if recipe.name not in known:
        raise ValueError(f"the model must be one of {', '.join(sorted(known))}, got {recipe.name!r}")
    alike = [name for name, cls in classes.items() if cls.__name__ == recipe.name]
    if len(alike) > 1:
        raise ValueError(f"the model must be of one class, got {' and '.join(alike)}: rename yours")
    arguments = {
        name: _build(value, device, {}, outer or name) if isinstance(value, Recipe) and name not in networks else value
        for name, value in recipe.arguments.items()
    } | networks
    for name, value in arguments.items():
        if isinstance(value, Foreign):
            wanted = f"{name}=...) wants one" if outer is None else f"{outer}=...) wants the {recipe.name} with one"
            raise ValueError(f"{recipe.name} was made with {name}=a {value.name} of your own: load(path, {wanted}")
    model: Model = known[recipe.name](**arguments, device=device)
    return model


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for child in cls.__subclasses__():
        yield from () if inspect.isabstract(child) else (child,)
        yield from _subclasses(child)
