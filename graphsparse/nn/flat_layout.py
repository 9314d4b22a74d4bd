"""Where the tensors of a model lie in its flat weights and flat scores."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from graphsparse.nn.parameter_roles import ParameterRole
from graphsparse.nn.straight_through import MaskedTensor
from graphsparse.nn.weight_laws import ScoreLaw, draw_scores

#: Places of tensors by their first names.
Places: TypeAlias = dict[str, MaskedTensor]


def lay_out(entries: Sequence[ParameterRole]) -> tuple[Places, Places, int]:
    """Place frozen tensors one after another.

    Args:
        entries: Tensors with the role ``weights``, ``columns`` or ``dense``.

    Returns:
        Places of the tensors with a mask, of those without, and the number of weights.

    Example:
        >>> from graphsparse.nn.parameter_roles import parameter_roles
        >>> masked, _, num = lay_out(parameter_roles(nn.Linear(3, 2, bias=False)))
        >>> masked["weight"].shape, num
        ((2, 3), 6)
    """
    masked: Places = {}
    dense: Places = {}
    starts: dict[str, int] = {}
    weight = score = 0
    for entry in entries:
        if entry.source is None:
            starts[entry.names[0]] = weight
            weight += entry.parameter.numel()
    for entry in entries:
        columns = entry.role == "columns"
        place = MaskedTensor(tuple(entry.parameter.shape), starts[entry.source or entry.names[0]], score, columns)
        if entry.role == "dense":
            dense[entry.names[0]] = place
        else:
            masked[entry.names[0]] = place
            score += place.shape[-1] if columns else entry.parameter.numel()
    return masked, dense, weight


def draw_flat_scores(
    places: Mapping[str, MaskedTensor], law: ScoreLaw, seed: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Draw the initial scores of all tensors.

    Args:
        places: Where the tensors lie.
        law: Law of the scores.
        seed: Seed of the scores.
        device: Where to draw.
        dtype: Type of the weights.

    Returns:
        Flat scores, float32 or what is longer of it and ``dtype``: half precision would tie most scores.

    Example:
        >>> place = MaskedTensor(shape=(2, 3), weight=0, score=0, columns=True)
        >>> draw_flat_scores({"table": place}, "kaiming_uniform", 0, torch.device("cpu"), torch.float16).dtype
        torch.float32
    """
    num = sum(entry.shape[-1] if entry.columns else torch.Size(entry.shape).numel() for entry in places.values())
    scores = torch.empty(num, device=device, dtype=torch.promote_types(dtype, torch.float32))
    for name, entry in places.items():
        shape = (1, entry.shape[-1]) if entry.columns else entry.shape
        part = entry.of_scores(scores)
        part.copy_(draw_scores(shape, law, seed=seed, name=name, device=device).view(part.shape))
    return scores


def one_of_each(parameters: Sequence[nn.Parameter]) -> tuple[torch.device, torch.dtype]:
    """Return the one device and the one type of tensors.

    Args:
        parameters: Tensors.

    Raises:
        ValueError: If there are several.

    Example:
        >>> one_of_each([nn.Parameter(torch.zeros(2))])
        (device(type='cpu'), torch.float32)
    """
    devices, dtypes = {p.device for p in parameters}, {p.dtype for p in parameters}
    if len(devices) > 1 or len(dtypes) > 1:
        raise ValueError(
            "'model' must hold its weights on one device and in one type "
            f"(got {sorted(map(str, devices))}, {sorted(map(str, dtypes))})"
        )
    return devices.pop(), dtypes.pop()
