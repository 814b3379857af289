import io
import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from otgen import plots
from otgen.charts import Line, Panel, chart
from otgen.experiments import record, report, run
from otgen.experiments.experiment import Claim, Experiment, Findings, Outcome, Picture, Table
from otgen.experiments.record import read_json, write_json
from otgen.experiments.registry import EXPERIMENTS
from otgen.experiments.report import BEGIN, END, _smaller

pytest.importorskip("matplotlib")

RECIPE = """
title = "A toy <&>"
experiment = "toy"
claim = "Sums are sums."
seed = 1

[settings]
numbers = [1, 2, 3]

[fast]
numbers = [5]
"""


class Toy:
    """An experiment that counts how often each part is done, and can be stopped before one."""

    def __init__(self):
        self.done = []
        self.stop_at = None

    def parts(self, context):
        return {f"n{number}": partial(self.work, context, number) for number in context.settings["numbers"]}

    def work(self, context, number):
        if number == self.stop_at:
            raise KeyboardInterrupt
        self.done.append(number)
        return Outcome({"number": number, "seed": context.seed}, {"v": torch.full((3,), float(number))})

    def conclude(self, context, outcomes):
        total = sum(outcome.values["number"] for outcome in outcomes.values())
        assert total == sum(float(outcome.tensors["v"][0]) for outcome in outcomes.values())
        figure = chart([Panel("t", lines=[Line([0, 1], [0, total])])])
        claims = [
            Claim("It sums | up.", "confirmed", f"It is {total} <&>.", "toy.png"),
            Claim("It is large.", "not confirmed", "No.", "toy.png"),
            Claim("It grows.", "not testable at this size", "One is too few.", "toy.png"),
        ]
        return Findings(claims, {"toy.png": Picture(figure, "A line.")}, [Table("Sums", ("sum",), [(f"{total} <&>",)])])


@pytest.fixture
def toy(monkeypatch):
    experiment = Toy()
    monkeypatch.setitem(EXPERIMENTS, "toy", Experiment(experiment.parts, experiment.conclude))
    return experiment


@pytest.fixture
def path(tmp_path):
    (tmp_path / "toy.toml").write_text(RECIPE)
    return str(tmp_path / "toy.toml")


def test_results_name_everything(toy, path, tmp_path):
    notes = []
    outputs = run(path, output=tmp_path / "out", note=notes.append)
    assert [output.path.relative_to(tmp_path).as_posix() for output in outputs] == [
        "out/toy/results.json",
        "out/toy/toy.png",
    ]
    assert outputs[0].what == "A toy <&>: 1 of 3 claims confirmed"
    assert notes == [*(f"toy: part {i} of 3, n{i}" for i in (1, 2, 3)), "toy: drawing"]
    result = read_json(tmp_path / "out/toy/results.json")
    wanted = {"recipe": "toy", "seed": 1, "fast": False, "device": "cpu", "settings": {"numbers": [1, 2, 3]}}
    assert wanted.items() <= result.items()
    assert [part["values"]["number"] for part in result["parts"].values()] == [1, 2, 3]
    for part in result["parts"].values():
        assert 0 <= part["seconds"] < 60
        assert {"processor", "cores", "torch", "otgen"} <= part["machine"].keys()
        assert isinstance(part["commit"], str)
        assert part["finished"].endswith("+00:00")
    assert result["claims"][0]["evidence"] == "It is 6 <&>."
    assert result["figures"] == [{"file": "toy.png", "caption": "A line."}]


def test_finished_parts_are_not_done_again(toy, path, tmp_path):
    toy.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        run(path, output=tmp_path)
    assert toy.done == [1, 2]
    assert not (tmp_path / "toy/results.json").exists()
    toy.stop_at = None
    run(path, output=tmp_path)
    assert toy.done == [1, 2, 3]
    for number in (1, 2, 3):
        part = tmp_path / f"toy/parts/n{number}.json"
        write_json(part, read_json(part) | {"seconds": float(number)})
    run(path, output=tmp_path)
    assert toy.done == [1, 2, 3]
    assert read_json(tmp_path / "toy/results.json")["seconds"] == 6


def test_fast_has_a_folder_of_its_own(toy, path, tmp_path):
    run(path, output=tmp_path)
    run(path, output=tmp_path, fast=True)
    assert toy.done == [1, 2, 3, 5]
    result = read_json(tmp_path / "toy-fast/results.json")
    assert (result["fast"], result["settings"]) == (True, {"numbers": [5]})


def test_other_settings_are_not_mixed_in(toy, path, tmp_path):
    run(path, output=tmp_path)
    with pytest.raises(FileExistsError, match="n1.json was made with other settings, seed or device"):
        run(path, output=tmp_path, seed=2)
    assert toy.done == [1, 2, 3]
    run(path, output=tmp_path, seed=2, overwrite=True)
    assert toy.done == [1, 2, 3] * 2
    assert read_json(tmp_path / "toy/parts/n1.json")["values"]["seed"] == 2


