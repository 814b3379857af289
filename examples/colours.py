"""Two photos exchange their colours: the optimal map takes the pixels of one to the palette of the other.

The source is a photo's own cloud of colours and the targets are 1000 colours of the other photo, each for the same
share of the pixels. As the gradient of a convex function the map never turns a difference of two colours around;
where it jumps, as in the sky, it cuts the photo.
Pitié, Kokaram and Dahyot 2007, "Automated Colour Grading Using Colour Distribution Transfer".
"""

import argparse

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

import otgen
from otgen.metrics import sliced_wasserstein


def recolour(pixels: Tensor, palette: Tensor) -> Tensor:
    """Give pixels (n, 3) the colours (m, 3)."""

    def source(n: int, generator: torch.Generator) -> Tensor:
        pick = torch.randint(len(pixels), (n,), generator=generator)
        return pixels[pick] + 0.01 * torch.randn(n, 3, generator=generator)  # a density, so with a little noise

    ot = otgen.SemiDiscreteOT(source, progress=False).fit(palette)
    assert ot.converged_
    return ot.transport(pixels).float()


def main(file: str) -> list[float]:
    """Draw; return how far the colours of the photos are apart, then those of each new photo from its palette."""
    pixels = [torch.tensor(load_sample_image(name)).view(-1, 3) / 255 for name in ("china.jpg", "flower.jpg")]
    draw = torch.Generator().manual_seed(0)
    palettes = [photo[torch.randint(len(photo), (1000,), generator=draw)] for photo in pixels[::-1]]
    new = [recolour(photo, palette) for photo, palette in zip(pixels, palettes, strict=True)]
    pairs = [(pixels[0], palettes[0]), *zip(new, palettes, strict=True)]
    apart = [sliced_wasserstein(a[::100], b, directions=64).value for a, b in pairs]

    titles = (
        "a photo",
        f"another, its colours {apart[0]:.2f} away (sliced W₂)",
        f"the first in colours of the other ({apart[1]:.2f} away)",
        f"the other in colours of the first ({apart[2]:.2f} away)",
    )
    figure, axes = plt.subplots(2, 2, figsize=(12, 8.6), layout="constrained")
    for ax, image, title in zip(axes.flat, [*pixels, *new], titles, strict=True):
        ax.imshow(image.view(427, 640, 3).numpy())
        ax.set_title(title)
        ax.axis("off")
    figure.savefig(file, dpi=100)
    return apart


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", default="colours.png", help="where to write the picture")
    main(parser.parse_args().o)
