"""A fit that is killed goes on from its checkpoint to the very result of one that was not."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import oracles
import pytest
import torch

from otgen import ConvergenceWarning, SemiDiscreteOT, data
from otgen.files import read_safetensors, write_safetensors
from otgen.ot import checkpoint as checkpoints
from otgen.ot.solvers.newton import NewtonState

FIT = """
import sys
from otgen import SemiDiscreteOT, data
print("ready", flush=True)
SemiDiscreteOT(tol=0.002, progress=False, checkpoint=sys.argv[1]).fit(*data.problem("mixture-1000x12"))
"""


def comparable(ot):
    history = [{key: value for key, value in row.items() if key != "seconds"} for row in ot.history_]
    return history, ot.samples_, ot.certificate_, ot.heights_.tolist()


def test_killed_at_any_moment_it_goes_on(tmp_path):
    path = tmp_path / "fit.safetensors"
    kills = 0
    for delay in (0.05, 0.2, 0.1, 0.4):
        process = subprocess.Popen([sys.executable, "-c", FIT, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
        if path.exists():
            assert read_safetensors(path)[1]["format"] == "otgen-checkpoint-1"  # whole, whenever it is looked at
    assert kills > 0
    problem = data.problem("mixture-1000x12")
    plain = SemiDiscreteOT(tol=0.002, progress=False).fit(*problem)
    resumed = SemiDiscreteOT(tol=0.002, progress=False, checkpoint=path).fit(*problem)
    assert comparable(resumed) == comparable(plain)
    again = SemiDiscreteOT(tol=0.002, progress=False, checkpoint=path).fit(*problem)
    assert comparable(again) == comparable(plain)


def test_of_another_fit_it_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "fit.safetensors"
    y = data.mixture(60, 4)
    SemiDiscreteOT(progress=False, checkpoint=path).fit(y)
    before = path.read_bytes()
    for other, settings in ((y + 1e-3 * torch.randn(60, 4), {}), (y, {"seed": 1}), (y, {"tol": 0.02})):
        with pytest.raises(ValueError, match="belongs to a fit with other targets, weights or settings"):
            SemiDiscreteOT(progress=False, checkpoint=path, **settings).fit(other)
    assert path.read_bytes() == before


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_a_damaged_one_is_refused(tmp_path, part):
    path = tmp_path / "fit.safetensors"
    y = data.mixture(60, 4)
    SemiDiscreteOT(progress=False, checkpoint=path).fit(y)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match="fit.safetensors: wanted a whole .safetensors file"):
        SemiDiscreteOT(progress=False, checkpoint=path).fit(y)


def test_a_map_is_not_a_checkpoint(tmp_path):
    path = tmp_path / "map.safetensors"
    y = data.mixture(60, 4)
    SemiDiscreteOT(progress=False).fit(y).save(path)
    with pytest.raises(ValueError, match="expected a checkpoint of otgen"):
        SemiDiscreteOT(progress=False, checkpoint=path).fit(y)


def test_its_folder_is_looked_for_first(tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint must be in a folder that exists"):
        SemiDiscreteOT(progress=False, checkpoint=tmp_path / "none" / "fit.safetensors").fit(torch.randn(5, 2))


# --- interrupted after every step, in this process -------------------------------------------------------------------


class Interrupted(Exception):
    pass


def assert_same_fit(a, b):
    for name in ("heights_", "cell_measures_", "centroids_"):
        oracles.assert_same_bits(getattr(a, name), getattr(b, name))
    assert comparable(a)[:3] == comparable(b)[:3]
    assert a.converged_ == b.converged_


def quiet_fit(y, nu=None, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return SemiDiscreteOT(progress=False, **settings).fit(y, nu)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("method", "name", "settings"),
    [
        ("auto", "mixture-100x6", {"tol": 0.002}),
        ("auto", "swiss-roll-256", {"tol": 0.001, "max_samples": 2_000_000}),
        ("newton", "mixture-100x6", {"tol": 0.002, "source": "normal"}),
        ("log_ratio", "mixture-100x6", {"tol": 0.05}),
        ("adam", "mixture-100x6", {"tol": 0.2}),
        ("auto", "mixture-100x6", {"tol": 1e-6, "max_samples": 50_000}),  # never gets there
    ],
)
def test_interrupted_after_any_step_it_goes_on(method, name, settings, moment, tmp_path, monkeypatch):
    """Whether the interruption comes before or after the file is replaced, what it cost is counted once."""
    y, nu = data.problem(name)
    plain = quiet_fit(y, nu, method=method, **settings)
    save, path, stops = checkpoints.save, tmp_path / "run", []

    def interrupt(*args):
        if moment == "after":
            save(*args)
        stops.append(args)
        if len(stops) % 2:
            raise Interrupted
        save(*args)

    monkeypatch.setattr(checkpoints, "save", interrupt)
    for _ in range(1000):
        try:
            resumed = quiet_fit(y, nu, method=method, checkpoint=path, **settings)
        except Interrupted:
            continue
        break
    assert len(stops) > 1
    assert_same_fit(resumed, plain)
    monkeypatch.setattr(checkpoints, "save", save)
    assert_same_fit(quiet_fit(y, nu, method=method, checkpoint=path, **settings), plain)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_annealing_in_the_middle_is_gone_through_once(tmp_path, monkeypatch):
    """The state tells whether annealing was done, so a resumed run does not do it again."""
    monkeypatch.setattr("otgen.ot.solvers.auto.PATIENCE", 1)
    monkeypatch.setattr("otgen.ot.solvers.newton.HOPELESS", 10)
    y, nu = data.problem("mixture-100x6")
    settings = {"tol": 1e-4, "max_samples": 800_000}
    plain = quiet_fit(y, nu, **settings)
    save, count = checkpoints.save, []

    def interrupt(*args):
        save(*args)
        count.append(args[1].annealed)
        if len(count) % 3 == 0:
            raise Interrupted

    monkeypatch.setattr(checkpoints, "save", interrupt)
    while True:
        try:
            resumed = quiet_fit(y, nu, checkpoint=tmp_path / "run", **settings)
            break
        except Interrupted:
            pass
    assert count == sorted(count)
    assert count[-1]
    assert_same_fit(resumed, plain)


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(tmp_path):
    y, nu = data.problem("mixture-100x6")
    short = quiet_fit(y, nu, tol=1e-3, max_samples=20_000, checkpoint=tmp_path / "run")
    assert not short.converged_
    longer = quiet_fit(y, nu, tol=1e-3, checkpoint=tmp_path / "run")
    assert longer.converged_
    assert len(longer.history_) > len(short.history_)
    assert_same_fit(longer, quiet_fit(y, nu, tol=1e-3))


def test_a_whole_file_is_there_at_any_moment(tmp_path):
    path, done, seen, wrong = tmp_path / "run", threading.Event(), [], []

    def watch():
        while not done.is_set():
            try:
                seen.append(read_safetensors(path)[1]["format"])
            except FileNotFoundError:
                wrong.extend(["vanished"] if seen else [])
            except Exception as error:
                wrong.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        for seed in range(3):
            path.unlink(missing_ok=True) if not seen else None
            quiet_fit(*data.problem("mixture-300x8"), tol=0.002, seed=0, max_samples=30_000 * 4**seed, checkpoint=path)
    finally:
        done.set()
        thread.join()
    assert not wrong
    assert set(seen) == {checkpoints.FORMAT}


def test_killed_while_it_writes(tmp_path):
    """Killed within a millisecond of the replacement: never a torn file, and old temporary ones do no harm."""
    path = tmp_path / "fit.safetensors"
    code = """
