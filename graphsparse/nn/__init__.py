"""Layers that propagate by sparse products, and models whose mask is searched in place of their weights."""

from graphsparse.nn.accelerate import accelerate
from graphsparse.nn.csr_linear import CSRLinear, to_csr
from graphsparse.nn.fused import FUSED, FusedConv
from graphsparse.nn.gat_conv import GATConv
from graphsparse.nn.gcn2_conv import GCN2Conv
from graphsparse.nn.gcn_conv import GCNConv
from graphsparse.nn.gin_conv import GINConv
from graphsparse.nn.inference import layerwise_inference
from graphsparse.nn.sage_conv import SAGEConv
from graphsparse.nn.shrink import shrink
from graphsparse.nn.soft_masks import SoftMasks
from graphsparse.nn.sparsities import coat_sparsities
from graphsparse.nn.supermask import Supermask
from graphsparse.nn.units import ChannelUnits, channel_units
from graphsparse.nn.weight_laws import SupermaskLaw

__all__ = [
    "FUSED",
    "CSRLinear",
    "ChannelUnits",
    "FusedConv",
    "GATConv",
    "GCN2Conv",
    "GCNConv",
    "GINConv",
    "SAGEConv",
    "SoftMasks",
    "Supermask",
    "SupermaskLaw",
    "accelerate",
    "channel_units",
    "coat_sparsities",
    "layerwise_inference",
    "shrink",
    "to_csr",
]
