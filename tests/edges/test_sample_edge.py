import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data, HeteroData
from torch_geometric.utils import to_torch_csr_tensor

from graphsparse.edges import SPARSIFIERS, Sparsifier, sample_edge, sparsify_edge
from graphsparse.edges.cores import CORES
from graphsparse.edges.inclusion import DESIGNS
from graphsparse.edges.sparsify import EntryDrawer
from graphsparse.edges.undirected import undirected_edges
from graphsparse.nn import GATConv, GCNConv, GINConv, SAGEConv
from graphsparse.testing import random_graph, toy_edge_index
from graphsparse.transforms import SparsifyEdges

DRAWN = ["pivotal", "systematic", "poisson", "replacement"]
edge_lists = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=50)


def tensor(pairs):
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t()


def test_all_designs_are_tested():
    assert sorted(DRAWN) == sorted(DESIGNS)


@settings(max_examples=20)
@given(edge_lists, st.sampled_from([0.0, 0.3, 0.5, 0.9]), st.sampled_from(DRAWN), st.randoms())
def test_laws_of_a_draw(pairs, sparsity, design, random):
    method = Sparsifier("inverse_degree_sum", design=design)
    edge_index = tensor(pairs)
    found = sample_edge(edge_index, sparsity, method, num_nodes=10, seed=4)
    keys = undirected_edges(edge_index, 10).key
    kept = undirected_edges(found.edge_index, 10).key
    budget = keys.numel() - int(sparsity * keys.numel())
    if design in ("pivotal", "systematic"):
        assert kept.numel() == budget
    assert found.report["kept"] == kept.numel()
    assert found.report["edges"] == keys.numel()
    if not (design == "replacement" and sparsity > 0):
        assert found.report["expected"] == pytest.approx(budget, abs=1e-6)
    if sparsity == 0:
        assert bool(found.mask.all())
        assert found.edge_weight.tolist() == [1.0] * len(pairs)
    loops = edge_index[0] == edge_index[1]
    assert bool(found.mask[loops].all())
    assert bool((found.probability[loops] == 1).all())
    assert torch.equal(found.edge_index, edge_index[:, found.mask])
    # Both directions and duplicates share mask and factor, whatever their order.
    order = list(range(len(pairs)))
    random.shuffle(order)
    turned = tensor([pairs[i] if random.random() < 0.5 else pairs[i][::-1] for i in order])
    other = sample_edge(turned, sparsity, method, num_nodes=10, seed=4)
    assert torch.equal(other.mask, found.mask[order])
    assert torch.equal(other.probability, found.probability[order])
    weight = torch.zeros(len(pairs))
    weight[found.mask] = found.edge_weight
    weight_of_other = torch.zeros(len(pairs))
    weight_of_other[other.mask] = other.edge_weight
    assert torch.equal(weight_of_other, weight[order])


def copies(edge_index, num_nodes, times):
    shift = torch.arange(times).view(-1, 1, 1) * num_nodes
    return (edge_index.unsqueeze(0) + shift).transpose(0, 1).reshape(2, -1)


@pytest.mark.parametrize("design", [name for name in DRAWN if name != "systematic"])  # that has one random number
def test_expected_adjacency_is_the_given_one(design):
    """20,000 copies of a small graph with weights: the mean of the new weights of an entry is its own."""
    times = 20_000
    small = nx.lollipop_graph(5, 3)
    edge_index = tensor(list(small.edges))
    edge_index = torch.cat([edge_index, edge_index[:, ::2].flip(0)], 1)  # some in one direction only
    weight = torch.linspace(0.5, 3, edge_index.size(1), dtype=torch.float64)
    found = sample_edge(
        copies(edge_index, 8, times),
        0.6,
        Sparsifier("inverse_degree_sum", design=design),
        num_nodes=8 * times,
        seed=1,
        edge_weight=weight.repeat(times),
    )
    new = torch.zeros(found.mask.numel(), dtype=torch.float64)
    new[found.mask] = found.edge_weight
    new = new.view(times, -1)
    # Copies hardly depend on each other; where they do, as in a design with a fixed count, the mean varies less.
    z = (new.mean(0) - weight) / (new.std(0) / times**0.5).clamp(min=1e-12)
    assert float(z.abs().max()) < 5
    assert bool((new.std(0) > 0).any())


@pytest.mark.parametrize("design", DRAWN)
def test_expected_adjacency_over_draws(design):
    edge_index, times = toy_edge_index(), 300
    drawer = EntryDrawer(edge_index, 0.5, Sparsifier("inverse_degree_sum", design=design), seed=3)
    weights = torch.stack([torch.mul(*drawer.draw(epoch)) for epoch in range(times)])
    z = (weights.mean(0) - 1) / (weights.std(0) / times**0.5).clamp(min=1e-6)
    assert float(z.abs().max()) < 5
    assert float(weights.std(0).max()) > 0


