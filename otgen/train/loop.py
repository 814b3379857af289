"""The training loop: batches in, history out, checkpoints on the way. It knows no model by name."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from math import isfinite
from numbers import Integral
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from otgen.bars import Bar
from otgen.files import one_line
from otgen.seeds import stream, torch_seeded
from otgen.train.checkpoint import Checkpoint, History, read_checkpoint, remove_checkpoint, write_checkpoint
from otgen.train.samples import Data, Samples, as_samples
from otgen.train.setup import Setup

Callback = Callable[["Trainable", int, dict[str, float]], "bool | None"]
"""Called after each step with the model, the number of steps made and what `step` gave; True ends the run."""

Values = dict[str, list[float]]


class Trainable(Protocol):
    """What the loop needs of a model; `otgen.models.Model` has it."""

    shape: tuple[int, ...]
    training: bool
    history_: History

    def check(self, data: Tensor) -> None:
        """Refuse data (n, ...) that it cannot be trained on."""

    def prepare(self, data: Samples, setup: Setup) -> None:
        """What comes before the first step."""

    def step_rows(self, batch: Tensor, rows: Tensor | None) -> dict[str, float]:
        """Train on one batch, whose row numbers are known or not, and say how it went, by the same names each time."""

    def finish(self, data: Samples, setup: Setup) -> None:
        """What comes after the last step."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Parameters, with the device and dtype that batches get."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters with the names by which a message calls them."""

    def children(self) -> Iterator[nn.Module]:
        """Networks, each of which can be compiled."""

    def modules(self) -> Iterator[nn.Module]:
        """The model and all its parts, each in training or evaluation mode."""

    def train(self, mode: bool = True) -> object:
        """Put all parts into training mode."""

    def state_dict(self) -> dict[str, Any]:
        """All that training changes, as tensors."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> object:
        """Become the model that `state_dict` came from."""


