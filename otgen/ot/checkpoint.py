"""State of a running solver in one safetensors file: tensors as they are, numbers as JSON beside them."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any, TypeVar

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


def load(path: Path, kind: type[S], identity: str) -> tuple[S, list[dict[str, float]], int] | None:
    """State, history and samples used of the run that wrote `path`; `None` where there is no file.

    Raises:
        ValueError: The file is damaged, not a checkpoint, or of a run with other data or settings.
    """
    if not path.exists():
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
        numbers = {name: _decode(value) for name, value in record["state"].items()}
        state = kind(**(numbers | tensors))
        history, used = list(record["history"]), int(record["used"])
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: damaged checkpoint ({error})") from None
    heights = tensors.get("h")
    if heights is None or not bool(torch.isfinite(heights).all()):
        raise ValueError(f"{path}: damaged checkpoint (heights missing or not finite)")
    return state, history, used


def _encode(value: Any) -> Any:
    return {"float": str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _decode(value: Any) -> Any:
    return float(value["float"]) if isinstance(value, dict) else value
