"""Is W really useful? The critic's estimate, W of batches, W of large samples and FID along WGAN training.

Stanczuk et al. 2021, "Wasserstein GANs Work Because They Fail (to Approximate the Wasserstein Distance)". Two numbers
hold the true W1 between the data set and the generator: it is at least the mean distance of generated samples to their
nearest images, as every sample must go somewhere, and on average at most W1 between the data set and a sample.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from otgen import data
from otgen.charts import Line, Panel, chart
from otgen.experiments import lineup
from otgen.experiments.critics import estimate, rank_correlation
from otgen.experiments.experiment import Claim, Context, Findings, Outcome, Parts, Picture, Table, check_names, verdict
from otgen.experiments.spread import above, judged, listed, plus_minus, runs_by
from otgen.metrics import exact_wasserstein, fid, sharpness
from otgen.models import WGAN, WGANGP, Adversarial
from otgen.models.transport import pot_emd
from otgen.seeds import stream

KINDS: dict[str, Callable[..., Adversarial]] = {"wgan": WGAN, "wgan-gp": WGANGP}

BATCH = 64
"""Samples in a batch, whose W is the most that one step of training can see."""

BATCHES = 50
"""Pairs of batches over which W is averaged."""

ROUNDS = 30
"""Of Lloyd's algorithm; the centres of 64 cells of digits move no more by then."""

LATE = 0.2
"""Part of a training that is its end."""

MEASURES = {"estimate": "critic's estimate", "batch": "exact W₁ of batches", "whole": "exact W₁ of all data"}
"""What is compared with FID, by its key."""

FIGURE, SHEETS = "useful-w.png", "useful-w-digits.png"

Runs = Mapping[str, Sequence[Mapping[str, Any]]]
"""Trainings by kind."""


def parts(context: Context) -> Parts:
    """One part for each training, and one for the data alone."""
    s = context.settings
    check_names(s, "kinds", KINDS)
    if s["steps"] < 4 * s["every"]:
        raise ValueError(f"every must leave at least four measurements, got {s['every']}")
    pot_emd("useful-w")  # before any work
    trainings = {f"{k}-{r}": partial(_train, context, k, r) for k in s["kinds"] for r in range(s["repeats"])}
    return {"data": partial(_data, context), **trainings}


def _data(context: Context) -> Outcome:
    """W of batches of data to other batches, and to the blurred centres of as many cells."""
    pixels = data.digits()[0]
    centres = _centres(pixels, BATCH, context.seed)
    pairs = _batches(pixels, BATCHES, stream(context.seed, "pairs"), 2 * BATCH)  # a sample in both would cost nothing
    real = [exact_wasserstein(a, b, 1.0).value for a, b in pairs.view(BATCHES, 2, BATCH, -1)]
    blurred = [exact_wasserstein(batch, centres, 1.0).value for batch in pairs[:, :BATCH]]
    images, of_centres = pixels.view(-1, 1, 8, 8), centres.view(-1, 1, 8, 8)
    shuffled = lineup.shuffled(images, context.seed)
    one, other = shuffled.flatten(1).chunk(2)
    values = {
        "real": real,
        "centres": blurred,
        "halves": exact_wasserstein(one, other, 1.0).value,
        "sharpness": [sharpness(images).value, sharpness(of_centres).value],
    }
    return Outcome(values, {"data": shuffled[:BATCH], "centres": of_centres})


