"""What each network answers for: a graph, nodes of it, and the classes of its outputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.soups.states import States
from graphsparse.training.check import check_features

#: What the outputs of a merged network are to meet.
Target: TypeAlias = Literal["probabilities", "logits"]
#: All of a graph that a merge reads; labels and masks stay behind.
_KEYS = ("x", "edge_index", "adj_t", "edge_weight", "edge_attr")


@dataclass(frozen=True, eq=False)
class Domain:
    """What one network answers for.

    Args:
        data: Its graph, without labels.
        nodes: The nodes of it that the network answers for, int64 ``[n]``.
        classes: Which class each of its outputs stands for, int64 ``[C_i]``.
    """

    data: Data
    nodes: Tensor
    classes: Tensor

    def targets(self, logits: Tensor, num_classes: int, target: str = "probabilities") -> Tensor:
        """Return what the merged network should give at the nodes of the domain, float64 ``[n, C]``.

        Args:
            logits: Outputs of the network there, ``[n, C_i]``.
            num_classes: Number of outputs of the merged network.
            target: ``"probabilities"``, which are 0 for classes that the network does not know, or ``"logits"``.
        """
        own = logits.double().softmax(1) if target == "probabilities" else logits.double()
        found = own.new_zeros(len(own), num_classes)
        found[:, self.classes] = own
        return found


def check_target(target: str, num_outputs: int) -> None:
    """Refuse what outputs cannot be asked to meet."""
    if target == "probabilities" and num_outputs == 1:
        raise ValueError(
            "one output has no probabilities over classes: take gnnmerge, or target=logits where the method has it"
        )
    if target not in ("probabilities", "logits"):
        raise ValueError(f"'target' must be 'probabilities' or 'logits' (got {target!r})")


def num_outputs(model: nn.Module) -> int:
    """Return the number of outputs of a model, as its last matrix has it."""
    last = [parameter for parameter in model.parameters() if parameter.dim() == 2][-1]
    return int(getattr(model, "out_channels", last.size(0)))


def domains_for(states: States, model: nn.Module, data: Any, responsibility: Any, classes: Any) -> list[Domain]:
    """Return what each network answers for, which a store knows itself if nothing else is said."""
    if callable(check_graph := getattr(states, "check_graph", None)) and isinstance(data, Data):
        check_graph(data)
    parts, seen = getattr(states, "parts", None), None
    if responsibility is None and callable(parts) and isinstance(data, Data):
        responsibility = parts()
        seen = None if responsibility is None else parts(halo=True)
    return domains_of(data, responsibility, classes, len(states), num_outputs(model), seen)


def domains_of(
    data: Any,
    responsibility: Any,
    classes: Any,
    num: int,
    num_classes: int,
    seen: Sequence[Tensor] | None = None,
) -> list[Domain]:
    """Turn what a user gave into a domain for each network.

    Args:
        data: A graph, or one for each network.
        responsibility: The network that answers for each node, int64 ``[N]``, -1 for none; or for each network a mask
            or the indices of its nodes; ``None`` for all nodes of its graph.
        classes: For each network the class of each of its outputs; ``None`` for all in order.
        num: Number of networks.
        num_classes: Number of outputs of the merged network.
        seen: For each network the only nodes that it sees, sorted, its own among them; ``None`` for all.
    """
    graphs = list(data) if isinstance(data, list | tuple) else [data] * num
    if len(graphs) != num:
        raise ValueError(f"'data' must be one graph, or one for each of {num} networks (got {len(graphs)})")
    plain: dict[int, Data] = {id(graph): _unlabelled(graph) for graph in graphs}
    graphs = [plain[id(graph)] for graph in graphs]
    widths = {graph.x.size(1) for graph in graphs}
    if len(widths) > 1:
        raise ValueError(f"'data' must hold features of one width (got {sorted(widths)}): project them first")
    nodes = _nodes(responsibility, graphs)
    labels = _classes(classes, num, num_classes)
    if seen is not None:
        graphs = [graph.subgraph(index.to(graph.x.device)) for graph, index in zip(graphs, seen, strict=True)]
        nodes = [torch.searchsorted(index, own) for index, own in zip(seen, nodes, strict=True)]
    return [Domain(*parts) for parts in zip(graphs, nodes, labels, strict=True)]


def _unlabelled(data: Any) -> Data:
    check_features(data)
    return Data(**{key: data[key] for key in _KEYS if data.get(key) is not None})


def _nodes(given: Any, graphs: list[Data]) -> list[Tensor]:
    if given is None:
        return [torch.arange(graph.num_nodes) for graph in graphs]
    if isinstance(given, Tensor):
        if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
            raise TypeError(f"'responsibility' must hold the number of a network for each node (got {given.dtype})")
        if any(given.shape != (graph.num_nodes,) for graph in graphs):
            raise ValueError(
                f"'responsibility' must have one entry for each of {graphs[0].num_nodes} nodes "
                f"(got {list(given.shape)})"
            )
        if int(given.max()) >= len(graphs) or int(given.min()) < -1:
            raise ValueError(
                f"'responsibility' must hold numbers of {len(graphs)} networks, or -1 "
                f"(got {int(given.min())} to {int(given.max())})"
            )
        given = [(given == i).nonzero().squeeze(1).cpu() for i in range(len(graphs))]
    if not isinstance(given, Sequence) or len(given) != len(graphs):
        raise ValueError(f"'responsibility' must be a tensor, or a list of the nodes of {len(graphs)} networks")
    return [_index(nodes, graph.num_nodes, i) for i, (nodes, graph) in enumerate(zip(given, graphs, strict=True))]


def _index(given: Any, num_nodes: int, network: int) -> Tensor:
    what = f"'responsibility[{network}]'"
    if not isinstance(given, Tensor) or given.dim() != 1 or given.is_floating_point():
        raise TypeError(f"{what} must be a mask of nodes or their indices (got {given!r})")
    nodes: Tensor = given.cpu()
    if nodes.dtype == torch.bool:
        if len(nodes) != num_nodes:
            raise ValueError(f"{what} must be a mask of {num_nodes} nodes (got {len(nodes)})")
        nodes = nodes.nonzero().squeeze(1)
    if len(nodes) == 0:
        raise ValueError(f"{what} must hold at least one node (got none)")
    nodes = nodes.to(torch.long)
    if int(nodes.min()) < 0 or int(nodes.max()) >= num_nodes:
        raise ValueError(
            f"{what} must hold indices of {num_nodes} nodes (got {int(nodes.min())} to {int(nodes.max())})"
        )
    if len(torch.unique(nodes)) < len(nodes):
        raise ValueError(f"{what} must hold each node once (got one twice)")
    return nodes


def _classes(given: Any, num: int, num_classes: int) -> list[Tensor]:
    if given is None:
        return [torch.arange(num_classes)] * num
    if not isinstance(given, Sequence) or len(given) != num:
        raise ValueError(f"'classes' must hold the classes of each of {num} networks")
    found = [torch.as_tensor(own, dtype=torch.long).view(-1) for own in given]
    for i, own in enumerate(found):
        if len(own) == 0 or len(torch.unique(own)) < len(own) or int(own.min()) < 0 or int(own.max()) >= num_classes:
            raise ValueError(
                f"'classes[{i}]' must hold different classes of the {num_classes} of the model (got {own.tolist()})"
            )
    return found
