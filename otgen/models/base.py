"""What every model is, and what a newcomer writes to add one.

A model is one class in one file. In this folder it becomes one of otgen's by two lines in `otgen/models/__init__.py`,
its import and its name in `MODELS`: then `otgen models`, `otgen train`, the contact sheet and the tests of all models
know it. In a file of your own it does all the same but for the command line. It derives from

- `Model` if it only trains, or encodes and decodes (`Autoencoder` in autoencoder.py brings both networks);
- `Generative` if it makes samples from noise of its own; a variational autoencoder is both;
- `Adversarial` in adversarial.py if it is a GAN: then two losses and an optimiser are all that is left to write.

It writes a constructor and a `step`, and at most these methods:

    from torch.optim import Adam

    from otgen.models.base import descend
    from otgen.models.generative import Generative
    from otgen.nn import adversarial


    class MyGAN(Generative):
        \"\"\"One sentence. The loss as a formula. Paper, year, equation. What is known to go wrong.\"\"\"

        def __init__(self, shape, d=64, *, width=32, lr=2e-4, generator=None, critic=None, seed=0, device="cpu"):
            super().__init__(shape, d, seed=seed, device=device)     # checks all four
            self._positive(lr=lr)                                    # one-line errors before any work
            with self._building():                                   # weights from the seed, then to the device
                self.generator = self._generator(generator, width)   # our network, or the user's nn.Module
                self.critic = self._critic(critic, width)
            self.generator_adam = Adam(self.generator.parameters(), lr=lr, betas=(0.5, 0.999))
            self.critic_adam = Adam(self.critic.parameters(), lr=lr, betas=(0.5, 0.999))

        def step(self, batch):                       # one batch (b, *shape) on self.device
            self._check_samples("step", batch)
            fake = self._decode(self._noise(len(batch)))
            loss_d = adversarial.hinge_critic(self.critic(batch), self.critic(fake.detach()))
            descend(self.critic_adam, loss_d)
            loss_g = adversarial.wasserstein_generator(self.critic(fake))
            descend(self.generator_adam, loss_g)
            return {"critic": loss_d.item(), "generator": loss_g.item()}

        def _decode(self, z):                        # codes (b, d) to samples (b, *shape), with gradients
            return self.generator(z)

and it gets from here: `fit`, `sample`, `encode`, `decode`, `reconstruct`, `interpolate`, `save` and `load`, exact
resuming, devices, and a clear error for each of them that makes no sense for it. The rules:

- `shape` is (c, h, w) for images, which lie in [0, 1], or (features,) for plain vectors, any real numbers. Samples that
  a model makes lie where its training data do: our networks for images end in a sigmoid, a user's network is taken as
  it is.
- Every argument of the constructor is a number, a string, a truth value, `None`, a tuple of these, an `nn.Module` or
  another `Model`; a file holds them as JSON, with the class's name. All but `shape` (and `d`) are given by name.
- What training changes is in submodules, buffers, optimisers and `torch.Generator`s (see `Stateful`). Noise that `step`
  draws comes from `_noise`, or from `self.rng` alone.
- What is not a step on a batch has its place in `prepare` and `finish`; a training among it gets the run's `Setup`.
- `step` returns the same names at every call; the first is the loss to look at first.
- Losses are pure functions in `otgen.nn`.
"""

import inspect
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from otgen.models import storage
from otgen.models.face import Face
from otgen.models.state import seeded
from otgen.models.storage import Recipe
from otgen.nn import critic
from otgen.nn.networks import Shape, check_shape
from otgen.ops import check
from otgen.seeds import stream
from otgen.train import Callback, Data, History, Samples, Setup, train

M = TypeVar("M", bound="Model")

_numbers = itertools.count()


