"""VAE's weak regulariser: does the aggregate posterior match the prior?

The lecture's table of ELBO, average KL, mutual information and marginal KL for 2, 10 and 20 latents (after Hoffman and
Johnson 2016, "ELBO surgery", whose MNIST has N = 50 000 images and log N = 10.82: the table's mutual information for 10
and 20 latents is that ceiling). Where it is reached the marginal KL is the average KL minus log N whatever the model,
so the match is tested by a distance between samples as well. Codes that follow the prior have a marginal KL too, since
N posteriors leave holes; what they would have with the same variances is taken off.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from otgen.charts import Cloud, Line, Panel, chart
from otgen.experiments import lineup
from otgen.experiments.experiment import Claim, Context, Findings, Outcome, Parts, Picture, Table, check_names, verdict
from otgen.experiments.lineup import DIRECTIONS, SHOWN
from otgen.experiments.spread import banded, judged, plus_minus, runs_by
from otgen.metrics import aggregate_posterior, sliced_wasserstein
from otgen.models import VAE
from otgen.seeds import stream

TINY = 1e-6
"""Probabilities of a pixel are kept this far from 0 and 1, where their logarithms end."""

PARTS = ("elbo", "mean_kl", "mutual_information", "marginal_kl")

LECTURE = {2: (-129.63, 7.41, 7.20, 0.21), 10: (-88.95, 19.17, 10.82, 8.35), 20: (-87.45, 20.2, 10.67, 9.53)}
"""The lecture's table, on another data set with other networks: not comparable in absolute value."""

PAIRS = 39
"""Of samples of the prior, to whose distances that of codes is held: beyond all of them by chance in one of 40."""

SIDE = 12
"""Of the lattice of codes, quantiles of the prior, that shows what two latents mean."""

FIGURE, SHEETS = "vae-regulariser.png", "vae-regulariser-digits.png"


def parts(context: Context) -> Parts:
    """One part for each training."""
    s = context.settings
    check_names(s, "data", lineup.SETS)
    if min(s["latents"]) < 2:
        raise ValueError(f"latents must be at least 2, as the first two are drawn, got {min(s['latents'])}")
    return {f"latents{d:02d}-{r}": partial(_train, context, d, r) for d in s["latents"] for r in range(s["repeats"])}


def _train(context: Context, d: int, repeat: int) -> Outcome:
    """Train a VAE and take its regulariser apart."""
    s, seed = context.settings, context.seed + repeat
    x = (lineup.images_of(s["data"])[0] > 0.5).float()
    vae = VAE(tuple(x.shape[1:]), d, likelihood="bernoulli", width=s["width"], seed=seed, device=context.device)
    vae.fit(x, epochs=s["epochs"], batch_size=s["batch"], seed=seed, progress=False)
    mu, logvar = (part.cpu() for part in vae.posterior(x))
    noise = torch.randn(mu.shape, generator=torch.Generator().manual_seed(stream(seed, "codes")))
    z = mu + (0.5 * logvar).exp() * noise
    result = aggregate_posterior(mu, logvar, _log_likelihood(vae, x, z), seed=seed)
    matching = (1 - logvar.exp()).clamp_min(0).sqrt() * torch.randn(
        mu.shape, generator=torch.Generator().manual_seed(stream(seed, "matching"))
    )
    holes = aggregate_posterior(matching, logvar, seed=seed).marginal_kl.value
    draw = torch.Generator().manual_seed(stream(seed, "prior"))
    prior, *others = (torch.randn(z.shape, generator=draw) for _ in range(PAIRS + 1))
    distance, *floors = (sliced_wasserstein(some, prior, directions=DIRECTIONS).value for some in (z, *others))
    values: dict[str, Any] = {"latents": d, "repeat": repeat, "n": len(x), "saturated": result.saturated}
    for name in PARTS:
        values[name] = getattr(result, name).value
    values |= {"holes": holes, "distance": distance, "floors": floors}
    tensors = {"z": z[:2000, :2], "prior": vae.decode(prior[:SHOWN]).cpu(), "posterior": vae.decode(z[:SHOWN]).cpu()}
    if d == 2:
        tensors["manifold"] = vae.decode(_lattice()).cpu()
    return Outcome(values, tensors)


def _lattice() -> Tensor:
    """Codes in the plane, (SIDE^2, 2), row by row, at quantiles of the prior (Kingma and Welling 2014, figure 4)."""
    places = torch.special.ndtri((torch.arange(SIDE) + 0.5) / SIDE)
    return torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=-1).flatten(0, 1)


def _log_likelihood(vae: VAE, x: Tensor, z: Tensor) -> Tensor:
    """Bernoulli's log p(x|z), (n,), in nats."""
    p = vae.decode(z).cpu().double().clamp(TINY, 1 - TINY)
    return torch.where(x > 0.5, p, 1 - p).log().flatten(1).sum(1)


