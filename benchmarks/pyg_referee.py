"""PyG's own tests as referee: run with PyG's layers, then with our five in their place, and compare test by test.

git clone --depth 1 --branch 2.8.0.post1 https://github.com/pyg-team/pytorch_geometric
python benchmarks/pyg_referee.py pytorch_geometric  # test/nn and test/explain: hours on one core
python benchmarks/pyg_referee.py pytorch_geometric test/nn/conv/test_gcn_conv.py test/nn/models

Each run is a process of its own, with the PyG that is installed, whose version should be that of the tests. Printed are
the tests that pass with PyG's layers and fail with ours; the exit status is 1 if one of them is not in `KNOWN`.
"""

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

#: Why a test may pass with PyG's layers and fail with ours, by a pattern of its name and the last line of its message.
KNOWN = {
    "*TorchScript cannot compile * of graphsparse*": "TorchScript is refused by name, with the way out",
    "test/nn/models/test_basic_gnn.py::test_packaging*": "torch.package must be told to take 'graphsparse' along, too",
    "test/test_inspector.py::test_inspector_*_conv*": "compares how types are spelt, read from the source of a class",
}
_RUN = "GRAPHSPARSE_REFEREE"  # by which the process of a run knows what to do: whose layers, and where to write


def exchange():
    """Put our layers where PyG's are, in each of its modules."""
    import torch_geometric.explain
    import torch_geometric.loader
    import torch_geometric.nn  # noqa: F401

    from graphsparse.nn import FUSED

    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "torch_geometric":
            for key, value in list(vars(module).items()):
                if isinstance(value, type) and value in FUSED:
                    setattr(module, key, FUSED[value])


def pytest_configure(config):
    """Exchange the layers before a test is read."""
    if os.environ.get(_RUN, "").startswith("ours "):
        exchange()


def pytest_runtest_logreport(report):
    """Write down how a test went, at once: a run may be ended by what it tests."""
    if _RUN in os.environ and (report.when == "call" or report.outcome != "passed"):
        message = "" if report.longrepr is None else str(report.longrepr).strip().splitlines()[-1]
        with Path(os.environ[_RUN].split(" ", 1)[1]).open("a") as file:
            file.write(json.dumps([report.nodeid, report.outcome, message]) + "\n")


def outcomes(sources, paths, whose, folder):
    """Run the tests with the layers of one of both; return outcome and last line of the message for each test."""
    file = Path(folder, f"{whose}.jsonl")
    here = str(Path(__file__).parent)
    environment = os.environ | {_RUN: f"{whose} {file}", "FULL_TEST": "1"}  # by which PyG's tests leave nothing out
    environment["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    # What is read must be the installed PyG: the tests' folder is the root, the sources are not on the path.
    command = [sys.executable, "-m", "pytest", "-p", Path(__file__).stem, "-q", "--no-header", "--tb=line"]
    command += ["-p", "no:cacheprovider", "-o", "addopts=", "-m", "not rag and not dataset"]
    command += [f"--rootdir={sources}", "-c", str(Path(sources, "pyproject.toml"))]
    with Path(folder, f"{whose}.log").open("w") as log:
        subprocess.run(
            [*command, *(str(Path(sources, path)) for path in paths)],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    lines = file.read_text().splitlines() if file.exists() else []
    if not lines:
        raise SystemExit(f"no test ran with {whose} layers:\n{Path(folder, f'{whose}.log').read_text()[-2000:]}")
    return {name: (outcome, message) for name, outcome, message in map(json.loads, lines)}


def compare(theirs, ours):
    """Return the tests that pass with PyG's layers and not with ours, with what became of them."""
    passed = [name for name, (outcome, _) in theirs.items() if outcome == "passed"]
    missing = ("not run", "the run ended before")
    return {name: found for name in passed if (found := ours.get(name, missing))[0] != "passed"}


def reason(name, message):
    """Return why a difference is known, ``None`` if it is not."""
    said = f"{name} {message}"
    return next((why for pattern, why in KNOWN.items() if fnmatch.fnmatchcase(said, pattern)), None)


def main(argv=None):
    """Run both, print the differences, and return the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, help="folder of PyG's sources")
    parser.add_argument("paths", nargs="*", default=["test/nn", "test/explain"], help="tests in it")
    parser.add_argument("--keep", type=Path, help="folder for the logs of both runs")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.keep or Path(scratch)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        theirs, ours = (outcomes(args.sources.absolute(), args.paths, who, folder) for who in ("theirs", "ours"))
    different = compare(theirs, ours)
    for name, (outcome, message) in different.items():
        print(f"{outcome}: {name}\n    {message}\n    {reason(name, message) or 'NOT KNOWN'}")
    counts = {
        who: sum(outcome == "passed" for outcome, _ in of.values()) for who, of in (("PyG", theirs), ("ours", ours))
    }
    unknown = [name for name, (_, message) in different.items() if reason(name, message) is None]
    print(f"{len(theirs)} tests; passed with PyG's layers {counts['PyG']}, with ours {counts['ours']}")
    print(f"pass with PyG's and not with ours: {len(different)}, of which not known: {len(unknown)}")
    return {"tests": len(theirs), "passed": counts, "different": sorted(different), "unknown": sorted(unknown)}


if __name__ == "__main__":
    sys.exit(1 if main()["unknown"] else 0)
