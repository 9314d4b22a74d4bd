"""A graph lottery ticket: which edges and which weights are left, and the weights themselves."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData

from graphsparse.edges.graph_edges import (
    PerEdge,
    as_given,
    by_kind,
    check_has_edges,
    graph_edges_fingerprint,
    keep_entries,
)
from graphsparse.nn import Supermask, to_csr
from graphsparse.nn import shrink as cut_channels
from graphsparse.tickets import format as ticket_format
from graphsparse.tickets.edge_rule import EdgeRule
from graphsparse.tickets.frozen import FrozenWeights
from graphsparse.training import FitResult, Masks, build_model
from graphsparse.typing import MakeModel


@dataclass(frozen=True, eq=False)
class Ticket:
    r"""A sparse graph and a sparse model that belong together.

    A ticket is made by :func:`~graphsparse.tickets.find_ticket`, :meth:`from_fit` or :meth:`from_supermask`. It holds
    no code: the model is built by the caller's ``make_model`` and gets the weights of the ticket.

    An untrained ticket says in ``frozen`` where its weights come from. Its file then holds the seed and the masks in
    few bytes, in place of the weights; they are drawn again when it is read.

    Args:
        state_dict: Weights and buffers of the model under their original keys; zero wherever a mask is.
        weight_masks: For every masked tensor of ``state_dict``, bool of its shape, ``True`` where it may be non-zero;
            for frozen tensors also uint8, the number of coats that keep a weight.
        edge_mask: Which entries of ``edge_index`` are left, bool ``[E]``, of a ``HeteroData`` by edge type; ``None``,
            together with ``graph``, for a ticket that belongs to no particular graph.
        graph: :func:`~graphsparse.utils.graph_fingerprint` of the graph before sparsification.
        config: How the ticket was found, in values that JSON can hold. ``seed`` gives the initial weights back.
        metrics: What was measured, in the units named by :meth:`summary`.
        frozen: Which tensors were never trained, and what they are drawn from.
        edge_rule: By what score edges go, where the ticket belongs to no particular graph.

    Raises:
        TypeError: If a mask has another type.
        ValueError: If the parts do not fit each other.

    Example:
        >>> import tempfile
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.datasets import synthetic_citation
        >>> from graphsparse.tickets import Ticket, find_ticket
        >>> from graphsparse.training import Training
        >>> data = synthetic_citation(1000, num_features=64, num_val=200, num_test=300)
        >>> make_model = lambda: GCN(64, 16, 2, 7)
        >>> ticket = find_ticket(make_model, data, edge_sparsity=0.3, weight_sparsity=0.5, training=Training(epochs=5))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ticket.save(f"{folder}/ticket.safetensors")
        ...     ticket = Ticket.load(f"{folder}/ticket.safetensors")
        >>> sparse = ticket.sparsify(data)
        >>> ticket.materialize(make_model)(sparse.x, sparse.edge_index).shape
        torch.Size([1000, 7])
    """

    state_dict: Mapping[str, Tensor]
    weight_masks: Mapping[str, Tensor]
    edge_mask: PerEdge | None = None
    graph: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    frozen: FrozenWeights | None = None
    edge_rule: EdgeRule | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        frozen = [] if self.frozen is None else self.frozen.names()
        for name, mask in self.weight_masks.items():
            if mask.dtype != torch.bool and not (mask.dtype == torch.uint8 and name in frozen):
                raise TypeError(
                    f"'weight_masks' must be bool, or uint8 for tensors of 'frozen' (got {mask.dtype} of {name!r})"
                )
            if name not in self.state_dict or self.state_dict[name].shape != mask.shape:
                raise ValueError(f"'weight_masks' holds {name!r} of shape {list(mask.shape)}, unlike 'state_dict'")
            if self.state_dict[name][mask == 0].count_nonzero():
                raise ValueError(f"'state_dict' is not zero where the mask of {name!r} says so")
        if (self.edge_mask is None) != (self.graph is None):
            raise ValueError("'edge_mask' and 'graph' must be given together, or neither")
        for mask in self._edge_masks.values():
            if mask.dtype != torch.bool or mask.dim() != 1:
                raise ValueError(f"'edge_mask' must be a bool vector (got {mask.dtype}, shape {list(mask.shape)})")
        if self.edge_rule is not None and self.edge_mask is not None:
            raise ValueError("'edge_rule' is for a ticket that belongs to no particular graph: give no 'edge_mask'")

    @property
    def _edge_masks(self) -> dict[Any, Tensor]:
        """The masks of the entries by edge type, that of a ``Data`` under ``None``."""
        return {} if self.edge_mask is None else by_kind(self.edge_mask)

    @classmethod
    def from_fit(
        cls,
        result: FitResult,
        masks: Masks,
        data: Data | HeteroData | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> "Ticket":
        """Return a trained model and the masks that it was trained under as a ticket.

        Args:
            result: What :func:`~graphsparse.training.fit` returned.
            masks: Which weights and which undirected edges of ``data`` are kept; the weights are put to 0 elsewhere. Of
                a projection, ``Masks(result.weight_masks)``.
            data: The graph before sparsification; ``None`` if the ticket belongs to none, as for tasks on many graphs.
            config: How the ticket was found, in values that JSON can hold, the seed of the initial weights among them.
            metrics: Further figures beside ``val``, ``test``, ``best_epoch`` and the counted sparsities.

        Returns:
            The ticket, on CPU.

        Raises:
            ValueError: If the masks do not fit the weights or the graph.

        Example:
            >>> from torch_geometric.nn import GCN
            >>> from graphsparse.testing import random_graph
            >>> from graphsparse.training import L0Projection, Masks, fit
            >>> data = random_graph()
            >>> result = fit(GCN(8, 16, 2, 3), data, epochs=5, project=lambda optimizer: L0Projection(optimizer, 0.5))
            >>> Ticket.from_fit(result, Masks(result.weight_masks), data).metrics["weight_sparsity"]
            0.5
        """
        state_dict = {name: tensor.detach().cpu() for name, tensor in masks.apply(result.state_dict).items()}
        # A tied weight has one mask under each of its names, and counts once.
        once = {mask.data_ptr(): name for name, mask in masks.weights.items()}
        counted = {
            "val": result.val,
            "test": result.test,
            "best_epoch": result.best_epoch,
            "edge_sparsity": masks.edge_sparsity,
            "weight_sparsity": Masks({name: masks.weights[name] for name in once.values()}).weight_sparsity,
        }
        found = counted | dict(metrics or {})
        edge_mask = None if data is None or masks.edges is None else masks.edge_mask(data)
        return cls(
            state_dict=state_dict,
            weight_masks={name: mask.cpu() for name, mask in masks.weights.items() if not mask.all()},
            edge_mask=None if data is None else _edge_mask(data, edge_mask),
            graph=None if data is None else _fingerprint(data),
            config=dict(config or {}),
            metrics={name: value for name, value in found.items() if value is not None},
        )

    @classmethod
    def from_supermask(
        cls,
        supermask: Supermask,
        *,
        data: Data | HeteroData | None = None,
        edge_mask: PerEdge | None = None,
        config: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> "Ticket":
        r"""Return the final mask of a supermask as a ticket whose file holds a seed in place of weights.

        Args:
            supermask: The supermask, on any device. It is left as it is.
            data: The graph that the ticket belongs to, before sparsification; ``None`` if it belongs to none, as for
                tasks on many graphs.
            edge_mask: Which entries of the ``edge_index`` of ``data`` are left, bool ``[E]``, of a ``HeteroData`` by
                edge type; all by default.
            config: How the mask was searched, in values that JSON can hold. Method, seed, sparsities, scope and
                transform are added.
            metrics: What was measured. The counted ``weight_sparsity`` is added.

        Returns:
            The ticket, on CPU. Its model gives the logits of ``supermask.materialize()``, bit for bit on CPU.

        Raises:
            TypeError: If ``supermask`` is none.
            ValueError: If ``edge_mask`` does not fit ``data``, or the frozen weights are no longer those of their seed.

        Example:
            >>> from torch_geometric.nn import GCN
            >>> from graphsparse.nn import Supermask
            >>> from graphsparse.testing import random_graph
            >>> data = random_graph()
            >>> ticket = Ticket.from_supermask(Supermask(GCN(8, 16, 2, 3), 0.8, seed=1), data=data)
            >>> ticket.summary()
            'untrained: 298 of 298 entries of edge_index and 36 of 176 weights left; weight_sparsity 0.7955'
            >>> ticket.materialize(lambda: GCN(8, 16, 2, 3))(data.x, data.edge_index).shape
            torch.Size([60, 3])
        """
        if not isinstance(supermask, Supermask):
            raise TypeError(f"'supermask' must be a Supermask (got {type(supermask).__name__})")
        if edge_mask is not None and data is None:
            raise ValueError("'edge_mask' needs 'data', the graph whose edges it refers to")
        frozen, plan = FrozenWeights.of(supermask), supermask.plan
        masks = {name: mask.cpu() for name, mask in supermask.masks().items()}
        state_dict = {name: tensor.cpu() for name, tensor in supermask.materialize().state_dict().items()}
        frozen.check(state_dict, masks)
        described = {
            "method": "untrained",
            "seed": supermask.seed,
            "sparsities": [float(sparsity) for sparsity in plan.sparsities],
            "scope": plan.scope,
            "transform": plan.transform,
        }
        return cls(
            state_dict=state_dict,
            weight_masks=frozen.all_masks(frozen.stored_masks(masks)),
            edge_mask=None if data is None else _edge_mask(data, edge_mask),
            graph=None if data is None else _fingerprint(data),
            config=described | dict(config or {}),
            metrics={"weight_sparsity": supermask.sparsity()} | dict(metrics or {}),
            frozen=frozen,
        )

    def save(self, path: str | Path) -> None:
        """Write the ticket to a file that holds compressed masks and only the remaining weights.

        The file is there whole or not at all.

        Args:
            path: The file; ``.safetensors`` is the usual ending.

        Raises:
            OSError: If it cannot be written.
            ValueError: If ``config`` or ``metrics`` hold NaN, or a frozen tensor holds other weights than its seed and
                mask give.
        """
        ticket_format.write(path, *self._packed())

    def as_read_back(self) -> "Ticket":
        """Return the ticket that a file of this one gives.

        Raises:
            ValueError: As for :meth:`save`.
        """
        tensors, header = self._packed()
        return self._unpack(tensors, json.loads(json.dumps(header)))

    def _packed(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and header of the file."""
        names, masks, frozen = [], dict(self.weight_masks), None
        if self.frozen is not None:
            names = self.frozen.names()
            frozen = {**self.frozen.to_json(), "digest": self.frozen.check(self.state_dict, masks)}
            trained = {name: mask for name, mask in masks.items() if name not in names}
            masks = trained | self.frozen.stored_masks(masks)
        tensors, described = ticket_format.pack_masks(masks)
        for name, tensor in self.state_dict.items():
            if name in names:
                continue
            if name in masks:
                tensors[f"values/{name}"] = tensor.detach().cpu()[masks[name].cpu()]
            else:
                # A copy of its own: tied tensors share memory, which safetensors refuses.
                tensors[f"dense/{name}"] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        edges, sizes = ticket_format.pack_edges(self._edge_masks)
        tensors |= edges
        header = {
            "graph": self.graph,
            **sizes,
            **({} if self.edge_rule is None else {"edge_rule": self.edge_rule.to_json()}),
            "config": dict(self.config),
            "metrics": dict(self.metrics),
            "names": list(self.state_dict),
            "masks": described,
            "frozen": frozen,
        }
        return tensors, header

    @classmethod
    def load(cls, path: str | Path) -> "Ticket":
        """Read a ticket from a file.

        Args:
            path: A file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not a ticket, is damaged, was edited, or is of another version of the format.
        """
        tensors, header = ticket_format.read(path)
        try:
            return cls._unpack(tensors, header)
        except Exception as error:  # a file that was made to harm may raise anything
            raise ValueError(f"{path} lacks a part of a ticket: {error!r}") from error

    @classmethod
    def _unpack(cls, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> "Ticket":
        stored = ticket_format.unpack_masks(tensors, header["masks"])
        state_dict: dict[str, Tensor] = {}
        frozen, masks = None, stored
        if header["frozen"] is not None:
            frozen = FrozenWeights.from_json(header["frozen"])
            state_dict = frozen.redraw(stored, header["frozen"]["digest"])
            trained = {name: mask for name, mask in stored.items() if name not in state_dict}
            masks = trained | frozen.all_masks(stored)
        for name in header["names"]:
            if name in state_dict:
                continue
            if name in masks:
                values = tensors[f"values/{name}"]
                state_dict[name] = torch.zeros(masks[name].shape, dtype=values.dtype)
                state_dict[name][masks[name]] = values
            else:
                state_dict[name] = tensors[f"dense/{name}"]
        edges = ticket_format.unpack_edges(tensors, header)
        rule = header.get("edge_rule")
        # All names of the model, in its order.
        state_dict = {name: state_dict[name] for name in header["names"]}
        return cls(
            state_dict,
            masks,
            as_given(edges) if edges else None,
            header["graph"],
            header["config"],
            header["metrics"],
            frozen,
            None if rule is None else EdgeRule.from_json(rule),
        )

    def materialize(
        self,
        make_model: MakeModel,
        *,
        format: Literal["dense", "csr"] = "dense",
        shrink: Data | HeteroData | None = None,
    ) -> nn.Module:
        """Return a model with the weights of the ticket, in evaluation mode.

        As ``"dense"`` it is an ordinary PyG model: its keys are the original ones, the zeros are zeros in its dense
        weights, and nothing keeps them zero if it is trained on. :func:`~graphsparse.nn.accelerate` makes it faster.
        As ``"csr"`` it is for inference, and holds only the weights that are not zero:
        :func:`~graphsparse.nn.to_csr`.

        With ``shrink`` whole channels that do nothing are cut out of it: a smaller plain model with the same keys, see
        :func:`~graphsparse.nn.shrink`. That pays for tickets of :class:`~graphsparse.tickets.Channels`.

        Args:
            make_model: Builds the model the ticket was found for.
            format: ``"dense"`` or ``"csr"``.
            shrink: A graph that the model takes, if channels are to be cut. A model with another signature than
                ``model(x, edge_index)`` is given to :func:`~graphsparse.nn.shrink` itself.

        Raises:
            TypeError: If ``shrink`` is no graph.
            ValueError: If that model has other keys or shapes, no channel of it can be cut, or there is no such format.
        """
        if format not in ("dense", "csr"):
            raise ValueError(f"'format' must be 'dense' or 'csr' (got {format!r})")
        model = self._plain(make_model)
        model = model if shrink is None else cut_channels(model, shrink)
        return model if format == "dense" else to_csr(model)

    def _plain(self, make_model: MakeModel) -> nn.Module:
        model = build_model(make_model, int(self.config.get("seed", 0)))
        expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        got = {name: tuple(tensor.shape) for name, tensor in self.state_dict.items()}
        if expected != got:
            different = sorted(k for k in expected.keys() | got.keys() if expected.get(k) != got.get(k))
            raise ValueError(
                "'make_model' builds another model than the ticket was found for: "
                + ", ".join(f"{k!r} is {expected.get(k, 'missing')}, not {got.get(k, 'there')}" for k in different[:5])
            )
        model.load_state_dict(self.state_dict)
        return model.eval()

    def sparsify(self, data: Any) -> Any:
        """Return the graph with the edges of the ticket only, and every attribute that belongs to them.

        A ticket that belongs to no particular graph leaves every graph as it is, or, where its edges were chosen by a
        score, chooses those of each graph anew, of a batch graph by graph.

        Args:
            data: The graph that the ticket was made for, with its edges in the same order. It is not changed.

        Raises:
            ValueError: If it is another graph.
        """
        if self.edge_rule is not None:
            return self.edge_rule.apply(data)
        if self.edge_mask is None:
            return copy.copy(data)
        got = _fingerprint(data)
        if got != self.graph:
            raise ValueError(
                f"'data' is not the graph the ticket was made for, or its edges are in another order: "
                f"its fingerprint is {got}, the ticket's {self.graph} (nodes-edges-digest)"
            )
        return keep_entries(data, self.edge_mask)

    def summary(self) -> str:
        """Return one line that says what was removed and what was measured.

        Sparsities and accuracies are fractions, the weights those of the masked tensors. A mask that several layers
        share counts once.
        """
        again = () if self.frozen is None else self.frozen.same
        masks = [mask for name, mask in self.weight_masks.items() if name not in again]
        total = sum(mask.numel() for mask in masks)
        left = f"{sum(int(mask.count_nonzero()) for mask in masks):,} of {total:,} weights" if total else "all weights"
        if edges := list(self._edge_masks.values()):
            kept, total = (sum(int(m.count_nonzero()) for m in edges), sum(m.numel() for m in edges))
            left = f"{kept:,} of {total:,} entries of edge_index and {left}"
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return f"{self.config.get('method', 'ticket')}: {left} left" + (f"; {metrics}" if metrics else "")

    def __repr__(self) -> str:
        """Say what :meth:`summary` says; the tensors themselves would fill the screen."""
        return f"Ticket({self.summary()})"


def _fingerprint(data: Data | HeteroData) -> str:
    check_has_edges(data)
    return graph_edges_fingerprint(data)


def _edge_mask(data: Data | HeteroData, edge_mask: PerEdge | None) -> PerEdge:
    """Return the mask over the entries of ``edge_index``, all of which are kept by default."""
    check_has_edges(data)
    kinds = data.edge_types if isinstance(data, HeteroData) else [None]
    given = {} if edge_mask is None else by_kind(edge_mask)
    if given and set(given) != set(kinds):
        raise ValueError(f"'edge_mask' must be by the edge types of 'data', {kinds} (got {list(given)})")
    found = {}
    for kind, store in zip(kinds, data.edge_stores, strict=True):
        num = store["edge_index"].size(1)
        mask = given.get(kind, torch.ones(num, dtype=torch.bool))
        if mask.dtype != torch.bool or mask.shape != (num,):
            raise ValueError(
                f"'edge_mask' must be bool and of one entry for each of the {num} entries of 'edge_index' "
                f"(got {mask.dtype}, shape {list(mask.shape)})"
            )
        found[kind] = mask.cpu()
    return as_given(found)  # type: ignore[no-any-return]
