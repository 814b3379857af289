"""`otgen fit`: what it does, and every way it is refused."""

import re
import zipfile

import numpy as np
import pytest
import torch

import otgen
from otgen import SemiDiscreteOT, data
from otgen.files import load_array

COMMANDS = ("demo", "fit", "train", "sample", "models", "info")


@pytest.mark.parametrize("method", ["auto", "newton"])
def test_fit_writes_the_map_and_reports_the_certificate(run, codes, tmp_path, method):
    path = tmp_path / "map.safetensors"
    code, out, err = run("fit", codes, "-o", path, "--tol", 0.05, "--seed", 4, "--method", method)
    ot = SemiDiscreteOT.load(path)
    c = ot.certificate_
    assert (code, err) == (0, [])
    assert out[0] == f"{codes}: 60 targets in 3 dimensions, source uniform, method {method}"
    assert c.exact == (method == "auto")
    said = {line[:12].strip(): line[13:] for line in out[1:]}
    if c.exact:
        assert said["accuracy"] == "computed exactly"
        assert said["W2^2"] == f"{c.primal:.6g} (dual value {c.dual:.6g})"
    else:
        assert said["accuracy"] == f"on {c.samples:,} fresh samples"
        assert said["chi2"].startswith(f"{c.chi2:.3g} +- ")
        assert f"at most {c.upper():.3g} with 95 % confidence (goal 0.05)" in said["chi2"]
        assert said["tv"] == f"{c.tv:.3g}, where exact heights would show {c.tv_floor:.3g} by sampling alone"
        cost, low, high = map(float, re.findall(r"[\d.]+(?=,| to| with)", said["W2^2"]))
        assert low < cost < high < 1.02 * low
        assert cost == pytest.approx(SemiDiscreteOT(progress=False).fit(np.load(codes)).certificate_.primal, rel=0.03)
    assert said["empty cells"] == f"{c.empty_cells} of 60"
    assert said["samples"].startswith(f"{ot.samples_:,} in ")
    assert said["samples"].endswith(" s")
    assert said["converged"] == "yes: chi2 <= 0.05 is certified"
    assert said["wrote"] == str(path)


def test_fit_is_what_python_fits(run, codes, fitted, tmp_path):
    run("fit", codes, "-o", tmp_path / "map.safetensors", "--tol", 0.05, "--seed", 4, "--quiet")
    ours, theirs = SemiDiscreteOT.load(tmp_path / "map.safetensors"), SemiDiscreteOT.load(fitted)
    torch.testing.assert_close(ours.heights_, theirs.heights_)


def test_fit_hands_every_option_on(run, codes, tmp_path):
    np.savez(tmp_path / "w.npz", other=np.ones(3), w=np.arange(60))
    np.savez(tmp_path / "c.npz", other=np.ones(3), c=np.load(codes))
    options = ["--source", "normal", "--method", "log_ratio", "--tol", 0.3, "--seed", 9, "--max-samples", 2_000_000]
    options += ["--weights", tmp_path / "w.npz", "--weights-name", "w", "--name", "c"]
    code, out, err = run("fit", tmp_path / "c.npz", "-o", tmp_path / "map.safetensors", *options)
    ot = SemiDiscreteOT.load(tmp_path / "map.safetensors")
    assert (code, err) == (0, [])
    assert (ot.source, ot.method, ot.tol, ot.seed) == ("normal", "log_ratio", 0.3, 9)
    torch.testing.assert_close(ot.weights_, torch.arange(60).double() / (59 * 30))
    assert "source normal, method log_ratio" in out[0]


def test_a_fit_that_is_not_certified_says_so_and_is_written(run, codes, tmp_path):
    path = tmp_path / "map.safetensors"
    code, out, err = run("fit", codes, "-o", path, "--method", "adam", "--tol", 1e-9, "--max-samples", 1000)
    assert (code, err) == (1, [])
    assert any(line.startswith("converged    NO: chi2 <= 1e-09 is not certified") for line in out)
    assert not SemiDiscreteOT.load(path).converged_
    assert run("fit", codes, "-o", path, "--method", "adam", "--tol", 1e-9, "--max-samples", 1000, "--quiet",
               "--overwrite") == (1, [], [])  # fmt: skip


@pytest.mark.parametrize(("method", "mend"), [("exact", "--tol"), ("newton", "--tol or --max-samples")])
def test_what_to_raise(run, codes, tmp_path, method, mend):
    options = ["--method", method, "--tol", 1e-30, "--max-samples", 1000]
    code, out, _ = run("fit", codes, "-o", tmp_path / "map.safetensors", *options)
    assert (code, out[-2]) == (1, f"converged    NO: chi2 <= 1e-30 is not certified; raise {mend}")


def test_quiet_is_quiet(run, codes, tmp_path, monkeypatch):
    fit, bars = SemiDiscreteOT.fit, []
    monkeypatch.setattr(SemiDiscreteOT, "fit", lambda ot, *data: (bars.append(ot.progress), fit(ot, *data))[1])
    assert run("fit", codes, "-o", tmp_path / "a.safetensors", "--tol", 0.5, "--quiet") == (0, [], [])
    assert run("fit", codes, "-o", tmp_path / "b.safetensors", "--tol", 0.5)[1] != []
    assert bars == [False, True]


@pytest.mark.parametrize("ending", ["npy", "npz", "safetensors"])
def test_codes_may_come_in_every_format(run, codes, fitted, tmp_path, ending):
    name = tmp_path / f"c.{ending}"
    otgen.files.save_array(name, load_array(codes))
    run("fit", name, "-o", tmp_path / "map.safetensors", "--tol", 0.05, "--seed", 4, "--quiet")
    ot = SemiDiscreteOT.load(tmp_path / "map.safetensors")
    torch.testing.assert_close(ot.heights_, SemiDiscreteOT.load(fitted).heights_)


