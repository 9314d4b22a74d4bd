"""What the matrices of a model are multiplied by, for any model of plain layers."""

from collections.abc import Callable, Container
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch_geometric.data import Data, HeteroData

from graphsparse.nn.accelerate import run_as_a_whole
from graphsparse.nn.fused import FusedConv
from graphsparse.utils.call_model import Call, call_model, eval_mode
from graphsparse.utils.copy_model import copy_model

#: A tensor of the model by its name, and one of its axes.
Axis: TypeAlias = tuple[str, int]
#: Where the factors of a product stand among its arguments.
_FACTORS = {"linear": (0, 1), "matmul": (0, 1), "__matmul__": (0, 1), "mm": (0, 1), "addmm": (1, 2)}
#: Rows that are brought to double precision at a time.
_ROWS = 1 << 14


def input_grams(
    model: nn.Module,
    data: Data | HeteroData,
    nodes: Tensor | None = None,
    *,
    call: Call | None = None,
    axes: Container[Axis] | None = None,
) -> dict[Axis, Tensor]:
    r"""Return :math:`X^\top X` of what each matrix of a model is multiplied by on a graph, as layers multiply.

    In a ``GCNConv`` or ``GATConv`` that is before aggregation, in a ``SAGEConv`` after it.

    Args:
        model: Any model of plain layers, which is not changed.
        data: The graph.
        nodes: Of an input with a row for each node of a ``Data`` only the rows of these count, an index ``[n]``.
        call: As for :func:`channel_units`.
        axes: The axes of matrices that are wanted; all when ``None``.

    Returns:
        Float64 ``[C, C]`` by the name of the matrix and its axis of ``C`` entries that is summed over. A matrix that is
        only multiplied by sparse inputs is missing.

    Raises:
        ValueError: If the model holds layers of :func:`~graphsparse.nn.accelerate`, or scripted or compiled ones.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> found = input_grams(GCN(8, 16, 2, 3), random_graph(), torch.arange(10))
        >>> {name: gram.shape for name, gram in found.items()}
        {('convs.0.lin.weight', 1): torch.Size([8, 8]), ('convs.1.lin.weight', 1): torch.Size([16, 16])}
    """
    check_plain(model)
    found: dict[Axis, Tensor] = {}

    def see(axis: Axis, x: Tensor) -> Tensor:
        if axes is None or axis in axes:
            own = x if nodes is None or x.size(0) != data.num_nodes else x[nodes.to(x.device)]
            for rows in own.detach().reshape(-1, x.size(-1)).split(_ROWS):  # type: ignore[no-untyped-call]
                found[axis] = found.get(axis, 0) + (rows.t().double() @ rows.double()).cpu()
        return x

    model = forget_graphs(copy_model(model))
    with torch.no_grad(), eval_mode(model), Products(model, see):
        call_model(model, data, call)
    return found


class Products(TorchFunctionMode):
    """Hands every factor of a product with a matrix of the model to a function, and goes on with what that returns.

    Args:
        model: The model.
        see: Gets the axis of the matrix that is summed over, and the other factor ``[*, columns]``.
        made: Gets the other axis of the matrix, and the product, with a bias where that is added at once.
    """

    def __init__(
        self,
        model: nn.Module,
        see: Callable[[Axis, Tensor], Tensor],
        made: Callable[[Axis, Tensor], None] | None = None,
    ) -> None:
        super().__init__()
        self._see, self._made = see, made
        self._named = {p.data_ptr(): (name, p) for name, p in model.named_parameters() if p.dim() == 2}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at one function."""
        name = getattr(func, "__name__", "")
        if name in _FACTORS and len(args) > _FACTORS[name][1]:
            left, right = _FACTORS[name]
            axis = self._axis(args[right], transposed=name == "linear")
            if axis is not None and args[left].layout == torch.strided:
                args = (*args[:left], self._see(axis, args[left]), *args[left + 1 :])
                if self._made is not None:
                    out = func(*args, **(kwargs or {}))
                    self._made((axis[0], 1 - axis[1]), out)
                    return out
        return func(*args, **(kwargs or {}))

    def _axis(self, factor: Any, transposed: bool) -> Axis | None:
        if not isinstance(factor, Tensor) or factor.dim() != 2 or factor.data_ptr() not in self._named:
            return None
        factor = factor.t() if transposed else factor
        name, parameter = self._named[factor.data_ptr()]
        for axis, own in enumerate((parameter, parameter.t())):
            if factor.shape == own.shape and factor.stride() == own.stride():
                return name, axis
        return None


def check_plain(model: nn.Module) -> None:
    """Refuse what hides its products, or has no shape yet."""
    lazy = [name for name, parameter in model.named_parameters() if nn.parameter.is_lazy(parameter)]
    if lazy:
        raise ValueError(
            f"'model' needs one forward pass first, for the shape of its weights (got {lazy[0]!r} without)"
        )
    whole = run_as_a_whole(model)
    for name, module in model.named_modules():
        kind = "accelerated" if isinstance(module, FusedConv) else whole.get(module)
        if kind:
            raise ValueError(f"'model' must be of plain layers (got {name or 'model'!r}, which is {kind})")


def forget_graphs(model: nn.Module) -> nn.Module:
    """Let layers with ``cached=True`` forget what they keep of a graph, in place; return the model."""
    for module in model.modules():
        for name in ("_cached_edge_index", "_cached_adj_t", "_cached_x"):
            if name in vars(module):
                setattr(module, name, None)
    return model
