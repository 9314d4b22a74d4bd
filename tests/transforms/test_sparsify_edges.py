import copy
import pickle
import warnings

import pymetis
import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric import EdgeIndex
from torch_geometric.data import Data, HeteroData, InMemoryDataset
from torch_geometric.loader import ClusterData, ClusterLoader, NeighborLoader
from torch_geometric.transforms import ToSparseTensor, ToUndirected
from torch_geometric.utils import to_edge_index

from graphsparse.edges import sparsify_edge
from graphsparse.ops import Adjacency
from graphsparse.testing import assert_undirected, random_graph
from graphsparse.transforms import SparsifyEdges
from graphsparse.typing import has_module

needs_torch_sparse = pytest.mark.skipif(not has_module("torch_sparse"), reason="needs torch-sparse")


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


def beside_adj_t(edge_index, remove_edge_index=True, layout=torch.sparse_csr, attr="edge_weight"):
    """A graph as a matrix, with attributes beside it that name the edge they belong to, and the graph it was."""
    u, v = edge_index
    data = Data(edge_index=edge_index, edge_type=u * 100 + v, time=u * 100 + v, edge_attr=edge_index.t().float())
    data.edge_weight, data.num_nodes, data.edge_label = (u * 100 + v).float() + 1, 60, torch.ones(7)
    return ToSparseTensor(attr, remove_edge_index, layout=layout)(data.clone()), data


LAYOUTS = [torch.sparse_csr, torch.sparse_coo, pytest.param(None, marks=needs_torch_sparse)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize(("remove", "attr"), [(True, "edge_weight"), (True, None), (False, "edge_weight")])
def test_attributes_beside_a_matrix_follow_in_its_order(layout, directed, remove, attr):
    edge_index = random_graph().edge_index
    if directed:
        edge_index = edge_index[:, torch.randperm(edge_index.size(1), generator=torch.Generator().manual_seed(1))[:98]]
    sparse, data = beside_adj_t(edge_index, remove, layout, attr)
    out = SparsifyEdges(0.37)(sparse)
    (dst, src), value = to_edge_index(out.adj_t)
    expected = SparsifyEdges(0.37)(data).edge_index
    assert len(src) < edge_index.size(1)
    assert sorted(zip(src.tolist(), dst.tolist(), strict=True)) == sorted(map(tuple, expected.t().tolist()))
    assert torch.equal(out.edge_type, src * 100 + dst)
    assert torch.equal(out.time, out.edge_type)
    assert torch.equal(out.edge_attr, torch.stack([src, dst], dim=1).float())
    assert torch.equal(value if attr else out.edge_weight, (src * 100 + dst).float() + 1)
    assert out.edge_label.numel() == 7
    assert remove or torch.equal(out.edge_index, torch.stack([src, dst]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hetero_attributes_beside_a_matrix_follow_in_its_order(layout):
    data = hetero()
    writes = data["author", "writes", "paper"]
    writes.edge_index = writes.edge_index.unique(dim=1)  # a CSR matrix would add repeated ones up
    writes.edge_attr = writes.edge_index.t().float()
    writes.weight = writes.edge_index[0] * 100 + writes.edge_index[1]
    writes.edge_label_index = writes.edge_index.flip(1)
    data = ToUndirected()(data)
    del data["paper", "cites", "paper"]
    out = SparsifyEdges(0.5)(ToSparseTensor(layout=layout)(copy.copy(data)))
    expected = SparsifyEdges(0.5)(data)
    for edge_type in data.edge_types:
        (dst, src), _ = to_edge_index(out[edge_type].adj_t)
        kept = expected[edge_type].edge_index
        assert sorted(zip(src.tolist(), dst.tolist(), strict=True)) == sorted(map(tuple, kept.t().tolist()))
        author, paper = (src, dst) if edge_type[0] == "author" else (dst, src)
        assert torch.equal(out[edge_type].weight, author * 100 + paper)
        assert torch.equal(out[edge_type].edge_attr, torch.stack([author, paper], dim=1).float())
    assert out["author", "writes", "paper"].edge_label_index.size(1) == writes.edge_index.size(1)


def test_other_sparse_matrices():
    dense = torch.zeros(60, 60)
    u, v = random_graph().edge_index
    dense[v, u] = torch.arange(1.0, u.numel() + 1)
    expected = SparsifyEdges(0.4)(Data(adj_t=dense.to_sparse_csr())).adj_t.to_dense()
    assert 0 < expected.count_nonzero() < u.numel()
    for matrix in (
        dense.to_sparse_csc(),
        dense.to_sparse_coo(),
        torch.sparse_coo_tensor(torch.stack([v, u]), dense[v, u]),
    ):
        out = SparsifyEdges(0.4)(Data(adj_t=matrix)).adj_t
        assert out.layout == matrix.layout
        assert torch.equal(out.to_dense(), expected)
    with pytest.raises(ValueError, match="'edge_type' is in the order of rows or of columns of 'adj_t', a CSC tensor"):
        SparsifyEdges(0.4)(Data(adj_t=dense.to_sparse_csc(), edge_type=torch.arange(u.numel())))


# Seven nodes and twelve entries.
TREE = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 0]])
TWELVE = torch.arange(12.0)


