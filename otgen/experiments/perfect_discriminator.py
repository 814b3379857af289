"""The perfect discriminator: a generator is frozen, and a discriminator learns from scratch to see through it.

Arjovsky and Bottou 2017, "Towards Principled Methods for Training Generative Adversarial Networks", figures 1 to 3 and
theorem 2.4 (the slides' theorem 3): if |D - D*| < eps and E |J_theta g|^2 <= M^2, then
|grad_theta E log(1 - D(g(z)))| <= M eps / (1 - eps).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.optim import Adam

from otgen import data
from otgen.charts import Line, Panel, chart
from otgen.experiments import lineup
from otgen.experiments.critics import gradient_and_noise
from otgen.experiments.experiment import Claim, Context, Findings, Outcome, Parts, Picture, Table, verdict
from otgen.experiments.spread import judged, plain
from otgen.models import GAN
from otgen.models.base import descend
from otgen.models.state import seeded
from otgen.nn import adversarial, critic
from otgen.seeds import stream

BETAS = (0.5, 0.999)
"""Of the fresh discriminator's Adam, as of the GAN."""

BATCH = 64
"""Samples in a batch of the fresh discriminator, and in each of those whose gradients are compared."""

BATCHES = 8
"""Batches of noise on which the generator's gradient is measured, always the same."""

PERFECT, UNSEEN = 0.99, 0.98
"""Accuracies from which on a discriminator is called perfect: on training data, and on data held out."""

ORDERS = 100.0
"""Fall of a gradient that is "orders of magnitude": two of them."""

HELD_OUT = 360
"""Digits that no network is trained on."""

FIGURE, SHEETS = "perfect-discriminator.png", "frozen-generators.png"


def parts(context: Context) -> Parts:
    """One part for each age of the generator."""
    return {f"epochs{epochs:03d}": partial(_against, context, epochs) for epochs in context.settings["epochs"]}


