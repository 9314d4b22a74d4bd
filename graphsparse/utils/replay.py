"""Run a model on a few rows, with answers in place of its message passing layers."""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing

#: Calls a model on a graph: ``call(model, data)`` returns the logits.
Call = Callable[[nn.Module, Data], Any]

# What may be asked of the stand-in for the edges without looking at an edge.
_HARMLESS = {
    getattr(Tensor, name).__get__
    for name in ("device", "dtype", "is_cuda", "is_quantized", "is_sparse", "is_sparse_csr", "layout", "ndim")
} | {Tensor.dim, Tensor.is_floating_point}


class EdgePlaceholder(Tensor):
    """Stands for the edges while a model runs on a few rows: it can be handed on, and nothing can be computed with it.

    Example:
        >>> EdgePlaceholder.make("cpu") + 1
        Traceback (most recent call last):
        ValueError: the model computes with the edges outside its message passing layers (add): ...
    """

    @staticmethod
    def make(device: torch.device | str) -> "EdgePlaceholder":
        """Return an edge list without edges, on a device."""
        return torch.empty(2, 0, dtype=torch.long, device=device).as_subclass(EdgePlaceholder)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse everything but questions about the kind of tensor."""
        if func in _HARMLESS:
            return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        raise ValueError(
            f"the model computes with the edges outside its message passing layers ({getattr(func, '__name__', func)}):"
            " it cannot be run layer by layer. Prepare the edges once, and give them to the model as they are"
        )


class _Reached(BaseException):
    """Ends a run at a layer; no ``except Exception`` of a model may swallow it."""


class Replay:
    """A model whose calls of message passing layers are answered from outside.

    Calls are counted, not layers: a layer that is used twice has two. Between :meth:`run` the model is as it was.

    Args:
        model: Any module with at least one PyG ``MessagePassing`` layer.
        call: Calls the model on a graph.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> replay = Replay(GCN(4, 8, 2, 3), lambda model, data: model(data.x, data.edge_index))
        >>> data = Data(x=torch.ones(5, 4), edge_index=EdgePlaceholder.make("cpu"))
        >>> replay.run(data, lambda k, arguments: torch.zeros(5, (8, 3)[k])).shape
        torch.Size([5, 3])
        >>> [type(layer).__name__ for layer in replay.order]
        ['GCNConv', 'GCNConv']
    """

    def __init__(self, model: nn.Module, call: Call) -> None:
        self.model = model
        self.call = call
        self.names = {module: name for name, module in model.named_modules() if isinstance(module, MessagePassing)}
        if not self.names:
            raise ValueError(f"'model' has no PyG message passing layer (got {type(model).__name__})")
        #: The layer of each call, known after the first complete run.
        self.order: list[MessagePassing] = []

    def name(self, k: int) -> str:
        """Name the layer of the ``k``-th call, for errors."""
        return self.name_of(self.order[k])

    def name_of(self, layer: MessagePassing) -> str:
        """Name a layer, for errors."""
        return f"{type(layer).__name__} '{self.names[layer]}'" if self.names[layer] else type(layer).__name__

    def run(self, data: Data, answer: Callable[[int, "Arguments"], Tensor], stop: int | None = None) -> Any:
        """Call the model and return its output, or the arguments of the ``stop``-th call of a layer.

        Args:
            data: Rows to run on; its edges are a placeholder.
            answer: Gives the output of the ``k``-th call from its arguments.
            stop: Call to stop at; ``None`` to go to the end.

        Raises:
            ValueError: If the layers are called in another order than before.
        """
        seen: list[MessagePassing] = []
        found: list[Arguments] = []

        def called(layer: MessagePassing, args: Any, kwargs: Any) -> Tensor:
            k = len(seen)
            seen.append(layer)
            if self.order and (k >= len(self.order) or self.order[k] is not layer):
                raise ValueError(f"the model calls its layers in an order that depends on the rows (call {k})")
            arguments = Arguments(layer, args, kwargs)
            if k == stop:
                found.append(arguments)
                raise _Reached
            return answer(k, arguments)

        with _answered(self.names, called):
            try:
                output = self.call(self.model, data)
            except _Reached:
                return found[0]
        if stop is not None or (self.order and len(seen) != len(self.order)):
            raise ValueError(
                f"the model called {len(seen)} layers on one block of rows and {len(self.order)} on another"
            )
        self.order = seen
        return output


class Arguments:
    """The arguments of one call of a layer, with the tensors in them as a flat list.

    Args:
        layer: The layer.
        args: Positional arguments.
        kwargs: Arguments by name.
    """

    def __init__(self, layer: MessagePassing, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.layer = layer
        signature = _signature(type(layer).forward)
        bound = signature.bind(layer, *args, **kwargs)
        self.args, self.kwargs = bound.args[1:], bound.kwargs
        names = [
            p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        #: Names of the positional arguments.
        self.names = names = names[1:] + [""] * len(self.args)  # what *args takes has no name
        self.leaves: list[Any] = []
        #: Names of the arguments that the leaves belong to.
        self.leaf_names: list[str] = []
        for name, value in [*zip(names, self.args, strict=False), *self.kwargs.items()]:
            before = len(self.leaves)
            _flatten(value, self.leaves)
            self.leaf_names += [name] * (len(self.leaves) - before)

    def filled(self, leaves: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional arguments and arguments by name with other leaves."""
        rest = iter(leaves)
        args = tuple(_unflatten(value, rest) for value in self.args)
        return args, {name: _unflatten(value, rest) for name, value in self.kwargs.items()}


@lru_cache(maxsize=64)
def _signature(forward: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(forward)


def _flatten(value: Any, leaves: list[Any]) -> None:
    if type(value) in (tuple, list):
        for part in value:
            _flatten(part, leaves)
    elif type(value) is dict:
        for part in value.values():
            _flatten(part, leaves)
    else:
        leaves.append(value)


def _unflatten(value: Any, leaves: Iterator[Any]) -> Any:
    if type(value) in (tuple, list):
        return type(value)([_unflatten(part, leaves) for part in value])
    if type(value) is dict:
        return {key: _unflatten(part, leaves) for key, part in value.items()}
    return next(leaves)


@contextmanager
def _answered(layers: dict[MessagePassing, str], called: Callable[..., Tensor]) -> Iterator[None]:
    """Replace the forward of each layer, for this block only."""
    before = {layer: layer.__dict__["forward"] for layer in layers if "forward" in layer.__dict__}
    try:
        for layer in layers:
            layer.__dict__["forward"] = _bind(called, layer)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)
            if layer in before:
                layer.__dict__["forward"] = before[layer]


def _bind(called: Callable[..., Tensor], layer: MessagePassing) -> Callable[..., Tensor]:
    def forward(*args: Any, **kwargs: Any) -> Tensor:
        return called(layer, args, kwargs)

    return forward


def twin(layer: MessagePassing) -> MessagePassing:
    """Return a layer that shares the parameters of another, whose own attributes can be changed apart.

    What a layer keeps of the graph it saw first (``cached=True``) is left behind, and nothing is kept anew.

    Example:
        >>> from torch_geometric.nn import GCNConv
        >>> layer = GCNConv(4, 8, cached=True)
        >>> other = twin(layer)
        >>> other.cached, layer.cached, other.lin is layer.lin
        (False, True, True)
    """
    other = copy.copy(layer)
    for name in list(other.__dict__):
        if name.startswith("_cached"):
            other.__dict__[name] = None
    for name in ("cached", "reuse_constant"):
        if getattr(other, name, False):
            setattr(other, name, False)
    return other