def test_entries_of_one_edge_keep_their_ratio():
    edge_index = torch.tensor([[0, 1, 0, 2, 3, 3, 1], [1, 0, 1, 3, 2, 0, 1]])
    weight = torch.tensor([1.0, 2.0, 4.0, 3.0, 1.5, 5.0, 7.0])
    for seed in range(10):
        found = sample_edge(
            edge_index, 0.34, Sparsifier("inverse_degree_sum", design="replacement"), seed=seed, edge_weight=weight
        )
        factor = torch.zeros(7)
        factor[found.mask] = found.edge_weight / weight[found.mask]
        assert factor[0] == factor[1] == factor[2]
        assert factor[3] == factor[4]
        assert factor[6] == 1


def test_weight_zero_is_removed_before_anything_is_counted():
    edge_index = toy_edge_index()
    weight = torch.ones(edge_index.size(1))
    gone = (edge_index == 4).any(0)
    weight[gone] = 0
    found = sample_edge(edge_index, 0.5, seed=0, edge_weight=weight)
    assert found.report["edges"] == 4
    assert not bool(found.mask[gone].any())
    assert float(found.probability[gone].sum()) == 0
    alone = sample_edge(edge_index[:, ~gone], 0.5, seed=0, num_nodes=5)
    assert torch.equal(found.edge_index, alone.edge_index)
    assert torch.equal(found.edge_weight, alone.edge_weight)


@pytest.mark.parametrize(
    ("dtype", "out"), [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.int64, torch.float32)]
)
def test_types_of_weights(dtype, out):
    edge_index = toy_edge_index()
    weight = torch.full((edge_index.size(1),), 2, dtype=dtype)
    assert sample_edge(edge_index, 0.4, seed=0, edge_weight=weight).edge_weight.dtype == out
    uniform = sample_edge(edge_index, 0.4, "random", seed=0, edge_weight=weight)
    assert torch.equal(uniform.edge_weight, weight[uniform.mask])  # not reweighted: the bits that came


def test_equally_likely_edges_are_not_reweighted_unless_asked():
    edge_index = random_graph().edge_index
    plain = sample_edge(edge_index, 0.25, "random", seed=3)
    assert plain.edge_weight is None
    assert torch.equal(plain.mask, sparsify_edge(edge_index, 0.25, "random", seed=3)[1])
    asked = sample_edge(edge_index, 0.25, Sparsifier("random", design="pivotal", reweight=True), seed=3)
    edges = undirected_edges(edge_index).num_edges
    kept = edges - edges // 4
    assert torch.allclose(asked.edge_weight, torch.tensor(edges / kept))
    assert torch.allclose(asked.probability, torch.tensor(kept / edges, dtype=torch.float64))
    unasked = sample_edge(edge_index, 0.25, Sparsifier("jaccard", design="pivotal", reweight=False), seed=3)
    assert unasked.edge_weight is None


def test_core_is_kept_with_its_weight(monkeypatch):
    monkeypatch.setitem(CORES, "first", lambda edges, score, *, edge_weight=None: torch.arange(edges.num_edges) < 20)
    edge_index = random_graph().edge_index
    core = undirected_edges(edge_index).key[:20]
    low, high = edge_index.sort(0).values
    sure = torch.isin(low * 60 + high, core)
    for design in DRAWN:
        found = sample_edge(edge_index, 0.5, Sparsifier("inverse_degree_sum", design=design, core="first"), seed=1)
        assert bool(found.mask[sure].all())
        assert found.report["core"] == 20
        weight = torch.zeros(edge_index.size(1))
        weight[found.mask] = found.edge_weight
        assert weight[sure].tolist() == [1.0] * int(sure.sum())
        assert bool((found.probability[sure] == 1).all())


def test_given_number_of_draws():
    edge_index = random_graph().edge_index
    found = sample_edge(edge_index, None, "dspar_published", draws=100, seed=0)
    assert found.report["draws"] == 100
    assert found.report["kept"] <= 100
    count = found.edge_weight.double() * (100 * share(edge_index))[found.mask]  # weight = count / (draws * p)
    assert torch.allclose(count, count.round(), atol=1e-4)
    upper = found.edge_index[0] < found.edge_index[1]
    assert float(count[upper].sum()) == pytest.approx(100, abs=1e-3)
    assert torch.allclose(found.probability, 1 - (1 - share(edge_index)) ** 100)
    with pytest.raises(ValueError, match="'sparsity' and 'draws' both"):
        sample_edge(edge_index, 0.5, "dspar_published", draws=100)
    with pytest.raises(ValueError, match="'draws' needs the design 'replacement'"):
        sample_edge(edge_index, None, "dspar", draws=100)


def share(edge_index):
    """Probability of each entry's edge in one draw of DSpar, from networkx."""
    graph = nx.Graph(edge_index.t().tolist())
    p = torch.tensor(
        [1 / graph.degree[u] + 1 / graph.degree[v] for u, v in edge_index.t().tolist()], dtype=torch.float64
    )
    return p / (p.sum() / 2)