class Model(Face, ABC):
    """Networks together with the optimisers that train them, behind one face.

    Args:
        shape: Size of a sample: (c, h, w) for images in [0, 1], (features,) for plain vectors.
        seed: Decides the initial weights and the noise of training.
        device: Where the model lives; `to` moves it later.

    Attributes:
        shape: As given.
        history_: Every value that `step` gave in the last `fit`, by name, float64 (steps,), also if it ended early;
            callbacks find it empty.
        rng: Noise of training, on the CPU, so that a seed means the same numbers on every device.
    """

    second_order = False
    """Whether `step` takes gradients of gradients, which torch.compile cannot."""

    _number = 0  # of the class, in the order in which they were defined: `load` takes the last of one name

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._number = next(_numbers)

    def __new__(cls: type[M], *args: Any, **kwargs: Any) -> M:
        """Take down the constructor's arguments, which `save` writes."""
        model = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind_partial(model, *args, **kwargs)
        except TypeError:  # the constructor is about to say it better
            return model
        bound.apply_defaults()
        arguments = dict(list(bound.arguments.items())[1:])
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                arguments |= arguments.pop(name)
        object.__setattr__(model, "_arguments", arguments)
        return model

    def __init__(self, shape: Shape, *, seed: int = 0, device: str | torch.device = "cpu"):
        super().__init__()
        shape = tuple(shape) if isinstance(shape, Sequence) else shape
        check_shape(self._name, shape)
        if not check.is_whole(seed) or not 0 <= seed < 2**63:
            raise ValueError(f"{self._name}: seed must be a whole number >= 0 and below 2^63, got {seed!r}")
        try:
            self._device = torch.device(device)
            torch.empty(0, device=self._device)
        except (AssertionError, RuntimeError, TypeError) as error:
            raise ValueError(f"{self._name}: device must be one that torch finds here, got {device!r}") from error
        self.shape, self.seed = tuple(int(side) for side in shape), int(seed)
        self.history_: History = {}
        self.rng = torch.Generator().manual_seed(stream(seed, "noise"))

    # ---- training ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def step(self, batch: Tensor) -> dict[str, float]:
        """Train on one batch, by as many optimiser steps as the method asks for.

        Args:
            batch: Samples, (b, *shape), on the model's device.

        Returns:
            What is worth a curve, by name; the same names at every call.
        """

    def fit(
        self: M,
        data: Data,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        batch_size: int = 64,
        seed: int = 0,
        progress: bool = True,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
        callbacks: Sequence[Callback] = (),
        amp: bool = False,
        compile: bool | str = False,
    ) -> M:
        """Train on `data`; the arguments are those of `otgen.train.train`, all but `checkpoint_seconds`.

        Returns:
            The model itself, with its `history_`.
        """
        train(
            self,
            data,
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
            checkpoint=checkpoint,
            resume=resume,
            callbacks=callbacks,
            amp=amp,
            compile=compile,
        )
        return self

    def prepare(self, data: Samples, setup: Setup) -> None:
        """Do what comes before the first step of a run that starts at the beginning; by default nothing.

        Args:
            data: Training data; `data.once()` gives them all, in order, in pieces.
            setup: The run's settings, and a checkpoint for a training that has its place here.
        """

    def step_rows(self, batch: Tensor, rows: Tensor | None) -> dict[str, float]:
        """Train on one batch whose row numbers (b,) are known, or `None`; by default they do not matter."""
        return self.step(batch)

    def finish(self, data: Samples, setup: Setup) -> None:
        """Do what comes after the last step of a run; by default nothing. The arguments are those of `prepare`."""

    def check(self, data: Tensor) -> None:
        """Refuse samples (n, ...) on which the model cannot be trained, with the mend in the message.

        Raises:
            TypeError: They are not floating-point numbers.
            ValueError: Their shape or range does not fit what the model makes.
        """
        self._check_samples("fit", data)

    # ---- files ------------------------------------------------------------------------------------------------------

    @property
    def recipe(self) -> Recipe:
        """The class's name and what its constructor was given."""
        given = {name: value for name, value in self._arguments.items() if name != "device"}
        return Recipe(self._name, {k: v.recipe if isinstance(v, Model) else v for k, v in given.items()})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one safetensors file, whole or not at all; `otgen.models.load` reads it.

        Args:
            path: The file; one that is there is replaced.
        """
        storage.write(path, self.recipe, self.state_dict(), self.history_)

    # ---- for subclasses ---------------------------------------------------------------------------------------------

    _arguments: dict[str, Any]

    @contextmanager
    def _building(self, purpose: str | None = None) -> Iterator[None]:
        """Make the networks inside: weights come from the seed, drawn on the CPU, and go to the device at the end.

        Args:
            purpose: What for, where a model builds more than once: each has random numbers of its own.
        """
        with seeded(self.seed if purpose is None else stream(self.seed, purpose)):
            yield
        self.to(self._device)

    def _critic(self, given: nn.Module | None, width: int, norm: str = "none", shape: Shape | None = None) -> nn.Module:
        """A network from samples (b, *shape) to scores (b,): ours by size, or the user's."""
        shape = self.shape if shape is None else shape
        if given is not None:
            return self._given("critic", given, shape, ())
        self._at_least(1, width=width)
        return critic(shape, width, norm)


def descend(optimiser: Optimizer, loss: Tensor) -> None:
    """Take one step of an optimiser down a loss."""
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
