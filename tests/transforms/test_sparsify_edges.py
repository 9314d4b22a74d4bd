import copy
import pickle

import pymetis
import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric import EdgeIndex
from torch_geometric.data import Data, HeteroData, InMemoryDataset
from torch_geometric.loader import ClusterData, ClusterLoader, NeighborLoader
from torch_geometric.transforms import ToSparseTensor, ToUndirected

from graphsparse.edges import sparsify_edge
from graphsparse.testing import assert_undirected, random_graph
from graphsparse.transforms import SparsifyEdges
from graphsparse.typing import has_module


def reversed_score(edge_index, num_nodes):
    return edge_index.sum(0).float()


def attributed_graph(names=False):
    data = random_graph()
    u, v = data.edge_index
    # Values that name their edge, so that a shuffled attribute cannot go unnoticed.
    data.edge_weight = (torch.minimum(u, v) * 1000 + torch.maximum(u, v)).float()
    data.edge_attr = torch.stack([u, v], dim=1).float()
    if names:
        data.edge_name = [f"{a}-{b}" for a, b in data.edge_index.t().tolist()]
    data.title = "unknown attributes stay"
    return data


def test_every_edge_attribute_follows():
    data = attributed_graph(names=True)
    out = SparsifyEdges(0.3)(data)
    expected, mask = sparsify_edge(data.edge_index, 0.3, num_nodes=data.num_nodes)
    assert torch.equal(out.edge_index, expected)
    assert torch.equal(out.edge_attr, out.edge_index.t().float())
    assert torch.equal(out.edge_weight, data.edge_weight[mask])
    assert out.edge_name == [f"{a}-{b}" for a, b in out.edge_index.t().tolist()]
    assert out.title == data.title
    assert torch.equal(out.x, data.x)
    assert torch.equal(out.train_mask, data.train_mask)
    assert_undirected(out.edge_index)
    out.validate()


def test_input_is_not_changed():
    data = attributed_graph()
    before = copy.deepcopy(data)
    SparsifyEdges(0.9)(data)
    assert data.to_dict().keys() == before.to_dict().keys()
    for key, value in before.to_dict().items():
        assert torch.equal(data[key], value) if isinstance(value, torch.Tensor) else data[key] == value


def test_nodes_that_lose_all_edges_stay():
    with pytest.warns(UserWarning, match="Unable to accurately infer 'num_nodes'"):  # PyG's
        out = SparsifyEdges(0.5)(Data(edge_index=torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])))
    assert out.num_edges == 2
    assert out.num_nodes == 4


def test_as_many_edges_as_nodes_and_as_many_labels_as_edges():
    edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    labels = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])
    data = Data(x=torch.arange(4.0).view(4, 1), edge_index=edge_index, edge_attr=torch.arange(4.0))
    data.edge_label_index, data.edge_label = labels, torch.ones(4)
    out = SparsifyEdges(0.5)(data)
    assert out.x.size(0) == 4
    assert out.edge_attr.tolist() == [2.0, 3.0]
    assert torch.equal(out.edge_label_index, labels)
    assert out.edge_label.numel() == 4


def test_compose_and_pickle():
    data = attributed_graph()
    transform = pickle.loads(pickle.dumps(T.Compose([T.NormalizeFeatures(), SparsifyEdges(0.5, "random", seed=4)])))
    expected = sparsify_edge(data.edge_index, 0.5, "random", num_nodes=data.num_nodes, seed=4)[0]
    assert torch.equal(transform(data).edge_index, expected)


def test_repr_holds_every_argument():
    assert str(SparsifyEdges(0.5)) == "SparsifyEdges(sparsity=0.5, score='teddy', seed=None)"
    assert str(SparsifyEdges(0.5, "random", seed=1)) == "SparsifyEdges(sparsity=0.5, score='random', seed=1)"
    different = {
        str(SparsifyEdges(*args, **kwargs))
        for args, kwargs in [
            ((0.5,), {}),
            ((0.25,), {}),
            ((0.5, "degree"), {}),
            ((0.5,), {"seed": 0}),
            ((0.5, reversed_score), {}),
            ((0.5,), {"edge_types": [("a", "to", "b")]}),
        ]
    }
    assert len(different) == 6
    assert " at 0x" not in str(SparsifyEdges(0.5, reversed_score))


