"""`otgen info`."""

import argparse
import platform
from importlib.metadata import version

import torch

from otgen import ops
from otgen.cli.parser import OK, Commands, Parser

UNMEASURED = "no CUDA kernel has been run or timed on a GPU yet: bench/gpu_check.py does"
"""Shown until bench/results holds what was measured."""


def add(commands: "Commands[Parser]") -> None:
    """Add the command."""
    about = "Show versions and what the kernels run on."
    parser = commands.add_parser("info", help="versions and what the kernels run on", description=about)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show versions."""
    kernels = "built" if ops.has_cuda() else "not built"
    device = "found" if torch.cuda.is_available() else "not found"
    usable = ops.has_cuda() and torch.cuda.is_available()
    for name, value in {
        "otgen": version("otgen"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "instructions": f"{ops.instruction_set()} (available: {', '.join(ops.instruction_sets())})",
        "CUDA": f"{'yes' if usable else 'no'} (kernels {kernels}, device {device})",
        **({"CUDA-filter": f"{ops.cuda_filter()} ({UNMEASURED})"} if ops.has_cuda() else {}),
        "threads": torch.get_num_threads(),
    }.items():
        print(f"{name:13}{value}")
    return OK
