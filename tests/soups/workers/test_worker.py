import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from ingredient_runs import FailingBatches, Net, train

import graphsparse.soups.workers.worker as module
from graphsparse.soups.store.failures import IS_BUSY, LASTING, STORAGE, TRY_AGAIN
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.store.lease import Lease
from graphsparse.soups.workers.job import Job, dump_job
from graphsparse.soups.workers.worker import main

leave_with = module._leave_with


@pytest.fixture(autouse=True)
def handler(monkeypatch):
    """Put back what the process does when it is told to end, and watch over no parent."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(module, "_leave_with", lambda parent: None)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def open_store(tmp_path):
    """A store whose one ingredient is not finished."""
    folder = IngredientFolder(tmp_path / "store", train(tmp_path / "store", 1).keys[0])
    folder.mark.unlink()
    return folder


def run(folder, tmp_path, job):
    (tmp_path / "job.pkl").write_bytes(dump_job(job))
    return main([str(tmp_path / "job.pkl"), str(folder.store), folder.key, "1", str(os.getppid())])


def test_trains_the_ingredient(open_store, tmp_path):
    assert run(open_store, tmp_path, Job(Net())) == 0
    assert open_store.is_done()


def test_says_that_another_is_at_it(open_store, tmp_path):
    with Lease.take(open_store.path):
        assert run(open_store, tmp_path, Job(Net())) == IS_BUSY


@pytest.mark.parametrize(("error", "code"), [(RuntimeError, TRY_AGAIN), (MemoryError, TRY_AGAIN), (KeyError, LASTING)])
def test_says_whether_trying_again_may_help(open_store, tmp_path, capsys, error, code):
    job = Job(Net(), FailingBatches, {"error": error, "notes": tmp_path / "notes"})
    assert run(open_store, tmp_path, job) == code
    assert "this sampler fails" in capsys.readouterr().err


def test_says_that_the_store_cannot_be_written(open_store, tmp_path, monkeypatch, capsys):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device", str(open_store.state))

    monkeypatch.setattr("graphsparse.training.checkpoint.atomic_write", full)
    assert run(open_store, tmp_path, Job(Net())) == STORAGE
    told = json.loads(capsys.readouterr().err.strip().splitlines()[-1])
    assert told["errno"] == 28
    assert "No space left" in told["error"]


def test_ends_when_the_one_who_started_it_is_gone(monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(module.os, "kill", lambda pid, number: ended.set())
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone.wait()
    leave_with(gone.pid)
    assert ended.wait(5)


def test_ends_in_order_when_it_is_told_to():
    with pytest.raises(SystemExit) as caught:
        module._leave(signal.SIGTERM, None)
    assert caught.value.code == 143
