"""Run every check, one after another; stop at the first that fails.

python tests/run_all.py [--fast]   # --fast: leave out the leg without compiled extensions
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: Two processes; a file stays in one of them, as its tests share what they set up.
PARALLEL = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
NOT_IN_FIRST = "not slow and not network and not cuda and not bands and not once"
#: What touches the compiled extensions, and so runs without them, too.
TOUCHES_EXTENSIONS = [
    "tests/ops",
    "tests/nn",
    "tests/loader",
    "tests/transforms",
    "tests/recipes",
    "tests/metrics/test_macs.py",
    "tests/training/test_check.py",
    "tests/training/test_fit.py",
    "tests/training/test_predict.py",
    "tests/soups/evaluation/test_evaluator.py",
    "tests/soups/store/test_stored_graph.py",
    "tests/test_backends_agree.py",
    "tests/test_spmm_benchmark.py",
    "tests/test_typing.py",
]


def files_marked(marker: str) -> list[str]:
    """Return the test files that use a marker: to import them all would take longer than to run these."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if f"pytest.mark.{marker}" in file.read_text()]


def main(argv: list[str]) -> int:
    """Run the checks and return the exit status of the first that fails, else 0."""
    legs = [
        ["ruff", "format", "--check", "."],
        ["ruff", "check", "."],
        ["mypy"],
        ["lint-imports"],
        # On a GPU where there is one, else on the simulated device, which needs processes of its own.
        ["pytest", *PARALLEL, "--simulated-device", "-m", "cuda", *files_marked("cuda")],
        # The leg without extensions comes first: pytest's closing line of the full leg is then the last one.
        ["pytest", *PARALLEL, "--without-extensions", "-m", NOT_IN_FIRST, *TOUCHES_EXTENSIONS],
        ["pytest", *PARALLEL],
    ]
    if "--fast" in argv:
        del legs[5]
    for leg in legs:
        print("$", " ".join(leg), flush=True)
        start = time.perf_counter()
        tool = shutil.which(leg[0], path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        if tool is None:
            print(f"{leg[0]} is not installed; `make test` installs it")
            return 1
        status = subprocess.run([tool, *leg[1:]], cwd=ROOT, check=False).returncode
        print(f"  {time.perf_counter() - start:.0f} s", flush=True)
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
