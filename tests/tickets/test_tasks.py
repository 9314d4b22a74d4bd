"""Tickets of every task: batches, links, many graphs and graphs of several types."""

import json
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from hetero_models import HETERO, Convs
from resuming import Kill, same_state
from torch_geometric.data import Batch, Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GCN, global_mean_pool

from graphsparse.edges import attach_pairs, sparsify_edge
from graphsparse.edges.graph_edges import by_kind, keep_entries
from graphsparse.loader import make_loader
from graphsparse.metrics import accuracy
from graphsparse.nn import SoftMasks, Supermask, accelerate
from graphsparse.soups import TicketStates
from graphsparse.testing import assert_undirected, random_graph, random_hetero_graph
from graphsparse.tickets import (
    METHODS,
    UGS,
    WDGLT,
    Channels,
    Distillation,
    Found,
    OneShot,
    Ticket,
    TicketRun,
    find_ticket,
    find_tickets,
)
from graphsparse.training import GraphTask, LinkTask, Masks, NodeTask, Training, build_model, fit, predict
from graphsparse.training.link_task import LinkNeighborBatches
from graphsparse.transforms import SparsifyEdges
from graphsparse.typing import has_module
from graphsparse.utils.call_model import call_model
from graphsparse.utils.files import read_tensors

SHORT = Training(epochs=3)
SPARSE = {"edge_sparsity": 0.4, "weight_sparsity": 0.6}


def gcn():
    return GCN(8, 16, 2, 3)


def batches_of(data):
    return make_loader("neighbor", data, seed=0, num_neighbors=[3, 2], batch_size=8)


def halves(data):
    """Two batches: the papers in halves, with all authors."""
    half = torch.arange(data["paper"].num_nodes) % 2 == 0
    return [data.subgraph({"paper": half}), data.subgraph({"paper": ~half})]


def links(loader=None, **options):
    data = random_graph()
    pairs = data.edge_index[:, data.edge_index[0] < data.edge_index[1]]
    held = torch.arange(pairs.size(1)) % 5 == 0
    data.edge_index = torch.cat([pairs[:, ~held], pairs[:, ~held].flip(0)], 1)
    generator = torch.Generator().manual_seed(0)
    split = {p: (pairs[:, held], torch.randint(60, (2, 30), generator=generator)) for p in ("val", "test")}
    return LinkTask(data, split, loader=loader, **options)


class Pooled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gnn, self.out = GCN(3, 8, 2), torch.nn.Linear(8, 1)

    def forward(self, x, edge_index, batch):
        return self.out(global_mean_pool(self.gnn(x, edge_index), batch))


def molecules(num=24):
    """Graphs of 1 to 8 nodes, the first without an edge."""
    generator, found = torch.Generator().manual_seed(0), []
    for i in range(num):
        size = 1 + i % 8
        pairs = torch.randint(size, (2, 2 * size), generator=generator)
        pairs = pairs[:, pairs[0] != pairs[1]]
        graph = Data(x=torch.randn(size, 3, generator=generator), y=torch.tensor([[float(i % 2)]]))
        graph.edge_index = torch.cat([pairs, pairs.flip(0)], 1)
        found.append(graph)
    return found


def graph_task(found=None):
    split = {"train": range(12), "val": range(12, 18), "test": range(18, 24)}
    return GraphTask(molecules() if found is None else found, split=split, target="binary", batch_size=5)


TASKS = {
    "loader": (gcn, lambda: NodeTask(random_graph(), loader=batches_of)),
    "inductive loader": (gcn, lambda: NodeTask(random_graph(), loader=batches_of, inductive=True)),
    "hetero": (Convs, random_hetero_graph),
    "hetero batches": (Convs, lambda: NodeTask(random_hetero_graph(), loader=halves)),
    "links": (lambda: GCN(8, 16, 2), links),
    "links in batches": (
        lambda: GCN(8, 16, 2),
        lambda: links(lambda data: LinkNeighborBatches(data, num_neighbors=[3, 2], batch_size=16)),
    ),
    "graphs": (Pooled, graph_task),
}