import os, signal, sys, threading
from otgen import data, SemiDiscreteOT
from otgen.ot import checkpoint
save, count = checkpoint.save, []
def killed(*args):
    count.append(0)
    if len(count) == 3:
        threading.Timer(float(sys.argv[2]), lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    save(*args)
checkpoint.save = killed
SemiDiscreteOT(tol=0.002, progress=False, checkpoint=sys.argv[1]).fit(*data.problem("mixture-300x8"))
"""
    for delay in ("0", "0.0003", "0.001"):
        subprocess.run([sys.executable, "-c", code, str(path), delay], check=False)
        assert read_safetensors(path)[1]["format"] == checkpoints.FORMAT
    problem = data.problem("mixture-300x8")
    assert_same_fit(quiet_fit(*problem, tol=0.002, checkpoint=path), quiet_fit(*problem, tol=0.002))


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path):
    """A finished run's file and what it was of."""
    path, y = tmp_path / "run.safetensors", data.mixture(60, 4)
    quiet_fit(y, checkpoint=path)
    return path, y


def refused(path, y, *parts, **settings):
    before = path.read_bytes()
    with pytest.raises(ValueError, match="^[^\n]*$") as caught:
        SemiDiscreteOT(progress=False, checkpoint=path, **settings).fit(y)
    for part in (str(path), *parts):
        assert part in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "settings", [{"seed": 1}, {"tol": 0.02}, {"method": "newton"}, {"source": "normal"}], ids=lambda s: str(s)
)
def test_other_settings_are_refused(finished, settings):
    refused(*finished, "belongs to a fit with other targets, weights or settings", **settings)


def test_other_data_are_refused(finished):
    path, y = finished
    nudged = y.clone()
    nudged[7, 2] += 1e-6
    for other in (nudged, y[:-1], y.flip(0), y[:, :3]):
        refused(path, other, "belongs to a fit with other targets, weights or settings")
    with pytest.raises(ValueError, match="other targets, weights or settings"):
        SemiDiscreteOT(progress=False, checkpoint=path).fit(y, torch.arange(1.0, 61))


