"""Metrics: samples or features in, numbers with their spread out."""

from otgen.metrics.extractors import PCA, Extractor, Network, Pixels
from otgen.metrics.fid import fid, frechet
from otgen.metrics.kid import kid
from otgen.metrics.lenet import LeNet, train_lenet
from otgen.metrics.memorisation import Memorisation, memorisation
from otgen.metrics.modes import Modes, grid, modes, reverse_kl, ring, stacked_modes
from otgen.metrics.posterior import Posterior, aggregate_posterior
from otgen.metrics.prdc import PRDC, prdc
from otgen.metrics.report import Report, compare
from otgen.metrics.score import Score, jackknife
from otgen.metrics.sharpness import sharpness
from otgen.metrics.wasserstein import (
    SemiDiscrete,
    exact_wasserstein,
    semi_discrete_wasserstein,
    sliced_wasserstein,
    wasserstein_1d,
)

__all__ = [
    "PCA",
    "PRDC",
    "Extractor",
    "LeNet",
    "Memorisation",
    "Modes",
    "Network",
    "Pixels",
    "Posterior",
    "Report",
    "Score",
    "SemiDiscrete",
    "aggregate_posterior",
    "compare",
    "exact_wasserstein",
    "fid",
    "frechet",
    "grid",
    "jackknife",
    "kid",
    "memorisation",
    "modes",
    "prdc",
    "reverse_kl",
    "ring",
    "semi_discrete_wasserstein",
    "sharpness",
    "sliced_wasserstein",
    "stacked_modes",
    "train_lenet",
    "wasserstein_1d",
]
