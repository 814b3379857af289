"""All that only a GPU can show, in one command and under nine minutes: build, answers, memory errors, rounding, speed.

python bench/gpu_check.py                        everything; results/gpu.json
python bench/gpu_check.py --only build rounding  some of the steps, in this order
python bench/gpu_check.py --output FILE          the JSON elsewhere

Needs nvcc 12.0 or newer, CMake, ninja, pybind11, torch with CUDA, and what otgen and its tests import; reaches no
network. Every step runs by itself, is ended at its limit, and is recorded whatever becomes of it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "gpu"
LIMITS = {"build": 120, "rounding": 30, "tests": 150, "sanitizer": 110, "speed": 80, "solve": 45}
"""Seconds for each step; 535 in all."""

BOUND = 4
"""As many times the model of its rounding as the matrix unit may be off: the margin in csrc/cuda/products.h."""

# The sanitizer slows kernels down a hundredfold, so it sees one small call of each.
SMALL_CALLS = """
import torch
from otgen import _ext, ops
x, y, h = torch.randn(200, 20).cuda(), torch.randn(300, 20).cuda(), torch.randn(300).cuda()
for name in _ext.cuda_filters():
    _ext.set_cuda_filter(name)
    ops.topk(x, y, h, 2)
    ops.measure(y, h, "normal", 300, pairs=True, centroids=True)
    ops.measure(y, h, "uniform", 300, sobol=True)
