import json

import pytest
import torch
from ingredient_runs import Net, train

from graphsparse.soups.states import check_states, combine
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.store.store import FORMAT, IngredientStore
from graphsparse.soups.workers.recipe import stream_seed
from graphsparse.testing import random_graph
from graphsparse.training.seeding import seeded
from graphsparse.utils.partition import partition_graph


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return train(tmp_path_factory.mktemp("finished"), 4)


def test_holds_ingredients_in_their_order(finished):
    found = IngredientStore(finished.path)
    assert len(found) == 4
    assert found.keys == finished.keys
    assert [found.meta(i)["index"] for i in range(4)] == [0, 1, 2, 3]
    assert found.scores == [found.meta(i)["val"] for i in range(4)]
    assert all(0 <= score <= 1 for score in found.scores)
    assert found.meta(2)["spec"]["lr"] == 0.02
    assert repr(found).endswith("4 ingredients)")


def test_a_part_is_a_store(finished):
    part = finished[1:3]
    assert part.keys == finished.keys[1:3]
    assert part.scores == finished.scores[1:3]
    assert torch.equal(part[0]["gcn.convs.0.bias"], finished[1]["gcn.convs.0.bias"])


def test_is_what_soups_are_made_of(finished):
    check_states(finished, Net().state_dict())
    mean = combine(finished, torch.full((4,), 0.25))
    expected = torch.stack([finished[i]["gcn.convs.0.bias"] for i in range(4)]).mean(0)
    torch.testing.assert_close(mean["gcn.convs.0.bias"], expected)
    assert len(list(finished)) == 4  # indices out of range end an iteration
    Net().load_state_dict(finished[3])


def test_weights_are_mapped_not_read(finished, monkeypatch):
    options = {}
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: options.update(k) or load(*a, **k))
    state = finished[0]
    assert options["mmap"] is True
    assert options["weights_only"] is True
    state["gcn.convs.0.bias"].zero_()  # a map of its own
    assert finished[0]["gcn.convs.0.bias"].any()


def test_holds_only_what_is_finished(tmp_path):
    whole = train(tmp_path, 3)
    IngredientFolder(tmp_path, whole.keys[1]).mark.unlink()
    found = IngredientStore(tmp_path)
    assert found.keys == [whole.keys[0], whole.keys[2]]
    assert len(whole) == 3
    with pytest.raises(ValueError, match=f"no finished ingredient {whole.keys[1]}"):
        IngredientStore(tmp_path, whole.keys)
    assert IngredientStore(tmp_path, whole.keys[2:]).meta(0)["index"] == 2


def test_several_trainings_in_one_store(tmp_path):
    first, second = train(tmp_path, 2), train(tmp_path, 2, lr=0.1)
    assert not set(first.keys) & set(second.keys)
    assert set(IngredientStore(tmp_path).keys) == {*first.keys, *second.keys}
    assert [IngredientStore(tmp_path).meta(i)["index"] for i in range(4)] == [0, 0, 1, 1]
    assert train(tmp_path, 2).keys == first.keys


