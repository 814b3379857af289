"""Kernels beside plain torch, FAISS' exact flat inner-product search and PyKeOps, in one run, answers checked first.

python bench/ops.py            every size with two threads, and some of them held to slower instruction sets; writes
                               results/ops-<the fastest>.json
python bench/ops.py --quick    small sample counts; exits with 1 if assign is slower than torch

Gflop/s are effective ones, 2 n m d over time, whatever a contender leaves out; slow ones get fewer samples. FAISS has
one of two speeds for as long as a process lives: its best of all processes with the same kernels counts. The peak
beside them is that of a loop of products in registers in the same run, of the kind that the filter makes: bfloat16 on
the matrix unit, bytes with VNNI, shorts on AVX2, float32 elsewhere.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ops_peers as peers
import torch
from harness import copy_speed, interleaved, parser_of, peak_memory, report
from torch import Tensor

from otgen import _ext, ops

SIZES = [
    (2_000, 16), (10_000, 64), (60_000, 64), (60_000, 100), (60_000, 128), (10_000, 2), (100_000, 3), (200_000, 128),
]  # fmt: skip
FEW = SIZES[:2]  # in quick mode
HELD = [(2_000, 16), (10_000, 64), (60_000, 128)]  # for slower instruction sets
SCORES = {False: 6e8, True: 5e7}  # n m of one call: plain torch, slowest of all, takes a few seconds for them
FEWEST = {False: 1 << 15, True: 1024}  # samples for ours, which packs the targets first: a fit has 20 m and more
STEP = 0.03  # of the heights for a shortlist, in mean gaps
LOW_DIM, LOW_FACTOR = 8, 10  # up to this d ours gets so many more samples: a call is too short to be timed
PROCESSES = 5  # in which FAISS is timed alone, after the one beside all others

Row = dict[str, Any]


def main() -> None:
    """Time every size and write results/ops-<instruction set>.json."""
    parser = parser_of(__doc__)
    parser.add_argument("--held", action="store_true", help=argparse.SUPPRESS)  # the process of one instruction set
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # one of the processes of FAISS
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not arguments.held:
        peers.best_blas()
    known = peers.installed(arguments.threads)
    if arguments.held or arguments.quick:
        known.pop("keops", None)
    sizes = HELD if arguments.held else FEW if arguments.quick else SIZES
    if arguments.alone:
        print(json.dumps([alone(m, d, known["faiss"]) for m, d in sizes]))
        return
    rows, copy = [], copy_speed(1 << 20 if arguments.quick else 1 << 28) / 1e9
    for m, d in sizes:
        rows.append(measure_size(m, d, known, arguments.quick, arguments.threads))
        rows[-1] |= {"copy GB/s": copy, "faiss BLAS": peers.blas_of("faiss")}
        print(rows[-1], file=sys.stderr, flush=True)
    if arguments.quick:
        report(None, rows)
        sys.exit("assign is slower than torch" if any(row["assign / torch"] < 1 for row in rows) else None)
    name = f"ops-{ops.instruction_set()}"
    if not arguments.held:
        report(name, rows)  # before others can fail
    if "faiss" in known:
        at_its_best(rows, [*sys.argv[1:], "--alone"])
    if arguments.held:
        print(json.dumps(rows))
        return
    rows += [row for isa in peers.HELD_TO for row in held(isa, arguments.threads)]
    share_the_best(rows)
    report(name, rows)


def held(isa: str, threads: int) -> list[Row]:
    """Rows of a process in which all contenders are held to an instruction set; none where this is the fastest one."""
    if isa not in ops.instruction_sets() or isa == ops.instruction_set():
        return []
    rows: list[Row] = _child(["--held", "--threads", str(threads)], {**os.environ, **peers.HELD_TO[isa]})
    return rows


def at_its_best(rows: list[Row], arguments: list[str]) -> None:
    """Put FAISS' best speed of `PROCESSES` more into the rows."""
    speeds = [[row["faiss Gflop/s"] for row in rows], *(_child(arguments, os.environ) for _ in range(PROCESSES))]
    for row, *found in zip(rows, *speeds, strict=True):
        row["faiss Gflop/s"], row["faiss slowest process Gflop/s"] = max(found), min(found)
        del row["faiss spread"]  # which was that of one process
    share_the_best(rows)


def share_the_best(rows: list[Row]) -> None:
    """Give FAISS the best that it had on a problem with the same kernels, whatever ours was held to."""
    rows = [row for row in rows if "faiss Gflop/s" in row]
    for row in rows:
        alike = [other for other in rows if all(other[key] == row[key] for key in ("m", "d", "faiss BLAS"))]
        row["faiss Gflop/s"] = max(other["faiss Gflop/s"] for other in alike)
        row["assign / faiss"] = row["assign Gflop/s"] / row["faiss Gflop/s"]


