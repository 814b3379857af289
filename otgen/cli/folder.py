"""The folder of a run that `otgen train` makes: what is in it, and when it may be written."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from otgen.cli.checks import check_output
from otgen.files import write_text
from otgen.train import preparing

MODEL, CHECKPOINT, RECORD = "model.safetensors", "checkpoint.safetensors", "run.json"
"""Files of a run's folder: the trained model, the run on its way, and what was asked for."""

UNDER_WAY = (CHECKPOINT, preparing(Path(CHECKPOINT)).name)
"""One of them is there once a run has done something: its checkpoint, or that of a training before its first step."""

OURS = {"data", "model", "batch_size"}
"""What every record holds; another run.json belongs to somebody else."""


def check_folder(name: str, resume: bool, overwrite: bool) -> Path:
    """Refuse a folder that cannot be written, or holds what must not be overwritten."""
    if not name:
        raise ValueError("the output must be a folder, got ''")
    folder = Path(name)
    there = [file for file in (MODEL, *UNDER_WAY) if os.path.lexists(folder / file)]
    if there and not (resume or overwrite):
        raise FileExistsError(
            f"{folder} holds {there[0]}: choose another folder, go on with --resume, or begin again with --overwrite"
        )
    if folder.is_dir():
        for file in (MODEL, *UNDER_WAY, RECORD):
            check_output(str(folder / file), None, [], overwrite=True)
    elif os.path.lexists(folder):
        raise NotADirectoryError(f"{folder} is a file, not a folder")
    if os.path.lexists(folder / RECORD) and not overwrite:
        _read_record(folder)
    return folder


@contextmanager
def begin(folder: Path, record: dict[str, Any], resume: bool) -> Iterator[Callable[[], None]]:
    """Make the folder ready for a run, or for going on with one that was asked for in the same words.

    Files of an earlier run that is not gone on with are put aside. A run that ends in an error before it has a
    checkpoint of its own was refused: the folder then holds what it held before.

    Args:
        folder: As `check_folder` gave it.
        record: What is asked for.
        resume: Whether to go on.

    Yields:
        A function that removes what was put aside, to be called once the run is under way.
    """
    if resume and (folder / RECORD).exists():
        old = _read_record(folder)
        for name, value in record.items():
            if old.get(name) != value:
                raise ValueError(f"{folder} holds a run with {name} {old.get(name)}, got {value}: take another folder")
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".earlier-", dir=folder))
    except OSError as error:
        raise OSError(error.errno, f"cannot make this folder: {error.strerror}", str(folder)) from error
    replaced = (RECORD,) if resume else (MODEL, *UNDER_WAY, RECORD)
    earlier = [file for file in replaced if os.path.lexists(folder / file)]
    try:
        for file in earlier:
            os.replace(folder / file, aside / file)
        write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
        yield lambda: shutil.rmtree(aside, ignore_errors=True)
    except BaseException:
        if not under_way(folder):
            (folder / RECORD).unlink(missing_ok=True)
            for file in earlier:
                os.replace(aside / file, folder / file)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if not (folder / RECORD).exists():
            for place in missing:
                with suppress(OSError):  # somebody else may have put something there
                    place.rmdir()


def under_way(folder: Path) -> bool:
    """Whether a run has done something that can be gone on with."""
    return any((folder / file).exists() for file in UNDER_WAY)


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    try:
        record = dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not the record of a run: {error}") from None
    if not set(record) >= OURS:
        raise ValueError(f"{path}: not the record of a run, which names {', '.join(sorted(OURS))}: take another folder")
    return record