def test_the_number_of_threads_is_no_setting(tmp_path):
    """Rounding may differ with it where there is much to sum; the run goes on all the same."""
    y = torch.randn(5000, 8, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            quiet_fit(y, tol=0.5, max_samples=20_000, checkpoint=tmp_path / "run")
    finally:
        torch.set_num_threads(before)


def test_cut_off_at_every_eighth(finished):
    path, y = finished
    whole = path.read_bytes()
    for size in [len(whole) * k // 8 for k in range(8)] + [7, 8, len(whole) - 1]:
        path.write_bytes(whole[:size])
        refused(path, y)


def rewrite(path, change=lambda record: record, **tensors):
    held, metadata = read_safetensors(path)
    held = {name: value for name, value in (held | tensors).items() if value is not None}
    record = json.loads(metadata["record"])
    write_safetensors(path, held, metadata | {"record": json.dumps(change(record))})


def state(**changes):
    return lambda record: record | {"state": record["state"] | changes}


FORGED = {
    "short heights": {"h": torch.zeros(3, dtype=torch.float64)},
    "heights in a matrix": {"h": torch.zeros(60, 1, dtype=torch.float64)},
    "float32 heights": {"h": torch.zeros(60)},
    "whole heights": {"h": torch.zeros(60, dtype=torch.int64)},
    "nan heights": {"h": torch.full((60,), math.nan, dtype=torch.float64)},
    "no heights": {"h": None},
    "short move": {"move": torch.zeros(3, dtype=torch.float64)},
    "infinite move": {"move": torch.full((60,), math.inf, dtype=torch.float64)},
    "unknown tensor": {"banana": torch.zeros(60, dtype=torch.float64)},
    "a list": {"change": lambda record: [record]},
    "a word": {"change": lambda record: "record"},
    "no state": {"change": lambda record: {k: v for k, v in record.items() if k != "state"}},
    "state a list": {"change": lambda record: record | {"state": [1]}},
    "unknown number": {"change": state(banana=1)},
    "steps in words": {"change": state(step="many")},
    "samples in words": {"change": state(n="many")},
    "negative samples": {"change": state(n=-5)},
    "samples a list": {"change": state(n=[3])},
    "expected nothing": {"change": state(expected=None)},
    "used in words": {"change": lambda record: record | {"used": "many"}},
    "used infinite": {"change": lambda record: record | {"used": math.inf}},
    "history a number": {"change": lambda record: record | {"history": 3}},
    "history in words": {"change": lambda record: record | {"history": "abc"}},
}


@pytest.mark.parametrize("forgery", FORGED.values(), ids=FORGED)
def test_forged_ones_are_refused(finished, forgery):
    """With the right identity, and wrong all the same."""
    path, y = finished
    rewrite(path, **forgery)
    refused(path, y, "damaged checkpoint")


def test_flipped_bits_in_the_header_never_do_harm(finished):
    path, y = finished
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    refusals = 0
    for i in range(0, header, 11):
        damaged = bytearray(whole)
        damaged[i] ^= 1 << (i % 7)
        path.write_bytes(bytes(damaged))
        try:
            quiet_fit(y, checkpoint=path, max_samples=20_000)
        except ValueError as error:
            refusals += 1
            assert str(path) in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            assert path.read_bytes() == bytes(damaged)
    assert refusals > 5


def test_other_files_are_refused(finished, tmp_path):
    path, y = finished
    write_safetensors(path, {"h": torch.zeros(60)}, {"format": "otgen-model-1"})
    refused(path, y, "expected a checkpoint of otgen", "got otgen-model-1")
    write_safetensors(path, {"h": torch.zeros(60)}, {})
    refused(path, y, "expected a checkpoint of otgen", "got another file")
    torch.save({"h": 1}, path)
    refused(path, y)
    path.write_bytes(b"")
    refused(path, y)
    with pytest.raises(OSError, match=str(tmp_path)):
        SemiDiscreteOT(progress=False, checkpoint=tmp_path).fit(y)


def test_infinite_numbers_of_a_state_come_back(tmp_path):
    """JSON has none; a state is infinite where nothing has been seen yet."""
    h = torch.randn(5, dtype=torch.float64)
    before = NewtonState(h, n=7, best=math.inf, expected=0.25, move=h + 1, exhausted=True)
    checkpoints.save(tmp_path / "x", before, [{"n": 3}], 99, "me")
    after, history, used = checkpoints.load(tmp_path / "x", NewtonState, "me", 5)
    for name in vars(before):
        a, b = getattr(before, name), getattr(after, name)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else (a == b and type(a) is type(b)), name
    assert (history, used) == ([{"n": 3}], 99)
    assert checkpoints.load(tmp_path / "none", NewtonState, "me", 5) is None
