"""Training data of every kind gives the same batches, and is resumed exactly."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler

from otgen.files import save_array
from otgen.models import AE, Model
from otgen.train import as_samples, read_checkpoint, train


def points(n=20):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(5))


class Listed(Dataset):
    def __init__(self, x, wrap=lambda row: row):
        self.x, self.wrap = x, wrap

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        assert isinstance(index, int)
        return self.wrap(self.x[index])


class Streamed(IterableDataset):
    def __init__(self, x):
        self.x = x

    def __iter__(self):
        return iter(self.x)


def test_torchs_default_device_changes_no_batch():
    x = points()
    plain = [next(as_samples(data, (2,), 4).batches(4, seed=1)) for data in (x, x.numpy(), Listed(x))]
    with torch.device("meta"):
        other = [next(as_samples(data, (2,), 4).batches(4, seed=1)) for data in (x, x.numpy(), Listed(x))]
        assert [torch.equal(a, b) for a, b in zip(as_samples(x, (2,), 4).once(), [x], strict=True)] == [True]
    assert all(torch.equal(a[i], b[i]) for a, b in zip(plain, other, strict=True) for i in (0, 1))


class Watch(Model):
    """Keeps what it sees."""

    def __init__(self, shape):
        super().__init__(shape)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def step(self, batch):
        self.seen.append(batch)
        return {"sum": batch.sum().item()}


def seen_by(data, shape=(2,), **run):
    model = Watch(shape)
    train(model, data, **({"batch_size": 4, "progress": False} | run))
    return torch.stack(model.seen)


KINDS = {
    "array": lambda x, folder: x.numpy(),
    "read-only array": lambda x, folder: np.broadcast_to(x.numpy(), x.shape),
    "big-endian array": lambda x, folder: x.numpy().astype(">f4"),
    "npy": lambda x, folder: folder / "x.npy",
    "npz": lambda x, folder: str(folder / "x.npz"),
    "safetensors": lambda x, folder: folder / "x.safetensors",
    "dataset": lambda x, folder: Listed(x),
    "labelled": lambda x, folder: Listed(x, lambda row: (row, 7)),
    "arrays": lambda x, folder: Listed(x, lambda row: row.numpy()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_batches(tmp_path, kind):
    x = points()
    for ending in (".npy", ".npz", ".safetensors"):
        save_array(tmp_path / f"x{ending}", x)
    data = KINDS[kind](x, tmp_path)
    assert_close(seen_by(data, steps=8), seen_by(x, steps=8), rtol=0, atol=0)
    assert_close(torch.cat(list(as_samples(data, (2,), 4).once())), x, rtol=0, atol=0)


def test_all_rows_are_given_and_looked_at_in_pieces(monkeypatch):
    monkeypatch.setattr("otgen.train.samples.CHUNK", 8)
    for data in (points(), points().numpy()):
        samples = as_samples(data, (2,), 4)
        for pieces in (list(samples.once()), list(samples.look())):
            assert [len(piece) for piece in pieces] == [8, 8, 4]
            assert_close(torch.cat(pieces), points(), rtol=0, atol=0)


def test_a_npy_file_stays_on_the_disk(tmp_path):
    save_array(tmp_path / "x.npy", torch.zeros(10, 2))
    samples = as_samples(tmp_path / "x.npy", (2,), 4)
    with (tmp_path / "x.npy").open("r+b") as file:
        file.seek(-8 * 10, 2)
        file.write(np.arange(20, dtype=np.float32).tobytes())
    assert_close(samples.take(torch.tensor([9, 0])), torch.tensor([[18.0, 19.0], [0.0, 1.0]]))


def test_double_precision_is_brought_to_the_models():
    assert_close(seen_by(points().double(), steps=3), seen_by(points(), steps=3), rtol=0, atol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_of_images(tmp_path, channels):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    got = torch.cat(list(as_samples(tmp_path, (channels, 8, 8), 2).once()))
    wanted = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    if channels == 1:
        grey = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in pixels])
        wanted = torch.from_numpy(grey)[:, None] / 255
    assert_close(got, wanted)
    ae = AE((channels, 8, 8), 2, width=4).fit(tmp_path, epochs=2, batch_size=3, progress=False)
    assert len(ae.history_["loss"]) == 4


@pytest.mark.parametrize("shape", [(2,), (4, 8, 8), (1, 8, 12)])
def test_a_folder_gives_grey_or_coloured_squares(tmp_path, shape):
    with pytest.raises(
        ValueError, match=r"a folder of images needs a model with shape \(1, h, h\) or \(3, h, h\), got"
    ):
        as_samples(tmp_path, shape, 2)


def drawn_from(x):
    return RandomSampler(x, generator=torch.Generator().manual_seed(5))


LOADERS = {
    "in order": lambda x: DataLoader(x, 4),
    "shuffled": lambda x: DataLoader(Listed(x, lambda row: (row, 1)), 4, shuffle=True),
    "augmented": lambda x: DataLoader(Listed(x, lambda row: row + torch.rand(2)), 4, shuffle=True),
    "of a generator": lambda x: DataLoader(x, 4, shuffle=True, generator=torch.Generator().manual_seed(5)),
    "of batches": lambda x: DataLoader(x, batch_sampler=BatchSampler(drawn_from(x), 4, drop_last=False)),
    "of a sampler's": lambda x: DataLoader(x, 4, sampler=drawn_from(x)),
}


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("stop", [2, 5, 7])
def test_a_loader_is_resumed_exactly(tmp_path, kind, stop):
    """Five batches make an epoch."""
    loader, before = LOADERS[kind](points()), torch.get_rng_state()
    whole = seen_by(loader, steps=12)
    first = seen_by(loader, steps=stop, checkpoint=tmp_path / "a")
    rest = seen_by(loader, steps=12, checkpoint=tmp_path / "a", resume=True)
    assert_close(torch.cat([first, rest]), whole, rtol=0, atol=0)
    assert_close(torch.get_rng_state(), before, rtol=0, atol=0)
    assert torch.equal(whole[:5], whole[5:10]) == (kind == "in order")
    assert read_checkpoint(tmp_path / "a").settings["data"] == [5, 2]
    assert len(seen_by(loader, epochs=2)) == 10


class Drawn(IterableDataset):
    def __iter__(self):
        return (torch.rand(2) for _ in range(20))


@pytest.mark.parametrize("kind", ["shuffled", "of a generator", "drawn"])
def test_epochs_of_one_seed_are_not_those_of_the_next(kind):
    """Or runs of neighbouring seeds, which tell the spread, would see nearly the same data."""

    def epochs(seed):
        loader = DataLoader(Drawn(), 4) if kind == "drawn" else LOADERS[kind](points())
        batches = as_samples(loader, (2,), 4).batches(4, seed)
        return [torch.cat([next(batches)[1] for _ in range(5)]) for _ in range(3)]

    assert not any(torch.equal(a, b) for a in epochs(0) for b in epochs(1))


def test_no_two_batches_of_a_loader_draw_the_same_numbers():
    loader = DataLoader(Listed(torch.zeros(20, 2), lambda row: row + torch.rand(2)), 4)
    assert len(torch.cat(list(as_samples(loader, (2,), 4).once())).unique(dim=0)) == 20


def test_a_loader_draws_nothing_of_torchs_own_numbers():
    before = torch.get_rng_state()
    samples = as_samples(LOADERS["augmented"](points()), (2,), 4)
    list(samples.once())
    batches = samples.batches(4, seed=7)
    for _ in range(7):
        next(batches)
        assert torch.equal(torch.get_rng_state(), before)


def test_what_made_the_data_is_not_trained():
    encoder = torch.nn.Linear(2, 2)
    for form in (encoder(points()), Listed(encoder(points()))):
        AE((2,), 2, width=2).fit(form, steps=2, batch_size=4, progress=False)
        assert encoder.weight.grad is None
    assert not next(as_samples(encoder(points()), (2,), 4).once()).requires_grad


def test_a_stream_of_unknown_length(tmp_path):
    data = Streamed(list(points()))
    whole = seen_by(data, steps=12)
    assert_close(whole[:5].flatten(0, 1), points(), rtol=0, atol=0)
    seen_by(data, steps=7, checkpoint=tmp_path / "a")
    assert_close(seen_by(data, steps=12, checkpoint=tmp_path / "a", resume=True), whole[7:], rtol=0, atol=0)
    with pytest.raises(ValueError, match="train: steps must be given instead of epochs, as the length of the data"):
        seen_by(data, epochs=1)


@pytest.mark.parametrize(
    ("data", "kind", "wanted"),
    [
        (torch.ones(4), ValueError, r"data must have shape \(n, ...\) with n >= 1, got \(4,\)"),
        (np.ones((0, 2)), ValueError, r"data must have shape \(n, ...\) with n >= 1, got \(0, 2\)"),
        (Listed([]), ValueError, "data must hold at least one row, got none"),
        (Listed([{}] * 9), TypeError, "a Dataset must give tensors, arrays, or tuples that begin with one, got dict"),
        (
            DataLoader(points()[:3], 4, drop_last=True),
            ValueError,
            "the DataLoader must make at least one batch, got none",
        ),
        (points()[:3], ValueError, "batch_size must be from 1 to the 3 rows of data, got 4"),
        ([1, 2], TypeError, "data must be a tensor or array .* a path, a torch Dataset with .* DataLoader, got list"),
        (Dataset(), TypeError, "data must be .* a torch Dataset with a length or a DataLoader, got Dataset"),
    ],
)
def test_data_that_cannot_be_used(data, kind, wanted):
    with pytest.raises(kind, match=f"^train: {wanted}"):
        seen_by(data, steps=1)


def test_files_that_cannot_be_used(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "short.npy", np.ones((50, 2)))
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:-8])
    for name in ("objects", "short"):
        with pytest.raises(ValueError, match=f"map_array: wanted an array from .*{name}.npy: "):
            seen_by(tmp_path / f"{name}.npy", steps=1)
    with pytest.raises(FileNotFoundError, match="nothing.npy"):
        seen_by(tmp_path / "nothing.npy", steps=1)
    with pytest.raises(FileNotFoundError, match="must be a file or folder that is there, got .*photos"):
        as_samples(tmp_path / "photos", (1, 8, 8), 2)


@pytest.mark.parametrize(
    ("data", "kind", "mend"),
    [
        (torch.full((5, 1, 8, 8), 255.0), ValueError, r"images must lie in \[0, 1\], got 255 to 255: take x / 255"),
        (torch.full((5, 1, 8, 8), 1 + 2**-23), ValueError, r"got 1.00000012 to 1.00000012: take x.clamp\(0, 1\)"),
        (torch.full((5, 1, 8, 8), -0.01), ValueError, r"got -0.00999999978 to .*: take x.clamp\(0, 1\)"),
        (torch.full((5, 1, 8, 8), 300.0), ValueError, r"got 300 to 300: take \(x - x.min\(\)\)"),
        (torch.full((5, 1, 8, 8), -0.5), ValueError, r"got -0.5 to -0.5: take \(x \+ 1\) / 2"),
        (
            torch.full((5, 1, 8, 8), -7.0),
            ValueError,
            r"got -7 to -7: take \(x - x.min\(\)\) / \(x.max\(\) - x.min\(\)\)",
        ),
        (torch.full((5, 1, 8, 8), 9, dtype=torch.uint8), TypeError, "got torch.uint8: take x.float.. / 255"),
        (torch.zeros(5, 64), ValueError, r"shape \(n, 1, 8, 8\), got \(\d, 64\): take x.reshape\(-1, 1, 8, 8\)"),
        (torch.zeros(5, 8, 8), ValueError, r"shape \(n, 1, 8, 8\), got \(\d, 8, 8\): take x.reshape\(-1, 1, 8, 8\)"),
        (torch.zeros(5, 3, 8, 8), ValueError, r"shape \(n, 1, 8, 8\), got \(\d, 3, 8, 8\)$"),
    ],
)
def test_data_that_do_not_fit_the_output_are_refused_with_the_mend(data, kind, mend):
    for form in (data, data.numpy(), Listed(data)):
        with pytest.raises(kind, match=mend):
            AE((1, 8, 8), 2, width=4).fit(form, steps=1, batch_size=2, progress=False)
    late = torch.cat([torch.zeros(5000, 2), torch.tensor([[float("nan"), 0.0]])])
    with pytest.raises(ValueError, match="AE.fit: vectors must be finite, got nan to nan"):
        AE((2,), 2, width=4).fit(late, steps=1, batch_size=2, progress=False)


def test_samples_of_different_shapes():
    data = Listed([torch.ones(2)] * 9 + [torch.ones(3)])
    with pytest.raises(
        ValueError, match=r"^train: a Dataset must give samples of one shape, got \([23],\) and \([23],\)$"
    ):
        seen_by(data, steps=3)


class Once(IterableDataset):
    """Gives its data once, or a number of times."""

    def __init__(self, times=1):
        self.left = iter(range(times))

    def __iter__(self):
        return iter([]) if next(self.left, None) is None else iter(torch.zeros(40, 2))


@pytest.mark.parametrize("times", [1, 2])
def test_data_that_end_are_not_waited_for(times):
    """The first is spent on a look, so that nothing is left, or one epoch."""
    with pytest.raises(ValueError, match=f"got none in epoch {times}: an IterableDataset must begin anew"):
        AE((2,), d=2, width=2).fit(Once(times), steps=50, batch_size=10, progress=False)


class Jittered(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, i):
        return torch.full((2,), float(i)) + torch.randn(2)


@pytest.mark.slow
def test_workers_that_persist_are_seeded_in_every_epoch(tmp_path):
    def fit(steps, **options):
        loader = DataLoader(Jittered(), batch_size=10, num_workers=1, persistent_workers=True)
        return AE((2,), d=2, width=2).fit(loader, steps=steps, progress=False, **options)

    whole = fit(12)
    fit(6, checkpoint=tmp_path / "run")
    again = fit(12, checkpoint=tmp_path / "run", resume=True)
    assert np.array_equal(again.history_["loss"], whole.history_["loss"])
