"""Generators that do or make one simple thing, to see what a critic learns beside them."""

import torch
from torch import nn


class Constant(nn.Module):
    """Makes samples of which every number is `value`, a parameter."""

    def __init__(self, shape, value=0.0):
        super().__init__()
        self.shape, self.value = shape, nn.Parameter(torch.tensor(value))

    def forward(self, z):
        return self.value.expand(len(z), *self.shape)


class Point(nn.Module):
    """Makes one point, a parameter, whatever the noise."""

    def __init__(self, point):
        super().__init__()
        self.point = nn.Parameter(torch.tensor(point))

    def forward(self, z):
        return self.point.expand(len(z), -1)


class Shift(nn.Module):
    """Makes z + a, a being a parameter (d,)."""

    def __init__(self, d):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(d))

    def forward(self, z):
        return z + self.a


class Line(nn.Module):
    """Makes points (θ, z), θ a parameter that is 0 at first: the parallel lines of Arjovsky et al. 2017, example 1."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(0.0))

    def forward(self, z):
        return torch.cat([self.theta.expand(len(z), 1), z], dim=1)


def line(n, theta, generator):
    """Real points (n, 2) on the line (theta, z)."""
    z = torch.randn(n, 1, generator=generator)
    return torch.cat([torch.full_like(z, theta), z], dim=1)
