"""Every benchmark from one command: python -m bench PART, a file of this folder (ops, solve, ...), or all.

python -m bench all            most tables and plots of the README; the better part of it are peers that do not arrive
python -m bench all --quick    every part kept alive in under two minutes; exits with 1 if assign is slower than torch
python -m bench peers --help   what a part can be told

Each part writes results/<part>.json with machine and commit; "plots" draws them, and bench/readme.py makes the README's
tables of them. Contenders that are not installed are left out with a line (pip install -c constraints.txt ".[bench]").
"""

import subprocess
import sys
from pathlib import Path

PARTS = ("ops", "solve", "generate", "geometry", "peers", "scaling", "search", "plots")

ALL = ("ops", "solve", "generate", "peers", "scaling", "plots")
"""What "all" runs: not the search, which has been done, nor geometry, whose peers take an hour; nor `solve --tight` and
`scaling --large`."""


def main() -> None:
    """Run parts as the programs they are, each in a process of its own."""
    if len(sys.argv) < 2 or sys.argv[1] not in (*PARTS, "all"):
        sys.exit(__doc__)
    wanted = ALL if sys.argv[1] == "all" else (sys.argv[1],)
    for part in wanted:
        print(f"== {part}", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, str(Path(__file__).parent / f"{part}.py"), *sys.argv[2:]])
        if done.returncode:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main()
