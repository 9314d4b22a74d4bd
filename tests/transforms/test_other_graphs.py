"""What is no homogeneous graph is refused by name, wherever edges would be read as pairs of nodes of one kind."""

import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data, HeteroData, TemporalData
from torch_geometric.data.hypergraph_data import HyperGraphData

from graphsparse.edges import sparsify_edge
from graphsparse.loader import SAMPLERS, ClusterData, make_loader
from graphsparse.testing import random_graph
from graphsparse.transforms import LeaveOutClasses, PerturbEdges, PerturbFeatures, ReorderNodes, SparsifyEdges
from graphsparse.utils import partition_graph

EDGES = torch.tensor([[0, 1, 1, 2, 3], [1, 0, 2, 1, 4]])


class BipartiteData(Data):
    """The bipartite graph of PyG's tutorial on batches."""

    def __inc__(self, key, value, *args, **kwargs):
        if key == "edge_index":
            return torch.tensor([[4], [5]])
        return super().__inc__(key, value, *args, **kwargs)


BIPARTITE = {
    "x_s": Data(x_s=torch.ones(5, 1), x_t=torch.ones(5, 1), edge_index=EDGES),
    "x_user": Data(x_user=torch.ones(4, 1), x_item=torch.ones(5, 1), edge_index=EDGES),
    "pair": Data(x=(torch.ones(4, 1), torch.ones(5, 1)), edge_index=EDGES),
    "increments": BipartiteData(x=torch.ones(5, 1), edge_index=EDGES),
    "sizes": Data(edge_index=EdgeIndex(EDGES, sparse_size=(4, 5)), num_nodes=5),
    "matrix": Data(adj_t=torch.ones(5, 4).to_sparse_csr(), num_nodes=5),
}
NO_DATA = {
    "TemporalData": TemporalData(src=EDGES[0], dst=EDGES[1], t=torch.arange(5)),
    "list": [random_graph()],
    "NoneType": None,
    "Tensor": EDGES,
}
HYPER = HyperGraphData(x=torch.ones(4, 1), edge_index=torch.tensor([[0, 1, 2, 1, 3], [0, 0, 0, 1, 1]]))
ON_EDGES = {
    "SparsifyEdges": SparsifyEdges(0.4),
    "PerturbEdges": PerturbEdges(0.4),
    "ReorderNodes": ReorderNodes("rcm"),
    "ClusterData": lambda data: ClusterData(data, 2),
    **{name: lambda data, name=name: make_loader(name, data, seed=0) for name in sorted(set(SAMPLERS) - {"full"})},
}
ON_NODES = {"PerturbFeatures": PerturbFeatures(0.5), "LeaveOutClasses": LeaveOutClasses(0.4)}


@pytest.mark.parametrize("call", ON_EDGES.values(), ids=ON_EDGES)
def test_two_sets_of_nodes_and_hyperedges(call):
    for data in BIPARTITE.values():
        with pytest.raises(ValueError, match="'data' must have one set of nodes"):
            call(data)
    with pytest.raises(TypeError, match="HyperGraphData, whose 'edge_index' joins nodes to hyperedges"):
        call(HYPER)


@pytest.mark.parametrize("call", [*ON_EDGES.values(), *ON_NODES.values()], ids=[*ON_EDGES, *ON_NODES])
def test_other_objects(call):
    for name, data in NO_DATA.items():
        with pytest.raises(TypeError, match=rf"'data' must be .*Data.* \(got {name}\)"):
            call(data)
    if not isinstance(call, SparsifyEdges):
        with pytest.raises(TypeError, match=r"'data' must be .*Data.* \(got HeteroData\)"):
            call(HeteroData())


def test_edge_lists_want_a_tensor():
    for name, data in {**NO_DATA, "Data": random_graph(), "HeteroData": HeteroData()}.items():
        if name != "Tensor":
            with pytest.raises(TypeError, match=rf"'edge_index' must be a tensor .* \(got {name}\)"):
                sparsify_edge(data, 0.4)
            with pytest.raises(TypeError, match=rf"'edge_index' must be a tensor .* \(got {name}\)"):
                partition_graph(data, 2)


def test_views_of_one_set_of_nodes_are_no_bipartite_graph():
    data = Data(x_1=torch.ones(5, 1), x_2=torch.ones(5, 2), edge_index=EDGES, num_nodes=5)
    assert SparsifyEdges(0.4)(data).num_edges == 3


def test_node_types_without_a_size_are_named():
    data = HeteroData()
    data["a", "to", "b"].edge_index = EDGES
    missing = pytest.raises(ValueError, match=r"'data\['a'\].num_nodes' is missing")
    with pytest.warns(UserWarning, match="Unable to accurately infer"), missing:  # the warning is PyG's
        SparsifyEdges(0.4)(data)


def test_samplers_want_one_graph():
    batch = Batch.from_data_list([random_graph(), random_graph()])
    for name in ("cluster", "neighbor", "random_node"):
        with pytest.raises(ValueError, match=r"'data' must be one graph \(got a Batch\)"):
            make_loader(name, batch, seed=0)
    with pytest.raises(ValueError, match=r"'data' must be one graph \(got a Batch\)"):
        ClusterData(batch, 2)
    joined = Data.from_dict(batch.to_dict())
    with pytest.warns(UserWarning, match="'ptr' is in no batch"):
        loader = make_loader("random_node", joined, seed=0, num_parts=2)
    assert [part.num_nodes for part in loader] == [60, 60]
