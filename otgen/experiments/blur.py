"""VAE's blur: how sharp are samples of VAE, WAE-MMD, WAE-GAN and AE-OT, and how sharp is what they were trained on?

The lecture's table of FID and sharpness (Tolstikhin et al. 2018, table 1). Sharpness is the variance of an image's
Laplacian, so noise raises it, too: a model is good where it comes near the data's own, and FID stands beside it.
"""

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from otgen.charts import Line, Panel, chart
from otgen.experiments import lineup
from otgen.experiments.experiment import Claim, Context, Findings, Outcome, Parts, Picture, Table
from otgen.experiments.lineup import DATA
from otgen.experiments.spread import RULE, above, judged, listed, plus_minus, runs_by

PUBLISHED = {"vae": ("63", "0.003"), "wae-mmd": ("55", "0.006"), "wae-gan": ("42", "0.006"), DATA: ("2", "0.02")}
"""The lecture's table: FID (Inception) and sharpness of CelebA at 64 x 64."""

FIGURE, SHEETS = "blur.png", "blur-images.png"


def parts(context: Context) -> Parts:
    """One part for each training, and one for the data."""
    s = context.settings
    lineup.check(s)
    work: Parts = {f"{place}-{DATA}": partial(lineup.score, context, place, DATA, 0) for place in s["sets"]}
    for place in s["sets"]:
        for name in s["models"]:
            for repeat in range(s["repeats"]):
                work[f"{place}-{name}-{repeat}"] = partial(lineup.score, context, place, name, repeat)
    return work


def conclude(context: Context, outcomes: Mapping[str, Outcome]) -> Findings:
    """The lecture's table, its ordering tested, and the images."""
    s = context.settings
    runs = runs_by(outcomes, "set", "model")
    names = {place: runs[place, DATA][0]["metric"] for place in s["sets"]}
    table = Table(
        f"Mean ± standard deviation of {s['repeats']} trainings of {s['steps']} batches of {s['batch']} with equal"
        f" networks, {s['d']} latents, each on one half of the data; as many samples; FID is"
        f" {', '.join(names.values())} against the other half.{lineup.unlike(s['models'])} Published:"
        " CelebA, other networks and Inception's FID, not comparable in absolute value.",
        ("data", "model", "FID", "sharpness", "sharpness / data's", "published FID", "published sharpness"),
        [_row(key, some, runs[key[0], DATA][0]["sharpness"]) for key, some in runs.items()],
    )
    sharp = {key: [run["sharpness"] for run in some] for key, some in runs.items()}
    claims = [claim for place in s["sets"] for claim in _claims(place, sharp)]
    sheets = [
        Panel(
            f"{o.values['set']}, {o.values['model']}: sharpness {o.values['sharpness']:.3g}", images=o.tensors["images"]
        )
        for o in outcomes.values()
        if o.values["repeat"] == 0
    ]
    pictures = {
        FIGURE: Picture(
            chart([_panel(place, s["models"], sharp) for place in s["sets"]], columns=2),
            "Variance of the Laplacian of generated images, one point for each training; dashed: that of the data."
            " Below the line is blur, above it is noise.",
        ),
        SHEETS: Picture(
            chart(sheets, columns=3), "Data, and samples of the first training of each model, with their sharpness."
        ),
    }
    return Findings(claims, pictures, [table])


def _claims(place: str, sharp: Mapping[tuple[str, str], Sequence[float]]) -> list[Claim]:
    """The lecture's ordering, as far as its models were trained."""
    (data,) = sharp[place, DATA]
    some = {name: values for (where, name), values in sharp.items() if where == place and name != DATA}
    if "vae" not in some:
        return []
    vae, waes = some["vae"], {name: values for name, values in some.items() if name.startswith("wae")}
    said = f"Sharpness: {listed(some)}; data {data:.3g}."
    claims = [
        Claim(
            f"The samples of a VAE are blurred ({place}).",
            judged([above([data, data], vae)]),
            f"{said} The VAE's are {statistics.mean(vae) / data:.0%} of the data's. {RULE}",
            FIGURE,
        )
    ]
    if waes:
        claims.append(
            Claim(
                f"The samples of WAE are sharper than the VAE's ({place}).",
                judged([above(values, vae) for values in waes.values()]),
                f"{said} {RULE}",
                FIGURE,
            )
        )
    if "ae-ot" in some:
        claims.append(
            Claim(
                f"The samples of AE-OT are sharper than the VAE's, and not as sharp as the data ({place}).",
                judged([above(some["ae-ot"], vae), above([data, data], some["ae-ot"])]),
                f"{said} {RULE} So it does for the data, which must be the sharper.",
                FIGURE,
            )
        )
    return claims


def _row(key: tuple[str, str], runs: Sequence[Mapping[str, Any]], data: float) -> tuple[str, ...]:
    cells = [plus_minus([run[name] for run in runs]) for name in ("fid", "sharpness")]
    share = statistics.mean(run["sharpness"] for run in runs) / data
    return (*key, *cells, f"{share:.0%}", *PUBLISHED.get(key[1], ("", "")))


def _panel(place: str, models: Sequence[str], sharp: Mapping[tuple[str, str], Sequence[float]]) -> Panel:
    lines = [Line([0.5, len(models) + 0.5], list(sharp[place, DATA]) * 2, "data", style="--", colour=7)]
    for number, name in enumerate(models, 1):
        values = sharp[place, name]
        lines.append(Line([float(number)] * len(values), values, style="o", colour=number - 1))
    top = 1.15 * max(max(line.y) for line in lines)
    ticks = {float(number): name for number, name in enumerate(models, 1)}
    return Panel(f"{place}: sharpness", "", "variance of the Laplacian", lines, ticks=ticks, ylim=(0.0, top))