def test_a_seed_of_nought_is_a_seed(toy, path, tmp_path):
    run(path, output=tmp_path, seed=0)
    assert read_json(tmp_path / "toy/results.json")["seed"] == 0


def test_a_part_is_not_finished_before_its_tensors_are_there(toy, path, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["otgen.experiments.run"], "write_safetensors", full)
        with pytest.raises(OSError, match="No space left"):
            run(path, output=tmp_path)
    run(path, output=tmp_path)
    assert toy.done == [1, 1, 2, 3]


def test_files_that_are_not_ours_stay(toy, path, tmp_path):
    (tmp_path / "toy/parts").mkdir(parents=True)
    write_json(tmp_path / "toy/parts/n1.json", {"made_by": "somebody"})
    with pytest.raises(FileExistsError):
        run(path, output=tmp_path, overwrite=True)


def test_results_of_somebody_else_are_not_replaced(toy, path, tmp_path):
    (tmp_path / "toy").mkdir()
    mine = tmp_path / "toy/results.json"
    for text, error in (('{"mine": 1}', FileExistsError), ("mine", ValueError)):
        mine.write_text(text)
        with pytest.raises(error, match="results.json"):
            run(path, output=tmp_path, overwrite=True)
        assert mine.read_text() == text
    assert toy.done == []


def test_nothing_is_written_through_a_link(toy, path, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / "toy/parts").mkdir(parents=True)
    for name in ("parts/.n1.json.partial", ".results.json.partial", ".toy.png.partial", "toy.png"):
        (tmp_path / "toy" / name).symlink_to(mine)
    run(path, output=tmp_path)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("text", ['{"made_by": "otgen run", "identity": "IDENTITY"}', "\xff", "[1]", '{"values":'])
def test_a_damaged_part_is_named(toy, path, tmp_path, text):
    run(path, output=tmp_path)
    part = tmp_path / "toy/parts/n2.json"
    part.write_bytes(text.replace("IDENTITY", read_json(part)["identity"]).encode("latin1"))
    with pytest.raises(ValueError, match="n2.json: "):
        run(path, output=tmp_path)


def test_parts_that_lack_values_are_named(toy, path, tmp_path):
    run(path, output=tmp_path)
    part = tmp_path / "toy/parts/n2.json"
    write_json(part, read_json(part) | {"values": {}})
    with pytest.raises(ValueError, match=r"toy/parts: its parts are damaged, .*KeyError\('number'\)"):
        run(path, output=tmp_path)


def test_tensors_of_another_run_are_not_mixed_in(toy, path, tmp_path):
    run(path, output=tmp_path / "a")
    run(path, output=tmp_path / "b", seed=2)
    (tmp_path / "b/toy/parts/n1.safetensors").replace(tmp_path / "a/toy/parts/n1.safetensors")
    with pytest.raises(FileExistsError, match="n1.safetensors was made with other settings"):
        run(path, output=tmp_path / "a")
    run(path, output=tmp_path / "a", overwrite=True)
    assert toy.done == [1, 2, 3] * 2 + [1]


def test_matplotlib_is_missed_before_any_part(toy, path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="wanted matplotlib"):
        run(path, output=tmp_path / "out")
    assert toy.done == []
    assert not (tmp_path / "out").exists()


