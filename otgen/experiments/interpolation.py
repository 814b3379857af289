"""Latent interpolation: the straight line between two codes against the path through the transport map.

An autoencoder's codes need not fill the space between them, so a straight line leaves them. AE-OT has another way: the
straight line between two points of noise, mapped by the extended transport (the lecture's Algorithm 2). It stays among
codes, and where it crosses the singular set it jumps.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from otgen import plots
from otgen.charts import Line, Panel, chart
from otgen.experiments import lineup
from otgen.experiments.experiment import Claim, Context, Findings, Outcome, Parts, Picture, Table, verdict
from otgen.experiments.spread import plus_minus
from otgen.metrics import LeNet, train_lenet
from otgen.models import AEOT
from otgen.seeds import stream

WAYS = {"line": "straight line between codes", "map": "path through the transport map"}

SHOWN = 20
"""Images along a way in the pictures."""

PICTURED = 5
"""Pairs in the pictures."""

FIGURE, SHEETS = "interpolation.png", "interpolation-digits.png"


def parts(context: Context) -> Parts:
    """One part for each autoencoder with its map."""
    s = context.settings
    if s["points"] < 2 * SHOWN or s["points"] % 2 == 0:
        raise ValueError(
            f"points must be odd, as every other one is left out, and at least {2 * SHOWN + 1}, got {s['points']}"
        )
    if s["pairs"] < PICTURED:
        raise ValueError(f"pairs must be at least {PICTURED}, which are drawn, got {s['pairs']}")
    return {f"aeot-{repeat}": partial(_walk, context, repeat) for repeat in range(s["repeats"])}


def _walk(context: Context, repeat: int) -> Outcome:
    """Fit one AE-OT and walk between pairs of digits of different classes, both ways."""
    s, seed = context.settings, context.seed + repeat
    x, labels = lineup.images_of("digits")
    lenet = train_lenet(x, labels, seed=context.seed, cache=context.cache)
    model = AEOT((1, 8, 8), s["d"], width=s["width"], tol=s["tol"], seed=seed, device=context.device)
    model.fit(x, epochs=s["epochs"], batch_size=s["batch"], seed=seed, progress=False)
    ot = model.prior.ot_
    assert ot is not None
    a, b = _pairs(labels, s["pairs"], stream(seed, "pairs"))
    t = torch.linspace(0, 1, s["points"], dtype=torch.float64)[:, None]
    ways: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    pictures, steps = [], []
    for number, (i, j) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        ends = ot.targets_[[i, j]]
        noise = ot.extend(torch.lerp(ot.centroids_[i], ot.centroids_[j], t))
        noise[0], noise[-1] = ends  # where the extended map is these codes, or is not defined
        kept = torch.isfinite(noise).all(1)
        line = torch.lerp(ends[0], ends[1], t)
        # The line that stands still wherever the path does: what a gap alone makes of a way without jumps.
        still = float(_lengths(model.decode(_filled(line, kept).float()).cpu().clamp(0, 1)).max())
        for way, codes in (("line", line), ("map", _filled(noise, kept))):
            images = model.decode(codes.float()).cpu().clamp(0, 1)
            more = {"abandoned": float((~kept).double().mean()), "still": still}
            ways[way].append(_measures(images, x, lenet) | more)
            if number < PICTURED:
                pictures.append(images[torch.linspace(0, len(images) - 1, SHOWN).round().long()])
                steps.append(_lengths(images))
    values: dict[str, Any] = {"seed": seed, "ways": ways, "converged": ot.converged_, "extractor": lenet.fingerprint}
    made = model.sample(len(x), generator=stream(seed, "samples")).cpu().clamp(0, 1)
    values["generated"] = _distance(made, x)
    values["copies"] = _distance(model.reconstruct(x).cpu(), x)
    return Outcome(values, {"pictures": torch.stack(pictures), "steps": torch.stack(steps)})


def _pairs(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows (count,) and (count,) of digits of different classes."""
    drawn = torch.randint(len(labels), (4 * count, 2), generator=torch.Generator().manual_seed(seed))
    a, b = drawn[labels[drawn[:, 0]] != labels[drawn[:, 1]]][:count].T
    return a, b


def _filled(points: Tensor, kept: Tensor) -> Tensor:
    """Points (n, d) with those that were not kept, (n,), replaced by the last kept before them; the first one is."""
    last = torch.where(kept, torch.arange(len(kept)), 0).cummax(0).values
    return points[last]


def _lengths(images: Tensor) -> Tensor:
    """Distance (n - 1,) from each image to the next, over that between the ends."""
    flat = images.flatten(1).double()
    lengths: Tensor = (flat[1:] - flat[:-1]).norm(dim=1) / (flat[-1] - flat[0]).norm()
    return lengths


