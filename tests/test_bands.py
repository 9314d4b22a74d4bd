"""Test accuracy of GCN on Cora, as measured with an implementation that shares no line with ours."""

import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import bands
import pytest

pytestmark = pytest.mark.bands

SEEDS = (0, 1, 2, 3, 4)
#: Where seeds differ by a few tenths of a point, or the band is wide, three of them tell the same; with random edges
#: they differ by more.
FEW = 3
ALL, TRAIN = {"nodes": "all"}, {"nodes": "train"}
# name -> (no edges at all?, options); edges are removed up to level 12, which is 46 %
STUDENTS = {
    "teddy": (False, {"edge_sparsity": 0.4596, "score": "teddy"}),
    "random": (False, {"edge_sparsity": 0.4596, "score": "random"}),
    "reverse": (False, {"edge_sparsity": 0.4596, "score": "reverse_teddy"}),
    "teddy, distilled on all nodes": (False, {"edge_sparsity": 0.4596, "score": "teddy", **ALL}),
    "no edges, distilled on all nodes": (True, {"edge_sparsity": 0.0, **ALL}),
    "no edges, distilled on training nodes": (True, {"edge_sparsity": 0.0, **TRAIN}),
}
# name -> (mean that was measured with it, how far our mean may be from that), in percent
BANDS = {
    "dense": (82.2, 1),
    "teddy": (77.3, 1),
    "random": (76.1, 1),
    "reverse": (72.8, 1),
    "teddy, distilled on all nodes": (80.9, 1),
    "no edges, distilled on all nodes": (82.8, 1),
    "no edges, distilled on training nodes": (59.8, 3),
}


@pytest.fixture(scope="module")
def measured(data_root):
    """Test accuracies of every cell, one for each seed."""
    root = str(data_root)
    bands.graph(root)  # processed once, here, and not by all workers at once
    with pytest.MonkeyPatch.context() as patch:
        # Keeps glibc from giving large tensors back to the system after every step; twice as fast.
        patch.setenv("MALLOC_MMAP_THRESHOLD_", "2147483648")
        patch.setenv("MALLOC_TRIM_THRESHOLD_", "4294967296")
        patch.setenv("OMP_NUM_THREADS", "1")
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            teachers = [pool.submit(bands.dense, root, seed) for seed in SEEDS]
            futures = {
                name: [
                    pool.submit(bands.student, root, seed, teacher.result()[0], no_edges, **options)
                    for seed, teacher in list(zip(SEEDS, teachers, strict=True))[: None if name == "random" else FEW]
                ]
                for name, (no_edges, options) in STUDENTS.items()
            }
            cells = {name: [future.result() for future in row] for name, row in futures.items()}
    cells["dense"] = [teacher.result()[1] for teacher in teachers]
    for name, row in cells.items():  # to be read with `pytest -m bands -rP`
        print(f"{name}: {statistics.fmean(row):.2f} of {[round(value, 1) for value in row]}")
    return cells


@pytest.mark.parametrize("name", BANDS)
def test_accuracy_band(name, measured):
    expected, width = BANDS[name]
    mean = statistics.fmean(measured[name])
    assert abs(mean - expected) <= width, f"{name}: {mean:.2f} of {measured[name]}, expected {expected} +- {width}"


def test_rules_come_out_in_the_order_of_the_theory(measured):
    teddy, reverse = (statistics.fmean(measured[name]) for name in ("teddy", "reverse"))
    assert teddy > reverse + 2, f"TEDDY {teddy:.2f}, reverse {reverse:.2f}"
