"""Which weights of a model and which edges of a graph are kept."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch_geometric.data import Data, HeteroData

from graphsparse.edges.graph_edges import GraphEdges, PerEdge, as_given, by_kind
from graphsparse.ops.check import check_share
from graphsparse.ops.digest import digest
from graphsparse.ops.select import drop_and_grow, num_removed
from graphsparse.training.step_projection import Exclude, HeldMask, is_not_a_matrix, smallest_masks


@dataclass(frozen=True, eq=False)
class Masks:
    r"""Which weights and which edges are kept; ``True`` = kept.

    Args:
        weights: For each masked parameter, by name, bool of its shape.
        edges: For each undirected edge of a graph, once and in the canonical order (smaller end, then larger end), bool
            ``[M]``; of a ``HeteroData`` by edge type, of which one and its reverse are under the one that comes first;
            ``None`` without a graph. Self-loops are no entry: they are never pruned and never counted.

    Raises:
        ValueError: If a mask is not bool.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> model, data = nn.Linear(4, 5), random_graph()
        >>> masks = Masks.everything(model, data)
        >>> sizes = {"weight": model.weight.abs()}
        >>> masks = masks.prune(weights=sizes, weight_sparsity=0.5).prune(weights=sizes, weight_sparsity=0.9)
        >>> masks.weight_sparsity, int(masks.weights["weight"].sum())
        (0.9, 2)
    """

    weights: Mapping[str, Tensor] = field(default_factory=dict)
    edges: PerEdge | None = None

    def __post_init__(self) -> None:
        for name, mask in [*self.weights.items(), *((f"edges of {k}" if k else "edges", m) for k, m in self._edges)]:
            if mask is not None and (not isinstance(mask, Tensor) or mask.dtype != torch.bool):
                raise ValueError(f"the mask {name!r} must be a bool tensor (got {getattr(mask, 'dtype', mask)!r})")

    @classmethod
    def everything(
        cls, model: nn.Module | None = None, data: Data | HeteroData | None = None, *, exclude: Exclude | None = None
    ) -> "Masks":
        """Return masks that keep all weights of a model and all edges of a graph.

        Args:
            model: Its trainable parameters are masked, a tied one under its first name.
            data: Its edges are masked.
            exclude: Says of a parameter whether it is not masked; by default scalars, biases and normalisation
                parameters, that is all with fewer than two dimensions.
        """
        leave = is_not_a_matrix if exclude is None else exclude
        named = [] if model is None else [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        weights = {name: torch.ones_like(p, dtype=torch.bool) for name, p in named if not leave(p)}
        if data is None:
            return cls(weights)
        graph = GraphEdges(data)
        keys = {kind: graph.entries[kind].edges.key for kind in graph.kinds}
        return cls(weights, as_given({kind: torch.ones_like(key, dtype=torch.bool) for kind, key in keys.items()}))

    @property
    def _edges(self) -> list[tuple[Any, Tensor]]:
        """The masks of the edges, each with its edge type, which is ``None`` in a ``Data``."""
        return [] if self.edges is None else list(by_kind(self.edges).items())

    @property
    def weight_sparsity(self) -> float:
        """Fraction of the weights that is removed."""
        return _removed(list(self.weights.values()))

    @property
    def edge_sparsity(self) -> float:
        """Fraction of the undirected edges that is removed."""
        return _removed([mask for _, mask in self._edges])

    def prune(
        self,
        *,
        weights: Mapping[str, Tensor] | None = None,
        weight_sparsity: float = 0.0,
        edges: PerEdge | None = None,
        edge_sparsity: float = 0.0,
    ) -> "Masks":
        r"""Return masks from which the lowest scores are removed, too; what was removed before stays removed.

        Afterwards exactly :math:`\lfloor s \cdot n \rfloor` of all :math:`n` are removed, of the edges of a
        ``HeteroData`` as many of each edge type; ties go to the first.

        Args:
            weights: A score for each weight, by the names of the masks; all are ranked together. ``None`` leaves the
                weights as they are, as for edges.
            weight_sparsity: Fraction of all weights that is removed afterwards, in ``[0, 1)``.
            edges: A score for each undirected edge ``[M]``, of a ``HeteroData`` by the edge types of the masks.
            edge_sparsity: Fraction of all edges that is removed afterwards, in ``[0, 1)``.

        Raises:
            ValueError: If scores do not fit the masks, or more is removed already.
        """
        kept, edge_mask = self.weights, self.edges
        if weights is not None:
            if set(weights) != set(kept):
                raise ValueError(f"'weights' must hold scores for {sorted(kept)} (got {sorted(weights)})")
            names = list(kept)
            scores = [weights[name] for name in names]
            kept = dict(zip(names, _prune([kept[n] for n in names], scores, weight_sparsity, "weight"), strict=True))
        if edges is not None:
            if edge_mask is None:
                raise ValueError("'edges' holds scores, but there is no graph: see Masks.everything(model, data)")
            scored = by_kind(edges)
            if set(scored) != set(by_kind(edge_mask)):
                raise ValueError(f"'edges' must hold scores for {list(by_kind(edge_mask))} (got {list(scored)})")
            found = {k: _prune([mask], [scored[k]], edge_sparsity, "edge")[0] for k, mask in self._edges}
            edge_mask = as_given(found)
        return Masks(kept, edge_mask)

    def move(self, *, weights: Mapping[str, Tensor], scores: Mapping[str, Tensor], fraction: float) -> "Masks":
        """Return masks in which the smallest weights of each tensor have given way to those with the largest scores.

        What is dropped may come back, if its score is that large.

        Args:
            weights: A size for each weight, by the names of the masks; a fraction of those that are kept is dropped.
            scores: A score for each weight; of all that are not kept then, those with the largest are.
            fraction: Fraction of the kept weights of each tensor, rounded down, in ``[0, 1]``.

        Raises:
            ValueError: If sizes or scores do not fit the masks.
        """
        check_share(fraction, "fraction")
        for name, given in {"weights": weights, "scores": scores}.items():
            if {key: value.shape for key, value in given.items()} != {
                k: mask.shape for k, mask in self.weights.items()
            }:
                raise ValueError(f"'{name}' must hold tensors for {sorted(self.weights)}, of the shapes of the masks")
        moved = {
            name: drop_and_grow(mask, weights[name], scores[name], math.floor(fraction * int(mask.sum())))
            for name, mask in self.weights.items()
        }
        return Masks(moved, self.edges)

    def within(self, other: "Masks") -> bool:
        """Say whether all that is kept here is kept in the other masks, too."""
        pairs = [(mask, other.weights.get(name)) for name, mask in self.weights.items()]
        pairs += [(mask, dict(other._edges).get(kind)) for kind, mask in self._edges]
        return all(theirs is None or not (mask & ~theirs).any() for mask, theirs in pairs)

    def apply(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a state dict whose removed weights are 0; other entries are passed on."""
        missing = [name for name in self.weights if name not in state_dict]
        if missing:
            raise ValueError(f"'state_dict' has no {missing[0]!r}, which is masked")
        masks = self.weights
        return {n: torch.where(masks[n], v, v.new_zeros(())) if n in masks else v for n, v in state_dict.items()}

    def hold(self, model: nn.Module, optimizer: Optimizer) -> HeldMask:
        """Keep the removed weights of a model at 0, from now on and after every step of its optimiser."""
        masked = {id(p): (p, self.weights[name]) for name, p in model.named_parameters() if name in self.weights}
        return HeldMask(
            optimizer,
            lambda parameters: [masked[id(parameter)][1] for parameter in parameters],
            exclude=partial(_is_other, [parameter for parameter, _ in masked.values()]),
        )

    def edge_mask(self, data: Data | HeteroData) -> PerEdge:
        """Return which entries of ``edge_index`` are kept, bool ``[E]``: both directions together, and all self-loops.

        Of a ``HeteroData`` there is one for each edge type.

        Raises:
            ValueError: If the graph has another number of undirected edges.
        """
        return GraphEdges(data).per_entry({} if self.edges is None else self.edges, loops=True)

    def fingerprint(self) -> str:
        """Return 16 digits that follow from all masks."""
        parts: list[Any] = [entry for name in sorted(self.weights) for entry in (name, self.weights[name])]
        edges = [self.edges] if self.edges is None else [p for k, m in self._edges for p in (*([k] if k else []), m)]
        return digest([*parts, "edges", *edges])


