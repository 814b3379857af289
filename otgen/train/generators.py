"""Torch's own generators, from which dropout, random transforms and the like draw."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Let torch's own generators start at a seed, and put them back afterwards.

    Args:
        seed: Where they start.
        device: A GPU whose generator is meant, too; `None`, or a CPU, for the CPU's alone.
    """
    gpus = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(gpus):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach for all GPUs
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield
