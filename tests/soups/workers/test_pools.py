import contextlib
import json
import os
import resource
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from ingredient_runs import claim
from stub_worker import META
from torch import nn

import graphsparse.soups.workers.pools as module
import graphsparse.soups.workers.supervise as supervise_module
import graphsparse.typing as typing_module
from graphsparse.soups.store.failures import IngredientError, StorageError, is_storage_error
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.workers.pools import LocalPool
from graphsparse.soups.workers.recipe import Recipe
from graphsparse.soups.workers.supervise import Report, supervise
from graphsparse.soups.workers.workers import Workers, as_workers, gpu_names, threads_of

pytestmark = pytest.mark.once

STUB = Path(__file__).parents[2] / "helpers" / "stub_worker.py"


@pytest.fixture(autouse=True)
def stubs(monkeypatch):
    """Processes that start at once: what they do is in ``stub_worker.py``."""
    monkeypatch.setattr(module, "WORKER", (sys.executable, "-S", str(STUB)))
    monkeypatch.setattr(supervise_module, "BACK_OFF", 0.01)
    monkeypatch.setattr(supervise_module, "LOOK", 0.1)


def linear(workers):
    return Recipe(lambda: nn.Linear(1, 1), workers=workers)


def run(store, orders, *, workers=2, **options):
    """Let processes obey orders, and return what each attempt noted."""
    folders = [IngredientFolder(store, f"k{i}") for i in range(len(orders))]
    for folder in folders:
        folder.write_spec({})
    told = {
        folder.key: order if isinstance(order, list) else [order] for folder, order in zip(folders, orders, strict=True)
    }
    (store / "order.json").write_text(json.dumps(told))
    with Report(folders) as report:
        supervise(LocalPool(linear(Workers(num=workers, **options))), report)
        report.check()
    return [[json.loads(path.read_text()) for path in notes(store, folder.key)] for folder in folders]


def notes(store, key):
    return sorted((store / "notes").glob(f"{key}.*"))


def is_alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize("workers", [1, 3])
def test_so_many_at_once_and_no_more(tmp_path, workers):
    spans = [attempt for (attempt,) in run(tmp_path, [0.15] * 5, workers=workers)]
    at_once = [sum(other["begin"] <= span["begin"] < other["end"] for other in spans) for span in spans]
    assert max(at_once) <= workers
    assert workers == 1 or max(at_once) > 1
    assert all(span["parent"] == os.getpid() for span in spans)
    assert {span["mode"] for span in spans} == {"700"}  # the job is nobody else's business
    assert not Path(spans[0]["mode"]).exists()


def test_each_worker_has_its_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    spans = [attempt for (attempt,) in run(tmp_path, [0.1] * 6, workers=2, gpus=["3", "GPU-a"])]
    assert {span["gpu"] for span in spans} == {"3", "GPU-a"}
    for span in spans:
        others = [entry for entry in spans if entry["pid"] != span["pid"]]
        overlapping = [entry for entry in others if entry["begin"] < span["end"] and span["begin"] < entry["end"]]
        assert span["gpu"] not in {entry["gpu"] for entry in overlapping}


def test_no_gpu_unless_asked_for_and_an_even_share_of_cores(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    ((span,),) = run(tmp_path / "", ["done"], workers=2)
    assert span["gpu"] == ""
    assert span["threads"] == [str(threads_of(2))] * 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)
    assert [threads_of(workers) for workers in (1, 3, 8, 20)] == [8, 2, 1, 1]


@pytest.mark.parametrize("failure", ["kill", 1, 11])
def test_tries_again_whatever_ended_a_process(tmp_path, failure):
    (attempts,) = run(tmp_path, [[failure, failure, "done"]])
    assert len(attempts) == 3
    assert IngredientFolder(tmp_path, "k0").is_done()


def test_gives_up_after_three_and_goes_on_with_the_others(tmp_path):
    with pytest.raises(IngredientError, match="1 of 3 ingredients failed") as caught:
        run(tmp_path, ["done", 11, 0.2], workers=1)
    for part in ("attempt 0 ends with 11", "attempt 2 ends with 11", "the process ended with code 11"):
        assert part in str(caught.value)
    assert len(notes(tmp_path, "k1")) == 3
    assert IngredientFolder(tmp_path, "k2").is_done()


def test_does_not_try_again_what_will_not_change(tmp_path):
    with pytest.raises(IngredientError, match="attempt 0 ends with 12"):
        run(tmp_path, [12])
    assert len(notes(tmp_path, "k0")) == 1


def test_a_process_that_only_says_it_is_done_is_not(tmp_path):
    with pytest.raises(IngredientError, match="ended with code 0"):
        run(tmp_path, [0])


def test_killed_three_times_is_a_failure_that_says_so(tmp_path):
    with pytest.raises(IngredientError, match="killed by signal 9"):
        run(tmp_path, ["kill"])


def test_waits_between_attempts(tmp_path, monkeypatch):
    monkeypatch.setattr(supervise_module, "BACK_OFF", 0.3)
    (attempts,) = run(tmp_path, [[11, 11, "done"]])
    begins = [attempt["begin"] for attempt in attempts]
    assert begins[1] - begins[0] >= 0.3
    assert begins[2] - begins[1] >= 0.6


def test_a_process_that_lost_its_claim_is_no_failure(tmp_path):
    (attempts,) = run(tmp_path, [[10, 10, 10, 10, "done"]])
    assert len(attempts) == 5
    assert not IngredientFolder(tmp_path, "k0").failures()


