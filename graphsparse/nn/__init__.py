"""Layers that propagate by sparse products, and models whose mask is searched in place of their weights."""

from graphsparse.nn.accelerate import accelerate
from graphsparse.nn.coats import coat_sparsities
from graphsparse.nn.folding import folding_stages
from graphsparse.nn.gat_conv import GATConv
from graphsparse.nn.gcn_conv import GCNConv
from graphsparse.nn.gin_conv import GINConv
from graphsparse.nn.sage_conv import SAGEConv
from graphsparse.nn.supermask import Supermask, SupermaskSparsity

__all__ = [
    "GATConv",
    "GCNConv",
    "GINConv",
    "SAGEConv",
    "Supermask",
    "SupermaskSparsity",
    "accelerate",
    "coat_sparsities",
    "folding_stages",
]
