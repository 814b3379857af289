"""Two moons made from a Gaussian: the cells of the optimal map, the line where it jumps, and new points.

Every cell holds the same share of the Gaussian and goes to one target, so the map itself returns nothing but targets.
Blending those of neighbouring cells makes new points, also between the moons, unless it stops where the map jumps.
An et al. 2020, "AE-OT: A New Generative Model Based on Extended Semi-Discrete Optimal Transport".
"""

import argparse
import math

import matplotlib.pyplot as plt
import numpy as np
import torch

import otgen
from otgen import data, plots

ANGLE = 0.35  # radians: planes of neighbouring cells that meet at more make a jump


def main(file: str) -> list[float]:
    """Draw; return the share of points far from every target, for the map and for both ways to blend."""
    moons = data.two_moons(300)  # in turn one of the upper and one of the lower moon
    ot = otgen.SemiDiscreteOT(source="normal").fit(moons)
    assert ot.converged_

    noise = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    made = {
        "transport: the targets again": ot.transport(noise),
        "blended across everything": ot.sample(1000, angle_threshold=math.pi),
        "not blended across jumps": ot.sample(1000, angle_threshold=ANGLE),
    }
    figure, axes = plt.subplot_mosaic("ab;ac;ad", figsize=(12, 7.6), width_ratios=(2, 1.1), layout="constrained")
    plots.power_diagram(ot, torch.arange(300) % 2, angle_threshold=ANGLE, axes=axes["a"])
    axes["a"].set_title("cells of equal Gaussian mass, arrows to their targets; black: where the map jumps")
    colours, far = np.array([*plots.PALETTE[:2], "black"]), []
    for panel, (title, points) in zip("bcd", made.items(), strict=True):
        distance, nearest = torch.cdist(points, moons.double()).min(dim=1)
        nearest = torch.where(distance > 0.15, 2, nearest % 2)
        far.append((nearest == 2).double().mean().item())
        axes[panel].scatter(*points.T, s=5, c=colours[nearest])
        axes[panel].set(title=f"{title} ({far[-1]:.1%} astray)", aspect="equal", xticks=[], yticks=[])
        axes[panel].set(xlim=(-1.9, 1.9), ylim=(-1.15, 1.15))
    figure.savefig(file, dpi=100)
    return far


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", default="moons.png", help="where to write the picture")
    main(parser.parse_args().o)
