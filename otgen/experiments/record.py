"""Where a result comes from, and the JSON files that hold it."""

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from otgen import ops
from otgen.files import write_text

NUMBER = (int, float)

Shape = type | tuple[type, ...] | dict[str, "Shape"] | list["Shape"]
"""What is asked of a value: to be of a type, an object with some keys at least, or a list of such."""


@dataclass(frozen=True)
class Output:
    """A file that was written.

    Attributes:
        path: Where.
        what: What it shows, in a line.
    """

    path: Path
    what: str


def machine() -> dict[str, Any]:
    """What the work was done on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": ops.instruction_set(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "otgen": version("otgen"),
    }


def commit() -> str:
    """The commit of the checkout that this code is part of, with "+" if files were changed since; "" outside of one."""
    folder = Path(__file__).parent
    try:
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)  # not if merely installed there
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def now() -> str:
    """Date and time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def write_json(path: Path, value: Any) -> None:
    """Write JSON as its standard has it: a number that is not finite is refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read an object.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: wanted JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: wanted a JSON object, got {type(value).__name__}")
    return value


def fits(value: Any, wanted: Shape) -> bool:
    """Say whether what was read from JSON has a shape: files of other versions, and damaged ones, do not."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(name in value and fits(value[name], wanted[name]) for name in wanted)
    if isinstance(wanted, list):
        return isinstance(value, list) and all(fits(item, wanted[0]) for item in value)
    return isinstance(value, wanted)


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
