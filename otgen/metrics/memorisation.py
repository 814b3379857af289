"""Memorisation: are generated samples nearer to the training data than fresh data is?"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from otgen.metrics.neighbours import nearest, spacing
from otgen.metrics.score import GROUPS, Score, average, features, jackknife


@dataclass(frozen=True)
class Memorisation:
    """How much of what was generated was there before. Good generators score 1, 1/2, 1/2; copies score 0, 1, 0.

    Attributes:
        ratio: Median distance to the nearest training sample over the median distance to the nearest held-out one.
        nearer: Share of the generated samples that are nearer to the training data than to the held-out data.
        authentic: Share of the generated samples that are further from their nearest training sample than that one is
            from its own nearest neighbour in the training data (Alaa et al. 2022). About 1/2 for data itself, close to
            1 for noise: it says nothing about quality.
    """

    ratio: Score
    nearer: Score
    authentic: Score


def memorisation(
    generated: Tensor, train: Tensor, held_out: Tensor, *, groups: int = GROUPS, seed: int = 0
) -> Memorisation:
    """Compare the distances of generated samples to training data and to data of the same kind held out.

    The larger of the two sets is cut to the size of the other, at random: nearest neighbours come closer as a set
    grows.

    Args:
        generated: Features or pixels, (n, d), floating.
        train: Those of the training data, (m, d), floating.
        held_out: Those of data that had no part in training, (k, d), floating.
        groups: Of the jackknife that gives the spread of the ratio.
        seed: Of the cut, and of the jackknife.

    Returns:
        The three scores.

    Raises:
        ValueError: A shape or value does not fit.
        TypeError: Not tensors of floating point.
    """
    generated = features("memorisation", "generated", generated, least=groups)
    train = features("memorisation", "train", train, like=generated, least=groups)
    held_out = features("memorisation", "held_out", held_out, like=generated, least=groups)
    generator = torch.Generator().manual_seed(seed)
    size = min(len(train), len(held_out))
    train, held_out = (x[torch.randperm(len(x), generator=generator)[:size]] for x in (train, held_out))
    row, to_train = nearest(generated, train)
    to_held_out = nearest(generated, held_out)[1]
    nearer = (to_train < to_held_out).double() + 0.5 * (to_train == to_held_out)
    authentic = to_train[:, 0] > spacing(train)[row[:, 0]]
    ratio = jackknife(_ratio, generated, train, held_out, groups=groups, seed=seed)[0]
    return Memorisation(replace(ratio, bias=None), average(nearer[:, 0]), average(authentic.double()))


def _ratio(generated: Tensor, train: Tensor, held_out: Tensor) -> Tensor:
    return nearest(generated, train)[1].median() / nearest(generated, held_out)[1].median()
