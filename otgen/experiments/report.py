"""One self-contained HTML page, and Markdown tables, from the results of runs."""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from otgen.experiments import recipe as recipes
from otgen.experiments.record import NUMBER, Output, Shape, fits, read_json
from otgen.experiments.run import MARK, RESULTS, TIMES
from otgen.files import write_text

BEGIN, END = "<!-- experiments: made by otgen report -->", "<!-- end of experiments -->"
"""Marks in a Markdown file between which the tables go."""

TOP = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">\
<title>otgen report</title>"""
"""Begins every page, and tells it from other files."""

RESULT: Shape = {
    **dict.fromkeys(("recipe", "title", "claim", "device"), str),
    "fast": bool,
    "seed": int,
    "settings": dict,
    **dict.fromkeys(TIMES, NUMBER),
    **dict.fromkeys(("commit", "machine"), [str]),
    "claims": [dict.fromkeys(("text", "verdict", "evidence", "figure"), str)],
    "tables": [{"caption": str, "header": [str], "rows": [[str]]}],
    "figures": [dict.fromkeys(("file", "caption"), str)],
}
"""What is read of a result."""

SYMBOLS = {"confirmed": "✓", "not confirmed": "✗", "not testable at this size": "–"}

READING = (
    "Each claim is tested on small data with small networks, by a rule that stands with its evidence."
    " “Not confirmed” says that the rule was not met here, not that the claim is wrong;"
    " “not testable at this size” that the trainings were too few or too short to tell. Where there is no difference"
    " chance meets a rule of two standard errors in 9, 6 or 4 % of all cases with two, three or five trainings of"
    " each kind. Figures of the"
    " lecture and of papers stand in the tables for comparison of orders, not of values."
)
"""What a reader has to know before the verdicts."""

COLOURS = 64
"""Of a figure on the page: enough for lines, bands, their smoothed edges, and grey images."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5em; border-top: 1px solid #ccc; padding-top: 1em; }
table { border-collapse: collapse; margin: 1em 0; font-size: 0.85em; display: block; overflow-x: auto; }
caption { text-align: left; padding: 0.3em 0; color: #555; }
th, td { border: 1px solid #ccc; padding: 0.25em 0.6em; text-align: left; vertical-align: top; }
th { background: #f3f3f3; } figure { margin: 1.5em 0; } img { max-width: 100%; }
figcaption, .small { font-size: 0.85em; color: #555; } blockquote { margin-left: 0; padding-left: 1em;
border-left: 4px solid #ccc; } .confirmed { color: #00694a; } .not { color: #a03c00; }
strong { white-space: nowrap; }
"""


def report(
    folder: str | os.PathLike[str] = "otgen-results",
    *,
    output: str | os.PathLike[str] | None = None,
    readme: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> list[Output]:
    """Write one HTML page of all results in a folder, figures inside, and if asked for the tables of a README.

    Args:
        folder: Where `run` put its results.
        output: The page; `None` for `report.html` in the folder.
        readme: A Markdown file in which the tables between the two marks are replaced; `None` for none.
        overwrite: Whether the page may replace a file that is not an earlier page.

    Returns:
        What was written.

    Raises:
        FileExistsError: There is another file in the page's place.
        OSError: A file cannot be read or written.
        ValueError: There are no results, a file is not one of them, or the README lacks the marks.
    """
    folder = Path(folder)
    results = load_results(folder)
    page = Path(output) if output is not None else folder / "report.html"
    if not overwrite and os.path.lexists(page) and not _is_page(page):
        raise FileExistsError(
            f"{page} is not a page of otgen report: choose another name, or replace it with --overwrite"
        )
    texts = {page: _page(results)}
    outputs = [Output(page, f"{len(results)} experiment{'s' * (len(results) > 1)} on one page")]
    if readme is not None:
        there = Path(os.path.relpath(page, Path(readme).parent)).as_posix()
        texts[Path(readme)] = _replace(Path(readme), markdown(list(results.values()), there))
        outputs.append(Output(Path(readme), "tables between the marks"))
    for path, text in texts.items():
        write_text(path, text)
    return outputs


def load_results(folder: Path) -> dict[Path, dict[str, Any]]:
    """Results by their folders, in the order of the recipes; those of other recipes last.

    Raises:
        OSError: A file cannot be read.
        ValueError: There are none, or a file is not one of ours.
    """
    paths = sorted(folder.glob(f"*/{RESULTS}"))
    if not paths:
        raise ValueError(f"report: {folder} must hold results of `otgen run`, got none")
    results = {path.parent: read_json(path) for path in paths}
    for place, result in results.items():
        if result.get("made_by") != MARK:
            raise ValueError(f"report: {place / RESULTS} is not a result of `otgen run`")
        if not fits(result, RESULT):
            raise ValueError(f"report: {place / RESULTS} is not a whole result of `otgen run`: do it again")
    order = {name: number for number, name in enumerate(recipes.names())}
    ranks = {place: (order.get(result["recipe"], len(order)), str(place)) for place, result in results.items()}
    return {place: results[place] for place in sorted(results, key=lambda place: ranks[place])}


def markdown(results: Sequence[Mapping[str, Any]], page: str) -> str:
    """The marks, and between them all claims, each with its figure, and every experiment's own tables folded up.

    Args:
        results: Of `load_results`.
        page: Path of the HTML page from the Markdown file, for links to figures.
    """
    lines = [BEGIN, "", _summary(results), "", "| experiment | claim | verdict | figure |", "|---|---|---|---|"]
    for result in results:
        for claim in result["claims"]:
            figure = f"[{claim['figure']}]({quote(page)}#{quote(_anchor(result, claim['figure']))})"
            lines.append(_row((_heading(result), claim["text"], claim["verdict"], figure)))
    lines += ["", "<details><summary>The numbers behind them</summary>"]
    for result in results:
        for table in result["tables"]:
            header = [_row(table["header"]), "|" + "---|" * len(table["header"])]
            lines += ["", f"{_heading(result)}. {table['caption']} ({_origin(result)}):", "", *header]
            lines += [_row(row) for row in table["rows"]]
    return "\n".join([*lines, "", "</details>", "", END])


def _summary(results: Sequence[Mapping[str, Any]]) -> str:
    """How many claims got which verdict, on what, and how long that took."""
    claims = [claim for result in results for claim in result["claims"]]
    counts = ", ".join(f"{sum(claim['verdict'] == verdict for claim in claims)} {verdict}" for verdict in SYMBOLS)
    clock, work = (sum(result[key] for result in results) / 60 for key in TIMES)
    machines = "; ".join(sorted({name for result in results for name in result["machine"]}))
    return (
        f"{len(claims)} claims: {counts}. All of it took {work:.0f} minutes of processor time, {clock:.0f} minutes on"
        f" the clock beside whatever else ran, on {machines}."
    )


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _replace(path: Path, tables: str) -> str:
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"report: {path} must hold the lines {BEGIN} and {END}, once each")
    return text[: text.index(BEGIN)] + tables + text[text.index(END) + len(END) :]


