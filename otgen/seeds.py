"""Seeds: of independent streams, named by what they are for, and of torch's own generators.

From torch's own generators initial weights, dropout, random transforms and the like draw.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

_turn = RLock()


def stream(seed: int, purpose: str, index: int = 0) -> int:
    """Seed in [0, 2^63) of stream number `index` for a purpose.

    Streams with different purposes or numbers are unrelated, so the samples that certify a solution are never those
    that made it, and a run that is resumed draws what it would have drawn.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def torch_seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Let torch's own generators start at a seed, and put them back afterwards.

    There is one set of them for all threads of the process, so one thread at a time is let in: models that are trained
    in several threads take turns, by the step and for the whole of what comes before and after the steps, and each is
    what it would be alone.

    Args:
        seed: Where they start.
        device: A GPU whose generator is meant, too; `None`, or a CPU, for the CPU's alone.
    """
    gpus = [device] if device is not None and device.type == "cuda" else []
    with _turn, torch.random.fork_rng(gpus):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach for all GPUs
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


def _free() -> None:
    global _turn
    _turn = RLock()


if hasattr(os, "register_at_fork"):  # a child has none of the threads that may have held it
    os.register_at_fork(after_in_child=_free)
