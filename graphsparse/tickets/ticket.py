"""A graph lottery ticket: which edges and which weights are left, and the weights themselves."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.edges.mask import mask_data_edges
from graphsparse.nn import FormChoice, fastest_form, inference_form
from graphsparse.nn.inference_forms import FORMS, InferenceForm
from graphsparse.tickets import format as ticket_format
from graphsparse.tickets.frozen_weights import FrozenWeights, pack, unpack
from graphsparse.training import build_model
from graphsparse.typing import MakeModel
from graphsparse.utils.fingerprint import graph_fingerprint


@dataclass(frozen=True, eq=False)
class Ticket:
    r"""A sparse graph and a sparse model that belong together.

    A ticket is made by :func:`~graphsparse.tickets.find_teddy_ticket` and its siblings. It holds no code: the model is
    built by the caller's ``make_model`` and gets the weights of the ticket.

    An untrained ticket says in ``frozen`` where its weights come from. Its file then holds the seed and the masks in
    few bytes, in place of the weights; they are drawn again when it is read.

    Args:
        state_dict: Weights and buffers of the model under their original keys; zero wherever a mask is.
        weight_masks: For every masked tensor of ``state_dict``, bool of its shape, ``True`` where it may be non-zero;
            for frozen tensors also uint8, the number of coats that keep a weight.
        edge_mask: Which entries of ``edge_index`` are left, bool ``[E]``; ``None``, together with ``graph``, for a
            ticket that belongs to no particular graph.
        graph: :func:`~graphsparse.utils.graph_fingerprint` of the graph before sparsification.
        config: How the ticket was found, in values that JSON can hold. ``seed`` gives the initial weights back.
        metrics: What was measured, in the units named by :meth:`summary`.
        frozen: Which tensors were never trained, and what they are drawn from.

    Raises:
        TypeError: If a mask has another type.
        ValueError: If the parts do not fit each other.

    Example:
        >>> import tempfile
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.datasets import synthetic_citation
        >>> from graphsparse.tickets import Ticket, find_teddy_ticket
        >>> data = synthetic_citation(1000, num_features=64, num_val=200, num_test=300)
        >>> make_model = lambda: GCN(64, 16, 2, 7)
        >>> ticket = find_teddy_ticket(make_model, data, edge_sparsity=0.3, weight_sparsity=0.5, epochs=5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ticket.save(f"{folder}/ticket.safetensors")
        ...     ticket = Ticket.load(f"{folder}/ticket.safetensors")
        >>> sparse = ticket.sparsify(data)
        >>> ticket.materialize(make_model)(sparse.x, sparse.edge_index).shape
        torch.Size([1000, 7])
    """

    state_dict: Mapping[str, Tensor]
    weight_masks: Mapping[str, Tensor]
    edge_mask: Tensor | None = None
    graph: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    frozen: FrozenWeights | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        frozen = set() if self.frozen is None else set(self.frozen.names())
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
        if self.edge_mask is not None and (self.edge_mask.dtype != torch.bool or self.edge_mask.dim() != 1):
            raise ValueError(
                f"'edge_mask' must be a bool vector (got {self.edge_mask.dtype}, shape {list(self.edge_mask.shape)})"
            )
        if self.frozen is not None:
            self._check_frozen(self.frozen)

    def _check_frozen(self, frozen: FrozenWeights) -> None:
        for name in frozen.names():
            entry = frozen.tensors[frozen.same.get(name, name)]
            if name not in self.state_dict or tuple(self.state_dict[name].shape) != entry.shape:
                raise ValueError(f"'frozen' holds {name!r} of shape {list(entry.shape)}, unlike 'state_dict'")
            if (entry.mask_shape is not None) != (name in self.weight_masks):
                raise ValueError(f"'frozen' and 'weight_masks' disagree on whether {name!r} is masked")

    def save(self, path: str | Path) -> None:
        """Write the ticket to a file that holds masks as bits and only the remaining weights.

        The file is there whole or not at all.

        Args:
            path: The file; ``.safetensors`` is the usual ending.

        Raises:
            OSError: If it cannot be written.
            ValueError: If ``config`` or ``metrics`` hold NaN, or a frozen tensor holds other weights than its seed and
                mask give.
        """
        header: dict[str, Any] = {
            "graph": self.graph,
            "num_edges": None if self.edge_mask is None else self.edge_mask.numel(),
            "config": dict(self.config),
            "metrics": dict(self.metrics),
        }
        names = set() if self.frozen is None else set(self.frozen.names())
        stored = {name: tensor for name, tensor in self.state_dict.items() if name not in names}
        tensors = ticket_format.pack_state(stored, self.weight_masks)
        header["shapes"] = {
            name: list(tensor.shape) if f"values/{name}" in tensors else None
            for name, tensor in self.state_dict.items()
        }
        if self.frozen is not None:
            tensors["frozen_masks"], header["frozen"] = pack(self.frozen, self.state_dict, self.weight_masks)
        if self.edge_mask is not None and not self.edge_mask.all():
            tensors["edge_mask"] = ticket_format.pack_bits(self.edge_mask)
        ticket_format.write(path, tensors, header)

    @classmethod
    def load(cls, path: str | Path) -> "Ticket":
        """Read a ticket from a file.

        Args:
            path: A file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not a ticket, is damaged, was edited, or is of a newer format.
        """
        tensors, header = ticket_format.read(path)
        try:
            return cls._unpack(tensors, header)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} lacks a part of a ticket: {error!r}") from error

    @classmethod
    def _unpack(cls, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> "Ticket":
        state_dict, masks = ticket_format.unpack_state(tensors, header["shapes"])
        frozen = edge_mask = None
        if "frozen" in header:
            frozen, drawn, more = unpack(tensors["frozen_masks"], header["frozen"])
            state_dict |= drawn
            masks |= more
        # All names of the model, in its order.
        state_dict = {name: state_dict[name] for name in header["shapes"]}
        if "edge_mask" in tensors:
            edge_mask = ticket_format.unpack_bits(tensors["edge_mask"], header["num_edges"])
        elif header["num_edges"] is not None:
            edge_mask = torch.ones(header["num_edges"], dtype=torch.bool)
        return cls(state_dict, masks, edge_mask, header["graph"], header["config"], header["metrics"], frozen)

    def materialize(
        self,
        make_model: MakeModel,
        *,
        format: InferenceForm | Literal["auto"] = "dense",
        data: Data | None = None,
        log: Callable[[dict[str, Any]], None] | None = None,
    ) -> nn.Module:
        """Return a model with the weights of the ticket, in evaluation mode.

        As ``"dense"`` it is an ordinary PyG model: its keys are the original ones, the zeros are zeros in its dense
        weights, and nothing keeps them zero if it is trained on. The other formats are for inference, and computing the
        same in another way may be faster: see :func:`~graphsparse.nn.inference_form`. Which one is the fastest has to
        be measured; ``"auto"`` does so, on a graph.

        Args:
            make_model: Builds the model the ticket was found for.
            format: ``"dense"``, ``"sparse_features"``, ``"compact"``, ``"csr"``, or ``"auto"`` for what
                :meth:`choose_format` chooses.
            data: The graph to measure on, as the model is going to see it: for most tickets what :meth:`sparsify`
                returns. Only for ``"auto"``.
            log: Receives what was measured, a dictionary for each format: its milliseconds, bytes and
                multiply-accumulates, and whether it was chosen, or why it was left out. Only for ``"auto"``.

        Raises:
            ValueError: If that model has other keys or shapes, there is no such format, or ``data`` is missing.
        """
        if format not in (*FORMS, "auto"):
            raise ValueError(f"'format' must be one of {FORMS} or 'auto' (got {format!r})")
        if format == "auto":
            if data is None:
                raise ValueError("'data' must be given with format='auto', which measures on it (got None)")
            choice = self.choose_format(make_model, data)
            for row in choice.rows():
                if log is not None:
                    log(row)
            return choice.model
        model = self._plain(make_model)
        return model if format == "dense" else inference_form(model, format)

    def choose_format(self, make_model: MakeModel, data: Data, *, budget: float = 1.5) -> FormChoice:
        """Measure the model in every format on a graph, and return the fastest with the figures and the reason.

        Args:
            make_model: Builds the model the ticket was found for, on the device of the graph.
            data: The graph, as the model is going to see it.
            budget: Seconds for the timed runs, as in :func:`~graphsparse.nn.fastest_form`.

        Raises:
            ValueError: If that model has other keys or shapes.

        Example:
            >>> from torch_geometric.nn import GCN
            >>> from graphsparse.testing import random_graph
            >>> from graphsparse.tickets import find_random_ticket
            >>> data, make_model = random_graph(), lambda: GCN(8, 16, 2, 3)
            >>> ticket = find_random_ticket(make_model, data, edge_sparsity=0.3, weight_sparsity=0.9, epochs=5)
            >>> choice = ticket.choose_format(make_model, ticket.sparsify(data), budget=0.01)
            >>> choice.reason
            '...: ... ms, ...'
            >>> choice.table["csr"].bytes < choice.table["dense"].bytes
            True
        """
        return fastest_form(self._plain(make_model), data, budget=budget)

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

    def sparsify(self, data: Data) -> Data:
        """Return the graph with the edges of the ticket only, and every attribute that belongs to them.

        A ticket that belongs to no particular graph leaves every graph as it is.

        Args:
            data: The graph that the ticket was made for, with its edges in the same order. It is not changed.

        Raises:
            ValueError: If it is another graph.
        """
        if self.edge_mask is None:
            return copy.copy(data)
        got = graph_fingerprint(data.edge_index, data.num_nodes)
        if got != self.graph:
            raise ValueError(
                f"'data' is not the graph the ticket was made for, or its edges are in another order: "
                f"its fingerprint is {got}, the ticket's {self.graph} (nodes-edges-digest)"
            )
        return mask_data_edges(data, self.edge_mask.to(data.edge_index.device))

    def summary(self) -> str:
        """Return one line that says what was removed and what was measured.

        Sparsities and accuracies are fractions, the weights those of the masked tensors. A mask that several layers
        share counts once.
        """
        again = () if self.frozen is None else self.frozen.same
        masks = [mask for name, mask in self.weight_masks.items() if name not in again]
        total = sum(mask.numel() for mask in masks)
        left = f"{sum(int(mask.count_nonzero()) for mask in masks):,} of {total:,} weights" if total else "all weights"
        if self.edge_mask is not None:
            edges = f"{int(self.edge_mask.count_nonzero()):,} of {self.edge_mask.numel():,} entries of edge_index"
            left = f"{edges} and {left}"
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return f"{self.config.get('method', 'ticket')}: {left} left" + (f"; {metrics}" if metrics else "")

    def __repr__(self) -> str:
        """Say what :meth:`summary` says; the tensors themselves would fill the screen."""
        return f"Ticket({self.summary()})"