def _is_other(masked: list[nn.Parameter], parameter: Tensor) -> bool:
    """Tell what has no mask; as a function of this file it can be pickled, and the parameters with it."""
    return all(parameter is not one for one in masked)


def _removed(masks: list[Tensor]) -> float:
    total = sum(mask.numel() for mask in masks)
    return sum(int((~mask).sum()) for mask in masks) / total if total else 0.0


def _prune(kept: list[Tensor], scores: list[Tensor], sparsity: float, what: str) -> list[Tensor]:
    """Remove the lowest scores among what is kept, up to the fraction of all."""
    shapes = [(list(mask.shape), list(score.shape)) for mask, score in zip(kept, scores, strict=True)]
    if any(mask != score for mask, score in shapes):
        raise ValueError(f"the scores of the {what}s must have the shapes of the masks (got {shapes})")
    gone = sum(int((~mask).sum()) for mask in kept)
    more = num_removed(sparsity, sum(mask.numel() for mask in kept)) - gone
    if more < 0:
        raise ValueError(f"'{what}_sparsity' {sparsity} is below what is removed already, {_removed(kept):.4f}")
    chosen = smallest_masks([score[mask] for score, mask in zip(scores, kept, strict=True)], lambda _: more, "global")
    found = []
    for mask, removed in zip(kept, chosen, strict=True):
        new = mask.clone()
        new[mask] = ~removed
        found.append(new)
    return found
