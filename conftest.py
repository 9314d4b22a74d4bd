"""Fixtures and seeds of all tests and examples in docstrings, and the leg that runs without compiled extensions."""

import gc
import importlib.abc
import os
import random
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

FORWARD = pytest.StashKey()
#: Files of few tests that take long, for they start processes, run scripts, or read whole data sets.
LONG = (
    "test_ray_cluster",
    "test_train_ingredients",
    "test_planted_files",
    "test_examples",
    "test_benchmarks",
    "test_warnings",
)
EXTENSIONS = ("torch_sparse", "torch_scatter", "pyg_lib", "numba")


class _Blocker(importlib.abc.MetaPathFinder):
    """Makes the compiled extensions look as if they were not installed, for us and for PyG."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in EXTENSIONS:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def pytest_addoption(parser):
    """Add the options of this suite."""
    parser.addoption("--seed", type=int, default=0, help="seed of what a test draws without a seed of its own")
    parser.addoption(
        "--without-extensions", action="store_true", help="block torch-sparse, torch-scatter, pyg-lib and numba"
    )
    parser.addoption("--simulated-device", action="store_true", help="stand in for a GPU where there is none: -m cuda")


def pytest_configure(config):
    """Set the number of threads, and block the extensions where that is asked for."""
    # The graphs of the tests are tiny: threads cost ten times more than they bring where the cores are busy.
    torch.set_num_threads(1)
    if torch.accelerator.current_accelerator() is None:
        # PyTorch notes with each seed where GPUs were given it, though none is there: longer than many a test takes.
        torch.cuda.manual_seed_all = torch.xpu.manual_seed_all = torch.mtia.manual_seed_all = lambda seed: None
    simulated = config.getoption("--simulated-device") and not torch.cuda.is_available()
    if config.getoption("--without-extensions") or simulated:  # their kernels know the memory of CPUs and GPUs only
        already = [name for name in EXTENSIONS if name in sys.modules]
        assert not already, f"imported before they could be blocked: {already}"
        sys.meta_path.insert(0, _Blocker())
    if simulated:
        from simulated_device import set_up

        set_up()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Start each test and each example from the same seed and state, whatever ran before it in its process."""
    from torch_geometric.nn import Sequential  # PyG looks for the extensions when imported: not before the block

    # The last one built in a file that can be imported lends its forward pass to all that are built elsewhere.
    Sequential.forward = item.config.stash.setdefault(FORWARD, Sequential.forward)
    seed = item.config.getoption("--seed")
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global state
    # PyG's Sequential takes the forward pass of another one that was built after the same seed.
    random.seed(f"{seed} {item.nodeid}")
    marker = item.get_closest_marker("real_gpu")
    if marker is not None and not torch.cuda.is_available():
        pytest.skip(f"needs a real GPU: {marker.args[0]}")


def pytest_collection_modifyitems(items):
    """Begin with files that train networks or start processes, then those of many tests: none is to be left at the end.

    A process runs whole files, and waits for the other one when there are no more.
    """
    tests = Counter(item.path for item in items)
    long = {item.path for item in items if item.path.stem in LONG or item.get_closest_marker("bands")}
    items.sort(key=lambda item: (item.path not in long, -tests[item.path]))


def pytest_collection_finish():
    """Keep the garbage collector from going through a million objects of the imports, each time anew."""
    gc.collect()
    gc.freeze()


def _data_root():
    if os.environ.get("GRAPHSPARSE_DATA"):
        return Path(os.environ["GRAPHSPARSE_DATA"])
    beside = Path(__file__).parents[1] / "shared" / "data"
    return beside if beside.is_dir() else None


def pytest_report_header(config):
    """Say which graphs and extensions the tests will find."""
    root = _data_root()
    extensions = "blocked" if config.getoption("--without-extensions") else "as installed"
    return f"real graphs: {root or 'none, set GRAPHSPARSE_DATA'}; compiled extensions: {extensions}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where the real graphs are at hand, a test that needs them must not be skipped for any other reason."""
    report = yield
    blocked = item.config.getoption("--without-extensions") or item.get_closest_marker("cuda")
    if report.skipped and "data_root" in getattr(item, "fixturenames", ()) and _data_root() and not blocked:
        report.outcome = "failed"
        report.longrepr = f"skipped although the real graphs are at {_data_root()}: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def data_root():
    """Folder of the real graphs; the test is skipped where there is none."""
    root = _data_root()
    if root is None:
        pytest.skip("no real graphs: set GRAPHSPARSE_DATA")
    assert root.is_dir(), f"GRAPHSPARSE_DATA names {root}, which is no folder"
    return root


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Keep the processed data sets of the tests apart from the user's."""
    patch = pytest.MonkeyPatch()
    patch.setenv("GRAPHSPARSE_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture
def device(request, monkeypatch):
    """A device that is not the CPU: a GPU where there is one, else the simulated one where it was asked for."""
    if torch.cuda.is_available():
        yield torch.device("cuda", torch.cuda.current_device())
        return
    if not request.config.getoption("--simulated-device"):
        pytest.skip("no GPU; --simulated-device runs it on a simulated one")
    from simulated_device import NAME, DeviceTensor, SimulatedDevice

    from graphsparse.nn.linear import PLAIN

    monkeypatch.setattr("graphsparse.nn.linear.PLAIN", {*PLAIN, DeviceTensor})
    with SimulatedDevice():
        yield torch.device(NAME, 0)


@pytest.fixture
def without_extensions(monkeypatch):
    """Make one test run as if the compiled extensions were missing."""
    import torch_geometric.typing

    import graphsparse.typing

    find = graphsparse.typing._find
    monkeypatch.setattr(
        graphsparse.typing, "_find", lambda name: "blocked by a test" if name in EXTENSIONS else find(name)
    )
    for flag in ("WITH_TORCH_SPARSE", "WITH_TORCH_SCATTER", "WITH_PYG_LIB", "WITH_INDEX_SORT", "WITH_METIS"):
        if hasattr(torch_geometric.typing, flag):
            monkeypatch.setattr(torch_geometric.typing, flag, False)
