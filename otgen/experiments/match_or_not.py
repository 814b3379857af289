"""Match or not match? What an autoencoder pays for codes that follow the prior, and what it gets for them.

The lecture's dilemma: a weak penalty leaves codes away from the prior, whose noise then makes bad samples; a strong one
spoils the coding. Its way out is not to match: AE-OT codes freely and transports noise to the codes.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from otgen.charts import Line, Panel, chart
from otgen.experiments import lineup
from otgen.experiments.experiment import Claim, Context, Findings, Outcome, Parts, Picture, Table, check_names
from otgen.experiments.spread import RULE, above, banded, judged, plus_minus, runs_by
from otgen.metrics import compare, sliced_wasserstein
from otgen.models import VAE, Model
from otgen.models.wae import PAPER_WEIGHT
from otgen.seeds import stream

FREE = "ae-ot"
"""The model that does not match."""

MATCHING = ("vae", "wae-mmd")
"""Models with a penalty that draws codes to the prior."""

FIGURE, SHEETS = "match-or-not.png", "match-or-not-images.png"

COLUMNS = {"error": "error of the coding", "fid": "FID", "distance": "q(z) to the prior"}
"""What is measured, and what it is called."""

Runs = Mapping[tuple[str, float], Sequence[Mapping[str, Any]]]
"""Trainings by model and weight; AE-OT's weight is 0."""


def parts(context: Context) -> Parts:
    """One part for each training; all settings once come before any comes twice."""
    s = context.settings
    check_names(s, "data", lineup.SETS)
    if min(s["weights"]) <= 0 or 1 not in s["weights"][1:-1] or s["weights"] != sorted(s["weights"]):
        raise ValueError(f"weights must be positive, from weak to strong, with 1 between them, got {s['weights']}")
    work: Parts = {}
    for repeat in range(s["repeats"]):
        work[f"{FREE}-{repeat}"] = partial(_train, context, FREE, 0.0, repeat)
        for name in MATCHING:
            for weight in s["weights"]:
                work[f"{name}-{weight:g}-{repeat}"] = partial(_train, context, name, float(weight), repeat)
    return work


def _train(context: Context, name: str, weight: float, repeat: int) -> Outcome:
    """Train a model on one half of the data; measure its coding, its samples and its codes beside the other half."""
    x, lenet = lineup.images_and_lenet(context, context.settings["data"])
    seed = context.seed + repeat
    seen, unseen = lineup.halves(x, seed)
    model = lineup.train(context, name, seen, seed, **_penalty(name, weight, seen[0].numel()))
    made = model.sample(len(unseen), generator=stream(seed, "measured")).cpu().clamp(0, 1)
    (report,) = compare(unseen, made, lenet, ("FID",), seed=seed)
    codes = _codes(model, unseen, stream(seed, "codes"))
    draw = torch.Generator().manual_seed(stream(seed, "prior"))
    prior, other = (torch.randn(codes.shape, generator=draw) for _ in range(2))
    values = {
        "model": name,
        "weight": weight,
        "repeat": repeat,
        "n": len(unseen),
        "metric": report.name,
        "error": float((model.reconstruct(unseen).cpu() - unseen).square().mean()),
        "fid": report.score.value,
        "distance": sliced_wasserstein(codes, prior, directions=lineup.DIRECTIONS).value,
        "floor": sliced_wasserstein(other, prior, directions=lineup.DIRECTIONS).value,
    }
    return Outcome(values, {"images": made[: lineup.SHOWN].clone()})


def _penalty(name: str, weight: float, pixels: int) -> dict[str, float]:
    """The argument that sets a penalty's weight, given in units of the paper's."""
    return {
        FREE: {},
        "vae": {"beta": weight},
        "wae-mmd": {"penalty_weight": weight * PAPER_WEIGHT * pixels},
    }[name]


def _codes(model: Model, x: Tensor, seed: int) -> Tensor:
    """Codes (n, d) as the model draws them: a VAE's have noise."""
    if not isinstance(model, VAE):
        return model.encode(x).cpu()
    mean, log_var = (part.cpu() for part in model.posterior(x))
    return mean + (0.5 * log_var).exp() * torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))