def _centres(x: Tensor, k: int, seed: int) -> Tensor:
    """Means (k, d) of the cells of x (n, d) by Lloyd's algorithm, from k of the samples."""
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(stream(seed, "centres")))[:k]
    centres = x[chosen]
    for _ in range(ROUNDS):
        nearest = torch.cdist(x, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, x)
        counts = nearest.bincount(minlength=k)[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
    return centres


def _batches(x: Tensor, count: int, seed: int, size: int = BATCH) -> Tensor:
    """Batches (count, size, d) of x (n, d), in each no sample twice."""
    rng = torch.Generator().manual_seed(seed)
    return torch.stack([x[torch.randperm(len(x), generator=rng)[:size]] for _ in range(count)])


def _train(context: Context, kind: str, repeat: int) -> Outcome:
    """Train one model and measure every few steps of the generator."""
    s, seed = context.settings, context.seed + repeat
    x, lenet = lineup.images_and_lenet(context, "digits")
    pixels, real = x.flatten(1), lenet(x)
    seen = _batches(pixels, BATCHES, stream(context.seed, "seen"))
    model = KINDS[kind]((64,), s["d"], lr=s["lr"], width=s["width"], seed=seed, device=context.device)
    on_device = pixels.to(context.device)
    rows: list[dict[str, float]] = []

    def look(_: Any, step: int, values: dict[str, float]) -> None:
        if step % (s["every"] * model.n_critic):
            return
        on_there = model.sample(len(pixels), generator=stream(context.seed, "measured"))
        made = on_there.cpu()
        others = _batches(made, BATCHES, stream(context.seed, "others"))
        of_batches = [exact_wasserstein(a, b, 1.0).value for a, b in zip(seen, others, strict=True)]
        rows.append(
            {
                "step": step / model.n_critic,
                "estimate": estimate(model, on_device, on_there),
                "batch": statistics.mean(of_batches),
                "whole": exact_wasserstein(pixels, made, 1.0).value,
                "nearest": float(torch.cdist(made, pixels).min(1).values.mean()),
                "fid": fid(real, lenet(made.clamp(0, 1).view(-1, 1, 8, 8))).value,
            }
        )

    steps = s["steps"] * model.n_critic
    model.fit(pixels, steps=steps, batch_size=BATCH, seed=seed, progress=False, callbacks=[look])
    quality = [row["fid"] for row in rows]
    agreement = {key: rank_correlation([row[key] for row in rows], quality) for key in MEASURES}
    values = {"kind": kind, "seed": seed, "rows": rows, "agreement": agreement, "extractor": lenet.fingerprint}
    images = model.sample(BATCH, generator=stream(context.seed, "shown")).cpu().clamp(0, 1)
    return Outcome(values, {"images": images.view(-1, 1, 8, 8)})


def conclude(context: Context, outcomes: Mapping[str, Outcome]) -> Findings:
    """How far the estimate is from W, what W of batches prefers, and what follows the quality."""
    alone = outcomes["data"].values
    runs = runs_by({name: outcome for name, outcome in outcomes.items() if name != "data"}, "kind")
    name = f"FID[{next(iter(runs.values()))[0]['extractor']}]"
    agreement = {k: {kind: [r["agreement"][k] for r in some] for kind, some in runs.items()} for k in MEASURES}
    pairs, blurred = alone["real"], alone["centres"]
    claims = [_about_the_estimate(runs["wgan-gp"])] if "wgan-gp" in runs else []
    claims += [
        Claim(
            "W of batches is no loss to minimise: blurred images have less of it than the data themselves.",
            judged([above(pairs, blurred, errors=3)]),
            f"W₁ of {BATCH} digits to the {BATCH} centres of Lloyd's algorithm {plus_minus(blurred)}, to {BATCH} other"
            f" digits {plus_minus(pairs)}; sharpness {alone['sharpness'][1]:.2g} and {alone['sharpness'][0]:.2g}."
            " Confirmed means: by more than three standard errors.",
            SHEETS,
        ),
        Claim(
            "WGANs do not work because they approximate W: the critic's poor estimate ranks samples no worse than W"
            " of batches.",
            verdict(
                statistics.mean(sum(agreement["estimate"].values(), []))
                >= statistics.mean(sum(agreement["batch"].values(), []))
            ),
            f"Rank correlation with {name} along training: "
            + "; ".join(f"{label} {listed(agreement[key])}" for key, label in MEASURES.items())
            + ". Confirmed means: no lower on average over all trainings.",
            FIGURE,
        ),
    ]
    table = Table(
        f"MLPs on 8 x 8 digits, in the last {LATE:.0%} of {context.settings['steps']} steps of the generator, and rank"
        f" correlations with {name} along training: mean ± standard deviation of {context.settings['repeats']}"
        f" trainings. Of the data alone W₁ of batches is {statistics.mean(pairs):.3g}, of halves {alone['halves']:.3g}",
        ("model", "critic's estimate", "W₁ is at least", "W₁ is at most", "W₁ of batches", name,
         *(f"correlation: {label}" for label in MEASURES.values())),
        [_row(kind, some) for kind, some in runs.items()],
    )  # fmt: skip
    sheets = [
        Panel(f"data, sharpness {alone['sharpness'][0]:.2g}", images=outcomes["data"].tensors["data"]),
        Panel(f"centres, sharpness {alone['sharpness'][1]:.2g}", images=outcomes["data"].tensors["centres"]),
        *(
            Panel(f"{o.values['kind']}, FID {o.values['rows'][-1]['fid']:.3g}", images=o.tensors["images"])
            for n, o in outcomes.items()
            if n != "data" and o.values["seed"] == context.seed
        ),
    ]
    pictures = {
        FIGURE: Picture(
            chart([panel for kind, some in runs.items() for panel in _panels(kind, some, alone)], columns=3),
            "Left: what the critic says beside W₁ between generated samples and all data; the truth lies between the"
            " two solid curves. The clipped critic's estimate is in units of its unknown K, and scaled"
            " to the largest W₁. Middle: exact W₁ of batches"
            " of 64; dashed: of two batches of data, dotted: of data and blurred centres. Right: quality. A line for"
            " each training.",
        ),
        SHEETS: Picture(
            chart(sheets, columns=2),
            "Batches of data are farther from each other than from the blurred centres; generated digits at the end.",
        ),
    }
    return Findings(claims, pictures, [table])


def _about_the_estimate(runs: Sequence[Mapping[str, Any]]) -> Claim:
    """Whether the estimate of the critic whose slope is held near 1 lies between what W must be."""
    said, low, high = ([_late(run, key) for run in runs] for key in ("estimate", "nearest", "whole"))
    outside = [not a <= e <= b for e, a, b in zip(said, low, high, strict=True)]
    return Claim(
        "The critic does not approximate W.",
        verdict(all(outside)),
        f"WGAN-GP's estimate in the last {LATE:.0%} of the steps is {plus_minus(said)}, where W₁ is at least"
        f" {plus_minus(low)} and at most {plus_minus(high)}. Confirmed means: outside in every training.",
        FIGURE,
    )


def _late(run: Mapping[str, Any], key: str) -> float:
    """Mean over the last part of a training."""
    rows = run["rows"]
    return statistics.mean(float(row[key]) for row in rows if row["step"] > (1 - LATE) * rows[-1]["step"])


def _largest(run: Mapping[str, Any], key: str) -> float:
    """Largest size along a training."""
    return max(abs(float(row[key])) for row in run["rows"])


def _row(kind: str, runs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    late = [plus_minus([_late(run, key) for run in runs]) for key in ("estimate", "nearest", "whole", "batch", "fid")]
    return (kind, *late, *(plus_minus([run["agreement"][key] for run in runs]) for key in MEASURES))


def _panels(kind: str, runs: Sequence[Mapping[str, Any]], alone: Mapping[str, Any]) -> list[Panel]:
    """A row: distances to all data, of batches, and quality."""
    x = [row["step"] for row in runs[0]["rows"]]
    ends = [x[0], x[-1]]

    def curves(key: str, label: str, colour: int, style: str = "-", scaled: bool = False) -> list[Line]:
        every = ([row[key] for row in run["rows"]] for run in runs)
        sizes = [_largest(run, "whole") / (_largest(run, key) or 1.0) if scaled else 1.0 for run in runs]
        return [
            Line(x, [size * v for v in y], label if i == 0 else "", style=style, colour=colour)
            for i, (y, size) in enumerate(zip(every, sizes, strict=True))
        ]

    clipped = kind == "wgan"
    distances = [
        *curves("whole", "to as many samples (upper bound)", 0),
        *curves("nearest", "to the nearest image (lower bound)", 4),
        *curves("estimate", f"critic's estimate{', scaled' if clipped else ''}", 5, "--", clipped),
    ]
    batches = [
        *curves("batch", "data and generated", 1),
        Line(ends, [statistics.mean(alone["real"])] * 2, "data and data", style="--", colour=7),
        Line(ends, [statistics.mean(alone["centres"])] * 2, "data and blurred centres", style=":", colour=7),
    ]
    steps = "steps of the generator"
    return [
        Panel(f"{kind}: W₁ and what the critic says", steps, "W₁", distances),
        Panel(f"{kind}: W₁ of batches of {BATCH}", steps, "W₁", batches),
        Panel(f"{kind}: quality", steps, "FID", curves("fid", "", 2), yscale="log"),
    ]
