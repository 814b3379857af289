"""The singular set: what the extended map generates as its angle threshold grows.

The lecture's Algorithm 2 and its four pictures (after An et al. 2020): target, threshold too small, too large, proper.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from otgen import data
from otgen.charts import Cloud, Line, Panel, chart
from otgen.experiments.experiment import Claim, Context, Findings, Outcome, Parts, Picture, Table, check_names, verdict
from otgen.metrics.neighbours import nearest
from otgen.ot import SemiDiscreteOT
from otgen.ot.maps import plane_angles
from otgen.seeds import stream

MODES = {"twenty-five-gaussians": 25, "eight-gaussians": 8, "two-moons": 2}
"""Point i of these sets belongs to mode i modulo the number of modes."""

LOW, HIGH = 1e-4, math.pi
"""Range of the thresholds, in radians."""

CLEAN, OPEN = 0.001, 0.5
"""A threshold is proper if it mixes the modes in at most this share of the points, and rejects at most that share."""

MIXED = 0.01
"""A threshold is too large from this share of mixed points on."""

REJECTING = 0.95
"""A threshold is too small while this share of the samples is rejected."""

ALL = 0.99
"""Share of rejected samples that is "nearly every"."""

NEW = 0.1
"""Novelty from which on points are no copies."""

SWEEP = "singular-set.png"


def parts(context: Context) -> Parts:
    """One part for each set of targets."""
    s = context.settings
    if s["angles"] < 2:
        raise ValueError(f"angles must be at least 2, got {s['angles']}")
    check_names(s, "sets", MODES)
    return {name: partial(_sweep, context, name) for name in s["sets"]}


def _sweep(context: Context, name: str) -> Outcome:
    """Fit the map and generate at every threshold."""
    m, n = context.settings["m"], context.settings["n"]
    y = data.problem(f"{name}-{m}", context.seed)[0].double()
    fresh = data.problem(f"{name}-{m}", stream(context.seed, "held out"))[0].double()
    ot = SemiDiscreteOT("uniform", tol=context.settings["tol"], seed=context.seed, progress=False).fit(y)
    apart = float(nearest(fresh, y)[1].median())

    def measured(angle: float) -> dict[str, Any]:
        try:
            points, info = ot.sample(n, angle, return_info=True)
        except ValueError:  # it rejects all but a thousandth of the samples
            return {"angle": angle, "rejected": 1.0}
        return {
            "angle": angle,
            "rejected": info.rejected,
            "mixed": _mixed(ot, info.x, y, MODES[name], angle),
            "novelty": float(nearest(points, y)[1].median()) / apart,
        }

    rows = [measured(angle) for angle in _angles(context)]
    auto = measured(ot.sample(2, "auto", return_info=True)[1].threshold)
    pictures: dict[str, Tensor] = {"targets": y.float()}
    shown = {"small": _too_small(rows), "proper": _proper(rows), "large": _too_large(rows)}
    for which, chosen in shown.items():
        if chosen is not None:
            pictures[which] = ot.sample(n, chosen["angle"]).float()
    values = {"set": name, "rows": rows, "auto": auto, "converged": ot.converged_, "shown": shown}
    return Outcome(values, pictures)


def _angles(context: Context) -> list[float]:
    steps = torch.linspace(math.log(LOW), math.log(HIGH), context.settings["angles"], dtype=torch.float64)
    return [min(float(angle), HIGH) for angle in steps.exp()]


def _mixed(ot: SemiDiscreteOT, x: Tensor, y: Tensor, modes: int, angle: float) -> float:
    """Share of the points that blend targets of more than one mode."""
    near = nearest(x, ot.centroids_, min(y.shape[1] + 1, len(y)))[0]  # as Algorithm 2, line 5
    scaled = (y - y.mean(0)) / (y - y.mean(0)).square().mean().sqrt()
    blended = plane_angles(scaled, near[:, :1], near) <= angle
    blended[:, 0] = True
    other = (near % modes != near[:, :1] % modes) & blended
    return float(other.any(1).double().mean())


def _fine(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The thresholds that mix nothing to speak of and let enough through."""
    return [row for row in rows if row.get("mixed", 1.0) <= CLEAN and row["rejected"] <= OPEN]


