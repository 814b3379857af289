"""All that only a GPU can show, in one command and under nine minutes: build, rounding, speed, answers, memory errors.

python bench/gpu_check.py                        everything; results/gpu.json
python bench/gpu_check.py --only build rounding  some of the steps, in this order
python bench/gpu_check.py --output FILE          the JSON elsewhere
python bench/gpu_check.py --emulated             a rehearsal, small, on the CPU, with -DOTGEN_CUDA=EMULATE installed

Needs nvcc 12.0 or newer, CMake, ninja, pybind11, torch with CUDA, and what otgen and its tests import; reaches no
network. Every step, and in the one for speed every filter, has processes of its own, is ended at its limit, and is
recorded whatever becomes of it; the others go on. `fastest` in the JSON says, for each size, which filter to make the
default there (`kDefaultFilter` in csrc/cuda/search.cu).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "gpu"
LIMITS = {"build": 110, "rounding": 30, "speed": 120, "tests": 140, "solve": 45, "sanitizer": 80}
"""Seconds for each step, what later work needs most first; 525 in all: nine minutes hold their start, too."""

FILTERS = ("none", "bfloat16", "wgmma", "float32")
"""In the order in which they are timed, the one that the winners are compared with first."""

OF_FILTERS = {"rounding": ("bfloat16", "wgmma"), "speed": FILTERS, "solve": FILTERS[1:]}
"""Steps with a process for each of some filters: those whose bound rests on how the matrix unit rounds; all; all but
"none", which is slow."""

SIZES = [
    (16_384, 2), (16_384, 4), (16_384, 8), (16_384, 16), (16_384, 32), (16_384, 64), (16_384, 128), (16_384, 256),
    (60_000, 64), (200_000, 128), (1000, 64),
]  # fmt: skip
"""Targets and dimensions that are timed."""

EMULATED = "OTGEN_GPU_CHECK_EMULATED"
"""Set in the environment of the steps of a rehearsal."""

# The sanitizer slows kernels down a hundredfold, so it sees one small call of each.
SMALL_CALLS = """
import torch
from otgen import _ext, ops
place = "cpu" if _ext.emulated else "cuda"
if _ext.emulated:
    _ext.emulate(True)
for name in _ext.cuda_filters():
    if name == "wgmma" and place == "cuda" and torch.cuda.get_device_capability()[0] != 9:
        continue
    _ext.set_cuda_filter(name)
    for d in (3, 70):
        x, y, h = (torch.randn(*shape, device=place) for shape in ((300, d), (300, d), (300,)))
        for k in (1, 2, 5):
            ops.topk(x, y, h, k)
        ops.measure(y, h, "normal", 300, pairs=True, centroids=True)
        ops.measure(y, h, "uniform", 300, sobol=True)
leaves = [v.clone().requires_grad_() for v in (x, y, h)]
sum(v.sum() for v in ops.soft_assign(*leaves, 0.5)).backward()
if place == "cuda":
    torch.cuda.synchronize()
"""


def main() -> None:
    """Run the steps, print a table, write the JSON, and exit with 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(LIMITS), default=list(LIMITS))
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results" / "gpu.json")
    parser.add_argument("--emulated", action="store_true")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        run_part(arguments.step)
        return
    if arguments.emulated:
        os.environ[EMULATED] = "1"
    elif not torch.cuda.is_available():
        sys.exit("gpu_check: torch finds no CUDA device")
    before = json.loads(arguments.output.read_text())["steps"] if arguments.output.exists() else {}
    steps = {name: step for name, step in before.items() if name not in arguments.only}
    for name in LIMITS:
        if name in arguments.only:
            steps[name] = run_step(name)
            print(f"{name}: {steps[name]['outcome']} in {steps[name]['seconds']:.0f} s", file=sys.stderr, flush=True)
            write(arguments.output, steps)
    print_table(steps)
    if any(step["outcome"] not in ("ok", "left out") for step in steps.values()):
        sys.exit(1)


