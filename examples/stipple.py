"""A photo in 8000 dots: each stands for the same amount of light and sits at the centre of its light.

The source is the photo's light, the square of its pixels, as a density. The dots go to the centroids of their cells,
the cells take equal shares again, and so on. De Goes, Breeden, Ostromoukhov and Desbrun 2012, "Blue Noise through
Optimal Transport".
"""

import argparse

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_image

import otgen


def main(file: str) -> list[float]:
    """Draw; return how far the light is from its dot before each round, in pixels."""
    photo = torch.tensor(load_sample_image("flower.jpg"))[:, 110:530] / 255
    h, w, _ = photo.shape
    light = photo.mean(dim=2).square().flatten()

    def source(n: int, generator: torch.Generator) -> torch.Tensor:
        pixel = torch.multinomial(light, n, replacement=True, generator=generator)
        return torch.stack([pixel % w, pixel // w], dim=1) + torch.rand(n, 2, generator=generator)

    dots = source(8000, torch.Generator().manual_seed(0))
    ot = otgen.SemiDiscreteOT(source, tol=0.02, progress=False)
    rounds = []
    for _ in range(11):
        ot.fit(dots)
        assert ot.converged_
        rounds.append((dots, ot.certificate_.primal**0.5))
        dots = ot.centroids_

    figure, axes = plt.subplots(1, 2, figsize=(12, 6.4), layout="constrained")
    for ax, title, (dots, distance) in zip(axes, ("drawn at random", "after ten rounds"), rounds[::10], strict=True):
        x, y = dots.T
        ax.scatter(x, y, s=5, c=photo[y.long(), x.long()].sqrt(), linewidths=0)
        ax.set(xlim=(0, w), ylim=(h, 0), aspect="equal", xticks=[], yticks=[], facecolor="black")
        ax.set_title(f"{title}: light is {distance:.1f} pixels from its dot")
    figure.savefig(file, dpi=100)
    return [distance for _, distance in rounds]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", default="stipple.png", help="where to write the picture")
    main(parser.parse_args().o)
