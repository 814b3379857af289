"""Minimax against non-saturating: the same GAN trained with either loss of the generator.

Goodfellow et al. 2014, section 3, for the slow beginning of log(1 - D), where D tells generated samples easily;
Arjovsky and Bottou 2017, theorem 2.6, for the noise in the gradient of -log D. How far D is ahead decides both, so it
is trained on a par with the generator and with several steps for each of the generator's.
"""

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from otgen.charts import Line, Panel, chart
from otgen.experiments import lineup
from otgen.experiments.critics import gradient_and_noise
from otgen.experiments.experiment import Claim, Context, Findings, Outcome, Parts, Picture, Table
from otgen.experiments.spread import RULE, above, judged, plus_minus, runs_by
from otgen.metrics import kid
from otgen.models import GAN
from otgen.nn import adversarial
from otgen.seeds import stream

LOSSES = {"minimax": adversarial.minimax_generator, "nonsaturating": adversarial.nonsaturating_generator}

BATCHES, BATCH = 8, 64
"""Batches of noise on which the generator's gradient is measured, always the same, and samples in each."""

EARLY = 0.2
"""Part of a training that is its beginning."""

DIGITS = 1797
"""Size of the data set."""

CURVE = 200
"""Points of a loss curve that are kept, each a mean over steps."""

FIGURE, LOSS_CURVES, SHEETS = "minimax.png", "minimax-losses.png", "minimax-digits.png"

Runs = Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]
"""Trainings by loss and n_critic."""


