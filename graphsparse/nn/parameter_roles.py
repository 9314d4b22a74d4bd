"""What becomes of every parameter of a model under a supermask."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch_geometric.nn.pool.select import SelectTopK

#: ``weights``: masked entry by entry; ``columns``: masked by whole columns; ``dense``: frozen without a mask; ``zero``:
#: frozen at zero; ``trained``: left to the optimiser; ``kept``: left as it is, as it wasn't trained before either.
Role: TypeAlias = Literal["weights", "columns", "dense", "zero", "trained", "kept"]
#: Roles of tensors that are drawn.
FROZEN = ("weights", "columns", "dense")
#: Chooses parameters by their name and value.
ParameterFilter: TypeAlias = Callable[[str, nn.Parameter], bool]


@dataclass(frozen=True, eq=False)
class ParameterRole:
    """One parameter of a model.

    Args:
        names: All names it goes by, more than one where modules share it.
        parameter: The parameter.
        role: What becomes of it.
    """

    names: tuple[str, ...]
    parameter: nn.Parameter
    role: Role

    @property
    def is_frozen(self) -> bool:
        """Whether it is drawn and never trained."""
        return self.role in FROZEN


def parameter_roles(
    model: nn.Module, select: ParameterFilter | None = None, train: ParameterFilter | None = None
) -> list[ParameterRole]:
    """Say for every parameter whether it is masked, frozen or trained.

    Without ``select``, in this order: what needs no gradient stays as it is; parameters of normalisation layers are
    trained; biases are zero; embedding tables are masked by columns; matrices, attention vectors and whatever else has
    two dimensions or more are masked; the rest is trained: single numbers such as the epsilon of GIN, and projections
    that are divided by their length, as that of ``TopKPooling``.

    Args:
        model: Any model.
        select: Says of a parameter whether it is masked, in place of the rule above. What is not masked, and would
            have been, is frozen as a whole.
        train: Says of a parameter whether it is trained, before anything else.

    Raises:
        TypeError: If ``model`` is no module, or a filter is not callable.
        ValueError: If a parameter has no shape yet or is complex, if both filters claim it, or if nothing is masked.

    Example:
        >>> from torch_geometric.nn import GIN
        >>> for entry in parameter_roles(GIN(8, 16, 1, norm="batch_norm", train_eps=True)):
        ...     print(entry.names[0], entry.role)
        convs.0.eps trained
        convs.0.nn.lins.0.weight weights
        convs.0.nn.lins.0.bias zero
        convs.0.nn.lins.1.weight weights
        convs.0.nn.lins.1.bias zero
        convs.0.nn.norms.0.module.weight trained
        convs.0.nn.norms.0.module.bias trained
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"'model' must be a torch module (got {type(model).__name__})")
    for name, choice in (("select", select), ("train", train)):
        if choice is not None and not callable(choice):
            raise TypeError(f"'{name}' must be a function of name and parameter, or None (got {choice!r})")
    names: dict[int, list[str]] = {}
    owners: dict[int, tuple[nn.Module, nn.Parameter]] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for local, parameter in module._parameters.items():
            if parameter is not None:
                names.setdefault(id(parameter), []).append(f"{prefix}.{local}" if prefix else local)
                owners.setdefault(id(parameter), (module, parameter))
    roles = []
    for key, (module, parameter) in owners.items():
        if nn.parameter.is_lazy(parameter):
            raise ValueError(
                f"'model' needs one forward pass first, for the shape of its weights (got {names[key][0]!r} without)"
            )
        roles.append(ParameterRole(tuple(names[key]), parameter, _role(names[key], parameter, module, select, train)))
        if roles[-1].is_frozen and not parameter.is_floating_point():
            raise ValueError(f"'model' holds {names[key][0]!r} of type {parameter.dtype}, which cannot be masked")
    if not any(entry.role in ("weights", "columns") for entry in roles):
        raise ValueError("nothing is masked: " + ("'select' chose no parameter" if select else "'model' has no matrix"))
    return roles


def _role(
    names: list[str],
    parameter: nn.Parameter,
    module: nn.Module,
    select: ParameterFilter | None,
    train: ParameterFilter | None,
) -> Role:
    trained, chosen = (
        choice is not None and any(choice(name, parameter) for name in names) for choice in (train, select)
    )
    if trained and chosen:
        raise ValueError(f"'select' and 'train' both claim {names[0]!r}")
    if trained:
        return "trained"
    role = _default_role(names[0], parameter, module)
    masked: Role = "columns" if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) else "weights"
    if chosen:
        return masked
    return "dense" if select is not None and role == masked else role


def _default_role(name: str, parameter: nn.Parameter, module: nn.Module) -> Role:
    if not parameter.requires_grad:
        return "kept"
    if isinstance(module, (_NormBase, nn.LayerNorm, nn.GroupNorm)) or "norm" in type(module).__name__.lower():
        return "trained"
    if isinstance(module, SelectTopK):  # divided by its length, which a mask may leave at 0
        return "trained"
    parts = name.split(".")
    local = parts[-2:] if isinstance(module, (nn.ParameterList, nn.ParameterDict)) else parts[-1:]
    if any("bias" in part for part in local):
        return "zero"
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return "columns"
    return "weights" if parameter.dim() >= 2 and parameter.numel() > 1 else "trained"


def fold_roles(
    model: nn.Module, roles: Sequence[ParameterRole], stages: Sequence[Sequence[str]]
) -> list[ParameterRole]:
    """Let the layers of each stage share their frozen weights and masks: they are one tensor with several names.

    What is trained, such as normalisation, stays with each layer. Source: Yan et al., arXiv 2312.03236, Section 3.3.

    Raises:
        TypeError: If a stage is not a sequence of names.
        ValueError: If a layer is unknown, in two stages, or differs in its frozen tensors from the first of its stage.

    Example:
        >>> model = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)])
        >>> [entry.names for entry in fold_roles(model, parameter_roles(model), [["0", "1"]])]
        [('0.weight', '1.weight')]
    """
    if isinstance(stages, str) or any(isinstance(s, str) or not all(isinstance(n, str) for n in s) for s in stages):
        raise TypeError(f"'fold' must hold the names of the layers of every stage (got {stages!r})")
    layers = [layer for stage in stages for layer in stage]
    known = dict(model.named_modules())
    for layer in layers:
        if layer not in known or not layer:
            raise ValueError(f"'fold' names {layer!r}, which is no layer of the model")
        if layers.count(layer) > 1 or any(layer.startswith(f"{other}.") for other in layers):
            raise ValueError(f"'fold' names {layer!r} twice, or within another layer")
    folded = {entry.names[0]: entry for entry in roles}
    for first, *others in stages:
        for layer in others:
            ours, theirs = (
                {
                    name.removeprefix(f"{prefix}."): (entry.role, tuple(entry.parameter.shape))
                    for name, entry in folded.items()
                    if name.startswith(f"{prefix}.") and entry.is_frozen
                }
                for prefix in (layer, first)
            )
            if ours != theirs or not ours:
                raise ValueError(
                    f"'fold' holds {first!r} and {layer!r}, whose frozen tensors differ: {theirs} and {ours}"
                )
            for name in ours:
                entry, other = folded[f"{first}.{name}"], folded.pop(f"{layer}.{name}")
                folded[f"{first}.{name}"] = replace(entry, names=(*entry.names, *other.names))
    return list(folded.values())