def _child(arguments: list[str], environment: Mapping[str, str]) -> Any:
    """What this program prints last in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{Path(__file__).name} {' '.join(arguments)} with OTGEN_ISA={environment.get('OTGEN_ISA')} failed")
    return json.loads(done.stdout.strip().splitlines()[-1])


def alone(m: int, d: int, peer: peers.Peer) -> float:
    """Gflop/s of a peer with nothing beside it."""
    n = samples_of(m, quick=False)
    x, y, h, _ = problem(n, m, d)
    return 2e-9 * n * m * d / interleaved({"": partial(peer.make(y, h), x)}, repeats=3)[""].median


def samples_of(m: int, quick: bool) -> int:
    """Samples of a call of plain torch."""
    return max(1024, int(SCORES[quick] / m) // 32 * 32)


def problem(n: int, m: int, d: int) -> tuple[Tensor, Tensor, Tensor, torch.Generator]:
    """Samples, targets and heights of Voronoi cells, and the generator that made them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator)
    y = torch.randn(m, d, generator=generator)
    return x, y, -0.5 * y.square().sum(1), generator


def measure_size(m: int, d: int, known: dict[str, peers.Peer], quick: bool, threads: int) -> Row:
    """One row: effective Gflop/s, ratios of them, the part of the peak, memory and spread."""
    n = samples_of(m, quick)
    x, y, h, generator = problem(max(FEWEST[quick], n * (LOW_FACTOR if d <= LOW_DIM else 1)), m, d)
    moved = small_step(x, y, h, generator)
    calls: dict[str, tuple[int, Callable[[], object]]] = {
        "assign": (len(x), partial(ops.assign, x, y, h)),
        "topk 2": (len(x), partial(ops.topk, x, y, h, 2)),
        "measure": (len(x), partial(ops.measure, y, h, "normal", len(x))),
        "sample": (len(x), partial(ops.sample, "normal", len(x), d)),
        "reassign": (len(x), partial(ops.Shortlist(x, y, h).assign, moved)),
    }
    whole: dict[str, Callable[[], object]] = {name: call for name, (_, call) in calls.items()}  # with what is kept
    for name, peer in known.items():
        if peer.dims is None or d in peer.dims:
            few = x[: max(256, int(n * peer.scores))]
            calls[name] = (len(few), partial(peer.make(y, h), few))
            whole[name] = partial(_from_scratch, peer, y, h, few)
    memory = {f"{name} MB": peak_memory(call) / 1e6 for name, call in whole.items() if name != "sample"}
    winner = ops.assign(x, y, h)[0]
    for name in known.keys() & calls.keys():
        count, call = calls[name]
        assert agree(winner[:count], call(), x[:count], y, h), f"{name} disagrees beyond rounding"
    peaks: list[float] = []
    contenders: dict[str, Callable[[], object]] = {name: call for name, (_, call) in calls.items()}
    check_ours(x, y, h, moved, calls)
    contenders["peak"] = lambda: peaks.append(_ext.peak_gflops(threads))
    times = interleaved(contenders, repeats=3 if quick else 5)

    speed = {name: 2e-9 * count * m * d / times[name].median for name, (count, _) in calls.items()}
    row: Row = {"isa": ops.instruction_set(), "m": m, "d": d, "n": len(x)}
    row |= {f"{name} Gflop/s": value for name, value in speed.items() if name != "sample"}
    row |= {f"assign / {name}": speed["assign"] / speed[name] for name in known if name in speed}
    row["reassign / assign"] = speed["reassign"] / speed["assign"]
    row["sampling share"] = times["sample"].median / times["measure"].median
    row |= {f"{name} spread": times[name].spread / times[name].median for name in calls}
    row["peak Gflop/s"] = sorted(peaks)[len(peaks) // 2]
    row["of peak"] = speed["assign"] / row["peak Gflop/s"]
    return row | memory


def check_ours(x: Tensor, y: Tensor, h: Tensor, moved: Tensor, calls: dict[str, tuple[int, Callable[[], Any]]]) -> None:
    """Hold our other kernels to `assign`."""
    assert torch.equal(calls["topk 2"][1]()[0][:, 0], ops.assign(x, y, h)[0]), "topk disagrees with assign"
    assert torch.equal(calls["reassign"][1]()[0], ops.assign(x, y, moved)[0]), "Shortlist disagrees with assign"
    counts = torch.bincount(ops.assign(calls["sample"][1](), y, h)[0], minlength=len(y))
    assert torch.equal(calls["measure"][1]().counts, counts), "measure disagrees with assign"


def _from_scratch(peer: peers.Peer, y: Tensor, h: Tensor, x: Tensor) -> Tensor:
    return peer.make(y, h)(x)


def small_step(x: Tensor, y: Tensor, h: Tensor, generator: torch.Generator) -> Tensor:
    """Heights that moved by `STEP` of the mean gap between best and second best."""
    best = ops.topk(x[:1000], y, h, 2)[1]
    return h + STEP * float((best[:, 0] - best[:, 1]).mean()) * torch.randn(h.shape, generator=generator)


def agree(winner: Tensor, other: Tensor, x: Tensor, y: Tensor, h: Tensor) -> bool:
    """Whether two answers are the same but for ties within float32's rounding of the score."""
    differ = torch.nonzero(winner != other)[:, 0]
    a, b = (_score(x[differ], y[j[differ]], h[j[differ]]) for j in (winner, other))
    return bool(((a - b).abs() <= 1e-5 * (1 + a.abs())).all()) and differ.numel() <= 0.01 * winner.numel()


def _score(x: Tensor, y: Tensor, h: Tensor) -> Tensor:
    return (x.double() * y.double()).sum(1) + h.double()


if __name__ == "__main__":
    main()
