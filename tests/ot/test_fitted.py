"""A fit in a file: it comes back to the last bit, and what is not whole is refused."""

import json
import math
import struct
from dataclasses import asdict

import numpy as np
import oracles
import pytest
import torch
from draws import rand, randn
from fits import assert_same_fit, fit
from safetensors.torch import load_file, save_file

from otgen.files import read_safetensors, write_safetensors
from otgen.ot import SemiDiscreteOT


@pytest.fixture
def saved(tmp_path):
    """A fit with duplicates and weightless targets, and the file it was saved to."""
    y = 3 * randn(40, 3) + 100
    y[35:] = y[:5]
    nu = rand(40)
    nu[[7, 8]] = 0
    ot = fit(y, nu, "normal", tol=0.02, seed=12)
    path = tmp_path / "map.safetensors"
    ot.save(path)
    return ot, path


def test_what_is_loaded_behaves_to_the_last_bit(saved):
    ot, path = saved
    other = SemiDiscreteOT.load(str(path))
    assert_same_fit(other, ot)
    assert other.history_ == ot.history_
    assert (other.source, other.method, other.tol, other.seed) == ("normal", "auto", 0.02, 12)
    x = randn(300, 3)
    for call in ("assign", "transport", "potential"):
        oracles.assert_same_bits(getattr(other, call)(x), getattr(ot, call)(x))
    for a, b in zip(other.sample(200, return_info=True), ot.sample(200, return_info=True), strict=True):
        if isinstance(a, torch.Tensor):
            oracles.assert_same_bits(a, b)
        else:
            assert (a.threshold, a.rejected) == (b.threshold, b.rejected)
            assert torch.equal(a.targets, b.targets)
    assert other.certificate(seed=4) == ot.certificate(seed=4)
    assert other.cost() == ot.cost()
    assert torch.equal(other.singular_set().pairs, ot.singular_set().pairs)
    assert_same_fit(other.refit(ot.targets_[:30]), ot.refit(ot.targets_[:30]))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("seed", range(10))
def test_weights_come_back_to_the_last_bit(tmp_path, seed):
    """They are normalised once; normalising what is normalised must not move it by a rounding."""
    ot = fit(randn(30, 2, seed=seed), rand(30, seed=seed), tol=0.5)
    ot.save(tmp_path / "map")
    assert_same_fit(SemiDiscreteOT.load(tmp_path / "map"), ot)


def test_loading_again_and_again_changes_nothing(saved):
    _, path = saved
    before = path.read_bytes()
    SemiDiscreteOT.load(path).save(path)
    a, b = read_safetensors(path), None
    path.write_bytes(before)
    b = read_safetensors(path)
    assert a[1] == b[1]
    for name in a[0]:
        oracles.assert_same_bits(a[0][name], b[0][name])


def test_custom_source_must_be_given_again(tmp_path):
    def source(n, generator):
        return torch.randn(n, 2, generator=generator)

    ot = fit(randn(10, 2), source=source)
    ot.save(tmp_path / "map")
    with pytest.raises(ValueError, match=r"map: [^\n]*custom source: pass load\(path, source=...\)$"):
        SemiDiscreteOT.load(tmp_path / "map")
    other = SemiDiscreteOT.load(tmp_path / "map", source)
    assert_same_fit(other, ot)
    assert other.certificate(seed=1) == ot.certificate(seed=1)


def refused(path, *parts):
    """Check that a file is refused in one line with its name."""
    with pytest.raises((ValueError, OSError)) as caught:
        SemiDiscreteOT.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    for part in parts:
        assert part in message


