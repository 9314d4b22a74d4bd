"""A model whose weights, and the edges of whose graph, are multiplied by numbers that are trained with it."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch_geometric.data import HeteroData

from graphsparse.edges.graph_edges import PerEdge, as_given, by_kind
from graphsparse.ops.check import check_integer, check_number
from graphsparse.utils.call_model import takes_edge_weight, weights_in_layers
from graphsparse.utils.copy_model import copy_model


class SoftMasks(nn.Module):
    r"""Multiplies weights of a model and edges of its graph by numbers that are trained together with the weights.

    .. math::
        \tilde W = W \odot m_W \odot b_W, \qquad \tilde w_{uv} = w_{uv} \, m_{\{u, v\}} \, b_{\{u, v\}}

    The masks :math:`m` are trained, :math:`b` says what is kept at all. There is one number for each undirected edge,
    so that both directions of it go together, and none for self-loops; the model computes with :math:`\tilde w` as
    ``edge_weight``, also where it normalises by degrees, and 0 is no edge.

    The model, or each of its message passing layers, must take ``edge_weight``; with
    :func:`~graphsparse.nn.accelerate` those of PyG's SAGE, GIN and GAT do. The model is trained in place, and called
    with its own arguments; :func:`~graphsparse.training.fit` calls it inside :meth:`weighed`, with a graph or with a
    batch of a loader.

    Args:
        model: Any model.
        weights: For each masked parameter, by name, what is kept, bool of its shape; ``None`` masks none.
        edges: Which undirected edges are kept, bool ``[M]`` in canonical order, of a ``HeteroData`` by edge type as in
            :class:`~graphsparse.training.Masks`; ``None`` masks none.
        noise: Masks start within so much of 1, by chance, and at 0 where nothing is kept.
        seed: Seed of this draw.

    Attributes:
        edge: The mask of the edges, ``[M]``, of all edge types together, or ``None``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a mask is not bool of the shape of its parameter, or there is none.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.edges import attach_pairs
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.training import Masks, fit
        >>> data, model = attach_pairs(random_graph()), GCN(8, 16, 2, 3)
        >>> keep = Masks.everything(model, data)
        >>> soft = SoftMasks(model, weights=keep.weights, edges=keep.edges)
        >>> _ = fit(soft, data, epochs=5)
        >>> keep = keep.prune(**soft.scores(), edge_sparsity=0.05, weight_sparsity=0.2)
        >>> round(keep.weight_sparsity, 2)
        0.2

    Source: Chen et al., *A Unified Lottery Ticket Hypothesis for Graph Neural Networks*, arXiv 2102.06790, Section 3.
    """

    edge: nn.Parameter | None
    keep_edge: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        weights: Mapping[str, Tensor] | None = None,
        edges: PerEdge | None = None,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"'model' must be a torch module (got {type(model).__name__})")
        if not weights and edges is None:
            raise ValueError("there is nothing to mask: give 'weights', 'edges' or both")
        known, generator = dict(model.named_parameters()), torch.Generator().manual_seed(check_integer(seed, "seed"))
        check_number(noise, "noise", least=0)
        self.model, self.names = model, list(weights or {})
        for name, kept in (weights or {}).items():
            _check_mask(f"weights[{name!r}]", kept, None if name not in known else tuple(known[name].shape))
        like = next(model.parameters())
        self.edge, self._sizes = None, {}
        if edges is not None:
            for mask in by_kind(edges).values():
                _check_mask("edges", mask, (mask.numel(),) if isinstance(mask, Tensor) else None)
            self._sizes = {kind: mask.numel() for kind, mask in by_kind(edges).items()}
            edges = torch.cat(list(by_kind(edges).values()))
            self.register_buffer("keep_edge", edges.to(like.device), persistent=False)
            self.edge = nn.Parameter(_near_one(edges, noise, generator, like))
        self.masks = nn.ParameterList()
        for i, name in enumerate(self.names):
            kept = (weights or {})[name].to(known[name].device)
            self.register_buffer(f"keep_{i}", kept, persistent=False)
            self.masks.append(nn.Parameter(_near_one(kept, noise, generator, known[name])))
        self.train(model.training)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model with its masked weights."""
        return functional_call(self.model, self._masked(), args, kwargs) if self.names else self.model(*args, **kwargs)

    def _masked(self) -> dict[str, Tensor]:
        kept = (self.get_buffer(f"keep_{i}") for i in range(len(self.names)))
        rows = zip(self.names, self.masks, kept, strict=True)
        return {name: self.model.get_parameter(name) * (mask * keep) for name, mask, keep in rows}

    @contextmanager
    def weighed(self, data: Any) -> Iterator[Any]:
        """Yield a graph, or a part of it, whose edges are multiplied by their masks; what comes in is left as it is.

        The weights are its ``edge_weight`` where the model takes one; where not, its layers get them inside the block.

        Args:
            data: It has ``edge_pair`` of :func:`~graphsparse.edges.attach_pairs`, and maybe ``edge_weight``.

        Raises:
            ValueError: If it does not say which edges it has, or a layer takes no weights.
        """
        if self.edge is None:
            yield data
            return
        # The first value is that of self-loops, whose number is -1.
        values = torch.cat([self.edge.new_ones(1), self.edge * self.keep_edge])
        weights = [values.index_select(0, _pair_of(store) + 1) for store in data.edge_stores]
        # What `to_hetero` makes of a model takes weights that its layers do not get.
        takes = not isinstance(data, HeteroData) and takes_edge_weight(self.model)
        if not takes and all(store.get("edge_weight") is None for store in data.edge_stores):
            with weights_in_layers(
                self.model, list(zip((s.edge_index for s in data.edge_stores), weights, strict=True))
            ):
                yield data
            return
        data = copy.copy(data)
        for store, weight in zip(data.edge_stores, weights, strict=True):
            own = store.get("edge_weight")
            store["edge_weight"] = weight if own is None else own.view(-1) * weight
        yield data

    def scores(self) -> dict[str, Any]:
        """Return the sizes of the masks as :meth:`graphsparse.training.Masks.prune` takes them."""
        named = zip(self.names, self.masks, strict=True)
        sizes = {name: mask.detach().abs() for name, mask in named}
        found: dict[str, Any] = {"weights": sizes} if sizes else {}
        if self.edge is not None:
            parts = torch.split(self.edge.detach().abs(), list(self._sizes.values()))
            found["edges"] = as_given(dict(zip(self._sizes, parts, strict=True)))
        return found

    @torch.no_grad()
    def add_l1(self, *, edges: float = 0.0, weights: float = 0.0) -> None:
        r"""Add the gradient of :math:`\gamma_g \|m_g\|_1 + \gamma_W \|m_W\|_1` to that of the masks.

        Args:
            edges: :math:`\gamma_g`.
            weights: :math:`\gamma_W`.

        Raises:
            ValueError: If the loss did not depend on a mask although it did on the weight, or on no edge.
        """
        named = [
            (f"the weight {n!r}", m, self.model.get_parameter(n)) for n, m in zip(self.names, self.masks, strict=True)
        ]
        edge = [] if self.edge is None else [("'edge_weight'", self.edge, next(iter(self.model.parameters())))]
        for what, mask, used in [*named, *edge]:
            if mask.grad is None and used.grad is not None:
                raise ValueError(f"'model' does not compute with {what} that it is given: its mask has no effect")
            amount = edges if mask is self.edge else weights
            if mask.grad is None:
                mask.grad = torch.zeros_like(mask)
            mask.grad.add_(mask.sign(), alpha=amount)

    @torch.no_grad()
    def materialize(self) -> nn.Module:
        """Return a plain copy of the model with its masked weights."""
        masked = self._masked()
        model = copy_model(self.model)
        for name, weight in masked.items():
            model.get_parameter(name).copy_(weight)
        return model


def _pair_of(store: Any) -> Tensor:
    """Return which undirected edge each entry is."""
    pair, num = store.get("edge_pair"), store["edge_index"].size(1)
    if pair is None or pair.shape != (num,):
        raise ValueError(
            f"'data' must say by 'edge_pair' which undirected edges it has, one number for each of {num} entries "
            f"(got {None if pair is None else list(pair.shape)}): make the loader of "
            "graphsparse.edges.attach_pairs(data)"
        )
    return pair  # type: ignore[no-any-return]


def _check_mask(name: str, mask: Any, shape: tuple[int, ...] | None) -> None:
    if shape is None and name != "edges":
        raise ValueError(f"'model' has no parameter for {name!r}")
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or tuple(mask.shape) != shape:
        got = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"'{name}' must be bool {'[M]' if shape is None else list(shape)} (got {got})")


def _near_one(kept: Tensor, noise: float, generator: torch.Generator, like: Tensor) -> Tensor:
    """Return 1 within some noise where something is kept, else 0, in the type and on the device of a weight."""
    drawn = torch.empty(kept.shape).uniform_(1 - noise, 1 + noise, generator=generator)
    return drawn.mul_(kept.cpu()).to(like)
