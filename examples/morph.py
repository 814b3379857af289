"""A square becomes two letters: McCann's interpolation along the optimal map.

Each dot starts at the centroid of its cell of the square and goes straight to its target, so that all arrive together.
No two of them ever meet; the square tears where the map jumps, between the letters and at the hole of the O.
McCann 1997, "A Convexity Principle for Interacting Gases".
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

import otgen


def letters(text: str, m: int) -> torch.Tensor:
    """Points (m, 2) of the letters, about as large as the unit square and with its centre."""
    outlines = TextPath((0, 0), text, size=100, prop={"weight": "bold"}).to_polygons()
    points = np.random.default_rng(0).uniform((0, -10), (160, 80), size=(4 * m, 2))
    inside = sum(Path(outline).contains_points(points) for outline in outlines) % 2 == 1  # a hole has two outlines
    y = torch.from_numpy(points[inside][:m]) / 80
    return y - y.mean(dim=0) + 0.5


def main(file: str) -> float:
    """Draw; return the least <x_i - x_j, y_i - y_j> of dots i and j = i - 1: never below 0 for an optimal map."""
    ot = otgen.SemiDiscreteOT(source="uniform").fit(letters("OT", 20000))
    assert ot.converged_
    x, y = ot.centroids_, ot.targets_

    board = (8 * x).long().sum(dim=1) % 2
    colours = torch.stack([x[:, 0], 0.25 + 0.5 * board, x[:, 1]], dim=1)
    figure, axes = plt.subplots(2, 3, figsize=(12, 5), sharex=True, sharey=True, layout="constrained")
    for ax, t in zip(axes.flat, torch.linspace(0, 1, 6), strict=True):
        ax.scatter(*((1 - t) * x + t * y).T, s=3, c=colours, linewidths=0)
        ax.set(title=f"t = {t:.1f}", aspect="equal")
        ax.axis("off")
    figure.savefig(file, dpi=100)
    return ((x[1:] - x[:-1]) * (y[1:] - y[:-1])).sum(dim=1).min().item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", default="morph.png", help="where to write the picture")
    main(parser.parse_args().o)
