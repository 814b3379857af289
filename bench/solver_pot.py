"""POT's semi-discrete solver: averaged stochastic gradient descent, with or without decreasing regularisation.

It shows nothing on its way, so it is run from the start with twice as many steps again and again, and every run is a
point of the curve. Both the average and the last potential are judged, and the better one counts.
"""

import random
from typing import Any

import numpy as np
import torch
from race import Given, Watch, heights_of

LABEL = "POT"
PACKAGE = "POT"

FIRST = 8  # steps of the first run
GROWTH = 2

DEFAULTS: dict[str, Any] = {"spread": None, "rate": None, "exponent": 2 / 3, "batch": 32, "smoothing": 0.1, "torch": 0}
"""The library's own defaults. rate: in units of batch times the cost's spread; `None` for its sqrt(m batch).
smoothing: first regularisation, likewise of the cost's spread; 0 for none. torch: 0 for NumPy's arrays."""


def candidates(generator: random.Random) -> dict[str, Any]:
    """Settings to try."""
    return {
        "spread": generator.choice([None, 1.0, 1.0]),
        "rate": 10 ** generator.uniform(-2, 1),
        "exponent": generator.choice([0.5, 2 / 3, 1.0]),
        "batch": generator.choice([64, 256, 1024]),
        "smoothing": generator.choice([0, 0.1, 1.0]),
        "torch": generator.choice([0, 1, 1]),
    }


def run(given: Given, settings: dict[str, Any], watch: Watch) -> None:
    """Runs of growing length until the watch ends it; the last takes as long as the cap."""
    from ot.backend import get_backend
    from ot.semidiscrete import solve_semidiscrete

    y, factor = given.placed(settings["spread"])
    scale = cost_spread(y)
    batch = settings["batch"]
    use = torch.as_tensor if settings["torch"] else np.asarray
    options = {
        "lr0": None if settings["rate"] is None else settings["rate"] * batch * scale,
        "lr_exponent": settings["exponent"],
        "batch_size": batch,
        "decreasing_reg": settings["smoothing"] > 0,
        "decreasing_reg_initial_eps": settings["smoothing"] * scale,
    }
    if settings == DEFAULTS:
        options["decreasing_reg_initial_eps"] = 0.1
    steps, going = FIRST, True
    solve_semidiscrete(use(y), "unif", use(given.nu.float()), max_iter=1, **options)
    while going:
        get_backend(use(y)).seed(0)
        watch.start()
        found, log = solve_semidiscrete(use(y), "unif", use(given.nu.float()), max_iter=steps, log=True, **options)
        seconds = watch.seconds
        potentials = [torch.as_tensor(np.asarray(g)) for g in (found, log["last_potential"])]
        going = watch.judge(seconds, [heights_of(g, y, factor) for g in potentials], steps * batch)
        room = watch.cap / max(seconds, 1e-9)
        steps = max(steps + 1, int(steps * min(GROWTH, 1.02 * room)))


def cost_spread(y: torch.Tensor) -> float:
    """Standard deviation of |x - y|^2 over the targets, on average over the source: that of |y|^2 - 2 <x, y>."""
    x = torch.rand(256, y.shape[1], generator=torch.Generator().manual_seed(0))
    return float((y.square().sum(1) - 2 * x @ y.T).std(1).mean())
