"""Stores that were left half done, what is in them, and samplers for the workers of several machines."""

import os
import resource
import time
from collections import Counter
from pathlib import Path

import pytest
from ingredient_runs import DeadlyBatches, NotedBatches, train

from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.training.checkpoint import Checkpoint


class StopError(BaseException):
    """Stands for a kill."""


def interrupt(store, index, monkeypatch, **options):
    """Leave an ingredient as a kill after its third epoch would; those before it must be finished."""
    folder = IngredientFolder(store.path, store.keys[index])
    for path in (folder.mark, folder.meta, folder.weights):
        path.unlink()
    write, written = Checkpoint.write, []

    def stop(self, content):
        write(self, content)
        written.append(content)
        if len(written) == 4:  # the first is of the start
            raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "write", stop)
        with pytest.raises(StopError):
            train(store.path, len(store), **options)
    assert folder.state.exists()


def files_of(store, index):
    """Content and times of all files of an ingredient."""
    folder = store.path / "ingredients" / store.keys[index]
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def epochs_begun(notes):
    """Count the epochs that were begun with each seed."""
    return Counter(int(line.split()[1]) for line in Path(notes).read_text().splitlines())


class MeetingBatches(DeadlyBatches):
    """Notes its machine, and goes on when two ingredients have begun, which one core can do on two machines only."""

    def __init__(self, data, *, seed=0, places=None, **options):
        super().__init__(data, seed=seed, **options)
        self.places = places

    def __iter__(self):
        if self.begun == 0:
            import ray

            (Path(self.places) / f"{self.seed}.{os.getpid()}").write_text(ray.get_runtime_context().get_node_id())
            end = time.monotonic() + 120
            while len(list(Path(self.places).iterdir())) < 2 and time.monotonic() < end:
                time.sleep(0.05)
        return super().__iter__()


class LimitedBatches(NotedBatches):
    """Lets its process write no large files as long as another file is there."""

    def __init__(self, data, *, seed=0, limit=None, **options):
        super().__init__(data, seed=seed, **options)
        self.limit = limit

    def __iter__(self):
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000 if Path(self.limit).exists() else most, most))
        return super().__iter__()
