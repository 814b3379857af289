"""Make the README's tables from results/*.json: python bench/readme.py."""

import json
import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- tables: made by bench/readme.py -->", "<!-- end of tables -->"
SHOWN = "ops-avx512_vnni"  # kernels as they are now
FOLD = (
    "<details><summary>Every named problem, small tolerances, growth, large problems, generation, exact diagrams and"
    " transport, other instruction sets</summary>\n"
)

Rows = list[dict[str, Any]]
Maker = tuple[str, Callable[[Rows, str], str]]  # of a table, from the results with this name


def main() -> None:
    """Replace what stands between the two marks."""
    path = ROOT / "README.md"
    before, rest = path.read_text().split(BEGIN)
    path.write_text(before + tables() + rest.split(END)[1])


def tables() -> str:
    """The marks, and between them the tables of all results that are there."""
    shown: list[Maker] = [("peers", peers_table), (SHOWN, partial(ops_table, SHOWN))]
    folded: list[Maker] = [
        ("solve", solve_table), ("solve-tight", tight_table), ("scaling", scaling_table),
        ("scaling-large", large_table), ("generate", generate_table), ("geometry", geometry_table),
        ("geometry-solve", geometry_solve_table), (SHOWN, held_table),
    ]  # fmt: skip
    for name in sorted({path.stem for path in RESULTS.glob("ops-*.json")} - {SHOWN}):
        folded += [(name, partial(ops_table, name)), (name, held_table)]
    return "\n".join([f"{BEGIN}\n", *_made(shown), FOLD, *_made(folded), "</details>\n", END])


def _made(makers: list[Maker]) -> list[str]:
    tables = [make(*_load(name)) for name, make in makers if (RESULTS / f"{name}.json").exists()]
    return [table for table in tables if table]


def solve_table(rows: Rows, machine: str) -> str:
    """Every named problem."""
    caption = (
        f"Every named problem with the defaults (uniform source, `tol=0.01`), {machine};"
        " the bound is the samples that no method can do without (m/(2π tv²)), for the accuracy reached"
        " (`python bench/solve.py`)"
    )
    cells: list[tuple[object, ...]] = []
    for row in rows:
        certified = "yes" if row["certified"] else "no"
        if row["samples"] == 0:  # cells were computed
            found = ("none", "–", f"{row['chi2']:.0e}")
        else:
            found = (f"{row['samples'] / 1e6:.2f} M", f"{row['samples / bound']:.1f}",
                     f"{row['chi2']:.4f} ± {row['se']:.4f}")  # fmt: skip
        cells.append((row["problem"], certified, f"{row['seconds']:.2g}", *found, row["empty"]))
    return _table(caption, "problem | certified | seconds | samples | ÷ bound | chi² ± se | empty cells", cells)


def tight_table(rows: Rows, machine: str) -> str:
    """Named problems solved further."""
    tvs = sorted({row["tv"] for row in rows}, reverse=True)
    caption = (
        "Those whose cells are sampled, certified to a smaller total variation (tol = 2π tv²), and all samples over the"
        f" bound for it, {machine} (`python bench/solve.py --tight`)"
    )
    lines = []
    for problem in dict.fromkeys(row["problem"] for row in rows):
        cells = [problem]
        for tv in tvs:
            row = next((row for row in rows if (row["problem"], row["tv"]) == (problem, tv)), None)
            if row is None:
                cells += ["–"] * 3
                continue
            mark = "" if row["certified"] else " (not certified)"
            cells += [f"{row['seconds']:.3g}{mark}", f"{row['samples'] / 1e6:.1f} M", f"{row['samples / bound']:.1f}"]
        lines.append(cells)
    header = " | ".join(["problem", *(f"tv {tv:.0%}: seconds | samples | ÷ bound" for tv in tvs)])
    return _table(caption, header, lines)


def geometry_table(rows: Rows, machine: str) -> str:
    """Diagrams beside their peers."""
    powers = {row["d"]: row["exponent"] for row in rows if "exponent" in row}
    names = ("otgen", "geogram", "scipy", "pyvoro2", "multivoro", "freud")
    caption = (
        f"Seconds for an exact power diagram of random sites, {machine}; ours from scratch with measures, moments and"
        f" facets, time growing like m^{powers[2]:.2f} in the plane and m^{powers[3]:.2f} in space; measures (scipy:"
        " neighbours) agree with every peer; memory is ours (`python bench/geometry.py diagrams`, which also draws"
        " [bench/results/geometry.png](bench/results/geometry.png))"
    )
    header = "cells | otgen | Geogram | scipy, Voronoi only | pyvoro2 | multivoro | freud, torus | µs a cell | MB"
    cells = [
        (f"{row['m']:,} in {row['d']}-D", *(_number(row, name) for name in names), f"{row['us per cell']:.1f}",
         f"{row['peak MB']:.0f}")
        for row in rows
    ]  # fmt: skip
    return _table(caption, header, cells)


