"""The command line: what every command does, every way it is refused, in one line, and with which exit code."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import otgen
from otgen import SemiDiscreteOT, cli, data, ops
from otgen.experiments import Output
from otgen.files import load_array

COMMANDS = ("demo", "fit", "train", "sample", "models", "info")


@pytest.fixture
def run(capsys):
    """Run a command; return its exit code, lines on stdout and lines on stderr, without progress bars."""

    def start(*words):
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out.splitlines(), [line for line in err.splitlines() if "samples/s" not in line and line.strip()]

    return start


@pytest.fixture
def refused(run):
    """Run a command that must be refused in one line; return the line."""

    def start(*words):
        code, out, err = run(*words)
        assert (code, out) == (2, [])
        assert len(err) == 1
        assert err[0].startswith("otgen: error: ")
        return err[0].removeprefix("otgen: error: ")

    return start


@pytest.fixture
def no_work(monkeypatch):
    """A command that has begun to work has failed."""
    monkeypatch.setattr(SemiDiscreteOT, "_solve", lambda *_: pytest.fail("work was begun"))
    monkeypatch.setattr(SemiDiscreteOT, "sample", lambda *_, **__: pytest.fail("work was begun"))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder with codes and a map of them, not to be changed."""
    folder = tmp_path_factory.mktemp("stored")
    y = data.mixture(60, 3).numpy()
    np.save(folder / "codes.npy", y)
    ot = SemiDiscreteOT(tol=0.05, seed=4, progress=False).fit(y)
    ot.save(folder / "map.safetensors")
    return folder


@pytest.fixture
def codes(stored):
    return stored / "codes.npy"


@pytest.fixture
def fitted(stored):
    return stored / "map.safetensors"


# --- help, version, command lines that do not parse ------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_options_and_defaults(run, command):
    code, out, err = run(command, "--help")
    text = " ".join(" ".join(out).split())
    assert (code, err) == (0, [])
    assert f"usage: otgen {command}" in text
    defaults = {
        "demo": ["[default: otgen-demo]", "--fast", "--overwrite", "[default: 0]"],
        "fit": ["[default: uniform]", "[default: auto]", "[default: 0.01]", "100 m / tol without it", "Exit code: 0"],
        "sample": [
            "[default: 1000, in a picture 64]",
            "[default: auto]",
            "that of the fit or the training without it",
            "--hard",
        ],
        "train": [
            "eight-gaussians",
            "grey if its first 64 are",
            "--set NAME=VALUE",
            "[default: 64]",
            "--resume",
            "Exit code: 0",
        ],
        "models": [],
        "info": [],
    }
    assert all(words in text for words in defaults[command])
    assert "None" not in text


def test_help_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    assert all(any(line.strip().startswith(command) for line in out) for command in COMMANDS)


def test_version(run):
    assert run("--version") == (0, [f"otgen {otgen.__version__}"], [])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "the following arguments are required: COMMAND (see otgen --help)"),
        (["fly"], "invalid choice: 'fly'"),
        (["info", "--fast"], "unrecognized arguments: --fast"),
        (["fit", "codes.npy"], "the following arguments are required: -o/--output (see otgen fit --help)"),
        (["fit", "c.npy", "-o", "m.safetensors", "--tol", "small"], "argument --tol: invalid float value: 'small'"),
        (["fit", "c.npy", "-o", "m.safetensors", "--seed", "1.5"], "argument --seed: invalid int value: '1.5'"),
        (["sample", "m", "-o", "x.npy", "--angle-threshold", "wide"], "must be auto or a number, got 'wide'"),
    ],
)
def test_a_command_line_that_does_not_parse(refused, words, reason):
    assert reason in refused(*words)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (RuntimeError("[fail at x.cpp:9] can't allocate memory: 9 bytes.\nException raised from f at x.cpp:9\n#0"), 2,
         "otgen: error: [fail at x.cpp:9] can't allocate memory: 9 bytes."),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried it"), 2, "otgen: error: CUDA out of memory. Tried it"),
        (ValueError("wrong.\nException raised from f at x.cpp:9\n#0"), 2, "otgen: error: wrong."),
        (OverflowError("int too large"), 2, "otgen: error: int too large"),
        (BrokenPipeError(), 1, None),
    ],
)  # fmt: skip
def test_errors_are_one_line(run, monkeypatch, error, code, line):
    monkeypatch.setattr("otgen.cli.models.run", lambda args: (_ for _ in ()).throw(error))
    monkeypatch.setattr("otgen.cli.program._silence", lambda stream: None)
    assert run("models") == (code, [], [] if line is None else [line])


