"""New digits from an autoencoder: Gaussian codes meet gaps between the digits, transported codes do not.

The optimal map from the unit cube to the codes of the real digits is blended across its cells, but not where it jumps
from one kind of digit to another, so its codes lie where there is data, whatever the shape of that.
An et al. 2020, "AE-OT: A New Generative Model Based on Extended Semi-Discrete Optimal Transport".
"""

import argparse

import matplotlib.pyplot as plt
import torch

from otgen import data, metrics, plots
from otgen.models import AE, OTPrior


def main(file: str) -> list[float]:
    """Draw; return the FIDs (of a small classifier's features) of Gaussian and of transported codes' digits."""
    pixels, labels = data.digits()
    real = pixels.view(-1, 1, 8, 8)
    ae = AE(shape=(1, 8, 8), d=8, width=16).fit(real, epochs=20, progress=False)
    codes = ae.encode(real)

    torch.manual_seed(0)
    gaussian = torch.distributions.MultivariateNormal(codes.mean(dim=0), codes.T.cov()).sample((len(codes),))
    prior = OTPrior().fit(codes, progress=False)
    assert prior.ot_.converged_
    images = [real, ae.decode(gaussian), ae.decode(prior.sample(len(codes), generator=0))]

    features = metrics.train_lenet(real, labels, epochs=5)
    fids = [metrics.fid(features(made), features(real)).value for made in images[1:]]
    titles = (
        "real digits",
        f"Gaussian codes, decoded: FID {fids[0]:.1f}",
        f"transported codes, decoded: FID {fids[1]:.1f}",
    )
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), gridspec_kw={"wspace": 0.06}, layout="constrained")
    for ax, made, title in zip(axes, images, titles, strict=True):
        ax.imshow(plots.sheet(made[:100]), cmap="gray_r", vmin=0, vmax=1)
        ax.set_title(title)
        ax.axis("off")
    figure.savefig(file, dpi=100)
    return fids


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", default="digits.png", help="where to write the picture")
    main(parser.parse_args().o)
