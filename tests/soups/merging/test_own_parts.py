"""A store of ingredients that know one part each, merged: each is asked on what it saw, for its own nodes alone."""

import pytest
import torch
from ingredient_runs import train
from torch_geometric.data import Data
from torch_geometric.nn import GraphSAGE

from graphsparse.soups import MERGES, merge, merge_method
from graphsparse.testing import random_graph


def make_model():
    return GraphSAGE(8, 16, 2, 3)


def parts_of(folder, **options):
    return train(folder, 3, sampler="own_part", make_model=make_model, epochs=3, tag="t", **options)


def cut_by_hand(data, seen):
    """Features and edges of some nodes."""
    place = {node: i for i, node in enumerate(seen.tolist())}
    edges = [(place[u], place[v]) for u, v in data.edge_index.t().tolist() if u in place and v in place]
    return Data(data.x[seen], torch.tensor(edges).t())


def equal(first, second):
    return all(torch.equal(value, second.state_dict[name]) for name, value in first.state_dict.items())


@pytest.mark.parametrize("halo", [0, 1])
def test_each_is_asked_on_what_it_saw(halo, tmp_path):
    store, data = parts_of(tmp_path, sampler_options={"halo": halo}), random_graph()
    merged = merge(store, make_model(), data, method="gnnmerge")
    cut = [cut_by_hand(data, seen) for seen in store.parts(halo=True)]
    own = [torch.isin(seen, nodes) for seen, nodes in zip(store.parts(halo=True), store.parts(), strict=True)]
    assert equal(merged, merge(list(store), make_model(), cut, method="gnnmerge", responsibility=own))
    assert all(bool(part.all()) for part in own) == (halo == 0)
    # A graph for each network is taken as it is, and so is what somebody says of who answers.
    assert equal(merge(store, make_model(), cut, method="gnnmerge", responsibility=own), merged)
    on_all = merge(store, make_model(), data, method="gnnmerge", responsibility=store.parts())
    assert not equal(on_all, merged)  # whose nodes have other neighbours on the whole graph
    assert equal(on_all, merge(list(store), make_model(), data, method="gnnmerge", responsibility=store.parts()))


def test_another_graph_is_refused(tmp_path):
    with pytest.raises(ValueError, match="belongs to another graph"):
        merge(parts_of(tmp_path), make_model(), random_graph(seed=1), method="gnnmerge")


def test_the_first_weights_come_from_the_store(tmp_path, monkeypatch):
    monkeypatch.setitem(MERGES, "first weights", None)  # which takes away at the end what is registered now
    merge_method("first weights", needs=("base",))(lambda run: run.base)
    store = parts_of(tmp_path)
    found = merge(store, make_model(), method="first weights").state_dict
    assert all(torch.equal(found[name], value) for name, value in store.initial().items())
    with pytest.warns(UserWarning, match="init='independent'"):
        apart = parts_of(tmp_path / "apart", init="independent")
    with pytest.raises(ValueError, match="started from different weights"):
        merge(apart, make_model(), method="first weights")
