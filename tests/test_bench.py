"""What the benchmarks stand on: judging, placing, clocks, fitted powers; and the solvers themselves."""

import argparse
import importlib
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from otgen import ops
from otgen.ot.problem import make_problem
from otgen.ot.sources import make_source

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch):
    """A program of bench/ as a module."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


def watch(race: ModuleType, y: torch.Tensor, cap: float = 100.0, tol: float = 0.01):
    """A watch whose clock goes one second with every time it is read."""
    times = iter(range(10**6))
    return race.Watch(make_problem(make_source("uniform"), y, None), cap, lambda: float(next(times)), tol=tol)


def line(m: int) -> torch.Tensor:
    return torch.linspace(-1, 1, m)[:, None] * torch.tensor([[1.0, 0.5]])


def test_judge_knows_good_heights_from_bad(bench):
    race = bench("race")
    seen = watch(race, torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert seen.judge(1.0, [torch.tensor([0.3, 0.0])], 10)  # the border is at x = 0.3
    assert seen.points[-1]["chi2"] == pytest.approx(0.16, abs=0.02)
    assert not seen.judge(2.0, [torch.tensor([0.3, 0.0]), torch.tensor([0.5, 0.0])], 20)  # the better one counts
    assert abs(seen.points[-1]["chi2"]) < 0.005


def test_heights_that_are_not_finite_end_the_run(bench):
    seen = watch(bench("race"), line(5))
    assert not seen.judge(1.0, [torch.full((5,), math.nan)], 10)
    assert seen.points[-1]["chi2"] == math.inf


def test_looks_are_not_on_the_clock(bench):
    seen = watch(bench("race"), line(5))
    seen.start()
    before = seen.seconds

    def slow():
        for _ in range(50):
            seen.clock()
        return [torch.zeros(5)]

    assert seen.look(slow, 1)
    assert seen.seconds - before < 10
    assert len(seen.points) == 1


def test_cap_ends_the_run(bench):
    seen = watch(bench("race"), line(5), cap=3.0)
    seen.start()
    while seen.look(lambda: [torch.zeros(5)], 0):
        assert seen.seconds < 20
    assert seen.points[-1]["seconds"] >= 3


def test_reached_lies_between_looks(bench):
    reached = bench("race").reached
    points = [{"seconds": 1.0, "chi2": 1.0}, {"seconds": 100.0, "chi2": 1e-4}]
    assert reached(points) == pytest.approx(10)
    assert reached(points[:1]) is None
    assert reached(points[1:]) == 100
    assert reached([{"seconds": 1.0, "chi2": math.inf}, points[1]]) == 100
    assert reached([points[0], {"seconds": 50.0, "chi2": -1e-4}]) == 50  # an unbiased estimate can be negative


@pytest.mark.parametrize("spread", [None, 0.5, 1.0])
def test_potentials_become_heights_of_the_same_cells(bench, spread, seed):
    race = bench("race")
    generator = torch.Generator().manual_seed(seed)
    y = 3 + 2 * torch.randn(40, 5, generator=generator)
    x = torch.rand(500, 5, generator=generator).double()
    placed, factor = race.Given(y, torch.full((40,), 1 / 40, dtype=torch.float64)).placed(spread)
    g = torch.randn(40, generator=generator)
    cost = (x[:, None] - placed.double()).square().sum(2) - g.double()
    best, second = cost.topk(2, largest=False).values.T
    clear = second - best > 1e-5  # the placed targets are rounded
    winner = ops.assign(x, y.double(), race.heights_of(g, placed, factor))[0]
    assert bool((winner == cost.argmin(1))[clear].all())
    assert clear.float().mean() > 0.95
    if spread is not None:
        assert float(placed.mean()) == pytest.approx(0.5, abs=1e-5)
        assert float((placed - 0.5).square().mean().sqrt()) == pytest.approx(spread / math.sqrt(12), rel=1e-4)


@pytest.mark.parametrize("name", ["algorithm1", "pot", "otgen"])
def test_contenders_solve_a_small_problem(bench, name):
    race = bench("race")
    module = bench(race.CONTENDERS[name])
    if name == "pot":
        pytest.importorskip("ot.semidiscrete")
    y = torch.randn(12, 4, generator=torch.Generator().manual_seed(3))
    given = race.Given(y, torch.full((12,), 1 / 12, dtype=torch.float64))
    seen = race.Watch(make_problem(make_source("uniform"), y, None), 4.0, time.process_time, tol=0.05)
    better = {"pot": {"spread": 1.0, "rate": 0.5}, "algorithm1": {"rate": 0.01, "points": 500}, "otgen": {"fits": 1}}
    module.run(given, {**module.DEFAULTS, **better[name]}, seen)
    assert seen.points[-1]["chi2"] < 0.05
    assert [p["seconds"] for p in seen.points] == sorted(p["seconds"] for p in seen.points)


def test_fixed_points_are_fixed_and_cover_the_cube(bench, monkeypatch):
    module = bench("solver_algorithm1")
    first, again = (torch.cat(list(module.Points(2, 3).blocks())) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (2 * module.BLOCK, 3)
    assert first.abs().max() <= 0.5
    assert first.mean(0).abs().max() < 0.01
    monkeypatch.setattr(module, "KEPT", 0)
    points = module.Points(2, 3)
    for _ in range(2):
        assert torch.equal(torch.cat(list(points.blocks())), first)


def test_planted_powers_are_found(bench):
    scaling = bench("scaling")
    cases = {*scaling.TARGETS, *scaling.DIMENSIONS, *scaling.TOLERANCES}
    rows = [{"m": m, "d": d, "tv": tol, "seconds": 3 * m**1.5 * d**0.5 * tol**-1.8} for m, d, tol in cases]
    found = scaling.exponents(rows, "seconds")
    assert [found[key] for key in ("m", "d", "tv")] == pytest.approx([1.5, 0.5, -1.8])
    assert max(found[f"{key} se"] for key in ("m", "d", "tv")) < 1e-6


def test_search_ranks_and_remembers(bench, tmp_path, monkeypatch):
    search = bench("search")
    trials = [{"chi2": 0.5, "reached": None}, {"failed": "no"}, {"chi2": 0.009, "reached": 3.0}, {"chi2": 2.0}]
    assert [trials.index(t) for t in sorted(trials, key=search.score)] == [2, 0, 3, 1]
    monkeypatch.setattr(search, "PATH", tmp_path / "search.json")
    assert search.chosen("ott", "a") == ({}, None)
    rows = [{"contender": "ott", "problem": name, "trials": [{"settings": {"rate": i}}]} for i, name in enumerate("ab")]
    search.PATH.write_text(json.dumps({"rows": rows}))
    assert search.chosen("ott", "b") == ({"rate": 1}, "b")
    assert search.chosen("ott", "c") == ({"rate": 0}, "a")  # not searched for: the first that was
    assert search.chosen("pot", "a") == ({}, None)


def test_ratios_are_against_the_median_fit(bench, monkeypatch):
    peers = bench("peers")
    caps = {}

    def race(name, problem, settings, cap, threads):
        caps[name] = cap
        last = {"seconds": 9.0, "chi2": 0.005 if name != "pot" else 0.7, "samples": 5}
        if name == "algorithm1":
            return {"failed": "no"}
        mine = {"fits": [1.0, 2.0, 9.0], "certified": True} if name == "otgen" else {}
        return {"points": [last], "reached": 9.0 if name != "pot" else None, "peak MB": 1.0} | mine

    monkeypatch.setattr(peers, "race", race)
    monkeypatch.setattr(peers.importlib.metadata, "version", lambda package: "1")
    rows = {row["contender"]: row for row in peers.race_all("mixture-2000x16", list(peers.AIMS), 120.0, 2)}
    assert rows["otgen"]["seconds"] == 2
    assert rows["ott"]["ratio"] == 4.5
    assert caps["ott"] == pytest.approx(peers.MARGIN * 30 * 2)
    assert caps["pot"] == 120
    assert rows["pot"]["seconds"] is None
    assert rows["pot"]["ratio"] == 4.5  # against its last look, not the cap: it may have been cut off before
    assert rows["algorithm1"]["failed"] == "no"


def test_ops_notice_a_wrong_winner(bench):
    module, peers = bench("ops"), bench("ops_peers")
    x, y = torch.randn(300, 8), torch.randn(50, 8)
    h = torch.zeros(50)
    winner = ops.assign(x, y, h)[0]
    assert module.agree(winner, peers.plain_torch(y, h)(x), x, y, h)
    wrong = winner.clone()
    wrong[7] = (wrong[7] + 1) % 50
    assert not module.agree(winner, wrong, x, y, h)


@pytest.mark.parametrize("wrong", ["measure", "topk 2", "reassign"])
def test_ops_notice_a_wrong_kernel_of_ours(bench, wrong):
    module = bench("ops")
    x, y = ops.sample("normal", 300, 8), torch.randn(50, 8)
    h, moved = torch.zeros(50), torch.rand(50)
    calls = {
        "topk 2": (300, lambda: ops.topk(x, y, h, 2)),
        "measure": (300, lambda: ops.measure(y, h, "normal", 300)),
        "sample": (300, lambda: x),
        "reassign": (300, lambda: ops.Shortlist(x, y, h).assign(moved)),
    }
    module.check_ours(x, y, h, moved, calls)
    broken = {
        "measure": lambda: ops.measure(y, moved, "normal", 300),
        "topk 2": lambda: (torch.zeros(300, 2, dtype=torch.int64), None),
        "reassign": lambda: (torch.zeros(300, dtype=torch.int64), None),
    }
    calls[wrong] = (300, broken[wrong])
    with pytest.raises(AssertionError, match="disagrees with assign"):
        module.check_ours(x, y, h, moved, calls)


def test_a_part_of_the_race_leaves_the_rest_as_it_was(bench, monkeypatch, tmp_path):
    peers = bench("peers")
    monkeypatch.setattr(peers, "RESULTS", tmp_path)
    first, second = peers.RACE[:2]
    before = [
        {"problem": problem, "contender": name, "chi2": 1} for problem in (first, second) for name in ("otgen", "ott")
    ]
    (tmp_path / "peers.json").write_text(json.dumps({"rows": before}))
    rows = peers.merged([{"problem": second, "contender": "ott", "chi2": 2}, {"problem": first, "contender": "pot"}])
    assert [(row["problem"], row["contender"], row.get("chi2")) for row in rows] == [
        (first, "otgen", 1), (first, "ott", 1), (first, "pot", None), (second, "otgen", 1), (second, "ott", 2)
    ]  # fmt: skip


def test_the_readmes_results_are_of_what_the_readme_says(bench):
    solve = bench("solve")

    def file(*words):
        usual = {"problems": list(solve.PROBLEMS), "source": "uniform", "method": "auto", "tol": 0.01, "seed": 0}
        given = {"name": None, "tight": False} | usual | dict(words)
        return solve._file(argparse.Namespace(**given))

    assert file() == "solve"
    assert file(("tight", True), ("tol", 0.1)) == "solve-tight"
    assert file(("name", "mine"), ("seed", 3)) == "mine"
    others = (("problems", ["swiss-roll-256"]), ("source", "normal"), ("method", "adam"), ("tol", 0.04), ("seed", 1))
    assert [file(other) for other in others] == [None] * 5


def test_lower_bounds_are_not_rounded_up(bench):
    row = {"seconds": None, "chi2": 0.5, "points": [{"seconds": 50.0}], "ratio": 99.9}
    assert bench("readme")._peer_cells(row)[1] == "> 99"


def test_figures_are_drawn(bench, tmp_path):
    plots = bench("plots")
    points = [{"seconds": t, "chi2": 1 / t, "samples": 10} for t in (0.0, 0.1, 1.0, 10.0) if t]
    racers = [{"contender": c, "label": c, "problem": p, "seconds": 1.0, "points": points}
              for p in "ab" for c in ("otgen", "ott")]  # fmt: skip
    plots.races(racers, tmp_path / "races.png")
    kernels = [{"isa": "amx", "m": 1000, "d": d, "assign Gflop/s": d, "peak Gflop/s": 500.0, "copy GB/s": 9.0}
               for d in (2, 64)]  # fmt: skip
    plots.roofline(kernels, tmp_path / "roofline.png")
    cases = [(1, 2, 4), (2, 2, 4), (1, 4, 4), (1, 2, 8)]
    rows = [{"m": m, "d": d, "tv": tv, "seconds": m * d, "samples": m} for m, d, tv in cases]
    theory = {f"{key} theory": 1 for key in ("m", "d", "tv")}
    plots.growth([*rows, *({"of": of, "m": 1.0, "d": 1.0, "tv": 1.0} | theory for of in ("seconds", "samples"))],
                 tmp_path / "growth.png")  # fmt: skip
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in ("races", "roofline", "growth"))


def test_one_command(tmp_path):
    command = [sys.executable, "-m", "bench"]
    wrong = subprocess.run([*command, "nonsense"], cwd=BENCH.parent, capture_output=True, text=True)
    assert wrong.returncode == 1
    assert "python -m bench all --quick" in wrong.stderr
    quick = subprocess.run([*command, "plots", "--quick"], cwd=BENCH.parent, capture_output=True, text=True,
                           env={**os.environ, "TMPDIR": str(tmp_path)})  # fmt: skip
    assert quick.returncode == 0, quick.stderr
    assert "ops-amx.png" in quick.stdout
