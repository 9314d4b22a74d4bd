import json
import os
import subprocess
import sys
import threading
import time

import pytest
from ingredient_runs import claim

from graphsparse.soups.store import claim as module
from graphsparse.soups.store.claim import Claims, token_of

pytestmark = pytest.mark.once


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def grow_old(folder, seconds):
    os.utime(folder / "claim", (time.time() - seconds,) * 2)


@pytest.fixture
def dead_pid():
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_one_at_a_time(tmp_path):
    first, second = Claims(), Claims()
    assert first.take(tmp_path)
    assert first.is_mine(tmp_path)
    assert not second.take(tmp_path)
    second.release(tmp_path)  # of what it does not have
    assert token_of(tmp_path) == first.token
    assert not first.take(tmp_path)  # not twice, either
    first.release(tmp_path)
    assert names(tmp_path) == []
    assert token_of(tmp_path) is None
    assert second.take(tmp_path)


def take_at_once(folder, num=8):
    """Return those of several threads that may work on the folder when all ask at the same moment."""
    won, barrier = [], threading.Barrier(num)

    def run():
        claims = Claims()
        barrier.wait()
        if claims.take(folder):
            won.append(claims)

    threads = [threading.Thread(target=run) for _ in range(num)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [claims for claims in won if claims.is_mine(folder)]


@pytest.mark.parametrize("left", [False, True])
def test_of_many_one_wins(tmp_path, dead_pid, left):
    """Where there is no claim, and where all find that of a process that is dead."""
    for trial in range(50):
        folder = tmp_path / str(trial)
        folder.mkdir()
        if left:
            claim(folder, pid=dead_pid)
        assert len(take_at_once(folder)) <= 1  # some may give way to each other, but never do two win
        assert token_of(folder) is not None or Claims().take(folder)
        assert names(folder) == ["claim"]


def test_takes_over_from_a_dead_process_of_this_machine_at_once(tmp_path, dead_pid):
    claim(tmp_path, pid=dead_pid)
    claims = Claims()
    assert claims.take(tmp_path)
    claims.release(tmp_path)
    assert names(tmp_path) == []


def test_a_number_that_another_process_got_since_is_not_the_same_process(tmp_path):
    assert module._start(os.getpid()) not in (None, 1)
    claim(tmp_path)
    assert not Claims().take(tmp_path)
    claim(tmp_path, start=1)
    assert Claims().take(tmp_path)


def test_waits_for_another_machine_until_it_gives_no_sign_of_life(tmp_path, dead_pid):
    claim(tmp_path, host="elsewhere 1", pid=dead_pid)
    grow_old(tmp_path, 30)
    assert not Claims().take(tmp_path)
    assert Claims(timeout=20).take(tmp_path)


def test_a_machine_that_was_away_loses_its_claim_and_keeps_nobody_elses_alive(tmp_path):
    with Claims(heartbeat=0.02) as away, Claims() as other:
        away.take(tmp_path)
        claim(tmp_path, token=other.token)  # taken over while it was away
        grow_old(tmp_path, 100)
        before = (tmp_path / "claim").stat().st_mtime
        time.sleep(0.2)
        assert not away.is_mine(tmp_path)
        assert (tmp_path / "claim").stat().st_mtime == before
        away.release(tmp_path)
        assert token_of(tmp_path) == other.token


def test_a_process_that_hangs_loses_its_claim(tmp_path):
    old, new = Claims(), Claims()
    assert old.take(tmp_path)
    grow_old(tmp_path, 10**6)
    assert new.take(tmp_path)
    assert not old.is_mine(tmp_path)
    old.release(tmp_path)  # it comes back after all
    assert new.is_mine(tmp_path)
    assert names(tmp_path) == ["claim"]


def test_gives_signs_of_life_and_all_back(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    with Claims(heartbeat=0.02) as claims:
        for folder in folders:
            folder.mkdir()
            claims.take(folder)
            os.utime(folder / "claim", (0, 0))
        end = time.monotonic() + 5
        while not all((folder / "claim").stat().st_mtime for folder in folders) and time.monotonic() < end:
            time.sleep(0.02)
        assert all((folder / "claim").stat().st_mtime for folder in folders)
    assert not [name for folder in folders for name in names(folder)]


def test_a_claim_that_was_made_since_one_looked_stays(tmp_path, monkeypatch, dead_pid):
    """Two saw the same dead process, and the other one was faster."""
    claim(tmp_path, pid=dead_pid)
    slow, fast = Claims(), Claims()
    rename = module.Path.rename

    def late(path, target):
        monkeypatch.undo()
        assert fast.take(tmp_path)
        return rename(path, target)

    monkeypatch.setattr(module.Path, "rename", late)
    assert not slow.take(tmp_path)
    assert fast.is_mine(tmp_path)
    assert names(tmp_path) == ["claim"]


def test_a_claim_that_is_not_written_to_its_end_counts_as_long_as_it_is_new(tmp_path):
    (tmp_path / "claim").write_text('{"ho')
    assert not Claims().take(tmp_path)
    grow_old(tmp_path, 10**6)
    assert Claims().take(tmp_path)


def test_an_error_names_the_file_and_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="missing/claim"):
        Claims().take(tmp_path / "missing")

    def full(note):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dumps", full)
    with pytest.raises(OSError, match="No space left on device: .*claim"):
        Claims().take(tmp_path)
    assert names(tmp_path) == []
