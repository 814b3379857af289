"""Mode collapse and mode mixture: how many of the modes of known mixtures does each model find, and what lies between?

The lecture's figure 13 and PacGAN's table (Lin et al. 2018) on its two sets: 8 Gaussians on a ring and 25 on a grid,
2500 samples, three numbers. Ours are these sets scaled to about unit deviation, which changes none of the three. All
models have the same fully connected networks and see the same number of batches.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from otgen import data
from otgen.charts import Cloud, Panel, chart
from otgen.experiments.experiment import Claim, Context, Findings, Outcome, Parts, Picture, Table, check_names, verdict
from otgen.experiments.spread import above, judged, listed, plus_minus, runs_by
from otgen.metrics import grid, modes, ring
from otgen.models import AEOT, GAN, VAE, WAEMMD, WGAN, WGANGP, Generative, PacGAN
from otgen.seeds import stream

Maker = Callable[..., Generative]

MODELS: dict[str, Maker] = {
    "GAN": partial(GAN, lr=1e-3),
    "WGAN": partial(WGAN, lr=5e-4, clip=0.1),
    "WGAN-GP": partial(WGANGP, lr=1e-3, penalty=0.1, betas=(0.5, 0.9)),
    "PacGAN2": partial(PacGAN, lr=1e-3, pack=2),
    "PacGAN4": partial(PacGAN, lr=1e-3, pack=4),
    "VAE": partial(VAE, gamma=1e-3),
    "WAE-MMD": partial(WAEMMD, penalty_weight=10.0),
    "AE-OT": partial(AEOT, angle_threshold=0.1),
}
"""Models with what differs from their defaults, which are for images: larger steps, WGAN-GP's penalty for the plane.

A VAE's variance is given; one that sets it itself keeps its codes by the warm-up alone, as the whole data have unit
deviation. The weight of WAE's penalty goes with the number of pixels, and two numbers a sample are too few of them.
"""

SETS: dict[str, tuple[Callable[[int, int], Tensor], Tensor, float]] = {
    "ring": (data.eight_gaussians, ring(8, 2**0.5), 0.02 / 2**0.5),
    "grid": (data.twenty_five_gaussians, grid(5, 0.5**0.5), 0.05 / 8**0.5),
}
"""Points, centres and standard deviation of a mode."""

PUBLISHED = {
    ("ring", "GAN"): (6.3, 0.982, 0.45),
    ("ring", "PacGAN2"): (7.9, 0.956, 0.07),
    ("grid", "GAN"): (17.3, 0.948, 0.70),
    ("grid", "PacGAN2"): (23.8, 0.913, 0.13),
    ("grid", "PacGAN4"): (24.8, 0.936, 0.04),
}
"""PacGAN's tables: modes, share, reverse KL; ten trainings of other networks."""

WHOLE = 0.989
"""Share of a normal mode of the plane within three deviations, 1 - exp(-9/2)."""

MIXED = 0.95
"""Share within three deviations below which modes are called mixed: outliers are five times those of the data."""

LEARNT = 0.5
"""Share within three deviations below which a model has not learnt the modes yet: what lies between them is then no
sign of mixture, nor what is missing of collapse. Published GANs reach 0.9 and more."""

SHOWN = 1000
"""Points to look at."""

DATA = "data"


def parts(context: Context) -> Parts:
    """One part for each training, and one for fresh data of each set."""
    s = context.settings
    check_names(s, "models", MODELS)
    check_names(s, "sets", SETS)
    work: Parts = {f"{name}-{DATA}": partial(_fresh, context, name) for name in s["sets"]}
    for name in s["sets"]:
        for model in s["models"]:
            for repeat in range(s["repeats"]):
                work[f"{name}-{model.lower()}-{repeat}"] = partial(_train, context, name, model, repeat)
    return work


def _fresh(context: Context, name: str) -> Outcome:
    """Score new samples of the data themselves."""
    points = SETS[name][0](context.settings["n"], stream(context.seed, "fresh"))
    return _scored(name, DATA, 0, points)


