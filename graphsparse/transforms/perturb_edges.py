"""Edges led to wrong nodes, to measure how much a model can bear."""

import math
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from graphsparse.edges.mask import fix_num_nodes_, mask_store_
from graphsparse.ops.check import check_edge_index
from graphsparse.ops.select import smallest_k_mask
from graphsparse.transforms.perturb_features import check_budget
from graphsparse.utils.counter_random import CounterRandom, check_seed


@functional_transform("perturb_edges")
class PerturbEdges(BaseTransform):  # type: ignore[misc]
    r"""Leads some directed edges to wrong nodes.

    Of the :math:`E` directed edges :math:`\lfloor \varepsilon E \rfloor` are chosen at random, and the target of each
    replaced by a node drawn from all nodes alike, which may be the old one. The edge in the other direction stays as it
    is, so the graph is no longer undirected. Two edges may become equal and are both kept. An edge that became a
    self-loop is removed, with its attributes; self-loops that were there before are not counted, chosen or removed. All
    other edges keep their places and attributes. Where every node should have a self-loop and the model adds none, put
    PyG's ``AddRemainingSelfLoops`` behind this.

    *Poisoning* is this before training: the model trains and predicts on wrong edges. *Evasion* is this on the graph
    that a trained model predicts on, and nowhere else. The input is not changed, so that one graph serves both. A layer
    with ``cached=True`` keeps the edges it saw first and would not notice an evasion.

    The edges chosen for one ``eps`` are also chosen for every larger one, with the same new targets. Equal seeds give
    equal results for edges in the same order, on every device.

    Args:
        eps: Fraction of the directed edges, in ``[0, 1]``.
        seed: Seed of the choice and of the new targets.

    Raises:
        TypeError: If an argument has the wrong type, or the graph is no ``Data``.
        ValueError: If ``eps`` or ``seed`` is out of range, or the graph has no ``edge_index``, or a second copy of its
            edges in ``adj_t``.

    Example:
        >>> data = Data(edge_index=torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]), num_nodes=4)
        >>> PerturbEdges(0.5)(data).edge_index
        tensor([[0, 1, 2, 3],
                [3, 3, 3, 0]])

    Source: the released code of Huang et al., arXiv 2211.15335.
    """

    def __init__(self, eps: float, seed: int = 0) -> None:
        self.eps = check_budget(eps)
        self.seed = check_seed(seed)

    def forward(self, data: Data) -> Data:
        """Return the perturbed graph; called with a shallow copy by ``BaseTransform.__call__``."""
        store = _checked_store(data)
        num_nodes = fix_num_nodes_(store)
        edge_index = store["edge_index"]
        # A plain tensor: the class would hand its sort order and its symmetry on to what is made of it.
        edges = edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index
        check_edge_index(edges, num_nodes)
        chosen = self._chosen(edges)
        if not chosen.any():
            return data
        target = CounterRandom(self.seed, "targets").words(edges.size(1), device=edges.device)[chosen]
        # A word of 32 bits, times the number of nodes, over 2^32: at most 2^-32 of the nodes too often per node.
        target = (target * num_nodes >> 32).to(edges.dtype)
        loop = torch.zeros_like(chosen)
        loop[chosen] = edges[0, chosen] == target
        edges = edges.clone()
        edges[1, chosen] = target
        if isinstance(edge_index, EdgeIndex):
            # Sources stay, so that what was sorted by them still is.
            order = "row" if edge_index.sort_order == "row" else None
            edges = EdgeIndex(edges, sparse_size=(num_nodes, num_nodes), sort_order=order)
        store["edge_index"] = edges
        if bool(loop.any()):
            mask_store_(store, ~loop)
        return data

    def _chosen(self, edges: Tensor) -> Tensor:
        place = CounterRandom(self.seed, "edges").words(edges.size(1), device=edges.device)
        own = edges[0] == edges[1]
        place[own] = 2**32  # behind every other
        return smallest_k_mask(place, math.floor(self.eps * (own.numel() - int(own.count_nonzero()))))

    def __repr__(self) -> str:
        """Hold every argument: PyG compares the text to tell whether a stored data set is still the one asked for."""
        return f"{self.__class__.__name__}(eps={self.eps}, seed={self.seed})"


def _checked_store(data: Any) -> Any:
    if not isinstance(data, Data):
        raise TypeError(f"'data' must be a homogeneous Data (got {type(data).__name__})")
    store = data._store
    if "edge_index" not in store or "adj_t" in store:
        raise ValueError(
            f"'data' must hold its edges in 'edge_index' alone (got {list(store.keys())}): perturb them before "
            "ToSparseTensor"
        )
    return store
