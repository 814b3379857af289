"""Experiments, by the names that recipes call them."""

from otgen.experiments import (
    blur,
    interpolation,
    learning_process,
    match_or_not,
    meaningful_loss,
    minimax,
    mode_collapse,
    parallel_lines,
    perfect_discriminator,
    robustness,
    singular_set,
    tables,
    useful_w,
    vae_regulariser,
)
from otgen.experiments.experiment import Experiment

EXPERIMENTS = {
    "parallel_lines": Experiment(parallel_lines.parts, parallel_lines.conclude),
    "perfect_discriminator": Experiment(perfect_discriminator.parts, perfect_discriminator.conclude),
    "minimax": Experiment(minimax.parts, minimax.conclude),
    "mode_collapse": Experiment(mode_collapse.parts, mode_collapse.conclude),
    "vae_regulariser": Experiment(vae_regulariser.parts, vae_regulariser.conclude),
    "blur": Experiment(blur.parts, blur.conclude),
    "meaningful_loss": Experiment(meaningful_loss.parts, meaningful_loss.conclude),
    "robustness": Experiment(robustness.parts, robustness.conclude),
    "singular_set": Experiment(singular_set.parts, singular_set.conclude),
    "tables": Experiment(tables.parts, tables.conclude),
    "useful_w": Experiment(useful_w.parts, useful_w.conclude),
    "interpolation": Experiment(interpolation.parts, interpolation.conclude),
    "match_or_not": Experiment(match_or_not.parts, match_or_not.conclude),
    "learning_process": Experiment(learning_process.parts, learning_process.conclude),
}
