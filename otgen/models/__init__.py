"""Models, by the names that recipes and the command line call them.

A new one is one file (otgen/models/base.py says what to write) and two lines here: its import and its name in `MODELS`.
"""

from otgen.models.adversarial import Adversarial
from otgen.models.ae import AE
from otgen.models.ae_ot import AEOT
from otgen.models.ae_ot_gan import AEOTGAN
from otgen.models.autoencoder import Autoencoder
from otgen.models.base import Model
from otgen.models.began import BEGAN
from otgen.models.gan import GAN, LSGAN, PacGAN
from otgen.models.generative import Generative
from otgen.models.glann import GLANN
from otgen.models.loading import load
from otgen.models.ot_prior import OTPrior
from otgen.models.sngan import SNGAN
from otgen.models.vae import VAE
from otgen.models.wae import WAEGAN, WAEMMD
from otgen.models.wgan import WGAN, WGANGP, WGANDiv
from otgen.models.wgan_qc import WGANQC

MODELS: dict[str, type[Model]] = {
    "ae": AE,
    "vae": VAE,
    "wae-gan": WAEGAN,
    "wae-mmd": WAEMMD,
    "gan": GAN,
    "lsgan": LSGAN,
    "pacgan": PacGAN,
    "wgan": WGAN,
    "wgan-gp": WGANGP,
    "wgan-div": WGANDiv,
    "wgan-qc": WGANQC,
    "sngan": SNGAN,
    "began": BEGAN,
    "glann": GLANN,
    "ae-ot": AEOT,
    "ae-ot-gan": AEOTGAN,
}

__all__ = [
    "AE",
    "AEOT",
    "AEOTGAN",
    "BEGAN",
    "GAN",
    "GLANN",
    "LSGAN",
    "MODELS",
    "OTPrior",
    "SNGAN",
    "VAE",
    "WAEGAN",
    "WAEMMD",
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