def test_starts_nothing_that_another_call_works_on(tmp_path):
    folder = IngredientFolder(tmp_path, "k0")
    folder.write_spec({})
    claim(folder.path)

    def finish():
        (folder.path / "meta.json").write_text(json.dumps({**META, "val": 0.7}))
        (folder.path / "DONE").touch()
        (folder.path / "claim").unlink()

    timer = threading.Timer(0.5, finish)
    timer.start()
    run(tmp_path, ["kill", "done"])
    timer.join()
    assert not notes(tmp_path, "k0")
    assert folder.read_meta()["val"] == 0.7


def test_a_full_disk_ends_the_call_and_all_processes(tmp_path):
    with pytest.raises(StorageError, match="No space left on device.*same call goes on") as caught:
        run(tmp_path, ["hang", "full", "done"], workers=2)
    assert caught.value.errno == 28
    ((path,),) = [notes(tmp_path, "k0")]
    assert not is_alive(json.loads(path.read_text())["pid"])
    assert not list(tmp_path.rglob("failure-*"))
    assert not list(tmp_path.rglob("FAILED"))


def test_without_room_for_temporary_files_the_store_is_not_blamed(tmp_path, monkeypatch):
    """A real limit on the size of files, which what workers are given does not keep to."""
    monkeypatch.setattr(module, "dump_recipe", lambda recipe: bytes(2**20))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, before[1]))
    try:
        with pytest.raises(OSError, match="File too large: what workers are given .* TMPDIR: .*recipe.pkl") as caught:
            run(tmp_path, ["done"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not isinstance(caught.value, StorageError)
    assert not is_storage_error(caught.value, tmp_path)
    assert not Path(caught.value.filename).parent.exists()
    assert not notes(tmp_path, "k0")


@pytest.mark.parametrize(("order", "times"), [("hang", 1), ("ignore", 1), ("ignore", 2)])
def test_an_interruption_ends_all_processes(tmp_path, monkeypatch, order, times):
    monkeypatch.setattr(module, "GRACE", 0.3 if times == 1 else 30)
    sleep, left = time.sleep, [times]

    def interrupt(seconds):
        sleep(seconds)
        begun = len(list(tmp_path.glob("notes/k*"))) == 2 and (order == "hang" or (tmp_path / "notes/ready").exists())
        if begun and left[0]:
            left[0] -= 1
            raise KeyboardInterrupt

    monkeypatch.setattr(module.time, "sleep", interrupt)
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [order, order, "done"])
    assert left == [0]
    assert time.monotonic() - before < 20
    for key in ("k0", "k1"):
        (path,) = notes(tmp_path, key)
        assert not is_alive(json.loads(path.read_text())["pid"])
    assert not list(tmp_path.rglob("failure-*"))


def test_names_of_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert gpu_names(2) == ["0", "1"]
    with pytest.raises(ValueError, match=r"'gpus' must be at least 0 and at most the 2 visible devices \(got 7\)"):
        gpu_names(7)
    assert gpu_names([4, "MIG-1"]) == ["4", "MIG-1"]
    assert gpu_names(None) == gpu_names(0) == gpu_names([]) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert gpu_names(1) == ["5"]
    with pytest.raises(ValueError, match="'gpus' must be at least 0 and at most"):
        gpu_names(3)
    for wrong in ("0", 0.5, True):
        with pytest.raises(TypeError, match="'gpus'"):
            gpu_names(wrong)
    with pytest.raises(ValueError, match="'gpus'"):
        gpu_names(-1)


def test_a_number_of_workers():
    assert as_workers(3) == Workers("local", num=3)
    assert as_workers(0) == Workers("here")
    assert as_workers(Workers(threads=2)) == Workers(threads=2)
    for wrong, error in ((-1, ValueError), (False, TypeError), (1.0, TypeError), (None, TypeError), ("ray", TypeError)):
        with pytest.raises(error, match="'workers'"):
            as_workers(wrong)


@pytest.mark.parametrize(
    ("backend", "options", "error", "message"),
    [
        ("slurm", {}, ValueError, r"'backend' must be one of \['here', 'local', 'ray'\] \(got 'slurm'\)"),
        ("local", {"num": 0}, ValueError, "'num' must be at least 1"),
        ("local", {"threads": 0}, ValueError, "'threads' must be at least 1"),
        ("local", {"checkpoint_every": 0}, ValueError, "'checkpoint_every' must be at least 1"),
        ("local", {"gpus": 7}, ValueError, r"'gpus' must be at least 0 and at most the 2 visible devices \(got 7\)"),
        ("here", {"num": 2}, ValueError, "'num' is for other processes"),
        ("here", {"threads": 2}, ValueError, "'threads' is for other processes"),
        ("here", {"gpus": 2}, ValueError, "'gpus' must be 1 with backend='here'"),
        ("here", {"gpus": [0, 1]}, ValueError, "'gpus' must be 1 with backend='here'"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(monkeypatch, backend, options, error, message):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(error, match=message):
        Workers(backend, **options)


def test_gpus_that_are_not_there_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for backend in ("here", "local"):
        with pytest.raises(ValueError, match="'gpus' is 1, but PyTorch finds no GPU here"):
            Workers(backend, gpus=1)


@pytest.mark.parametrize(
    ("gpus", "num", "expected"), [([1, 0], None, 2), ([1, 0], 3, 3), ([1], None, 1), ([], None, 1), (None, 2, 2)]
)
def test_processes_are_as_many_as_gpus(monkeypatch, gpus, num, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    pool = LocalPool(linear(Workers(num=num, gpus=gpus)))
    assert pool.size == expected
    pool.stop()


def test_ray_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr(typing_module, "_find", lambda name: "not installed")
    with pytest.raises(ImportError, match=r"'ray' is needed here but not installed; .*graphsparse\[ray\]"):
        Workers("ray")