class _OneGraph(InMemoryDataset):
    def __init__(self, root, pre_transform, **kwargs):
        super().__init__(root, pre_transform=pre_transform, log=False, **kwargs)
        self.load(self.processed_paths[0])

    processed_file_names = ("data.pt",)

    def process(self):
        self.save([self.pre_transform(random_graph())], self.processed_paths[0])


def test_pre_transform_and_its_cache_key(tmp_path):
    first = _OneGraph(tmp_path, SparsifyEdges(0.5))[0]
    assert first.num_edges == SparsifyEdges(0.5)(random_graph()).num_edges
    with pytest.warns(UserWarning, match="pre_transform"):
        _OneGraph(tmp_path, SparsifyEdges(0.25))


def test_edge_index_class_stays_valid():
    data = random_graph()
    order = torch.argsort(data.edge_index[0] * data.num_nodes + data.edge_index[1])
    edge_index = data.edge_index[:, order]
    size = (data.num_nodes, data.num_nodes)
    data.edge_index = EdgeIndex(edge_index, sparse_size=size, sort_order="row", is_undirected=True)
    out = SparsifyEdges(0.4)(data)
    assert isinstance(out.edge_index, EdgeIndex)
    assert out.edge_index.is_undirected
    out.edge_index.validate()
    assert torch.equal(out.edge_index.as_tensor(), sparsify_edge(edge_index, 0.4)[0])


def with_adj_t(layout):
    data = attributed_graph()
    return data, ToSparseTensor(attr="edge_weight", layout=layout)(data.clone())


def entries(row, col, value):
    return set(zip(row.tolist(), col.tolist(), value.tolist(), strict=True))


def test_torch_csr_equals_edge_index():
    data, sparse = with_adj_t(torch.sparse_csr)
    before = sparse.adj_t.values().clone()
    out = SparsifyEdges(0.4)(sparse).adj_t
    expected = SparsifyEdges(0.4)(data)
    assert out.layout == torch.sparse_csr
    coo = out.to_sparse_coo().coalesce()
    dst, src = coo.indices()
    assert entries(src, dst, coo.values()) == entries(*expected.edge_index, expected.edge_weight)
    assert torch.equal(sparse.adj_t.values(), before)
    # Weights go to 60,000 and x changes sign, so that a sum in float32 may lose all that is left of it.
    out, x = out.double(), torch.randn(data.num_nodes, 4, dtype=torch.float64)
    torch.testing.assert_close(out @ x, out.to_dense() @ x)


@pytest.mark.skipif(not has_module("torch_sparse"), reason="needs torch-sparse")
def test_sparse_tensor_equals_edge_index():
    data, sparse = with_adj_t(None)
    out = SparsifyEdges(0.4)(sparse).adj_t
    expected = SparsifyEdges(0.4)(data)
    dst, src, value = out.coo()
    assert entries(src, dst, value) == entries(*expected.edge_index, expected.edge_weight)
    assert out.sparse_sizes() == (data.num_nodes, data.num_nodes)
    no_value = SparsifyEdges(0.4)(Data(adj_t=sparse.adj_t.set_value(None), num_nodes=data.num_nodes)).adj_t
    assert torch.equal(no_value.coo()[0], dst)


def hetero():
    generator = torch.Generator().manual_seed(0)
    data = HeteroData()
    data["paper"].x, data["author"].x = torch.randn(30, 2), torch.randn(20, 2)
    data["paper", "cites", "paper"].edge_index = torch.randint(30, (2, 90), generator=generator)
    writes = torch.stack([torch.randint(n, (80,), generator=generator) for n in (20, 30)])
    data["author", "writes", "paper"].edge_index = writes
    data["author", "writes", "paper"].edge_attr = writes.t().float()
    return data


