"""Ingredients, and judges, for tests of soups."""

import gc
import hashlib

import torch
from torch_geometric.data import Data

from graphsparse.soups.states import mix
from graphsparse.testing import random_graph
from graphsparse.training import fit
from graphsparse.utils.call_model import call_model


def random_states(make_model, num, seed=0, spread=1.0):
    """State dicts of models with random weights: some of one model, the rest of others."""
    torch.manual_seed(seed)
    start = make_model().state_dict()
    return [
        {
            name: start[name] + spread * (value - start[name]) if value.is_floating_point() else value + i
            for name, value in make_model().state_dict().items()
        }
        for i in range(num)
    ]


def trained_states(make_model, num, data, epochs=15, seed=0):
    """State dicts of models that started from the same weights and were trained with other dropout."""
    torch.manual_seed(seed)
    start = make_model().state_dict()
    states = []
    for i in range(num):
        model = make_model()
        model.load_state_dict(start)
        states.append(fit(model, data, epochs=epochs, lr=0.02, seed=i).state_dict)
    return states


class HashJudge:
    """An evaluator whose scores are k / n, with k drawn by a hash of the state: no metric can be wilder."""

    call = staticmethod(call_model)
    metric = None

    def __init__(self, model, num_nodes=6, salt=""):
        self.model, self.num_nodes, self.salt = model.eval(), num_nodes, salt
        data = random_graph()
        self.data = Data(x=data.x, edge_index=data.edge_index, y=data.y, mask=data.val_mask)
        self.calls = 0

    def score(self, state):
        self.calls += 1
        found = hashlib.sha256(f"{self.salt}".encode())
        for name in sorted(state):
            found.update(state[name].detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return int(found.hexdigest()[:8], 16) % (self.num_nodes + 1) / self.num_nodes

    def scan(self, soup, other, ratios, floor):
        found = [self.score(mix(soup, other, ratio)) for ratio in ratios]
        return [score if score > floor else None for score in found]

    def prepared(self, state):
        return state

    def halves(self, seed=0):
        return tuple(type(self)(self.model, self.num_nodes, f"{self.salt} {seed} {i}") for i in range(2))


class CountedStates:
    """Ingredients that are made anew whenever they are asked for, as if read from disk.

    ``most`` is the largest number of states that lay in memory when one was read, or :meth:`count` was called: the
    bytes of all tensors of the shapes of a state that were not there at the start, divided by those of a state.
    """

    def __init__(self, states):
        self._files = [{name: value.numpy().tobytes() for name, value in state.items()} for state in states]
        self._like = {name: (value.dtype, value.shape) for name, value in states[0].items()}
        self._size = sum(len(data) for data in self._files[0].values())
        self._shapes = {tuple(shape) for _, shape in self._like.values()}
        self.reads, self.most = 0, 0.0

    def __enter__(self):
        """Take what is there now for granted; it is not looked at either, which takes most of the time."""
        gc.collect()
        gc.freeze()
        return self

    def __exit__(self, *_):
        gc.unfreeze()
        gc.freeze()

    def count(self):
        tensors = (value for value in gc.get_objects() if type(value) is torch.Tensor)
        storages = [value.untyped_storage() for value in tensors if tuple(value.shape) in self._shapes]
        sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
        self.most = max(self.most, sum(sizes.values()) / self._size)

    def __len__(self):
        return len(self._files)

    def __getitem__(self, index):
        self.reads += 1
        state = {
            name: torch.frombuffer(bytearray(data), dtype=self._like[name][0]).view(self._like[name][1])
            for name, data in self._files[index].items()
        }
        self.count()
        return state
