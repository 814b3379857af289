"""Make the README's tables from results/*.json: python bench/readme.py."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- tables: made by bench/readme.py -->", "<!-- end of tables -->"


def main() -> None:
    """Replace what stands between the two marks."""
    path = ROOT / "README.md"
    before, rest = path.read_text().split(BEGIN)
    path.write_text(before + tables() + rest.split(END)[1])


def tables() -> str:
    """The marks and the tables between them."""
    return f"{BEGIN}\n\n{solve_table()}\n{geometry_table()}\n{geometry_solve_table()}\n{ops_table()}\n{END}"


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


def ops_table() -> str:
    """The kernels beside their peers."""
    rows, machine = _load("ops")
    lines = [
        f"`assign`, effective Gflop/s (2nmd over time), {machine}, exact winners on all sides up to float32 ties"
        " (`python bench/ops.py`):\n",
        "| m × d | otgen | FAISS flat | torch addmm + argmax | ÷ FAISS | ÷ torch | measure | making samples |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        speeds = [row[f"{name} Gflop/s"] for name in ("assign", "faiss", "torch")]
        ratios = [row["assign / faiss"], row["assign / torch"]]
        cells = [
            f"{row['m']} × {row['d']}",
            *(f"{speed:.3g}" for speed in speeds),
            *(f"{ratio:.1f}" for ratio in ratios),
        ]
        cells += [f"{row['measure Gflop/s']:.3g}", f"{100 * row['sampling share']:.1f} %"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _load(name: str) -> tuple[list[dict[str, Any]], str]:
    record = json.loads((RESULTS / f"{name}.json").read_text())
    machine = record["machine"]
    where = f"{machine['threads']} threads of {machine['processor']}, {machine['isa']}"
    return record["rows"], where + (f"; {record['note']}" if "note" in record else "")


if __name__ == "__main__":
    main()
