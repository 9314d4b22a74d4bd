"""Linear layers and dropout of torch and PyG in a faster form."""

import numbers
import warnings
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch_geometric.nn import dense as pyg

from graphsparse.nn.features import LinearInput, constant_features
from graphsparse.ops.check import check_real
from graphsparse.ops.dense import linear
from graphsparse.ops.dropout import dropout
from graphsparse.ops.traced import is_transformed

#: Classes of tensors that are nothing but their numbers.
PLAIN: set[type] = {Tensor, nn.Parameter}


def refuse_scripting(module: nn.Module) -> NoReturn:
    """Say, when TorchScript asks for something that it can read, that there is nothing."""
    raise TypeError(
        f"TorchScript cannot compile {type(module).__name__} of graphsparse: script the model that accelerate() was "
        "given, or the layer that it stands for with the same state dict; torch.compile and torch.export take it"
    )


class TorchLinear(nn.Linear):
    """The linear layer of torch, computed by :func:`graphsparse.ops.linear`.

    Features that need no gradient, hold mostly zeros and come unchanged for the second time are multiplied as a sparse
    matrix, unless ``reuse_constant`` is off.

    Example:
        >>> TorchLinear(3, 2)
        Linear(in_features=3, out_features=2, bias=True)
    """

    __prepare_scriptable__ = refuse_scripting
    reuse_constant: bool = True

    def _get_name(self) -> str:
        """Look like the layer it stands for."""
        return "Linear"

    @property
    def qconfig(self) -> NoReturn:
        """What torch's quantisation marks a layer with; this one, which it does not know, has none and says so."""
        raise AttributeError("qconfig")

    @qconfig.setter
    def qconfig(self, config: object) -> None:
        warnings.warn(
            "linear layers of accelerate() are not quantised: quantise the model first, then accelerate() it",
            UserWarning,
            stacklevel=2,
        )

    def forward(self, input: Tensor) -> Tensor:
        """Run the layer."""
        return _apply(self, input)


class PyGLinear(pyg.Linear):  # type: ignore[misc]
    """The linear layer of PyG, computed as :class:`TorchLinear` is.

    Example:
        >>> PyGLinear(3, 2)
        Linear(3, 2, bias=True)
    """

    __prepare_scriptable__ = refuse_scripting
    reuse_constant: bool = True

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer."""
        return _apply(self, x)

    def __repr__(self) -> str:
        """Look like the layer it stands for."""
        shown: str = super().__repr__()
        return shown.replace("PyGLinear", "Linear", 1)


def _apply(layer: TorchLinear | PyGLinear, x: Tensor) -> Tensor:
    weight, bias = layer.weight, layer.bias  # once: a parametrisation computes them, and may draw
    if _hold_numbers(weight, bias) and not is_transformed():
        x = constant_features(x, layer.reuse_constant)
    elif isinstance(x, LinearInput):
        x = x.to_dense()
    return linear(x, weight, bias)


#: Our layer for each that computes the same.
FASTER: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: TorchLinear, pyg.Linear: PyGLinear}
_TYPES = (*FASTER, *FASTER.values())


def is_plain(layer: nn.Module) -> bool:
    """Say whether a layer is nothing but its weight and bias, which may then be used apart."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    watched = any(getattr(layer, name) for name in hooks) or "forward" in vars(layer)
    return type(layer) in _TYPES and not watched and _hold_numbers(layer.weight, layer.bias)


def _hold_numbers(*weights: Any) -> bool:
    """Say whether weights are plain tensors: others, as quantised or distributed ones, know how they are multiplied."""
    return all(weight is None or type(weight) in PLAIN for weight in weights)


def add_bias(out: Tensor, bias: Tensor, fresh: bool) -> Tensor:
    """Return ``out + bias`` in the type that a linear layer gives, in place if that is allowed."""
    if torch.is_autocast_enabled(out.device.type):
        bias = bias.to(out.dtype)
    return out.add_(bias) if fresh and type(out) is Tensor and out.dtype == bias.dtype else out + bias


def apply_linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Run a layer, or whatever a user has put in its place, by the faster library where that is the same."""
    out: Tensor = linear(x, layer.weight, layer.bias) if is_plain(layer) else layer(x)  # type: ignore[arg-type]
    return out


class FastDropout(nn.Dropout):
    """Dropout by :func:`graphsparse.ops.dropout`, whose draws are others than torch's.

    Example:
        >>> FastDropout(0.25)
        Dropout(p=0.25, inplace=False)
    """

    __prepare_scriptable__ = refuse_scripting

    def _get_name(self) -> str:
        """Look like the layer it stands for."""
        return "Dropout"

    def forward(self, input: Tensor) -> Tensor:
        """Run the layer."""
        return super().forward(input) if self.inplace else dropout(input, self.p, self.training)


def set_dropout(model: nn.Module, probability: float) -> int:
    """Set every dropout of a model, in place: layers of torch, and the attribute by which layers of PyG know theirs.

    A dropout that a model calls with a number of its own is not seen.

    Args:
        model: Any model.
        probability: Chance of an entry to be dropped, in ``[0, 1)``.

    Returns:
        The number of places that were set.

    Raises:
        TypeError: If ``probability`` is not a number.
        ValueError: If it is outside ``[0, 1)``.

    Example:
        >>> from torch_geometric.nn import GAT
        >>> set_dropout(GAT(8, 16, 2, 3, heads=2, dropout=0.6), 0.0)
        3
    """
    probability = check_real(probability, "dropout")
    if not 0 <= probability < 1:
        raise ValueError(f"'dropout' must be in [0, 1) (got {probability!r})")
    found = 0
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = probability
            found += 1
            continue
        fields = vars(module)
        held = fields.get("dropout")
        if _is_probability(held):
            fields["dropout"] = probability
            found += 1
        elif isinstance(held, (list, tuple)) and held and all(_is_probability(entry) for entry in held):
            fields["dropout"] = [probability] * len(held)
            found += len(held)
    return found


def _is_probability(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
