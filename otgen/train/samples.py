"""Training data of any kind behind one face: batches for training, one pass in order for what comes before and after.

Rows that can be reached by number (a tensor, an array, a .npy file that stays on the disk, a `Dataset`, a folder of
images) are shuffled here, so that a batch depends on the seed and the number of the step alone. A `DataLoader` or an
`IterableDataset` brings its own order; the generators from which it draws, torch's own or one that it was given, start
every epoch at a seed of the run, and torch's own is private to it while it works.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from otgen.files import image_paths, load_array, map_array, read_images
from otgen.seeds import stream, torch_seeded

CHUNK = 4096  # rows that are looked at in one piece

MARKED = 64  # rows that tell samples apart

Batch = tuple[Tensor | None, Tensor]
"""Row numbers (b,), if there are any, and samples (b, ...)."""


class Samples(ABC):
    """Samples (n, ...) of which training asks for batches.

    Attributes:
        size: (n, ...), n being the number of batches for a `DataLoader`, or -1 where it is not known: what must be the
            same for a run to go on.
        numbered: Whether batches come with row numbers below n.
    """

    size: tuple[int, ...]
    numbered = False

    @abstractmethod
    def epoch_steps(self, batch_size: int) -> int:
        """Number of batches in an epoch."""

    @abstractmethod
    def batches(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Batches without end, from number `start` on."""

    @abstractmethod
    def once(self) -> Iterator[Tensor]:
        """All samples, each once, in order, in pieces."""

    @abstractmethod
    def look(self) -> Iterator[Tensor]:
        """Pieces of what can be looked at before training without reading it from afar."""

    def mark(self) -> str:
        """Tells most other samples of the same size apart; "" where the same ones may come out transformed."""
        return ""


Data = Tensor | NDArray[Any] | str | os.PathLike[str] | Dataset[Any] | DataLoader[Any] | Samples
"""What can be trained on; a path is a .npy, .npz or .safetensors file or a folder of images."""


def as_samples(data: Data, shape: tuple[int, ...], batch_size: int) -> Samples:
    """Put training data of any kind behind one face.

    Args:
        data: A tensor or array (n, ...); a path to a .npy (which stays on the disk), .npz or .safetensors file, or to
            a folder of images; a `Dataset`, whose items are samples or tuples that begin with one; a `DataLoader`.
        shape: Size of a sample; a folder's images are cut and resized to it.
        batch_size: Samples in a batch, at most n.

    Raises:
        TypeError: It is none of these.
        ValueError: It is empty, or smaller than a batch.
    """
    if isinstance(data, Samples):
        samples = data
    elif isinstance(data, (str, os.PathLike)):
        samples = _from_path(Path(data), shape)
    elif isinstance(data, (Tensor, np.ndarray)):
        samples = _from_array(data)
    elif isinstance(data, DataLoader):
        samples = Stream(data)
    elif isinstance(data, IterableDataset):
        samples = Stream(DataLoader(data, batch_size))
    elif isinstance(data, Dataset) and hasattr(data, "__len__"):
        count = len(data)
        samples = Rows(count, lambda rows: _stack([_first(data[int(row)]) for row in rows]))
    else:
        raise TypeError(
            "train: data must be a tensor or array (n, ...), a path, a torch Dataset with a length or a DataLoader,"
            f" got {type(data).__name__}"
        )
    n = samples.size[0]
    if isinstance(samples, Rows) and not 1 <= batch_size <= n:
        raise ValueError(f"train: batch_size must be from 1 to the {n} rows of data, got {batch_size}")
    return samples


