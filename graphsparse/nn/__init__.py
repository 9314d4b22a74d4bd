"""Layers that propagate by sparse products, and models whose mask is searched in place of their weights."""

from graphsparse.nn.accelerate import accelerate
from graphsparse.nn.coats import coat_sparsities
from graphsparse.nn.compact_linear import CompactLinear
from graphsparse.nn.csr_linear import CSRLinear
from graphsparse.nn.folding import folding_stages
from graphsparse.nn.form_choice import FormChoice, FormFigures, fastest_form
from graphsparse.nn.fused import FUSED, FusedConv
from graphsparse.nn.gat_conv import GATConv
from graphsparse.nn.gcn2_conv import GCN2Conv
from graphsparse.nn.gcn_conv import GCNConv
from graphsparse.nn.gin_conv import GINConv
from graphsparse.nn.inference import layerwise_inference
from graphsparse.nn.inference_forms import inference_form
from graphsparse.nn.sage_conv import SAGEConv
from graphsparse.nn.supermask import Supermask, SupermaskSparsity

__all__ = [
    "FUSED",
    "CSRLinear",
    "CompactLinear",
    "FormChoice",
    "FormFigures",
    "FusedConv",
    "GATConv",
    "GCN2Conv",
    "GCNConv",
    "GINConv",
    "SAGEConv",
    "Supermask",
    "SupermaskSparsity",
    "accelerate",
    "coat_sparsities",
    "fastest_form",
    "folding_stages",
    "inference_form",
    "layerwise_inference",
]
