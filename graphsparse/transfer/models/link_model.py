"""An encoder of nodes and a decoder of pairs, as one module."""

import inspect
from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GraphSAGE

from graphsparse.nn import accelerate, layerwise_inference
from graphsparse.nn.features import linear_input, sparse_if_worth_it, to_dense
from graphsparse.nn.inference import why_not_by_layers
from graphsparse.ops.check import check_count
from graphsparse.ops.remember import remember
from graphsparse.training import build_model
from graphsparse.transfer.models.decoders import make_decoder
from graphsparse.transfer.models.node_table import NodeTable
from graphsparse.utils.call_model import call_model
from graphsparse.utils.eval_mode import eval_mode

#: A module that is called as ``encoder(x, edge_index)``, or builds one for a number of features.
Encoder: TypeAlias = nn.Module | Callable[[int], nn.Module]


class LinkModel(nn.Module):
    """Makes a vector of each node, and scores of pairs of vectors.

    Args:
        encoder: Called as ``encoder(x, edge_index)``, with ``edge_weight`` as third argument where there are weights;
            returns vectors ``[N, d]``.
        decoder: Called as ``decoder(h, pairs)``, returns logits ``[P]``.
        normalize: Divide each row of the features by its length first.
        input_dropout: Dropout of the features.
        table: Looks up what stands for the features, where ``x`` is the number of each node.
        sparse_input: Give features of which few are not zero to the encoder as a
            :class:`~graphsparse.nn.features.LinearInput`: its first linear layer multiplies, and dropout draws, only
            for what is there.

    Example:
        >>> from torch_geometric.nn import GraphSAGE
        >>> from graphsparse.testing import random_graph
        >>> data = random_graph()
        >>> model = LinkModel(GraphSAGE(8, 16, 2), make_decoder("dot", 16))
        >>> model.decoder(model(data.x, data.edge_index), torch.tensor([[0, 1], [2, 3]])).shape
        torch.Size([2])
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        normalize: bool = True,
        input_dropout: float = 0.0,
        table: NodeTable | None = None,
        sparse_input: bool = True,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.table = encoder, decoder, table
        self.normalize, self.input_dropout, self.sparse_input = normalize, input_dropout, sparse_input
        self.supports_edge_weight = takes_edge_weight(encoder)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Return the vectors ``[N, d]``."""
        x = self.inputs(x)
        h: Tensor = self.encoder(x, edge_index) if edge_weight is None else self.encoder(x, edge_index, edge_weight)
        return h

    def inputs(self, x: Tensor) -> Tensor:
        """Return what the encoder takes for the features."""
        if self.table is not None:
            return F.dropout(self.table(x), self.input_dropout, self.training)

        def scaled() -> Tensor:
            return F.normalize(x) if self.normalize else x

        known = not x.requires_grad and x.dtype in (torch.float32, torch.float64)
        if self.sparse_input and known and type(x) is Tensor:
            # At once and not when they come for the second time: dropout draws otherwise for what is sparse, and a
            # training that goes on after a kill must draw what it would have drawn.
            matrix = remember([x], ("link features", self.normalize), lambda: sparse_if_worth_it(scaled()))
            if matrix is not None and matrix.value is not None:
                kept = F.dropout(matrix.value, self.input_dropout, self.training)
                return linear_input(matrix.with_value(kept))
        return F.dropout(scaled(), self.input_dropout, self.training)


def takes_edge_weight(encoder: nn.Module) -> bool:
    """Say whether an encoder takes ``edge_weight``, as its flag says, or its signature where there is none."""
    flag = getattr(encoder, "supports_edge_weight", None)
    if isinstance(flag, bool):
        return flag
    return "edge_weight" in inspect.signature(encoder.forward).parameters


def sage_encoder(hidden: int = 256, num_layers: int = 2, dropout: float = 0.3) -> Callable[[int], nn.Module]:
    """Return what builds GraphSAGE with mean aggregation, whose vectors are as wide as its hidden layers.

    Example:
        >>> sage_encoder(16)(8)
        GraphSAGE(8, 16, num_layers=2)
    """
    check_count(hidden, "hidden")
    check_count(num_layers, "num_layers")
    return lambda num_features: GraphSAGE(num_features, hidden, num_layers, dropout=dropout)


