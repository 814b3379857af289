"""The problems of the race: named ones, and the codes of an autoencoder, which is what the library is made for."""

import tempfile
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from otgen import data, files
from otgen.models import AE

RACE = ("mixture-2000x16", "latents-1797x16", "mnist-pca-5000x50", "mixture-10000x64")

LATENTS = "latents-1797x16"
"""Codes of the digits of scikit-learn, under an autoencoder trained for `EPOCHS` from seed 0."""

EPOCHS, WIDTH = 12, 16


def given(name: str) -> tuple[Tensor, Tensor]:
    """Targets (m, d), float32, and weights (m,), float64, of a named problem or of `LATENTS`."""
    if name != LATENTS:
        return data.problem(name, 0)
    y = latents()
    return y, torch.full((len(y),), 1 / len(y), dtype=torch.float64)


@lru_cache(maxsize=1)
def latents() -> Tensor:
    """Codes, (1797, 16), float32; trained once and kept with the temporary files, for every process of a race."""
    path = Path(tempfile.gettempdir()) / f"otgen-bench-{LATENTS}-{EPOCHS}x{WIDTH}.safetensors"
    if path.exists():
        return files.load_array(path)
    x = data.IMAGES["digits"]()
    model = AE((1, 8, 8), 16, width=WIDTH, seed=0)
    model.fit(x, steps=EPOCHS * len(x) // 64, batch_size=64, progress=False)
    y = model.encode(x).detach().float()
    files.save_array(path, y)
    return y