def same(first, second):
    assert (first.metrics, first.config, first.graph) == (second.metrics, second.config, second.graph)
    assert first.edge_rule == second.edge_rule
    masks = [t.edge_mask if isinstance(t.edge_mask, dict) else {None: t.edge_mask} for t in (first, second)]
    assert list(masks[0]) == list(masks[1])
    for kind, mask in masks[0].items():
        assert mask is masks[1][kind] is None or torch.equal(mask, masks[1][kind])
    assert same_state(first.state_dict, second.state_dict)
    assert same_state(first.weight_masks, second.weight_masks)


@pytest.mark.parametrize("name", TASKS)
def test_a_ticket_of_every_task(name, tmp_path):
    """Exact counts, a file that gives the same ticket, the same one again, and after a kill."""
    make_model, make_task = TASKS[name]
    options = {"method": "random", **SPARSE}
    ticket = find_ticket(make_model, make_task(), training=SHORT, **options)
    removed = sum(int((~mask).sum()) for mask in ticket.weight_masks.values())
    total = sum(p.numel() for p in make_model().parameters() if p.dim() >= 2)
    assert removed == int(0.6 * total)
    ticket.save(tmp_path / "t")
    same(Ticket.load(tmp_path / "t"), ticket)

    def kill(row):
        rows.append(row)
        if len(rows) == 2:
            raise Kill

    rows, training = [], replace(SHORT, checkpoint=tmp_path / "run", checkpoint_every=1)
    with pytest.raises(Kill):
        find_ticket(make_model, make_task(), training=replace(training, log=kill), **options)
    same(find_ticket(make_model, make_task(), training=training, **options), ticket)


@pytest.mark.parametrize("score", ["teddy", "random", "reverse_teddy"])
def test_edges_of_every_type_are_those_of_the_score(score):
    data, training = random_hetero_graph(), replace(SHORT, seed=5)
    ticket = find_ticket(Convs, data, edge_sparsity=0.4, method=OneShot(score), training=training)
    sparse, expected = ticket.sparsify(data), SparsifyEdges(0.4, score, seed=5)(data)
    for kind in data.edge_types:
        assert torch.equal(sparse[kind].edge_index, expected[kind].edge_index)
        pairs = {frozenset([(kind[0], u), (kind[2], v)]) for u, v in data[kind].edge_index.t().tolist()}
        left = {frozenset([(kind[0], u), (kind[2], v)]) for u, v in sparse[kind].edge_index.t().tolist()}
        assert len(left) == len(pairs) - int(0.4 * len(pairs))
    for forth, back in (("cites", "rev_cites"), ("writes", "rev_writes")):
        both = (next(sparse[k].edge_index for k in data.edge_types if k[1] == name) for name in (forth, back))
        assert set(map(tuple, next(both).t().tolist())) == set(map(tuple, next(both).flip(0).t().tolist()))


@pytest.mark.parametrize(
    ("name", "method"),
    [*((name, "teddy") for name in HETERO), ("HeteroConv", "iterative_magnitude"), ("HeteroConv", "random_untrained")],
)
def test_metrics_are_those_of_the_materialised_ticket(name, method):
    data, papers = random_hetero_graph(), random_hetero_graph()["paper"]
    edges = {"edge_sparsity": 0.5} if "edges" in METHODS[method].prunes else {}
    ticket = find_ticket(HETERO[name], data, weight_sparsity=0.5, method=method, training=SHORT, **edges)
    logits = predict(ticket.materialize(HETERO[name]), ticket.sparsify(data), node_type="paper")
    assert ticket.metrics["test"] == accuracy(logits, papers.y, papers.test_mask)
    assert ticket.metrics["val"] == accuracy(logits, papers.y, papers.val_mask)