def geometry_solve_table(rows: Rows, machine: str) -> str:
    """Exact transport in two and three dimensions."""
    caption = (
        f"Exact transport with the defaults (uniform source), {machine}; errors are the largest relative ones of a cell"
        " (`python bench/geometry.py solves`)"
    )
    header = "targets | steps | seconds | CPU seconds | error | MB | sdot: seconds | CPU seconds | error"
    cells = [
        (row["problem"], row["steps"], f"{row['seconds']:.2g}", f"{row['CPU seconds']:.2g}", f"{row['error']:.0e}",
         f"{row['peak MB']:.0f}",
         *(_number(row, f"sdot {name}", ".2g") for name in ("seconds", "CPU seconds", "error")))
        for row in rows
    ]  # fmt: skip
    return _table(caption, header, cells)


def peers_table(rows: Rows, machine: str) -> str:
    """Solvers beside otgen's."""
    names = [name for name in ("ott", "pot", "algorithm1") if any(row["contender"] == name for row in rows)]
    labels = [next(row["label"] for row in rows if row["contender"] == name) for name in names]
    caption = (
        "Seconds until chi² is 0.01, uniform source, the same number of threads for all: otgen's whole `fit` with"
        f" defaults until that is certified, and its peers until they first show it to a judge they do not pay,"
        f" {machine}. Their settings (rate, schedule, batch size, averaging, scale of the targets) were searched for"
        " (`bench/search.py`); compiling is not counted. Of peers that need less than 20 s the median of three runs."
        " Where a peer was stopped first, the chi² that it had reached"
        " (`python -m bench peers`)"
    )
    lines = []
    for problem in dict.fromkeys(row["problem"] for row in rows):
        found = {row["contender"]: row for row in rows if row["problem"] == problem}
        ours = found["otgen"]
        cells = [problem, f"{ours['seconds']:.2g}" + ("" if ours["certified"] else " (not certified)")]
        for name in names:
            cells += _peer_cells(found.get(name))
        lines.append(cells)
    table = _table(caption, " | ".join(["problem | otgen", *(f"{label} | ÷ otgen" for label in labels)]), lines)
    foreign = [row for row in rows if row["contender"] != "otgen" and row["settings from"] != row["problem"]]
    said = (f"{row['label']} on {row['problem']} those of {row['settings from'] or 'its defaults'}" for row in foreign)
    note = f"\nSettings not searched for there: {', '.join(said)}.\n" if foreign else ""
    return f"{table}{note}\n![chi² against time for every solver](bench/results/peers.png)\n"


def _peer_cells(row: dict[str, Any] | None) -> list[str]:
    if row is None or "failed" in row:
        return ["–", "–"]
    if row["seconds"] is None:
        return [f"chi² {row['chi2']:.2g} after {row['points'][-1]['seconds']:.0f}", f"> {math.floor(row['ratio'])}"]
    return [f"{row['seconds']:.3g}", f"{row['ratio']:.1f}"]


def scaling_table(rows: Rows, machine: str) -> str:
    """Fitted powers."""
    cases, powers = [row for row in rows if "of" not in row], [row for row in rows if "of" in row]
    spans = {key: (min(row[key] for row in cases), max(row[key] for row in cases)) for key in ("m", "d", "tol")}
    text = ", ".join(f"{key} from {low:g} to {high:g}" for key, (low, high) in spans.items())
    caption = (
        f"Cost of a certified solution, fitted as m^a d^b tv^c over {len(cases)} mixtures, {text}, {machine}"
        " (`python -m bench scaling`; [bench/results/scaling.png](bench/results/scaling.png)); ± is the fit's, and the"
        " curve bends: small ones are mostly overhead"
    )
    lines = []
    for row in powers:
        found = [f"{row[key]:.2f} ± {row[f'{key} se']:.2f}" for key in ("m", "d", "tv")]
        lines.append([row["of"], *found, ", ".join(str(row[f"{key} theory"]) for key in ("m", "d", "tv"))])
    return _table(caption, "cost | a | b | c | theory", lines)


def generate_table(rows: Rows, machine: str) -> str:
    """Points of Algorithm 2."""
    others = ("FAISS", "k-d tree", "torch")
    caption = (
        "New points by the lecture's Algorithm 2, microseconds for each sample of the source: the search of its d + 1"
        f" nearest centroids, and all of it, {machine} (`python -m bench generate`)"
    )
    keys = ["nearest us", *(f"nearest, {name} us" for name in others), "extend us", "extend, torch us", "extend ratio"]
    lines = [[f"{row['m']} × {row['d']}", *(_number(row, key, ".2g") for key in keys)] for row in rows]
    return _table(caption, f"m × d | nearest: otgen | {' | '.join(others)} | all: otgen | torch | ratio", lines)


