"""The README's code runs as it stands, and its commands are the ones that CI runs."""

import importlib
import re
from html import escape
from pathlib import Path

import pytest

from otgen.experiments.report import load_results, markdown

README = Path(__file__).parents[1] / "README.md"
PAGE = "docs/experiments.html"


def test_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert blocks
    scope: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), scope)
    out = capsys.readouterr().out
    assert out.startswith("True 0.00")  # certified at chi2 <= 0.01
    assert "torch.Size([5, 8])" in out
    assert (tmp_path / "map.safetensors").stat().st_size > 0


def test_commands() -> None:
    text = README.read_text()
    assert 'pip install -c constraints.txt ".[demo]" && otgen demo' in text
    assert 'pip install -c constraints.txt ".[test]" && pytest' in text


def test_tables_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(README.parent / "bench"))
    tables = importlib.import_module("readme").tables()
    assert tables in README.read_text()  # python bench/readme.py


def test_claims_are_those_of_the_results() -> None:
    results = load_results(README.parent / "docs" / "experiments")
    assert markdown(list(results.values()), PAGE) in README.read_text()  # docs/README.md says how
    page = (README.parent / PAGE).read_text()
    assert len(page) < 2_000_000
    for result in results.values():
        assert not any(commit.endswith("+") for commit in result["commit"])
        for claim in result["claims"]:
            assert escape(claim["evidence"]) in page
    links = re.findall(rf"{re.escape(PAGE)}#([^)]+)", README.read_text())
    assert links
    assert all(f'id="{link}"' in page for link in links)
