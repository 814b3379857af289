import io
import os
import signal
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import Dataset

from otgen import bars
from otgen.models import AE, Model
from otgen.train import Setup, loop, read_checkpoint, train

SHAPE = (1, 8, 8)


class Line(Model):
    """Fits a constant to noisy data: two optimisers, own noise and a counter, as a GAN has them."""

    def __init__(self, stop_at=None, seed=0):
        super().__init__((2,))
        self.a, self.b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
        self.adam, self.rms = torch.optim.Adam([self.a], lr=0.1), torch.optim.RMSprop([self.b], lr=0.1, momentum=0.9)
        self.noise = torch.Generator().manual_seed(seed)
        self.register_buffer("count", torch.tensor(0))
        self.seen, self.stop_at = [], stop_at

    def step(self, batch):
        self.seen.append(batch)
        self.count += 1
        error = batch + 0.1 * torch.randn(batch.shape, generator=self.noise) - self.a * self.b.exp()
        loss = error.square().mean()
        self.zero_grad()
        loss.backward()
        self.adam.step()
        if self.count == self.stop_at:
            signal.raise_signal(signal.SIGINT)  # Ctrl-C between the two halves of a step
        self.rms.step()
        return {"loss": loss.item(), "count": self.count.item()}


def points(n=20):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(5)) + 3


def images(n=20):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(5))


