"""The lecture's Algorithm 1 (AE-OT, An et al., ICLR 2020) on plain torch, the way its authors' programs run it.

Fixed Sobol points: each gradient is taken on the same points of [-1/2, 1/2]^d, whose number doubles when the gradient
has not become smaller for `PATIENCE` steps. Adam has no bias correction and a constant rate. Written from the
algorithm's lines and a description of the programs. Two things are better here than there: the points are kept between
steps while they fit in `KEPT` bytes, and rate, points and Adam's second decay are searched for.
"""

import math
import random
from typing import Any

import torch
from race import Given, Watch
from torch import Tensor

LABEL = "Algorithm 1, torch"
PACKAGE = "torch"

PATIENCE = 31  # steps without improvement before the points are doubled
BLOCK = 1000  # points scored at a time
KEPT = 1 << 29

DEFAULTS: dict[str, Any] = {"spread": 1.0, "rate": 1e-3, "points": 10, "beta2": 0.999}
"""Placing of the targets (see `Given.placed`), rate in units of the scores' spread, points per target, Adam's decay."""


def candidates(generator: random.Random) -> dict[str, Any]:
    """Settings to try."""
    return {
        "spread": generator.choice([None, 1.0]),
        "rate": 10 ** generator.uniform(-3.5, -1),
        "points": generator.choice([10, 30, 100]),
        "beta2": generator.choice([0.5, 0.999]),
    }


def run(given: Given, settings: dict[str, Any], watch: Watch) -> None:
    """From h = 0 until the watch ends it."""
    y, factor = given.placed(settings["spread"])
    y = y - 0.5 if settings["spread"] is not None else y
    nu, (m, d) = given.nu.float(), y.shape
    rate = settings["rate"] * math.sqrt(d) * float(y.std()) / math.sqrt(12)
    beta1, beta2 = 0.9, settings["beta2"]
    h, first, second = torch.zeros(m), torch.zeros(m), torch.zeros(m)
    lowest, since, used = math.inf, 0, 0

    def heights() -> list[Tensor]:  # of the cube [0, 1]^d: <x, y> is larger by <1/2, y> there
        return [(h.double() - 0.5 * y.double().sum(1)) / factor]

    scores = torch.empty(BLOCK, m)  # kept: fresh pages would cost half the time
    watch.start()
    points = Points(math.ceil(settings["points"] * m / BLOCK), d)
    while watch.look(heights, used):
        counts = torch.zeros(m)
        for x in points.blocks():
            counts += torch.bincount(torch.addmm(h, x, y.T, out=scores).argmax(1), minlength=m)
        used += points.count * BLOCK
        gradient = counts / (points.count * BLOCK) - nu
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient.square()
        h = h - rate * first / (second.sqrt() + 1e-8)
        h -= h.mean()
        norm = float(gradient.norm())
        lowest, since = (norm, 0) if norm < lowest else (lowest, since + 1)
        if since >= PATIENCE:
            points, lowest, since = Points(2 * points.count, d), math.inf, 0
    watch.notes["fixed points"] = points.count * BLOCK


class Points:
    """The first blocks of the Sobol sequence, not scrambled, on [-1/2, 1/2]^d; again and again the same."""

    def __init__(self, count: int, d: int) -> None:
        self.count, self.d = count, d
        self._kept = list(self._drawn()) if 4 * d * count * BLOCK <= KEPT else None

    def blocks(self) -> Any:
        """Blocks of points, (BLOCK, d)."""
        return self._drawn() if self._kept is None else self._kept

    def _drawn(self) -> Any:
        engine = torch.quasirandom.SobolEngine(self.d)
        return (engine.draw(BLOCK) - 0.5 for _ in range(self.count))
