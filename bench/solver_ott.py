"""OTT-JAX's semi-discrete solver: its own `step`, compiled, with an optimiser of optax and its averaging.

`step` is called as `SemidiscreteSolver.__call__` does, in a compiled loop, without the error estimates that it makes in
between, which nobody pays for here. Compiling is not on the clock: "compile seconds" says what it took. Regularisation
zero is given by a schedule that is zero: with the constant of its default XLA's program for the hard assignment takes
four times as long. What counts is the better of the last potential and its average.
"""

import math
import random
import time
from functools import partial
from typing import Any

import numpy as np
import torch
from race import Given, Watch, heights_of
from solver_pot import cost_spread

LABEL = "OTT-JAX"
PACKAGE = "ott-jax"

MAX_STEPS = 100_000  # room for the solver's record of losses
SLICE = 0.02  # part of the time so far that a compiled loop takes before the next glance at the watch

DEFAULTS: dict[str, Any] = {
    "spread": 1.0, "optimiser": "sgd", "rate": 0.1, "schedule": "power", "power": 0.5, "turn": 10, "batch": 1024,
    "average": 0.99, "smoothing": 0.0,
}  # fmt: skip
"""spread: see `Given.placed`. rate: in units of the cost's spread, and for sgd of the batch, as a step is in masses.
schedule: "power" for rate / (1 + t / turn)^power, "cosine" to nothing at `turn`, both counted in samples per target.
average: weight of the new potential in the running mean, the library's `potential_ema`, default 0.99. smoothing: first
regularisation, falling like 1 / sqrt(t); 0 for none."""


def candidates(generator: random.Random) -> dict[str, Any]:
    """Settings to try."""
    optimiser = generator.choice(["sgd", "momentum", "adam"])
    schedule = generator.choice(["power", "power", "cosine"])
    low, high = (-3.5, -1) if optimiser == "adam" else (-2.5, 0.5)
    return {
        "spread": generator.choice([None, 1.0, 1.0, 1.0]),
        "optimiser": optimiser,
        "rate": 10 ** generator.uniform(low, high) * (0.1 if optimiser == "momentum" else 1.0),
        "schedule": schedule,
        "power": generator.choice([0.5, 0.75, 1.0]),
        "turn": generator.choice([5, 20, 60]) if schedule == "power" else generator.choice([60, 150, 400]),
        "batch": generator.choice([64, 256, 1024, 4096]),
        "average": generator.choice([0.99, 0.05, 0.01]),
        "smoothing": generator.choice([0.0, 0.1, 0.3, 1.0, 3.0]),
    }


def run(given: Given, settings: dict[str, Any], watch: Watch) -> None:
    """Slices of steps until the watch ends it."""
    import jax
    import jax.numpy as jnp
    from ott.geometry.semidiscrete_pointcloud import SemidiscretePointCloud
    from ott.problems.linear.semidiscrete_linear_problem import SemidiscreteLinearProblem
    from ott.solvers.linear.semidiscrete import SemidiscreteSolver, SemidiscreteState

    y, factor = given.placed(settings["spread"])
    m, batch, scale = len(y), settings["batch"], cost_spread(y)
    equal = bool((given.nu == given.nu[0]).all())
    weights = None if equal else jnp.asarray(given.nu.float().numpy())
    problem = SemidiscreteLinearProblem(
        SemidiscretePointCloud(jax.random.uniform, jnp.asarray(y.numpy()), epsilon=0.0), weights
    )
    solver = SemidiscreteSolver(
        num_iterations=MAX_STEPS,
        batch_size=batch,
        optimizer=optimiser(settings, m, scale),
        potential_ema=settings["average"],
        epsilon_scheduler=lambda step, _: settings["smoothing"] * scale / jnp.sqrt(1.0 + step),
    )
    key = jax.random.key(0)

    @partial(jax.jit, donate_argnums=0)
    def advance(state: SemidiscreteState, steps: Any) -> SemidiscreteState:
        def step(_: Any, now: SemidiscreteState) -> SemidiscreteState:
            return solver.step(jax.random.fold_in(key, now.it), now, problem)

        return jax.lax.fori_loop(0, steps, step, state)

    nothing = [jnp.full(MAX_STEPS, jnp.inf) for _ in range(3)]
    state = SemidiscreteState(jnp.array(0), jnp.array(jnp.nan), jnp.zeros(m), jnp.zeros(m),
                              solver.optimizer.init(jnp.zeros(m)), *nothing)  # fmt: skip
    began = time.perf_counter()
    state = jax.block_until_ready(advance(state, 0))
    watch.notes["compile seconds"] = time.perf_counter() - began

    def heights() -> list[torch.Tensor]:
        return [heights_of(torch.from_numpy(np.array(g)), y, factor) for g in (state.g, state.g_ema)]

    watch.start()
    steps = 1
    while watch.look(heights, int(state.it) * batch) and int(state.it) < MAX_STEPS:
        began = time.perf_counter()
        state = jax.block_until_ready(advance(state, steps))
        pace = steps / (time.perf_counter() - began)
        steps = max(1, min(2 * steps, math.ceil(pace * SLICE * watch.seconds), MAX_STEPS - int(state.it)))


def optimiser(settings: dict[str, Any], m: int, scale: float) -> Any:
    """The optimiser of optax that the settings name."""
    import optax

    rate = settings["rate"] * scale * (1.0 if settings["optimiser"] == "adam" else settings["batch"])
    turn = settings["turn"] * m / settings["batch"]
    if settings["schedule"] == "cosine":
        schedule = optax.cosine_decay_schedule(rate, max(1, round(turn)), alpha=1e-3)
    else:

        def schedule(step: Any) -> Any:
            return rate / (1 + step / turn) ** settings["power"]

    kinds = {"sgd": optax.sgd, "momentum": partial(optax.sgd, momentum=0.9), "adam": optax.adam}
    return kinds[settings["optimiser"]](schedule)
