"""Draw results/peers, ops-*, scaling and geometry.json: python bench/plots.py makes a PNG beside each.

python bench/plots.py --quick    into a folder of its own, to see that it works
"""

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from harness import RESULTS
from matplotlib.axes import Axes

Row = dict[str, Any]

GOAL = 0.01
DIAGRAMS = {
    "otgen": "otgen",
    "geogram": "Geogram",
    "scipy": "scipy (Qhull), Voronoi only",
    "pyvoro2": "pyvoro2 (Voro++)",
    "multivoro": "multivoro (Voro++)",
    "freud": "freud (Voro++), Voronoi on a torus",
}
"""Who makes diagrams, by the names in the JSON."""

COLORS = {"otgen": "C0", "ott": "C1", "pot": "C2", "algorithm1": "C3"}
SCORE_BYTES = 8  # a float32 score that is written and read again, which is what plain matrix products do


def main() -> None:
    """Draw every figure whose numbers are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp()) if arguments.quick else RESULTS
    for pattern, draw in (("peers", races), ("ops-*", roofline), ("scaling", growth), ("geometry", diagrams)):
        for path in sorted(RESULTS.glob(f"{pattern}.json")):
            draw(json.loads(path.read_text())["rows"], folder / f"{path.stem}.png")
            print(f"wrote {folder / path.stem}.png")


def races(rows: list[Row], path: Path) -> None:
    """Error against time, a panel for each problem, all contenders on one axis."""
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    columns = 2 if len(problems) > 1 else 1
    figure, panels = plt.subplots(
        math.ceil(len(problems) / columns), columns, figsize=(5 * columns, 3.4 * math.ceil(len(problems) / columns)),
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for panel, problem in zip(panels.flat, problems, strict=False):
        for row in rows:
            if row["problem"] == problem and "points" in row:
                race_line(panel, row)
        panel.axhline(GOAL, color="0.4", lw=0.8, ls=":")
        panel.set(title=problem, xlabel="seconds", ylabel="chi²", xscale="log", yscale="log", ylim=(1e-3, 200))
        panel.grid(which="major", alpha=0.25)
    for panel in panels.flat[len(problems) :]:
        panel.set_visible(False)
    of = [zip(*panel.get_legend_handles_labels(), strict=True) for panel in panels.flat]
    lines = {name: line for pairs in of for line, name in pairs}  # one of each name
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=len(lines), frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def race_line(panel: Axes, row: Row) -> None:
    """A contender's curve; for otgen also the time of a whole certified fit."""
    seen = [(p["seconds"], p["chi2"]) for p in row["points"] if p["seconds"] > 1e-3 and 0 < p["chi2"] < math.inf]
    ours = row["contender"] == "otgen"
    color = COLORS[row["contender"]]
    panel.plot(*zip(*seen, strict=True), color=color, lw=2.2 if ours else 1.3, marker=".", ms=4, label=row["label"])
    if ours:
        panel.plot(
            [row["seconds"]], [max(seen[-1][1], 1e-3)], color=color, marker="*", ms=13, ls="none", label="certified fit"
        )


def roofline(rows: list[Row], path: Path) -> None:
    """Effective Gflop/s against d beside the peak and what memory would allow if every score went through it."""
    fastest = rows[0]["isa"]
    rows = sorted((row for row in rows if row["isa"] == fastest), key=lambda row: row["d"])
    figure, panel = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    for color, (name, label) in enumerate(
        {"assign": "otgen assign", "measure": "otgen measure", "faiss": "FAISS flat", "torch": "torch addmm + argmax",
         "keops": "PyKeOps"}.items()
    ):  # fmt: skip
        seen = [(row["d"], row[f"{name} Gflop/s"]) for row in rows if f"{name} Gflop/s" in row]
        if seen:
            panel.plot(*zip(*seen, strict=True), color=f"C{color}", marker="o", ms=5, ls="none", label=label)
    for d in {row["d"] for row in rows}:
        same = [row for row in rows if row["d"] == d]
        sizes = "\n".join(f"{row['m'] // 1000}k" for row in sorted(same, key=lambda row: row["m"]))
        below = min(row["assign Gflop/s"] for row in same)
        panel.annotate(sizes, (d, below), xytext=(0, -6), textcoords="offset points", ha="center", va="top", fontsize=7)
    ends = [rows[0]["d"], rows[-1]["d"]]
    peak, copy = (statistics.median_high(row[key] for row in rows) for key in ("peak Gflop/s", "copy GB/s"))
    panel.plot(ends, [peak, peak], color="0.2", lw=1.2, label=f"peak of the {fastest} unit")
    speed = [2 * d * copy / SCORE_BYTES for d in ends]
    panel.plot(ends, speed, color="0.5", lw=1, ls="--", label="scores through memory")
    panel.set(xscale="log", yscale="log", xlabel="d", ylabel="Gflop/s (2nmd over time)")
    panel.set(xlim=(ends[0] / 1.3, ends[1] * 1.6), title=f"best of m targets ({fastest}); numbers are m")
    panel.grid(which="major", alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def growth(rows: list[Row], path: Path) -> None:
    """Seconds and samples against m, d and the total variation, with the fitted powers."""
    fits = {row["of"]: row for row in rows if "of" in row}
    cases = [row for row in rows if "of" not in row]
    common = max(cases, key=lambda row: sum(near(row, other) for other in cases))
    figure, panels = plt.subplots(2, 3, figsize=(10, 5.6), layout="constrained", sharey="row")
    for line, (of, unit) in zip(panels, {"seconds": "seconds", "samples": "samples"}.items(), strict=True):
        for panel, key in zip(line, ("m", "d", "tv"), strict=True):
            others = [name for name in ("m", "d", "tv") if name != key]
            seen = sorted((row[key], row[of]) for row in cases if all(row[name] == common[name] for name in others))
            panel.loglog(*zip(*seen, strict=True), color="C0", marker="o", lw=1.5)
            values = [value for value, _ in seen]
            panel.set_xticks(values, [f"{value:.2g}" if value < 1 else f"{value:g}" for value in values])
            panel.set_xticks([], minor=True)
            fit = fits[of]
            panel.set(title=f"{of} ~ {key}^{fit[key]:.2f} (theory {fit[f'{key} theory']})", xlabel=key)
            panel.grid(which="major", alpha=0.25)
        line[0].set_ylabel(unit)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def diagrams(rows: list[Row], path: Path) -> None:
    """Time of a diagram against the number of its cells, for otgen and its peers: one panel a dimension."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for panel, d in zip(panels, (2, 3), strict=True):
        for color, (name, label) in enumerate(DIAGRAMS.items()):
            points = [(row["m"], row[name]) for row in rows if row["d"] == d and name in row]
            if points:
                style = {"lw": 2.5, "marker": "o", "zorder": 3} if name == "otgen" else {"lw": 1.2, "marker": "."}
                panel.loglog(*zip(*points, strict=True), color=f"C{color}", label=label, **style)
        power = next(row["exponent"] for row in rows if row["d"] == d and "exponent" in row)
        panel.set(title=f"{d}-D, otgen's time grows like m^{power:.2f}", xlabel="cells")
        panel.grid(which="major", alpha=0.3)
        panel.legend(frameon=False, fontsize=8)
    panels[0].set_ylabel("seconds a diagram")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def near(a: Row, b: Row) -> bool:
    """Whether two cases differ in one thing at most."""
    return sum(a[key] != b[key] for key in ("m", "d", "tv")) <= 1


if __name__ == "__main__":
    main()
