"""`otgen sample` of a map, and the outputs of both."""

import os
import tempfile

import pytest
import torch

import otgen
from otgen import SemiDiscreteOT
from otgen.files import load_array

COMMANDS = ("demo", "fit", "train", "sample", "models", "info")


@pytest.mark.parametrize("ending", ["npy", "npz", "safetensors"])
def test_sample_writes_new_codes_in_every_format(run, fitted, tmp_path, ending):
    path = tmp_path / f"new.{ending}"
    code, out, err = run("sample", fitted, "-n", 50, "-o", path)
    new, info = SemiDiscreteOT.load(fitted).sample(50, return_info=True)
    assert (code, err) == (0, [])
    assert torch.equal(load_array(path), new)
    assert out[0].startswith("50 codes in 3 dimensions, ")
    assert out[1] == f"angle threshold {info.threshold:.4g} rad, {info.rejected:.1%} of the noise samples rejected"
    assert out[2] == f"wrote {path}"


def test_sample_hands_every_option_on(run, fitted, tmp_path):
    code, out, _ = run("sample", fitted, "-n", 20, "-o", tmp_path / "a.npy", "--seed", 5, "--angle-threshold", 2.5)
    assert code == 0
    assert "angle threshold 2.5 rad" in out[1]
    expected = SemiDiscreteOT.load(fitted).sample(20, 2.5, seed=5)
    assert torch.equal(load_array(tmp_path / "a.npy"), expected)


def test_hard_samples_are_targets_and_follow_the_seed(run, fitted, codes, tmp_path):
    y = load_array(codes).double()
    drawn = []
    for name, seed in (("a", []), ("b", []), ("c", ["--seed", 5])):
        code, out, _ = run("sample", fitted, "--hard", "-n", 2000, "-o", tmp_path / f"{name}.npy", *seed)
        assert code == 0
        assert out[0] == "2000 codes in 3 dimensions, each one of the 60 targets"
        drawn.append(torch.cdist(load_array(tmp_path / f"{name}.npy"), y))
        assert bool((drawn[-1].amin(1) == 0).all())
    index = [distance.argmin(1) for distance in drawn]
    assert torch.equal(index[0], index[1])
    assert not torch.equal(index[0], index[2])
    counts = torch.bincount(index[0], minlength=60).double()
    assert float((counts - 2000 / 60).square().sum() / (2000 / 60)) < 60 * (1 + 2000 * 0.05 / 60)  # as the tol allows


def custom(path):
    ot = SemiDiscreteOT(source=lambda n, g: torch.rand(n, 2, generator=g), tol=1.0, progress=False)
    ot.fit(torch.rand(5, 2, generator=torch.Generator().manual_seed(0))).save(path)


BAD_MAPS = {
    "missing": (lambda path: None, "map.safetensors: No such file or directory"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "wanted a whole .safetensors file"),
    "empty": (lambda path: path.write_bytes(b""), "wanted a whole .safetensors file"),
    "foreign": (lambda path: otgen.files.save_array(path, torch.ones(3)), "expected a map saved by otgen"),
    "custom": (custom, "this map was fitted with a custom source"),
}


@pytest.mark.parametrize("kind", BAD_MAPS)
def test_bad_maps_are_refused(refused, no_work, fitted, tmp_path, kind, monkeypatch):
    monkeypatch.undo() if kind == "custom" else None  # it is a fit that makes this file
    path = tmp_path / "map.safetensors"
    if kind == "cut off":
        path.write_bytes(fitted.read_bytes())
    write, reason = BAD_MAPS[kind]
    write(path)
    assert reason in refused("sample", path, "-o", tmp_path / "new.npy")
    assert not (tmp_path / "new.npy").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["-n", "0"], "n must be a positive int below 2^63, got 0"),
        (["-n", "1" + 399 * "0"], "n must be a positive int below 2^63, got 1000"),
        (["-n", "1000000000000000"], "take a smaller n"),
        (["-n", "1" + 18 * "0"], "take a smaller n"),
        (["--seed", "-1"], "seed must be an int in [0, 2^63), got -1"),
        (["--angle-threshold", "4"], 'angle_threshold must be "auto" or an angle in (0, pi], got 4.0'),
        (["--angle-threshold", "nan"], 'angle_threshold must be "auto" or an angle in (0, pi], got nan'),
        (["--angle-threshold", "1e-9"], "rejects 100.00% of the samples"),
        (["--hard", "--angle-threshold", "1"], "--angle-threshold has no meaning beside it"),
    ],
)
def test_bad_numbers_are_refused(refused, fitted, tmp_path, words, reason):
    assert reason in refused("sample", fitted, "-o", tmp_path / "new.npy", *words)
    assert not list(tmp_path.iterdir())


# --- outputs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["fit", "sample"])
def command(request, codes, fitted, monkeypatch):
    """A command that lacks only its output, whose ending comes with it; checked before any input is read."""
    monkeypatch.setattr("otgen.cli.fit.load_array", lambda *_: pytest.fail("work was begun"))
    monkeypatch.setattr(SemiDiscreteOT, "load", lambda *_: pytest.fail("work was begun"))
    return ("fit", codes) if request.param == "fit" else ("sample", fitted), ".safetensors"


def test_an_output_that_exists_is_kept(refused, command, tmp_path):
    words, ending = command
    path = tmp_path / f"mine{ending}"
    path.write_text("mine")
    assert "exists: choose another name, or replace it with --overwrite" in refused(*words, "-o", path)
    assert path.read_text() == "mine"
    link = tmp_path / f"link{ending}"
    link.symlink_to(tmp_path / "nowhere")
    assert "exists" in refused(*words, "-o", link)


def test_an_output_is_replaced_on_demand(run, codes, fitted, tmp_path):
    for words, name in ((("fit", codes, "--tol", 0.5), "a.safetensors"), (("sample", fitted), "b.npy")):
        (tmp_path / name).write_text("old")
        assert run(*words, "-o", tmp_path / name, "--overwrite")[0] == 0
        assert (tmp_path / name).stat().st_size > 100


def test_an_input_is_never_replaced(refused, codes, fitted, tmp_path):
    copy = tmp_path / "c.safetensors"
    otgen.files.save_array(copy, load_array(codes))
    before = copy.read_bytes()
    assert "asked for twice" in refused("fit", copy, "-o", copy, "--overwrite")
    assert "asked for twice" in refused("fit", codes, "--weights", copy, "-o", copy, "--overwrite")
    assert "asked for twice" in refused("fit", copy, "--checkpoint", copy, "-o", tmp_path / "m.safetensors")
    assert "asked for twice" in refused("fit", codes, "--checkpoint", copy, "-o", copy, "--overwrite")
    assert "asked for twice" in refused("sample", copy, "-o", tmp_path / "." / "c.safetensors", "--overwrite")
    assert copy.read_bytes() == before


def test_an_output_that_cannot_be_written_is_refused_first(refused, command, tmp_path, monkeypatch):
    words, ending = command
    assert "the output must end in" in refused(*words, "-o", tmp_path / "new.txt")
    (tmp_path / f"folder{ending}").mkdir()
    assert "is a folder, not a file" in refused(*words, "-o", tmp_path / f"folder{ending}")
    assert "there is no folder" in refused(*words, "-o", tmp_path / "none" / f"new{ending}")
    if os.geteuid() == 0:  # root may write anywhere
        denied = PermissionError(13, "Permission denied")
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: (_ for _ in ()).throw(denied))
    tmp_path.chmod(0o500)
    reason = refused(*words, "-o", tmp_path / f"new{ending}")
    assert reason == f"{tmp_path}: cannot write into this folder: Permission denied"
