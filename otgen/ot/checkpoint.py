"""State of a running solver in one safetensors file: tensors as they are, numbers as JSON beside them."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import torch
from torch import Tensor

from otgen.files import read_safetensors, write_safetensors
from otgen.ot.problem import Problem

FORMAT = "otgen-checkpoint-1"

S = TypeVar("S")


def fingerprint(problem: Problem, settings: dict[str, Any]) -> str:
    """Hash of the data and the settings that decide what a run computes."""
    data = {"targets": digest(problem.given), "weights": digest(problem.weights)}
    return hashlib.sha256(json.dumps(settings | data, sort_keys=True).encode()).hexdigest()


def digest(tensor: Tensor) -> str:
    """Hash of a tensor's numbers."""
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def save(path: Path, state: Any, history: list[dict[str, float]], used: int, identity: str) -> None:
    """Replace the checkpoint at `path` by the given one: at any moment the file is the old or the new one, whole."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    tensors = {name: value.contiguous() for name, value in fields.items() if isinstance(value, Tensor)}
    numbers = {name: _encode(value) for name, value in fields.items() if not isinstance(value, Tensor)}
    record = {"state": numbers, "history": history, "used": used, "identity": identity}
    write_safetensors(path, tensors, {"format": FORMAT, "record": json.dumps(record)})


def owner(path: Path | None) -> str:
    """Identity of the run that wrote a checkpoint, or "" where there is none to be read; `load` says what is wrong."""
    try:
        metadata = read_safetensors(path)[1] if path is not None and path.exists() else {}
        return str(json.loads(metadata["record"])["identity"]) if metadata.get("format") == FORMAT else ""
    except (LookupError, RecursionError, TypeError, ValueError):
        return ""


def load(path: Path | None, kind: type[S], identity: str, m: int) -> tuple[S, list[dict[str, float]], int] | None:
    """State, history and samples used of the run on m targets that wrote `path`; `None` where there is no file.

    Raises:
        ValueError: The file is damaged, not a checkpoint, or of a run with other data or settings.
    """
    if path is None or not path.exists():
        return None
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path}: expected a checkpoint of otgen ({FORMAT}), got {metadata.get('format', 'another file')}"
        )
    try:
        record = json.loads(metadata["record"])
        if record["identity"] != identity:
            raise ValueError(f"{path}: this checkpoint belongs to a fit with other targets, weights or settings")
        fields = {name: _decode(value) for name, value in record["state"].items()} | tensors
        state, history, used = kind(**fields), list(record["history"]), record["used"]
        wanted = get_type_hints(kind)
        wrong = [name for name, value in fields.items() if not _fits(value, wanted[name], m)]
        numbers = [value for row in history for value in row.values()]
    except (AttributeError, LookupError, RecursionError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: damaged checkpoint ({error})") from None
    if wrong or not _fits(used, int, m) or not all(_fits(value, float, m) for value in numbers):
        raise ValueError(f"{path}: damaged checkpoint ({', '.join(wrong) or 'its record'} cannot be right)")
    return state, history, used


def _encode(value: Any) -> Any:
    return {"float": str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _decode(value: Any) -> Any:
    return math.inf if value == {"float": "inf"} else value


def _fits(value: Any, wanted: Any, m: int) -> bool:
    """Whether a value that was read is of the type, and for a tensor of the shape, that a state holds."""
    if isinstance(value, Tensor):
        held = Tensor in (wanted, *get_args(wanted))
        return held and value.dtype == torch.float64 and value.shape == (m,) and bool(torch.isfinite(value).all())
    if wanted is int:
        return type(value) is int and value >= 0
    if wanted is float:
        return type(value) in (int, float) and not math.isnan(value)
    return type(value) in (wanted, *get_args(wanted))