def build_link_model(
    encoder: Encoder,
    decoder: str,
    graph: Data,
    *,
    seed: int,
    normalize: bool = True,
    input_dropout: float = 0.0,
    directed: bool = False,
    fast: bool = True,
    table: NodeTable | None = None,
) -> LinkModel:
    """Return a model whose initial weights follow from the seed, where the graph is.

    Args:
        encoder: A module, which is trained in place, or what builds one for a number of features.
        decoder: Name of a decoder.
        graph: A graph to be encoded, for the number of features and to find the width of the vectors.
        seed: Seed of the initial weights.
        normalize: Divide each row of the features by its length first.
        input_dropout: Dropout of the features.
        directed: Whether the order in a pair matters.
        fast: Use the convolutions of this package for those of PyG that it has, which share their weights; and give
            sparse features to the encoder as such.
        table: Looks up what stands for the features, where ``x`` is the number of each node.

    Raises:
        TypeError: If ``encoder`` is neither, or does not return vectors.
        ValueError: If it does not return one vector per node.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> build_link_model(sage_encoder(16), "dot", random_graph(), seed=0).supports_edge_weight
        True
    """
    if isinstance(encoder, nn.Module):
        module = encoder
    elif callable(encoder):
        num_features = graph.num_features if table is None else table.weight.size(1)
        module = build_model(lambda: encoder(num_features), seed)
    else:
        raise TypeError(
            "'encoder' must be a torch.nn.Module, or a function that builds one for a number of features "
            f"(got {type(encoder).__name__})"
        )
    device = graph.edge_index.device
    module = (accelerate(module) if fast else module).to(device)
    table = None if table is None else table.to(device)
    width = _width(module, graph.x[:2] if table is None else table(graph.x[:2]).detach())
    found = build_model(lambda: make_decoder(decoder, width, directed=directed), seed)
    model = LinkModel(module, found, normalize=normalize, input_dropout=input_dropout, table=table, sparse_input=fast)
    return model.to(device)


def _width(encoder: nn.Module, x: Tensor) -> int:
    """Find the width of the vectors on two nodes with features ``x`` and an edge between them."""
    check_x(x, encoder)
    edges = torch.arange(x.size(0), device=x.device).repeat(2, 1)
    with eval_mode(encoder), torch.no_grad():
        h = encoder(x, edges)
    if not isinstance(h, Tensor):
        raise TypeError(f"'encoder' must return a tensor of vectors (got {type(h).__name__})")
    if h.dim() != 2 or h.size(0) != x.size(0) or not h.is_floating_point():
        raise ValueError(f"'encoder' must return one vector per node, [N, d] (got {h.dtype} {list(h.shape)})")
    return h.size(1)


def check_x(x: Tensor, model: nn.Module) -> None:
    """Refuse features of another type than that of the weights they are multiplied with.

    Raises:
        TypeError: If the types differ.

    Example:
        >>> check_x(torch.ones(2, 3).double(), nn.Linear(3, 4))
        Traceback (most recent call last):
        ...
        TypeError: 'x' must be torch.float32, as the weights are (got torch.float64); 'pair.with_x' takes 'x.float()'
    """
    kind = next((p.dtype for p in model.parameters()), x.dtype)
    if x.dtype != kind:
        raise TypeError(f"'x' must be {kind}, as the weights are (got {x.dtype}); 'pair.with_x' takes 'x.float()'")


def encode(model: LinkModel, graph: Data, *, layerwise: bool = False) -> Tensor:
    """Return the vectors of all nodes of a graph in evaluation mode, without a gradient.

    Args:
        model: The model.
        graph: The graph, with ``x`` and ``edge_index``, and ``edge_weight`` if any.
        layerwise: Go layer by layer in blocks of nodes, for graphs that do not fit into one forward pass; an encoder
            that :func:`~graphsparse.nn.layerwise_inference` does not know is run in one pass all the same.

    Returns:
        Vectors ``[N, d]``.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> graph = random_graph()
        >>> model = build_link_model(sage_encoder(16), "dot", graph, seed=0)
        >>> torch.allclose(encode(model, graph), encode(model, graph, layerwise=True), atol=1e-5)
        True
    """
    plain = message_graph(graph)
    with eval_mode(model), torch.no_grad():
        if layerwise and why_not_by_layers(model.encoder) is None:
            plain.x = to_dense(model.inputs(plain.x))
            return layerwise_inference(model.encoder, plain)
        h: Tensor = call_model(model, plain)
    return h


def message_graph(graph: Data, edge_mask: Tensor | None = None) -> Data:
    """Return what messages need of a graph: features, edges and weights, of some edges only with a mask ``[E]``.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> sorted(message_graph(random_graph()).keys())
        ['edge_index', 'x']
    """
    edges, weight = graph.edge_index, graph.get("edge_weight")
    if edge_mask is not None:
        edges, weight = edges[:, edge_mask], None if weight is None else weight[edge_mask]
    out = Data(x=graph.x, edge_index=edges)
    if weight is not None:
        out.edge_weight = weight
    return out