def _against(context: Context, epochs: int) -> Outcome:
    """Train a GAN for some epochs, freeze its generator, and train a fresh discriminator against it."""
    s = context.settings
    pixels = data.digits()[0]
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(stream(context.seed, "held out")))
    held_out, real = pixels[order[:HELD_OUT]].to(context.device), pixels[order[HELD_OUT:]]
    gan = GAN((64,), s["d"], loss="nonsaturating", width=s["width"], seed=context.seed, device=context.device)
    gan.fit(real, epochs=epochs, batch_size=s["batch"], seed=context.seed, progress=False)
    generator = gan.generator.eval()
    with seeded(stream(context.seed, "fresh discriminator")):
        fresh = critic((64,), s["width"])
    fresh = fresh.to(context.device)
    noise = torch.Generator().manual_seed(stream(context.seed, "noise of the fresh discriminator"))

    def draw(n: int) -> Tensor:
        return torch.randn(n, s["d"], generator=noise).to(context.device)

    z = draw(BATCH * BATCHES)
    m = math.sqrt(float(_jacobian_norms(generator, z).square().mean()))
    optimiser = Adam(fresh.parameters(), lr=s["lr"], betas=BETAS)
    every = max(1, s["steps"] // s["looks"])
    rows = []
    for step in range(s["steps"] + 1):
        if step % every == 0:
            accuracy = _accuracy(fresh, real[:HELD_OUT].to(context.device), generator(draw(HELD_OUT)))
            unseen = _accuracy(fresh, held_out, generator(draw(HELD_OUT)))
            row = {"step": step, "accuracy": accuracy, "held_out": unseen, "eps": _distance(fresh, generator(z))}
            rows.append(row | _gradients(fresh, generator, z))
        batch = real[torch.randint(len(real), (BATCH,), generator=noise)].to(context.device)
        loss = adversarial.gan_critic(fresh(batch), fresh(generator(draw(BATCH)).detach()))
        descend(optimiser, loss)
    images = generator(z[: lineup.SHOWN]).detach().cpu().clamp(0, 1).view(-1, 1, 8, 8)
    return Outcome({"epochs": epochs, "m": m, "rows": rows}, {"images": images})


@torch.no_grad()
def _accuracy(network: nn.Module, real: Tensor, fake: Tensor) -> float:
    """Share of two sets of one size that is told right; a score of zero is wrong."""
    right = (network(real) > 0).sum() + (network(fake) < 0).sum()
    return float(right) / (2 * len(real))


def _distance(network: nn.Module, fake: Tensor) -> float:
    """The theorem's |D - D*| on generated samples, where D* = 0 with gradient 0: largest D + |grad D|."""
    norms = adversarial.gradient_norms(lambda x: network(x).sigmoid(), fake.detach())
    return float((network(fake).sigmoid() + norms).detach().max())


def _gradients(network: nn.Module, generator: nn.Module, z: Tensor) -> dict[str, float]:
    """Gradients of both losses by the generator's parameters: length of the mean, and noise between batches."""
    values = {}
    losses = {"mm": adversarial.minimax_generator, "ns": adversarial.nonsaturating_generator}
    for name, loss in losses.items():
        values[name], values[f"{name}_noise"] = gradient_and_noise(loss, network, generator, z, BATCH)
    return values


def _jacobian_norms(generator: nn.Module, z: Tensor) -> Tensor:
    """Spectral norms (n,) of the Jacobians of generated samples by the generator's parameters."""
    parameters = {name: value.detach() for name, value in generator.named_parameters()}
    norms = []
    for one in z:
        rows = jacrev(partial(_sample, generator, one))(parameters)
        jacobian = torch.cat([row.flatten(1) for row in rows.values()], dim=1)
        norms.append(torch.linalg.matrix_norm(jacobian @ jacobian.T, 2).sqrt())
    return torch.stack(norms)


def _sample(generator: nn.Module, z: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """What the generator makes of one z (d,) with these parameters."""
    sample: Tensor = functional_call(generator, parameters, (z[None],))[0]
    return sample


def conclude(context: Context, outcomes: Mapping[str, Outcome]) -> Findings:
    """Accuracies and gradients along the training of the fresh discriminator."""
    runs = [outcome.values for outcome in outcomes.values()]
    images = {outcome.values["epochs"]: outcome.tensors["images"] for outcome in outcomes.values()}
    perfect = all(run["rows"][-1]["accuracy"] > PERFECT and run["rows"][-1]["held_out"] > UNSEEN for run in runs)
    falls = {run["epochs"]: _largest(run) / run["rows"][-1]["mm"] for run in runs}
    noisier = {run["epochs"]: run["rows"][-1]["ns_noise"] / run["rows"][0]["ns_noise"] for run in runs}
    bounded = [(row["mm"], _bound(run, row)) for run in runs for row in run["rows"] if row["eps"] < 1]
    broken = sum(mm > bound * (1 + 1e-5) for mm, bound in bounded)  # but for rounding
    claims = [
        Claim(
            "A perfect discriminator can always be trained.",
            verdict(perfect),
            "Accuracy at the end, on training and on held-out data: "
            + _each(runs, lambda run: f"{run['rows'][-1]['accuracy']:.3f} and {run['rows'][-1]['held_out']:.3f}")
            + f" Confirmed means: above {PERFECT} and {UNSEEN}.",
            FIGURE,
        ),
        Claim(
            "Then the generator's gradient of the minimax loss vanishes, by orders of magnitude.",
            verdict(min(falls.values()) > ORDERS),
            "From its largest value to the end it falls by a factor of "
            + _each(runs, lambda run: plain(falls[run["epochs"]]))
            + f" Confirmed means: more than {ORDERS:g} for every generator.",
            FIGURE,
        ),
        Claim(
            "The gradient of the non-saturating loss grows noisier.",
            verdict(min(noisier.values()) > 1),
            "From the fresh discriminator to the end, its standard deviation between batches grows by a factor of "
            + _each(runs, lambda run: plain(noisier[run["epochs"]]))
            + " Over the gradient's length, which grows as well, it is at first and at the end "
            + _each(runs, lambda run: f"{_relative(run['rows'][0]):.2g} and {_relative(run['rows'][-1]):.2g}")
            + " Confirmed means: it grows against every generator.",
            FIGURE,
        ),
        Claim(
            "Theorem 3: the gradient of the minimax loss is at most M ε/(1 − ε).",
            judged([broken == 0] if bounded else []),
            f"It has meaning (ε < 1) at {len(bounded)} of {sum(len(run['rows']) for run in runs)} measurements and is"
            f" broken at {broken} of them; the bound is {_each(runs, _looseness)} Confirmed"
            " means: never broken.",
            FIGURE,
        ),
    ]
    table = Table(
        f"A fresh discriminator against a generator frozen after some epochs, after {context.settings['steps']} steps"
        " (one seed)",
        ("epochs of the GAN", "accuracy", "held-out accuracy", "minimax gradient, largest", "at the end", "bound there",
         "non-saturating gradient", "its noise, at first", "at the end"),
        [_row(run) for run in runs],
    )  # fmt: skip
    sheets = [Panel(f"generator after {_epochs(epochs)}", images=sheet) for epochs, sheet in images.items()]
    pictures = {
        FIGURE: Picture(chart(_panels(runs), columns=2), _caption()),
        SHEETS: Picture(
            chart(sheets), "What the frozen generators make: those that the fresh discriminator sees through."
        ),
    }
    return Findings(claims, pictures, [table])


def _largest(run: Mapping[str, Any]) -> float:
    return max(float(row["mm"]) for row in run["rows"])


def _bound(run: Mapping[str, Any], row: Mapping[str, float]) -> float:
    """Of theorem 3; nan where eps >= 1 and it says nothing."""
    return run["m"] * row["eps"] / (1 - row["eps"]) if row["eps"] < 1 else math.nan


def _looseness(run: Mapping[str, Any]) -> str:
    bound, got = _bound(run, run["rows"][-1]), run["rows"][-1]["mm"]
    return "without meaning at the end" if math.isnan(bound) else f"{bound / got:.3g} times the gradient at the end"


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _each(runs: Sequence[Mapping[str, Any]], say: Callable[[Mapping[str, Any]], str]) -> str:
    return ", ".join(f"{say(run)} (after {_epochs(run['epochs'])})" for run in runs) + "."


def _row(run: Mapping[str, Any]) -> tuple[str, ...]:
    first, last = run["rows"][0], run["rows"][-1]
    bound = _bound(run, last)
    return (
        str(run["epochs"]),
        f"{last['accuracy']:.3f}",
        f"{last['held_out']:.3f}",
        f"{_largest(run):.3g}",
        f"{last['mm']:.3g}",
        "–" if math.isnan(bound) else f"{bound:.3g}",
        f"{last['ns']:.3g}",
        f"{first['ns_noise']:.3g}",
        f"{last['ns_noise']:.3g}",
    )


def _panels(runs: Sequence[Mapping[str, Any]]) -> list[Panel]:
    def curve(run: Mapping[str, Any], colour: int, key: str, label: str, style: str = "-") -> Line:
        rows = run["rows"]
        return Line([row["step"] for row in rows], [row[key] for row in rows], label, style=style, colour=colour)

    def bound(run: Mapping[str, Any], colour: int, label: str) -> Line:
        steps = [row["step"] for row in run["rows"]]
        return Line(steps, [_bound(run, row) for row in run["rows"]], label, style=":", colour=colour)

    def age(run: Mapping[str, Any]) -> str:
        return f"G after {_epochs(run['epochs'])}"

    count = list(enumerate(runs))
    steps = "steps of the fresh discriminator"
    return [
        Panel("accuracy", steps, "share told right", [
            *(curve(run, i, "accuracy", age(run)) for i, run in count),
            *(curve(run, i, "held_out", "the same, held out" if i == 0 else "", "--") for i, run in count),
        ]),
        Panel("minimax loss: gradient vanishes", steps, "‖∇θ E log(1 − D)‖", [
            *(curve(run, i, "mm", age(run)) for i, run in count),
            *(bound(run, i, "M ε/(1 − ε)" if i == 0 else "") for i, run in count),
        ], yscale="log"),
        Panel("non-saturating loss: gradient does not vanish", steps, "‖∇θ E −log D‖", [
            curve(run, i, "ns", age(run)) for i, run in count
        ], yscale="log"),
        Panel("and grows noisier", steps, "standard deviation between batches", [
            *(curve(run, i, "ns_noise", f"non-saturating, {age(run)}") for i, run in count),
            *(curve(run, i, "mm_noise", "minimax" if i == 0 else "", "--") for i, run in count),
        ], yscale="log"),
    ]  # fmt: skip


def _relative(row: Mapping[str, float]) -> float:
    """Deviation of the non-saturating gradient between batches, over its length."""
    return row["ns_noise"] / row["ns"]


def _caption() -> str:
    return (
        "A fresh discriminator is trained against generators frozen after some epochs. Its accuracy goes to 1; the"
        " gradient of the minimax loss falls, below the bound of theorem 3 (dotted, where ε < 1); that of the"
        f" non-saturating loss does not. Gradients: mean over {BATCHES} batches of {BATCH}, and deviation between them."
    )