def conclude(context: Context, outcomes: Mapping[str, Outcome]) -> Findings:
    """The two horns of the dilemma, and whether any weight lies between them."""
    s = context.settings
    runs = runs_by(outcomes, "model", "weight")
    first = runs[FREE, 0.0][0]
    floors = [run["floor"] for some in runs.values() for run in some]
    unit = _penalty("wae-mmd", 1, math.prod(lineup.SETS[s["data"]][1]))["penalty_weight"]
    table = Table(
        f"{s['data']}: mean ± standard deviation of {s['repeats']} trainings of {s['steps']} batches of {s['batch']}"
        f" with equal networks, {s['d']} latents, each on one half of the data. Weights are in units of the paper's"
        f" (β = 1; λ = {unit:.3g} for WAE-MMD). The error is a pixel's mean square, of {first['n']} images not seen;"
        f" FID is {first['metric']} of as many samples against them; the distance is the sliced W₂ between their"
        f" codes and the prior, {plus_minus(floors)} between two samples of the prior.",
        ("model", "weight", *COLUMNS.values()),
        [
            (name, f"{weight:g}", *(plus_minus([run[key] for run in some]) for key in COLUMNS))
            for (name, weight), some in sorted(runs.items())
        ],
    )
    panels = [*(_panel(s["weights"], runs, key) for key in COLUMNS), _trade(s["weights"], runs)]
    shown = [(name, weight) for name in MATCHING for weight in (s["weights"][0], 1, s["weights"][-1])]
    first_of = {(o.values["model"], o.values["weight"]): o for o in outcomes.values() if o.values["repeat"] == 0}
    sheets = [
        Panel(f"{name}, weight {weight:g}", images=first_of[name, weight].tensors["images"]) for name, weight in shown
    ]
    sheets.append(Panel(FREE, images=first_of[FREE, 0.0].tensors["images"]))
    pictures = {
        FIGURE: Picture(
            chart(panels, columns=2),
            "Against the penalty's weight in units of the paper's: error of the coding, FID of samples, and distance of"
            " codes from the prior; dashed: AE-OT, which has no penalty. Bottom right: both horns at once, each curve"
            " from the weak weights to the strong; good is bottom left.",
        ),
        SHEETS: Picture(
            chart(sheets, columns=3), "Samples of the first trainings: with weak, usual and strong match, and without."
        ),
    }
    return Findings(_claims(s["weights"], runs), pictures, [table])


def _claims(weights: Sequence[float], runs: Runs) -> list[Claim]:
    """Too weak, too strong, and nothing between."""
    weak, strong = weights[0], weights[-1]

    def said(key: str, some: Sequence[float]) -> str:
        each = (
            f"{name} " + " and ".join(f"{plus_minus(_values(runs, name, w, key))} (weight {w:g})" for w in some)
            for name in MATCHING
        )
        return f"{COLUMNS[key]}: {'; '.join(each)}"

    free = {key: _values(runs, FREE, 0.0, key) for key in ("error", "fid")}
    worse = {
        (name, w): [above(_values(runs, name, w, key), free[key]) for key in free] for name in MATCHING for w in weights
    }
    both = [f"{name} with weight {w:g}" for (name, w), answers in worse.items() if not any(answers)]
    return [
        Claim(
            "Too weak a match leaves codes away from the prior, and makes bad samples.",
            judged(
                [
                    above(_values(runs, name, weak, key), _values(runs, name, 1, key))
                    for name in MATCHING
                    for key in ("distance", "fid")
                ]
            ),
            f"{said('distance', (weak, 1))}. {said('fid', (weak, 1))}. {RULE}",
            FIGURE,
        ),
        Claim(
            "Too strong a match hinders the coding.",
            judged([above(_values(runs, name, strong, "error"), free["error"]) for name in MATCHING]),
            f"{said('error', (strong,))}; {FREE} {plus_minus(free['error'])}. {RULE}",
            FIGURE,
        ),
        Claim(
            "No weight of the match has both, coding and samples as good as AE-OT's, which does not match.",
            judged([None if None in answers else any(answers) for answers in worse.values()]),
            f"{FREE}: error {plus_minus(free['error'])}, FID {plus_minus(free['fid'])}. As good in both:"
            f" {', '.join(both) or 'none'} of {len(worse)}. The least FID of the others is {_least(runs)}. Confirmed"
            " means: every weight has a larger error or FID, by more than two standard errors of the difference.",
            FIGURE,
        ),
    ]


def _least(runs: Runs) -> str:
    """The models' best samples, and what their coding is."""
    best = []
    for name in MATCHING:
        weight = min(
            (w for model, w in runs if model == name), key=lambda w: statistics.mean(_values(runs, name, w, "fid"))
        )
        fid, error = (plus_minus(_values(runs, name, weight, key)) for key in ("fid", "error"))
        best.append(f"{fid} ({name}, weight {weight:g}, error {error})")
    return " and ".join(best)


def _values(runs: Runs, name: str, weight: float, key: str) -> list[float]:
    return [run[key] for run in runs[name, weight]]


def _panel(weights: Sequence[float], runs: Runs, key: str) -> Panel:
    """One measure against the weight."""
    lines = [
        banded(weights, [_values(runs, name, w, key) for w in weights], name, "o-", colour)
        for colour, name in enumerate(MATCHING)
    ]
    beside, label = ("floor", "prior to prior") if key == "distance" else (key, FREE)
    level = statistics.mean(_values(runs, FREE, 0.0, beside))
    lines.append(Line([weights[0], weights[-1]], [level] * 2, label, style="--", colour=7))
    return Panel(COLUMNS[key], "weight of the penalty", COLUMNS[key], lines, xscale="log", yscale="log")


def _trade(weights: Sequence[float], runs: Runs) -> Panel:
    """FID against the error of the coding."""

    def curve(name: str, some: Sequence[float], style: str, colour: int) -> Line:
        error, fid = ([statistics.mean(_values(runs, name, w, key)) for w in some] for key in ("error", "fid"))
        return Line(error, fid, name, style=style, colour=colour)

    lines = [curve(name, weights, "o-", colour) for colour, name in enumerate(MATCHING)]
    lines.append(curve(FREE, [0.0], "o", 5))
    return Panel("both at once", COLUMNS["error"], COLUMNS["fid"], lines, xscale="log", yscale="log")