def _heading(result: Mapping[str, Any]) -> str:
    return f"{result['title']} (fast)" if result["fast"] else str(result["title"])


def _origin(result: Mapping[str, Any]) -> str:
    """Recipe, seed, commit, machine and time, in a line."""
    made = " ".join(filter(None, result["commit"])) or "unknown"
    command = f"otgen run {result['recipe']}" + " --fast" * result["fast"]
    where = f"{', '.join(result['machine'])}, device {result['device']}"
    text = f"`{command}`, seed {result['seed']}, commit {made}, {where}, {result['seconds']:.0f} s"
    return f"{text} ({result['processor_seconds']:.0f} s of processor time)"


def _page(results: Mapping[Path, Mapping[str, Any]]) -> str:
    head = ("experiment", "claim of the lecture", "verdict", "figure")
    rows = [_summary_row(result, claim) for result in results.values() for claim in result["claims"]]
    body = [
        "<h1>otgen: the lecture's claims, tested</h1>",
        f"<p>{escape(_summary(list(results.values())))} Made by <code>otgen report</code>.</p>",
        f"<p>{escape(READING)}</p>",
        _html_table(None, head, rows),
        *(_section(place, result) for place, result in results.items()),
    ]
    return "\n".join([f"{TOP}<style>{STYLE}</style></head><body>", *body, "</body></html>"])


def _is_page(path: Path) -> bool:
    """Whether a file begins as our pages do."""
    with path.open("rb") as file:
        return file.read(len(TOP)) == TOP.encode()


def _summary_row(result: Mapping[str, Any], claim: Mapping[str, str]) -> list[str]:
    link = f'<a href="#{quote(_anchor(result))}">{escape(_heading(result))}</a>'
    picture = f'<a href="#{quote(_anchor(result, claim["figure"]))}">{escape(claim["figure"])}</a>'
    return [link, escape(claim["text"]), _verdict(claim["verdict"]), picture]


def _section(place: Path, result: Mapping[str, Any]) -> str:
    parts = [
        f'<h2 id="{escape(_anchor(result))}">{escape(_heading(result))}</h2>',
        f"<blockquote>{escape(result['claim'])}</blockquote>",
        "<ul>",
        *(
            f"<li>{_verdict(claim['verdict'])}: {escape(claim['text'])} <span class='small'>{escape(claim['evidence'])}"
            "</span></li>"
            for claim in result["claims"]
        ),
        "</ul>",
    ]
    for figure in result["figures"]:
        kind, content = _smaller((place / figure["file"]).read_bytes())
        caption = escape(figure["caption"])
        picture = f'<img alt="{caption}" src="data:image/{kind};base64,{base64.b64encode(content).decode()}">'
        anchor = escape(_anchor(result, figure["file"]))
        parts.append(f'<figure id="{anchor}">{picture}<figcaption>{caption}</figcaption></figure>')
    for table in result["tables"]:
        parts.append(_html_table(table["caption"], table["header"], [[*map(escape, row)] for row in table["rows"]]))
    settings = ", ".join(f"{name} = {value}" for name, value in result["settings"].items())
    command, rest = escape(_origin(result)).removeprefix("`").split("`", 1)
    parts.append(f"<p class='small'><code>{command}</code>{rest}. Settings: {escape(settings)}.</p>")
    return "\n".join(parts)


def _smaller(png: bytes) -> tuple[str, bytes]:
    """The same picture in few colours as WebP, which is a quarter of the size; as it is where Pillow has none."""
    try:
        from PIL import Image, features
    except ImportError:
        return "png", png
    if not features.check("webp"):
        return "png", png
    file = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        few.convert("RGB").save(file, "WEBP", lossless=True)
    return "webp", file.getvalue()


def _html_table(caption: str | None, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose cells are HTML already; caption and header are not."""
    top = f"<caption>{escape(caption)}</caption>" if caption else ""
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    names = "".join(f"<th>{escape(name)}</th>" for name in header)
    return f"<table>{top}<tr>{names}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _verdict(verdict: str) -> str:
    kind = verdict.split(" ", 1)[0]
    return f'<strong class="{escape(kind)}">{SYMBOLS.get(verdict, "?")} {escape(verdict)}</strong>'


def _anchor(result: Mapping[str, Any], figure: str = "") -> str:
    return "-".join(filter(None, [result["recipe"], "fast" * result["fast"], figure]))
