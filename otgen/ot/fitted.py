"""What a fit leaves behind, and the file that holds it: one safetensors file, tensors beside a JSON record."""

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from otgen.files import read_safetensors, write_safetensors
from otgen.ot.certificate import Certificate
from otgen.ot.problem import Problem, make_problem
from otgen.ot.sources import Sampler, make_source

FORMAT = "otgen-transport-1"

SETTINGS = ("method", "tol", "seed")
"""What a file says of the estimator; a forged one must not say where its checkpoint is written."""


@dataclass(frozen=True)
class Fitted:
    """A solved problem.

    Attributes:
        problem: What was solved.
        h: Heights, (m,), float64, in the problem's units.
        measures: Of the cells, computed or on the certificate's samples, (m,), float64.
        centroids: Of the cells, (m, d), float64.
        certificate: Accuracy, computed or on fresh samples.
        converged: Whether the tolerance was certified.
        history: A record per measurement.
        samples: Source samples spent.
        identity: Of its checkpoint.
    """

    problem: Problem
    h: Tensor
    measures: Tensor
    centroids: Tensor
    certificate: Certificate
    converged: bool
    history: list[dict[str, float]]
    samples: int
    identity: str = "none"


def save(path: str | os.PathLike[str], fitted: Fitted, settings: dict[str, Any]) -> None:
    """Write a fit and the estimator's settings, whole or not at all."""
    tensors, record = pack(fitted, settings)
    write_safetensors(path, tensors, {"format": FORMAT, "record": record})


def load(path: str | os.PathLike[str], source: Sampler | None) -> tuple[Fitted, dict[str, Any]]:
    """Read a fit and the estimator's settings.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is damaged, not a map of otgen, or needs its custom source.
    """
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        came = metadata.get("format", "another file")
        raise ValueError(f"{path}: expected a map saved by otgen ({FORMAT}), got {came}")
    return unpack(tensors, metadata.get("record", ""), source, str(path))


def pack(fitted: Fitted, settings: dict[str, Any]) -> tuple[dict[str, Tensor], str]:
    """A fit and the estimator's settings as tensors and a JSON record."""
    record = {
        "settings": settings,
        "source": fitted.problem.source.name,
        "certificate": asdict(fitted.certificate),
        "converged": fitted.converged,
        "history": fitted.history,
        "samples": fitted.samples,
        "identity": fitted.identity,
    }
    tensors = {
        "targets": fitted.problem.given,
        "weights": fitted.problem.weights,
        "heights": fitted.h,
        "measures": fitted.measures,
        "centroids": fitted.centroids,
    }
    return tensors, json.dumps(record)


def unpack(tensors: dict[str, Tensor], text: str, source: Sampler | None, where: str) -> tuple[Fitted, dict[str, Any]]:
    """Take apart what `pack` put together.

    Args:
        tensors: By name.
        text: The record.
        source: The custom source, if there was one.
        where: What a message calls it.

    Raises:
        ValueError: It is damaged, or needs its custom source.
        TypeError: The source is none.
    """
    try:
        record = json.loads(text)
        custom = record["source"] == "custom"
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: not a whole map of otgen: {error}") from None
    if source is not None and not callable(source):
        raise TypeError(f"{where}: source must be a callable, got {type(source).__name__}")
    if custom != (source is not None):
        wanted = (
            "a custom source: pass load(path, source=...)" if custom else f"source={record['source']!r}, not its own"
        )
        raise ValueError(f"{where}: this map was fitted with {wanted}")
    try:
        return _restore(tensors, record, source), {name: record["settings"][name] for name in SETTINGS}
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: not a whole map of otgen: {error}") from None


def _restore(tensors: dict[str, Tensor], record: dict[str, Any], source: Sampler | None) -> Fitted:
    made = make_source(source if record["source"] == "custom" and source is not None else record["source"])
    problem = make_problem(made, tensors["targets"], tensors["weights"])
    shapes = {"heights": (problem.m,), "measures": (problem.m,), "centroids": (problem.m, problem.d)}
    for name, shape in shapes.items():
        held = tensors[name]
        if not isinstance(held, Tensor):
            raise ValueError(f"{name} must be a tensor, got {type(held).__name__}")
        if tuple(held.shape) != shape or held.dtype != torch.float64:
            raise ValueError(f"{name} must be float64 {shape}, got {held.dtype} {tuple(held.shape)}")
        if not bool(torch.isfinite(held).all()):
            raise ValueError(f"{name} must be finite")
    if bool((tensors["measures"] < 0).any()):
        raise ValueError("measures must not be negative")
    converged, samples = record["converged"], record["samples"]
    if type(converged) is not bool or type(samples) is not int or samples < 0:
        raise ValueError(f"converged and samples must be a truth value and a count, got {converged!r} and {samples!r}")
    certificate = Certificate(**record["certificate"])
    numbers = [*asdict(certificate).values(), *(value for row in record["history"] for value in row.values())]
    if not all(isinstance(value, (int, float)) for value in numbers):
        raise ValueError("certificate and history must hold numbers alone")
    if not 0 < certificate.share <= 1:
        raise ValueError(f"share must be in (0, 1], got {certificate.share}")
    return Fitted(
        problem,
        tensors["heights"],
        tensors["measures"],
        tensors["centroids"],
        certificate,
        converged,
        list(record["history"]),
        samples,
        str(record.get("identity", "none")),  # not in files of before
    )