@pytest.mark.parametrize(
    ("key", "value", "doubt"),
    [
        ("y", TWELVE, True),
        ("y", TWELVE.numpy(), True),
        ("y", TWELVE.view(1, 12), False),
        ("fingerprint", TWELVE.view(12, 1).repeat(1, 4), True),
        ("symbols", tuple("CCCCCCNNNNNO"), True),
        ("neg_edge_index", TREE.flip(0), False),
        ("edge_label_index", TREE.flip(0), False),
        ("edge_label", TWELVE, False),
        ("train_pos_edge_index", TREE, False),
        ("train_edges", TREE.t(), True),
        ("edge_index_of_view", TREE, False),
        ("train_index", torch.arange(12) % 7, True),
        ("edge_feature_names", list("abcdefghijkl"), True),
        ("class_weight", TWELVE, True),
        ("edge_features", {"length": TWELVE}, True),
        ("split_edge", {"train": {"edge": TREE.t()}}, False),
        ("smiles", "CCCCCCNNNNNO", False),
    ],
)
def test_what_has_as_many_entries_as_there_are_edges_by_chance_stays(key, value, doubt):
    data = Data(x=torch.ones(7, 2), edge_index=TREE)
    data[key] = value
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        out = SparsifyEdges(0.5)(data)
    assert out.num_edges == 6
    assert out[key] is value
    assert [f"'{key}'" in str(warning.message) for warning in caught] == [True] * doubt
    # PyG would remember that it had as many entries as there were edges.
    assert not out.is_edge_attr(key)


@pytest.mark.parametrize("num_nodes", [7, 12])
@pytest.mark.parametrize(
    "make", [torch.Tensor.clone, torch.Tensor.numpy, lambda t: tuple(t.tolist()), torch.Tensor.tolist]
)
def test_what_belongs_to_edges_keeps_its_type(make, num_nodes):
    data = Data(x=torch.ones(num_nodes, 2), edge_index=TREE, edge_note=make(TWELVE))
    out = SparsifyEdges(0.5)(data)
    kept = sparsify_edge(TREE, 0.5, num_nodes=num_nodes)[1]
    assert type(out.edge_note) is type(data.edge_note)
    assert list(out.edge_note) == TWELVE[kept].tolist()


def test_as_many_nodes_as_edges_is_told_by_the_name():
    data = Data(x=torch.ones(12, 2), edge_index=TREE, y=TWELVE, edge_attr=TWELVE, train_mask=TWELVE > 3, rank=TWELVE)
    with pytest.warns(UserWarning, match="'rank' has as many entries, 12, as there are nodes and edges") as caught:
        out = SparsifyEdges(0.5)(data)
    assert len(caught) == 1
    assert out.y is data.y
    assert out.rank is data.rank
    assert out.train_mask is data.train_mask
    assert out.edge_attr.numel() == out.num_edges == 6


def test_sizes_that_cannot_be_right_and_second_copies_are_refused():
    with pytest.raises(ValueError, match=r"'edge_attr' must have one entry for each of 12 edges \(got 6\)"):
        SparsifyEdges(0.5)(Data(edge_index=TREE, edge_attr=torch.ones(6, 2), num_nodes=7))
    for copy_ in (Adjacency.from_edge_index(TREE, num_nodes=7), torch.eye(7).to_sparse_csr()):
        with pytest.raises(ValueError, match="'adj' holds the edges of 'edge_index' a second time"):
            SparsifyEdges(0.5)(Data(edge_index=TREE, adj=copy_, num_nodes=7))


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


@pytest.mark.parametrize("score", ["random", "forest_fire"])
def test_hetero_types_lose_their_edges_together_without_a_seed(score):
    out = SparsifyEdges(0.5, score)(ToUndirected()(hetero()))
    forward, backward = out["author", "writes", "paper"].edge_index, out["paper", "rev_writes", "author"].edge_index
    assert set(map(tuple, forward.t().tolist())) == set(map(tuple, backward.flip(0).t().tolist()))


def test_what_draws_nothing_leaves_the_generator_as_it_is():
    data = ToUndirected()(hetero())
    before = torch.get_rng_state()
    SparsifyEdges(0.5, "degree")(data)
    assert torch.equal(torch.get_rng_state(), before)


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
        SparsifyEdges(0.5)(Data(adj_t=torch.eye(3), num_nodes=3))
    with pytest.raises(ValueError, match="'edge_types' must be edge types of 'data'"):
        SparsifyEdges(0.5, edge_types=[("author", "reads", "paper")])(hetero())
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
