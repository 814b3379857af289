"""Kernels beside plain torch and FAISS' exact flat inner-product search, in one run, answers checked first.

python bench/ops.py            every size, two threads
python bench/ops.py --quick    small sample counts; exits with 1 if assign is slower than torch
"""

import argparse
import sys

import torch
from harness import interleaved, report
from torch import Tensor

from otgen import ops

try:
    import faiss
except ImportError:
    faiss = None

SIZES = [(2_000, 16), (10_000, 64), (60_000, 100), (10_000, 2)]
SCORES = {False: 6e8, True: 5e7}  # n m of one call: plain torch, slowest of all, takes a few seconds for them


def main() -> None:
    """Time every size and write results/ops.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if faiss is None:
        print("FAISS is not installed: left out (pip install 'otgen[bench]')", file=sys.stderr)
    else:
        faiss.omp_set_num_threads(arguments.threads)
    rows = [measure_size(m, d, arguments.quick) for m, d in SIZES]
    report(None if arguments.quick else "ops", rows)
    if arguments.quick and any(row["assign / torch"] < 1 for row in rows):
        sys.exit("assign is slower than torch")


def measure_size(m: int, d: int, quick: bool) -> dict[str, float | int | str]:
    """One row: effective Gflop/s, 2 n m d over time, and ratios of time."""
    n = max(1024, int(SCORES[quick] / m) // 32 * 32)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, d, generator=generator), torch.randn(m, d, generator=generator)
    h = -0.5 * y.square().sum(1)
    winner = ops.assign(x, y, h)[0]

    contenders = {
        "assign": lambda: ops.assign(x, y, h),
        "topk 2": lambda: ops.topk(x, y, h, 2),
        "measure": lambda: ops.measure(y, h, "normal", n),
        "sample": lambda: ops.sample("normal", n, d),
        "torch": lambda: plain_torch(x, y, h),
    }
    assert agree(winner, plain_torch(x, y, h), x, y, h), "torch disagrees beyond rounding"
    if faiss is not None:
        index, query = faiss_index(y, h), torch.cat([x, torch.ones(n, 1)], dim=1).numpy()
        found = torch.from_numpy(index.search(query, 1)[1][:, 0])
        assert agree(winner, found, x, y, h), "FAISS disagrees beyond rounding"
        contenders["faiss"] = lambda: index.search(query, 1)
    times = interleaved(contenders, repeats=3 if quick else 5)

    flop = 2.0 * n * m * d
    row: dict[str, float | int | str] = {"m": m, "d": d, "n": n}
    row |= {f"{name} Gflop/s": flop / t.median / 1e9 for name, t in times.items() if name != "sample"}
    row |= {
        f"assign / {peer}": times[peer].median / times["assign"].median for peer in ("torch", "faiss") if peer in times
    }
    row["sampling share"] = times["sample"].median / times["measure"].median
    row["spread"] = times["assign"].spread / times["assign"].median
    return row


def plain_torch(x: Tensor, y: Tensor, h: Tensor, chunk: int = 1024) -> Tensor:
    """`addmm` and `argmax`, in chunks whose scores fit in memory."""
    return torch.cat([torch.addmm(h, part, y.T).argmax(dim=1) for part in x.split(chunk)])


def faiss_index(y: Tensor, h: Tensor) -> "faiss.IndexFlatIP":
    """Exact inner-product search; the height is one more coordinate."""
    index = faiss.IndexFlatIP(y.shape[1] + 1)
    index.add(torch.cat([y, h[:, None]], dim=1).numpy())
    return index


def agree(winner: Tensor, other: Tensor, x: Tensor, y: Tensor, h: Tensor) -> bool:
    """Whether two answers are the same but for ties within float32's rounding of the score."""
    differ = torch.nonzero(winner != other)[:, 0]
    a, b = (_score(x[differ], y[j[differ]], h[j[differ]]) for j in (winner, other))
    return bool(((a - b).abs() <= 1e-5 * (1 + a.abs())).all()) and differ.numel() <= 0.01 * winner.numel()


def _score(x: Tensor, y: Tensor, h: Tensor) -> Tensor:
    return (x.double() * y.double()).sum(1) + h.double()


if __name__ == "__main__":
    main()
