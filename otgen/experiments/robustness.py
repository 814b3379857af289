"""WGAN's robustness: GAN and WGAN with the DCGAN generator, the same without batch normalisation, and an MLP.

The lecture's pictures (Arjovsky et al. 2017, figures 5 to 7) as numbers: FID says how good the samples are, and the
classes that a classifier sees in them, which ought to be even, say what was lost.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from otgen.charts import Line, Panel, chart
from otgen.experiments import lineup
from otgen.experiments.experiment import Claim, Context, Findings, Outcome, Parts, Picture, Table, Verdict, check_names
from otgen.experiments.spread import RULE, above, judged, listed, not_above, plus_minus, runs_by
from otgen.metrics import compare, reverse_kl
from otgen.models import GAN, WGAN, Generative
from otgen.nn import MLP
from otgen.nn.lecture import WAEDecoder
from otgen.seeds import stream, torch_seeded

LOSSES: dict[str, Callable[..., Generative]] = {
    "JS": partial(GAN, **lineup.CHOICES["gan"]),
    "W": partial(WGAN, **lineup.CHOICES["wgan"]),
}
"""GAN with the non-saturating loss, and WGAN with clipped weights, as in the lecture."""

HIDDEN = (512, 512, 512)
"""Of the MLP generator, which has four layers of 512 units in the paper."""

LEARNT = 0.25
"""Part of its FID without training that a generator has to reach before it is judged: under one of the losses, the
DCGAN generator, to which the others are compared, under both."""

CLASSES = 10

LOST = math.log(CLASSES / (CLASSES - 1))
"""Unevenness where one class is lost and the others are even, in nats."""

FIGURE, SHEETS = "robustness.png", "robustness-images.png"

Values = Mapping[tuple[str, str], Sequence[float]]
"""A number for each training, by generator and loss."""


def dcgan(d: int, shape: tuple[int, int, int], width: int) -> nn.Module:
    """Fractionally strided convolutions with batch normalisation."""
    return nn.Sequential(WAEDecoder(d, shape, width), nn.Sigmoid())


def plain(d: int, shape: tuple[int, int, int], width: int) -> nn.Module:
    """The same layers without normalisation."""
    layers = [layer for layer in WAEDecoder(d, shape, width) if not isinstance(layer, nn.BatchNorm2d)]
    return nn.Sequential(*layers, nn.Sigmoid())


def dense(d: int, shape: tuple[int, int, int], width: int) -> nn.Module:
    """Four linear layers; the width of convolutions is none of its business."""
    return nn.Sequential(MLP((d, *HIDDEN, math.prod(shape))), nn.Unflatten(1, shape), nn.Sigmoid())


GENERATORS = {"DCGAN": dcgan, "no batch norm": plain, "MLP": dense}


def parts(context: Context) -> Parts:
    """One part for each training."""
    s = context.settings
    check_names(s, "data", lineup.SETS)
    return {
        f"{generator.lower().replace(' ', '-')}-{loss.lower()}-{repeat}": partial(
            _train, context, generator, loss, repeat
        )
        for repeat in range(s["repeats"])
        for generator in GENERATORS
        for loss in LOSSES
    }


def _train(context: Context, generator: str, loss: str, repeat: int) -> Outcome:
    """Train one model; both losses start from the same generator."""
    s, seed = context.settings, context.seed + repeat
    x, lenet = lineup.images_and_lenet(context, s["data"])
    shape = (x.shape[1], x.shape[2], x.shape[3])
    with torch_seeded(stream(seed, "generator")):
        network = GENERATORS[generator](s["d"], shape, s["width"])
    model = LOSSES[loss](shape, s["d"], width=s["width"], generator=network, seed=seed, device=context.device)
    fids = []
    for steps in (0, s["steps"]):
        if steps:
            model.fit(x, steps=steps, batch_size=s["batch"], seed=seed, progress=False)
        made = model.sample(len(x), generator=stream(seed, "measured")).cpu()
        (report,) = compare(x, made, lenet, ("FID",), seed=seed)
        fids.append(report.score.value)
    counts = torch.bincount(lenet.classify(made), minlength=CLASSES)
    values = {
        "generator": generator,
        "loss": loss,
        "repeat": repeat,
        "metric": report.name,
        "floor": report.floor.value,
        "untrained": fids[0],
        "fid": fids[1],
        "unevenness": reverse_kl(counts).value,
    }
    return Outcome(values, {"images": made[: lineup.SHOWN].clone()})


def conclude(context: Context, outcomes: Mapping[str, Outcome]) -> Findings:
    """What changing the generator does under either loss."""
    s = context.settings
    runs = runs_by(outcomes, "generator", "loss")
    fid, uneven = ({key: [run[name] for run in some] for key, some in runs.items()} for name in ("fid", "unevenness"))
    first = next(iter(runs.values()))[0]
    left = {
        name: (max if name == "DCGAN" else min)(
            statistics.mean(run["fid"] / run["untrained"] for run in runs[name, loss]) for loss in LOSSES
        )
        for name in GENERATORS
    }
    table = Table(
        f"{s['data']}: mean ± standard deviation of {s['repeats']} trainings of {s['steps']} batches of {s['batch']}"
        f" with equal critics.{lineup.unlike(['gan', 'wgan'])} Real against real {first['metric']} is"
        f" {first['floor']:.2g}. Unevenness: reverse KL of the classes that a classifier sees in the samples, 0 if they"
        " are even, 2.3 if there is one.",
        ("generator", "loss", first["metric"], "untrained", "unevenness of classes"),
        [
            (*key, plus_minus(fid[key]), plus_minus([run["untrained"] for run in some]), plus_minus(uneven[key]))
            for key, some in runs.items()
        ],
    )
    sheets = [
        Panel(f"{o.values['generator']}, {o.values['loss']}: FID {o.values['fid']:.3g}", images=o.tensors["images"])
        for o in outcomes.values()
        if o.values["repeat"] == 0
    ]
    pictures = {
        FIGURE: Picture(
            chart([_panel(first["metric"], fid, "log"), _panel("unevenness of classes (nats)", uneven, "linear")]),
            "A point for each training; JS: GAN with the non-saturating loss, W: WGAN with clipped weights. Left: FID;"
            " right: how uneven the classes are that a classifier sees in the samples (reverse KL to even classes, in"
            " nats). Lower is better in both.",
        ),
        SHEETS: Picture(chart(sheets, columns=2), "Samples of the first training, as the lecture shows them."),
    }
    return Findings(_claims(fid, uneven, left), pictures, [table])


def _claims(fid: Values, uneven: Values, left: Mapping[str, float]) -> list[Claim]:
    """Judge the generators that have learnt; `left` is the part of its first FID that each came to."""
    changed = [name for name in GENERATORS if name != "DCGAN"]
    harm = {
        (name, loss): [math.log(a / b) for a, b in zip(fid[name, loss], fid["DCGAN", loss], strict=True)]
        for name in changed
        for loss in LOSSES
    }

    def judged_if(names: Sequence[str], answers: Sequence[bool | None]) -> Verdict:
        return judged(answers if all(left[name] <= LEARNT for name in ("DCGAN", *names)) else ())

    def gate(names: Sequence[str]) -> str:
        reached = ", ".join(f"{left[name]:.0%} ({name})" for name in ("DCGAN", *names))
        return (
            f"Judged only if the generators come to {LEARNT:.0%} of their FID without training, DCGAN under both losses"
            f" and others under one; here to {reached}."
        )

    return [
        Claim(
            "No batch normalisation, or an MLP for a generator, harms WGAN less than GAN.",
            judged_if(changed, [above(harm[name, "JS"], harm[name, "W"]) for name in changed]),
            f"log(FID / FID with the DCGAN generator): {listed(harm)}. {RULE} {gate(changed)}",
            FIGURE,
        ),
        Claim(
            "Without batch normalisation WGAN's samples are better than GAN's.",
            judged_if(["no batch norm"], [above(fid["no batch norm", "JS"], fid["no batch norm", "W"])]),
            f"FID: {listed(fid)}. {RULE} {gate(['no batch norm'])}",
            SHEETS,
        ),
        Claim(
            "With an MLP for a generator GAN loses more modes than WGAN.",
            judged_if(["MLP"], [above(uneven["MLP", "JS"], uneven["MLP", "W"])]),
            f"Unevenness of classes: {listed(uneven)}. {RULE} {gate(['MLP'])}",
            SHEETS,
        ),
        Claim(
            "With an MLP for a generator WGAN loses no modes.",
            judged_if(["MLP"], [not_above(uneven["MLP", "W"], uneven["DCGAN", "W"], LOST)]),
            f"Unevenness of classes: {listed({key: some for key, some in uneven.items() if key[1] == 'W'})}. Confirmed"
            f" means: above that of the DCGAN generator by less than the {LOST:.2g} that one lost class makes, with two"
            f" standard errors to spare. {gate(['MLP'])}",
            SHEETS,
        ),
    ]


def _panel(name: str, values: Values, yscale: str) -> Panel:
    lines = []
    for colour, (loss, shift) in enumerate({"JS": -0.1, "W": 0.1}.items()):
        for number, generator in enumerate(GENERATORS, 1):
            some = values[generator, loss]
            label = loss if number == 1 else ""
            lines.append(Line([number + shift] * len(some), some, label, style="o", colour=colour))
    ticks = {float(number): generator for number, generator in enumerate(GENERATORS, 1)}
    return Panel(name, "generator", name, lines, ticks=ticks, xlim=(0.5, len(GENERATORS) + 0.5), yscale=yscale)
