"""Experiments, by the names that recipes call them."""

from otgen.experiments.blur import EXPERIMENT as blur
from otgen.experiments.experiment import Experiment
from otgen.experiments.interpolation import EXPERIMENT as interpolation
from otgen.experiments.learning_process import EXPERIMENT as learning_process
from otgen.experiments.match_or_not import EXPERIMENT as match_or_not
from otgen.experiments.meaningful_loss import EXPERIMENT as meaningful_loss
from otgen.experiments.minimax import EXPERIMENT as minimax
from otgen.experiments.mode_collapse import EXPERIMENT as mode_collapse
from otgen.experiments.parallel_lines import EXPERIMENT as parallel_lines
from otgen.experiments.perfect_discriminator import EXPERIMENT as perfect_discriminator
from otgen.experiments.robustness import EXPERIMENT as robustness
from otgen.experiments.singular_set import EXPERIMENT as singular_set
from otgen.experiments.tables import EXPERIMENT as tables
from otgen.experiments.useful_w import EXPERIMENT as useful_w
from otgen.experiments.vae_regulariser import EXPERIMENT as vae_regulariser

EXPERIMENTS: dict[str, Experiment] = {
    "parallel_lines": parallel_lines,
    "perfect_discriminator": perfect_discriminator,
    "minimax": minimax,
    "mode_collapse": mode_collapse,
    "vae_regulariser": vae_regulariser,
    "blur": blur,
    "meaningful_loss": meaningful_loss,
    "robustness": robustness,
    "singular_set": singular_set,
    "tables": tables,
    "useful_w": useful_w,
    "interpolation": interpolation,
    "match_or_not": match_or_not,
    "learning_process": learning_process,
}
