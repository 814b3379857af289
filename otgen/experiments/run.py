"""Run recipes: do the parts that are not done yet, draw the conclusion, write it down."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from otgen import plots
from otgen.experiments import recipe as recipes
from otgen.experiments.experiment import Context, Findings, Outcome
from otgen.experiments.recipe import Recipe
from otgen.experiments.record import NUMBER, Output, Shape, commit, fits, machine, now, read_json, write_json
from otgen.experiments.registry import EXPERIMENTS
from otgen.files import read_safetensors, write_bytes, write_safetensors
from otgen.ot.settings import whole

MARK = "otgen run"
"""Stands in every JSON file of a run."""

ALL = "all"
"""The name that means every recipe."""

RESULTS = "results.json"

TIMES = ("seconds", "processor_seconds")
"""How long a part took, on the clock and of all cores together: the first says little where others are at work."""

PART: Shape = {
    "made_by": str,
    "identity": str,
    **dict.fromkeys(TIMES, NUMBER),
    "finished": str,
    "commit": str,
    "machine": {"processor": str},
    "values": dict,
}
"""What the JSON file of a part holds."""


def run(
    name: str,
    *,
    output: str | os.PathLike[str] = "otgen-results",
    fast: bool = False,
    seed: int | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> list[Output]:
    """Run a recipe, or all of them.

    Every recipe has a folder of its own in `output`: NAME, or NAME-fast. There `parts` holds a JSON file for each part
    that is finished, so a run that was stopped goes on with the next; `results.json` and the figures are made at the
    end, and made anew by each run.

    Args:
        name: Of a recipe, "all", or the path of a .toml file.
        output: Folder for the results, made if it is not there.
        fast: Whether to take the recipe's fast settings.
        seed: Instead of the recipe's; `None` keeps that.
        device: Where networks are trained, such as "cpu" or "cuda".
        overwrite: Whether parts made with other settings may be replaced.
        note: Is told what happens next.

    Returns:
        What was written, `results.json` of each recipe first.

    Raises:
        FileExistsError: The folder holds parts made with other settings, or results of somebody else's.
        ImportError: A package that the experiment needs is missing.
        OSError: A file cannot be read or written.
        ValueError: The recipe, seed or device does not fit, or a file is damaged.
    """
    chosen = [recipes.load(one) for one in (recipes.names() if name == ALL else [name])]
    unknown = [one for one in chosen if one.experiment not in EXPERIMENTS]
    if unknown:
        known = ", ".join(EXPERIMENTS)
        raise ValueError(f"{unknown[0].name}: experiment must be one of {known}, got {unknown[0].experiment!r}")
    if seed is not None:
        seed = whole("seed", seed, 0)
    for one in chosen:
        recipes.check_settings(one)
    place = device_of(device)
    plots.figure_of(1, 1)  # without matplotlib nothing could be drawn after hours of work
    cache = Path(output) / "cache"
    contexts = [Context(one.sized(fast), one.seed if seed is None else seed, place, cache) for one in chosen]
    for one, context in zip(chosen, contexts, strict=True):
        EXPERIMENTS[one.experiment].parts(context)  # refuses what would stop the last of them after hours of work
    outputs = []
    for one, context in zip(chosen, contexts, strict=True):
        folder = Path(output) / (one.name + "-fast" * fast)
        outputs += _run(one, context, folder, fast, overwrite, note)
    return outputs


def _run(
    recipe: Recipe, context: Context, folder: Path, fast: bool, overwrite: bool, note: Callable[[str], None]
) -> list[Output]:
    experiment = EXPERIMENTS[recipe.experiment]
    identity = _identity(recipe, context)
    parts = experiment.parts(context)
    if os.path.lexists(folder / RESULTS) and read_json(folder / RESULTS).get("made_by") != MARK:
        raise FileExistsError(f"{folder / RESULTS} is not a result of `otgen run`: take another folder with -o")
    store = folder / "parts"
    store.mkdir(parents=True, exist_ok=True)
    done = {part: _read_part(store, part, identity, overwrite) for part in parts}
    records: dict[str, dict[str, Any]] = {}
    outcomes: dict[str, Outcome] = {}
    for number, (part, work) in enumerate(parts.items(), 1):
        finished = done[part]
        if finished is None:
            note(f"{recipe.name}: part {number} of {len(parts)}, {part}")
            finished = _do(part, work, store, identity)
        records[part], outcomes[part] = finished
    note(f"{recipe.name}: drawing")
    try:
        findings = experiment.conclude(context, outcomes)
    except (LookupError, TypeError) as error:
        if not any(done.values()):
            raise
        reason = f"its parts are damaged, or of another version of otgen ({error!r}): remove them"
        raise ValueError(f"{store}: {reason}") from error
    return _write(recipe, context, folder, fast, records, findings)


def _do(part: str, work: Callable[[], Outcome], store: Path, identity: str) -> tuple[dict[str, Any], Outcome]:
    """Do a part and keep what came of it; the JSON file comes last and says that the part is finished."""
    began, worked = time.monotonic(), time.process_time()
    outcome = work()
    record = {
        "made_by": MARK,
        "part": part,
        "identity": identity,
        "seconds": round(time.monotonic() - began, 2),
        "processor_seconds": round(time.process_time() - worked, 2),
        "finished": now(),
        "commit": commit(),
        "machine": machine(),
        "values": outcome.values,
    }
    if outcome.tensors:
        write_safetensors(store / f"{part}.safetensors", outcome.tensors, {"identity": identity})
    write_json(store / f"{part}.json", record)
    return record, outcome


def _read_part(store: Path, part: str, identity: str, overwrite: bool) -> tuple[dict[str, Any], Outcome] | None:
    """Read a part that is finished; `None` if it is not."""
    path = store / f"{part}.json"
    if not path.exists():
        return None
    record = read_json(path)
    tensors = store / f"{part}.safetensors"
    held, about = read_safetensors(tensors) if tensors.exists() else ({}, {"identity": identity})
    for file, found in ((path, record.get("identity")), (tensors, about.get("identity"))):
        if record.get("made_by") == MARK and found == identity:
            continue
        if overwrite and record.get("made_by") == MARK:
            return None
        raise FileExistsError(
            f"{file} was made with other settings, seed or device: take another folder with -o, or replace it with"
            " --overwrite"
        )
    if not fits(record, PART):
        raise ValueError(f"{path}: not a whole part of `otgen run`: remove it")
    return record, Outcome(record["values"], held)


def _write(
    recipe: Recipe,
    context: Context,
    folder: Path,
    fast: bool,
    records: Mapping[str, Mapping[str, Any]],
    findings: Findings,
) -> list[Output]:
    kept = (*TIMES, "finished", "commit", "machine", "values")
    result = {
        "made_by": MARK,
        "recipe": recipe.name,
        "title": recipe.title,
        "claim": recipe.claim,
        "fast": fast,
        "seed": context.seed,
        "device": str(context.device),
        "settings": dict(context.settings),
        "commit": sorted({record["commit"] for record in records.values()}),
        "machine": sorted({record["machine"]["processor"] for record in records.values()}),
        **{kind: round(sum(record[kind] for record in records.values()), 1) for kind in TIMES},
        "finished": max(record["finished"] for record in records.values()),
        "claims": [asdict(claim) for claim in findings.claims],
        "tables": [asdict(table) for table in findings.tables],
        "figures": [{"file": file, "caption": picture.caption} for file, picture in findings.pictures.items()],
        "parts": {part: {key: record[key] for key in kept} for part, record in records.items()},
    }
    for file, picture in findings.pictures.items():
        write_bytes(folder / file, plots.render(picture.figure))
    write_json(folder / RESULTS, result)
    held = sum(claim.verdict == "confirmed" for claim in findings.claims)
    outputs = [Output(folder / RESULTS, f"{recipe.title}: {held} of {len(findings.claims)} claims confirmed")]
    return outputs + [Output(folder / file, picture.caption) for file, picture in findings.pictures.items()]


def _identity(recipe: Recipe, context: Context) -> str:
    """Name of all that decides the parts; the code is not in it, but its commit stands beside each part."""
    what = [recipe.experiment, dict(context.settings), context.seed, context.device.type]
    return hashlib.blake2b(json.dumps(what, sort_keys=True).encode(), digest_size=8).hexdigest()


def device_of(name: str) -> torch.device:
    """The device of a name, if torch can use it here and numbers come back from it, as they do not from "meta"."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device must be one that torch can use here, got {name!r}: {reason}") from error
    return device
