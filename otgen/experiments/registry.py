"""Experiments, by the names that recipes call them."""

from otgen.experiments import minimax, parallel_lines, perfect_discriminator, singular_set
from otgen.experiments.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    "parallel_lines": parallel_lines.EXPERIMENT,
    "perfect_discriminator": perfect_discriminator.EXPERIMENT,
    "minimax": minimax.EXPERIMENT,
    "singular_set": singular_set.EXPERIMENT,
}
