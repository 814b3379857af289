"""The accuracy that was asked for, beside what plain torch then sees on samples of its own, and what it cost.

A cell of measure w_j should have 1/m. `converged_` promises chi2 = sum_j (w_j - 1/m)^2 m <= tol with 95 % confidence,
so fresh counts have to lie below the line, and for a solver that wastes nothing not far below it.
"""

import argparse

import matplotlib.pyplot as plt
import torch

import otgen
from otgen import data

M, D, TOLS, SEEDS = 300, 8, (0.1, 0.03, 0.01, 0.003, 0.001), 6


def count(ot: otgen.SemiDiscreteOT, n: int = 300_000) -> float:
    """Estimate chi2 without bias on n samples, without otgen's kernels."""
    x = torch.rand(n, D, generator=torch.Generator().manual_seed(12345))
    y, h = ot.targets_.float(), ot.heights_.float()
    cells = torch.cat([(part @ y.T + h).argmax(dim=1) for part in x.split(10_000)])
    c = cells.bincount(minlength=M).double()
    return (c * (c - 1)).sum().item() * M / (n * (n - 1)) - 1


def main(file: str) -> list[float]:
    """Draw; return chi2 as counted over chi2 as asked for, of every map."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5.2), layout="constrained")
    ratios = []
    for seed in range(SEEDS):
        targets = data.mixture(M, D, seed)
        maps = [otgen.SemiDiscreteOT(tol=tol, seed=seed).fit(targets) for tol in TOLS]
        assert all(ot.converged_ for ot in maps)
        chi2 = [count(ot) for ot in maps]
        ratios += [seen / tol for seen, tol in zip(chi2, TOLS, strict=True)]
        left.loglog(TOLS, chi2, "o", color="#0072b2", alpha=0.7)
        right.loglog(TOLS, [ot.samples_ for ot in maps], "o", color="#d55e00", alpha=0.7)
    left.plot(TOLS, TOLS, color="black")
    left.fill_between(TOLS, TOLS, 1e-4, color="#0072b2", alpha=0.1, linewidth=0)
    left.text(0.012, 2e-4, "what was promised", color="#0072b2")
    left.set(title=f"{len(ratios)} maps to {M} targets in {D} dimensions", ylabel="chi² counted", ylim=(1e-4, 0.2))
    right.plot(TOLS, [M / tol for tol in TOLS], color="black")
    right.text(0.0011, 7e3, "m / tol: the noise of\nso many samples is tol")
    right.set(title="what they cost", ylabel="samples of the source")
    for ax in (left, right):
        ax.set_xlabel("chi² asked for (tol)")
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=100)
    return ratios


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", default="accuracy.png", help="where to write the picture")
    main(parser.parse_args().o)