def test_what_json_cannot_hold_stops_the_part(toy, path, tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "work", lambda context, number: Outcome({"number": float("nan")}))
    with pytest.raises(ValueError, match="not JSON compliant"):
        run(path, output=tmp_path)
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, r"seed must be an int in \[0, 2\^63\), got -1"),
        ({"seed": True}, "seed must be an int"),
        ({"device": "nowhere"}, "device must be one that torch can use here, got 'nowhere'"),
        ({"device": "meta"}, "device must be one that torch can use here, got 'meta'"),
        ({"name": "nix"}, "recipe must be one of"),
    ],
)
def test_bad_input_is_refused_before_any_work(toy, path, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run(**{"name": path, "output": tmp_path / "out"} | change)
    assert not (tmp_path / "out").exists()


def test_an_unknown_experiment(path, tmp_path):
    with pytest.raises(ValueError, match="toy: experiment must be one of parallel_lines, .*, got 'toy'"):
        run(path, output=tmp_path)


def test_the_report_holds_everything_and_needs_nothing(toy, path, tmp_path):
    run(path, output=tmp_path)
    run(path, output=tmp_path, fast=True)
    (output,) = report(tmp_path)
    page = output.path.read_text()
    assert output.path == tmp_path / "report.html"
    assert page.count("data:image/webp;base64,") == 2
    assert "6 claims: 2 confirmed, 2 not confirmed, 2 not testable at this size" in page
    assert "A toy &lt;&amp;&gt; (fast)" in page
    assert "<&>" not in page
    assert "It is 6 &lt;&amp;&gt;." in page
    assert "<td>6 &lt;&amp;&gt;</td>" in page
    assert "http" not in page
    assert 'src="' not in page.replace('src="data:', "")
    assert page.count('id="') == len(set(page.split('id="')[1:])) == 4


def test_the_tables_of_a_readme(toy, path, tmp_path):
    run(path, output=tmp_path / "out")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    report(tmp_path / "out", output=tmp_path / "page.html", readme=readme)
    text = readme.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "| A toy <&> | It sums \\| up. | confirmed | [toy.png](page.html#toy-toy.png) |" in text
    assert 'id="toy-toy.png"' in (tmp_path / "page.html").read_text()
    assert "3 claims: 1 confirmed, 1 not confirmed, 1 not testable at this size. All of it took 0 minutes" in text
    assert "| sum |\n|---|\n| 6 <&> |" in text
    assert "`otgen run toy`, seed 1, commit" in text
    result = tmp_path / "out/toy/results.json"
    write_json(result, read_json(result) | {"seconds": 600.0, "processor_seconds": 1200.0})
    report(tmp_path / "out", output=tmp_path / "page.html", readme=readme)
    assert "took 20 minutes of processor time, 10 minutes on the clock" in readme.read_text()
    for wrong in ("no marks", f"{END}my own{BEGIN}", f"{BEGIN}my own{BEGIN}{END}", f"{BEGIN}{END}my own{END}"):
        readme.write_text(wrong)
        with pytest.raises(ValueError, match="must hold the lines"):
            report(tmp_path / "out", output=tmp_path / "other.html", readme=readme)
        assert readme.read_text() == wrong
    assert not (tmp_path / "other.html").exists()


def test_a_report_of_nothing(tmp_path):
    with pytest.raises(ValueError, match="must hold results of `otgen run`, got none"):
        report(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "x/results.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match="wanted a JSON object, got list"):
        report(tmp_path)
    (tmp_path / "x/results.json").write_text("{")
    with pytest.raises(ValueError, match="wanted JSON"):
        report(tmp_path)
    (tmp_path / "x/results.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a result of `otgen run`"):
        report(tmp_path)


def test_a_damaged_result_is_named(toy, path, tmp_path):
    run(path, output=tmp_path)
    whole = read_json(tmp_path / "toy/results.json")
    for change in ({"claims": [{"text": "no more"}]}, {"machine": None}, {"tables": {}}, {"seconds": "1"}):
        write_json(tmp_path / "toy/results.json", whole | change)
        with pytest.raises(ValueError, match="toy/results.json is not a whole result"):
            report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_page_replaces_pages_and_no_other_file(toy, path, tmp_path):
    run(path, output=tmp_path)
    mine = tmp_path / "report.html"
    mine.write_text("<!doctype html>\n<html lang='en'>mine")
    with pytest.raises(FileExistsError, match="report.html is not a page of otgen report"):
        report(tmp_path)
    assert "mine" in mine.read_text()
    report(tmp_path, overwrite=True)
    report(tmp_path)
    assert "mine" not in mine.read_text()


def test_links_to_a_page_with_spaces_are_quoted(toy, path, tmp_path):
    run(path, output=tmp_path)
    (tmp_path / "README.md").write_text(f"{BEGIN}\n{END}\n")
    (tmp_path / "a b").mkdir()
    report(tmp_path, output=tmp_path / "a b" / "p (1).html", readme=tmp_path / "README.md")
    assert "[toy.png](a%20b/p%20%281%29.html#toy-toy.png)" in (tmp_path / "README.md").read_text()


def test_figures_on_the_page_are_smaller_and_look_the_same():
    image = pytest.importorskip("PIL.Image")
    png = plots.render(chart([Panel("t", lines=[Line(range(50), [i % 7 for i in range(50)], band=[1.0] * 50)])]))
    kind, small = _smaller(png)
    assert kind == "webp"
    assert len(small) < 0.5 * len(png)
    a, b = (np.asarray(image.open(io.BytesIO(p)).convert("RGB")).astype(float) for p in (png, small))
    assert a.shape == b.shape
    assert np.abs(a - b).mean() < 1


def test_the_commit_of_another_project_is_not_recorded(tmp_path, monkeypatch):
    """Installed into an environment that lies in somebody's checkout."""
    installed = tmp_path / ".venv" / "record.py"
    installed.parent.mkdir()
    installed.write_text("")
    (tmp_path / "own.txt").write_text("")
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for words in (("init", "-q"), ("add", "own.txt"), (*who, "commit", "-qm", "own")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(record, "__file__", str(installed))
    assert record.commit() == ""
    subprocess.run(["git", "add", "-f", str(installed)], cwd=tmp_path, check=True)
    assert record.commit().endswith("+")
