"""Time of a diagram against the number of its cells, for otgen and its peers: one panel a dimension."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

NAMES = {
    "otgen": "otgen",
    "geogram": "Geogram",
    "scipy": "scipy (Qhull), Voronoi only",
    "pyvoro2": "pyvoro2 (Voro++)",
    "multivoro": "multivoro (Voro++)",
    "freud": "freud (Voro++), Voronoi on a torus",
}


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the rows that bench/geometry.py makes of diagrams.

    Args:
        rows: Each with d, m and seconds of contenders under their names.
        path: The PNG.
    """
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for panel, d in zip(panels, (2, 3), strict=True):
        for color, (name, label) in enumerate(NAMES.items()):
            points = [(row["m"], row[name]) for row in rows if row["d"] == d and name in row]
            if points:
                style = {"lw": 2.5, "marker": "o", "zorder": 3} if name == "otgen" else {"lw": 1.2, "marker": "."}
                panel.loglog(*zip(*points, strict=True), color=f"C{color}", label=label, **style)
        power = next((row["exponent"] for row in rows if row["d"] == d and "exponent" in row), None)
        fitted = "" if power is None else f", otgen's time grows like m^{power:.2f}"
        panel.set(title=f"{d}-D{fitted}", xlabel="cells")
        panel.grid(which="major", alpha=0.3)
        panel.legend(frameon=False, fontsize=8)
    panels[0].set_ylabel("seconds a diagram")
    figure.savefig(path, dpi=120)
    plt.close(figure)
