"""Which tensors of a model share their mixing coefficients."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from graphsparse.soups.states.ties import tied_names

GROUPS = ("tensor", "layer", "global")


@dataclass(frozen=True)
class Grouping:
    """Groups of tensors that are mixed alike.

    Args:
        count: Number of groups.
        trained: Group of each parameter by its name; of one with several names the first counts.
        followed: Groups of each other name of a floating tensor: it takes the mean of their coefficients.
    """

    count: int
    trained: dict[str, int]
    followed: dict[str, tuple[int, ...]]

    def weights(self, shares: Tensor) -> dict[str, Tensor]:
        """Return the weights of the ingredients for each floating tensor.

        Args:
            shares: Coefficients ``[groups, N]``, each row with sum 1.

        Returns:
            A vector ``[N]`` for each name.
        """
        rows = {name: shares[group] for name, group in self.trained.items()}
        return rows | {name: shares[list(groups)].mean(dim=0) for name, groups in self.followed.items()}


def group_tensors(model: nn.Module, groups: str) -> Grouping:
    """Sort the floating tensors of a model into groups.

    Args:
        model: Any module.
        groups: ``tensor`` for one group per parameter; ``layer`` for one per convolution, or other module that holds
            parameters itself; ``global`` for a single one. Floating buffers, such as running statistics, have no
            gradient and follow the parameters of their own layer, or all if it has none.

    Raises:
        ValueError: If ``groups`` is unknown, or the model has no floating parameter.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> group_tensors(GCN(8, 16, 2, 3), "layer").trained
        {'convs.0.bias': 0, 'convs.0.lin.weight': 0, 'convs.1.bias': 1, 'convs.1.lin.weight': 1}
    """
    if groups not in GROUPS:
        raise ValueError(f"'groups' must be one of {GROUPS} (got {groups!r})")
    layers = {name: _layer(model, name) for name in model.state_dict()}
    parameters = [name for name, value in model.named_parameters() if value.is_floating_point() and name in layers]
    if not parameters:
        raise ValueError("'evaluator' has a model without floating parameters, so there is nothing to learn")
    of_layer: dict[str, int] = {}
    trained = {}
    for name in parameters:
        key = {"tensor": name, "layer": layers[name], "global": ""}[groups]
        trained[name] = of_layer.setdefault(key, len(of_layer))
    ties = tied_names(model)
    followed: dict[str, tuple[int, ...]] = {}
    for name, value in model.state_dict().items():
        if name in trained or not torch.is_floating_point(value):
            continue
        if ties.get(name) in trained:
            followed[name] = (trained[ties[name]],)
            continue
        own = {trained[other] for other in parameters if layers[other] == layers[name]}
        followed[name] = tuple(sorted(own or set(of_layer.values())))
    return Grouping(len(of_layer), trained, followed)


def _layer(model: nn.Module, name: str) -> str:
    """Return the name of the outermost convolution that holds a tensor, else of the module that holds it itself."""
    parts = name.split(".")[:-1]
    for end in range(len(parts) + 1):
        if isinstance(model.get_submodule(".".join(parts[:end])), MessagePassing):
            return ".".join(parts[:end])
    return ".".join(parts)
