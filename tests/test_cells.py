"""Cells of a table: what is computed, what is taken from earlier runs, and in which order it comes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cells
import noted_jobs
import pytest
from noted_jobs import run_group

JOBS = [{"kind": kind, "number": number} for number in range(4) for kind in ("a", "b")]


@pytest.fixture
def compute(tmp_path):
    """Return a function that computes jobs here, and returns their rows and the groups that were run for it."""

    def run(jobs=JOBS, *, factor=1, **options):
        notes = tmp_path / "notes"
        notes.unlink(missing_ok=True)
        options = {"workers": 0, "group_size": 3, **options}
        rows = cells.compute(
            jobs,
            run_group,
            tmp_path / "folder" / "rows.jsonl",
            setting={"factor": factor, "notes": str(notes)},
            keys=("kind", "number"),
            group_by=lambda job: job["kind"],
            **options,
        )
        lines = notes.read_text().splitlines() if notes.exists() else []
        return rows, [json.loads(line) for line in lines]

    run.path = tmp_path / "folder" / "rows.jsonl"
    return run


def expected(jobs=JOBS, factor=1):
    return [{**job, "result": factor * job["number"] ** 2} for job in jobs]


def test_rows_in_the_order_of_the_jobs(compute, capsys):
    rows, groups = compute()
    assert rows == expected()
    # By kind, at most three at a time.
    assert [numbers for _, numbers in groups] == [[0, 1, 2], [3], [0, 1, 2], [3]]
    assert "8 trainings, 0 of them done before" in capsys.readouterr().out
    backwards = JOBS[::-1]
    rows, groups = compute(backwards)
    assert rows == expected(backwards)
    assert groups == []
    assert "8 trainings, 8 of them done before" in capsys.readouterr().out


def test_only_what_is_missing_is_run(compute):
    first = [job for job in JOBS if job["number"] != 2]
    compute(first)
    kept = compute.path.read_text()
    rows, groups = compute()
    assert rows == expected()
    assert [numbers for _, numbers in groups] == [[2], [2]]
    assert compute.path.read_text().startswith(kept)
    assert compute(first)[0] == expected(first)


@pytest.mark.parametrize("left", [1, 25, -1])
def test_a_line_cut_short_by_a_kill_is_run_again_once(compute, left):
    compute()
    *lines, last = compute.path.read_text().splitlines()
    compute.path.write_text("\n".join([*lines, last[:left]]))
    cut = json.loads(last)
    rows, groups = compute()
    assert rows == expected()
    assert [numbers for _, numbers in groups] == [[cut["number"]]]
    # The row that came after the cut line is whole.
    rows, groups = compute()
    assert (rows, groups) == (expected(), [])


def test_rows_of_another_setting_are_not_used(compute):
    compute()
    rows, groups = compute(factor=10)
    assert rows == expected(factor=10)
    assert sum(len(numbers) for _, numbers in groups) == len(JOBS)
    # Neither are they lost.
    for factor in (1, 10):
        assert compute(factor=factor) == (expected(factor=factor), [])


def test_other_processes_return_the_same(compute, monkeypatch):
    monkeypatch.setattr(cells, "KEEP_MEMORY", {"CELLS_TEST": "1"})
    monkeypatch.setenv("CELLS_TEST", "")  # so that it is taken back
    monkeypatch.delenv("CELLS_TEST")
    compute(JOBS[:2])
    assert "CELLS_TEST" not in os.environ  # here it would come too late
    rows, groups = compute(workers=2)
    assert os.environ["CELLS_TEST"] == "1"
    assert rows == expected()
    assert len(groups) == 2
    assert os.getpid() not in {pid for pid, _ in groups}
    assert compute(workers=2) == (expected(), [])


@pytest.mark.parametrize("workers", [0, 1])
def test_what_was_done_before_an_error_is_kept(compute, workers):
    # More than a pool hands out ahead of time.
    jobs = [{"kind": number, "number": number, "fails": number == 1} for number in range(8)]
    with pytest.raises(ValueError, match="this job fails"):
        compute(jobs, workers=workers)
    good = [job for job in jobs if not job["fails"]]
    rows, groups = compute(good, workers=0)
    assert rows == expected(good)
    ran = {number for _, numbers in groups for number in numbers}
    assert 0 not in ran
    assert 7 in ran


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = {paths}
import cells, noted_jobs

if __name__ == "__main__":
    options = dict(setting={{"notes": {notes!r}}}, keys=("n",), group_by=lambda job: 0, workers=1)
    cells.compute([{{"n": 0}}], noted_jobs.wait, Path({rows!r}), **options)
"""


def test_a_worker_ends_when_the_run_is_killed(tmp_path):
    notes, script = tmp_path / "notes", tmp_path / "run.py"
    paths = [str(Path(module.__file__).parent) for module in (cells, noted_jobs)]
    script.write_text(KILLED.format(paths=paths, notes=str(notes), rows=str(tmp_path / "rows.jsonl")))
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: notes.exists() and notes.read_text())
    finally:
        parent.kill()
        parent.wait()
    worker = int(notes.read_text())
    wait_for(lambda: not is_running(worker))


def wait_for(happened):
    for _ in range(600):
        if happened():
            return
        time.sleep(0.1)
    raise AssertionError("did not happen within a minute")


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_whole_cells(compute):
    """A cell of which one job is missing is left out, and so is a job of no row."""
    compute([job for job in JOBS if job != {"kind": "a", "number": 2}])
    options = {"setting": {"factor": 1, "notes": str(compute.path.parent.parent / "notes")}, "keys": ("kind", "number")}
    assert cells.whole(JOBS, compute.path, cell=lambda job: job["kind"], **options) == expected(JOBS[1::2])
    rows = cells.whole(JOBS, compute.path, cell=lambda job: job["number"], **options)
    assert rows == expected([job for job in JOBS if job["number"] != 2])
    options["setting"] = {"factor": 2}
    assert cells.whole(JOBS, compute.path, cell=lambda job: job["kind"], **options) == []