def conclude(context: Context, outcomes: Mapping[str, Outcome]) -> Findings:
    """The lecture's table, and how far q(z) is from the prior."""
    runs = runs_by(outcomes, "latents")
    few, many = min(runs), max(runs)
    n = runs[few][0]["n"]
    marginal = {d: [run["marginal_kl"] - run["holes"] for run in some] for d, some in runs.items()}
    off = [run["distance"] > max(run["floors"]) for some in runs.values() for run in some]
    saturated = [d for d, some in runs.items() if any(run["saturated"] for run in some)]
    ceiling = f"log N = {math.log(n):.2f}"
    claims = [
        Claim(
            "The marginal KL grows with the number of latents.",
            judged([max(marginal[few]) < min(marginal[many])] if few < many else []),
            f"Beyond that of codes which follow the prior: {_each(marginal)}. {_about_ceiling(saturated, ceiling)}"
            f" Confirmed means: more in every training with {many} latents than in any with {few}.",
            FIGURE,
        ),
        Claim(
            "q(z) does not match the prior.",
            verdict(all(off)),
            f"Sliced W₂ between codes and the prior, beside the largest of {PAIRS} of samples of the prior: "
            + ", ".join(
                f"{plus_minus([run['distance'] for run in some])} and"
                f" {plus_minus([max(run['floors']) for run in some])} ({d} latents)"
                for d, some in runs.items()
            )
            + f". Beyond all of them in {sum(off)} of {len(off)} trainings; confirmed means: in all.",
            FIGURE,
        ),
    ]
    table = Table(
        f"{context.settings['data']}, black and white, N = {n}, {ceiling}: mean ± standard deviation of"
        f" {context.settings['repeats']} trainings of {context.settings['epochs']} epochs, in nats; in brackets the"
        " lecture's figures (MNIST, other networks), not comparable in absolute value",
        (
            "latents",
            "ELBO",
            "average KL",
            "mutual information",
            "marginal KL",
            "of codes that match",
            "sliced W₂ to the prior",
            "floor",
        ),
        [_row(d, some) for d, some in runs.items()],
    )
    first = [o for o in outcomes.values() if o.values["repeat"] == 0]
    sheets = [
        Panel(f"{o.values['latents']} latents, codes of {source}", images=o.tensors[key])
        for o in first
        for key, source in (("posterior", "data, q(z)"), ("prior", "the prior, p(z)"))
    ]
    sheets += [
        Panel("2 latents, the plane by quantiles of p(z)", images=o.tensors["manifold"])
        for o in first
        if "manifold" in o.tensors
    ]
    pictures = {
        FIGURE: Picture(chart([*_curves(runs, n), *map(_codes, first)], columns=len(first)), _caption()),
        SHEETS: Picture(
            chart(sheets, columns=2),
            "What the decoder makes of codes of data, of noise from the prior, and of a lattice in the plane of two"
            " latents.",
        ),
    }
    return Findings(claims, pictures, [table])


def _row(d: int, runs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    lecture = LECTURE.get(d)
    cells = []
    for place, name in enumerate(PARTS):
        values = [run[name] for run in runs]
        cells.append(plus_minus(values) + (f" ({lecture[place]:g})" if lecture else ""))
    floors = [statistics.mean(run["floors"]) for run in runs]
    return (
        str(d),
        *cells,
        *(plus_minus([run[key] for run in runs]) for key in ("holes", "distance")),
        plus_minus(floors),
    )


def _each(values: Mapping[int, Sequence[float]]) -> str:
    return ", ".join(f"{plus_minus(some)} nats ({d} latents)" for d, some in values.items())


def _about_ceiling(saturated: Sequence[int], ceiling: str) -> str:
    if not saturated:
        return f"The mutual information stays well below its ceiling {ceiling}."
    latents = " and ".join(map(str, saturated))
    return (
        f"The mutual information is at its ceiling {ceiling} for {latents} latents; there the marginal KL is the"
        " average KL minus log N and says nothing of its own."
    )


def _curves(runs: Mapping[int, Sequence[Mapping[str, Any]]], n: int) -> list[Panel]:
    """Parts of the average KL, ELBO, and distance to the prior against the number of latents."""
    latents = [float(d) for d in runs]

    def curve(name: str, label: str, colour: int) -> Line:
        values = [
            [statistics.mean(run[name]) if isinstance(run[name], list) else run[name] for run in some]
            for some in runs.values()
        ]
        return banded(latents, values, label, "o-", colour)

    ceiling = Line([latents[0], latents[-1]], [math.log(n)] * 2, f"log N = {math.log(n):.2f}", style="--", colour=7)
    return [
        Panel("parts of the average KL", "latents", "nats", [
            curve("mean_kl", "average KL", 0), curve("mutual_information", "mutual information", 1),
            curve("marginal_kl", "marginal KL", 5), curve("holes", "marginal KL of codes that match", 7), ceiling,
        ]),
        Panel("evidence lower bound", "latents", "nats", [curve("elbo", "ELBO", 0)]),
        Panel("distance to the prior", "latents", "sliced W₂", [
            curve("distance", "codes to prior", 5), curve("floors", "prior to prior", 7),
        ], ylim=(0.0, 1.1 * max(run["distance"] for some in runs.values() for run in some))),
    ]  # fmt: skip


def _codes(outcome: Outcome) -> Panel:
    """The first two coordinates of codes of data over two circles that hold 39 % and 86 % of the prior."""
    angle = torch.linspace(0, 2 * math.pi, 100)
    circles = [Line((r * angle.cos()).tolist(), (r * angle.sin()).tolist(), colour=7) for r in (1, 2)]
    cloud = Cloud(outcome.tensors["z"], colour=0, size=2, alpha=0.4)
    title = f"{outcome.values['latents']} latents: z₁ and z₂ of data"
    return Panel(title, "z₁", "z₂", circles, [cloud], xlim=(-4, 4), ylim=(-4, 4), equal=True)


def _caption() -> str:
    return (
        "Top: the parts of the regulariser, the ELBO, and the distance of codes from the prior, against the number of"
        " latents; bands: standard deviation over trainings. Bottom: two coordinates of codes z ~ q(z|x); the circles"
        " of radius 1 and 2 hold 39 % and 86 % of the prior."
    )