@pytest.mark.parametrize("score", ["teddy", "degree", "random", "jaccard"])
def test_hetero_types_lose_their_edges_together_with_the_reverse_type(score):
    data = ToUndirected()(hetero())
    out = SparsifyEdges(0.5, score, seed=0)(data)
    forward = out["author", "writes", "paper"].edge_index
    backward = out["paper", "rev_writes", "author"].edge_index
    assert set(map(tuple, forward.t().tolist())) == set(map(tuple, backward.flip(0).t().tolist()))
    assert_undirected(out["paper", "cites", "paper"].edge_index)
    attr = out["author", "writes", "paper"].edge_attr
    assert torch.equal(attr, forward.t().float())
    expected = sparsify_edge(data["author", "writes", "paper"].edge_index, 0.5, score, num_nodes=(20, 30), seed=0)[0]
    assert torch.equal(forward, expected)


def test_hetero_by_edge_type():
    data = hetero()
    out = SparsifyEdges(0.5, edge_types=[("author", "writes", "paper")])(data)
    assert torch.equal(out["paper", "cites", "paper"].edge_index, data["paper", "cites", "paper"].edge_index)
    assert out["author", "writes", "paper"].num_edges < 80


@pytest.mark.skipif(not has_module("torch_sparse") and not has_module("pyg_lib"), reason="NeighborLoader needs one")
def test_neighbor_loader_takes_the_output():
    out = SparsifyEdges(0.5)(attributed_graph())
    kept = set(map(tuple, out.edge_index.t().tolist()))
    loader = NeighborLoader(out, [-1, -1], input_nodes=out.train_mask, batch_size=7)
    for batch in loader:
        assert set(map(tuple, batch.n_id[batch.edge_index].t().tolist())) <= kept
        assert torch.equal(batch.edge_attr, batch.n_id[batch.edge_index].t().float())


class _Clusters(ClusterData):
    """PyG's ``ClusterData`` on pymetis: a source build of torch-sparse has no METIS."""

    def _metis(self, edge_index, num_nodes):
        rows = [edge_index[1, edge_index[0] == v].tolist() for v in range(num_nodes)]
        return torch.tensor(pymetis.part_graph(self.num_parts, adjacency=rows)[1])


def test_cluster_loader_takes_the_output():
    out = SparsifyEdges(0.5)(random_graph())
    loader = ClusterLoader(_Clusters(out, num_parts=4, log=False), batch_size=2)
    assert sum(batch.num_nodes for batch in loader) == out.num_nodes
    assert 0 < sum(batch.num_edges for batch in loader) <= out.num_edges


def test_bad_input():
    with pytest.raises(ValueError, match=r"'sparsity'.*\(got 1\.5\)"):
        SparsifyEdges(1.5)
    with pytest.raises(ValueError, match="'edge_index' or 'adj_t'"):
        SparsifyEdges(0.5)(Data(x=torch.ones(3, 1)))
    with pytest.raises(ValueError, match="'adj_t' must be a torch CSR"):
        SparsifyEdges(0.5)(Data(adj_t=torch.eye(3).to_sparse(), num_nodes=3))
    with pytest.raises(ValueError, match="'score' must be"):
        SparsifyEdges(0.5, "tedy")(random_graph())


@pytest.mark.parametrize("name", ["cora", "citeseer", "pubmed"])
def test_real_graphs_lose_exactly_the_fraction(name, data_root):
    from graphsparse.datasets import load

    data = load(name, data_root)
    edges = {(u, v) for u, v in data.edge_index.t().tolist() if u < v}
    for sparsity in (0.05, 0.4596, 0.6415):
        out = SparsifyEdges(sparsity)(data)
        kept = {(u, v) for u, v in out.edge_index.t().tolist() if u < v}
        assert len(kept) == len(edges) - int(sparsity * len(edges))
        assert kept <= edges
        assert_undirected(out.edge_index)


def test_same_result_without_extensions(without_extensions):
    data, sparse = with_adj_t(torch.sparse_csr)
    out = SparsifyEdges(0.4)(sparse).adj_t.to_sparse_coo().coalesce()
    expected = SparsifyEdges(0.4)(data)
    assert entries(*out.indices().flip(0), out.values()) == entries(*expected.edge_index, expected.edge_weight)
