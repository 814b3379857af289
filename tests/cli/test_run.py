import re

import pytest

from otgen.cli import report, run
from otgen.cli.parser import Parser
from otgen.experiments import Output


@pytest.fixture
def call():
    """Parse words and run the command they name."""
    parser = Parser()
    commands = parser.add_subparsers(required=True)
    for command in (run, report):
        command.add(commands)

    def start(*words):
        args = parser.parse_args(words)
        return args.run(args)

    return start


def test_run_passes_everything_on(call, capsys, monkeypatch):
    given = []

    def fake(name, **settings):
        settings.pop("note")("working")
        given.append((name, settings))
        return [Output("results.json", "2 of 3 claims confirmed")]

    monkeypatch.setattr(run, "run_experiments", fake)
    assert call("run", "all", "--fast", "-o", "here", "--seed", "3", "--device", "cuda", "--overwrite") == 0
    assert call("run", "minimax") == 0
    wanted = {"output": "here", "fast": True, "seed": 3, "device": "cuda", "overwrite": True}
    default = {"output": "otgen-results", "fast": False, "seed": None, "device": "cpu", "overwrite": False}
    assert given == [("all", wanted), ("minimax", default)]
    out, err = capsys.readouterr()
    assert out == "results.json  2 of 3 claims confirmed\n" * 2
    assert err == "otgen: working\n" * 2


def test_an_unknown_recipe(call, tmp_path):
    with pytest.raises(ValueError, match="recipe must be one of parallel-lines, .* got 'nix'"):
        call("run", "nix", "-o", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_report_passes_everything_on(call, capsys, monkeypatch):
    given = []

    def fake(folder, **settings):
        given.append((folder, settings))
        return [Output("report.html", "4 experiments on one page")]

    monkeypatch.setattr(report, "report", fake)
    assert call("report") == 0
    assert call("report", "here", "-o", "page.html", "--readme", "README.md", "--overwrite") == 0
    assert given == [
        ("otgen-results", {"output": None, "readme": None, "overwrite": False}),
        ("here", {"output": "page.html", "readme": "README.md", "overwrite": True}),
    ]
    assert capsys.readouterr().out == "report.html  4 experiments on one page\n" * 2


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (".", "must end in .html, .htm, got ."),
        ("notes.txt", "must end in .html, .htm, got notes.txt"),
        ("none/page.html", "there is no folder none to write page.html into"),
        ("folder.html", "folder.html is a folder"),
        ("read.html", "read.html is asked for twice"),
    ],
)
def test_what_report_refuses(call, tmp_path, monkeypatch, output, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises((ValueError, OSError), match=re.escape(reason)):
        call("report", ".", "-o", output, "--readme", "./read.html")
    assert (tmp_path / "notes.txt").read_text() == "mine"
