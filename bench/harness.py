"""Timing that can be trusted on a machine that drifts: contenders in turn, medians, and the machine in the record."""

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import otgen
from otgen.files import write_bytes

RESULTS = Path(__file__).parent / "results"


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows a program's docstring as it is written, and knows what most programs may be told."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    return parser


@dataclass(frozen=True)
class Timing:
    """Seconds: median, and the half-width of the middle half of the runs."""

    median: float
    spread: float


def interleaved(contenders: dict[str, Callable[[], object]], repeats: int = 7) -> dict[str, Timing]:
    """Run each contender once to warm up, then all of them in turn `repeats` times."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        contender()
    for _ in range(repeats):
        for name, contender in contenders.items():
            began = time.perf_counter()
            contender()
            times[name].append(time.perf_counter() - began)
    return {name: _timing(runs) for name, runs in times.items()}


def _timing(runs: list[float]) -> Timing:
    if len(runs) < 2:
        return Timing(runs[0], 0.0)
    low, _, high = statistics.quantiles(runs, n=4)
    return Timing(statistics.median(runs), (high - low) / 2)


def peak_memory(call: Callable[[], object]) -> int:
    """Bytes by which a call raises what the process holds at its peak; 0 where Linux does not tell."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not clear.exists():
        return 0
    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls left would serve this one
    clear.write_text("5")  # the peak starts again from what is held now
    before = _kilobytes(status.read_text(), "VmRSS")
    call()
    return 1024 * (_kilobytes(status.read_text(), "VmHWM") - before)


def _kilobytes(status: str, key: str) -> int:
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{key}:"))


def copy_speed(n: int) -> float:
    """Bytes a second of copying n float32 numbers, read and written; of memory if the caches cannot hold them."""
    a, b = torch.ones(n), torch.empty(n)
    return 8 * n / interleaved({"copy": lambda: b.copy_(a)}, repeats=3)["copy"].median


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "isa": otgen.ops.instruction_set(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "otgen": otgen.__version__,
        "commit": _commit(),
    }


def report(name: str | None, rows: list[dict[str, Any]]) -> None:
    """Print rows as a table and, with a name, write them and the machine to results/<name>.json."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]
    for line in [columns, *cells]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    if name is None:
        return
    path = RESULTS / f"{name}.json"
    write_json(path, {"machine": machine(), "rows": rows})
    print(f"wrote {path}", file=sys.stderr)


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(record, indent=1) + "\n").encode())


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()} ({os.cpu_count()} cores)"
    return platform.processor()


def _commit() -> str:
    """The commit of this folder, marked where anything but results and the README has changed since."""
    try:
        commit = _git("describe", "--always")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!results", ":!/README.md")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()