def test_a_fit_goes_on_from_its_checkpoint(run, tmp_path, monkeypatch):
    np.save(tmp_path / "c.npy", data.mixture(200, 8).numpy())
    words = ("fit", tmp_path / "c.npy", "--tol", 0.02, "--quiet", "--checkpoint", tmp_path / "state")
    assert run(*words, "-o", tmp_path / "whole.safetensors")[0] == 0
    (tmp_path / "state").unlink()

    checkpoints = otgen.ot.checkpoint
    save, saved = checkpoints.save, []

    def stop_after_two(*args):
        save(*args)
        saved.append(args)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save", stop_after_two)
    assert run(*words, "-o", tmp_path / "parts.safetensors") == (130, [], ["otgen: interrupted"])
    assert not (tmp_path / "parts.safetensors").exists()
    assert run(*words, "-o", tmp_path / "parts.safetensors")[0] == 0
    whole, parts = (SemiDiscreteOT.load(tmp_path / f"{name}.safetensors") for name in ("whole", "parts"))
    assert torch.equal(whole.heights_, parts.heights_)
    assert len(saved) == len(whole.history_)


def good(path):
    np.save(path, np.random.default_rng(0).normal(size=(9, 2)))


def cut_off(path):
    good(path)
    path.write_bytes(path.read_bytes()[:-8])


def forged(path):
    good(path)
    path.write_bytes(path.read_bytes().replace(b"(9, 2)", b"(9, 9)"))


def pickled(path):
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def with_nan(path):
    np.save(path, np.array([[1.0, np.nan], [0.0, 1.0]]))


BAD_CODES = {
    "missing": (lambda path: None, "codes.npy: No such file or directory"),
    "cut off": (cut_off, r"codes.npy: an array of shape (9, 2) and dtype float64 takes 144 bytes, got 136"),
    "forged": (forged, "takes 648 bytes, got 144"),
    "text": (lambda path: path.write_text("1 2 3\n"), "wanted an array from"),
    "objects": (pickled, "the array must hold numbers or truth values, got dtype object"),
    "a folder": (lambda path: path.mkdir(), "codes.npy: Is a directory"),
    "no targets": (lambda path: np.save(path, np.empty((0, 4))), "targets must have shape (m, d) with m, d >= 1"),
    "images": (lambda path: np.save(path, np.ones((5, 1, 8, 8))), "got (5, 1, 8, 8)"),
    "complex": (lambda path: np.save(path, np.ones((5, 2), dtype=complex)), "targets must be real"),
    "not a number": (with_nan, "targets must be finite, got NaN or infinite values in 1 of 2 rows"),
}


@pytest.mark.parametrize("kind", BAD_CODES)
def test_bad_codes_are_refused(refused, no_work, tmp_path, kind):
    write, reason = BAD_CODES[kind]
    write(tmp_path / "codes.npy")
    assert reason in refused("fit", tmp_path / "codes.npy", "-o", tmp_path / "map.safetensors")
    assert not (tmp_path / "map.safetensors").exists()


def test_bad_archives_are_refused(refused, no_work, tmp_path):
    np.savez(tmp_path / "c.npz", a=np.ones((3, 2)), b=np.ones((3, 2)))
    words = ("fit", tmp_path / "c.npz", "-o", tmp_path / "map.safetensors")
    assert "or one must be named, got 'a', 'b'" in refused(*words)
    assert "must hold an array named 'c', got 'a', 'b'" in refused(*words, "--name", "c")
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert "got no array" in refused(*words)
    (tmp_path / "c.csv").write_text("1,2\n")
    assert "must end in .npy, .npz, .safetensors" in refused(
        "fit", tmp_path / "c.csv", "-o", tmp_path / "m.safetensors"
    )


BAD_OPTIONS = {
    "source": (["--source", "gauss"], "fit: source must be one of uniform, normal, got 'gauss'"),
    "method": (["--method", "magic"], "method must be one of auto, "),
    "tol": (["--tol", "0"], "tol must be a positive number, got 0.0"),
    "tol nan": (["--tol", "nan"], "tol must be a positive number, got nan"),
    "samples": (["--max-samples", "0"], "max_samples must be None or an int in [1, 2^63), got 0"),
    "seed": (["--seed", "-1"], "seed must be an int in [0, 2^63), got -1"),
    "weights": (["--weights", "CODES"], "weights must have shape (60,) to match the targets, got (60, 3)"),
    "weights file": (["--weights", "none.npy"], "none.npy: No such file or directory"),
    "weights name": (["--weights-name", "w"], "--weights-name is for the file of --weights, which is not given"),
    "checkpoint": (
        ["--checkpoint", "MAP"],
        "expected a checkpoint of otgen (otgen-checkpoint-1), got otgen-transport-1",
    ),
    "checkpoint and map": (["--checkpoint", "OUTPUT"], "map.safetensors is asked for twice"),
    "checkpoint folder": (["--checkpoint", "nowhere/state"], "there is no folder nowhere to write state into"),
}


@pytest.mark.parametrize("option", BAD_OPTIONS)
def test_bad_options_are_refused(refused, codes, fitted, tmp_path, option):
    words, reason = BAD_OPTIONS[option]
    files = {"CODES": codes, "MAP": fitted, "OUTPUT": tmp_path / "map.safetensors"}
    words = [files.get(word, word) for word in words]
    before = fitted.read_bytes()
    assert reason in refused("fit", codes, "-o", tmp_path / "map.safetensors", *words)
    assert fitted.read_bytes() == before
    assert not list(tmp_path.iterdir())
