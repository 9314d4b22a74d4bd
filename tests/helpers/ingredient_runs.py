"""Short trainings of ingredients, and samplers that note where they run, wait, fail or kill their own process."""

import dataclasses
import json
import os
import signal
import time
from pathlib import Path

import torch
from torch import nn
from torch_geometric.nn import GCN

from graphsparse.loader.parts import RandomNodeBatches
from graphsparse.soups.store import claim as claim_module
from graphsparse.soups.store.store import IngredientStore
from graphsparse.soups.workers.train_ingredients import train_ingredients
from graphsparse.soups.workers.workers import Workers
from graphsparse.testing import random_graph
from graphsparse.training import Training

EPOCHS = 6
WORKERS = {"threads", "gpus", "checkpoint_every"}
TRAINING = {field.name for field in dataclasses.fields(Training)} - WORKERS


class Net(nn.Module):
    """A network of a user, with dropout and batch normalisation."""

    def __init__(self, hidden=16, dropout=0.5):
        super().__init__()
        self.gcn = GCN(8, hidden, 2, 3, dropout=dropout, norm="batch_norm")

    def forward(self, x, edge_index):
        return self.gcn(x, edge_index)


class NotedBatches(RandomNodeBatches):
    """Batches of random nodes; every start of an epoch is noted, and may wait."""

    def __init__(self, data, *, seed=0, num_parts=3, notes=None, wait=0.0):
        super().__init__(data, num_parts=num_parts, seed=seed)
        self.notes, self.wait, self.seed, self.begun = notes, wait, seed, 0

    def __iter__(self):
        self.begun += 1
        if self.notes is not None:
            with Path(self.notes).open("a") as file:
                file.write(f"{os.getpid()} {self.seed} {self.begun}\n")
        time.sleep(self.wait)
        return super().__iter__()


class DeadlyBatches(NotedBatches):
    """Kills its process in the middle of the third epoch it begins, unless that happened before."""

    def __init__(self, data, *, seed=0, marker=None, **options):
        super().__init__(data, seed=seed, **options)
        self.marker = marker

    def __iter__(self):
        for batch in super().__iter__():
            yield batch
            if self.begun == 3 and self.marker is not None:
                try:
                    Path(self.marker).open("x").close()
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)


class FailingBatches(RandomNodeBatches):
    """Raises an error in the epoch after so many, for a certain number of times."""

    def __init__(self, data, *, seed=0, error=RuntimeError, notes=None, times=10**6):
        super().__init__(data, num_parts=2, seed=seed)
        self.error, self.notes, self.times = error, Path(notes), times

    def __iter__(self):
        failed = self.notes.read_text().count("\n") if self.notes.exists() else 0
        if failed < self.times:
            with self.notes.open("a") as file:
                file.write("failed\n")
            raise self.error("this sampler fails")
        return super().__iter__()


def train(store, num=2, *, make_model=Net, data=None, backend=None, workers=0, **options):
    """Train ingredients in this process unless told otherwise; options are those of the call, Training and Workers."""
    options = {"epochs": EPOCHS, "lr": 0.02, **options}
    training = Training(**{name: options.pop(name) for name in TRAINING & options.keys()})
    how = {name: options.pop(name) for name in WORKERS & options.keys()}
    workers = Workers(backend or ("here" if workers == 0 else "local"), num=workers or None, **how)
    data = random_graph() if data is None else data
    return train_ingredients(make_model, data, num, store, training=training, workers=workers, **options)


def weights(store):
    """Digests of the weights of all ingredients of a store."""
    return [store.meta(i)["weights"] for i in range(len(store))]


def notes_of(path):
    """Pairs of process and seed that began a first epoch."""
    lines = [line.split() for line in Path(path).read_text().splitlines()]
    return [(int(pid), int(seed)) for pid, seed, begun in lines if begun == "1"]


def assert_equal_states(first, second):
    """Assert that two stores hold the same weights, bit for bit."""
    assert isinstance(first, IngredientStore)
    assert len(first) == len(second) > 0
    for i in range(len(first)):
        assert list(first[i]) == list(second[i])
        assert all(torch.equal(first[i][name], second[i][name]) for name in first[i])


def claim(folder, **note):
    """Leave the claim of a living process, or what is said of it."""
    me = {"host": claim_module._host(), "pid": os.getpid(), "start": None, "token": "other"}
    (folder / "claim").write_text(json.dumps({**me, **note}))


def leftovers(store):
    """Files that a finished store should not have."""
    names = ("state.pt", "FAILED")
    return [
        path
        for path in Path(store).rglob("*")
        if path.name in names or path.name.startswith((".", "claim", "failure-"))
    ]