def _proper(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The largest threshold that is fine."""
    return next(reversed(_fine(rows)), None)


def _too_small(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The largest threshold that still rejects nearly all."""
    fine = [row for row in rows if "mixed" in row and row["rejected"] >= REJECTING]
    return fine[-1] if fine else None


def _too_large(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The largest threshold, if it mixes modes."""
    return rows[-1] if rows[-1].get("mixed", 0.0) >= MIXED else None


def conclude(context: Context, outcomes: Mapping[str, Outcome]) -> Findings:
    """Sweeps for all sets, and the lecture's four pictures for each."""
    values = [outcome.values for outcome in outcomes.values()]
    pictures = {SWEEP: Picture(chart([_panel(v) for v in values]), _sweep_caption())}
    for outcome in outcomes.values():
        name = outcome.values["set"]
        caption = f"{name}: targets (orange), and {context.settings['n']} generated points (green) at three thresholds."
        pictures[f"singular-set-{name}.png"] = Picture(chart(_four(outcome), columns=2), caption)
    first = f"singular-set-{values[0]['set']}.png"
    claims = [
        Claim(
            "θ̂ too small: nearly every sample is rejected.",
            verdict(all(v["rows"][0]["rejected"] > ALL for v in values)),
            f"At {LOW:g} rad {_list(values, lambda v: v['rows'][0]['rejected'])} of the samples are rejected."
            f" Confirmed means: more than {ALL:.0%} of them on every set.",
            SWEEP,
        ),
        Claim(
            "θ̂ too large: modes are mixed.",
            verdict(all(v["shown"]["large"] is not None for v in values)),
            f"At π, where nothing is rejected, {_list(values, lambda v: v['rows'][-1]['mixed'])} of the points blend"
            f" targets of different modes. Confirmed means: at least {MIXED:.0%} on every set.",
            SWEEP,
        ),
        Claim(
            "A proper θ̂ generates within the modes, without rejecting much.",
            verdict(all(v["shown"]["proper"] is not None for v in values)),
            f"Thresholds that mix at most {CLEAN:.1%} and reject at most {OPEN:.0%} of the points: "
            + "; ".join(f"{v['set']} {_range(v)}" for v in values)
            + ". Confirmed means: there is one on every set.",
            first,
        ),
        Claim(
            "What is generated is new: not a copy of a training code.",
            verdict(all(v["shown"]["proper"] is not None and v["shown"]["proper"]["novelty"] > NEW for v in values)),
            "At the proper threshold the median distance to the nearest target, over that of fresh data, is "
            + _list([v for v in values if v["shown"]["proper"]], lambda v: v["shown"]["proper"]["novelty"], "{:.2f}")
            + f". Confirmed means: above {NEW} on every set; copies have 0.",
            SWEEP,
        ),
    ]
    table = Table(
        "Thresholds θ̂ in radians. Mixed: share of the points that blend targets of different modes. Novelty: median"
        " distance to the nearest target over that of fresh data; 0 would be copies.",
        ("set", "threshold", "θ̂", "rejected", "mixed", "novelty"),
        [row for v in values for row in _rows(v)],
    )
    return Findings(claims, pictures, [table])


def _rows(value: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for which, row in (*value["shown"].items(), ("auto", value["auto"])):
        if row is None:
            rows.append((value["set"], which, "none", "", "", ""))
        else:
            rest = (f"{row[key]:.1%}" if key in row else "" for key in ("rejected", "mixed"))
            novelty = f"{row['novelty']:.2f}" if "novelty" in row else ""
            rows.append((value["set"], which, f"{row['angle']:.3g}", *rest, novelty))
    return rows


def _range(value: Mapping[str, Any]) -> str:
    fine = [row["angle"] for row in _fine(value["rows"])]
    return f"{fine[0]:.2g} to {fine[-1]:.2g} rad" if fine else "none"


def _list(values: list[Any], pick: Callable[[Any], float], form: str = "{:.1%}") -> str:
    return ", ".join(f"{form.format(pick(v))} ({v['set']})" for v in values)


def _panel(value: Mapping[str, Any]) -> Panel:
    rows = value["rows"]
    angles = [row["angle"] for row in rows]

    def curve(key: str, label: str, colour: int) -> Line:
        return Line(angles, [row.get(key, math.nan) for row in rows], label, style=".-", colour=colour)

    marks = {value["auto"]["angle"]: "auto"}
    if value["shown"]["proper"]:
        marks[value["shown"]["proper"]["angle"]] = "proper"
    return Panel(
        value["set"],
        "angle threshold θ̂ (rad)",
        "share; ratio for novelty",
        [
            curve("rejected", "rejected", 0),
            curve("mixed", "blends modes", 5),
            curve("novelty", "novelty: distance to targets ÷ fresh data's", 2),
        ],
        marks=marks,
        xscale="log",
        ylim=(-0.05, 1.75),
    )


def _four(outcome: Outcome) -> list[Panel]:
    shown, y = outcome.values["shown"], outcome.tensors["targets"]
    panels = [Panel("target distribution", clouds=[Cloud(y, colour=1, size=8)], equal=True)]
    titles = {"small": "too small", "large": "too large", "proper": "proper"}
    for which, title in titles.items():
        row, targets = shown[which], Cloud(y, colour=1, size=10, marker="+")
        if row is None:
            panels.append(Panel(f"θ̂ {title}: none found", clouds=[targets], equal=True))
            continue
        text = f"θ̂ = {row['angle']:.2g} {title}: {row['rejected']:.1%} rejected, {row['mixed']:.1%} mixed"
        made = Cloud(outcome.tensors[which], colour=2, size=3, alpha=0.5)
        panels.append(Panel(text, clouds=[targets, made], equal=True))
    return panels


def _sweep_caption() -> str:
    return (
        "Generated points against the angle threshold: share of the source's samples that are rejected, share of the"
        " points that blend targets of different modes, and how far they are from the targets. Left of the first"
        " points of the last two curves everything was rejected. Dotted: the threshold otgen takes by itself, and the"
        " largest proper one."
    )
