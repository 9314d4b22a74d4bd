"""A transform of PyG that holds out links of one graph, or of one relation of a heterogeneous one."""

import copy
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from graphsparse.ops.pairs import is_among, pair_keys, unique_keys
from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.split import LinkSplit, split_links

EdgeType: TypeAlias = tuple[str, str, str]


@functional_transform("split_links")
class SplitLinks(BaseTransform):  # type: ignore[misc]
    r"""Splits the links of a graph into three graphs for training, validation and test, as ``RandomLinkSplit`` does.

    The split is that of :func:`split_links`, and the rules of :func:`assert_no_leak` hold: **no held-out pair is an
    edge of any of the three**, in either direction and whatever its type. So the messages are the same in all, those of
    the training links; validation links serve the choice of a model alone. Each graph also has the pairs of its part as
    ``edge_label_index`` ``[2, Q]`` and ``edge_label`` ``[Q]``, 1 for links, which come first, and 0 for non-links; for
    training there are links only, as non-links are drawn anew in each epoch (``LinkNeighborLoader(...,
    neg_sampling=...)``). Attributes of edges go with them.

    In a ``HeteroData`` the links of one relation are split, and the pairs are in its store, in its direction. The same
    pairs leave all other relations between the same types of nodes, ``("item", "bought_by", "user")`` say, and every
    further one.

    Args:
        ratios: Shares of training, validation and test in the links.
        seed: Equal seeds give equal splits on every device and in every release.
        num_neg: Non-links per held-out link.
        negatives: ``"uniform"``, or ``"heart"`` for hard ones; see :func:`split_links`.
        edge_type: The relation, for a ``HeteroData``.
        directed: Whether ``(u, v)`` and ``(v, u)`` are different links. Of a relation between two types each pair is
            one link.
        between: Between which nodes links can be, as of :func:`split_links`; between two types it is known.

    Raises:
        TypeError: If the graph is neither ``Data`` nor ``HeteroData``, or ``edge_type`` does not go with it.
        ValueError: If there is no such relation, a split cannot be made, or the graph holds held-out links elsewhere,
            in ``adj_t`` or a dictionary, say.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> train, val, test = SplitLinks((0.8, 0.1, 0.1), num_neg=3)(random_graph())
        >>> torch.equal(train.edge_index, test.edge_index), test.edge_label.numel() // int(test.edge_label.sum())
        (True, 4)

    Source: ``RandomLinkSplit`` of PyG, whose test graph has the validation links as messages.
    """

    def __init__(
        self,
        ratios: Sequence[float] = (0.8, 0.1, 0.1),
        seed: int = 0,
        *,
        num_neg: int = 1,
        negatives: str = "uniform",
        edge_type: EdgeType | None = None,
        directed: bool = False,
        between: Any = None,
    ) -> None:
        self.ratios, self.seed, self.num_neg, self.negatives = tuple(ratios), seed, num_neg, negatives
        self.edge_type, self.directed, self.between = edge_type, directed, between

    def split(self, data: Data | HeteroData) -> LinkSplit:
        """Return the split; nodes of a relation between two types are numbered one after the other, its first first."""
        return self._split(data)[1]

    def forward(self, data: Data | HeteroData) -> tuple[Any, Any, Any]:
        """Return the graphs for training, validation and test."""
        pair, split = self._split(data)
        held = unique_keys(pair_keys(split.queries, pair.num_nodes))
        shift = {} if self.edge_type is None else _shifts(data, self.edge_type)

        def stays(edge_index: Tensor, first: int = 0, second: int = 0) -> Tensor:
            ends = edge_index[0].cpu() + first, edge_index[1].cpu() + second
            return ~is_among(pair_keys(ends, pair.num_nodes), held).to(edge_index.device)

        if self.edge_type is None:
            shown = looked_at = data.edge_subgraph(stays(data.edge_index))
        else:
            stores = (
                (kind, data[kind].get("edge_index")) for kind in data.edge_types if {kind[0], kind[2]} <= {*shift}
            )
            kept = {kind: stays(e, shift[kind[0]], shift[kind[2]]) for kind, e in stores if e is not None}
            shown = data.edge_subgraph(kept)
            looked_at = shown.node_type_subgraph(list(shift))
            for name, first in shift.items():
                looked_at[name].n_id = torch.arange(first, first + int(data[name].num_nodes))
        assert_no_leak(split, pair, graph=looked_at)
        none = split.train[:, :0]
        train, val, test = (
            self._labelled(shown, links, others, shift)
            for links, others in ((split.train, none), (split.val, split.val_neg), (split.test, split.test_neg))
        )
        return train, val, test

    def _split(self, data: Any) -> tuple[SharedNodePair, LinkSplit]:
        """Return the links to be split as a graph by itself, and their split."""
        graph, between = data, self.between
        if isinstance(data, HeteroData):
            if self.edge_type is None or self.edge_type not in data.edge_types:
                raise ValueError(f"'edge_type' must be one of {data.edge_types} (got {self.edge_type!r})")
            shift, second = _shifts(data, self.edge_type), self.edge_type[2]
            total = sum(int(data[name].num_nodes) for name in shift)
            edges = data[self.edge_type].edge_index
            graph = Data(edge_index=edges + torch.tensor([[0], [shift[second]]]).to(edges), num_nodes=total)
            between = torch.arange(total) < shift[second] if len(shift) > 1 else between
        elif self.edge_type is not None:
            raise TypeError(f"'data' must be a HeteroData where 'edge_type' is given (got {type(data).__name__})")
        pair = SharedNodePair([], graph, directed=self.directed)
        options = {"num_neg": self.num_neg, "negatives": self.negatives, "between": between}
        return pair, split_links(pair, self.ratios, self.seed, **options)

    def _labelled(self, shown: Any, links: Tensor, others: Tensor, shift: dict[str, int]) -> Any:
        """Return a shallow copy of a graph with pairs and their labels."""
        graph = copy.copy(shown)
        store = graph if self.edge_type is None else graph[self.edge_type]
        pairs = torch.cat([links, others], 1)
        if self.edge_type is not None:
            pairs[1] -= shift[self.edge_type[2]]
        store.edge_label_index = pairs.to(store.edge_index.device)
        store.edge_label = (torch.arange(pairs.size(1)) < links.size(1)).to(store.edge_index.device, torch.float)
        return graph

    def __repr__(self) -> str:
        """Hold every argument: PyG compares the text to tell whether a stored data set is still the one asked for."""
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"


def _shifts(data: HeteroData, edge_type: EdgeType) -> dict[str, int]:
    """Return the number of the first node of each type at the ends of a relation."""
    first, _, second = edge_type
    return {first: 0} | ({} if first == second else {second: int(data[first].num_nodes)})