def train(
    model: Trainable,
    data: Data,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    amp: bool = False,
    compile: bool | str = False,
) -> History:
    """Train a model on batches of `data`, shuffled anew in every epoch.

    An epoch is n // batch_size steps: batches are full, and the rows left over differ from epoch to epoch. A run that
    was stopped and resumed gives the same model and history, to the last bit, as one that was not (on one machine and
    with the same number of threads). Ctrl-C ends the run after the step at hand, with a checkpoint; a second one ends
    it at once, with the checkpoint before.

    A model in evaluation mode as a whole is put into training mode for the run; one in training mode is left as it is,
    so a part that is in evaluation mode stays there.

    Args:
        model: What to train, in place.
        data: Samples (n, ...) as a tensor or array on any device; a path to a .npy (which stays on the disk), .npz or
            .safetensors file, or to a folder of images; a `Dataset`; a `DataLoader`, which brings its own order and
            batch size, and whose generators are seeded in every epoch.
        epochs: Length of the whole run in epochs; either this or `steps`.
        steps: Length of the whole run in steps; either this or `epochs`.
        batch_size: Samples in a batch, at most n.
        seed: Decides the order of the samples, and what torch's own generators give to networks (dropout) and data sets
            (random transforms) during the run; callbacks find these generators as they were. A second run with one
            seed takes the same batches in the same order, and leaves out the same rows: give another to train on.
        progress: Whether to show a bar on stderr once the run has lasted two seconds.
        checkpoint: File to keep the run in (safetensors), replaced as a whole or not at all; `None` keeps nothing.
        checkpoint_seconds: Time between two checkpoints; there is always one at the beginning and one at the end.
        resume: Whether to go on from `checkpoint`. If there is no such file yet, the run starts at the beginning. The
            model must have the sizes of the one that wrote it; learning rates, weights of losses and the like are its
            own, as given now.
        callbacks: Called after each step with the model, the number of steps made and what `step` gave; if one returns
            True, the run ends there; resumed, it goes on to its full length.
        amp: Whether to compute in bfloat16 where torch holds that to be safe. It has float32's range, so losses need no
            scaling.
        compile: Whether to compile the networks with torch.compile for this run, or by which of its backends.

    Returns:
        Every value that the model's step gave, by name, float64 (steps,), those before resuming included. It is the
        model's `history_`, too, also where the run ends early.

    Raises:
        TypeError: The data are of a kind or dtype that cannot be trained on, or a callback cannot be called.
        ValueError: A number, a shape or the range of the data does not fit, or the checkpoint is of another run.
        OSError: A file cannot be opened, or the checkpoint is there already and `resume` is not asked for.
        FloatingPointError: A loss or gradient is not finite.
    """
    _check_numbers(batch_size, seed, epochs, steps)
    batch_size, seed = int(batch_size), int(seed)  # numpy's, too
    _check_callbacks(callbacks)
    like = next(model.parameters())

    def lend(purpose: str, index: int = 0) -> AbstractContextManager[None]:
        # a step's numbers hang on the seed and the step alone, or a resumed run would draw others
        return torch_seeded(stream(seed, purpose, index), like.device)

    with lend("look"):
        samples = as_samples(data, model.shape, batch_size)
        for piece in samples.look():
            model.check(piece)
    total = int(steps) if steps is not None else int(epochs or 0) * samples.epoch_steps(batch_size)
    settings = {"model": type(model).__name__, "data": list(samples.size), "batch_size": batch_size, "seed": seed}
    path = _checkpoint_path(checkpoint, resume)
    if path:
        settings["contents"] = samples.mark()
    before = None if path is None else preparing(path)
    setup = Setup(batch_size, seed, progress, amp, compile, before, resume)
    start, history = 0, Values()

    def keep(step: int) -> None:
        if path:
            write_checkpoint(path, Checkpoint(settings, step, _arrays(history), model.state_dict()))

    with torch.enable_grad(), _training(model), _compiled(model, compile):
        if path and path.exists():
            start, history = _resume(model, path, settings, total)
        else:
            with lend("prepare"):
                model.prepare(samples, setup)
            keep(0)
        if before:
            remove_checkpoint(before)  # the run's own holds all of it
        saved = time.monotonic()
        batches = samples.batches(batch_size, seed, start)
        model.history_ = {}  # what a callback saves must not hold the history of a run before
        try:
            with (
                Bar(total=total, initial=start, unit="step", disable=not progress) as bar,
                _patience() as hit,
            ):
                for step in range(start + 1, total + 1):
                    with lend("step", step):
                        rows, batch = next(batches)
                        with torch.autocast(like.device.type, torch.bfloat16, enabled=amp):
                            values = model.step_rows(_like(batch, like), rows)
                    _record(model, history, values, step)
                    bar.set_postfix(values, refresh=False)
                    bar.update()
                    stops = [_is_true(callback(model, step, values)) for callback in callbacks]
                    ended = step == total or any(stops)
                    if ended or hit() or time.monotonic() - saved >= checkpoint_seconds:
                        keep(step)
                        saved = time.monotonic()
                    if hit():
                        raise KeyboardInterrupt
                    if ended:
                        break
            with lend("finish"):
                model.finish(samples, setup)
        finally:
            model.history_ = _arrays(history)
    return model.history_


def _check_numbers(batch_size: int, seed: int, epochs: int | None, steps: int | None) -> None:
    if not _is_whole(batch_size, 1):
        raise ValueError(f"train: batch_size must be a whole number >= 1, got {batch_size!r}")
    if not _is_whole(seed, 0):
        raise ValueError(f"train: seed must be a whole number >= 0 and below 2^63, got {seed!r}")
    if (epochs is None) == (steps is None):
        raise ValueError(f"train: either epochs or steps must be given, got epochs={epochs}, steps={steps}")
    length = steps if steps is not None else epochs
    if not _is_whole(length, 1):
        raise ValueError(f"train: epochs or steps must be a whole number >= 1, got epochs={epochs}, steps={steps}")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) < 2**63


def _check_callbacks(callbacks: Sequence[Callback]) -> None:
    if not isinstance(callbacks, Sequence) or not all(callable(callback) for callback in callbacks):
        raise TypeError(f"train: callbacks must be a list of functions, got {callbacks!r}")


def _is_true(answer: object) -> bool:
    """Whether it is a truth value, of NumPy or torch maybe, and true; a file's `write` returns a number."""
    return getattr(answer, "dtype", type(answer)) in (bool, torch.bool) and bool(answer)


