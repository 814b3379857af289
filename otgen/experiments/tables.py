"""Tables: FID and sharpness of all models on the same images, with the same networks and the same number of batches.

The lecture's table of FID on MNIST (An et al. 2020), and the order of models that it and the lecture's other tables
claim. The figures themselves are not comparable: other features, other networks, other data.
"""

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

from otgen.charts import Line, Panel, chart
from otgen.experiments import lineup
from otgen.experiments.experiment import Claim, Context, Findings, Outcome, Parts, Picture, Table, verdict
from otgen.experiments.lineup import DATA
from otgen.experiments.spread import above, judged, plus_minus, runs_by

PUBLISHED = {
    "gan": "6.8 ± 0.5",
    "lsgan": "7.8 ± 0.6",
    "wgan": "6.7 ± 0.4",
    "began": "13.1 ± 1.0",
    "vae": "23.8 ± 0.6",
    "glann": "8.6 ± 0.1",
    "ae": "5.5",
    "ae-ot": "6.2 ± 0.2",
}
"""The lecture's table of FID on MNIST, all 60 000 digits, Inception's features."""

ORDERS = (
    {"ae-ot": ("gan", "lsgan", "wgan", "began", "vae", "glann")},
    {"wae-gan": ("wae-mmd", "vae"), "wae-mmd": ("vae",)},
    {"ae-ot-gan": ("ae-ot",)},
    {"ae-ot-gan": ("wgan-gp", "sngan", "wgan-div", "wgan-qc")},
    {"wgan-qc": ("wgan-div", "wgan-gp"), "wgan-div": ("wgan-gp",)},
)
"""What each of the lecture's tables claims: a model has a lower FID than those that stand behind it."""

FIGURE, SHEETS = "tables.png", "tables-{}.png"

Values = Mapping[tuple[str, str], Sequence[float]]
"""A number for each training, by data and model."""


def parts(context: Context) -> Parts:
    """One part for each training, and one for the data; all models once come before any comes twice."""
    s = context.settings
    lineup.check(s)
    work: Parts = {}
    for place in s["sets"]:
        for repeat in range(s["repeats"]):
            for name in (DATA, *s["models"]):
                work[f"{place}-{name}-{repeat}"] = partial(lineup.score, context, place, name, repeat)
    return work


def conclude(context: Context, outcomes: Mapping[str, Outcome]) -> Findings:
    """A table of each data set, and the lecture's order tested."""
    s = context.settings
    runs = runs_by(outcomes, "set", "model")
    fid = {key: [run["fid"] for run in some] for key, some in runs.items()}
    sharp = {key: [run["sharpness"] for run in some] for key, some in runs.items()}
    claims = [
        _claim(pairs, place, fid) for place in s["sets"] for order in ORDERS if (pairs := _pairs(order, s["models"]))
    ]
    claims += [_rank(place, fid) for place in s["sets"] if len(_ranked(place, fid)) > 2]
    pictures = {
        FIGURE: Picture(
            chart([_panel(place, s["models"], fid, runs[place, DATA][0]) for place in s["sets"]], columns=1),
            "FID of every training against images that were not seen, lower is better; dashed: of one half of the data"
            " against the other, which no model should pass.",
        )
    }
    for place in s["sets"]:
        seen = [
            Panel(o.values["model"], images=o.tensors["images"])
            for o in outcomes.values()
            if o.values["set"] == place and o.values["repeat"] == 0
        ]
        what = f"{place}: data, reconstructions (ae), and samples of the first training of each model."
        pictures[SHEETS.format(place)] = Picture(chart(seen, columns=4), what)
    return Findings(claims, pictures, [_table(context, place, runs, fid, sharp) for place in s["sets"]])


