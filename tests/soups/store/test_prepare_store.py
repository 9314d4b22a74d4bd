import threading

import pytest
import torch
from ingredient_runs import Net
from torch_geometric.nn import GCN

from graphsparse.ops.digest import digest
from graphsparse.soups.store.key import describe_model
from graphsparse.soups.store.store import prepare_store, read_content, write_initial
from graphsparse.soups.store.stored_graph import graph_digests, read_graph, training_graph, write_graph
from graphsparse.testing import random_graph

START = {"init": "shared", "weights": "0"}


def prepare(path, graph=None, model=None, start=START):
    graph = training_graph(random_graph()) if graph is None else graph
    prepare_store(path, graph_digests(graph), describe_model(Net() if model is None else model), start, graph)
    return read_content(path)


def files(path):
    return sorted(entry.name for entry in path.iterdir())


def test_makes_a_store_once(tmp_path):
    content = prepare(tmp_path / "a" / "b")
    assert files(tmp_path / "a" / "b") == ["graph.pt", "store.json"]
    times = [entry.stat().st_mtime_ns for entry in (tmp_path / "a" / "b").iterdir()]
    assert prepare(tmp_path / "a" / "b") == content
    assert [entry.stat().st_mtime_ns for entry in (tmp_path / "a" / "b").iterdir()] == times
    stored = read_graph(tmp_path / "a" / "b" / "graph.pt")
    assert graph_digests(stored) == content["graph"] == graph_digests(training_graph(random_graph()))


@pytest.mark.parametrize("key", ["x", "edge_index", "y", "train_mask", "val_mask"])
def test_refuses_another_graph_and_names_the_tensor(tmp_path, key):
    prepare(tmp_path)
    graph = training_graph(random_graph())
    graph[key] = graph[key].roll(1, 0)
    with pytest.raises(ValueError, match=f"belongs to another graph: data.{key} was .* and is now .*another folder"):
        prepare(tmp_path, graph)
    assert graph_digests(read_graph(tmp_path / "graph.pt")) == graph_digests(training_graph(random_graph()))


def test_refuses_a_graph_with_edge_weights_where_there_were_none(tmp_path):
    prepare(tmp_path)
    graph = training_graph(random_graph())
    graph.edge_weight = torch.ones(graph.num_edges)
    with pytest.raises(ValueError, match="data.edge_weight was missing"):
        prepare(tmp_path, graph)


@pytest.mark.parametrize("model", [lambda: Net(hidden=8), lambda: Net(dropout=0.1), lambda: GCN(8, 16, 2, 3)])
def test_refuses_another_model_and_names_what_differs(tmp_path, model):
    prepare(tmp_path)
    with pytest.raises(ValueError, match="belongs to another model: (layer|parameter) .* was .* and is now"):
        prepare(tmp_path, model=model())


def test_refuses_another_start(tmp_path):
    prepare(tmp_path)
    with pytest.raises(ValueError, match="another start: weights was 0 and is now 1.*global generator"):
        prepare(tmp_path, start={**START, "weights": "1"})
    with pytest.raises(ValueError, match="init was shared and is now independent"):
        prepare(tmp_path, start={"init": "independent"})


def test_refuses_a_folder_of_other_things(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="folder with other things in it, such as 'thesis.tex'"):
        prepare(tmp_path)
    assert files(tmp_path) == ["thesis.tex"]
    with pytest.raises(ValueError, match="must be a folder"):
        prepare(tmp_path / "thesis.tex")


@pytest.mark.parametrize("damage", ["missing", "damaged", "flipped"])
def test_mends_the_file_of_the_graph(tmp_path, damage):
    prepare(tmp_path)
    if damage == "missing":
        (tmp_path / "graph.pt").unlink()
    elif damage == "flipped":
        graph = training_graph(random_graph())
        graph.x.view(torch.int32)[3, 2] ^= 1
        write_graph(graph, tmp_path / "graph.pt")
    else:
        (tmp_path / "graph.pt").write_bytes(b"half")
    content = prepare(tmp_path)
    assert graph_digests(read_graph(tmp_path / "graph.pt")) == content["graph"]


def test_two_at_the_same_moment_agree(tmp_path):
    """Of two calls with different models one makes the store, and the other is refused."""
    for trial in range(10):
        outcomes, barrier = [], threading.Barrier(2)

        def run(model, path=tmp_path / str(trial), outcomes=outcomes, barrier=barrier):
            graph, description = training_graph(random_graph()), describe_model(model)
            barrier.wait()
            try:
                prepare_store(path, graph_digests(graph), description, START, graph)
                outcomes.append(read_content(path)["model"] == description)
            except ValueError as error:
                outcomes.append("another model" in str(error))

        threads = [threading.Thread(target=run, args=(Net(hidden),)) for hidden in (8, 16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == [True, True]
        assert files(tmp_path / str(trial)) == ["graph.pt", "store.json"]


def test_initial_weights_are_written_once(tmp_path):
    state = Net().state_dict()
    name = digest(state.values())
    write_initial(tmp_path, state, name)
    file = tmp_path / "initial" / f"{name}.pt"
    before = file.stat().st_mtime_ns
    write_initial(tmp_path, state, name)
    assert file.stat().st_mtime_ns == before
    file.write_bytes(b"half")
    write_initial(tmp_path, state, name)
    assert digest(torch.load(file).values()) == name
