"""Edges led to wrong nodes, and noise in the place of features, to measure how much a model can bear."""

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from graphsparse.edges.attributes import attribute_kinds, check_one_graph
from graphsparse.edges.mask import fix_num_nodes_, join_batch, mask_store_, split_batch
from graphsparse.ops.blocks import row_blocks
from graphsparse.ops.check import check_edge_index, check_share
from graphsparse.ops.select import smallest_k_mask
from graphsparse.utils.counter_random import GAMMA, CounterRandom, check_seed, mix64


class _Perturbation(BaseTransform):  # type: ignore[misc]
    """A transform with a budget and a seed."""

    def __init__(self, eps: float, seed: int = 0) -> None:
        self.eps = check_share(eps, "eps")
        self.seed = check_seed(seed)

    def forward(self, data: Data) -> Data:
        """Return the perturbed graph; called with a shallow copy by ``BaseTransform.__call__``."""
        if isinstance(data, Batch):
            joined: Data = join_batch(data, map(self._one, split_batch(data)))
            return joined
        return self._one(data)

    @abstractmethod
    def _one(self, data: Data) -> Data:
        """Perturb one graph, in place as far as its storage goes."""

    def __repr__(self) -> str:
        """Hold every argument: PyG compares the text to tell whether a stored data set is still the one asked for."""
        return f"{self.__class__.__name__}(eps={self.eps}, seed={self.seed})"


@functional_transform("perturb_edges")
class PerturbEdges(_Perturbation):
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

    Each graph of a ``Batch`` is perturbed as it would be alone, and its edges stay in it.

    The edges chosen for one ``eps`` are also chosen for every larger one, with the same new targets. Equal seeds give
    equal results for edges in the same order, on every device.

    Args:
        eps: Fraction of the directed edges, in ``[0, 1]``.
        seed: Seed of the choice and of the new targets.

    Raises:
        TypeError: If an argument has the wrong type, or the graph is no homogeneous ``Data``.
        ValueError: If ``eps`` or ``seed`` is out of range, or the graph has no ``edge_index``, two sets of nodes, or a
            second copy of its edges in ``adj_t``, or a ``Batch`` was changed after it was joined.

    Example:
        >>> data = Data(edge_index=torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]), num_nodes=4)
        >>> PerturbEdges(0.5)(data).edge_index
        tensor([[0, 1, 2, 3],
                [3, 3, 3, 0]])

    Source: the released code of Huang et al., arXiv 2211.15335.
    """

    def _one(self, data: Data) -> Data:
        store = _edge_store(data)
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


def _edge_store(data: Any) -> Any:
    check_one_graph(data)
    store = data._store
    if "edge_index" not in store or "matrix" in attribute_kinds(store)[0].values():
        raise ValueError(
            f"'data' must hold its edges in 'edge_index' alone (got {list(store.keys())}): perturb them before "
            "ToSparseTensor"
        )
    return store


@functional_transform("perturb_features")
class PerturbFeatures(_Perturbation):
    r"""Replaces the features of some nodes by noise, never those of training nodes.

    Among the validation nodes, the test nodes, and the nodes of no mask, separately,
    :math:`\lfloor \varepsilon n \rfloor` of the :math:`n` nodes are chosen at random, and their rows replaced by

    .. math::
        x_i = b_i / \textstyle\sum_f b_{if}, \qquad b_{if} \sim \mathrm{Bernoulli}(1/2),

    a row of zeros where every :math:`b_{if}` is 0. A row of noise sums to 1, as rows do after PyG's
    ``NormalizeFeatures``: apply that first, features on another scale are hit harder or less hard. A node that is in
    several masks counts where it comes first: training, validation, test.

    *Poisoning* is this before training: the model trains and predicts with noise around its training nodes. *Evasion*
    is this on the graph that a trained model predicts on, and nowhere else. The input is not changed, so that one graph
    serves both.

    Each graph of a ``Batch`` is perturbed as it would be alone.

    The nodes chosen for one ``eps`` are also chosen for every larger one, with the same noise. Equal seeds give equal
    results, on every device.

    Args:
        eps: Fraction of the nodes, in ``[0, 1]``.
        seed: Seed of the choice and of the noise.

    Raises:
        TypeError: If an argument has the wrong type, the graph is no ``Data``, or ``x`` not dense and floating point.
        ValueError: If ``eps`` or ``seed`` is out of range, or the graph has no ``x`` ``[N, F]`` or no ``train_mask``.

    Example:
        >>> mask = torch.tensor([True, False, False])
        >>> data = Data(x=torch.ones(3, 4) / 4, train_mask=mask, test_mask=~mask)
        >>> PerturbFeatures(0.5, seed=2)(data).x
        tensor([[0.2500, 0.2500, 0.2500, 0.2500],
                [0.3333, 0.3333, 0.0000, 0.3333],
                [0.2500, 0.2500, 0.2500, 0.2500]])

    Source: the released code of Huang et al., arXiv 2211.15335.
    """

    def _one(self, data: Data) -> Data:
        x, groups = _checked(data)
        place = CounterRandom(self.seed, "nodes").words(x.size(0), device=x.device)
        chosen = []
        for group in groups:
            node = group.nonzero().squeeze(1)
            chosen.append(node[smallest_k_mask(place[node], math.floor(self.eps * node.numel()))])
        x = x.clone()
        nodes = torch.cat(chosen)
        for rows in row_blocks(nodes.numel(), x.size(1)):
            x[nodes[rows]] = self._noise(nodes[rows], x.size(1)).to(x.dtype)
        data.x = x
        return data

    def _noise(self, node: Tensor, width: int) -> Tensor:
        """Return the noise of the given nodes: a function of seed, node and column, whatever else is perturbed."""
        num_words = -(-width // 32)
        stream = CounterRandom(self.seed, "features")
        word = node.unsqueeze(1) * num_words + torch.arange(1, num_words + 1, device=node.device)
        bits = mix64(word * GAMMA + stream.key).unsqueeze(2) >> torch.arange(32, 64, device=node.device)
        noise = (bits & 1).flatten(1)[:, :width].to(torch.float64)
        return noise / noise.sum(1, keepdim=True).clamp_(min=1)


def _checked(data: Any) -> tuple[Tensor, list[Tensor]]:
    """Return the features, and the validation, the test and the other nodes that are not for training."""
    if not isinstance(data, Data):
        raise TypeError(f"'data' must be a homogeneous Data (got {type(data).__name__})")
    x = data.get("x")
    if x is None:
        raise ValueError("'data.x' is missing")
    if not isinstance(x, Tensor) or x.layout != torch.strided or not x.is_floating_point():
        kind = f"{x.dtype}, layout {x.layout}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"'data.x' must be a dense floating point tensor (got {kind}): perturb it before it is made sparse"
        )
    if x.dim() != 2:
        raise ValueError(f"'data.x' must be [N, F] (got {list(x.shape)})")
    if data.get("train_mask") is None:
        raise ValueError("'data.train_mask' is missing: training nodes must keep their features")
    free = torch.ones(x.size(0), dtype=torch.bool, device=x.device)
    groups = []
    for key in ("train_mask", "val_mask", "test_mask"):
        mask = data.get(key)
        if mask is None:
            continue
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise TypeError(f"'data.{key}' must be a bool tensor (got {getattr(mask, 'dtype', type(mask).__name__)})")
        if mask.shape != free.shape:
            raise ValueError(f"'data.{key}' must be [{x.size(0)}] (got {list(mask.shape)})")
        groups.append(mask & free)
        free = free & ~mask
    return x, [*groups[1:], free]