@pytest.mark.skipif(not has_module("torch_sparse") and not has_module("pyg_lib"), reason="NeighborLoader needs one")
def test_neighbors_are_drawn_from_the_kept_edges():
    seen, data = [], random_hetero_graph()

    def loader(graph):
        seen.append(graph)
        seeds = ("paper", graph["paper"].train_mask)
        return NeighborLoader(graph, [3, 2], input_nodes=seeds, batch_size=6, shuffle=True)

    options = {"method": "teddy", "training": SHORT, **SPARSE}
    ticket = find_ticket(Convs, NodeTask(data, loader=loader), **options)
    sparse = ticket.sparsify(data)
    for kind in data.edge_types:
        assert torch.equal(seen[-1][kind].edge_index, sparse[kind].edge_index)
    same(find_ticket(Convs, NodeTask(data, loader=loader), **options), ticket)


def test_batches_are_made_of_the_kept_edges():
    data, seen = random_graph(), []

    def loader(graph):
        seen.append(graph)
        return [graph]

    batches, whole = (
        find_ticket(gcn, NodeTask(data, loader=load), method="teddy", training=SHORT, **SPARSE)
        for load in (loader, None)
    )
    same(batches, whole)
    assert torch.equal(seen[-1].edge_index, whole.sparsify(data).edge_index)


@dataclass(frozen=True)
class Rounds:
    """Trains twice before the last training, so that a loader has been drawn from."""

    prunes: ClassVar[frozenset[str]] = frozenset({"weights"})
    nested: ClassVar[bool] = True

    def find(self, run):
        for target in run.targets:
            keep = run.everything()
            for i in range(2):
                result = run.train(run.model(), f"round-{i}")
            sizes = {name: result.state_dict[name].abs() for name in keep.weights}
            yield Found(target, weights=keep.prune(weights=sizes, weight_sparsity=target.weights).weights)


@pytest.mark.parametrize("lost", ["final-1.pt", "round-1.pt"])
@pytest.mark.parametrize("kind", ["nodes", "links"])
def test_a_loader_with_a_generator_goes_on(kind, lost, tmp_path):
    """A ready loader remembers its draws: every training must begin with the same ones."""
    make_model = gcn if kind == "nodes" else lambda: GCN(8, 16, 2)

    def task():
        data = random_graph()
        return NodeTask(data, loader=batches_of(data)) if kind == "nodes" else links()

    options = {"method": Rounds(), "weight_sparsity": 0.5, "training": replace(SHORT, checkpoint=tmp_path)}
    whole = find_ticket(make_model, task(), **options)
    for name in (lost, "final-1.pt"):
        (tmp_path / name).unlink(missing_ok=True)
    same(find_ticket(make_model, task(), **options), whole)


def test_links_to_learn_stay_where_messages_go():
    task = links()
    run = TicketRun(lambda: GCN(8, 16, 2), task, [(0.5, 0.0)], SHORT)
    rule = run.score_edges("teddy", 0.5)
    sparse = run._sparse(task, rule)
    (batch,) = sparse.batches()
    expected = sparsify_edge(task.data.edge_index, 0.5, num_nodes=60)[0]
    assert torch.equal(batch.graph.edge_index, expected)
    assert torch.equal(batch.pairs[:, : task.links.size(1)], task.links)
    ticket = find_ticket(lambda: GCN(8, 16, 2), task, edge_sparsity=0.5, method="teddy", training=SHORT)
    assert torch.equal(ticket.sparsify(task.data).edge_index, expected)
    model = ticket.materialize(lambda: GCN(8, 16, 2))
    h = predict(model, ticket.sparsify(task.data))
    found, rest = ((h[p[0]] * h[p[1]]).sum(1) for p in task.split["test"])
    assert ticket.metrics["test"] == pytest.approx(task._judge(found, rest), abs=1e-6)


