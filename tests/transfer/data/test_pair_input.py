import pytest
import torch
from torch_geometric.data import Data, HeteroData

from graphsparse.transfer.data.pair_input import edges_of, keys_per_source, read_graphs, reverse_types, stores_x


def test_one_source_or_several():
    graph = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)
    assert read_graphs(graph, graph) == [graph]
    assert len(read_graphs((graph, graph), graph)) == 2
    # strings are keys of one source's nodes, and names of attributes where there is a list of sources
    assert keys_per_source(graph, ["a", "b"], 1) == [["a", "b"]]
    assert keys_per_source([graph, graph], ["a", "b"], 2) == ["a", "b"]
    assert keys_per_source([graph, graph], "id", 2) == ["id", "id"]
    with pytest.raises(ValueError, match="one entry per source, 2 .got 1"):
        keys_per_source([graph, graph], ["a"], 2)
    with pytest.raises(ValueError, match="one entry per source, 2 .got Tensor"):
        keys_per_source([graph, graph], torch.arange(2), 2)


def test_wrong_graphs():
    graph = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)
    with pytest.raises(TypeError, match="'source' must be a Data or HeteroData .got dict"):
        read_graphs({}, graph)
    with pytest.raises(TypeError, match="must be of one kind .got HeteroData as 'source'"):
        read_graphs(HeteroData(), graph)
    with pytest.raises(ValueError, match="'source' must hold its edges in 'edge_index'"):
        read_graphs(Data(num_nodes=2), graph)
    with pytest.raises(ValueError, match="'target' must have a type of edges .got none"):
        read_graphs(HeteroData(), HeteroData())
    with pytest.raises(ValueError, match="'source' must be a graph, or some graphs .got none"):
        read_graphs([], graph)


def test_types():
    known = [("a", "r", "b"), ("b", "rev_r", "a"), ("a", "s", "a")]
    assert reverse_types(known[0], known) == [known[1]]
    assert reverse_types(known[1], known) == [known[0]]
    assert reverse_types(known[2], known) == []
    data = HeteroData()
    data["a"].x = torch.ones(2, 1)
    data["a", "r", "b"].edge_attr = torch.ones(1)
    assert stores_x(data, "a") is data["a"].x
    assert stores_x(data, "c") is None
    assert edges_of(data, ("a", "s", "a")) is None
    with pytest.raises(ValueError, match="must be in 'edge_index'"):
        edges_of(data, ("a", "r", "b"))
