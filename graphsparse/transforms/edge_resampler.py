"""A new draw of a graph's edges for every epoch of a training."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.edges.attributes import check_one_graph
from graphsparse.edges.mask import fix_num_nodes_, mask_store_
from graphsparse.edges.sparsifier import Sparsifier, as_sparsifier
from graphsparse.edges.sparsify import EntryDrawer
from graphsparse.ops.check import check_count
from graphsparse.ops.digest import digest, graph_fingerprint
from graphsparse.typing import EdgeScore
from graphsparse.utils.counter_random import check_seed
from graphsparse.utils.files import ContentError, read_tensors, reading, write_tensors

_KIND = "edge resampler"


class EdgeResampler:
    r"""Draws the edges of a graph anew for every epoch; all but the draw is worked out once.

    Under the default score ``"random"`` it is DropEdge with an exact count. Under any other one, edges are drawn with
    probabilities proportional to it and reweighted (:func:`~graphsparse.edges.sample_edge`). A core stays as it is.

    Epoch :math:`i` follows from the seed and :math:`i` alone. In a loop of your own take ``resampler.epoch(i)``; in
    :func:`~graphsparse.training.fit` give it as the loader of a :class:`~graphsparse.training.NodeTask`, which trains
    on the draws, evaluates on the whole graph, and resumes from a checkpoint with the draw that comes next.

    Args:
        data: The graph, with ``edge_index``; it is not changed. What belongs to its edges goes with them.
        sparsity: Fraction of undirected edges to remove, in ``[0, 1)``.
        score: A score, the name of a sparsifier, or a :class:`~graphsparse.edges.Sparsifier`; scores but ``"random"``
            are drawn from by ``"pivotal"``.
        seed: Seed of all draws.
        every: How many epochs a draw stays.
        weight_attr: Name of the weights of the edges.

    Raises:
        TypeError: If ``data`` is no homogeneous graph, or another argument has the wrong type.
        ValueError: If an argument is out of range, or a local rule ranks another score than ``"random"``.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.training import NodeTask, fit
        >>> data = random_graph()
        >>> resampler = EdgeResampler(data, 0.5)
        >>> data.num_edges, resampler.epoch(0).num_edges, torch.equal(resampler.mask(0), resampler.mask(1))
        (298, 150, False)
        >>> result = fit(GCN(8, 16, 2, 3), NodeTask(data, loader=resampler), epochs=5)

    Source: Rong et al., *DropEdge: Towards Deep Graph Convolutional Networks on Node Classification*, ICLR 2020.
    """

    def __init__(
        self,
        data: Data,
        sparsity: float,
        score: str | EdgeScore | Sparsifier = "random",
        *,
        seed: int = 0,
        every: int = 1,
        weight_attr: str = "edge_weight",
    ) -> None:
        self._prepare(data, sparsity, as_sparsifier(score).drawn(), seed, every, weight_attr)

    def _prepare(
        self,
        data: Data,
        sparsity: float,
        method: Sparsifier,
        seed: int,
        every: int,
        weight_attr: str,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        check_one_graph(data)
        if data.get("edge_index") is None:
            raise ValueError(f"'data' must hold 'edge_index' (got {list(data.keys())})")
        self._data = copy.copy(data)
        self.sparsity, self.method, self.weight_attr = sparsity, method, weight_attr
        self.seed, self.every = check_seed(seed), check_count(every, "every")
        self._drawer = EntryDrawer(
            data.edge_index,
            sparsity,
            method,
            num_nodes=fix_num_nodes_(self._data._store),
            seed=seed,
            edge_weight=data.get(weight_attr) if method.uses_weight else None,
            x=data.get("x"),
            state=state,
        ).remember_edges()
        self._next, self._last = 0, (-1, data)

    def epoch(self, epoch: int) -> Data:
        """Return the graph of an epoch, with new weights where the sparsifier gives them."""
        number = check_count(epoch, "epoch", least=0) // self.every
        if self._last[0] != number:
            mask, weight = self._drawer.draw(number)
            graph = copy.copy(self._data)
            mask_store_(graph._store, mask)
            if weight is not None:
                graph[self.weight_attr] = weight[mask]
            self._last = number, graph
        return copy.copy(self._last[1])  # what is done to it is not done to the next one

    def mask(self, epoch: int) -> Tensor:
        """Return which entries of ``edge_index`` an epoch keeps, bool ``[E]``; self-loops always stay."""
        return self._drawer.draw(check_count(epoch, "epoch", least=0) // self.every)[0]

    def probability(self) -> Tensor:
        """Return how likely each entry of ``edge_index`` is to be in a draw, float64 ``[E]``; 1 for self-loops.

        Raises:
            ValueError: If a local rule ranks random draws, for which it is not known.
        """
        return self._drawer.per_entry(self._drawer.selector.probability(), loops=1, absent=0)

    def coverage(self, draws: Sequence[int] = (1, 10, 100)) -> dict[int, float]:
        r"""Return the share of the undirected edges that so many draws together are expected to hold.

        It is the mean of :math:`1 - (1 - \pi_e)^n` over the edges, with :math:`\pi_e` their probabilities.
        """
        missed = torch.log1p(-self._drawer.selector.probability())
        # An edge that is never missed makes -inf, times 0 for no draw at all.
        shares = [(num, torch.expm1(missed * check_count(num, "draws"))) for num in draws]
        return {num: float(-share.mean()) if share.numel() else 1.0 for num, share in shares}

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration gives, as samplers of PyTorch are told; ``fit`` does it."""
        self._next = check_count(epoch, "epoch", least=0)

    def __iter__(self) -> Iterator[Data]:
        """Yield the graph of one epoch, that of the next one the next time."""
        self._next += 1
        yield self.epoch(self._next - 1)

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return 1

    def __repr__(self) -> str:
        score = self.method.score if self.method == Sparsifier(self.method.score).drawn() else self.method
        return f"EdgeResampler({self.sparsity}, {score!r}, seed={self.seed}, every={self.every})"

    def identity(self) -> str:
        """Return what tells these draws from others, for checkpoints."""
        return f"{self!r} of {self._fingerprint}"

    @cached_property
    def _fingerprint(self) -> str:
        return _fingerprint(self._data, self.method, self.weight_attr)

    def save(self, path: str | Path) -> None:
        """Write what the draws follow from to a file, without the graph, whole or not at all.

        Raises:
            TypeError: If the score is a function, which a file cannot hold.
        """
        if not isinstance(self.method.score, str):
            raise TypeError("'score' must be a name to be saved (got a function): register it by edge_score_rule")
        method = {
            entry.name: getattr(self.method, entry.name) for entry in fields(Sparsifier) if entry.name != "source"
        }
        header = {
            "sparsity": self.sparsity,
            "method": {**method, "options": dict(self.method.options)},
            "seed": self.seed,
            "every": self.every,
            "weight_attr": self.weight_attr,
            "graph": self._fingerprint,
        }
        write_tensors(path, _KIND, self._drawer.selector.state(), header)

    @classmethod
    def load(cls, path: str | Path, data: Data) -> "EdgeResampler":
        """Return the resampler that was saved, on the same graph; nothing is scored again.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is none of a resampler, or of one of another graph.
        """
        check_one_graph(data)
        state, header = read_tensors(path, _KIND)
        with reading(path):
            method = Sparsifier(**header["method"])
            made = _fingerprint(data, method, header["weight_attr"])
            if made != header["graph"]:
                raise ContentError(f"it belongs to another graph, {header['graph']} (got {made})")
            rest = {name: header[name] for name in ("sparsity", "seed", "every", "weight_attr")}
            on_device = {name: tensor.to(data.edge_index.device) for name, tensor in state.items()}
            resampler = cls.__new__(cls)
            resampler._prepare(data, method=method, **rest, state=on_device)
        return resampler


def _fingerprint(data: Data, method: Sparsifier, weight_attr: str) -> str:
    """Return what tells one graph from another: edges, nodes, and weights where they are used."""
    weight = data.get(weight_attr) if method.uses_weight else None
    edges = graph_fingerprint(data.edge_index, data.num_nodes)
    return edges if weight is None else f"{edges}-{digest([weight])}"