def test_mistakes_of_our_own_are_not_hidden(run, monkeypatch):
    monkeypatch.setattr("otgen.cli.models.run", lambda args: (_ for _ in ()).throw(RuntimeError("a mistake")))
    with pytest.raises(RuntimeError, match="a mistake"):
        run("models")


# --- info ------------------------------------------------------------------------------------------------------------


def test_info(run):
    code, out, err = run("info")
    said = dict(line.split(maxsplit=1) for line in out)
    assert (code, err) == (0, [])
    assert said["otgen"] == otgen.__version__
    assert said["torch"] == torch.__version__
    assert said["instructions"].split()[0] == ops.instruction_set()
    assert all(name in said["instructions"] for name in ops.instruction_sets())
    assert said["CUDA"].startswith("yes" if ops.has_cuda() and torch.cuda.is_available() else "no")
    if ops.has_cuda():
        assert said["CUDA-filter"].startswith(f"{ops.cuda_filter()} (no CUDA kernel has been run or timed")
    assert said["threads"] == str(torch.get_num_threads())


# --- fit -------------------------------------------------------------------------------------------------------------


def test_fit_writes_the_map_and_reports_the_certificate(run, codes, tmp_path):
    path = tmp_path / "map.safetensors"
    code, out, err = run("fit", codes, "-o", path, "--tol", 0.05, "--seed", 4)
    ot = SemiDiscreteOT.load(path)
    c = ot.certificate_
    assert (code, err) == (0, [])
    assert out[0] == f"{codes}: 60 targets in 3 dimensions, source uniform, method auto"
    said = {line[:12].strip(): line[13:] for line in out[1:]}
    if c.exact:
        assert said["accuracy"] == "computed exactly"
    else:
        assert said["accuracy"] == f"on {c.samples:,} fresh samples"
        assert said["chi2"].startswith(f"{c.chi2:.3g} +- ")
        assert f"at most {c.upper():.3g} with 95 % confidence (goal 0.05)" in said["chi2"]
        assert said["tv"] == f"{c.tv:.3g}, of which sampling alone makes {c.tv_floor:.3g}"
    assert said["empty cells"] == f"{c.empty_cells} of 60"
    assert said["W2^2"] == f"{c.primal:.6g} (dual value {c.dual:.6g})"
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
    "source": (["--source", "gauss"], "source must be one of uniform, normal"),
    "method": (["--method", "magic"], "method must be one of auto, "),
    "tol": (["--tol", "0"], "tol must be a positive number, got 0.0"),
    "tol nan": (["--tol", "nan"], "tol must be a positive number, got nan"),
    "samples": (["--max-samples", "0"], "max_samples must be None or an int in [1, 2^63), got 0"),
    "seed": (["--seed", "-1"], "seed must be an int in [0, 2^63), got -1"),
    "weights": (["--weights", "CODES"], "weights must have shape (60,) to match the targets, got (60, 3)"),
    "weights file": (["--weights", "none.npy"], "none.npy: No such file or directory"),
    "checkpoint": (
        ["--checkpoint", "MAP"],
        "expected a checkpoint of otgen (otgen-checkpoint-1), got otgen-transport-1",
    ),
    "checkpoint folder": (["--checkpoint", "nowhere/state"], "there is no folder nowhere to write state into"),
}


@pytest.mark.parametrize("option", BAD_OPTIONS)
def test_bad_options_are_refused(refused, codes, fitted, tmp_path, option):
    words, reason = BAD_OPTIONS[option]
    words = [{"CODES": codes, "MAP": fitted}.get(word, word) for word in words]
    before = fitted.read_bytes()
    assert reason in refused("fit", codes, "-o", tmp_path / "map.safetensors", *words)
    assert fitted.read_bytes() == before
    assert not list(tmp_path.iterdir())


# --- sample ----------------------------------------------------------------------------------------------------------


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


# --- demo ------------------------------------------------------------------------------------------------------------


def test_demo_hands_its_options_on_and_names_what_it_wrote(run, monkeypatch):
    asked = []

    def demo(folder, *, note, **options):
        asked.append((folder, options))
        note("busy")
        return [Output(Path(folder) / "a.png", "shows a"), Output(Path(folder) / "longer.png", "shows b")]

    monkeypatch.setattr("otgen.cli.demo.demo", demo)
    assert run("demo") == (
        0,
        ["otgen-demo/a.png       shows a", "otgen-demo/longer.png  shows b"],
        ["otgen: busy"],
    )
    run("demo", "-o", "x", "--fast", "--seed", "3", "--overwrite")
    assert asked == [
        ("otgen-demo", {"fast": False, "seed": 0, "overwrite": False}),
        ("x", {"fast": True, "seed": 3, "overwrite": True}),
    ]


