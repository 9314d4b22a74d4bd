"""A graph lottery ticket: which edges and which weights are left, and the weights themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.tickets import format as ticket_format
from graphsparse.training import build_model
from graphsparse.typing import MakeModel
from graphsparse.utils.fingerprint import graph_fingerprint
from graphsparse.utils.mask_edges import mask_data_edges


@dataclass(frozen=True, eq=False)
class Ticket:
    r"""A sparse graph and a sparse model that belong together.

    A ticket is made by :func:`~graphsparse.tickets.find_teddy_ticket` and its siblings. It holds no code: the model is
    built by the caller's ``make_model`` and gets the weights of the ticket.

    Args:
        state_dict: Weights and buffers of the model under their original keys; zero wherever a mask is ``False``.
        weight_masks: For every pruned tensor of ``state_dict``, bool of its shape, ``True`` where it may be non-zero.
        edge_mask: Which entries of ``edge_index`` are left, bool ``[E]``.
        graph: :func:`~graphsparse.utils.graph_fingerprint` of the graph before sparsification.
        config: How the ticket was found, in values that JSON can hold. ``seed`` gives the initial weights back.
        metrics: What was measured, in the units named by :meth:`summary`.

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
    edge_mask: Tensor
    graph: str
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        for name, mask in self.weight_masks.items():
            if name not in self.state_dict or self.state_dict[name].shape != mask.shape:
                raise ValueError(f"'weight_masks' holds {name!r} of shape {list(mask.shape)}, unlike 'state_dict'")
            if self.state_dict[name][~mask].count_nonzero():
                raise ValueError(f"'state_dict' is not zero where the mask of {name!r} says so")
        if self.edge_mask.dtype != torch.bool or self.edge_mask.dim() != 1:
            raise ValueError(
                f"'edge_mask' must be a bool vector (got {self.edge_mask.dtype}, shape {list(self.edge_mask.shape)})"
            )

    def save(self, path: str | Path) -> None:
        """Write the ticket to a file that holds masks as bits and only the remaining weights.

        The file is there whole or not at all.

        Args:
            path: The file; ``.safetensors`` is the usual ending.

        Raises:
            OSError: If it cannot be written.
            ValueError: If ``config`` or ``metrics`` hold NaN.
        """
        header = {
            "graph": self.graph,
            "num_edges": self.edge_mask.numel(),
            "shapes": {name: list(tensor.shape) for name, tensor in self.state_dict.items()},
            "config": dict(self.config),
            "metrics": dict(self.metrics),
        }
        tensors = ticket_format.pack_state(self.state_dict, self.weight_masks)
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
        state_dict, masks = ticket_format.unpack_state(tensors, header["shapes"])
        edge_mask = ticket_format.unpack_bits(tensors["edge_mask"], header["num_edges"])
        return cls(state_dict, masks, edge_mask, header["graph"], header["config"], header["metrics"])

    def materialize(self, make_model: MakeModel) -> nn.Module:
        """Return a plain model with the weights of the ticket, in evaluation mode.

        It is an ordinary PyG model: its keys are the original ones, the zeros are zeros in its dense weights, and
        nothing keeps them zero if it is trained on.

        Args:
            make_model: Builds the model the ticket was found for.

        Raises:
            ValueError: If that model has other keys or shapes.
        """
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

        Args:
            data: The graph that the ticket was made for, with its edges in the same order. It is not changed.

        Raises:
            ValueError: If it is another graph.
        """
        got = graph_fingerprint(data.edge_index, data.num_nodes)
        if got != self.graph:
            raise ValueError(
                f"'data' is not the graph the ticket was made for, or its edges are in another order: "
                f"its fingerprint is {got}, the ticket's {self.graph} (nodes-edges-digest)"
            )
        return mask_data_edges(data, self.edge_mask.to(data.edge_index.device))

    def summary(self) -> str:
        """Return one line that says what was removed and what was measured.

        Sparsities and accuracies are fractions, the weights those of the pruned tensors.
        """
        kept = sum(int(mask.count_nonzero()) for mask in self.weight_masks.values())
        total = sum(mask.numel() for mask in self.weight_masks.values())
        weights = f"{kept:,} of {total:,} weights" if total else "all weights"
        return (
            f"{self.config.get('method', 'ticket')}: {int(self.edge_mask.count_nonzero()):,} of "
            f"{self.edge_mask.numel():,} entries of edge_index and {weights} left; "
            + ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        )

    def __repr__(self) -> str:
        """Say what :meth:`summary` says; the tensors themselves would fill the screen."""
        return f"Ticket({self.summary()})"
