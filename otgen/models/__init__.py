"""Models, by the names that recipes and the command line call them."""

from otgen.models.adversarial import Adversarial
from otgen.models.ae import AE
from otgen.models.autoencoder import Autoencoder
from otgen.models.base import Generative, Model, load
from otgen.models.began import BEGAN
from otgen.models.gan import GAN, LSGAN, PacGAN
from otgen.models.sngan import SNGAN
from otgen.models.wgan import WGAN, WGANGP, WGANDiv
from otgen.models.wgan_qc import WGANQC

MODELS: dict[str, type[Model]] = {
    "ae": AE,
    "gan": GAN,
    "lsgan": LSGAN,
    "pacgan": PacGAN,
    "wgan": WGAN,
    "wgan-gp": WGANGP,
    "wgan-div": WGANDiv,
    "wgan-qc": WGANQC,
    "sngan": SNGAN,
    "began": BEGAN,
}

__all__ = [
    "AE",
    "BEGAN",
    "GAN",
    "LSGAN",
    "MODELS",
    "SNGAN",
    "WGAN",
    "WGANGP",
    "WGANQC",
    "Adversarial",
    "Autoencoder",
    "Generative",
    "Model",
    "PacGAN",
    "WGANDiv",
    "load",
]