def _table(
    context: Context,
    place: str,
    runs: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    fid: Values,
    sharp: Values,
) -> Table:
    """FID and sharpness, best FID first."""
    s, first = context.settings, runs[place, DATA][0]
    here = sorted((name for where, name in runs if where == place), key=lambda name: statistics.mean(fid[place, name]))
    rows = [
        (
            name,
            plus_minus(fid[place, name]),
            plus_minus(sharp[place, name]),
            *(plus_minus([run[key] for run in runs[place, name]], ".2f") for key in ("ratio", "nearer")),
            PUBLISHED.get(name, ""),
        )
        for name in here
    ]
    return Table(
        f"{place}: mean ± standard deviation of {s['repeats']} trainings of {s['steps']} batches of {s['batch']} with"
        f" equal networks, of which the generator against a critic sees one in n_critic, each on one half of the data,"
        f" {first['n']} images.{lineup.unlike(s['models'])} FID is of {first['n']} samples against the other half;"
        f" {DATA}: of one half against the other; ae: reconstructions, no samples. The features of {first['metric']}"
        f" tell {first['accuracy']:.1%} of held-out digits. Memorisation in these features: median distance to the"
        " nearest image of the half that was seen over that to the nearest of the other, 1 for new images and 0 for"
        " copies; and the share of samples nearer to the half that was seen, 0.5 for new images. Published: the"
        " lecture's table for MNIST, Inception's features and other networks, not comparable in absolute value.",
        ("model", first["metric"], "sharpness", "memorisation: ratio", "share nearer", "published FID"),
        rows,
    )


def _pairs(order: Mapping[str, Sequence[str]], models: Sequence[str]) -> list[tuple[str, str]]:
    """Those pairs of an order, better model first, that were both trained."""
    return [(a, b) for a, others in order.items() for b in others if a in models and b in models]


def _claim(pairs: Sequence[tuple[str, str]], place: str, fid: Values) -> Claim:
    """Test an order; print every pair, also those that disagree."""
    answers = [(a, b, above(fid[place, b], fid[place, a]), above(fid[place, a], fid[place, b])) for a, b in pairs]
    said = "; ".join(
        f"{a} {plus_minus(fid[place, a])} {_sign(less, more)} {b} {plus_minus(fid[place, b])}"
        for a, b, less, more in answers
    )
    better = dict.fromkeys(a for a, _ in pairs)
    text = "; ".join(f"{a} is better than {', '.join(b for one, b in pairs if one == a)}" for a in better)
    return Claim(
        f"By FID {text} ({place}).",
        judged([less for _, _, less, _ in answers]),
        f"FID: {said}; of the data itself {plus_minus(fid[place, DATA])}. Here < and > mean: by more than two standard"
        " errors of the difference; confirmed: < in every pair. Where all are far from the data the trainings are not"
        " over, and the order is one of speed.",
        FIGURE,
    )


def _sign(less: bool | None, more: bool | None) -> str:
    return "and" if less is None else "<" if less else ">" if more else "≈"


def _ranked(place: str, fid: Values) -> list[tuple[float, float, str]]:
    """FID published and measured, and the name, of models that have both."""
    return [
        (float(text.split()[0]), statistics.mean(fid[place, name]), name)
        for name, text in PUBLISHED.items()
        if (place, name) in fid
    ]


def _rank(place: str, fid: Values) -> Claim:
    """Compare the whole order with that of the lecture's table: in how many pairs of models do both agree?"""
    ranked = _ranked(place, fid)
    pairs = list(combinations(ranked, 2))
    agree = sum((a[0] < b[0]) == (a[1] < b[1]) for a, b in pairs)
    best = ", ".join(name for *_, name in sorted(ranked))
    here = ", ".join(name for _, _, name in sorted(ranked, key=lambda row: row[1]))
    return Claim(
        f"The models' order by FID is that of the lecture's table ({place}).",
        verdict(agree == len(pairs)),
        f"{agree} of {len(pairs)} pairs agree. Published: {best}; here: {here}. Confirmed means: all agree.",
        FIGURE,
    )


def _panel(place: str, models: Sequence[str], fid: Values, data: Mapping[str, Any]) -> Panel:
    """All trainings, best model first."""
    order = sorted(models, key=lambda name: statistics.mean(fid[place, name]))
    floor = statistics.mean(fid[place, DATA])
    lines = [Line([0.5, len(order) + 0.5], [floor, floor], "data", style="--", colour=7)]
    for number, name in enumerate(order, 1):
        values = fid[place, name]
        lines.append(Line([float(number)] * len(values), values, style="o"))
    ticks = {float(number): name for number, name in enumerate(order, 1)}
    return Panel(place, "", data["metric"], lines, ticks=ticks, yscale="log", xlim=(0.0, len(order) + 1.0))