def run_step(name: str) -> dict[str, object]:
    """Outcome, seconds, the end of what was printed, and the results of the parts of one step."""
    began = time.perf_counter()
    outcome, output, results = "ok", "", []
    # Python looks first where it runs, and the source folder has no emulating module.
    cwd = tempfile.gettempdir() if rehearsal() else ROOT
    path = os.pathsep.join([*([] if rehearsal() else [str(ROOT)]), *filter(None, [os.environ.get("PYTHONPATH")])])
    for command in commands(name):
        left = LIMITS[name] - (time.perf_counter() - began)
        if name not in ("build", "tests"):
            left = min(left, LIMITS[name] / 2)  # one that hangs must not take the others' time
        printed, failed = "", ""
        try:
            done = subprocess.run(
                command, cwd=cwd, env={**os.environ, "PYTHONPATH": path}, timeout=max(1.0, left),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            printed = done.stdout
            failed = "" if done.returncode == 0 else f"failed ({done.returncode})"
        except subprocess.TimeoutExpired as late:
            printed = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""
            failed = f"ended after {left:.0f} s"
        except OSError as error:
            failed, printed = "left out", f"{command[0]}: {error}"
        found = [line[len("RESULT ") :] for line in printed.splitlines() if line.startswith("RESULT ")]
        results += [json.loads(found[-1])] if found else []
        output += printed[-3000:]
        outcome = failed or outcome
        if failed and name == "build":
            break
    if name == "build" and outcome == "ok":
        install()
    return {
        "outcome": outcome,
        "seconds": time.perf_counter() - began,
        "results": results,
        "output": output[-6000:],
    }


def rehearsal() -> bool:
    """Whether the kernels are emulated."""
    return EMULATED in os.environ


def filters() -> list[str]:
    """The filters that this GPU can run."""
    return [name for name in FILTERS if name != "wgmma" or rehearsal() or torch.cuda.get_device_capability()[0] == 9]


def commands(name: str) -> list[list[str]]:
    """What a step runs, one after the other."""
    this = [sys.executable, str(Path(__file__).resolve()), "--step"]
    if name in OF_FILTERS:
        return [[*this, f"{name} {filter_name}"] for filter_name in filters() if filter_name in OF_FILTERS[name]]
    call = [sys.executable, "-c", SMALL_CALLS]
    if name == "sanitizer":
        tool = shutil.which("compute-sanitizer") or "compute-sanitizer"
        checks = ("memcheck", "racecheck", "synccheck")
        sanitized = [[tool, "--tool", check, "--error-exitcode", "9", *call] for check in checks]
        return [call] if rehearsal() else sanitized
    if name == "tests":
        wanted, parts = ("not slow", ["ops/test_rounding.py"]) if rehearsal() else ("gpu and not slow", ["ops", "ot"])
        selection = ["-c", str(ROOT / "pyproject.toml"), "-m", wanted, *(str(ROOT / "tests" / part) for part in parts)]
        return [[sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *selection]]
    if rehearsal():
        return []
    major, minor = torch.cuda.get_device_capability()
    pybind11 = subprocess.run([sys.executable, "-m", "pybind11", "--cmakedir"], capture_output=True, text=True)
    options = [
        f"-Dpybind11_DIR={pybind11.stdout.strip()}", f"-DPython_EXECUTABLE={sys.executable}", "-DOTGEN_CUDA=ON",
        f"-DOTGEN_CUDA_ARCHITECTURES={major}{minor}{'a' if major == 9 else ''}",
    ]  # fmt: skip
    return [["cmake", "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja", *options], ["cmake", "--build", str(BUILD)]]


def install() -> None:
    """Put the built module where Python looks for it."""
    for module in BUILD.glob("_ext*.so"):
        shutil.copy2(module, ROOT / "otgen" / module.name)


# --- parts that run in a process of their own ------------------------------------------------------------------------


def run_part(part: str) -> None:
    """Run one, print its result, and exit with 1 if the result is not as it should be."""
    from otgen import _ext

    if rehearsal():
        _ext.emulate(True)
    name, filter_name = part.split()
    problem = {"rounding": rounding, "speed": speed, "solve": solve}[name](filter_name)
    if problem:
        sys.exit(problem)


def place() -> str:
    """The device of a part."""
    return "cpu" if rehearsal() else "cuda"


def tell(result: object) -> None:
    """Print a result, in place of the one before."""
    print("RESULT " + json.dumps(result), flush=True)


def rounding(name: str) -> str:
    """Worst error of the matrix unit by kind of matrix, in units of the model in csrc/cuda/products.h."""
    from otgen import ops
    from otgen.ops.rounding import MARGIN

    worst: dict[str, float] = {}
    for seed in range(1 if rehearsal() else 8):
        problems = 2 if rehearsal() else 256
        for kind, error in ops.rounding_error(place(), seed=seed, problems=problems, filter_name=name).items():
            worst[kind] = max(worst.get(kind, 0.0), error)
    tell({"filter": name, **worst})
    return f"the bound of the filter {name} does not hold on this GPU" if max(worst.values()) > MARGIN else ""


def speed(name: str) -> str:
    """One filter beside torch's float32 addmm and argmax, with the winners compared."""
    from otgen import _ext

    torch.backends.cuda.matmul.allow_tf32 = False
    _ext.set_cuda_filter(name)
    rows: list[dict[str, object]] = []
    for m, d in [(300, 3), (300, 20)] if rehearsal() else SIZES:
        try:
            rows.append(speed_of_size(name, m, d))
        except Exception as error:  # any: the other sizes are still wanted
            rows.append({"filter": name, "m": m, "d": d, "error": str(error)[:300]})
        tell(rows)
        print(rows[-1], flush=True)
    bad = [row for row in rows if not row.get("same winners")]
    return f"{name}: a size failed or a winner changed: {bad}" if bad else ""


def speed_of_size(name: str, m: int, d: int) -> dict[str, object]:
    """One row: effective Tflop/s, 2nmd over time, and scores a second, nm over time."""
    from otgen import _ext, ops

    few, most = (128, 512) if rehearsal() else (1 << 14, 1 << 19)
    products = 1e12 if name == "float32" else 4e12  # of a call: some waves of blocks, well below a second
    n = max(few, min(most, int(products / (m * d)) // 128 * 128))
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(count, d, generator=generator).to(place()) for count in (n, m))
    h, part = -0.5 * y.square().sum(1), x[: min(few, int(1.5e9 / m))]
    some = part if name == "none" else x  # float64 is slow: less of it says as much

    row: dict[str, object] = {"filter": name, "m": m, "d": d, "n": n}
    _ext.set_cuda_filter("none")
    want, want_ten = ops.assign(part, y, h)[0], ops.topk(part, y, h, 10)[0]
    _ext.set_cuda_filter(name)
    row["same winners"] = bool(torch.equal(ops.assign(part, y, h)[0], want)) and bool(
        torch.equal(ops.topk(part, y, h, 10)[0], want_ten)
    )
    assign = median_seconds(lambda: ops.assign(some, y, h))
    row["assign"], row["scores/s"] = 2e-12 * len(some) * m * d / assign, len(some) * m / assign
    row["top 2"] = 2e-12 * len(some) * m * d / median_seconds(lambda: ops.topk(some, y, h, 2))
    row["top 10"] = 2e-12 * len(part) * m * d / median_seconds(lambda: ops.topk(part, y, h, 10), 3)
    if name == "none":
        row["torch"] = 2e-12 * len(part) * m * d / median_seconds(lambda: torch.addmm(h, part, y.T).argmax(dim=1))
        soft = median_seconds(lambda: ops.soft_assign(part, y, h, 1.0), 3)
        row["soft_assign"] = 4e-12 * len(part) * m * d / soft  # scores are made twice
    else:
        row["measure"] = 2e-12 * n * m * d / median_seconds(lambda: ops.measure(y, h, "normal", n))
    return row


def median_seconds(call: Callable[[], object], repeats: int = 7) -> float:
    """Median time of a call on the device, by events, after two to warm up."""
    if rehearsal():
        began = time.perf_counter()
        call()
        return time.perf_counter() - began
    times = []
    for i in range(repeats + 2):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        if i >= 2:
            times.append(begin.elapsed_time(end) / 1e3)
    return sorted(times)[repeats // 2]


def solve(name: str) -> str:
    """The solver on a mixture of Gaussians, m = 60 000 in 64 dimensions."""
    from otgen import SemiDiscreteOT, _ext
    from otgen.data import problem

    targets, weights = problem("mixture-10x20" if rehearsal() else "mixture-60000x64", 0)
    _ext.set_cuda_filter(name)
    began = time.perf_counter()
    ot = SemiDiscreteOT("normal", device=place(), progress=False, tol=1.0 if rehearsal() else 0.01).fit(
        targets, weights
    )
    seconds = time.perf_counter() - began
    tell({"filter": name, "seconds": seconds, "certified": ot.converged_, "chi2": ot.certificate_.chi2})
    return ""


# --- what is left behind ---------------------------------------------------------------------------------------------


def rows_of(steps: dict[str, dict[str, object]]) -> list[dict[str, object]]:
    """All rows of the step for speed."""
    return [row for rows in steps.get("speed", {}).get("results", []) for row in rows]


def fastest(steps: dict[str, dict[str, object]]) -> list[dict[str, object]]:
    """For each size the filter that assigns fastest, of those that changed no winner, and how torch compares."""
    found = []
    for m, d in dict.fromkeys((row["m"], row["d"]) for row in rows_of(steps)):
        rows = [row for row in rows_of(steps) if (row["m"], row["d"]) == (m, d)]
        right = [row for row in rows if row.get("same winners")]
        if not right:
            continue
        best = max(right, key=lambda row: row["assign"])
        entry = {"m": m, "d": d, "filter": best["filter"], "assign": best["assign"], "scores/s": best["scores/s"]}
        if "measure" in best:
            entry["measure / assign"] = best["measure"] / best["assign"]
        for row in rows:
            if "torch" in row:
                entry["assign / torch"] = best["assign"] / row["torch"]
        found.append(entry)
    return found


def write(path: Path, steps: dict[str, dict[str, object]]) -> None:
    """Write what is known so far."""
    gpu: dict[str, object] = {"name": "emulated", "torch": torch.__version__}
    if not rehearsal():
        properties = torch.cuda.get_device_properties(0)
        gpu = {
            "name": properties.name, "capability": f"{properties.major}.{properties.minor}",
            "processors": properties.multi_processor_count, "memory": properties.total_memory,
            "torch": torch.__version__, "cuda": torch.version.cuda,
        }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps({"gpu": gpu, "fastest": fastest(steps), "steps": steps}, indent=1) + "\n")
    os.replace(part, path)


def print_table(steps: dict[str, dict[str, object]]) -> None:
    """A line for each step, one for each size and filter, and the end of what failed."""
    for name, step in steps.items():
        print(f"{name:10}{step['seconds']:6.0f} s  {step['outcome']}")
    for name in ("rounding", "solve"):
        for row in steps.get(name, {}).get("results", []):
            print(f"{name}: {line(row)}")
    for row in rows_of(steps):
        print(f"speed (Tflop/s): {line(row)}")
    for row in fastest(steps):
        print(f"fastest: {line(row)}")
    for name, step in steps.items():
        if step["outcome"] != "ok":
            print(f"--- {name}\n{step['output'][-1500:]}")


def line(row: dict[str, object]) -> str:
    """A row as text."""
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())


if __name__ == "__main__":
    main()
