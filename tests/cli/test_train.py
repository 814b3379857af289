"""`otgen train`, `otgen models`, and `otgen sample` of a model."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import otgen
from otgen import cli, data
from otgen.cli.folder import CHECKPOINT, MODEL, RECORD, UNDER_WAY
from otgen.cli.train import _samples
from otgen.files import load_array, save_array
from otgen.models import AEOT, MODELS, VAE, Model, load

QUICK = ("--steps", 2, "--batch-size", 8, "--set", "width=2", "--set", "d=2")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder with a trained model of digits and one of the plane, not to be changed."""
    folder = tmp_path_factory.mktemp("stored")
    for name in ("digits", "swiss-roll"):
        words = ["train", "vae", "--data", name, "-o", folder / name, *QUICK, "--quiet", "--seed", 3]
        assert cli.main([str(word) for word in words]) == 0
    return folder


def test_models_are_listed_with_one_line_each(run):
    code, out, err = run("models")
    assert (code, err) == (0, [])
    assert [line.split()[0] for line in out] == list(MODELS)
    assert all(len(line.split(maxsplit=1)[1]) > 30 for line in out)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_trained_and_sampled(run, name, tmp_path):
    extra = {"ae-ot": ("--set", "tol=5"), "ae-ot-gan": ("--set", "tol=5", "--set", "ae_epochs=1")}.get(name, ())
    extra = (*extra, "--set", "sampler_epochs=1") if name == "glann" else extra
    words = ("--data", "two-moons-50", "-o", tmp_path / "r", *QUICK, *extra)
    code, out, err = run("train", name.replace("-", ""), *words)
    assert (code, err) == (0, [])
    assert out[0].startswith(MODELS[name].__name__)
    said = [line for line in out if line.startswith("transport")]
    assert said == (["transport    chi2 <= 5 is certified"] if name.startswith("ae-ot") else [])
    assert type(load(tmp_path / "r" / "model.safetensors")) is MODELS[name]
    code, out, err = run("sample", tmp_path / "r", "-n", 5, "-o", tmp_path / "x.npy")
    if name == "ae":
        assert (code, out) == (2, [])
        assert err == ["otgen: error: AE cannot sample: fit an OTPrior to its codes, or use AEOT"]
        return
    assert (code, err) == (0, [])
    assert load_array(tmp_path / "x.npy").shape == (5, 2)


def test_train_hands_every_option_on(run, tmp_path, monkeypatch):
    asked = {}
    fit = Model.fit
    monkeypatch.setattr(Model, "fit", lambda self, x, **options: asked.update(options) or fit(self, x, **options))
    options = ["--epochs", 3, "--batch-size", 20, "--seed", 7, "--set", "beta=0.5", "--set", "likelihood=bernoulli"]
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32))
    code, out, err = run("train", "vae", "--data", tmp_path / "x.npy", "-o", tmp_path / "r", *options)
    model = load(tmp_path / "r" / "model.safetensors")
    assert (code, err) == (0, [])
    assert (model.seed, model.beta, model.likelihood, model.shape) == (7, 0.5, "bernoulli", (1, 8, 8))
    assert asked["checkpoint"] == tmp_path / "r" / "checkpoint.safetensors"
    assert (asked["epochs"], asked["steps"], asked["batch_size"], asked["seed"]) == (3, None, 20, 7)
    assert (asked["amp"], asked["compile"], asked["progress"]) == (False, False, True)
    assert len(model.history_["loss"]) == 6
    assert out[1].startswith("steps        6 in ")
    assert out[-1] == f"next         otgen sample {tmp_path / 'r'} -n 64 -o grid.png"
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    assert (record["model"], record["beta"], record["shape"], record["seed"]) == ("VAE", 0.5, [1, 8, 8], 7)


def test_data_of_every_kind(run, tmp_path):
    x = data.swiss_roll(30)
    np.savez(tmp_path / "x.npz", a=x.numpy(), b=np.zeros(3))
    save_array(tmp_path / "x.safetensors", x)
    (tmp_path / "images").mkdir()
    for index in range(9):
        Image.new("RGB", (20, 16), (index, 200, 3)).save(tmp_path / "images" / f"{index}.png")
    Image.new("L", (20, 16)).save(tmp_path / "images" / "0.png")  # the others decide
    kinds = {"swiss-roll-30": (2,), "mixture-30x4": (4,), "digits": (1, 8, 8)}
    kinds |= {tmp_path / "x.safetensors": (2,), tmp_path / "images": (3, 8, 8)}
    for index, (name, shape) in enumerate(kinds.items()):
        words = ("train", "ae", "--data", name, "-o", tmp_path / str(index), *QUICK, "--size", 8, "--quiet")
        assert run(*words) == (0, [], [])
        assert load(tmp_path / str(index) / "model.safetensors").shape == shape
    assert run("train", "ae", "--data", tmp_path / "x.npz", "--name", "a", "-o", tmp_path / "z", *QUICK)[0] == 0