def test_an_empty_store_is_refused_by_what_reads_it(finished, tmp_path):
    for key in finished.keys:
        assert IngredientFolder(finished.path, key).is_done()
    empty = IngredientStore(finished.path, [])
    assert len(empty) == 0
    with pytest.raises(ValueError, match="at least one state dict"):
        check_states(empty)
    with pytest.raises(IndexError):
        empty[0]


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no store of ingredients: it has no 'store.json'"):
        IngredientStore(tmp_path)
    for wrong in (3, None):
        with pytest.raises(TypeError, match="'path' must be the folder of a store"):
            IngredientStore(wrong)
    file = tmp_path / "store.json"
    file.write_text(json.dumps({"format": FORMAT}))
    with pytest.raises(ValueError, match=f"is damaged: '{file}' lacks 'graph'; name another folder"):
        IngredientStore(tmp_path)
    for old in ({"format": "graphsparse ingredients 1"}, {}):
        file.write_text(json.dumps(old))
        with pytest.raises(ValueError, match=f"is of another release: '{file}' holds the format .*this release reads"):
            IngredientStore(tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        IngredientStore(tmp_path)


def test_a_damaged_ingredient_is_named(tmp_path):
    store = train(tmp_path, 2)
    folder = IngredientFolder(tmp_path, store.keys[1])
    folder.weights.write_bytes(b"")
    assert store[0]
    with pytest.raises(ValueError, match="weights.pt' cannot be read"):
        store[1]
    folder.meta.write_text("")
    with pytest.raises(ValueError, match=r"meta.json' is .*damaged.* delete .*DONE' to train the ingredient anew"):
        IngredientStore(tmp_path)
    folder.mark.unlink()
    assert len(train(tmp_path, 2)) == 2


def test_knows_its_graph(finished):
    finished.check_graph(random_graph())
    other = random_graph()
    other.y[:] = 0
    other.test_mask = None
    finished.check_graph(other)  # soups may look at other labels of the same graph
    other.x = other.x + 1
    with pytest.raises(ValueError, match="belongs to another graph: data.x was"):
        finished.check_graph(other)
    with pytest.raises(ValueError, match="belongs to another graph"):
        finished.check_graph(random_graph(seed=1))


@pytest.mark.parametrize("halo", [0, 1])
def test_knows_the_parts_of_ingredients(halo, tmp_path):
    data, options = random_graph(), {"num_parts": 4, "halo": halo, "seed": 5}
    store = train(tmp_path, 5, sampler="own_part", sampler_options=options, epochs=1)
    part = partition_graph(data.edge_index, 4, 60, seed=5)
    source, target = data.edge_index
    for i, (own, seen) in enumerate(zip(store.parts(), store.parts(halo=True), strict=True)):
        assert torch.equal(own, (part == i % 4).nonzero().squeeze(1))
        near = torch.zeros(60, dtype=torch.bool)
        near[source[part[target] == i % 4]] = bool(halo)
        assert torch.equal(seen, (near | (part == i % 4)).nonzero().squeeze(1))
    assert [torch.equal(*pair) for pair in zip(store[2:].parts(), store.parts()[2:], strict=True)] == [True] * 3
    (file,) = (tmp_path / "partitions").iterdir()
    file.unlink()  # it can be computed anew
    assert torch.equal(IngredientStore(tmp_path).parts()[3], (part == 3).nonzero().squeeze(1))


def test_ingredients_of_the_whole_graph_have_no_parts(finished):
    assert finished.parts() is None
    assert finished.meta(0)["val_nodes"] == 20
    assert "part" not in finished.meta(0)


def test_holds_the_first_weights(finished, tmp_path):
    with seeded(stream_seed(0, "weights")):
        expected = Net().state_dict()
    found = finished.initial()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    store = train(tmp_path, 1, epochs=1)
    (file,) = (tmp_path / "initial").iterdir()
    torch.save(store[0], file)
    with pytest.raises(ValueError, match="does not hold the initial weights of this name"):
        store.initial()
    file.unlink()
    with pytest.raises(ValueError, match="it holds initial weights: delete it"):
        store.initial()


def test_statistics_belong_to_the_weights_they_were_written_for(tmp_path):
    store = train(tmp_path, 1, epochs=1)
    folder = IngredientFolder(tmp_path, store.keys[0])
    with pytest.raises(ValueError, match="no statistics file at .*write_statistics writes them anew"):
        store.statistics(0)
    folder.write_statistics({"0": torch.eye(2, dtype=torch.float64)}, {"rows": 3})
    tensors, header = store.statistics(0)
    assert torch.equal(tensors["0"], torch.eye(2, dtype=torch.float64))
    assert header == {"rows": 3, "weights": store.meta(0)["weights"]}
    folder.publish({name: value + 1 for name, value in store[0].items()}, folder.read_meta())
    with pytest.raises(ValueError, match="belongs to other weights; write_statistics"):
        IngredientStore(tmp_path).statistics(0)
