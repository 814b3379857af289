"""Models, by the names that recipes call them."""

from otgen.models.ae import AE
from otgen.models.base import Generative, Model

MODELS: dict[str, type[Model]] = {
    "ae": AE,
}

__all__ = ["AE", "MODELS", "Generative", "Model"]