@pytest.mark.parametrize("shape", [(9,), (9, 8, 8)], ids=str)
def test_a_file_of_samples_without_channels_is_refused_by_its_name(refused, tmp_path, shape):
    for path in (tmp_path / "x.npy", tmp_path / "x.npz"):
        save_array(path, torch.zeros(shape))
        message = refused("train", "ae", "--data", path, "-o", tmp_path / "r", *QUICK)
        assert message == f"{path} must hold samples (n, features) or (n, c, h, w), got {shape}"


def test_the_seed_decides_the_data_as_well():
    made, *_ = _samples(Namespace(data="swiss-roll-30", name=None, seed=3))
    assert torch.equal(made, data.swiss_roll(30, seed=3))


def test_resume_goes_on_and_overwrite_begins_again(run, refused, tmp_path):
    words = ["train", "vae", "--data", "two-moons-50", "-o", tmp_path / "r", "--quiet", "--batch-size", 8]
    words += ["--set", "width=2"]
    assert run(*words, "--steps", 3)[0] == 0
    assert "holds model.safetensors: choose another folder, go on with" in refused(*words, "--steps", 6)
    assert "holds a run with seed 0, got 1" in refused(*words, "--steps", 6, "--seed", 1, "--resume")
    assert "--resume goes on with a run and --overwrite" in refused(*words, "--resume", "--overwrite")
    assert run(*words, "--steps", 6, "--resume")[0] == 0
    resumed = load(tmp_path / "r" / "model.safetensors")
    assert run(*words, "--steps", 6, "--overwrite")[0] == 0
    whole = load(tmp_path / "r" / "model.safetensors")
    assert len(whole.history_["loss"]) == 6
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    "words",
    [
        ["--steps", 0],
        ["--steps", 3, "--epochs", 1],
        ["--steps", 3, "--batch-size", 2000],
        ["--steps", 3, "--data", "negative.npy"],
        ["--steps", 3, "--compile", "--critic"],
    ],
)
def test_an_overwrite_that_is_refused_leaves_the_old_run(run, refused, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    np.save("negative.npy", np.full((70, 1, 8, 8), -1, np.float32))
    kind = "wgan-gp" if words[-1] == "--critic" else "vae"
    words = [word for word in words if word != "--critic"]
    assert run("train", "vae", "--data", "digits", "-o", "r", *QUICK, "--quiet") == (0, [], [])
    before = {path.name: path.read_bytes() for path in Path("r").iterdir()}
    refused("train", kind, "--data", "digits", "-o", "r", "--batch-size", 8, "--set", "width=2", "--overwrite", *words)
    assert {path.name: path.read_bytes() for path in Path("r").iterdir()} == before
    assert len(before) == 3


def test_a_refused_run_leaves_no_record(refused, tmp_path):
    refused("train", "vae", "--data", "digits", "-o", tmp_path / "r", "--steps", 0)
    assert not (tmp_path / "r").exists()


def test_resume_knows_the_data_by_their_whole_path(run, refused, tmp_path, monkeypatch):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save_array(tmp_path / folder / "x.npy", data.two_moons(50))
    words = ("train", "vae", "-o", tmp_path / "r", *QUICK, "--quiet")
    monkeypatch.chdir(tmp_path / "a")
    assert run(*words, "--data", "x.npy") == (0, [], [])
    monkeypatch.chdir(tmp_path / "b")
    assert f"holds a run with data {tmp_path / 'a' / 'x.npy'}, got" in refused(*words, "--data", "x.npy", "--resume")
    assert run(*words, "--data", "../a/x.npy", "--resume") == (0, [], [])


def test_what_is_somebody_elses_is_not_overwritten(run, refused, tmp_path):
    mine = tmp_path / "run.json"
    words = ("train", "vae", "--data", "two-moons-50", "-o", tmp_path, *QUICK, "--quiet")
    for text, reason in (
        ("{", "not the record of a run: "),
        ('{"speed": 5}', "names batch_size, data, model: take an"),
    ):
        mine.write_text(text)
        assert reason in refused(*words)
        assert reason in refused(*words, "--resume")
        assert mine.read_text() == text
    assert run(*words, "--overwrite") == (0, [], [])  # that is what was asked for
    assert json.loads(mine.read_text())["model"] == "VAE"


def test_a_folder_that_cannot_be_made_is_named(refused):
    words = ("train", "vae", "--data", "two-moons-50", "-o", "/dev/null/r", *QUICK)
    assert refused(*words) == "/dev/null/r: cannot make this folder: Not a directory"


def test_a_map_that_is_not_certified_is_reported(run, tmp_path):
    words = ("train", "ae-ot", "--data", "two-moons-50", "-o", tmp_path / "r", *QUICK, "--set", "tol=1e-99")
    code, out, _ = run(*words)
    assert code == 0
    assert [line for line in out if "chi2 <= 1e-99 is NOT certified, at most" in line]


def test_sample_writes_pictures_and_arrays(run, stored, tmp_path):
    assert run("sample", stored / "digits", "-n", 5, "-o", tmp_path / "x.npy", "--seed", 4)[0] == 0
    model = load(stored / "digits" / "model.safetensors")
    torch.testing.assert_close(load_array(tmp_path / "x.npy"), model.sample(5, 4))
    code, out, _ = run("sample", stored / "digits", "-o", tmp_path / "grid.png")
    assert (code, out[0]) == (0, "64 samples of shape (1, 8, 8) from VAE")
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.mode == "L"
        assert picture.size == (73 * 10, 73 * 10)  # 8 x 8 images of 8 x 8 pixels, lines between, enlarged
        pixels = np.asarray(picture)[5::10, 5::10] / 255
    first = model.sample(64, model.seed)[0, 0].numpy()
    np.testing.assert_allclose(pixels[1:9, 1:9], first, atol=0.003)
    assert run("sample", stored / "swiss-roll" / "model.safetensors", "-o", tmp_path / "plane.png")[0] == 0
    with Image.open(tmp_path / "plane.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_what_sample_refuses(refused, stored, tmp_path):
    (tmp_path / "empty").mkdir()
    words = ("sample", tmp_path / "empty", "-o", tmp_path / "x.npy")
    assert "empty holds no model.safetensors: it is no run of otgen train" in refused(*words)
    (tmp_path / "empty" / "checkpoint.safetensors").touch()
    assert "empty holds no model.safetensors: its training has not ended" in refused(*words)
    (tmp_path / "empty" / "model.safetensors").write_text("junk")
    assert f"{tmp_path / 'empty' / 'model.safetensors'}: " in refused(*words)
    assert "got a checkpoint, from" in refused("sample", stored / "digits" / CHECKPOINT, "-o", tmp_path / "x.npy")
    assert "got 'meta'" in refused("sample", stored / "digits", "-o", tmp_path / "x.npy", "--device", "meta")
    assert "are for maps" in refused("sample", stored / "digits", "-o", tmp_path / "x.npy", "--hard")
    assert "n must be a positive int below" in refused("sample", stored / "digits", "-o", tmp_path / "x.npy", "-n", 0)
    assert "the output must end in" in refused("sample", stored / "digits", "-o", tmp_path / "x.jpg")
    VAE((5,), width=2).save(tmp_path / "m")
    assert "for samples of shape (5,)" in refused("sample", tmp_path / "m", "-o", tmp_path / "x.png")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["unicorn", "--data", "digits"], "the model must be one of ae, vae, "),
        (["ae", "--data", "nothing"], "--data must be one of digits, mnist5k, eight-gaussians"),
        (["ae", "--data", "digits", "--set", "shoes=2"], "AE knows the settings d, width, lr, loss, "),
        (["ae", "--data", "digits", "--set", "width"], "--set wants NAME=VALUE, got width"),
        (["ae", "--data", "digits", "--set", "lr=0"], "AE: lr must be a positive number, got 0"),
        (["ae", "--data", "digits", "--device", "abacus"], "device must be one that torch can use here, got 'abacus'"),
        (["ae", "--data", "digits", "--device", "meta"], "device must be one that torch can use here, got 'meta'"),
        (["ae", "--data", "digits", "--set", 'd={"a": 1}'], "--set wants a number, true, false, null, a list of"),
        (["ae", "--data", "digits", "--set", "d=[[1]]"], "--set wants a number, true, false, null, a list of"),
        (["ae", "--data", ".", "--size", "0"], "--size must be from 1 to 1024, got 0"),
        (["ae", "--data", ".", "--size", "100000000"], "--size must be from 1 to 1024, got 100000000"),
        (["ae", "--data", "digits", "--epochs", "1", "--steps", "1"], "either epochs or steps must be given"),
        (["ae", "--data", "digits", "--steps", "1", "--batch-size", "2000"], "batch_size must be from 1 to the 1797"),
        (["ae", "--data", "bytes.npy", "--steps", "1"], "images must be torch.float32 like the model, got torch.uint8"),
        (["ae", "--data", "large.npy", "--steps", "1"], "images must lie in [0, 1], got 0 to 255: take x / 255"),
    ],
)
def test_what_train_refuses(refused, words, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("bytes.npy", np.zeros((70, 1, 8, 8), np.uint8))
    np.save("large.npy", np.linspace(0, 255, 70 * 64, dtype=np.float32).reshape(70, 1, 8, 8))
    assert reason in refused("train", *words, "-o", "r")
    assert not (tmp_path / "r" / "model.safetensors").exists()


def test_a_training_that_diverges_says_model_step_and_loss(run, tmp_path):
    code, out, err = run(
        "train", "ae", "--data", "two-moons-50", "-o", tmp_path / "r", *QUICK[2:], "--steps", 200, "--set", "lr=1e30"
    )
    assert (code, out) == (1, [])
    assert len(err) == 1
    assert "train: AE, step " in err[0]
    assert "must stay finite" in err[0]


def test_ctrl_c_leaves_a_checkpoint_to_go_on_with(tmp_path):
    words = ["train", "vae", "--data", "two-moons", "-o", tmp_path / "r", "--steps", 1_000_000, "--set", "width=2"]
    command = [sys.executable, "-m", "otgen", *map(str, words)]
    environ = {**os.environ, "PYTHONPATH": str(Path(otgen.__file__).parents[1])}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    checkpoint = tmp_path / "r" / "checkpoint.safetensors"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.rstrip().endswith("otgen: interrupted: the same command with --resume goes on")
    assert checkpoint.exists()
    assert not (tmp_path / "r" / "model.safetensors").exists()


@pytest.mark.parametrize("then", ["--resume", "--overwrite"])
def test_a_training_that_ends_before_its_first_step_can_be_gone_on_with(run, then, tmp_path, monkeypatch):
    settings = [word for text in ("ae_epochs=2", "tol=2", "head_start=1") for word in ("--set", text)]
    words = ["train", "ae-ot-gan", "--data", "two-moons-50", "-o", tmp_path / "r", *QUICK, *settings, "--quiet"]
    step, made = AEOT.step, []

    def interrupted(self, batch):
        made.append(1)
        if len(made) == 3:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(AEOT, "step", interrupted)
    code, _, err = run(*words)
    assert code == 130
    assert err[-1].endswith("otgen: interrupted: the same command with --resume goes on")
    assert (tmp_path / "r" / "checkpoint.safetensors.prepare").exists()
    assert (tmp_path / "r" / RECORD).exists()
    assert run(*words)[0] == 2  # it holds a run
    assert run(*words, then)[0] == 0
    assert sorted(file.name for file in (tmp_path / "r").iterdir()) == sorted([MODEL, CHECKPOINT, RECORD])


def test_what_comes_next_can_be_pasted(run, tmp_path):
    save_array(tmp_path / "five.npy", torch.rand(40, 5, 8, 8))
    folder = tmp_path / "v five"
    words = ("train", "vae", "--data", tmp_path / "five.npy", "-o", folder, "--steps", "2", "--batch-size", "20")
    lines = run(*words, "--set", "width=2", "--set", "d=2")[1]
    (line,) = (line for line in lines if line.startswith("next"))
    assert shlex.split(line)[1:] == ["otgen", "sample", str(folder), "-n", "64", "-o", "new.npy"]


def test_a_refused_run_leaves_no_folder(refused, tmp_path):
    save_array(tmp_path / "x.npy", torch.zeros(40, 2, dtype=torch.int8))
    refused("train", "ae", "--data", tmp_path / "x.npy", "-o", tmp_path / "a" / "b" / "c", "--steps", "2")
    assert not (tmp_path / "a").exists()


def test_options_that_mean_nothing_are_refused(refused, tmp_path):
    assert "--name is for a file" in refused("train", "ae", "--data", "digits", "--name", "x", "-o", tmp_path / "a")
    assert "must be a folder, got ''" in refused("train", "ae", "--data", "digits", "-o", "")
    save_array(tmp_path / "y.npy", torch.rand(20, 2))
    assert cli.main(["fit", str(tmp_path / "y.npy"), "-o", str(tmp_path / "map.safetensors"), "--quiet"]) == 0
    words = ("sample", tmp_path / "map.safetensors", "-o", tmp_path / "z.npy", "--device", "foo")
    assert "--device is for models" in refused(*words)


def test_a_run_that_is_being_prepared_has_begun(refused, tmp_path):
    (tmp_path / UNDER_WAY[1]).write_bytes(b"")
    message = refused("sample", tmp_path, "-o", tmp_path / "x.npy")
    assert "its training has not ended (otgen train with --resume goes on)" in message
