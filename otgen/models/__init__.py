"""Models, by the names that recipes and the command line call them."""

from otgen.models.ae import AE
from otgen.models.autoencoder import Autoencoder
from otgen.models.base import Generative, Model, load

MODELS: dict[str, type[Model]] = {
    "ae": AE,
}

__all__ = ["AE", "MODELS", "Autoencoder", "Generative", "Model", "load"]