def _train(context: Context, name: str, kind: str, repeat: int) -> Outcome:
    """Train one model and score its samples."""
    s, seed = context.settings, context.seed + repeat
    x = SETS[name][0](s["points"], seed)
    model = MODELS[kind]((2,), 2, width=s["width"], seed=seed, device=context.device)
    model.fit(x, steps=s["steps"], batch_size=s["batch"], seed=seed, progress=False)
    return _scored(name, kind, repeat, model.sample(s["n"], generator=stream(seed, "measured")).cpu())


def _scored(name: str, model: str, repeat: int, points: Tensor) -> Outcome:
    _, centres, std = SETS[name]
    result = modes(points.double(), centres, std)
    share = result.high_quality
    values = {
        "set": name,
        "model": model,
        "repeat": repeat,
        "found": float(result.found),
        "share": share.value if share is not None else 0.0,
        "reverse_kl": result.reverse_kl.value,
    }
    return Outcome(values, {"points": points[:SHOWN].float()})


def conclude(context: Context, outcomes: Mapping[str, Outcome]) -> Findings:
    """PacGAN's table, and pictures of the samples."""
    s = context.settings
    runs = runs_by(outcomes, "set", "model")
    header = ("set", "model", "modes found", "within 3σ", "reverse KL", "published: modes, within 3σ, reverse KL")
    table = Table(
        f"{s['n']} samples; mean ± standard deviation of {s['repeats']} trainings of {s['steps']} batches of"
        f" {s['batch']} with equal networks. A mode is found if a sample lies within 3σ of it. Of the data"
        f" {WHOLE:.1%} lie within 3σ. By chance alone even samples have a reverse KL of {_even(s['sets'], s['n'])}; the"
        " data's modes take turns. Published: PacGAN's paper, other networks and ten trainings, not comparable in"
        " absolute value.",
        header,
        [_row(key, some) for key, some in runs.items()],
    )
    pictures = {_figure(name): Picture(chart(_panels(name, outcomes), columns=3), _caption(name)) for name in s["sets"]}
    return Findings(_claims(s["sets"], runs), pictures, [table])


def _even(sets: Sequence[str], n: int) -> str:
    """What the reverse KL of n samples is too large by, (modes - 1)/(2n), on each set."""
    return ", ".join(f"{(len(SETS[name][1]) - 1) / (2 * n):.2g} ({name})" for name in sets)


def _figure(name: str) -> str:
    return f"modes-{name}.png"


