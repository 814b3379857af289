"""Exact diagrams and exact transport in two and three dimensions beside their peers, answers checked first.

python bench/geometry.py diagrams    time, exponent and memory of a diagram against m; results/geometry.json and .png
python bench/geometry.py solves      uniform targets and the plane's named problems; results/geometry-solve.json
python bench/geometry.py             both; with --large a million targets are solved for too
python bench/geometry.py --quick     exits with 1 if 100 000 cells in the plane take longer than scipy's Voronoi
"""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import geometry_peers as peers
import plots
import torch
from harness import RESULTS, Timing, interleaved, parser_of, peak_memory, report
from torch import Tensor

import otgen
from otgen.data import PROBLEMS, problem

SIZES = {2: (1_000, 10_000, 100_000, 1_000_000), 3: (1_000, 10_000, 100_000)}
PATIENCE = 20.0
"""A peer is left out where it would take longer than these seconds, going by its last time."""

SLOW = 2.0
"""A contender that takes longer than these seconds is timed once, in its check."""

HIDDEN = 0.3
"""Weights are uniform up to this share of the squared mean distance of sites; one site in 40 is then hidden in 2-D."""

LARGE = 200_000  # targets, above which a solve is left to --large

Row = dict[str, float | int | str]


def main() -> None:
    """Measure, and write what was measured."""
    parser = parser_of(__doc__)
    parser.add_argument("part", nargs="?", choices=["diagrams", "solves"])
    parser.add_argument("--large", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.quick:
        sys.exit(quick())
    if arguments.part != "solves":
        rows = diagrams(arguments.threads)
        report("geometry", rows)
        plots.diagrams(rows, RESULTS / "geometry.png")
    if arguments.part != "diagrams":
        rows = []
        try:
            for row in solves(arguments.large):
                rows.append(row)
                print(row, flush=True)
        except KeyboardInterrupt:
            sys.exit("stopped: the file of all is left as it is")
        report("geometry-solve", rows)


def quick() -> str | None:
    """One size in the plane beside scipy; what went wrong, if anything."""
    y, w = sites(100_000, 2)
    scipy = peers.scipy_peer()
    assert scipy.agrees(scipy.make(y.numpy(), w.numpy()), otgen.PowerDiagram(y)), "scipy disagrees"
    times = interleaved({"otgen": partial(diagram, y, w), "scipy": partial(scipy.make, y.numpy(), None)}, repeats=3)
    report(None, [{name: t.median for name, t in times.items()}])
    return "a diagram takes longer than scipy's" if times["otgen"].median > times["scipy"].median else None


# ---- diagrams -------------------------------------------------------------------------------------------------------


def diagrams(threads: int) -> list[Row]:
    """A row for each dimension and size, the last one of each dimension with the exponent."""
    cases = [(d, m) for d, sizes in SIZES.items() for m in sizes]
    diagram(*sites(1000, 2))  # what the first call loads is nobody's memory
    memory = {(d, m): peak_memory(partial(diagram, *sites(m, d))) for d, m in cases}  # before peers leave theirs
    known = peers.installed(threads)
    rows: list[Row] = []
    for d, m in cases:
        slow = {name for row in rows if row["d"] == d for name in known if 10 * float(row.get(name, 0)) >= PATIENCE}
        fit = {name: peer for name, peer in known.items() if name not in slow}
        rows.append(time_diagrams(d, m, fit) | {"peak MB": memory[d, m] / 1e6})
        print(rows[-1], flush=True)
    for d in SIZES:
        mine = [row for row in rows if row["d"] == d]
        mine[-1]["exponent"] = exponent([(float(row["m"]), float(row["otgen"])) for row in mine])
    return rows


def sites(m: int, d: int) -> tuple[Tensor, Tensor]:
    """Uniform random sites (m, d) and weights w (m,), float64; cells of smallest |x - y_j|^2 - w_j."""
    generator = torch.Generator().manual_seed(m + d)
    y = torch.rand(m, d, generator=generator, dtype=torch.float64)
    return y, HIDDEN * m ** (-2 / d) * torch.rand(m, generator=generator, dtype=torch.float64)


def diagram(y: Tensor, w: Tensor) -> otgen.PowerDiagram:
    """Ours, from scratch: index, cells, measures, moments and facets."""
    return otgen.PowerDiagram(y, 0.5 * (w - y.square().sum(1)))


def time_diagrams(d: int, m: int, known: dict[str, peers.Peer]) -> Row:
    """Seconds of every contender that knows the dimension."""
    y, w = sites(m, d)
    seconds: dict[str, Timing] = {}
    again: dict[str, Callable[[], object]] = {"otgen": partial(diagram, y, w)}
    power, voronoi = diagram(y, w), otgen.PowerDiagram(y)
    for name, peer in known.items():
        if d not in peer.dims:
            continue
        began = time.perf_counter()
        found = peer.make(y.numpy(), w.numpy())
        seconds[name] = Timing(time.perf_counter() - began, 0.0)
        assert peer.agrees(found, power if peer.weighted else voronoi), f"{name} disagrees for m = {m}, d = {d}"
        if seconds[name].median < SLOW:
            again[name] = partial(peer.make, y.numpy(), w.numpy())
        del found
    seconds |= interleaved(again, repeats=3 if m >= 100_000 else 7)
    row: Row = {"d": d, "m": m, "us per cell": 1e6 * seconds["otgen"].median / m}
    row |= {name: seconds[name].median for name in ("otgen", *known) if name in seconds}
    return row | {"spread": seconds["otgen"].spread / seconds["otgen"].median}


def exponent(points: list[tuple[float, float]]) -> float:
    """Slope of log time against log m, least squares."""
    x, t = (torch.tensor(column, dtype=torch.float64).log() for column in zip(*points, strict=True))
    return float(((x - x.mean()) * (t - t.mean())).sum() / (x - x.mean()).square().sum())


# ---- transport ------------------------------------------------------------------------------------------------------


def solves(large: bool) -> Iterator[Row]:
    """A row for each problem, small ones first."""
    for name in PROBLEMS:
        targets, weights = problem(name, 0)
        if targets.shape[1] == 2:
            yield solve(name, targets, weights)
    sdot = peers.sdot_solver()
    for m, d in sorted((m, d) for d, sizes in SIZES.items() for m in sizes if large or m < LARGE):
        y = sites(m, d)[0]
        yield solve(f"uniform-{m}x{d}", y, None) | (beside(sdot, y) if sdot and m < LARGE else {})


def solve(name: str, targets: Tensor, weights: Tensor | None) -> Row:
    """Solve with defaults; the error is that of a diagram made anew from the heights that the user gets."""
    ot = otgen.SemiDiscreteOT(progress=False)
    began, cpu = time.perf_counter(), time.process_time()
    memory = peak_memory(partial(ot.fit, targets, weights))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    found = otgen.PowerDiagram(ot.targets_, ot.heights_).measures
    return {
        "problem": name,
        "steps": ot.history_[-1]["step"],
        "seconds": seconds,
        "CPU seconds": cpu,
        "error": float((found / ot.weights_ - 1).abs().max()),
        "peak MB": memory / 1e6,
    }


def beside(sdot: Callable[[Any], tuple[int, float]], targets: Tensor) -> Row:
    """The same with sdot, whose kernels are compiled by a small problem first."""
    sdot(targets[:1000].numpy())
    began, cpu = time.perf_counter(), time.process_time()
    steps, error = sdot(targets.numpy())
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"sdot steps": steps, "sdot seconds": seconds, "sdot CPU seconds": cpu, "sdot error": error}


if __name__ == "__main__":
    main()