def _measures(images: Tensor, x: Tensor, lenet: LeNet) -> dict[str, float]:
    """Jumps, length and looks of a way of images (n, 1, h, w)."""
    lengths = _lengths(images)
    with torch.no_grad():
        sure = lenet.network(images).softmax(1).max(1).values
    n = len(images)
    return {
        "jump": float(lengths.max()),
        "coarse": float(_lengths(images[::2]).max()),
        "length": float(lengths.sum()),
        "distance": _distance(images[n // 4 : n - n // 4], x),
        "doubt": float((sure < 0.9).double().mean()),
    }


def _distance(images: Tensor, x: Tensor) -> float:
    """Mean distance of images to the nearest of x."""
    return float(torch.cdist(images.flatten(1), x.flatten(1)).min(1).values.mean())


def conclude(context: Context, outcomes: Mapping[str, Outcome]) -> Findings:
    """Jumps, and how far from digits the two ways lead."""
    runs = [outcome.values for outcome in outcomes.values()]
    both = {way: [row for run in runs for row in run["ways"][way]] for way in WAYS}
    jump = {way: statistics.median(row["jump"] for row in rows) for way, rows in both.items()}
    grows = statistics.median(row["coarse"] / row["jump"] for row in both["line"])
    still = statistics.median(row["still"] for row in both["map"])
    beyond = [[row["jump"] - row["still"] for row in run["ways"]["map"]] for run in runs]
    gain = [[p["distance"] - q["distance"] for p, q in zip(*run["ways"].values(), strict=True)] for run in runs]
    far = {way: statistics.mean(row["distance"] for row in rows) for way, rows in both.items()}
    inside = statistics.mean(row["jump"] / row["length"] for row in both["map"])
    certified = sum(run["converged"] for run in runs)
    copies, generated = (statistics.mean(run[key] for run in runs) for key in ("copies", "generated"))
    claims = [
        Claim(
            "The transport map jumps where modes meet; the straight line between codes does not.",
            verdict(all(_positive(some) for some in beyond) and grows > 1.5),
            "Largest step between images on a way, over the distance of its ends, median over pairs:"
            f" {jump['map']:.3g} through the map, {jump['line']:.3g} on the line, {still:.3g} on the line if it, too,"
            " stands still wherever the map is not defined. With half as many points the line's step is"
            f" {grows:.2f} times as long, as it is where nothing jumps. Confirmed means: longer through the map than on"
            " the line that stands still, by more than three standard errors in every autoencoder, and more than 1.5"
            " times as long.",
            FIGURE,
        ),
        Claim(
            "The straight line leaves the data; the path through the map stays among them.",
            verdict(all(_positive(some) for some in gain)),
            "Distance to the nearest digit in the middle half of the way:"
            f" {far['line']:.3g} on the line, {far['map']:.3g} through the map; of reconstructions {copies:.3g}, of"
            f" generated digits {generated:.3g}. The largest single step is {inside:.0%} of the path through the"
            " map. Confirmed means: less by more than three standard errors in every autoencoder.",
            SHEETS,
        ),
    ]
    table = Table(
        f"8 x 8 digits, {context.settings['pairs']} pairs of different classes in each of"
        f" {context.settings['repeats']} autoencoders, {context.settings['points']} points on each way,"
        f" {certified} of the maps certified; lengths over the distance of the ends; mean ± standard deviation",
        ("way", "largest step", "the same, half the points", "length", "distance to the nearest digit, middle half",
         "a classifier is less than 90 % sure", "noise that is abandoned"),
        [_row(label, both[way]) for way, label in WAYS.items()],
    )  # fmt: skip
    first = next(iter(outcomes.values()))
    sheets = {
        f"pair {i // 2 + 1}, {way}": images
        for i, (images, way) in enumerate(zip(first.tensors["pictures"], PICTURED * list(WAYS), strict=True))
    }
    pictures = {
        FIGURE: Picture(
            chart([_histogram(both, "jump"), _histogram(both, "distance"), *_along(first)], columns=2),
            "Above: the largest step on each way, and distance to the nearest digit, sorted. Below: the steps along"
            " the way of two pairs; the path through the map stands still within a cell's reach and jumps between.",
        ),
        SHEETS: Picture(
            plots.contact_sheet(sheets),
            f"Each pair's two ways, {SHOWN} images equally spaced in t; where the path is not defined it stays at its"
            " last image.",
        ),
    }  # fmt: skip
    return Findings(claims, pictures, [table])


def _positive(values: Sequence[float]) -> bool:
    """Whether the mean is above 0 by more than three standard errors."""
    return statistics.mean(values) > 3 * statistics.stdev(values) / math.sqrt(len(values))


def _row(label: str, rows: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    cells = [plus_minus([row[key] for row in rows]) for key in ("jump", "coarse", "length", "distance", "doubt")]
    abandoned = f"{statistics.mean(row['abandoned'] for row in rows):.1%}" if label == WAYS["map"] else ""
    return (label, *cells, abandoned)


def _histogram(both: Mapping[str, Sequence[Mapping[str, float]]], key: str) -> Panel:
    """Values of all pairs in order, a curve for each way."""
    lines = []
    for colour, (way, rows) in enumerate(both.items()):
        values = sorted(row[key] for row in rows)
        lines.append(Line([(i + 0.5) / len(values) for i in range(len(values))], values, WAYS[way], colour=colour))
    title, label = {
        "jump": ("largest step on a way", "step over distance of the ends"),
        "distance": ("how far the middle half is from digits", "distance to the nearest digit"),
    }[key]
    return Panel(title, "share of pairs", label, lines, yscale="log" if key == "jump" else "linear")


def _along(outcome: Outcome) -> list[Panel]:
    """Steps along both ways of the first two pairs."""
    panels = []
    for pair in range(2):
        lines = []
        for colour, (label, lengths) in enumerate(
            zip(WAYS.values(), outcome.tensors["steps"][2 * pair : 2 * pair + 2], strict=True)
        ):
            t = torch.linspace(0, 1, len(lengths)).tolist()
            lines.append(Line(t, lengths.tolist(), label, colour=colour))
        panels.append(Panel(f"pair {pair + 1}: steps along the way", "t", "step over distance of the ends", lines))
    return panels
