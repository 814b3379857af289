"""Generation: the nearest centroids of samples, and what Algorithm 2 makes of them, beside what else does it.

python bench/generate.py            four sizes with two threads, under a minute; writes results/generate.json
python bench/generate.py --quick    few samples of two of them, writing nothing

Times are of one sample, all samples given: the search of its d + 1 nearest centroids by `ops.topk`, FAISS' exact flat
index, SciPy's k-d tree in few dimensions and plain torch; the whole point by `SemiDiscreteOT.extend` and plain torch.
"""

import importlib.util
import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from harness import interleaved, parser_of, report
from scipy.spatial import cKDTree
from torch import Tensor

from otgen import SemiDiscreteOT, ops
from otgen.data import problem

SIZES = [(20_000, 2), (20_000, 3), (10_000, 16), (10_000, 64)]
TREE_DIM = 3  # beyond which a k-d tree visits most of its leaves
FEWER = 8  # times fewer samples for what is slower
CHUNK = 1024  # samples that plain torch scores at a time

Row = dict[str, Any]


def main() -> None:
    """Time every size and write results/generate.json."""
    parser = parser_of(__doc__)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for m, d in SIZES[1:3] if arguments.quick else SIZES:
        rows.append(measure_size(m, d, 4096 if arguments.quick else 1 << 16, arguments.threads))
        print(rows[-1], file=sys.stderr, flush=True)
    report(None if arguments.quick else "generate", rows)


def measure_size(m: int, d: int, n: int, threads: int) -> Row:
    """One row: microseconds a sample, and ratios."""
    ot = SemiDiscreteOT(tol=0.05, progress=False).fit(*problem(f"mixture-{m}x{d}", 0))
    centroids, k = ot.centroids_.float(), d + 1
    x = torch.rand(n, d, generator=torch.Generator().manual_seed(0))
    few = x[: n // FEWER]
    plain = PlainTorch(ot)
    made, theirs = ot.extend(few), plain(few)
    differ = (made.nan_to_num() - theirs.nan_to_num()).norm(dim=1) > 1e-3 * made.nan_to_num().norm(dim=1).mean()
    assert float(differ.double().mean()) < 0.01, "plain torch makes other points, beyond rounding"

    calls: dict[str, tuple[int, Callable[[], object]]] = {
        "extend": (n, partial(ot.extend, x)),
        "extend, torch": (len(few), partial(plain, few)),
        "nearest": (n, partial(ops.topk, x, centroids, -0.5 * centroids.square().sum(1), k)),
        "nearest, torch": (len(few), partial(nearest, few, centroids, k)),
    }
    if importlib.util.find_spec("faiss") is not None:
        calls["nearest, FAISS"] = (len(few), _faiss(centroids, few.numpy(), k, threads))
    if d <= TREE_DIM:
        calls["nearest, k-d tree"] = (n, partial(cKDTree(centroids).query, x.numpy(), k, workers=threads))
    times = interleaved({name: call for name, (_, call) in calls.items()}, repeats=5)
    row: Row = {"m": m, "d": d, "k": k} | {f"{name} us": 1e6 * times[name].median / calls[name][0] for name in calls}
    row |= {f"{name} spread": times[name].spread / times[name].median for name in calls}
    row["extend ratio"] = row["extend, torch us"] / row["extend us"]
    row["nearest ratio"] = min(row[f"{name} us"] for name in calls if name.startswith("nearest,")) / row["nearest us"]
    return row


class PlainTorch:
    """Algorithm 2 as it is written down, in float32, some samples at a time."""

    def __init__(self, ot: SemiDiscreteOT) -> None:
        mean = ot.weights_ @ ot.targets_
        scale = ((ot.weights_ @ (ot.targets_ - mean).square()).mean()).sqrt()
        self.y, self.values = ((ot.targets_ - mean) / scale).float(), ot.targets_.float()
        self.length = (self.y.square().sum(1) + 1).sqrt()
        self.centroids, self.least = ot.centroids_.float(), math.cos(ot.singular_set().threshold)

    def __call__(self, x: Tensor) -> Tensor:
        """Points of samples; nan where one is abandoned."""
        return torch.cat([self._points(part) for part in x.split(CHUNK)])

    def _points(self, x: Tensor) -> Tensor:
        distance, near = torch.cdist(x, self.centroids).topk(x.shape[1] + 1, largest=False)
        cosine = (self.y[near] * self.y[near[:, :1]]).sum(2) + 1
        blend = cosine >= self.least * self.length[near] * self.length[near[:, :1]]
        weight = blend / distance.clamp_min(1e-12)
        points = (weight[:, :, None] * self.values[near]).sum(1) / weight.sum(1, keepdim=True)
        return points.masked_fill(~blend[:, 1:].any(1, keepdim=True), math.nan)


def nearest(x: Tensor, centroids: Tensor, k: int) -> Tensor:
    """The k nearest by `cdist` and `topk`."""
    return torch.cat([torch.cdist(part, centroids).topk(k, largest=False)[1] for part in x.split(CHUNK)])


def _faiss(centroids: Tensor, x: np.ndarray, k: int, threads: int) -> Callable[[], object]:
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids.numpy())
    return partial(index.search, x, k)


if __name__ == "__main__":
    main()