def large_table(rows: Rows, machine: str) -> str:
    """Problems that take minutes."""
    caption = (
        f"Large mixtures, each in a process of its own, whose memory is given with Python's and torch's, {machine}"
        " (`python -m bench scaling --large`, which stops the second at 20 samples a target)"
    )
    lines = []
    for row in rows:
        if "failed" in row:
            found = [row["failed"], "–", "–", "–", "–"]
        else:
            found = [f"{row['seconds']:.0f}", f"{row['samples'] / 1e6:.1f} M", f"{row['chi2']:.2g}",
                     "yes" if row["certified"] else "no", f"{row['peak MB']:.0f}"]  # fmt: skip
        lines.append([f"{row['m']} × {row['d']}", *found])
    return _table(caption, "m × d | seconds | samples | chi² | certified | peak MB", lines)


def _processes(rows: Rows) -> str:
    slowest = "faiss slowest process Gflop/s"
    if slowest not in rows[0]:
        return "had one process, and its speed changes from one to the next"
    most = max(row["faiss Gflop/s"] / row[slowest] for row in rows)
    return f"is up to {most:.1f} times as fast in one process as in another: its best of six or more counts"


def ops_table(file: str, rows: Rows, machine: str) -> str:
    """The kernels beside their peers, on one machine."""
    rows = [row for row in rows if row["isa"] == rows[0]["isa"]]
    caption = (
        f"`assign`, effective Gflop/s (2nmd over time), {machine}, exact winners on all sides up to float32 ties; the"
        " peak is that of products in registers of the kind that the filter makes, ± half of the middle half of five"
        " runs (`python -m bench ops`, which"
        f" `python -m bench plots` draws in [bench/results/{file}.png](bench/results/{file}.png)). The last column is"
        " `otgen.ops.Shortlist` after heights moved by 3 % of the mean gap between best and second best. FAISS"
        f" {_processes(rows)} ([more](bench/results/README.md))"
    )
    header = (
        "m × d | otgen | of peak | FAISS flat | torch addmm + argmax | PyKeOps | ÷ FAISS | ÷ torch | measure |"
        " making samples | shortlist ÷ otgen"
    )
    lines = []
    for row in rows:
        cells = [f"{row['m']} × {row['d']}", _number(row, "assign Gflop/s") + _spread(row, "assign")]
        cells.append(f"{100 * row['of peak']:.0f} %")
        cells += [_number(row, f"{name} Gflop/s") + _spread(row, name) for name in ("faiss", "torch", "keops")]
        cells += [_number(row, f"assign / {name}", ".1f") for name in ("faiss", "torch")]
        cells += [_number(row, "measure Gflop/s"), f"{100 * row['sampling share']:.1f} %"]
        lines.append([*cells, _number(row, "reassign / assign", ".1f")])
    return _table(caption, header, lines)


def held_table(rows: Rows, machine: str) -> str:
    """The kernels without their fastest instructions, and peers without theirs; "" if that was not measured."""
    rows = [row for row in rows if row["isa"] != rows[0]["isa"]]
    caption = f"`assign` and its peers, FAISS' BLAS and torch's too, held to older instruction sets, {machine}"
    header = "instructions | m × d | otgen | FAISS flat | torch addmm + argmax | ÷ FAISS | ÷ torch"
    lines = []
    for row in rows:
        cells = [row["isa"], f"{row['m']} × {row['d']}"]
        cells += [_number(row, f"{name} Gflop/s") + _spread(row, name) for name in ("assign", "faiss", "torch")]
        lines.append([*cells, *(_number(row, f"assign / {name}", ".1f") for name in ("faiss", "torch"))])
    return _table(caption, header, lines) if rows else ""


def _table(caption: str, header: str, rows: Iterable[Iterable[object]]) -> str:
    """A table below its caption; the header's columns stand between bars."""
    lines = [f"{caption}:\n", f"| {header} |", "|---" * len(header.split(" | ")) + "|"]
    lines += ["| " + " | ".join(map(str, cells)) + " |" for cells in rows]
    return "\n".join(lines) + "\n"


def _number(row: dict[str, Any], key: str, form: str = ".3g") -> str:
    text = format(row[key], form) if key in row else "–"
    return f"{float(text):g}" if "e+" in text else text


def _spread(row: dict[str, Any], name: str) -> str:
    return f" ± {100 * row[f'{name} spread']:.0f} %" if f"{name} spread" in row else ""


def _load(name: str) -> tuple[Rows, str]:
    record = json.loads((RESULTS / f"{name}.json").read_text())
    machine = record["machine"]
    where = f"{machine['threads']} threads of {machine['processor']}, {machine['isa']}"
    return record["rows"], where + (f"; {record['note']}" if "note" in record else "")


if __name__ == "__main__":
    main()
