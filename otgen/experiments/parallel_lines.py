"""Parallel lines: W, JS and KL between two segments against their distance, exact and as networks learn them.

Arjovsky et al. 2017, "Wasserstein GAN", example 1: P_0 is uniform on {0} x [0, 1], P_theta on {theta} x [0, 1]. Then
W = |theta|, while JS = log 2 and KL = infinity for every theta other than 0.
"""

import math
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer, RMSprop

from otgen.charts import Line, Panel, chart
from otgen.experiments.experiment import Claim, Context, Findings, Outcome, Parts, Picture, Table, verdict
from otgen.experiments.spread import banded, plus_minus
from otgen.models.base import descend
from otgen.models.state import seeded
from otgen.nn import MLP, adversarial
from otgen.seeds import stream

CLIP, CLIP_LR = 0.01, 5e-5
"""Box and step size of the clipped critic: the slides' Algorithm 1."""

PENALTY = 10.0
"""Weight of the gradient penalty (Gulrajani et al. 2017)."""

LR = 1e-3
"""Of Adam, for networks this small."""

FRESH = 4096
"""Samples on which what was learned is measured."""

LOOKS = 3
"""Measurements along a training, each at four times the steps of the one before, so that trends are seen."""

APART, FAR = 0.05, 0.2
"""Smallest distance for which the claims are tested, and that for which slopes are."""

NEAR = 0.1
"""What a learned distance may be off by, in its own units."""

STEEP, FLAT = 0.7, 0.1
"""A slope by theta, 1 if exact, leads home from the one on and has vanished below the other."""

FIGURE = "parallel-lines.png"

Loss = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]


def parts(context: Context) -> Parts:
    """One part for each theta."""
    thetas = context.settings["thetas"]
    work: Parts = {f"theta{theta:+.3f}": partial(_train_all, context, theta) for theta in thetas}
    if len(work) < len(thetas) or max(map(abs, thetas)) < FAR:
        raise ValueError(f"thetas must differ by a thousandth, and one be at least {FAR} from 0, got {thetas}")
    return work


def _train_all(context: Context, theta: float) -> Outcome:
    """All networks at one theta, several times."""
    rows: dict[str, list[Any]] = {}
    for repeat in range(context.settings["repeats"]):
        for name, value in _train_three(context, theta, stream(context.seed, f"lines {theta}", repeat)).items():
            rows.setdefault(name, []).append(value)
    return Outcome({"theta": theta, **rows})