@pytest.mark.parametrize("score", ["teddy", "random"])
def test_every_graph_loses_its_own_share(score):
    found = molecules()
    ticket = find_ticket(Pooled, graph_task(found), edge_sparsity=0.5, method=OneShot(score), training=SHORT)
    assert ticket.edge_mask is ticket.graph is None
    kept = total = 0
    for graph in found:
        pairs = set(map(tuple, graph.edge_index.sort(0).values.t().tolist()))
        sparse = ticket.sparsify(graph)
        left = set(map(tuple, sparse.edge_index.sort(0).values.t().tolist()))
        assert left <= pairs
        assert len(left) == len(pairs) - len(pairs) // 2
        assert sparse.num_nodes == graph.num_nodes
        assert_undirected(sparse.edge_index)
        kept, total = kept + len(left), total + len(pairs)
        if score == "teddy":
            assert torch.equal(sparse.edge_index, SparsifyEdges(0.5)(graph).edge_index)
    assert ticket.metrics["edge_sparsity"] == pytest.approx(1 - kept / total)
    batch = Batch.from_data_list(found)
    together = ticket.sparsify(batch)
    for one, graph in zip(together.to_data_list(), found, strict=True):
        assert torch.equal(one.edge_index, ticket.sparsify(graph).edge_index)
    logits = predict(ticket.materialize(Pooled), ticket.sparsify(Batch.from_data_list(found[18:])))
    task = graph_task(found)
    y = torch.cat([graph.y for graph in found[18:]])
    assert ticket.metrics["test"] == pytest.approx(task._judge(logits, y))


def test_random_choices_differ_from_graph_to_graph():
    """Graphs of one size would else lose the same places of their lists of edges."""
    sparse = find_ticket(Pooled, graph_task(), edge_sparsity=0.5, method="random", training=SHORT)
    size, places = 12, []
    for shift in range(6):
        ends = torch.arange(size)
        graph = Data(edge_index=torch.stack([ends, (ends + 1 + shift) % 40]), num_nodes=40)
        places.append(tuple(sparse.edge_rule.kept(graph).tolist()))
    assert len(set(places)) > 3


def test_masks_and_pairs_by_edge_type():
    data = random_hetero_graph()
    run = TicketRun(Convs, data_task := NodeTask(data), [(0.5, 0.0)], SHORT)
    keep = run.everything()
    scores = {kind: torch.arange(mask.numel()) for kind, mask in keep.edges.items()}
    keep = keep.prune(edges=scores, edge_sparsity=0.5)
    assert [int((~m).sum()) for m in keep.edges.values()] == [int(0.5 * m.numel()) for m in keep.edges.values()]
    assert keep.within(run.everything())
    assert not run.everything().within(keep)
    assert keep.fingerprint() != run.everything().fingerprint()
    together = torch.cat(list(keep.edges.values()))
    for kind, pair in run.pairs.items():
        assert torch.equal(keep.edge_mask(data)[kind], together[pair])
    (ticket,) = find_tickets(Convs, data_task, targets=[(0.5, 0.0)], method=Given(keep.edges), training=SHORT)
    for kind, mask in keep.edge_mask(data).items():
        assert torch.equal(ticket.edge_mask[kind], mask)
    one = dict(list(keep.edges.items())[:1])
    with pytest.raises(ValueError, match="'edges' must hold scores for"):
        run.everything().prune(edges={k: m.long() for k, m in one.items()}, edge_sparsity=0.5)
    lopsided = {k: torch.ones_like(m) if i else m for i, (k, m) in enumerate(keep.edges.items())}
    with pytest.raises(ValueError, match="removed 0 of 74 edges for a sparsity of 0.5"):
        find_ticket(Convs, data, edge_sparsity=0.5, method=Given(lopsided), training=SHORT)


LEARNED = {
    "hetero": (Convs, random_hetero_graph),
    "hetero batches": (HETERO["to_hetero of a GAT"], lambda: NodeTask(random_hetero_graph(), loader=halves)),
    "WD-GLT by type": (Convs, random_hetero_graph),
    "loader": (gcn, lambda: NodeTask(random_graph(), loader=batches_of)),
    "links": (lambda: GCN(8, 16, 2), links),
    "links in batches": TASKS["links in batches"],
}


