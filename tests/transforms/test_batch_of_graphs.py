"""A batch of graphs comes out of a transform as the batch of what comes out for each graph, or is refused by name."""

import copy

import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader

from graphsparse.edges.mask import mask_data_edges
from graphsparse.transforms import LeaveOutClasses, PerturbEdges, PerturbFeatures, ReorderNodes, SparsifyEdges
from graphsparse.typing import has_module


def graph(seed, size=5):
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(size + seed, (2, 15 + 4 * seed), generator=generator)
    edges = torch.cat([edges, edges.flip(0)], dim=1)[:, edges.size(1) % 2 :]
    data = Data(x=torch.rand(size + seed, 3), edge_index=edges, edge_attr=edges.t().float(), y=torch.rand(1, 4))
    data.edge_name, data.smiles = [f"{seed}:{u}-{v}" for u, v in edges.t().tolist()], "C" * seed
    data.neg_edge_index, data.train_mask = edges[:, :3].flip(0), torch.arange(size + seed) < 3
    data.parts = {"scale": torch.ones(2), "root_index": torch.tensor([seed])}
    return data


def hetero(seed):
    generator = torch.Generator().manual_seed(seed)
    data = HeteroData()
    data["a"].x, data["b"].x = torch.ones(4 + seed, 1), torch.ones(6, 1)
    edges = torch.stack([torch.randint(n, (18,), generator=generator) for n in (4 + seed, 6)])
    data["a", "to", "b"].edge_index, data["a", "to", "b"].weight = edges, edges[0] * 10 + edges[1]
    data["a", "to", "b"].edge_label_index = edges.flip(1)
    return data


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


GRAPHS = [graph(seed) for seed in range(5)]


@pytest.mark.parametrize(
    "transform",
    [SparsifyEdges(0.3), SparsifyEdges(0.3, "random", seed=1), PerturbEdges(0.4), PerturbFeatures(0.5)],
    ids=str,
)
@pytest.mark.parametrize(
    "graphs",
    [
        GRAPHS,
        GRAPHS[:1],
        [GRAPHS[3], Data(**{**GRAPHS[0].to_dict(), "edge_index": GRAPHS[0].edge_index[:, :0]})],
        "hetero",
    ],
    ids=["several", "one", "edgeless", "hetero"],
)
def test_each_graph_is_treated_as_alone(transform, graphs):
    if graphs == "hetero":
        graphs = [hetero(seed) for seed in range(3)]
        if not isinstance(transform, SparsifyEdges):
            with pytest.raises(TypeError, match="'data' must be a homogeneous Data"):
                transform(Batch.from_data_list(graphs))
            return
    elif len(graphs) == 2:
        graphs[1].edge_attr, graphs[1].edge_name = graphs[1].edge_attr[:0], []
    batch = Batch.from_data_list(graphs, follow_batch=["edge_attr"])
    before = copy.deepcopy(batch)
    out, expected = transform(batch), [transform(data) for data in graphs]
    for got, wanted in zip(out.to_data_list(), expected, strict=True):
        assert same(got.to_dict(), wanted.to_dict())
    assert same(out.to_dict(), Batch.from_data_list(expected, follow_batch=["edge_attr"]).to_dict())
    assert same(batch.to_dict(), before.to_dict())


@pytest.mark.skipif(not has_module("torch_sparse"), reason="needs torch-sparse")
def test_matrices_in_a_batch():
    graphs = [
        T.ToSparseTensor()(Data(x=data.x, edge_index=data.edge_index, edge_attr=data.edge_attr)) for data in GRAPHS
    ]
    expected = [SparsifyEdges(0.3)(data) for data in graphs]
    for got, wanted in zip(SparsifyEdges(0.3)(Batch.from_data_list(graphs)).to_data_list(), expected, strict=True):
        assert torch.equal(got.adj_t.to_dense(), wanted.adj_t.to_dense())
        row, col, _ = got.adj_t.coo()
        assert torch.equal(got.edge_attr, torch.stack([col, row], dim=1).float())


def test_no_edge_leads_into_another_graph():
    batch = next(iter(DataLoader(GRAPHS, batch_size=4)))
    out = PerturbEdges(0.9)(batch)
    assert torch.equal(out.batch[out.edge_index[0]], out.batch[out.edge_index[1]])
    assert not torch.equal(out.edge_index, batch.edge_index)


def test_the_mask_of_a_ticket_masks_each_graph():
    batch = Batch.from_data_list(GRAPHS)
    mask = torch.rand(batch.num_edges, generator=torch.Generator().manual_seed(0)) < 0.5
    out = mask_data_edges(batch, mask)
    assert torch.equal(out.edge_index, batch.edge_index[:, mask])
    for got, data in zip(out.to_data_list(), GRAPHS, strict=True):
        assert torch.equal(got.edge_attr, got.edge_index.t().float())
        assert set(got.edge_name) <= set(data.edge_name)


def test_what_was_added_to_a_batch():
    batch = Batch.from_data_list(GRAPHS)
    batch.hidden = torch.rand(batch.num_nodes)
    assert torch.equal(SparsifyEdges(0.3)(batch).hidden, batch.hidden)
    batch.edge_weight = torch.rand(batch.num_edges)
    with pytest.raises(ValueError, match="'edge_weight' was added to the Batch"):
        SparsifyEdges(0.3)(batch)


def test_a_batch_that_cannot_be_taken_apart_is_refused():
    batch = Batch.from_data_list(GRAPHS)
    shuffled, loops = copy.copy(batch), T.AddSelfLoops()(batch)
    shuffled.edge_index = batch.edge_index.flip(1)
    for changed in (shuffled, loops):
        with pytest.raises(ValueError, match="'edge_index' of the Batch is not the one it was joined of"):
            SparsifyEdges(0.3)(changed)
    with pytest.raises(ValueError, match="not made by Batch.from_data_list"):
        SparsifyEdges(0.3)(Batch(x=batch.x, edge_index=batch.edge_index, batch=batch.batch))
    by_hand = Batch(_base_cls=HeteroData)
    by_hand["a"].x, by_hand["a", "to", "a"].edge_index = torch.ones(9, 1), GRAPHS[0].edge_index
    with pytest.raises(ValueError, match="not made by Batch.from_data_list"):
        SparsifyEdges(0.3)(by_hand)
    sparse = [Data(adj_t=torch.eye(3).to_sparse_csr()) for _ in range(2)]
    with pytest.raises(ValueError, match="sparse tensors, which PyG cannot take apart"):
        SparsifyEdges(0.3)(Batch.from_data_list(sparse))


def test_what_is_of_one_graph_refuses_a_batch():
    for transform in (LeaveOutClasses(0.4), ReorderNodes("rcm")):
        with pytest.raises(ValueError, match=r"'data' must be one graph \(got a Batch\)"):
            transform(Batch.from_data_list(GRAPHS))
