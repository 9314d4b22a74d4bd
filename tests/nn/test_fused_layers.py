"""What all fused layers have in common."""

import pytest
import torch
from torch import nn

import graphsparse.nn as ours
from graphsparse.nn import FUSED, FusedConv
from graphsparse.ops import Adjacency
from graphsparse.testing import random_graph


def network():
    return nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 4))


BLOCKS = {
    "GCN": lambda: ours.GCNConv(8, 4),
    "GCN, wide": lambda: ours.GCNConv(8, 16),
    "GCN, improved": lambda: ours.GCNConv(8, 4, improved=True, bias=False),
    "GCN, not normalised": lambda: ours.GCNConv(8, 4, normalize=False),
    "SAGE": lambda: ours.SAGEConv(8, 4),
    "SAGE, wide": lambda: ours.SAGEConv(8, 16, normalize=True),
    "SAGE, max": lambda: ours.SAGEConv(8, 4, aggr="max", project=True),
    "SAGE, sum": lambda: ours.SAGEConv(8, 4, aggr="sum", root_weight=False),
    "GIN": lambda: ours.GINConv(network(), eps=0.25),
    "GIN, min": lambda: ours.GINConv(network(), aggr="min", train_eps=True),
    "GAT": lambda: ours.GATConv(8, 4, heads=2),
    "GAT, mean": lambda: ours.GATConv(8, 4, heads=3, concat=False, residual=True),
    "GAT, no self-loops": lambda: ours.GATConv(8, 4, add_self_loops=False),
    "GAT, pair": lambda: ours.GATConv((8, 8), 4, heads=2),
    "GAT, features of edges": lambda: ours.GATConv(8, 4, heads=2, edge_dim=3),
    "GCNII": lambda: ours.GCN2Conv(8, 0.3, 0.5, 2),
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("weighted", [False, True])
@torch.no_grad()
def test_blocks_of_rows_are_the_rows(name, weighted):
    data = random_graph()
    torch.manual_seed(0)
    layer = BLOCKS[name]().eval()
    weight = torch.rand(data.num_edges) if weighted else None
    if weighted:
        weight[::5] = 0
    x = torch.randn(data.num_nodes, 8)
    pair = "pair" in name or "GCN" not in name
    adj = Adjacency.from_edge_index(data.edge_index, weight, data.num_nodes)
    operator = layer.operator(adj, x.dtype)
    given, per_row, per_entry = {}, {}, {}
    if "GCNII" in name:
        given["x_0"] = per_row["x_0"] = torch.randn(data.num_nodes, 8)
    if "features" in name:
        given["edge_attr"] = torch.randn(data.num_edges, 3)
        per_entry["edge_attr"] = layer.edge_rows(adj, given["edge_attr"])
    expected = layer((x, x) if pair else x, edge_index=data.edge_index, edge_weight=weight, **given)
    hidden = torch.cat([layer.transform(part) for part in x.split(25)])
    for columns in ("all", "needed"):
        found = []
        for start in range(0, data.num_nodes, 25):
            rows = slice(start, min(start + 25, data.num_nodes))
            block = operator.rows(rows.start, rows.stop)
            extra = {key: value[rows] for key, value in per_row.items()}
            entries = slice(int(operator.rowptr[rows.start]), int(operator.rowptr[rows.stop]))
            extra |= {key: value[entries] for key, value in per_entry.items()}
            sources = hidden
            if columns == "needed":
                (source, target), value = block.to_edge_index()
                nodes, source = source.unique(return_inverse=True)
                size = (nodes.numel(), block.num_dst)
                block, sources = Adjacency.from_edge_index(torch.stack([source, target]), value, size), hidden[nodes]
            found.append(layer.rows(block, sources, hidden[rows], x[rows], **extra))
        torch.testing.assert_close(torch.cat(found), expected, atol=1e-5, rtol=1e-5)


def test_what_layers_declare():
    assert {cls.replaces: cls for cls in FUSED.values()} == FUSED
    assert all(issubclass(cls, FusedConv) and issubclass(cls, theirs) for theirs, cls in FUSED.items())
    sums = {"GCN", "GCN, wide", "GCN, improved", "GCN, not normalised", "SAGE, sum", "GIN", "GCNII"}
    layers = {name: make() for name, make in BLOCKS.items()}
    assert {name for name, layer in layers.items() if layer.weighted_sum} == sums
    normalising = {"GCN", "GCN, wide", "GCN, improved", "GCNII"}
    assert {name for name, layer in layers.items() if layer.normalises} == normalising
    rooted = {"SAGE", "SAGE, wide", "SAGE, max", "GIN", "GIN, min"}
    assert {name for name, layer in layers.items() if layer.has_root} == rooted
