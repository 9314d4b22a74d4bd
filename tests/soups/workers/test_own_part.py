"""Ingredients that each know one part of the graph: what they see, what tells them apart, and what is refused."""

import pytest
import torch
from ingredient_runs import assert_equal_states, leftovers, train
from store_damage import interrupt
from torch_geometric.data import Data
from torch_geometric.nn import GCN

import graphsparse.soups.workers.train_ingredients as module
from graphsparse.nn import accelerate
from graphsparse.soups import IngredientStore
from graphsparse.testing import random_graph
from graphsparse.training import Training, fit
from graphsparse.utils.partition import partition_graph

PARTS = {"num_parts": 3}


def make_model():
    return GCN(8, 16, 2, 3, dropout=0.5)


def own(store, num=3, data=None, **options):
    settings = {"sampler": "own_part", "sampler_options": options.pop("parts", PARTS), "make_model": make_model}
    return train(store, num, data=data, **{**settings, **options})


def sparse_graph():
    """A ring in which each node knows two on either side, so that most have no neighbour in another part."""
    data, ring = random_graph(), torch.arange(60)
    edges = torch.stack([ring.repeat(2), torch.cat([ring.roll(-1), ring.roll(-2)])])
    data.edge_index = torch.cat([edges, edges.flip(0)], 1)
    return data


def reached(data, nodes, hops):
    """All nodes within so many hops, by a set of Python."""
    found = set(nodes.tolist())
    for _ in range(hops):
        found |= {u for u, v in data.edge_index.t().tolist() if v in found}
    return torch.tensor(sorted(found))


def cut_by_hand(data, nodes, hops):
    """What an ingredient may see, edge by edge."""
    seen = reached(data, nodes, hops).tolist()
    place = {node: i for i, node in enumerate(seen)}
    edges = [(place[u], place[v]) for u, v in data.edge_index.t().tolist() if u in place and v in place]
    is_own = torch.tensor([node in set(nodes.tolist()) for node in seen])
    train_mask, val_mask = data.train_mask[seen] & is_own, data.val_mask[seen] & is_own
    y = data.y[seen].masked_fill(~(train_mask | val_mask), -1)
    return Data(data.x[seen], torch.tensor(edges).t(), y=y, train_mask=train_mask, val_mask=val_mask)


@pytest.mark.parametrize(
    ("halo", "make_graph"),
    [(0, random_graph), (1, random_graph), (0, sparse_graph), (1, sparse_graph), (2, sparse_graph)],
)
def test_an_ingredient_is_a_training_on_what_was_cut_out_by_hand(halo, make_graph, tmp_path):
    data = make_graph()
    part = partition_graph(data.edge_index, 3, 60)
    store = own(tmp_path / "store", data=data, parts={**PARTS, "halo": halo})
    for i in range(3):
        meta, model = store.meta(i), accelerate(make_model(), fast_dropout=True)
        model.load_state_dict(store.initial())
        alone = cut_by_hand(data, (part == i).nonzero().squeeze(1), halo)
        training = Training(epochs=6, lr=0.02, seed=meta["spec"]["dropout_seed"])
        result = fit(model, alone, training)
        assert all(torch.equal(value, store[i][name]) for name, value in result.state_dict.items())
        assert (meta["val"], meta["best_epoch"]) == (result.val, result.best_epoch)
        assert meta["val_nodes"] == int(alone.val_mask.sum()) == int((data.val_mask & (part == i)).sum())
        assert meta["part"] == {"number": i, "num_parts": 3, "halo": halo, "seed": 0}


def poisoned(data, nodes, *, features=False):
    """The graph with other labels, and perhaps other features, at some nodes."""
    data = data.clone()
    data.y[nodes] = (data.y[nodes] + 1) % 3
    if features:
        data.x[nodes] = 100 - data.x[nodes]
    return data


def test_nothing_of_other_parts_reaches_an_ingredient(tmp_path):
    data = sparse_graph()
    first = own(tmp_path / "a", data=data)
    (part, *_), with_halo = first.parts(), own(tmp_path / "b", data=data, parts={**PARTS, "halo": 1})
    near = with_halo.parts(halo=True)[0]
    halo = near[~torch.isin(near, part)]
    assert 0 < len(halo) < 40 - len(halo)
    everything = torch.arange(60)
    others, far = everything[~torch.isin(everything, part)], everything[~torch.isin(everything, near)]

    def weights(name, changed, halo=0):
        return own(tmp_path / name, data=changed, parts={**PARTS, "halo": halo})[0]

    def equal(found, expected):
        return all(torch.equal(found[name], value) for name, value in expected.items())

    assert equal(weights("c", poisoned(data, others, features=True)), first[0])
    assert not equal(weights("d", poisoned(data, part)), first[0])  # it does learn from its own
    assert equal(weights("e", poisoned(poisoned(data, far, features=True), halo), halo=1), with_halo[0])
    assert not equal(weights("f", poisoned(data, halo, features=True), halo=1), with_halo[0])  # features are seen
    assert not equal(first[0], with_halo[0])


