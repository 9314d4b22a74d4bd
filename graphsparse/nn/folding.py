"""Folded networks: layers of one shape that share their frozen weights, and, if wanted, their masks."""

import dataclasses
from collections.abc import Sequence

from torch import nn

from graphsparse.nn.parameter_roles import ParameterRole
from graphsparse.ops.check import check_integer

_MASKED = ("weights", "columns", "dense")


def folding_stages(layers: Sequence[str], stages: int = 1) -> tuple[tuple[str, ...], ...]:
    r"""Divide layers into stages that are folded into one each.

    Each of :math:`m` stages takes :math:`\lfloor l / m \rfloor` layers that follow each other. The last
    :math:`l \bmod m` layers stay unfolded.

    Args:
        layers: Names of the layers, as in ``model.named_modules()``, in their order.
        stages: Number of stages :math:`m`; 1 folds all layers into one.

    Returns:
        The names of the layers of every stage.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a stage would have no layer, or a name occurs twice.

    Example:
        >>> folding_stages(["convs.1", "convs.2", "convs.3", "convs.4", "convs.5"], stages=2)
        (('convs.1', 'convs.2'), ('convs.3', 'convs.4'))

    Source: Yan et al., arXiv 2312.03236, Section 3.3.
    """
    if isinstance(layers, str) or not all(isinstance(layer, str) for layer in layers):
        raise TypeError(f"'layers' must be a sequence of names (got {layers!r})")
    stages = check_integer(stages, "stages")
    if not 1 <= stages <= len(layers):
        raise ValueError(f"'stages' must be between 1 and the number of layers, {len(layers)} (got {stages})")
    if len(set(layers)) < len(layers):
        raise ValueError(f"'layers' must not name a layer twice (got {list(layers)})")
    each = len(layers) // stages
    return tuple(tuple(layers[stage * each : (stage + 1) * each]) for stage in range(stages))


def fold_roles(
    model: nn.Module, roles: Sequence[ParameterRole], stages: Sequence[Sequence[str]], *, share_masks: bool = True
) -> list[ParameterRole]:
    """Let the layers of each stage share their frozen weights.

    What is trained, such as normalisation, stays with each layer.

    Args:
        model: The model that the roles belong to.
        roles: Role of every parameter.
        stages: Names of the layers of every stage.
        share_masks: Share the masks too: the tensors then are one that goes by several names. Otherwise each keeps
            scores and mask of its own, and names the tensor whose weights it uses as its source.

    Returns:
        The roles with the layers folded, in the same order.

    Raises:
        TypeError: If ``share_masks`` is not a bool or a stage is not a sequence of names.
        ValueError: If a layer is unknown, in two stages, or differs in its frozen tensors from the first of its stage.

    Example:
        >>> from graphsparse.nn.parameter_roles import parameter_roles
        >>> model = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)])
        >>> [entry.names for entry in fold_roles(model, parameter_roles(model), [["0", "1"]])]
        [('0.weight', '1.weight')]
    """
    if not isinstance(share_masks, bool):
        raise TypeError(f"'share_masks' must be a bool (got {share_masks!r})")
    if isinstance(stages, str) or any(isinstance(s, str) or not all(isinstance(n, str) for n in s) for s in stages):
        raise TypeError(f"'fold' must hold the names of the layers of every stage (got {stages!r})")
    layers = [layer for stage in stages for layer in stage]
    known = dict(model.named_modules())
    for layer in layers:
        if layer not in known or not layer:
            raise ValueError(f"'fold' names {layer!r}, which is no layer of the model")
        if layers.count(layer) > 1 or any(layer.startswith(f"{other}.") for other in layers):
            raise ValueError(f"'fold' names {layer!r} twice, or within another layer")
    by_name = {entry.names[0]: entry for entry in roles}
    #: First name of a tensor that is folded, and that of the tensor whose weights it uses.
    source: dict[str, str] = {}
    for stage in stages:
        for layer in stage[1:]:
            source |= _match(by_name, stage[0], layer)
    folded = []
    for entry in roles:
        first = entry.names[0]
        if first in source and not share_masks:
            folded.append(dataclasses.replace(entry, source=source[first]))
        elif first not in source:
            more = [name for other, target in source.items() if target == first for name in by_name[other].names]
            folded.append(dataclasses.replace(entry, names=(*entry.names, *more)) if share_masks else entry)
    return folded


def _match(by_name: dict[str, ParameterRole], first: str, layer: str) -> dict[str, str]:
    """Pair the frozen tensors of a layer with those of the first one of its stage."""
    ours, theirs = (
        {
            name.removeprefix(f"{prefix}."): (entry.role, tuple(entry.parameter.shape))
            for name, entry in by_name.items()
            if name.startswith(f"{prefix}.") and entry.role in _MASKED
        }
        for prefix in (layer, first)
    )
    if ours != theirs or not ours:
        raise ValueError(f"'fold' holds {first!r} and {layer!r}, whose frozen tensors differ: {theirs} and {ours}")
    return {f"{layer}.{name}": f"{first}.{name}" for name in ours}
