"""Files that run code when they are read without care, and what tells that they did."""

import collections
import functools
import gzip
import io
import operator
import os
import pickle
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data


class Call:
    """Makes a folder, as any other program could be run, the moment it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


class Chain:
    """Does the same by way of names that lists of safe ones have held: an allowed class, ``getattr``, ``partial``."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        inner = functools.partial(operator.methodcaller("__call__", self.marker), os.mkdir)
        # The state of a class that PyTorch may build: PyG's graphs are.
        return Data, (), {"_store": _Run(inner)}


class _Run:
    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call, ()


def contents(marker, name):
    """Yield what could be hidden in a file of this name: one payload as a bare pickle, one as a file of its kind."""
    yield pickle.dumps(Call(marker), protocol=2)
    yield _wrapped(Chain(marker), name)
    if name.endswith(".pt") or name.startswith("ind."):  # kinds that are pickles, and so have most to hide
        yield pickle.dumps(Chain(marker), protocol=2)
        yield _wrapped(Call(marker), name)


def _wrapped(payload, name):
    buffer = io.BytesIO()
    if name.endswith(".npz"):
        hidden = np.empty(1, dtype=object)
        hidden[0] = payload
        np.savez(buffer, **dict.fromkeys(FIELDS, hidden))
    elif name.endswith(".gz"):
        buffer.write(gzip.compress(pickle.dumps(payload)))
    elif name.startswith("ind."):  # a dictionary of a class that these files have
        buffer.write(pickle.dumps(collections.defaultdict(list, {0: [payload]}), protocol=2))
    else:
        torch.save({"x": [payload], "format": payload}, buffer)
    return buffer.getvalue()


#: Names of all arrays that the data sets of these tests hold.
FIELDS = [
    *("train_mask", "val_mask", "test_mask", "train_masks", "val_masks", "test_masks"),
    *(f"{part}_{entry}" for part in ("attr", "adj") for entry in ("data", "indices", "indptr", "shape")),
    *("labels", "node_features", "node_labels", "edges", "edge_index", "y", "split", "year", "num_nodes"),
    *("x_shape", "x_indptr", "x_indices", "x_data", "edges_psp", "edges_pap"),
]


def runs(tmp_path):
    """Say whether a payload does what it should: a test of payloads that do nothing would prove nothing."""
    for kind in (Call, Chain):
        marker = Path(tmp_path) / f"self-test-{kind.__name__}"
        pickle.loads(pickle.dumps(kind(marker)))
        if not marker.exists():
            return False
    return True
