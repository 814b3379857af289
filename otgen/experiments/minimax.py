"""Minimax against non-saturating: the same GAN trained with either loss of the generator.

Goodfellow et al. 2014, section 3, for the slow beginning of log(1 - D); Arjovsky and Bottou 2017, theorem 2.6, for the
noise in the gradient of -log D.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from otgen import data
from otgen.charts import Line, Panel, chart
from otgen.experiments.experiment import Claim, Context, Experiment, Findings, Outcome, Picture, Table, verdict
from otgen.metrics import LeNet, compare, train_lenet
from otgen.models import GAN
from otgen.nn import adversarial
from otgen.ot.streams import stream

LOSSES = {"minimax": adversarial.minimax_generator, "nonsaturating": adversarial.nonsaturating_generator}

BATCHES, BATCH = 8, 64
"""Batches of noise on which the generator's gradient is measured, always the same, and samples in each."""

EARLY = 0.1
"""Part of a training that is its beginning."""

SHOWN = 36
"""Generated digits to look at."""

CURVE = 200
"""Points of a loss curve that are kept, each a mean over steps."""

FIGURE, SHEETS = "minimax.png", "minimax-digits.png"


def parts(context: Context) -> dict[str, Callable[[], Outcome]]:
    """One part for each training."""
    repeats = range(context.settings["repeats"])
    return {f"{loss}-{repeat}": partial(_train, context, loss, repeat) for loss in LOSSES for repeat in repeats}


def _train(context: Context, loss: str, repeat: int) -> Outcome:
    """Train one GAN and look at it every few steps; both losses start from the same weights."""
    s = context.settings
    pixels, labels = data.digits()
    lenet = train_lenet(pixels.view(-1, 1, 8, 8), labels, seed=context.seed, cache=context.cache)
    gan = GAN((64,), s["d"], loss=loss, lr=s["lr"], width=s["width"], seed=context.seed + repeat, device=context.device)
    z = torch.randn(BATCHES * BATCH, s["d"], generator=torch.Generator().manual_seed(stream(context.seed, "probe")))
    z = z.to(context.device)
    rows: list[dict[str, float]] = []

    def look(model: Any, step: int, values: dict[str, float]) -> None:
        if step == 1 or step % s["every"] == 0:
            rows.append({"step": float(step)} | _gradient(gan, loss, z) | _quality(gan, pixels, lenet, s["n"]))

    gan.fit(
        pixels, epochs=s["epochs"], batch_size=s["batch"], seed=context.seed + repeat, progress=False, callbacks=[look]
    )
    curves = {name: _thinned(torch.from_numpy(gan.history_[name])) for name in ("critic", "generator")}
    values = {"loss": loss, "repeat": repeat, "rows": rows, "curves": curves, "extractor": lenet.fingerprint}
    images = gan.sample(SHOWN, generator=stream(context.seed, "shown")).cpu().clamp(0, 1)
    return Outcome(values, {"images": images.view(-1, 1, 8, 8)})


def _gradient(gan: GAN, loss: str, z: Tensor) -> dict[str, float]:
    """The generator's gradient, length of the mean over batches and noise between them, and mean D of its samples."""
    batches = []
    for part in z.split(BATCH):
        value = LOSSES[loss](gan.critic(gan.generator(part)))
        grads = torch.autograd.grad(value, list(gan.generator.parameters()))
        batches.append(torch.cat([grad.flatten() for grad in grads]).double())
    each = torch.stack(batches)
    with torch.no_grad():
        believed = float(gan.critic(gan.generator(z)).sigmoid().mean())
    return {"gradient": float(each.mean(0).norm()), "noise": math.sqrt(float(each.var(0).sum())), "believed": believed}


def _quality(gan: GAN, pixels: Tensor, lenet: LeNet, n: int) -> dict[str, float]:
    """Kernel distance between generated digits and the data, which suits few samples."""
    made = gan.sample(n, generator=0).cpu().clamp(0, 1)
    (report,) = compare(pixels.view(-1, 1, 8, 8), made.view(-1, 1, 8, 8), lenet, ["KID"])
    return {"kid": report.score.value, "kid_floor": report.floor.value + 2 * report.floor.spread}


def _thinned(values: Tensor) -> list[float]:
    """Means over pieces of a curve."""
    pieces = values.tensor_split(min(CURVE, len(values)))
    return [float(piece.mean()) for piece in pieces]


