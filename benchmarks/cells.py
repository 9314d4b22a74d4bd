"""Cells of a table that take many trainings: computed by several processes, kept in a file, resumed after a stop."""

import json
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from multiprocessing import get_context

from own_process import KEEP_MEMORY
from tqdm import tqdm


def read(path, setting):
    """Return the cells that earlier runs with the same setting have left; a line that a kill cut short is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row.pop("setting") == setting:
            rows.append(row)
    return rows


def whole(jobs, path, *, setting, keys, cell):
    """Return the rows, in the order of the jobs, of all cells of which no job is missing.

    Args:
        jobs: Dictionaries.
        path: File of JSON lines.
        setting: What rows have in common; those of another one are not used.
        keys: Entries by which a row belongs to a job.
        cell: Function of a job; jobs for which it is equal belong to one cell.
    """
    done = {tuple(row[name] for name in keys): row for row in read(path, setting)}
    jobs = [(cell(job), tuple(job[name] for name in keys)) for job in jobs]
    broken = {where for where, key in jobs if key not in done}
    return [done[key] for where, key in jobs if where not in broken]


def compute(jobs, run_group, path, *, setting, keys, group_by, workers, group_size=12):
    """Run the jobs that are missing and return the rows of all, in the order of the jobs.

    Args:
        jobs: Dictionaries.
        run_group: Function of a module that turns a list of jobs and the setting into rows.
        path: File of JSON lines that rows are added to.
        setting: What rows have in common; those of another one are not used.
        keys: Entries by which a row belongs to a job.
        group_by: Function of a job; jobs for which it is equal go to one process, which loads and trains what they
            share once.
        workers: Number of processes; 0 runs everything in this one.
        group_size: Most jobs that a process takes at a time. Their rows are kept together when the last is done.
    """

    def key(row):
        return tuple(row[name] for name in keys)

    done = {key(row): row for row in read(path, setting)}
    missing = [job for job in jobs if key(job) not in done]
    print(f"{len(jobs)} trainings, {len(jobs) - len(missing)} of them done before", flush=True)
    groups = {}
    for job in missing:
        groups.setdefault(group_by(job), []).append(job)
    parts = [group[i : i + group_size] for group in groups.values() for i in range(0, len(group), group_size)]
    path.parent.mkdir(parents=True, exist_ok=True)
    # What a kill has cut short must not run into what follows.
    cut = path.exists() and path.read_text()[-1:] not in ("", "\n")
    results = _in_processes(run_group, parts, setting, workers) if workers else _here(run_group, parts, setting)
    with closing(results), path.open("a") as file, tqdm(total=len(missing), unit="training", disable=None) as bar:
        if cut:
            file.write("\n")
        for rows in results:
            for row in rows:
                done[key(row)] = row
                file.write(json.dumps({**row, "setting": setting}) + "\n")
                bar.update()
            file.flush()
    return [done[key(job)] for job in jobs]


def _here(run_group, parts, setting):
    for part in parts:
        yield run_group(part, setting)


def _in_processes(run_group, parts, setting, workers):
    """Return rows as they come."""
    # Blocks of some megabytes are large enough for the C library to map and clear them anew each time; keeping the
    # memory halves the time of messages on edges. It reads these when a process starts, that is in the workers.
    for name, value in KEEP_MEMORY.items():
        os.environ.setdefault(name, value)
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_leave_with_parent)
    try:
        for future in as_completed([pool.submit(run_group, part, setting) for part in parts]):
            yield future.result()
    finally:
        # After an error what has not begun would be computed for nothing.
        pool.shutdown(cancel_futures=True)


def _leave_with_parent():
    """End this process when the one that started it was killed: nobody would take its rows."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