def assert_same_run(model, history, other, other_history):
    assert history.keys() == other_history.keys()
    for name in history:
        np.testing.assert_array_equal(history[name], other_history[name], err_msg=name)
    a, b = model.state_dict(), other.state_dict()
    assert a.keys() == b.keys()
    for name in a:
        assert_close(a[name], b[name], rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")


# --- the loop --------------------------------------------------------------------------------------------------------


def test_training_reduces_the_loss():
    x = images(32).round()
    history = train(AE(SHAPE, 8, width=8, lr=3e-3), x, epochs=60, batch_size=8, progress=False)
    assert len(history["loss"]) == 60 * 4
    assert 0 < sum(history["loss"][-4:]) < 0.25 * sum(history["loss"][:4])


def test_an_epoch_shows_each_row_once_in_full_batches():
    model, data = Line(), points(11)
    train(model, data, epochs=3, batch_size=3, progress=False)
    assert [len(batch) for batch in model.seen] == [3] * 9
    epochs = [torch.cat(model.seen[start : start + 3]) for start in (0, 3, 6)]
    for rows in epochs:
        wanted = data[[(data == row).all(dim=1).nonzero().item() for row in rows]]
        assert_close(rows, wanted, rtol=0, atol=0)
        assert len(rows.unique(dim=0)) == 9
    assert not torch.equal(epochs[0], epochs[1])


def test_seed_decides_the_order_and_spares_the_global_state():
    models, state = [Line(), Line(), Line()], torch.get_rng_state()
    for model, seed in zip(models, (3, 3, 4), strict=True):
        train(model, points(), steps=7, batch_size=4, seed=seed, progress=False)
    same, again, other = (torch.cat(model.seen) for model in models)
    assert_close(same, again, rtol=0, atol=0)
    assert not torch.equal(same, other)
    assert_close(torch.get_rng_state(), state, rtol=0, atol=0)


def test_steps_and_epochs_agree():
    a, b = Line(), Line()
    assert_same_run(
        a, train(a, points(), epochs=3, batch_size=6, progress=False),
        b, train(b, points(), steps=9, batch_size=6, progress=False),
    )  # fmt: skip
    assert train(Line(), points(), steps=4, batch_size=6, progress=False)["count"].tolist() == [1, 2, 3, 4]


def test_progress_bar_on_stderr_for_long_runs_only(capfd, monkeypatch):
    train(Line(), points(), steps=3, batch_size=4)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(bars, "DELAY", 0.0)
    train(Line(), points(), steps=3, batch_size=4)
    out, err = capfd.readouterr()
    assert out == ""
    assert "3/3" in err
    assert "loss=" in err
    train(Line(), points(), steps=3, batch_size=4, progress=False)
    assert capfd.readouterr() == ("", "")


# --- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [Line, lambda: AE(SHAPE, 3, width=4)])
@pytest.mark.parametrize("stop", [1, 5, 6, 10])
def test_resumed_run_is_bit_identical(tmp_path, build, stop):
    """Five steps make an epoch; stopped inside the first, at its end, in the second, at the end of all."""
    whole, first, second = build(), build(), build()
    data = points() if isinstance(whole, Line) else images()
    run = {"batch_size": 4, "seed": 2, "progress": False}
    wanted = train(whole, data, steps=10, **run)
    path = tmp_path / "run.safetensors"
    train(first, data, steps=stop, checkpoint=path, **run)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.fill_(7.0)  # all of it must come from the file
    assert_same_run(second, train(second, data, steps=10, checkpoint=path, resume=True, **run), whole, wanted)
    assert read_checkpoint(path).step == 10


def test_resume_without_a_file_starts_at_the_beginning(tmp_path):
    a, b, run = Line(), Line(), {"steps": 3, "batch_size": 4, "progress": False}
    history = train(a, points(), checkpoint=tmp_path / "a", resume=True, **run)
    assert_same_run(a, history, b, train(b, points(), **run))


def test_an_interrupt_waits_for_the_step_and_leaves_a_checkpoint(tmp_path):
    path, whole = tmp_path / "run.safetensors", Line()
    run = {"batch_size": 4, "progress": False}
    wanted = train(whole, points(), steps=9, **run)
    with pytest.raises(KeyboardInterrupt):
        train(Line(stop_at=7), points(), steps=9, checkpoint=path, **run)
    assert read_checkpoint(path).step == 7
    assert os.listdir(tmp_path) == ["run.safetensors"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model = Line()
    assert_same_run(model, train(model, points(), steps=9, checkpoint=path, resume=True, **run), whole, wanted)


def test_a_second_interrupt_does_not_wait(tmp_path):
    class Hasty(Line):
        def step(self, batch):
            if self.count == 4:
                signal.raise_signal(signal.SIGINT)
            return super().step(batch)

    path, model = tmp_path / "run.safetensors", Hasty(stop_at=5)
    with pytest.raises(KeyboardInterrupt):
        train(model, points(), steps=9, batch_size=4, checkpoint=path, checkpoint_seconds=0.0, progress=False)
    assert read_checkpoint(path).step == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_signals_of_others_are_left_alone():
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        train(Line(stop_at=2), points(), steps=4, batch_size=4, progress=False)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert heard == [1]


def test_checkpoints_come_by_the_clock(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(loop, "write_checkpoint", lambda path, checkpoint: written.append(checkpoint.step))
    monkeypatch.setattr(time, "monotonic", iter(range(100)).__next__)  # each look at the clock takes a second
    run = {"steps": 9, "batch_size": 4, "checkpoint": tmp_path / "a", "progress": False}
    train(Line(), points(), checkpoint_seconds=2.0, **run)
    # a write looks at the clock as well, so the next is three looks after it
    assert written == [0, 2, 4, 6, 8, 9]
    written.clear()
    train(Line(), points(), checkpoint_seconds=1000.0, **run)
    assert written == [0, 9]


class Dropping(Line):
    """Draws from torch's own generator in every step, before the first and after the last."""

    def prepare(self, data, setup):
        self.b.data += torch.rand(2)

    def step(self, batch):
        return super().step(nn.functional.dropout(batch)) | {"drawn": torch.rand(()).item()}

    def finish(self, data, setup):
        self.a.data += torch.rand(2)


class Jittered(Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        return points()[index] + torch.rand(2)


def test_what_torchs_own_generator_gives_hangs_on_the_seed_alone(tmp_path):
    run, drawn = {"steps": 8, "batch_size": 4, "progress": False}, []
    torch.manual_seed(1)
    wanted = train(whole := Dropping(), Jittered(), **run)
    assert_close(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(1)), rtol=0, atol=0)
    train(Dropping(), Jittered(), checkpoint=tmp_path / "a", callbacks=[lambda m, step, v: step == 3], **run)
    torch.manual_seed(2)
    callbacks = [lambda *_: drawn.append(torch.rand(1))]
    history = train(rest := Dropping(), Jittered(), checkpoint=tmp_path / "a", resume=True, callbacks=callbacks, **run)
    assert_same_run(rest, history, whole, wanted)
    assert_close(torch.cat(drawn), torch.rand(5, generator=torch.Generator().manual_seed(2)), rtol=0, atol=0)
    assert len(set(wanted["drawn"])) == 8
    assert not set(wanted["drawn"]) & set(train(Dropping(), Jittered(), seed=1, **run)["drawn"])


class Moded(Line):
    """Has two layers whose mode counts."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.BatchNorm1d(2), nn.BatchNorm1d(2)])
        self.modes = []

    def step(self, batch):
        self.modes.append([layer.training for layer in self.layers])
        return super().step(batch)


def test_a_model_in_evaluation_mode_trains_all_the_same():
    def end(model, step, values):
        raise InterruptedError

    run = {"steps": 2, "batch_size": 4, "progress": False}
    model = Moded().eval()
    model.layers[1].train()
    train(model, points(), **run)
    with pytest.raises(InterruptedError):
        train(model, points(), callbacks=[end], **run)
    assert model.modes == [[True, True]] * 3
    assert [part.training for part in (model, *model.layers)] == [False, False, True]
    frozen = Moded()
    frozen.layers[0].eval()
    train(frozen, points(), **run)
    assert frozen.modes == [[False, True]] * 2
    assert [part.training for part in (frozen, *frozen.layers)] == [True, False, True]


def test_the_history_of_a_run_that_ends_early_is_kept():
    model = Line(stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        model.fit(points(), steps=9, batch_size=4, progress=False)
    assert model.history_["count"].tolist() == [1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        model.fit(points(), steps=9, batch_size=4, progress=False, callbacks=[lambda m, step, v: step == 2 and 1 / 0])
    assert model.history_["count"].tolist() == [4, 5]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"seed": 1}, "was made with seed=0, got seed=1"),
        ({"batch_size": 5}, "was made with batch_size=4, got batch_size=5"),
        ({"data": points(24)}, r"was made with data=\[20, 2\], got data=\[24, 2\]"),
        ({"data": points(20) + 1}, "was made with other data of the same size"),
        ({"data": torch.cat([points(20)[:19], points(20)[:1]])}, "was made with other data of the same size"),
        ({"model": AE((2,), 2, width=4)}, "was made with model=Line, got model=AE"),
        ({"steps": 3}, "has 4 steps behind it, more than the 3 asked for"),
        ({"resume": False}, "is there already; go on from it with resume=True, or remove it"),
    ],
)
def test_resume_with_other_settings(tmp_path, change, wanted):
    path = tmp_path / "run.safetensors"
    arguments = {"model": Line(), "data": points(), "batch_size": 4, "steps": 4, "checkpoint": path, "progress": False}
    train(**arguments)
    before = path.read_bytes()
    with pytest.raises((ValueError, FileExistsError), match=rf"train: .*run.safetensors {wanted}"):
        train(**(arguments | {"model": Line(), "resume": True} | change))
    assert path.read_bytes() == before


def test_resume_with_another_architecture(tmp_path):
    arguments = {"data": images(), "batch_size": 4, "steps": 2, "checkpoint": tmp_path / "ae", "progress": False}
    train(AE(SHAPE, 2, width=4), **arguments)
    with pytest.raises(ValueError, match=r"train: .*ae does not fit the model: .*encoder") as error:
        train(AE(SHAPE, 3, width=4), resume=True, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "kind", "wanted"),
    [
        ({"data": 3}, TypeError, r"data must be a tensor or array \(n, ...\), a path, a torch Dataset .* got int"),
        ({"data": torch.ones(4)}, ValueError, r"data must have shape \(n, ...\) with n >= 1, got \(4,\)"),
        ({"data": torch.ones(0, 2)}, ValueError, r"data must have shape \(n, ...\) with n >= 1, got \(0, 2\)"),
        ({"batch_size": 21}, ValueError, "batch_size must be from 1 to the 20 rows of data, got 21"),
        ({"batch_size": 0}, ValueError, "batch_size must be a whole number >= 1, got 0"),
        ({"seed": -1}, ValueError, "seed must be a whole number >= 0 and below 2.63, got -1"),
        ({"epochs": 1}, ValueError, "either epochs or steps must be given, got epochs=1, steps=2"),
        ({"steps": None}, ValueError, "either epochs or steps must be given, got epochs=None, steps=None"),
        ({"steps": 0}, ValueError, "epochs or steps must be a whole number >= 1, got epochs=None, steps=0"),
        ({"resume": True}, ValueError, "resume needs the path of a checkpoint, got None"),
        ({"callbacks": None}, TypeError, "callbacks must be a list of functions, got None"),
        ({"callbacks": print}, TypeError, "callbacks must be a list of functions, got <built-in function print>"),
        ({"callbacks": [3]}, TypeError, r"callbacks must be a list of functions, got \[3\]"),
        ({"checkpoint": "no/such/folder/a"}, FileNotFoundError, "the checkpoint's folder must exist, got no/such/"),
    ],
)
def test_bad_arguments(arguments, kind, wanted):
    model = Line()
    with pytest.raises(kind, match=f"^train: {wanted}"):
        train(model, **({"data": points(), "steps": 2, "batch_size": 4, "progress": False} | arguments))
    assert model.seen == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_sound(tmp_path, value):
    class Odd(Line):
        def step(self, batch):
            super().step(batch)
            return self.values[int(self.count) - 1]

    model, path = Odd(), tmp_path / "a"
    model.values = [{"loss": 1.0}, {"loss": value}]
    with pytest.raises(
        FloatingPointError, match=f"train: Odd, step 2: loss must stay finite, got {value}; try a smaller lr"
    ):
        train(model, points(), steps=2, batch_size=4, checkpoint=path, checkpoint_seconds=0.0, progress=False)
    assert read_checkpoint(path).step == 1
    model = Odd()
    model.values = [{"loss": 1.0}, {"other": 1.0}]
    with pytest.raises(ValueError, match=r"train: Odd, step 2: step must return \['loss'\] each time, got \['other'\]"):
        train(model, points(), steps=2, batch_size=4, progress=False)


def test_a_gradient_that_is_not_finite(tmp_path):
    class Steep(Line):
        def step(self, batch):
            values = super().step(batch)
            if self.count == 3:
                self.b.grad[1] = float("inf")
            return values

    path = tmp_path / "a"
    with pytest.raises(
        FloatingPointError, match=r"train: Steep, step 3: the gradient of b must stay finite \(loss [\d.]+"
    ):
        train(Steep(), points(), steps=4, batch_size=4, checkpoint=path, checkpoint_seconds=0.0, progress=False)
    assert read_checkpoint(path).step == 2


# --- what comes with a run -------------------------------------------------------------------------------------------


def test_callbacks_see_every_step_and_end_the_run(tmp_path):
    seen, path = [], tmp_path / "a"

    def watch(model, step, values):
        seen.append((type(model), step, values["count"]))

    run = {"steps": 6, "batch_size": 4, "checkpoint": path, "progress": False}
    history = train(Line(), points(), callbacks=[lambda m, step, v: step == 3, watch], **run)
    assert seen == [(Line, 1, 1), (Line, 2, 2), (Line, 3, 3)]
    assert history["count"].tolist() == [1, 2, 3]
    whole, rest = Line(), Line()
    wanted = train(whole, points(), **(run | {"checkpoint": None}))
    assert_same_run(rest, train(rest, points(), resume=True, **run), whole, wanted)


@pytest.mark.parametrize("true", [True, np.bool_(True), torch.tensor(True)], ids=repr)
def test_a_callback_ends_the_run_by_a_truth_value_alone(true):
    written = io.StringIO()
    log = [lambda m, step, v: written.write(f"{step}\n"), lambda m, step, v: v["count"]]
    history = train(
        Line(),
        points(),
        steps=6,
        batch_size=4,
        progress=False,
        callbacks=[*log, lambda m, step, v: true if step == 5 else "no"],
    )
    assert len(history["count"]) == written.getvalue().count("\n") == 5


def test_callbacks_do_not_see_the_history_of_a_run_before():
    model, seen, run = Line(), [], {"steps": 2, "batch_size": 4, "progress": False}
    train(model, points(), **run)
    train(model, points(), callbacks=[lambda m, step, v: seen.append(dict(m.history_))], **run)
    assert seen == [{}, {}]
    assert model.history_["count"].tolist() == [3, 4]


def test_prepare_and_finish_frame_the_run(tmp_path):
    class Framed(Line):
        def prepare(self, data, setup):
            self.seen.append(("prepare", sum(len(piece) for piece in data.once()), setup))

        def finish(self, data, setup):
            self.seen.append(("finish", *next(data.once()).shape))

    model, path = Framed(), tmp_path / "a"
    run = {"batch_size": 4, "checkpoint": path, "progress": False}
    train(model, points(), steps=1, seed=3, **run)
    assert model.seen[0] == ("prepare", 20, Setup(4, 3, False, checkpoint=tmp_path / "a.prepare"))
    assert model.seen[2:] == [("finish", 20, 2)]
    again = Framed()
    train(again, points(), steps=2, seed=3, resume=True, **run)
    assert [seen if isinstance(seen, tuple) else "step" for seen in again.seen] == ["step", ("finish", 20, 2)]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler of torch 2.14
def test_bfloat16_and_compile_train_too():
    x = images(32).round()
    for options in ({"amp": True}, {"compile": "eager"}):
        ae = AE(SHAPE, 8, width=8, lr=3e-3)
        codes = []
        encode = ae._encode
        ae._encode = lambda x, codes=codes, encode=encode: codes.append(encode(x)) or codes[-1]
        history = train(ae, x, epochs=20, batch_size=8, progress=False, **options)
        assert {z.dtype for z in codes} == {torch.bfloat16 if options.get("amp") else torch.float32}
        assert 0 < history["loss"][-4:].sum() < 0.8 * history["loss"][:4].sum()
        assert ae.encoder._compiled_call_impl is None  # the run's alone
        assert {value.dtype for value in ae.state_dict().values()} == {torch.float32, torch.uint8}
        assert ae.state_dict().keys() == AE(SHAPE, 8, width=8).state_dict().keys() | {
            key for key in ae.state_dict() if key.startswith("optimiser.")
        }


def test_gradients_of_gradients_are_not_compiled():
    class Second(Line):
        second_order = True

    with pytest.raises(ValueError, match="train: Second takes gradients of gradients, which torch.compile cannot"):
        train(Second(), points(), steps=1, batch_size=4, compile=True, progress=False)


def test_an_unknown_backend_is_refused_in_one_line():
    ae = AE((2,), 2, width=2)
    with pytest.raises(ValueError, match="^train: compile must be .* one of torch's backends, got 'abacus'$"):
        train(ae, points(), steps=1, batch_size=4, compile="abacus", progress=False)
    assert ae.encoder._compiled_call_impl is None


def test_a_checkpoint_from_before_the_first_step_is_not_lost(tmp_path):
    before = tmp_path / "a.prepare"
    before.touch()
    with pytest.raises(FileExistsError, match="a.prepare is there already; go on from it with resume=True, or remove"):
        train(Line(), points(), steps=1, batch_size=4, checkpoint=tmp_path / "a", progress=False)
    assert os.listdir(tmp_path) == ["a.prepare"]
