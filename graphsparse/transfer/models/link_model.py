"""An encoder of nodes and a decoder of pairs, as one module."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GraphSAGE

from graphsparse.nn import accelerate, layerwise_inference
from graphsparse.nn.features import linear_input, sparse_if_worth_it
from graphsparse.nn.inference import why_not_by_layers
from graphsparse.nn.link_decoders import DotDecoder, make_decoder
from graphsparse.ops.check import check_count, check_number
from graphsparse.ops.remember import remember
from graphsparse.training import build_model, predict
from graphsparse.training.link_task import check_features
from graphsparse.transfer.data.split import check_dense_x
from graphsparse.utils.call_model import eval_mode

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair

#: A module that is called as ``encoder(x, edge_index)``, or builds one for a number of features.
Encoder: TypeAlias = nn.Module | Callable[[int], nn.Module]


class LinkModel(nn.Module):
    """Makes a vector of each node, whose features are divided by their length first, and scores of pairs of vectors.

    Args:
        encoder: Called as ``encoder(x, edge_index)``, with ``edge_weight=`` where there are weights; returns vectors
            ``[N, d]``.
        decoder: Called as ``decoder(h, pairs)``, returns logits ``[P]``.
        input_dropout: Dropout of the features.
        table: A vector for each node in the place of features; ``x`` is the number of each node then.
        sparse_input: Give features of which few are not zero to the encoder as a
            :class:`~graphsparse.nn.features.LinearInput`: its first linear layer multiplies, and dropout draws, only
            for what is there.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        input_dropout: float = 0.0,
        table: nn.Embedding | None = None,
        sparse_input: bool = True,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.table = encoder, decoder, table
        self.input_dropout, self.sparse_input = input_dropout, sparse_input
        self.supports_edge_weight = takes_edge_weight(encoder)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Return the vectors ``[N, d]``."""
        named = {} if edge_weight is None else {"edge_weight": edge_weight}
        h: Tensor = self.encoder(self.inputs(x, sparse=self.sparse_input), edge_index, **named)
        return h

    def inputs(self, x: Tensor, *, sparse: bool) -> Any:
        """Return what the encoder is given in place of the features."""
        if self.table is not None:
            return F.dropout(self.table(x.view(-1)), self.input_dropout, self.training)
        if sparse and not x.requires_grad and x.dtype in (torch.float32, torch.float64) and type(x) is Tensor:
            # At once and not when they come for the second time: dropout draws otherwise for what is sparse, and a
            # training that goes on after a kill must draw what it would have drawn.
            matrix = remember([x], ("link features",), lambda: sparse_if_worth_it(F.normalize(x)))
            if matrix is not None and matrix.value is not None:
                kept = F.dropout(matrix.value, self.input_dropout, self.training)
                return linear_input(matrix.with_value(kept))
        return F.dropout(F.normalize(x), self.input_dropout, self.training)


def takes_edge_weight(encoder: nn.Module) -> bool:
    """Say whether an encoder takes ``edge_weight``, as its flag says, or its signature where there is none."""
    flag = getattr(encoder, "supports_edge_weight", None)
    if isinstance(flag, bool):
        return flag
    return "edge_weight" in inspect.signature(encoder.forward).parameters


def sage_encoder(hidden: int = 256, num_layers: int = 2, dropout: float = 0.3) -> Callable[[int], nn.Module]:
    """Return what builds GraphSAGE with mean aggregation, whose vectors are as wide as its hidden layers.

    Args:
        hidden: Width of the hidden layers and of the vectors.
        num_layers: Number of layers.
        dropout: Dropout between layers.

    Returns:
        A function from a number of features to a module.

    Example:
        >>> sage_encoder(16)(8)
        GraphSAGE(8, 16, num_layers=2)
    """
    check_number(dropout, "dropout", least=0, most=1)
    return partial(_sage, check_count(hidden, "hidden"), check_count(num_layers, "num_layers"), dropout)


def _sage(hidden: int, num_layers: int, dropout: float, num_features: int) -> nn.Module:
    model: nn.Module = GraphSAGE(num_features, hidden, num_layers, dropout=dropout)
    return model


def build_link_model(
    encoder: Encoder,
    graph: Data,
    *,
    seed: int,
    input_dropout: float = 0.0,
    directed: bool = False,
    fast: bool = True,
    table: nn.Embedding | None = None,
) -> LinkModel:
    """Return a model whose initial weights follow from the seed, where the graph is; a given module is taken as it is.

    With ``fast`` the convolutions of this package, which share the weights, replace those of PyG that it has, and
    sparse features are given to the encoder as such.
    """
    if isinstance(encoder, nn.Module):
        module = encoder
    elif callable(encoder):
        num_features = graph.num_features if table is None else table.embedding_dim
        module = build_model(partial(encoder, num_features), seed)
    else:
        raise TypeError(
            "'encoder' must be a torch.nn.Module, or a function that builds one for a number of features "
            f"(got {type(encoder).__name__})"
        )
    module = accelerate(module) if fast else module
    model = LinkModel(module, DotDecoder(), input_dropout=input_dropout, table=table, sparse_input=fast)
    model = model.to(graph.edge_index.device)
    if directed:
        check_features(graph.x, model, "x")
        width = encode(model, graph).size(1)
        model.decoder = build_model(partial(make_decoder, width, directed=True), seed).to(graph.edge_index.device)
    return model


def encode(model: nn.Module, graph: Data) -> Tensor:
    """Return the vectors of all nodes of a graph ``[N, d]`` in evaluation mode, in one forward pass."""
    return predict(model, graph)


def encode_layerwise(model: nn.Module, graph: Data) -> Tensor:
    """Return the same layer by layer in blocks of nodes, or in one pass where the encoder does not allow that."""
    assert isinstance(model, LinkModel)
    if why_not_by_layers(model.encoder) is not None:
        return encode(model, graph)
    with eval_mode(model), torch.no_grad():
        part = message_graph(graph)
        part.x = model.inputs(graph.x, sparse=False)
        return layerwise_inference(model.encoder, part)


def message_graph(graph: Data) -> Data:
    """Return what a training reads of a derived graph: features, edges, and their weights and sides, if any."""
    return Data.from_dict({name: graph[name] for name in ("x", "edge_index", "edge_weight", "side") if name in graph})


def featured(pair: "SharedNodePair", channels: int, seed: int) -> tuple["SharedNodePair", nn.Embedding | None]:
    """Return the pair itself where it has features; otherwise one whose features are node numbers, and their vectors.

    The vectors begin Xavier-uniform.
    """
    if pair.target.get("x") is not None:
        check_dense_x(pair)
        return pair, None
    num = pair.num_union_nodes
    table = build_model(partial(_table, num, channels), seed)
    assert isinstance(table, nn.Embedding)
    return pair.with_x(torch.arange(num).view(-1, 1)), table


def _table(num: int, channels: int) -> nn.Module:
    return nn.Embedding(num, channels, _weight=nn.init.xavier_uniform_(torch.empty(num, channels)))