class Rows(Samples):
    """Samples that can be reached by number.

    Args:
        n: How many there are.
        take: Samples (b, ...) by their numbers (b,).
        look: Pieces to look at before training; `None` for the first row.
    """

    numbered = True

    def __init__(self, n: int, take: Callable[[Tensor], Tensor], look: Callable[[], Iterator[Tensor]] | None = None):
        if n < 1:
            raise ValueError("train: data must hold at least one row, got none")
        self.take, self._look = take, look
        self.size = (n, *take(torch.arange(1, device="cpu")).shape[1:])

    def epoch_steps(self, batch_size: int) -> int:
        """Number of full batches; the rows left over differ from epoch to epoch."""
        return self.size[0] // batch_size

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Full batches, shuffled anew in every epoch."""
        generator = torch.Generator().manual_seed(seed)
        epoch = self.epoch_steps(batch_size)
        for _ in range(start // epoch):  # the past costs next to nothing to replay
            torch.randperm(self.size[0], generator=generator, device="cpu")
        skip = start % epoch
        while True:
            order = torch.randperm(self.size[0], generator=generator, device="cpu")
            for rows in torch.split(order[: epoch * batch_size], batch_size)[skip:]:
                yield rows, self.take(rows)
            skip = 0

    def once(self) -> Iterator[Tensor]:
        """All rows in order."""
        for rows in torch.split(torch.arange(self.size[0], device="cpu"), CHUNK):
            yield self.take(rows)

    def look(self) -> Iterator[Tensor]:
        """What the constructor was given."""
        return iter([self.take(torch.arange(1, device="cpu"))]) if self._look is None else self._look()

    def mark(self) -> str:
        """Hash of some rows of an array or file; items of a `Dataset` may be transformed at random."""
        if self._look is None:
            return ""
        some = torch.linspace(0, self.size[0] - 1, MARKED, dtype=torch.float64, device="cpu").long().unique()
        return hashlib.sha256(self.take(some).float().cpu().contiguous().numpy().tobytes()).hexdigest()


class Stream(Samples):
    """Batches that a `DataLoader` makes, in its own order and of its own size.

    Args:
        loader: The loader. A generator that it or its sampler was given is its to draw from, but what it draws is the
            run's to decide: each epoch seeds it anew.
    """

    def __init__(self, loader: DataLoader[Any]):
        self.loader = loader
        try:
            self.length = len(loader)
        except TypeError:  # a loader of an IterableDataset
            self.length = -1
        first = next(self._epoch(0), None)
        if first is None:
            raise ValueError("train: the DataLoader must make at least one batch, got none")
        self.size = (self.length, *first.shape[1:])
        self._first = first

    def epoch_steps(self, batch_size: int) -> int:
        """Number of the loader's batches."""
        if self.length < 0:
            raise ValueError("train: steps must be given instead of epochs, as the length of the data is not known")
        return self.length

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """The loader's batches; those before `start` are made and thrown away, but for whole epochs."""
        epoch = start // self.length if self.length > 0 else 0
        skip = start - epoch * max(self.length, 0)
        while True:
            length = 0
            for index, batch in enumerate(self._epoch(stream(seed, "epoch", epoch))):
                if index >= skip:
                    yield None, batch
                length = index + 1
            if length == 0:
                raise ValueError(
                    f"train: data must give batches in every epoch, got none in epoch {epoch + 1}: an IterableDataset"
                    " must begin anew with every iter()"
                )
            skip, epoch = max(0, skip - length), epoch + 1

    def once(self) -> Iterator[Tensor]:
        """One epoch of the loader."""
        return self._epoch(0)

    def look(self) -> Iterator[Tensor]:
        """The first batch."""
        yield self._first

    def _epoch(self, seed: int) -> Iterator[Tensor]:
        """Batches of one epoch, for which torch's own generator and the loader's start at `seed`."""
        with torch_seeded(seed):
            state = torch.get_rng_state()
        for generator in self._generators():
            generator.manual_seed(seed)
        if self.loader.persistent_workers:
            self.loader._iterator = None  # workers that are kept would go on drawing where the last epoch ended
        iterator = None
        while True:
            with torch_seeded(seed):
                torch.set_rng_state(state)
                iterator = iter(self.loader) if iterator is None else iterator
                batch = next(iterator, None)
                state = torch.get_rng_state()
            if batch is None:
                return
            yield _first(batch)

    def _generators(self) -> list[torch.Generator]:
        """The loader's own."""
        batches = self.loader.batch_sampler
        parts = (self.loader, self.loader.sampler, batches, getattr(batches, "sampler", None))
        found = [getattr(part, "generator", None) for part in parts]
        return [generator for generator in found if isinstance(generator, torch.Generator)]


def _from_path(path: Path, shape: tuple[int, ...]) -> Samples:
    if not path.exists():
        raise FileNotFoundError(f"train: data must be a file or folder that is there, got {path}")
    if path.is_dir():
        if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] != shape[2]:
            raise ValueError(f"train: a folder of images needs a model with shape (1, h, h) or (3, h, h), got {shape}")
        paths = image_paths(path)
        return Rows(
            len(paths),
            lambda rows: read_images([paths[int(row)] for row in rows], shape[1], shape[0]),
        )
    return _from_array(map_array(path) if path.suffix.lower() == ".npy" else load_array(path))


def _from_array(data: Tensor | NDArray[Any]) -> Rows:
    if data.ndim < 2 or len(data) < 1:
        raise ValueError(f"train: data must have shape (n, ...) with n >= 1, got {tuple(data.shape)}")
    if isinstance(data, Tensor):
        detached = data.detach()  # what made the data is not trained here
        return Rows(len(data), lambda rows: detached[rows], lambda: iter(torch.split(detached, CHUNK)))
    return Rows(
        len(data),
        lambda rows: _tensor(data[rows.numpy()]),
        lambda: (_tensor(data[i : i + CHUNK]) for i in range(0, len(data), CHUNK)),
    )


def _tensor(piece: NDArray[Any]) -> Tensor:
    """A copy, as a piece of a file on the disk may not be written to."""
    return torch.from_numpy(np.array(piece, dtype=piece.dtype.newbyteorder("=")))


def _stack(items: list[Tensor]) -> Tensor:
    other = next((item for item in items if item.shape != items[0].shape), None)
    if other is not None:
        came = f"{tuple(items[0].shape)} and {tuple(other.shape)}"
        raise ValueError(f"train: a Dataset must give samples of one shape, got {came}")
    return torch.stack(items)


def _first(item: Any) -> Tensor:
    """The sample, or batch of samples, of an item that may have labels behind it."""
    if isinstance(item, (tuple, list)) and len(item) > 0:
        item = item[0]
    if isinstance(item, np.ndarray):
        item = _tensor(item)
    if not isinstance(item, Tensor):
        raise TypeError(
            f"train: a Dataset must give tensors, arrays, or tuples that begin with one, got {type(item).__name__}"
        )
    return item
