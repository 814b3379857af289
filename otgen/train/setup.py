"""What a run asks of what comes before its first step and after its last."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Setup:
    """A run's settings, as `prepare` and `finish` get them; all are arguments of `fit`, for a training of their own.

    Attributes:
        batch_size: Samples in a batch.
        seed: Decides the run.
        progress: Whether to show bars.
        amp: Whether to compute in bfloat16 where torch holds that to be safe.
        compile: Whether to compile the networks, or by which backend.
        checkpoint: File for a training that comes before the first step, beside the run's own; it is removed once that
            one is written. `None` keeps nothing.
        resume: Whether to go on from `checkpoint`, if it is there.
    """

    batch_size: int
    seed: int = 0
    progress: bool = True
    amp: bool = False
    compile: bool | str = False
    checkpoint: Path | None = None
    resume: bool = False
