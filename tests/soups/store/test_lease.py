import json
import os
import subprocess
import sys
import threading
import time

import pytest

from graphsparse.soups.store import lease as module
from graphsparse.soups.store.lease import Lease, held_by


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def abandon(folder, number, *, host=None, pid=None, age=0.0):
    """Leave a lease of another process behind."""
    path = folder / f"lease-{number:06d}"
    note = {"host": host or module._host(), "pid": pid or os.getpid(), "start": None, "token": f"other {number}"}
    path.write_text(json.dumps(note))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


@pytest.fixture
def dead_pid():
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_one_at_a_time(tmp_path):
    first = Lease.take(tmp_path)
    assert first.is_mine()
    assert Lease.take(tmp_path) is None
    assert f"process {os.getpid()} on" in held_by(tmp_path)
    first.release()
    assert names(tmp_path) == []
    assert held_by(tmp_path) is None
    assert Lease.take(tmp_path) is not None


def test_many_threads_and_one_winner(tmp_path):
    for trial in range(20):
        folder = tmp_path / str(trial)
        folder.mkdir()
        won, barrier = [], threading.Barrier(8)

        def run(folder=folder, won=won, barrier=barrier):
            barrier.wait()
            lease = Lease.take(folder)
            if lease is not None:
                won.append(lease)

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # All may give way to each other when they come at the same moment, but never do two win.
        assert len(won) <= 1
        if not won:
            assert Lease.take(folder) is not None


def test_takes_over_from_a_dead_process_of_this_machine_at_once(tmp_path, dead_pid):
    abandon(tmp_path, 3, pid=dead_pid)
    assert held_by(tmp_path) is None
    lease = Lease.take(tmp_path)
    assert lease.path.name == "lease-000004"
    lease.release()
    assert names(tmp_path) == []


def test_a_number_that_another_process_got_since_is_not_the_same_process(tmp_path):
    path = abandon(tmp_path, 1, pid=os.getpid())
    note = json.loads(path.read_text())
    path.write_text(json.dumps({**note, "start": 1}))
    assert module._start(os.getpid()) not in (None, 1)
    assert held_by(tmp_path) is None


def test_waits_for_another_machine_until_it_gives_no_sign_of_life(tmp_path, dead_pid):
    path = abandon(tmp_path, 1, host="elsewhere 1", pid=dead_pid, age=30)
    assert held_by(tmp_path) == f"process {dead_pid} on elsewhere"
    assert Lease.take(tmp_path) is None
    assert Lease.take(tmp_path, timeout=20) is not None
    assert path.exists()  # nothing of another is deleted while it might come back


def test_a_process_that_hangs_loses_its_lease(tmp_path):
    old = Lease.take(tmp_path)
    os.utime(old.path, (0, 0))
    new = Lease.take(tmp_path)
    assert new is not None
    assert not old.is_mine()
    assert new.is_mine()
    old.release()  # it comes back after all
    assert names(tmp_path) == [new.path.name]
    assert new.is_mine()


def test_gives_signs_of_life(tmp_path):
    with Lease.take(tmp_path, heartbeat=0.02) as lease:
        os.utime(lease.path, (0, 0))
        end = time.monotonic() + 5
        while lease.path.stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.02)
        assert lease.path.stat().st_mtime > 0
    assert names(tmp_path) == []


def test_gives_way_to_one_who_came_in_between(tmp_path, monkeypatch, dead_pid):
    """Two saw the same dead process; since then a third one was there, and numbers began anew."""
    abandon(tmp_path, 1, pid=dead_pid)
    look = module.held_by

    def slow_look(folder, timeout):
        found = look(folder, timeout)
        (tmp_path / "lease-000001").unlink()
        abandon(tmp_path, 1)  # alive
        monkeypatch.setattr(module, "held_by", look)
        (tmp_path / "lease-000002").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(module, "held_by", slow_look)
    assert Lease.take(tmp_path) is None
    assert names(tmp_path) == ["lease-000001"]


def test_a_lease_that_is_not_written_to_its_end_counts(tmp_path):
    (tmp_path / "lease-000001").write_text('{"ho')
    assert held_by(tmp_path) == "process ? on ?"
    assert Lease.take(tmp_path) is None


def test_nothing_is_left_where_it_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError):
        Lease.take(tmp_path / "missing")
    assert names(tmp_path) == []