def test_demo_refuses_in_one_line(refused, tmp_path, monkeypatch):
    (tmp_path / "digits.png").write_text("mine")
    assert "holds digits.png, which is not the demo's" in refused("demo", "-o", tmp_path, "--overwrite")
    reason = refused("demo", "-o", tmp_path / "digits.png" / "folder")
    assert "cannot write into this folder: Not a directory" in reason
    monkeypatch.setattr(sys.modules["otgen.experiments.demo"], "find_spec", lambda _: None)
    assert 'installed: pip install "otgen[demo]"' in refused("demo", "-o", tmp_path / "new")


# --- as a program ----------------------------------------------------------------------------------------------------


def program(*words, **settings):
    words = [sys.executable, "-m", "otgen", *map(str, words)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)


def test_every_command_runs_as_a_program(codes, fitted, tmp_path):
    started = {
        "fit": program("fit", codes, "-o", tmp_path / "map.safetensors", "--tol", 0.05),
        "sample": program("sample", fitted, "-n", 7, "-o", tmp_path / "new.npy"),
        "info": program("info"),
        "bad": program("sample", codes, "-o", tmp_path / "no.npy"),
    }
    ended = {name: (*process.communicate(timeout=100), process.returncode) for name, process in started.items()}
    assert {name: code for name, (_, _, code) in ended.items()} == {"fit": 0, "sample": 0, "info": 0, "bad": 2}
    assert "converged    yes" in ended["fit"][0]
    assert load_array(tmp_path / "new.npy").shape == (7, 3)
    assert ended["info"][0].startswith("otgen ")
    assert ended["bad"][0] == ""
    assert ended["bad"][1].startswith("otgen: error: ")
    assert ended["bad"][1].count("\n") == 1


def test_demo_runs_as_a_program(tmp_path):
    code = """
import sys, otgen.experiments.demo
from otgen.cli import main
demo = sys.modules["otgen.experiments.demo"]
demo.FAST = demo.Size(digits=100, epochs=1, width=4, d=2, tol=0.5)
sys.exit(main(["demo", "--fast"]))
"""
    environ = {**os.environ, "PYTHONPATH": str(Path(otgen.__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    names = {line.split()[0] for line in ended.stdout.splitlines()}
    assert names == {f"otgen-demo/{entry.name}" for entry in (tmp_path / "otgen-demo").iterdir()}
    assert json.loads((tmp_path / "otgen-demo" / "certificate.json").read_text())["converged"]
    assert "Traceback" not in ended.stderr
    assert "Warning" not in ended.stderr


def test_ctrl_c_ends_a_fit_in_one_line(tmp_path):
    np.save(tmp_path / "c.npy", data.mixture(3000, 32).numpy())
    process = program(
        "fit", tmp_path / "c.npy", "-o", tmp_path / "m.safetensors", "--tol", 1e-6, "--checkpoint", tmp_path / "s"
    )
    while not (tmp_path / "s").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - began < 5
    assert out == ""
    assert [line for line in err.splitlines() if line and "samples/s" not in line] == ["otgen: interrupted"]
    assert not (tmp_path / "m.safetensors").exists()


def test_a_reader_that_leaves_early_is_no_error():
    process = program("fit", "--help")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 0
    process.stderr.close()


def test_a_reader_that_leaves_early_does_not_change_the_code(codes, tmp_path):
    words = ("fit", codes, "-o", tmp_path / "m.safetensors", "--method", "adam", "--tol", 1e-9, "--max-samples", 1000)
    process = program(*words)
    process.stdout.close()
    assert "Error" not in process.stderr.read()
    assert process.wait(60) == 1
    process.stderr.close()
    assert (tmp_path / "m.safetensors").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_stdout_that_is_closed_or_knows_few_letters(fitted, tmp_path):
    shell = f"{sys.executable} -m otgen"
    name = tmp_path / "é.npy"
    environ = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(otgen.__file__).parents[1])}
    for words, out in ((f"sample {fitted} -n 3 -o {name}", "wrote " + ascii(str(name))[1:-1]), ("info >&-", "")):
        ended = subprocess.run(f"{shell} {words}", shell=True, env=environ, capture_output=True, text=True, timeout=60)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert out in ended.stdout


def test_fit_needs_nothing_of_the_demo(codes, tmp_path):
    code = f"""
import sys
for name in ("matplotlib", "sklearn", "mlxtend", "PIL"):
    sys.modules[name] = None
from otgen.cli import main
assert main(["fit", {str(codes)!r}, "-o", {str(tmp_path / "m.safetensors")!r}, "--tol", "0.5", "--quiet"]) == 0
sys.exit(main(["demo", "-o", {str(tmp_path / "new")!r}]))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert 'matplotlib and scikit-learn installed: pip install "otgen[demo]"' in ended.stderr
    assert not (tmp_path / "new").exists()