def conclude(context: Context, outcomes: Mapping[str, Outcome]) -> Findings:
    """Loss curves, gradients and quality of both."""
    runs = {loss: [o.values for o in outcomes.values() if o.values["loss"] == loss] for loss in LOSSES}
    last = max(row["step"] for row in runs["minimax"][0]["rows"])
    early = {loss: _mean(runs[loss], "gradient", 0, EARLY * last) for loss in LOSSES}
    noise = {loss: _mean(runs[loss], "noise", last / 2, last) for loss in LOSSES}
    soon = {loss: _mean(runs[loss], "kid", 0.5 * EARLY * last, 2 * EARLY * last) for loss in LOSSES}
    end = {loss: _mean(runs[loss], "kid", 0.9 * last, last) for loss in LOSSES}
    swing = {loss: statistics.mean(_swing(run["curves"]["generator"]) for run in runs[loss]) for loss in LOSSES}
    fingerprint = runs["minimax"][0]["extractor"]
    claims = [
        Claim(
            "The minimax gradient is small at the beginning, the non-saturating one is not.",
            verdict(early["minimax"] < early["nonsaturating"]),
            f"Mean length over the first {EARLY:.0%} of the steps: {_both(early)}.",
            FIGURE,
        ),
        Claim(
            "So minimax learns slowly at the beginning.",
            verdict(soon["minimax"] > soon["nonsaturating"]),
            f"KID[{fingerprint}] between {EARLY / 2:.0%} and {2 * EARLY:.0%} of the steps: {_both(soon)}; at the end:"
            f" {_both(end)}.",
            FIGURE,
        ),
        Claim(
            "The non-saturating loss is less stable: its gradient is noisier.",
            verdict(noise["nonsaturating"] > noise["minimax"]),
            f"Standard deviation of the gradient between batches, second half of the training: {_both(noise)}; the"
            f" generator's loss moves from one point of the curve to the next by {_both(swing)} on average.",
            FIGURE,
        ),
    ]
    table = Table(
        f"GANs on 8 x 8 digits, mean of {context.settings['repeats']} trainings of {context.settings['epochs']} epochs"
        f" with equal networks; KID of {context.settings['n']} samples",
        ("loss of the generator", "gradient, first tenth", f"KID[{fingerprint}] early", "at the end", "gradient noise",
         "mean step of the loss curve"),
        [
            (loss, *(f"{values[loss]:.3g}" for values in (early, soon, end, noise, swing))) for loss in LOSSES
        ],
    )  # fmt: skip
    sheets = [
        Panel(f"{o.values['loss']}, seed {context.seed + o.values['repeat']}", images=o.tensors["images"])
        for o in outcomes.values()
    ]
    pictures = {
        FIGURE: Picture(chart(_panels(context, runs), columns=3), _caption()),
        SHEETS: Picture(chart(sheets, columns=context.settings["repeats"]), "Generated digits at the end."),
    }
    return Findings(claims, pictures, [table])


def _mean(runs: Sequence[Mapping[str, Any]], key: str, low: float, high: float) -> float:
    """Mean over the measurements at steps in [low, high] of all trainings."""
    return statistics.mean(float(row[key]) for run in runs for row in run["rows"] if low <= row["step"] <= high)


def _swing(curve: Sequence[float]) -> float:
    """Mean change from one point of a curve to the next."""
    return statistics.mean(abs(b - a) for a, b in zip(curve, curve[1:], strict=False))


def _both(values: Mapping[str, float]) -> str:
    return f"{values['minimax']:.3g} (minimax), {values['nonsaturating']:.3g} (non-saturating)"


def _panels(context: Context, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Panel]:
    believed = [0.005 * i for i in range(1, 200)]

    def curve(loss: str, colour: int, key: str) -> Line:
        steps = [row["step"] for row in runs[loss][0]["rows"]]
        values = list(zip(*([row[key] for row in run["rows"]] for run in runs[loss]), strict=True))
        means = [statistics.mean(v) for v in values]
        bands = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
        return Line(steps, means, loss, bands, colour=colour)

    def losses(loss: str) -> Panel:
        last = runs[loss][0]["rows"][-1]["step"]
        lines = []
        for colour, name in enumerate(("critic", "generator")):
            for number, run in enumerate(runs[loss]):
                points = run["curves"][name]
                steps = [last * (i + 0.5) / len(points) for i in range(len(points))]
                label = {"critic": "D", "generator": "G"}[name]
                lines.append(Line(steps, points, label if number == 0 else "", colour=colour))
        return Panel(f"losses of each training, {loss}", "steps", "loss", lines)

    both = list(enumerate(LOSSES, 2))
    floor = runs["minimax"][0]["rows"][-1]["kid_floor"]
    quality = [curve(loss, colour, "kid") for colour, loss in both]
    ends = [quality[0].x[0], quality[0].x[-1]]
    return [
        losses("minimax"),
        losses("nonsaturating"),
        Panel("the two losses", "D(G(z))", "loss of the generator", [
            Line(believed, [math.log(1 - s) for s in believed], "log(1 − D)", colour=2),
            Line(believed, [-math.log(s) for s in believed], "−log D", colour=3),
        ]),
        Panel("length of G's gradient", "steps", "‖gradient‖", [curve(n, c, "gradient") for c, n in both],
              yscale="log"),
        Panel("its noise", "steps", "deviation between batches", [curve(n, c, "noise") for c, n in both],
              yscale="log"),
        Panel(f"KID[{runs['minimax'][0]['extractor']}]", "steps", "KID", [
            *quality, Line(ends, [floor, floor], "real against real + 2 s.e.", style="--", colour=7),
        ], yscale="log"),
    ]  # fmt: skip


def _caption() -> str:
    return (
        "The same networks from the same weights with either loss of the generator. Bands: standard deviation over"
        f" trainings. Gradient: mean of {BATCHES} batches of {BATCH}, and deviation between them. Where KID falls below"
        " the dashed line it cannot be told from that of the data itself."
    )


EXPERIMENT = Experiment(parts, conclude)
