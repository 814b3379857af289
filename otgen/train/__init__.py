"""Training: data of any kind, the loop, checkpoints."""

from otgen.train.checkpoint import Checkpoint, History, read_checkpoint, write_checkpoint
from otgen.train.loop import Callback, Trainable, preparing, train
from otgen.train.samples import Data, Samples, as_samples
from otgen.train.setup import Setup

__all__ = [
    "Callback",
    "Checkpoint",
    "Data",
    "History",
    "Samples",
    "Setup",
    "Trainable",
    "as_samples",
    "preparing",
    "read_checkpoint",
    "train",
    "write_checkpoint",
]