def _claims(sets: Sequence[str], runs: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]) -> list[Claim]:
    """Judge what can be judged of the models that were trained."""

    def values(key: str, model: str) -> dict[str, list[float]]:
        return {name: [run[key] for run in runs[name, model]] for name in sets if (name, model) in runs}

    def said(key: str, *models: str) -> str:
        form = ".1%" if key == "share" else ".3g"
        lists = [(model, values(key, model)) for model in models]
        return "; ".join(f"{model} {listed(each, form)}" for model, each in lists if each)

    def learnt(model: str) -> list[str]:
        return [name for name, some in values("share", model).items() if min(some) >= LEARNT]

    figure = _figure(sets[-1])
    whole = {name: float(len(SETS[name][1])) for name in sets}
    asked = {model for _, model in runs}
    rule = f"Sets on which a training has fewer than {LEARNT:.0%} within 3σ are not judged: it is not over there."
    claims = []
    if "GAN" in asked:
        found, share, able = values("found", "GAN"), values("share", "GAN"), learnt("GAN")
        claims.append(
            Claim(
                "Mode collapse: a GAN misses modes of the data.",
                judged([any(statistics.mean(found[name]) < whole[name] for name in able)] if able else []),
                f"Modes found of {', '.join(f'{int(k)} ({name})' for name, k in whole.items())}:"
                f" {said('found', 'GAN')}; reverse KL {said('reverse_kl', 'GAN')}; within 3σ {said('share', 'GAN')}."
                f" Confirmed means: on average fewer than there are, on a set that is judged. {rule}",
                _figure(able[0]) if able else figure,
            )
        )
        claims.append(
            Claim(
                "Mode mixture: a GAN makes samples between the modes.",
                judged([statistics.mean(share[name]) < MIXED for name in able]),
                f"Within 3σ of a mode: {said('share', 'GAN')}; of the data {WHOLE:.1%}. Confirmed means: below"
                f" {MIXED:.0%} on every set that is judged. {rule}",
                _figure(able[0]) if able else figure,
            )
        )
    packed = [model for model in ("PacGAN2", "PacGAN4") if model in asked]
    if packed and "GAN" in asked:
        fair = [name for name in sets if all(name in learnt(model) for model in ("GAN", *packed))]
        kl = {model: values("reverse_kl", model) for model in ("GAN", *packed)}
        claims.append(
            Claim(
                "A critic that sees two samples or more at a time loses fewer modes.",
                judged([above(kl["GAN"][name], kl[model][name]) for model in packed for name in fair]),
                f"Reverse KL to even modes: {said('reverse_kl', 'GAN', *packed)}; modes found:"
                f" {said('found', 'GAN', *packed)}. Confirmed means: every packed critic has less reverse KL on every"
                f" judged set, by more than two standard errors of the difference. {rule}",
                figure,
            )
        )
    if "AE-OT" in asked:
        found, share = values("found", "AE-OT"), values("share", "AE-OT")
        claims.append(
            Claim(
                "AE-OT solves both: it finds all modes and mixes none.",
                verdict(
                    all(min(found[name]) == whole[name] and statistics.mean(share[name]) >= MIXED for name in sets)
                ),
                f"Modes found: {said('found', 'AE-OT')}; within 3σ: {said('share', 'AE-OT')}. Confirmed means: all"
                f" modes in every training, and {MIXED:.0%} within 3σ, on every set. More than the data's {WHOLE:.1%}"
                " is possible, as blending draws points to the middle of their mode.",
                figure,
            )
        )
        others = [model for model in MODELS if model in asked and model != "AE-OT"]
        rivals = [(model, name) for model in others for name in learnt(model)]
        claims.append(
            Claim(
                "Every model trained well enough to judge whose generator is one continuous map from noise mixes modes"
                " more than AE-OT.",
                judged([statistics.mean(values("share", m)[k]) < statistics.mean(share[k]) for m, k in rivals]),
                f"Within 3σ: {said('share', 'AE-OT', *others)}. Confirmed means: on average fewer in each than of AE-OT"
                f" on that set. {rule} So this rests on"
                f" {', '.join(f'{model} ({name})' for model, name in rivals) or 'nothing'}.",
                _figure(rivals[0][1]) if rivals else figure,
            )
        )
    return claims


def _row(key: tuple[str, str], runs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    cells = [
        plus_minus([run[name] for run in runs], form)
        for name, form in (("found", ".3g"), ("share", ".1%"), ("reverse_kl", ".2g"))
    ]
    paper = PUBLISHED.get(key)
    return (*key, *cells, f"{paper[0]:g}, {paper[1]:.1%}, {paper[2]:g}" if paper else "")


def _panels(name: str, outcomes: Mapping[str, Outcome]) -> list[Panel]:
    """The first training of each model over the data, as in the lecture's figure."""
    first = [o for o in outcomes.values() if o.values["set"] == name and o.values["repeat"] == 0]
    real = next(o.tensors["points"] for o in first if o.values["model"] == DATA)
    side = 1.25 * float(real.abs().max())
    panels = []
    for outcome in first:
        v = outcome.values
        clouds = [Cloud(real, colour=1, size=10)]
        if v["model"] != DATA:
            clouds.append(Cloud(outcome.tensors["points"], colour=2, size=2, alpha=0.6))
        title = f"{v['model']}: {v['found']:.0f} modes, {v['share']:.1%} within 3σ"
        panels.append(Panel(title, clouds=clouds, xlim=(-side, side), ylim=(-side, side), equal=True))
    return panels


def _caption(name: str) -> str:
    return (
        f"The {name} of {len(SETS[name][1])} Gaussians: data in orange, generated points of the first training of each"
        " model in green. A mode without green is lost; green between modes is mixture. Points outside of the frame are"
        " counted, not drawn."
    )