def test_parts_take_turns_and_the_partition_is_kept(tmp_path):
    store = own(tmp_path / "store", 5)
    assert [store.meta(i)["part"]["number"] for i in range(5)] == [0, 1, 2, 0, 1]
    assert len({store.meta(i)["weights"] for i in range(5)}) == 5  # by their dropout
    assert len(list((store.path / "partitions").iterdir())) == 1
    assert not leftovers(store.path)


def test_keys_follow_from_the_parts(tmp_path):
    options = [{}, {"num_parts": 3}, {"num_parts": 2}, {"halo": 1}, {"seed": 7}]
    keys = [own(tmp_path / "store", parts=parts, epochs=1).keys for parts in options]
    assert keys[0] == keys[1]  # as many parts as ingredients unless something else is said
    assert len({key for found in keys for key in found}) == 12
    assert not set(train(tmp_path / "store", 3, make_model=make_model, epochs=1).keys) & set(keys[0])
    assert own(tmp_path / "store", 4, parts=PARTS, epochs=1).keys[:3] == keys[0]


def test_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    whole, options = own(tmp_path / "whole"), {"checkpoint_every": 1}
    store = own(tmp_path / "store", **options)
    settings = {"sampler": "own_part", "sampler_options": PARTS, "make_model": make_model}
    interrupt(store, 2, monkeypatch, **settings, **options)
    again = own(tmp_path / "store", **options)
    assert again.meta(2)["resumed"] is True
    assert_equal_states(again, whole)


@pytest.mark.once
@pytest.mark.slow
def test_another_process_gives_the_same_bits(tmp_path):
    whole = own(tmp_path / "whole", 1)
    assert_equal_states(own(tmp_path / "store", 1, workers=1, threads=1), whole)


@pytest.mark.parametrize("name", ["train_mask", "val_mask"])
def test_a_part_without_labels_is_refused_before_any_worker_starts(name, tmp_path, monkeypatch):
    data = random_graph()
    part = partition_graph(data.edge_index, 3, 60)
    data.y[data[name] & (part == 1)] = -1
    monkeypatch.setattr(module, "supervise", None)
    told = f"part 1 of 'num_parts'=3 has no node with a label in 'data.{name}': take fewer parts"
    with pytest.raises(ValueError, match=told):
        own(tmp_path, data=data)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ({"parts": 3}, TypeError, "the sampler 'own_part' has no option 'parts'; it has .*num_parts.*halo.*seed"),
        ({"num_parts": 0}, ValueError, "'num_parts' must be at least 1"),
        ({"num_parts": 2.5}, TypeError, "'num_parts' must be an integer"),
        ({"halo": -1}, ValueError, "'halo' must be at least 0"),
        ({"num_parts": 61}, ValueError, "'num_parts' must be between 1 and the number of nodes, 60"),
        (3, TypeError, "'sampler_options' must map names of options"),
    ],
)
def test_wrong_options_are_refused(parts, error, message, tmp_path):
    with pytest.raises(error, match=message):
        own(tmp_path, parts=parts)


@pytest.mark.parametrize(
    ("options", "told"), [({}, "keep 'shared' for soups, or take merge"), ({"sampler": "own_part"}, "take merge")]
)
def test_independent_starts_are_for_merging(options, told, tmp_path):
    with pytest.warns(UserWarning, match=f"init='independent'.*worth little; {told}"):
        store = train(tmp_path, 2, init="independent", epochs=1, make_model=make_model, **options)
    with pytest.raises(ValueError, match="started from different weights .*init='independent'"):
        store.initial()


def test_each_of_several_kinds_in_one_store_answers_for_what_it_was_trained_on(tmp_path):
    own(tmp_path, 2, parts={"num_parts": 2}, epochs=1)
    train(tmp_path, 1, make_model=make_model, epochs=1)
    store, part = IngredientStore(tmp_path), partition_graph(random_graph().edge_index, 2, 60)
    numbers = [store.meta(i).get("part", {}).get("number") for i in range(3)]
    assert set(numbers) == {None, 0, 1}
    for number, nodes in zip(numbers, store.parts(), strict=True):
        assert torch.equal(nodes, torch.arange(60) if number is None else (part == number).nonzero().squeeze(1))