@pytest.mark.parametrize("name", LEARNED)
def test_learned_masks(name):
    make_model, make_task = LEARNED[name]
    method = (WDGLT if "WD-GLT" in name else UGS)(1e-2, 1e-2, edges_per_round=0.2, weights_per_round=0.4)
    targets = [(0.2, 0.4), (0.36, 0.64)]
    tickets = find_tickets(make_model, make_task(), targets=targets, method=method, training=SHORT)
    whole = Masks.everything(None, getattr(make_task(), "eval_data", None) or make_task())
    for (edges, _), ticket in zip(targets, tickets, strict=True):
        removed = sum(int(edges * mask.numel()) for mask in by_kind(whole.edges).values())
        total = sum(mask.numel() for mask in by_kind(whole.edges).values())
        assert ticket.metrics["edge_sparsity"] == removed / total
    for dense, sparse in zip(*(by_kind(ticket.edge_mask).values() for ticket in tickets), strict=True):
        assert not (sparse & ~dense).any()
        assert sparse.sum() < dense.sum()


def test_soft_masks_of_every_type():
    """Weight 0 is no edge, and the gradient of a mask is that of differences, over both types that share it."""
    data = attach_pairs(random_hetero_graph())
    for store in data.node_stores:
        store.x = store.x.double()
    model = accelerate(build_model(Convs, 0).double()).eval()
    keep = Masks.everything(None, data)
    for mask in keep.edges.values():
        mask[::3] = False
    soft = SoftMasks(model, edges=keep.edges, seed=1)
    expected = model(*(getattr(keep_entries(data, keep.edge_mask(data)), k) for k in ("x_dict", "edge_index_dict")))
    torch.testing.assert_close(call_model(soft, data), expected, atol=1e-12, rtol=1e-12)
    assert list(soft.scores()["edges"]) == list(keep.edges)
    soft.edge.data.copy_(torch.rand(soft.edge.shape, generator=torch.Generator().manual_seed(0)) + 0.2)

    def loss():
        return call_model(soft, data).square().sum()

    (gradient,) = torch.autograd.grad(loss(), soft.edge)
    for i in (1, 40, soft.edge.numel() - 1):
        values = []
        for step in (1e-6, -1e-6):
            soft.edge.data[i] += step
            values.append(loss().item())
            soft.edge.data[i] -= step
        assert gradient[i].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6, abs=1e-7)


@dataclass(frozen=True, eq=False)
class Given:
    """Yields the edges that it is given."""

    edges: object
    prunes: ClassVar[frozenset[str]] = frozenset({"edges"})
    nested: ClassVar[bool] = True

    def find(self, run):
        for target in run.targets:
            yield Found(target, self.edges)


@dataclass(frozen=True)
class ByPairs(Given):
    """Asks for the pairs of the graph, as methods that learn a mask do."""

    edges: object = None

    def find(self, run):
        yield from (Found(target, run.pairs) for target in run.targets)


class Own(GraphTask):
    """A task that nobody knows how to put on other graphs."""

    with_graphs = property()