leaves = [v.clone().requires_grad_() for v in (x, y, h)]
sum(v.sum() for v in ops.soft_assign(*leaves, 0.5)).backward()
torch.cuda.synchronize()
"""


def main() -> None:
    """Run the steps, print a table, write the JSON, and exit with 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(LIMITS), default=list(LIMITS))
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results" / "gpu.json")
    parser.add_argument("--step", choices=["rounding", "speed", "solve"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        result = {"rounding": rounding, "speed": speed, "solve": solve}[arguments.step]()
        print("RESULT " + json.dumps(result))
        if arguments.step == "rounding" and max(result.values()) > BOUND:
            sys.exit("the bfloat16 filter's bound does not hold on this GPU")
        if arguments.step == "speed" and not all(row["same winners"] for row in result):
            sys.exit("a filter changed a winner")
        return
    if not torch.cuda.is_available():
        sys.exit("gpu_check: torch finds no CUDA device")
    steps = {}
    for name in LIMITS:
        if name in arguments.only:
            steps[name] = run_step(name)
            print(f"{name}: {steps[name]['outcome']} in {steps[name]['seconds']:.0f} s", file=sys.stderr, flush=True)
            write(arguments.output, steps)
    print_table(steps)
    if any(step["outcome"] not in ("ok", "left out") for step in steps.values()):
        sys.exit(1)


def run_step(name: str) -> dict[str, object]:
    """Outcome, seconds, the end of what was printed, and the result of one step."""
    began = time.perf_counter()
    outcome, output = "ok", ""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    for command in commands(name):
        left = LIMITS[name] - (time.perf_counter() - began)
        try:
            done = subprocess.run(
                command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, timeout=max(1.0, left),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            output += done.stdout
            failed = "" if done.returncode == 0 else f"failed ({done.returncode})"
        except subprocess.TimeoutExpired as late:
            output += late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""
            failed = f"ended after {LIMITS[name]} s"
        except FileNotFoundError:
            failed = "left out"
            output += f"{command[0]} is not installed"
        if failed:
            outcome = failed
            break
    found = [line[len("RESULT ") :] for line in output.splitlines() if line.startswith("RESULT ")]
    if name == "build" and outcome == "ok":
        install()
    return {
        "outcome": outcome,
        "seconds": time.perf_counter() - began,
        "result": json.loads(found[-1]) if found else None,
        "output": output[-3000:],
    }


def commands(name: str) -> list[list[str]]:
    """What a step runs, one after the other."""
    if name == "build":
        major, minor = torch.cuda.get_device_capability()
        pybind11 = subprocess.run([sys.executable, "-m", "pybind11", "--cmakedir"], capture_output=True, text=True)
        options = [
            f"-Dpybind11_DIR={pybind11.stdout.strip()}", f"-DPython_EXECUTABLE={sys.executable}", "-DOTGEN_CUDA=ON",
            f"-DOTGEN_CUDA_ARCHITECTURES={major}{minor}",
        ]  # fmt: skip
        return [["cmake", "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja", *options], ["cmake", "--build", str(BUILD)]]
    if name == "tests":
        selection = ["-m", "gpu and not slow", "-q", "-p", "no:cacheprovider", "tests/ops", "tests/ot"]
        return [[sys.executable, "-m", "pytest", *selection]]
    if name == "sanitizer":
        tool = shutil.which("compute-sanitizer") or "compute-sanitizer"
        checks = ("memcheck", "racecheck")
        call = [sys.executable, "-c", SMALL_CALLS]
        return [[tool, "--tool", check, "--error-exitcode", "9", *call] for check in checks]
    return [[sys.executable, str(Path(__file__).resolve()), "--step", name]]


def install() -> None:
    """Put the built module where Python looks for it."""
    for module in BUILD.glob("_ext*.so"):
        shutil.copy2(module, ROOT / "otgen" / module.name)


# --- steps that run in a process of their own ------------------------------------------------------------------------


def rounding() -> dict[str, float]:
    """Worst error of the matrix unit by kind of matrix, in units of the model in csrc/cuda/products.h."""
    from otgen import ops

    worst: dict[str, float] = {}
    for seed in range(8):
        for kind, error in ops.rounding_error("cuda", seed=seed).items():
            worst[kind] = max(worst.get(kind, 0.0), error)
    return worst


def speed() -> list[dict[str, object]]:
    """Each filter beside torch's float32 addmm and argmax, with the winners compared."""
    torch.backends.cuda.matmul.allow_tf32 = False
    sizes = [(16_384, 64), (16_384, 128), (16_384, 256), (16_384, 16), (16_384, 2), (60_000, 64), (200_000, 128)]
    return [speed_of_size(m, d) for m, d in sizes]


def speed_of_size(m: int, d: int) -> dict[str, object]:
    """One row: effective Tflop/s, 2nmd over time."""
    from otgen import _ext, ops

    few, n = 1 << 14, max(1 << 14, min(1 << 19, int(4e12 / (m * d)) // 128 * 128))
    x, y = torch.randn(n, d, device="cuda"), torch.randn(m, d, device="cuda")
    h, part = -0.5 * y.square().sum(1), x[: min(few, int(1.5e9 / m))]
    row: dict[str, object] = {"m": m, "d": d, "n": n}
    winners = {}
    for name in _ext.cuda_filters():
        _ext.set_cuda_filter(name)
        winners[name] = ops.assign(x[:few], y, h)[0]
        some = x[:few] if name == "none" else x  # float64 is slow: less of it says as much
        row[name] = rate(len(some), m, d, lambda some=some: ops.assign(some, y, h))
        if name != "none":
            row[f"{name} measure"] = rate(n, m, d, lambda: ops.measure(y, h, "normal", n))
    row["torch"] = rate(len(part), m, d, lambda: torch.addmm(h, part, y.T).argmax(dim=1))
    row["same winners"] = all(torch.equal(w, winners["none"]) for w in winners.values())
    print(row, flush=True)
    return row


def rate(n: int, m: int, d: int, call: Callable[[], object]) -> float:
    """Tflop/s by the median time of a call."""
    return 2e-12 * n * m * d / median_seconds(call)


def median_seconds(call: Callable[[], object], repeats: int = 7) -> float:
    """Median time of a call on the device, by events, after two to warm up."""
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


def solve() -> dict[str, object]:
    """The solver on a mixture of Gaussians, m = 60 000 in 64 dimensions, with each filter but the slow one."""
    from otgen import SemiDiscreteOT, _ext
    from otgen.data import problem

    targets, weights = problem("mixture-60000x64", 0)
    found: dict[str, object] = {}
    for name in ("bfloat16", "float32"):
        _ext.set_cuda_filter(name)
        began = time.perf_counter()
        ot = SemiDiscreteOT("normal", device="cuda", progress=False, tol=0.01).fit(targets, weights)
        seconds = time.perf_counter() - began
        found[name] = {"seconds": seconds, "certified": ot.converged_, "chi2": ot.certificate_.chi2}
        print("RESULT " + json.dumps(found), flush=True)
    return found


# --- what is left behind ---------------------------------------------------------------------------------------------


def write(path: Path, steps: dict[str, dict[str, object]]) -> None:
    """Write what is known so far."""
    properties = torch.cuda.get_device_properties(0)
    gpu = {
        "name": properties.name, "capability": f"{properties.major}.{properties.minor}",
        "processors": properties.multi_processor_count, "memory": properties.total_memory,
        "torch": torch.__version__, "cuda": torch.version.cuda,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"gpu": gpu, "steps": steps}, indent=1) + "\n")


def print_table(steps: dict[str, dict[str, object]]) -> None:
    """A line for each step, one for each size, and the end of what failed."""
    for name, step in steps.items():
        print(f"{name:10}{step['seconds']:6.0f} s  {step['outcome']}")
    for name, step in steps.items():
        result = step["result"]
        for row in result if isinstance(result, list) else [result] if result else []:
            cells = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
            print(f"{name}: {', '.join(cells)}{' (Tflop/s)' if name == 'speed' else ''}")
    for name, step in steps.items():
        if step["outcome"] != "ok":
            print(f"--- {name}\n{step['output'][-1500:]}")


if __name__ == "__main__":
    main()