def _train_three(context: Context, theta: float, seed: int) -> dict[str, Any]:
    """A critic with gradient penalty, a clipped critic and a discriminator, each measured on fresh samples."""
    penalised = _Trainee(context, theta, seed, _penalised_loss, partial(Adam, lr=LR, betas=(0.5, 0.9)))
    clipped = _Trainee(context, theta, seed, _critic_loss, partial(RMSprop, lr=CLIP_LR), CLIP)
    told = _Trainee(context, theta, seed, _discriminator_loss, partial(Adam, lr=LR, betas=(0.5, 0.9)))
    steps = context.settings["steps"]
    penalised.train(steps)
    clipped.train(steps)
    js, kl, slope = [], [], []
    for look in range(LOOKS):
        told.train(steps // 4 ** (LOOKS - 1 - look) - told.steps)
        real, fake = told.scores()
        js.append(math.log(2) - 0.5 * float(adversarial.gan_critic(real, fake)))
        kl.append(float(real.mean()))  # log D/(1 - D) is the log ratio of the densities
        slope.append(told.slope(adversarial.minimax_generator))
    return {
        "w": penalised.gap(),
        "w_slope": penalised.slope(adversarial.wasserstein_generator),
        "clipped": clipped.gap(),
        "js": js,
        "kl": kl,
        "js_slope": slope,
    }


class _Trainee:
    """A network that learns to tell the two segments apart, one way or another."""

    def __init__(
        self,
        context: Context,
        theta: float,
        seed: int,
        loss: Loss,
        optimiser: Callable[..., Optimizer],
        clip: float | None = None,
    ) -> None:
        with seeded(seed):
            self.network = MLP((2, *context.settings["hidden"], 1)).to(context.device)
        self.optimiser = optimiser(self.network.parameters())
        self.generator = torch.Generator().manual_seed(stream(seed, "samples"))
        self.theta, self.loss, self.clip, self.steps = theta, loss, clip, 0
        self.batch, self.device = context.settings["batch"], context.device

    def draw(self, n: int, theta: float) -> Tensor:
        """Samples (n, 2) of the segment at theta."""
        z = torch.rand(n, 1, generator=self.generator)
        return torch.cat([torch.full_like(z, theta), z], dim=1).to(self.device)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            real, fake = self.draw(self.batch, 0.0), self.draw(self.batch, self.theta)
            descend(self.optimiser, self.loss(self.network, real, fake, self.generator))
            if self.clip is not None:
                with torch.no_grad():
                    for parameter in self.network.parameters():
                        parameter.clamp_(-self.clip, self.clip)
        self.steps += steps

    @torch.no_grad()
    def scores(self) -> tuple[Tensor, Tensor]:
        """Scores (n,) of fresh samples of either segment."""
        return self.network(self.draw(FRESH, 0.0))[:, 0], self.network(self.draw(FRESH, self.theta))[:, 0]

    def gap(self) -> float:
        """Difference of the mean scores, which the critics make as large as they can."""
        real, fake = self.scores()
        return float(real.mean() - fake.mean())

    def slope(self, loss: Callable[[Tensor], Tensor]) -> float:
        """Derivative of the generator's loss by theta, its only parameter."""
        theta = torch.tensor(self.theta, requires_grad=True)
        shift = torch.stack([theta - self.theta, torch.zeros(())]).to(self.device)
        (slope,) = torch.autograd.grad(loss(self.network(self.draw(FRESH, self.theta) + shift)), theta)
        return float(slope)


def _critic_loss(network: nn.Module, real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    return adversarial.wasserstein_critic(network(real), network(fake))


def _penalised_loss(network: nn.Module, real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    share = torch.rand(len(real), generator=generator).to(real.device)
    norms = adversarial.gradient_norms(network, adversarial.between(real, fake, share))
    return _critic_loss(network, real, fake, generator) + PENALTY * adversarial.unit_penalty(norms)


def _discriminator_loss(network: nn.Module, real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    return adversarial.gan_critic(network(real), network(fake))


def conclude(context: Context, outcomes: Mapping[str, Outcome]) -> Findings:
    """Curves against theta, and what they say."""
    rows = [outcome.values for outcome in outcomes.values()]
    thetas = [row["theta"] for row in rows]
    apart = [row for row in rows if abs(row["theta"]) >= APART]
    error = max(abs(statistics.mean(row["w"]) - abs(row["theta"])) for row in rows)
    short = max(math.log(2) - statistics.mean(look[-1] for look in row["js"]) for row in apart)
    growing = all(
        statistics.mean(look[i] for look in row["kl"]) < statistics.mean(look[i + 1] for look in row["kl"])
        for row in apart
        for i in range(LOOKS - 1)
    )
    far = [row for row in apart if abs(row["theta"]) >= FAR]
    w_slope = min(statistics.mean(row["w_slope"]) * math.copysign(1, row["theta"]) for row in far)
    js_slope = max(statistics.mean(abs(look[-1]) for look in row["js_slope"]) for row in far)
    table = Table(
        f"Exact and learned, mean ± standard deviation of {context.settings['repeats']} trainings of"
        f" {context.settings['steps']} steps",
        ("θ", "W exact", "W critic", "JS exact", "JS discriminator", "KL exact", "KL discriminator"),
        [
            (f"{row['theta']:+.2f}", f"{abs(row['theta']):.2f}", plus_minus(row["w"]),
             "0.693" if row["theta"] else "0", plus_minus([look[-1] for look in row["js"]]),
             "∞" if row["theta"] else "0", plus_minus([look[-1] for look in row["kl"]]))
            for row in rows
        ],
    )  # fmt: skip
    claims = [
        Claim(
            "W(P₀, P_θ) = |θ|: continuous, and a critic learns it.",
            verdict(error < NEAR),
            f"The critic with gradient penalty is off by {error:.3f} at most. Confirmed means: by less than {NEAR}.",
            FIGURE,
        ),
        Claim(
            "JS(P₀, P_θ) = log 2 for every θ ≠ 0: it does not say how far apart the lines are.",
            verdict(short < NEAR),
            f"For |θ| ≥ {APART} the discriminator's estimate is below log 2 = 0.693 by {short:.2g} at most. Confirmed"
            f" means: by less than {NEAR}.",
            FIGURE,
        ),
        Claim(
            "KL = ∞ for every θ ≠ 0.",
            verdict(growing),
            f"The learned log ratio {'grows' if growing else 'does not always grow'} with every fourfold training, at"
            f" every |θ| ≥ {APART}; an estimate stays finite. Confirmed means: it always grows, with no end in sight.",
            FIGURE,
        ),
        Claim(
            "The critic leads the generator home, the discriminator does not: its gradient vanishes.",
            verdict(w_slope > STEEP and js_slope < FLAT),
            f"For |θ| ≥ {FAR} the critic's slope by θ is at least {w_slope:.2f} (exact: 1), the discriminator's at most"
            f" {js_slope:.2g} after {context.settings['steps']} steps. Confirmed means: above {STEEP} and below"
            f" {FLAT}.",
            FIGURE,
        ),
    ]
    caption = (
        "Distances between the segments at 0 and θ. Bands: standard deviation over trainings. Top left: W and what two"
        " critics say; the clipped one knows it up to a factor only. Top right: JS. Bottom left: KL is infinite but at"
        " 0, and what is learned grows with training. Bottom right: slope of the generator's loss by θ."
    )
    return Findings(claims, {FIGURE: Picture(_draw(context, rows, thetas), caption)}, [table])


def _draw(context: Context, rows: list[dict[str, Any]], thetas: list[float]) -> Any:
    scale = max(statistics.mean(row["clipped"]) for row in rows) / max(map(abs, thetas))
    clipped = [[v / scale for v in row["clipped"]] for row in rows]
    exact = [abs(theta) for theta in thetas]
    steps = [context.settings["steps"] // 4 ** (LOOKS - 1 - look) for look in range(LOOKS)]
    log2 = [math.log(2) if theta else math.nan for theta in thetas]
    side = [math.copysign(1, theta) if theta else math.nan for theta in thetas]

    def curve(values: list[list[float]], label: str, colour: int) -> Line:
        return banded(thetas, values, label, "o-", colour)

    def at(name: str, look: int) -> list[list[float]]:
        return [[values[look] for values in row[name]] for row in rows]

    panels = [
        Panel("Wasserstein distance", "θ", "W", [
            curve([row["w"] for row in rows], "critic, gradient penalty", 0),
            curve(clipped, f"critic, clipped, ÷ {scale:.2g}", 1),
            Line(thetas, exact, "exact |θ|", colour=7, style="--"),
        ]),
        Panel("Jensen-Shannon divergence", "θ", "JS (nats)", [
            Line([0.0], [0.0], style="s", colour=7),
            *(curve(at("js", i), f"discriminator, {steps[i]} steps", 2 + i) for i in range(LOOKS)),
            Line(thetas, log2, "exact: log 2, but 0 at θ = 0", colour=7, style="--"),
        ]),
        Panel("Kullback-Leibler divergence (exact: ∞, but 0 at θ = 0)", "θ", "KL (nats)", [
            Line([0.0], [0.0], style="s", colour=7, label="exact at θ = 0"),
            *(curve(at("kl", i), f"discriminator, {steps[i]} steps", 2 + i) for i in range(LOOKS)),
        ]),
        Panel("slope by θ: what a generator follows", "θ", "d loss / dθ", [
            curve([row["w_slope"] for row in rows], "critic, gradient penalty", 0),
            *(curve(at("js_slope", i), f"discriminator, {steps[i]} steps", 2 + i) for i in range(LOOKS)),
            Line(thetas, side, "exact, of W", colour=7, style="--"),
        ], yscale="symlog"),
    ]  # fmt: skip
    return chart(panels, columns=2)
