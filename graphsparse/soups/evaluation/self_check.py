"""Whether a model does on a small made-up graph what is taken for granted on the real one."""

import copy

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.soups.evaluation.cached_forward import CachedForward, TracedModel
from graphsparse.soups.evaluation.judge import Judge
from graphsparse.soups.evaluation.plain_forward import PlainForward
from graphsparse.soups.states import State, mix
from graphsparse.utils.layerwise_inference import taken_apart
from graphsparse.utils.replay import Call

#: Few nodes are judged, so that layers are run on a part of the graph here, too.
_NODES, _EDGES, _JUDGED = 32, 128, 4


def small_graph(data: Data) -> Data:
    """Return a graph of a few random edges whose nodes and edges have attributes of random ones of another graph.

    Args:
        data: The other graph, with ``edge_index``.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> small_graph(random_graph(400)).x.shape
        torch.Size([32, 8])
    """
    generator = torch.Generator().manual_seed(0)

    def draw(most: int, *size: int) -> Tensor:
        return torch.randint(max(most, 1), size, generator=generator)

    _, edge_index, per_node, per_edge = taken_apart(data)
    nodes, edges = draw(int(data.num_nodes or 0), _NODES), draw(edge_index.size(1), _EDGES)
    small = copy.copy(data)
    small.num_nodes = _NODES
    small.edge_index = draw(_NODES, 2, _EDGES).to(edge_index)
    for found, rows in ((per_node, nodes), (per_edge, edges)):
        for name, value in found.items():
            small[name] = value[rows.to(value.device)]
    return small


def writes_into(model: nn.Module, data: Data, call: Call) -> bool:
    """Say whether a model may write into what it is given: it does on a small graph, or was not run on one.

    Args:
        model: The model.
        data: The graph.
        call: How to call the model on a graph.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.utils.call_model import call_model
        >>> from torch_geometric.nn import GCN
        >>> writes_into(GCN(8, 16, 2, 3), random_graph(), call_model)
        False
    """
    if "edge_index" not in data:  # to take a matrix apart would cost more than a copy of the features
        return True
    try:
        small = small_graph(data)
        given = [value for value in small.to_dict().values() if isinstance(value, Tensor)]
        before = [value._version for value in given]
        with torch.no_grad():
            call(_own(model), small)
    except Exception:
        return True
    return any(value._version != version for value, version in zip(given, before, strict=True))


def check_cached(model: nn.Module, data: Data, call: Call) -> None:
    """Compare whole passes over a small graph with what is made of them in parts, for two states and a mixture.

    Args:
        model: The model, in evaluation mode.
        data: The graph.
        call: How to call the model on a graph.

    Raises:
        ValueError: If they differ.
        Exception: Whatever the model raises on a small graph.
    """
    small, nodes = small_graph(data), torch.arange(_JUDGED, device=data.edge_index.device)
    first, second = _disturbed(model, 0), _disturbed(model, 1)
    plain = PlainForward(_own(model), small, nodes, call)
    cached = CachedForward(TracedModel(_own(model), small, call), nodes)
    mixed: list[Tensor] = []

    def keep(logits: Tensor, _: Tensor) -> float:
        mixed.append(logits)
        return 0.0

    judge = Judge(nodes, 1, metric=keep)
    cached.scan(first, second, [0.5], judge)
    judge.scores()
    for expected, found in (
        (plain.logits(first), cached.logits(first)),
        (plain.logits(mix(first, second, 0.5)), mixed[0]),
    ):
        # Rounding alone is far below the root of the precision.
        bound = torch.finfo(expected.dtype).eps ** 0.5
        if not torch.allclose(expected, found.to(expected), rtol=bound, atol=bound, equal_nan=True):
            raise ValueError("on a small graph the parts of the model do not make up what the whole of it does")


def _own(model: nn.Module) -> nn.Module:
    """Return a copy that remembers nothing of another graph."""
    own = copy.deepcopy(model)
    for module in own.modules():
        for name in ("_cached_edge_index", "_cached_adj_t", "_cached_x"):
            if hasattr(module, name):
                setattr(module, name, None)
    return own


def _disturbed(model: nn.Module, seed: int) -> State:
    """Return other weights; no weight is zero, so that each part matters."""
    generator = torch.Generator().manual_seed(seed)
    own = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in own.parameters():
            if parameter.is_floating_point():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_((0.1 * noise).to(parameter))
    return own.state_dict()