def test_file_that_is_cut_off_is_refused(saved):
    _, path = saved
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    for size in [len(whole) * k // 8 for k in range(8)] + [1, 7, 8, 9, header - 1, header, len(whole) - 1]:
        path.write_bytes(whole[:size])
        refused(path)
    path.write_bytes(whole + b"x")
    refused(path)


def test_flipped_bits_in_the_header_never_do_harm(saved):
    """Every byte of the header is damaged once: the file is refused by name, or holds a map all the same."""
    _, path = saved
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    accepted = 0
    for i in range(0, header, 3):
        damaged = bytearray(whole)
        damaged[i] ^= 1 << (i % 7)
        path.write_bytes(bytes(damaged))
        try:
            ot = SemiDiscreteOT.load(path)
        except (ValueError, OSError):
            refused(path)
        else:
            accepted += 1
            assert ot.transport(torch.zeros(1, 3)).shape == (1, 3)
            assert isinstance(ot.certificate_.upper(), float)
    assert accepted < header / 3 * 0.6


def rewrite(path, change=None, **tensors):
    """Save the file again with other tensors, or with its record changed."""
    held, metadata = read_safetensors(path)
    held |= {name: value for name, value in tensors.items() if value is not None}
    for name, value in tensors.items():
        if value is None:
            del held[name]
    record = json.loads(metadata["record"])
    record = (change(record) or record) if change is not None else record
    write_safetensors(path, held, metadata | {"record": json.dumps(record)})


FORGED_TENSORS = {
    "short heights": {"heights": torch.zeros(3, dtype=torch.float64)},
    "float32 heights": {"heights": torch.zeros(33)},
    "nan heights": {"heights": torch.full((33,), math.nan, dtype=torch.float64)},
    "no heights": {"heights": None},
    "no targets": {"targets": None},
    "other targets": {"targets": torch.zeros(5, 3)},
    "nan targets": {"targets": torch.full((40, 3), math.nan)},
    "flat targets": {"targets": torch.zeros(40)},
    "negative weights": {"weights": torch.full((40,), -1.0)},
    "nan weights": {"weights": torch.full((40,), math.nan)},
    "nan centroids": {"centroids": torch.full((33, 3), math.nan, dtype=torch.float64)},
    "negative measures": {"measures": torch.full((33,), -1.0, dtype=torch.float64)},
    "flat centroids": {"centroids": torch.zeros(99, dtype=torch.float64)},
}


@pytest.mark.parametrize("tensors", FORGED_TENSORS.values(), ids=FORGED_TENSORS)
def test_forged_tensors_are_refused(saved, tensors):
    _, path = saved
    rewrite(path, **tensors)
    refused(path, "not a whole map of otgen")


def assign(**changes):
    return lambda record: record | changes


FORGED_RECORDS = {
    "a list": lambda record: [1, 2],
    "a word": lambda record: "x",
    "empty": lambda record: {"x": 1},
    "source": assign(source="banana"),
    "source a number": assign(source=3),
    "samples": assign(samples="many"),
    "infinite samples": assign(samples=math.inf),
    "negative samples": assign(samples=-12),
    "converged": assign(converged="no"),
    "history": assign(history=3),
    "history of letters": assign(history="abc"),
    "certificate": assign(certificate={"chi2": 1}),
    "certificate a list": assign(certificate=[1]),
    "a word in the certificate": lambda record: record | {"certificate": record["certificate"] | {"chi2": "small"}},
    "a share beyond one": lambda record: record | {"certificate": record["certificate"] | {"share": 2}},
    "settings": assign(settings={"method": "sgd", "tol": 0.01, "seed": 1}),
    "settings a list": assign(settings=[1]),
    "no seed": assign(settings={"method": "auto", "tol": 0.01}),
    "seed": assign(settings={"method": "auto", "tol": 0.01, "seed": -1}),
    "tol": assign(settings={"method": "auto", "tol": None, "seed": 1}),
}


@pytest.mark.parametrize("change", FORGED_RECORDS.values(), ids=FORGED_RECORDS)
def test_forged_records_are_refused(saved, change):
    _, path = saved
    rewrite(path, change)
    refused(path, "not a whole map of otgen")


def test_a_record_nested_without_end_is_refused(saved):
    _, path = saved
    held, metadata = read_safetensors(path)
    write_safetensors(path, held, metadata | {"record": "[" * 100_000})
    refused(path, "not a whole map of otgen")


def test_a_source_of_ones_own_is_refused_where_there_was_none(saved):
    _, path = saved
    with pytest.raises(ValueError, match="this map was fitted with source='[a-z]+', not its own"):
        SemiDiscreteOT.load(path, source=lambda n, generator: torch.rand(n, 3, generator=generator))


def test_a_file_sets_nothing_but_what_is_saved(saved, tmp_path):
    """A forged file must not make the estimator write where its user did not ask it to."""
    _, path = saved
    rewrite(path, lambda record: record | {"settings": record["settings"] | {"checkpoint": str(tmp_path / "evil")}})
    assert SemiDiscreteOT.load(path).checkpoint is None


def test_other_files_are_refused(saved, tmp_path):
    ot, path = saved
    other = tmp_path / "other.safetensors"
    save_file(load_file(path), other)
    refused(other, "expected a map saved by otgen", "got another file")
    write_safetensors(other, {"w": torch.zeros(3)}, {"format": "otgen-model-1"})
    refused(other, "got otgen-model-1")
    SemiDiscreteOT(checkpoint=tmp_path / "run", progress=False).fit(randn(20, 2))
    refused(tmp_path / "run", "got otgen-checkpoint-1")
    np.save(tmp_path / "array.npy", np.zeros(100))
    (tmp_path / "array.npy").rename(other)
    refused(other)
    torch.save({"heights": ot.heights_}, other)
    refused(other)
    other.write_bytes(b"")
    refused(other)
    other.write_bytes(np.random.default_rng(0).bytes(5000))
    refused(other)
    refused(tmp_path)
    refused(tmp_path / "missing")


def test_saving_replaces_whole_or_not_at_all(saved, tmp_path):
    ot, path = saved
    before = path.read_bytes()
    with pytest.raises(OSError, match="missing"):
        ot.save(tmp_path / "missing" / "map")
    with pytest.raises(OSError, match=str(tmp_path)):
        ot.save(tmp_path)
    fit(randn(5, 2)).save(path)
    assert path.read_bytes() != before
    assert SemiDiscreteOT.load(path).heights_.shape == (5,)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_certificate_is_in_the_file_in_words(saved):
    ot, path = saved
    record = json.loads(read_safetensors(path)[1]["record"])
    assert record["certificate"] == asdict(ot.certificate_)


def test_what_state_gives_is_not_the_maps_own():
    ot = fit(randn(9, 2))
    tensors, record = ot.state()
    again = SemiDiscreteOT.from_state(tensors, record)
    wanted = ot.transport(randn(20, 2))
    for tensor in tensors.values():
        tensor.zero_()
    for found in (ot, again):
        assert torch.equal(found.transport(randn(20, 2)), wanted)
        assert float(found.sample(50).abs().max()) > 0


def test_tensors_and_sources_must_be_such():
    tensors, record = fit(randn(9, 2)).state()
    with pytest.raises(ValueError, match="state: not a whole map of otgen: heights must be a tensor, got ndarray"):
        SemiDiscreteOT.from_state(tensors | {"heights": tensors["heights"].numpy()}, record)

    def sampler(n, generator):
        return torch.rand(n, 2, generator=generator)

    tensors, record = SemiDiscreteOT(sampler, progress=False).fit(randn(9, 2)).state()
    with pytest.raises(TypeError, match="state: source must be a callable, got str"):
        SemiDiscreteOT.from_state(tensors, record, "normal")


def test_a_loaded_map_replaces_the_checkpoint_of_its_fit(tmp_path):
    path = tmp_path / "running"
    y = randn(50, 4)
    fit(y, checkpoint=path).save(tmp_path / "map")
    loaded = SemiDiscreteOT.load(tmp_path / "map")
    loaded.checkpoint, loaded.progress = path, False
    assert loaded.refit(y[:40]).converged_