BAD = {
    "ready batches": (
        gcn,
        lambda: NodeTask(random_graph(), loader=[random_graph()]),
        "teddy",
        "give a function of the graph as 'loader'",
    ),
    "ready link batches": (
        lambda: GCN(8, 16, 2),
        lambda: links(LinkNeighborBatches(random_graph(), num_neighbors=[2, 2])),
        "teddy",
        "give a function of the graph as 'loader'",
    ),
    "a learned mask on many graphs": (
        Pooled,
        graph_task,
        ByPairs(),
        "a mask says nothing of the edges of other graphs",
    ),
    "a mask on many graphs": (
        Pooled,
        graph_task,
        Given(torch.ones(3).bool()),
        "a mask of edges says nothing of another",
    ),
    "no edges chosen": (Pooled, graph_task, Given(None), "chose no edges by run.score_edges"),
    "UGS on many graphs": (Pooled, graph_task, "ugs", "learned masks of edges say nothing of another graph"),
    "UGS, inductive": (gcn, lambda: NodeTask(random_graph(), inductive=True), "ugs", "say nothing of another graph"),
    "FastGLT by type": (Convs, random_hetero_graph, "fastglt", "'edge_sparsity' must be 0 .* on a HeteroData"),
    "another task": (
        Pooled,
        lambda: Own(molecules(), split={"train": [1, 2], "val": [3, 4]}, target="binary"),
        "teddy",
        "cannot be put on other graphs .got Own",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_done_is_refused(name):
    make_model, make_task, method, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        find_ticket(make_model, make_task(), edge_sparsity=0.5, method=method, training=SHORT)


def test_a_score_without_a_name_is_refused_for_many_graphs():
    method = OneShot(lambda edges, num_nodes: edges.sum(0).float())
    with pytest.raises(TypeError, match="'edges' must be the name of a score for a task on many graphs"):
        find_ticket(Pooled, graph_task(), edge_sparsity=0.5, method=method, training=SHORT)


def test_channels_of_every_type_are_cut():
    data, make_model = random_hetero_graph(), HETERO["to_hetero"]
    ticket = find_ticket(make_model, data, weight_sparsity=0.4, method=Channels(), training=SHORT)
    small, whole = ticket.materialize(make_model, shrink=data), ticket.materialize(make_model)
    assert sum(p.numel() for p in small.parameters()) < 0.8 * sum(p.numel() for p in whole.parameters())
    found, expected = (predict(model, data, node_type="paper") for model in (small, whole))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_distillation_on_a_node_type():
    data = random_hetero_graph()
    options = {"training": SHORT, "distillation": Distillation(), **SPARSE}
    ticket = find_ticket(Convs, data, **options)
    assert ticket.config["Distillation"]["nodes"] == "train"
    assert not same_state(ticket.state_dict, find_ticket(Convs, data, training=SHORT, **SPARSE).state_dict)


def test_the_graph_must_be_that_of_the_ticket(tmp_path):
    data = random_hetero_graph()
    ticket = find_ticket(Convs, data, edge_sparsity=0.4, method="teddy", training=SHORT)
    with pytest.raises(ValueError, match="'data' is not the graph the ticket was made for"):
        ticket.sparsify(random_hetero_graph(seed=1))
    assert f"of {data.num_edges} entries of edge_index" in ticket.summary()
    with pytest.raises(ValueError, match="HeteroData"):
        TicketStates([ticket])
    masks = {("a", "b", "c"): torch.ones(1).bool()}
    with pytest.raises(ValueError, match="'edge_mask' must be by the edge types of 'data'"):
        Ticket.from_supermask(Supermask(gcn(), 0.5), data=data, edge_mask=masks)
    ticket.save(tmp_path / "t")
    _, header = read_tensors(tmp_path / "t", "ticket", "3")
    assert [tuple(entry[:3]) for entry in header["edge_types"]] == data.edge_types
    assert header["num_edges"] is None


def test_the_file_of_one_graph_is_as_before(tmp_path):
    ticket = find_ticket(gcn, random_graph(), edge_sparsity=0.4, method="teddy", training=SHORT)
    ticket.save(tmp_path / "t")
    tensors, header = read_tensors(tmp_path / "t", "ticket", "3")
    assert list(header) == ["graph", "num_edges", "config", "metrics", "names", "masks", "frozen"]
    assert header["num_edges"] == random_graph().num_edges
    assert tensors["edge_mask"].numel() == math.ceil(header["num_edges"] / 8)
    json.dumps(header)


def test_sparsity_0_is_the_trained_model():
    data = random_hetero_graph()
    ticket = find_ticket(Convs, data, method="teddy", training=replace(SHORT, fast=False))
    result = fit(build_model(Convs, 0), data, SHORT)
    assert same_state(ticket.state_dict, result.state_dict)
    assert Masks(edges=ticket.edge_mask).edge_sparsity == 0
