"""WGAN's meaningful loss: does the critic's estimate fall as samples get better, and the JS estimate of a GAN not?

Arjovsky et al. 2017, figures 3 and 4. Critic and generator take turns alike in all kinds of training; quality is FID
in features of a network that was trained on the labelled digits.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from otgen.charts import Cloud, Line, Panel, chart
from otgen.experiments import lineup
from otgen.experiments.critics import estimate, rank_correlation
from otgen.experiments.experiment import Claim, Context, Findings, Outcome, Parts, Picture, Table, check_names, verdict
from otgen.experiments.spread import plus_minus, runs_by
from otgen.metrics import fid
from otgen.models import GAN, WGAN, WGANGP, Adversarial
from otgen.seeds import stream

KINDS: dict[str, tuple[Callable[..., Adversarial], str]] = {
    "gan": (GAN, "JS estimate (nats)"),
    "wgan": (WGAN, "estimate of K·W₁"),
    "wgan-gp": (WGANGP, "estimate of W₁"),
}
"""Models, and what their critics estimate."""

FOLLOWS = 0.5
"""Rank correlation from which on a loss is said to follow the quality."""

FIGURE, SCATTER, SHEETS = "meaningful-loss.png", "meaningful-loss-scatter.png", "meaningful-loss-digits.png"

Runs = Mapping[str, Sequence[Mapping[str, Any]]]
"""Trainings by kind."""


def parts(context: Context) -> Parts:
    """One part for each training."""
    s = context.settings
    check_names(s, "kinds", KINDS)
    if s["steps"] * s["n_critic"] < 4 * s["every"]:
        raise ValueError(f"every must leave at least four measurements, got {s['every']}")
    return {f"{kind}-{r}": partial(_train, context, kind, r) for kind in s["kinds"] for r in range(s["repeats"])}


def _train(context: Context, kind: str, repeat: int) -> Outcome:
    """Train one model, and measure critic and samples every few steps."""
    s, seed = context.settings, context.seed + repeat
    x, lenet = lineup.images_and_lenet(context, "digits")
    pixels, real = x.flatten(1), lenet(x)
    floor = fid(*lineup.shuffled(real, context.seed).chunk(2))
    model = KINDS[kind][0](
        (64,), s["d"], n_critic=s["n_critic"], lr=s["lr"], width=s["width"], seed=seed, device=context.device
    )
    on_device = pixels.to(context.device)
    rows: list[dict[str, float]] = []

    def look(_: Any, step: int, values: dict[str, float]) -> None:
        if step % s["every"] == 0:
            made = model.sample(len(pixels), generator=stream(context.seed, "measured"))
            score = fid(real, lenet(made.cpu().clamp(0, 1).view(-1, 1, 8, 8)))
            rows.append({"step": step / s["n_critic"], "estimate": estimate(model, on_device, made)})
            rows[-1]["fid"] = score.value

    model.fit(
        pixels, steps=s["steps"] * s["n_critic"], batch_size=s["batch"], seed=seed, progress=False, callbacks=[look]
    )
    values = {
        "kind": kind,
        "seed": seed,
        "rows": rows,
        "correlation": rank_correlation([r["estimate"] for r in rows], [r["fid"] for r in rows]),
        "extractor": lenet.fingerprint,
        "floor": floor.value - (floor.bias or 0.0),
    }
    images = model.sample(lineup.SHOWN, generator=stream(context.seed, "shown")).cpu().clamp(0, 1)
    return Outcome(values, {"images": images.view(-1, 1, 8, 8)})


def conclude(context: Context, outcomes: Mapping[str, Outcome]) -> Findings:
    """Curves of estimate and quality, and their rank correlations."""
    runs = runs_by(outcomes, "kind")
    name = f"FID[{next(iter(runs.values()))[0]['extractor']}]"
    agreement = {kind: [run["correlation"] for run in some] for kind, some in runs.items()}
    claims = []
    if critics := {kind: values for kind, values in agreement.items() if kind != "gan"}:
        claims.append(
            Claim(
                "The Wasserstein critic's loss is meaningful: it falls as samples get better.",
                verdict(all(min(values) >= FOLLOWS for values in critics.values())),
                f"Rank correlation of estimate and {name} along each training: {_all(critics)}. Confirmed means: at"
                f" least {FOLLOWS:g} in every training.",
                FIGURE,
            )
        )
    if "gan" in agreement:
        claims.append(
            Claim(
                "The JS estimate of a GAN's discriminator does not fall as samples get better.",
                verdict(max(agreement["gan"]) < FOLLOWS),
                f"Rank correlation: {_all({'gan': agreement['gan']})}; the estimate ends at"
                f" {plus_minus([run['rows'][-1]['estimate'] for run in runs['gan']])} nats of log 2 ="
                f" {math.log(2):.3f}. Confirmed means: below {FOLLOWS:g} in every training.",
                FIGURE,
            )
        )
    table = Table(
        f"MLPs on 8 x 8 digits, {context.settings['n_critic']} steps of the critic for one of the generator: mean ±"
        f" standard deviation of {context.settings['repeats']} trainings. FID of 1797 samples; between halves of the"
        f" data, less its bias, {next(iter(runs.values()))[0]['floor']:.2g}, which is 0 but for noise",
        ("model", "what is estimated", "first estimate", "last", f"first {name}", "last", "rank correlation"),
        [_row(kind, some) for kind, some in runs.items()],
    )
    seen = [
        Panel(f"{o.values['kind']}, {name.split('[')[0]} {o.values['rows'][-1]['fid']:.3g}", images=o.tensors["images"])
        for o in outcomes.values()
        if o.values["seed"] == context.seed
    ]
    pictures = {
        FIGURE: Picture(
            chart([*_curves(runs, "estimate"), *_curves(runs, "fid")], columns=len(runs)),
            "Above: what the critic says, on all data and as many samples. Below: quality, lower is better. A line for"
            " each training. A meaningful loss falls where the curve below it falls.",
        ),
        SCATTER: Picture(
            chart([_scatter(kind, some) for kind, some in runs.items()], columns=len(runs)),
            "The same measurements against each other; pale: early in training. Points on a rising curve mean that"
            " the loss tells the quality.",
        ),
        SHEETS: Picture(chart(seen, columns=len(seen)), "Generated digits at the end, first seed."),
    }
    return Findings(claims, pictures, [table])


def _row(kind: str, runs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    ends = [plus_minus([run["rows"][place][key] for run in runs]) for key in ("estimate", "fid") for place in (0, -1)]
    return (kind, KINDS[kind][1], *ends, plus_minus([run["correlation"] for run in runs]))


def _all(values: Mapping[str, Sequence[float]]) -> str:
    return "; ".join(f"{kind} {', '.join(f'{v:.2f}' for v in some)}" for kind, some in values.items())


def _curves(runs: Runs, key: str) -> list[Panel]:
    """A panel for each kind, a line for each training."""
    panels = []
    for kind, some in runs.items():
        lines = [
            Line([row["step"] for row in run["rows"]], [row[key] for row in run["rows"]], colour=number)
            for number, run in enumerate(some)
        ]
        label = KINDS[kind][1] if key == "estimate" else "FID"
        if kind == "gan" and key == "estimate":
            lines.append(Line([0, lines[0].x[-1]], [math.log(2)] * 2, "log 2, its most", style="--", colour=7))
        scale = "log" if key == "fid" else "linear"
        panels.append(Panel(f"{kind}: {label}", "steps of the generator", label, lines, yscale=scale))
    return panels


def _scatter(kind: str, runs: Sequence[Mapping[str, Any]]) -> Panel:
    clouds = []
    for number, run in enumerate(runs):
        points = torch.tensor([[row["estimate"], row["fid"]] for row in run["rows"]])
        early, late = points.chunk(2)
        clouds += [
            Cloud(early, colour=number, size=12, alpha=0.35),
            Cloud(late, f"rank correlation {run['correlation']:.2f}", colour=number, size=12),
        ]
    return Panel(kind, KINDS[kind][1], "FID", clouds=clouds, yscale="log")