def _checkpoint_path(checkpoint: str | os.PathLike[str] | None, resume: bool) -> Path | None:
    """Find out before the first step what would spoil the last."""
    if checkpoint is None:
        if resume:
            raise ValueError("train: resume needs the path of a checkpoint, got None")
        return None
    path = Path(checkpoint)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"train: the checkpoint's folder must exist, got {path.parent}")
    for file in (path, preparing(path)):
        if file.exists() and not resume:
            raise FileExistsError(f"train: {file} is there already; go on from it with resume=True, or remove it")
    return path


def preparing(path: Path) -> Path:
    """The checkpoint of what comes before the first step of the run whose checkpoint is given."""
    return path.with_name(f"{path.name}.prepare")


def _resume(model: Trainable, path: Path, settings: dict[str, Any], total: int) -> tuple[int, Values]:
    """Load a checkpoint into the model, and return its step and history."""
    old = read_checkpoint(path)
    for name, value in settings.items():
        was = old.settings.get(name, value if name == "contents" else None)  # files of before do not say it
        if was != value:
            what = "other data of the same size" if name == "contents" else f"{name}={was}, got {name}={value}"
            raise ValueError(f"train: {path} was made with {what}")
    if old.step > total:
        raise ValueError(f"train: {path} has {old.step} steps behind it, more than the {total} asked for")
    try:
        model.load_state_dict(old.state)
    except Exception as error:  # a forged file can raise anything, and torch's message fills many lines
        raise ValueError(f"train: {path} does not fit the model: {one_line(error)}") from error
    return old.step, {name: values.tolist() for name, values in old.history.items()}


@contextmanager
def _training(model: Trainable) -> Iterator[None]:
    """Let a model train that is in evaluation mode as a whole, and give its parts their modes back."""
    modes = {} if model.training else {part: part.training for part in model.modules()}
    if modes:
        model.train()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def _compiled(model: Trainable, how: bool | str) -> Iterator[None]:
    """Compile each network in place, which leaves the names in `state_dict` as they are, and undo it afterwards."""
    if how is not False and getattr(model, "second_order", False):
        raise ValueError(f"train: {type(model).__name__} takes gradients of gradients, which torch.compile cannot")
    before = {} if how is False else {network: network._compiled_call_impl for network in model.children()}
    try:
        for network in before:
            _compile(network, how)
        yield
    finally:
        for network, call in before.items():
            network._compiled_call_impl = call


def _compile(network: nn.Module, how: bool | str) -> None:
    try:
        network.compile(**({} if how is True else {"backend": how}))
    except Exception as error:  # torch's message fills two lines
        raise ValueError(f"train: compile must be a truth value or one of torch's backends, got {how!r}") from error


@contextmanager
def _patience() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C wait until it is asked for; a second one does not wait."""
    hits: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        hits.append(number)
        if len(hits) > 1:
            raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False  # signals are somebody else's
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: bool(hits)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _like(batch: Tensor, like: Tensor) -> Tensor:
    """The batch on the model's device, and floating-point numbers in its precision."""
    return batch.detach().to(like.device, like.dtype if batch.dtype.is_floating_point else batch.dtype)


def _record(model: Trainable, history: Values, values: dict[str, float], step: int) -> None:
    """Append the values of one step, if they and the gradients behind them are sound."""
    where = f"train: {type(model).__name__}, step {step}"
    if step > 1 and values.keys() != history.keys():
        raise ValueError(f"{where}: step must return {sorted(history)} each time, got {sorted(values)}")
    for name, value in values.items():
        if not isfinite(value):
            raise FloatingPointError(f"{where}: {name} must stay finite, got {value}; try a smaller lr")
    grads = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    if grads and not torch.stack([grad.isfinite().all() for _, grad in grads]).all():
        name = next(name for name, grad in grads if not grad.isfinite().all())
        losses = ", ".join(f"{loss} {value:g}" for loss, value in values.items())
        raise FloatingPointError(f"{where}: the gradient of {name} must stay finite ({losses}); try a smaller lr")
    for name, value in values.items():
        history.setdefault(name, []).append(value)


def _arrays(history: Values) -> History:
    return {name: np.array(values, dtype=np.float64) for name, values in history.items()}
