"""Make the README's tables from results/*.json: python bench/readme.py."""

import json
import math
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


def main() -> None:
    """Replace what stands between the two marks."""
    path = ROOT / "README.md"
    before, rest = path.read_text().split(BEGIN)
    path.write_text(before + tables() + rest.split(END)[1])


def tables() -> str:
    """The marks and the tables between them."""
    others = [path.stem for path in sorted(RESULTS.glob("ops-*.json")) if path.stem != SHOWN]
    shown = (peers_table(), ops_table(SHOWN))
    folded = (
        solve_table(), tight_table(), scaling_table(), large_table(), generate_table(), geometry_table(),
        geometry_solve_table(), held_table(SHOWN),
        *(table(name) for name in others for table in (ops_table, held_table)),
    )  # fmt: skip
    return "\n".join([f"{BEGIN}\n", *filter(None, shown), FOLD, *filter(None, folded), "</details>\n", END])


def solve_table() -> str:
    """Every named problem."""
    rows, machine = _load("solve")
    lines = [
        f"Every named problem with the defaults (uniform source, `tol=0.01`), {machine};"
        " the bound is the samples that no method can do without (m/(2π tv²)), for the accuracy reached"
        " (`python bench/solve.py`):\n",
        "| problem | certified | seconds | samples | ÷ bound | chi² ± se | empty cells |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        certified = "yes" if row["certified"] else "no"
        if row["samples"] == 0:  # cells were computed
            found = ("none", "–", f"{row['chi2']:.0e}")
        else:
            found = (f"{row['samples'] / 1e6:.2f} M", f"{row['samples / bound']:.1f}",
                     f"{row['chi2']:.4f} ± {row['se']:.4f}")  # fmt: skip
        cells = (row["problem"], certified, f"{row['seconds']:.2g}", *found, row["empty"])
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def tight_table() -> str:
    """Named problems solved further."""
    if not (RESULTS / "solve-tight.json").exists():
        return ""
    rows, machine = _load("solve-tight")
    tvs = sorted({row["tv"] for row in rows}, reverse=True)
    heads = " | ".join(f"tv {tv:.0%}: seconds | samples | ÷ bound" for tv in tvs)
    lines = [
        "Those whose cells are sampled, certified to a smaller total variation (tol = 2π tv²), and all samples over the"
        f" bound for it, {machine} (`python bench/solve.py --tight`):\n",
        f"| problem | {heads} |",
        "|---" * (1 + 3 * len(tvs)) + "|",
    ]
    for problem in dict.fromkeys(row["problem"] for row in rows):
        cells = [problem]
        for tv in tvs:
            row = next((row for row in rows if (row["problem"], row["tv"]) == (problem, tv)), None)
            if row is None:
                cells += ["–"] * 3
                continue
            mark = "" if row["certified"] else " (not certified)"
            cells += [f"{row['seconds']:.3g}{mark}", f"{row['samples'] / 1e6:.1f} M", f"{row['samples / bound']:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def geometry_table() -> str:
    """Diagrams beside their peers."""
    rows, machine = _load("geometry")
    powers = {row["d"]: row["exponent"] for row in rows if "exponent" in row}
    names = ("otgen", "geogram", "scipy", "pyvoro2", "multivoro", "freud")
    lines = [
        f"Seconds for an exact power diagram of random sites, {machine}; ours from scratch with measures, moments and"
        f" facets, time growing like m^{powers[2]:.2f} in the plane and m^{powers[3]:.2f} in space; measures (scipy:"
        " neighbours) agree with every peer; memory is ours (`python bench/geometry.py diagrams`, which also draws"
        " [bench/results/geometry.png](bench/results/geometry.png)):\n",
        "| cells | otgen | Geogram | scipy, Voronoi only | pyvoro2 | multivoro | freud, torus | µs a cell | MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        seconds = [f"{row[name]:.3g}" if name in row else "–" for name in names]
        cells = (f"{row['m']:,} in {row['d']}-D", *seconds, f"{row['us per cell']:.1f}", f"{row['peak MB']:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def geometry_solve_table() -> str:
    """Exact transport in two and three dimensions."""
    rows, machine = _load("geometry-solve")
    lines = [
        f"Exact transport with the defaults (uniform source), {machine}; errors are the largest relative ones of a cell"
        " (`python bench/geometry.py solves`):\n",
        "| targets | steps | seconds | CPU seconds | error | MB | sdot: seconds | CPU seconds | error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        peer = [
            f"{row[name]:.2g}" if name in row else "–" for name in ("sdot seconds", "sdot CPU seconds", "sdot error")
        ]
        cells = (row["problem"], str(row["steps"]), f"{row['seconds']:.2g}", f"{row['CPU seconds']:.2g}",
                 f"{row['error']:.0e}", f"{row['peak MB']:.0f}", *peer)  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def peers_table() -> str:
    """Solvers beside otgen's."""
    if not (RESULTS / "peers.json").exists():
        return ""
    rows, machine = _load("peers")
    names = [name for name in ("ott", "pot", "algorithm1") if any(row["contender"] == name for row in rows)]
    labels = [next(row["label"] for row in rows if row["contender"] == name) for name in names]
    lines = [
        "Seconds until chi² is 0.01, uniform source, the same number of threads for all: otgen's whole `fit` with"
        f" defaults until that is certified, and its peers until they first show it to a judge they do not pay,"
        f" {machine}. Their settings (rate, schedule, batch size, averaging, scale of the targets) were searched for"
        " (`bench/search.py`); compiling is not counted. Of peers that need less than 20 s the median of three runs."
        " Where a peer was stopped first, the chi² that it had reached"
        " (`python -m bench peers`):\n",
        "| problem | otgen | " + " | ".join(f"{label} | ÷ otgen" for label in labels) + " |",
        "|---" * (2 + 2 * len(names)) + "|",
    ]
    foreign = [row for row in rows if row["contender"] != "otgen" and row["settings from"] != row["problem"]]
    for problem in dict.fromkeys(row["problem"] for row in rows):
        found = {row["contender"]: row for row in rows if row["problem"] == problem}
        ours = found["otgen"]
        cells = [problem, f"{ours['seconds']:.2g}" + ("" if ours["certified"] else " (not certified)")]
        for name in names:
            cells += _peer_cells(found.get(name))
        lines.append("| " + " | ".join(cells) + " |")
    if foreign:
        said = (
            f"{row['label']} on {row['problem']} those of {row['settings from'] or 'its defaults'}" for row in foreign
        )
        lines.append(f"\nSettings not searched for there: {', '.join(said)}.")
    lines.append("\n![chi² against time for every solver](bench/results/peers.png)")
    return "\n".join(lines) + "\n"


def _peer_cells(row: dict[str, Any] | None) -> list[str]:
    if row is None or "failed" in row:
        return ["–", "–"]
    if row["seconds"] is None:
        return [f"chi² {row['chi2']:.2g} after {row['points'][-1]['seconds']:.0f}", f"> {math.floor(row['ratio'])}"]
    return [f"{row['seconds']:.3g}", f"{row['ratio']:.1f}"]


def scaling_table() -> str:
    """Fitted powers."""
    if not (RESULTS / "scaling.json").exists():
        return ""
    rows, machine = _load("scaling")
    cases, powers = [row for row in rows if "of" not in row], [row for row in rows if "of" in row]
    spans = {key: (min(row[key] for row in cases), max(row[key] for row in cases)) for key in ("m", "d", "tol")}
    text = ", ".join(f"{key} from {low:g} to {high:g}" for key, (low, high) in spans.items())
    lines = [
        f"Cost of a certified solution, fitted as m^a d^b tv^c over {len(cases)} mixtures, {text}, {machine}"
        " (`python -m bench scaling`; [bench/results/scaling.png](bench/results/scaling.png)); ± is the fit's, and the"
        " curve bends: small ones are mostly overhead:\n",
        "| cost | a | b | c | theory |",
        "|---|---|---|---|---|",
    ]
    for row in powers:
        found = [f"{row[key]:.2f} ± {row[f'{key} se']:.2f}" for key in ("m", "d", "tv")]
        theory = ", ".join(str(row[f"{key} theory"]) for key in ("m", "d", "tv"))
        lines.append("| " + " | ".join([row["of"], *found, theory]) + " |")
    return "\n".join(lines) + "\n"


def generate_table() -> str:
    """Points of Algorithm 2."""
    if not (RESULTS / "generate.json").exists():
        return ""
    rows, machine = _load("generate")
    names = ["otgen", "FAISS", "k-d tree", "torch"]
    lines = [
        "New points by the lecture's Algorithm 2, microseconds for each sample of the source: the search of its d + 1"
        f" nearest centroids, and all of it, {machine} (`python -m bench generate`):\n",
        f"| m × d | nearest: {' | '.join(names)} | all: otgen | torch | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        found = [row["nearest us"], *(row.get(f"nearest, {name} us") for name in names[1:])]
        found += [row["extend us"], row["extend, torch us"], row["extend ratio"]]
        cells = " | ".join("–" if v is None else f"{v:.2g}" for v in found)
        lines.append(f"| {row['m']} × {row['d']} | {cells} |")
    return "\n".join(lines) + "\n"


def large_table() -> str:
    """Problems that take minutes."""
    if not (RESULTS / "scaling-large.json").exists():
        return ""
    rows, machine = _load("scaling-large")
    lines = [
        f"Large mixtures, each in a process of its own, whose memory is given with Python's and torch's, {machine}"
        " (`python -m bench scaling --large`, which stops the second at 20 samples a target):\n",
        "| m × d | seconds | samples | chi² | certified | peak MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{row['m']} × {row['d']}"]
        if "failed" in row:
            cells += [row["failed"], "–", "–", "–", "–"]
        else:
            certified = "yes" if row["certified"] else "no"
            cells += [f"{row['seconds']:.0f}", f"{row['samples'] / 1e6:.1f} M", f"{row['chi2']:.2g}", certified,
                      f"{row['peak MB']:.0f}"]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _processes(rows: list[dict[str, Any]]) -> str:
    slowest = "faiss slowest process Gflop/s"
    if slowest not in rows[0]:
        return "had one process, and its speed changes from one to the next"
    most = max(row["faiss Gflop/s"] / row[slowest] for row in rows)
    return f"is up to {most:.1f} times as fast in one process as in another: its best of six or more counts"


def ops_table(name: str) -> str:
    """The kernels beside their peers, on one machine."""
    rows, machine = _load(name)
    rows = [row for row in rows if row.get("isa") == rows[0].get("isa")]
    lines = [
        f"`assign`, effective Gflop/s (2nmd over time), {machine}, exact winners on all sides up to float32 ties; the"
        " peak is that of products in registers of the kind that the filter makes, ± half of the middle half of five"
        " runs (`python -m bench ops`, which"
        f" `python -m bench plots` draws in [bench/results/{name}.png](bench/results/{name}.png)). The last column is"
        " `otgen.ops.Shortlist` after heights moved by 3 % of the mean gap between best and second best. FAISS"
        f" {_processes(rows)} ([more](bench/results/README.md)):\n",
        "| m × d | otgen | of peak | FAISS flat | torch addmm + argmax | PyKeOps | ÷ FAISS | ÷ torch | measure |"
        " making samples | shortlist ÷ otgen |",
        "|---" * 11 + "|",
    ]
    for row in rows:
        cells = [f"{row['m']} × {row['d']}", _number(row, "assign Gflop/s") + _spread(row, "assign")]
        cells.append(f"{100 * row['of peak']:.0f} %" if "of peak" in row else "–")
        cells += [_number(row, f"{name} Gflop/s") + _spread(row, name) for name in ("faiss", "torch", "keops")]
        cells += [_ratio(row, f"assign / {name}") for name in ("faiss", "torch")]
        cells += [_number(row, "measure Gflop/s"), f"{100 * row['sampling share']:.1f} %"]
        cells.append(_ratio(row, "reassign / assign"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def held_table(name: str) -> str:
    """The kernels without their fastest instructions, and peers without theirs."""
    rows, machine = _load(name)
    rows = [row for row in rows if row.get("isa") != rows[0].get("isa")]
    if not rows:
        return ""
    lines = [
        f"`assign` and its peers, FAISS' BLAS and torch's too, held to older instruction sets, {machine}:\n",
        "| instructions | m × d | otgen | FAISS flat | torch addmm + argmax | ÷ FAISS | ÷ torch |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        cells = [row["isa"], f"{row['m']} × {row['d']}"]
        cells += [_number(row, f"{name} Gflop/s") + _spread(row, name) for name in ("assign", "faiss", "torch")]
        cells += [_ratio(row, f"assign / {name}") for name in ("faiss", "torch")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _number(row: dict[str, Any], key: str) -> str:
    return f"{float(f'{row[key]:.3g}'):g}" if key in row else "–"


def _spread(row: dict[str, Any], name: str) -> str:
    return f" ± {100 * row[f'{name} spread']:.0f} %" if f"{name} spread" in row else ""


def _ratio(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:.1f}" if key in row else "–"


def _load(name: str) -> tuple[list[dict[str, Any]], str]:
    record = json.loads((RESULTS / f"{name}.json").read_text())
    machine = record["machine"]
    where = f"{machine['threads']} threads of {machine['processor']}, {machine['isa']}"
    return record["rows"], where + (f"; {record['note']}" if "note" in record else "")


if __name__ == "__main__":
    main()
