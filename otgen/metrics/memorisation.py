"""Memorisation: are generated samples nearer to the training data than fresh data is?"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from otgen.metrics.neighbours import nearest, spacing
from otgen.metrics.score import GROUPS, Score, Values, features, jackknife


@dataclass(frozen=True)
class Memorisation:
    """How much of what was generated was there before.

    Good generators score 1, 1/2, and as `authentic` what `authentic_held_out` is. Copies score 0, 1, 0 where as much
    data was held out as trained on; where half as much was, `ratio` and `nearer` recognise half of the copies.

    Attributes:
        ratio: Median distance to the nearest training sample over the median distance to the nearest held-out one; 1
            where both are 0.
        nearer: Share of the generated samples that are nearer to the training data than to the held-out data.
        authentic: Share of the generated samples that are further from their nearest training sample than that one is
            from its own nearest neighbour in the training data (Alaa et al. 2022). Close to 1 for noise: it says
            nothing about quality.
        authentic_held_out: The same share of the held-out samples, which depends on dimension and size: of 500 normal
            ones 0.4 in two dimensions, 0.85 in 256.
    """

    ratio: Score
    nearer: Score
    authentic: Score
    authentic_held_out: Score


def memorisation(
    generated: Values, train: Values, held_out: Values, *, groups: int = GROUPS, seed: int = 0
) -> Memorisation:
    """Compare the distances of generated samples to training data and to data of the same kind held out.

    For `ratio` and `nearer` the larger of the two sets is cut to the size of the other, at random: nearest neighbours
    come closer as a set grows. The spreads are the jackknife's, as all samples that have one nearest training sample
    share its luck.

    Args:
        generated: Features or pixels, (n, d), floating, n at least `groups`.
        train: Those of the training data, (m, d), floating, m likewise.
        held_out: Those of data that had no part in training, (k, d), floating, k likewise.
        groups: Of the jackknife that gives the spreads.
        seed: Of the cut, and of the jackknife.

    Returns:
        The four scores.

    Raises:
        ValueError: A shape or value does not fit.
        TypeError: Not tensors or arrays of floating point.
    """
    generated = features("memorisation", "generated", generated, least=groups)
    train = features("memorisation", "train", train, like=generated, least=groups)
    held_out = features("memorisation", "held_out", held_out, like=generated, least=groups)
    generator = torch.Generator().manual_seed(seed)
    size = min(len(train), len(held_out))
    some = (x[torch.randperm(len(x), generator=generator, device="cpu")[:size]] for x in (train, held_out))
    scores = [
        *jackknife(_nearness, generated, *some, groups=groups, seed=seed),
        *jackknife(_authenticity, generated, train, held_out, groups=groups, seed=seed),
    ]
    # no bias: that of nearest neighbours does not fall like 1/n, as the jackknife would have it
    return Memorisation(*(replace(score, bias=None) for score in scores))


def _nearness(generated: Tensor, train: Tensor, held_out: Tensor) -> Tensor:
    """`ratio` and `nearer`, (2,)."""
    to_train, to_held_out = nearest(generated, train)[1], nearest(generated, held_out)[1]
    nearer = (to_train < to_held_out).double() + 0.5 * (to_train == to_held_out)
    seen, new = to_train.quantile(0.5), to_held_out.quantile(0.5)  # torch's median is the lower of the middle two
    ratio = torch.ones_like(seen) if seen == new else seen / new
    return torch.stack([ratio, nearer.mean()])


def _authenticity(generated: Tensor, train: Tensor, held_out: Tensor) -> Tensor:
    """The share of generated samples that are authentic, and that of the held-out ones, (2,)."""
    apart = spacing(train)
    shares = [
        (distance > apart[row]).double().mean() for row, distance in (nearest(x, train) for x in (generated, held_out))
    ]
    return torch.stack(shares)
