"""Models of all kinds, small enough to be trained in no time, and a newcomer's."""

import warnings

import torch
from torch import nn

from otgen.models import Generative
from otgen.ot import ConvergenceWarning

SMALL = {"width": 2, "d": 3, "tol": 5.0, "ae_epochs": 1, "head_start": 1, "sampler_epochs": 2, "n_critic": 2}


def data(shape, n=48):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(5))


def small(kind, shape, seed=0):
    known = kind.__init__.__code__.co_varnames
    return kind(shape, **{name: value for name, value in SMALL.items() if name in known}, seed=seed)


def fit(model, x, **run):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, **({"steps": 4, "batch_size": 8, "progress": False} | run))


class Mean(Generative):
    """A newcomer's model, in one class: a normal distribution with the data's mean."""

    def __init__(self, shape, d=1, *, rate=0.5, net=None, other=None, seed=0, device="cpu"):
        super().__init__(shape, d, seed=seed, device=device)
        self._positive(rate=rate)
        self.rate, self.other = rate, other
        with self._building():
            self.mean = nn.Parameter(torch.zeros(shape))
            self.net = nn.Identity() if net is None else self._given("net", net, (d,), shape)

    def step(self, batch):
        self._check_samples("step", batch)
        with torch.no_grad():
            self.mean += self.rate * (batch.mean(0) - self.mean)
        return {"mean": self.mean.mean().item()}

    def _decode(self, z):
        return self.mean + 0.1 * z.sum(1).view(-1, *[1] * len(self.shape))