def test_probabilities_of_dspar():
    edge_index = random_graph().edge_index
    p = share(edge_index)
    found = sample_edge(edge_index, 0.8, "dspar", seed=0)
    edges = undirected_edges(edge_index).num_edges
    kept = edges - int(0.8 * edges)
    assert float((p * kept).max()) < 1
    assert torch.allclose(found.probability, p * kept, atol=1e-6)
    assert torch.allclose(found.edge_weight, (1 / (p * kept))[found.mask].float(), rtol=1e-4)


def test_directed_edges_are_drawn_one_by_one():
    edge_index = random_graph().edge_index
    found = sample_edge(edge_index, 0.5, Sparsifier("random", design="pivotal", directed=True), seed=0)
    assert found.edge_index.size(1) == edge_index.size(1) - edge_index.size(1) // 2
    assert sparsify_edge(found.edge_index, 0, num_nodes=60)[0].size(1) == found.edge_index.size(1)
    forth = set(map(tuple, found.edge_index.t().tolist()))
    assert any((v, u) not in forth for u, v in forth)


def test_wrong_arguments():
    edge_index = toy_edge_index()
    size = edge_index.size(1)
    with pytest.raises(ValueError, match="'edge_weight' must be finite and not negative"):
        sample_edge(edge_index, 0.5, edge_weight=-torch.ones(size))
    with pytest.raises(ValueError, match="'edge_weight' must be finite and not negative"):
        sample_edge(edge_index, 0.5, edge_weight=torch.full((size,), torch.nan))
    with pytest.raises(ValueError, match="'score' must be finite and not negative where edges are drawn by it"):
        sample_edge(edge_index, 0.5, lambda edge_index, _: -edge_index.sum(0))
    with pytest.raises(ValueError, match="'sparsity' must be given where edges are drawn"):
        sample_edge(edge_index)
    with pytest.raises(ValueError, match="'sparsity' is the fraction removed"):
        sample_edge(edge_index, 1.5)
    with pytest.raises(ValueError, match="sample_edge returns them"):
        sparsify_edge(edge_index, 0.5, "dspar")


@pytest.mark.parametrize("name", [name for name, method in SPARSIFIERS.items() if method.reweights])
def test_transform_gives_the_same_weights(name):
    data = random_graph()
    data.edge_attr = torch.arange(data.num_edges).float()
    try:
        found = sample_edge(data.edge_index, 0.5, name, seed=2)
    except ValueError as error:
        pytest.skip(str(error))
    out = SparsifyEdges(0.5, name, 2)(data)
    assert torch.equal(out.edge_index, found.edge_index)
    assert torch.equal(out.edge_weight, found.edge_weight)
    assert torch.equal(out.edge_attr, data.edge_attr[found.mask])
    assert "edge_weight" not in data


def test_transform_scales_the_values_of_matrices():
    data = random_graph()
    weight = torch.rand(data.num_edges, generator=torch.Generator().manual_seed(0)) + 0.5
    expected = SparsifyEdges(0.5, "dspar", 2)(Data(edge_index=data.edge_index, edge_weight=weight, num_nodes=60))
    dense = torch.zeros(60, 60)
    dense[expected.edge_index[1], expected.edge_index[0]] = expected.edge_weight
    matrix = to_torch_csr_tensor(data.edge_index.flip(0), weight, size=(60, 60))
    for adj_t in (matrix, matrix.to_sparse_coo(), matrix.to_sparse_csc()):
        assert torch.allclose(SparsifyEdges(0.5, "dspar", 2)(Data(adj_t=adj_t)).adj_t.to_dense(), dense)
    both = SparsifyEdges(0.5, "dspar", 2)(
        Data(edge_index=data.edge_index, edge_weight=weight, adj_t=matrix, num_nodes=60)
    )
    assert torch.equal(both.edge_weight, expected.edge_weight)
    assert torch.allclose(both.adj_t.to_dense(), dense)


def test_edge_type_and_its_reverse_get_the_same_weights():
    data = HeteroData()
    data["a"].num_nodes, data["b"].num_nodes = 7, 9
    pairs = torch.randint(7, (2, 40), generator=torch.Generator().manual_seed(0))
    data["a", "to", "b"].edge_index, data["b", "rev_to", "a"].edge_index = pairs, pairs.flip(0)
    out = SparsifyEdges(0.5, "dspar", 1)(data)
    first, second = out["a", "to", "b"], out["b", "rev_to", "a"]
    assert torch.equal(first.edge_index, second.edge_index.flip(0))
    assert torch.equal(first.edge_weight, second.edge_weight)


@pytest.mark.parametrize("make", [GCNConv, SAGEConv, GATConv, GINConv])
def test_layers_take_the_result(make):
    data = random_graph()
    layer = make(torch.nn.Linear(8, 4)) if make is GINConv else make(8, 4)
    found = sample_edge(data.edge_index, 0.5, seed=0)
    dropped = torch.zeros(data.num_edges)
    dropped[found.mask] = found.edge_weight
    out = layer(data.x, found.edge_index, edge_weight=found.edge_weight)
    assert torch.allclose(out, layer(data.x, data.edge_index, edge_weight=dropped), atol=1e-5)