def parts(context: Context) -> Parts:
    """One part for each training."""
    s = context.settings
    if s["every"] > EARLY / 2 * s["epochs"] * (DIGITS // s["batch"]):
        raise ValueError(f"every must be at most a tenth of the training's steps, got {s['every']}")
    return {
        f"{loss}-{n_critic}-{repeat}": partial(_train, context, loss, n_critic, repeat)
        for n_critic in s["n_critic"]
        for loss in LOSSES
        for repeat in range(s["repeats"])
    }


def _train(context: Context, loss: str, n_critic: int, repeat: int) -> Outcome:
    """Train one GAN and look at it every few steps; both losses start from the same weights."""
    s, seed = context.settings, context.seed + repeat
    x, lenet = lineup.images_and_lenet(context, "digits")
    real = lenet(lineup.shuffled(x, context.seed))
    floor = kid(*real.chunk(2))
    gan = GAN(
        (64,), s["d"], loss=loss, n_critic=n_critic, lr=s["lr"], width=s["width"], seed=seed, device=context.device
    )
    z = torch.randn(BATCHES * BATCH, s["d"], generator=torch.Generator().manual_seed(stream(context.seed, "probe")))
    z = z.to(context.device)
    rows: list[dict[str, float]] = []

    def look(model: Any, step: int, values: dict[str, float]) -> None:
        if step == 1 or step % s["every"] == 0:
            made = gan.sample(s["n"], generator=stream(context.seed, "measured")).cpu().clamp(0, 1)
            score = kid(real[: s["n"]], lenet(made.view(-1, 1, 8, 8)))
            rows.append({"step": float(step), "kid": score.value} | _gradient(gan, loss, z))

    gan.fit(x.flatten(1), epochs=s["epochs"], batch_size=s["batch"], seed=seed, progress=False, callbacks=[look])
    values = {
        "loss": loss,
        "n_critic": n_critic,
        "seed": seed,
        "rows": rows,
        "curves": {name: _thinned(torch.from_numpy(gan.history_[name])) for name in ("critic", "generator")},
        "extractor": lenet.fingerprint,
        "floor": [floor.value, floor.spread],
    }
    images = gan.sample(lineup.SHOWN, generator=stream(context.seed, "shown")).cpu().clamp(0, 1)
    return Outcome(values, {"images": images.view(-1, 1, 8, 8)})


def _gradient(gan: GAN, loss: str, z: Tensor) -> dict[str, float]:
    """The generator's gradient, length of the mean over batches and noise between them, and mean D of its samples."""
    length, noise = gradient_and_noise(LOSSES[loss], gan.critic, gan.generator, z, BATCH)
    with torch.no_grad():
        believed = float(gan.critic(gan.generator(z)).sigmoid().mean())
    return {"gradient": length, "noise": noise, "believed": believed}


def _thinned(values: Tensor) -> list[float]:
    """Means over pieces of a curve."""
    pieces = values.tensor_split(min(CURVE, len(values)))
    return [float(piece.mean()) for piece in pieces]


def conclude(context: Context, outcomes: Mapping[str, Outcome]) -> Findings:
    """Gradients, quality and loss curves of both losses."""
    runs = runs_by(outcomes, "loss", "n_critic")
    first = next(iter(runs.values()))[0]
    last, name = first["rows"][-1]["step"], f"KID[{first['extractor']}]"
    ahead = max(context.settings["n_critic"])
    early = {key: _means(some, "gradient", 0, EARLY * last) for key, some in runs.items()}
    soon = {key: _means(some, "kid", EARLY * last / 2, EARLY * last) for key, some in runs.items()}
    end = {key: _means(some, "kid", (1 - EARLY) * last, last) for key, some in runs.items()}
    noise = {key: _means(some, "noise", last / 2, last) for key, some in runs.items()}
    relative = {key: [a / b for a, b in zip(some, _late(runs[key], last), strict=True)] for key, some in noise.items()}
    swing = {key: [_swing(run["curves"]["generator"]) for run in some] for key, some in runs.items()}
    rule = f"Judged with {ahead} D : 1 G. {RULE}"
    ours, theirs = relative["nonsaturating", ahead], relative["minimax", ahead]
    too = "noisier, too" if above(ours, theirs) else "less noisy" if above(theirs, ours) else "as noisy within chance"
    claims = [
        Claim(
            "While D tells generated samples easily, the minimax gradient is small and the non-saturating one is not.",
            judged([above(early["nonsaturating", ahead], early["minimax", ahead])]),
            f"Mean length in the first {EARLY:.0%} of the steps: {_all(early)}. {rule}",
            FIGURE,
        ),
        Claim(
            "So minimax learns slowly at the beginning.",
            judged([above(soon["minimax", ahead], soon["nonsaturating", ahead])]),
            f"{name} from {EARLY / 2:.0%} to {EARLY:.0%} of the steps: {_all(soon)}; in the last {EARLY:.0%}:"
            f" {_all(end)}. {rule}",
            FIGURE,
        ),
        Claim(
            "With D near its optimum the non-saturating loss is less stable: its gradient is noisier.",
            judged([above(noise["nonsaturating", ahead], noise["minimax", ahead])]),
            f"Deviation between batches in the second half: {_all(noise)}. Over the gradient's"
            f" length, which Adam divides out, it is {too}: {_all(relative)}. {rule}",
            FIGURE,
        ),
    ]
    header = ("loss of G", "steps of D for one of G", "gradient early", f"{name} early", "late",
              "gradient noise late", "the same over its length", "change between points of G's loss curve")  # fmt: skip
    measured = (early, soon, end, noise, relative, swing)
    table = Table(
        f"GANs on 8 x 8 digits: mean ± standard deviation of {context.settings['repeats']} trainings of"
        f" {context.settings['epochs']} epochs with equal networks; KID of {context.settings['n']} samples, real"
        f" against real {first['floor'][0]:.2g} ± {first['floor'][1]:.1g}",
        header,
        [(loss, str(k), *(plus_minus(values[loss, k]) for values in measured)) for loss, k in runs],
    )
    seen = [
        Panel(f"{o.values['loss']}, {o.values['n_critic']} D : 1 G", images=o.tensors["images"])
        for o in outcomes.values()
        if o.values["seed"] == context.seed
    ]
    pictures = {
        FIGURE: Picture(chart(_panels(runs, last, name), columns=2), _caption()),
        LOSS_CURVES: Picture(
            chart([_losses(key, some) for key, some in runs.items()], columns=2),
            "Losses of D and G along training, by the generator's loss and the steps of D for one of G; a line for each"
            " training. Where D's loss is 0 it tells all samples, and a minimax G gets no gradient.",
        ),
        SHEETS: Picture(chart(seen, columns=2), "Generated digits at the end, first seed."),
    }
    return Findings(claims, pictures, [table])


def _means(runs: Sequence[Mapping[str, Any]], key: str, low: float, high: float) -> list[float]:
    """For each training the mean over the measurements at steps in [low, high]."""
    return [statistics.mean(row[key] for row in run["rows"] if low <= row["step"] <= high) for run in runs]


def _late(runs: Sequence[Mapping[str, Any]], last: float) -> list[float]:
    """Mean length of the gradient in the second half of each training, above 0."""
    return [max(length, 1e-30) for length in _means(runs, "gradient", last / 2, last)]


def _swing(curve: Sequence[float]) -> float:
    """Mean change from one point of a curve to the next."""
    return statistics.mean(abs(b - a) for a, b in zip(curve, curve[1:], strict=False))


def _all(values: Mapping[tuple[str, int], Sequence[float]]) -> str:
    return ", ".join(f"{plus_minus(some)} ({loss}, {k} D : 1 G)" for (loss, k), some in values.items())


def _panels(runs: Runs, last: float, name: str) -> list[Panel]:
    """For each number of D's steps a row: what D believes, the gradient and its noise, the quality."""
    panels = []
    for k in sorted({k for _, k in runs}):
        some = {loss: runs[loss, k] for loss in LOSSES}
        floor = some["minimax"][0]["floor"]
        limit = floor[0] + 2 * floor[1]
        what = f"{k} D : 1 G"
        real = Line([0.0, last], [limit, limit], "real against real + 2 s.e.", style="--", colour=7)
        panels += [
            Panel(f"{what}, D of generated samples", "steps of D", "D(G(z))", _curves(some, "believed"), ylim=(0, 1)),
            Panel(
                f"{what}, length of G's gradient", "steps of D", "‖gradient‖", _curves(some, "gradient"), yscale="log"
            ),
            Panel(f"{what}, noise of G's gradient", "steps of D", "deviation", _curves(some, "noise"), yscale="log"),
            Panel(f"{what}, {name}", "steps of D", "KID", [*_curves(some, "kid"), real], yscale="log"),
        ]
    return panels


def _curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], key: str) -> list[Line]:
    """A line for each training."""
    lines = []
    for colour, (loss, some) in enumerate(runs.items(), 2):
        for number, run in enumerate(some):
            steps, values = [row["step"] for row in run["rows"]], [row[key] for row in run["rows"]]
            lines.append(Line(steps, values, loss if number == 0 else "", colour=colour))
    return lines


def _losses(key: tuple[str, int], runs: Sequence[Mapping[str, Any]]) -> Panel:
    last = runs[0]["rows"][-1]["step"]
    lines = []
    for colour, (name, label) in enumerate({"critic": "D", "generator": "G"}.items()):
        for number, run in enumerate(runs):
            points = run["curves"][name]
            steps = [last * (i + 0.5) / len(points) for i in range(len(points))]
            lines.append(Line(steps, points, label if number == 0 else "", colour=colour))
    return Panel(f"{key[0]}, {key[1]} D : 1 G", "steps of D", "loss", lines)


def _caption() -> str:
    return (
        "The same networks from the same weights with either loss of the generator; 5 D : 1 G means five steps of D for"
        " one of G. A line for each training. Gradient: mean of"
        f" {BATCHES} batches of {BATCH}, and deviation between them. Below the dashed line KID could not be told from"
        " that of the data itself."
    )
