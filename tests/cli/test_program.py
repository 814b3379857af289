"""The command line: help, what does not parse, `otgen info`, `otgen demo`, and the program as a process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import otgen
from otgen import data, ops
from otgen.experiments import Output
from otgen.files import load_array

COMMANDS = ("demo", "fit", "train", "sample", "models", "info")


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
