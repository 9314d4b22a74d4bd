"""One layer on the rows that the judged nodes need: what it does row by row, and its sparse product."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import GINConv as PyGGINConv
from torch_geometric.nn import GraphConv, MessagePassing, SGConv
from torch_geometric.nn import SAGEConv as PyGSAGEConv

from graphsparse.nn import GINConv, SAGEConv
from graphsparse.nn.linear import is_plain
from graphsparse.ops import Adjacency, spmm
from graphsparse.ops.dense import linear
from graphsparse.utils.conv_blocks import EdgeValues, probed_form
from graphsparse.utils.gcn_layers import full_norm, is_gcn, normalises, weight_leaf, with_full_norm
from graphsparse.utils.in_edges import InEdges
from graphsparse.utils.layer_forms import BlockInput, apply_form
from graphsparse.utils.trace_layers import LayerCall

_SUMS = {"add": "sum", "sum": "sum", "mean": "mean"}


class Stage:
    """A layer that sums over neighbours: row by row before, a sparse product, row by row after.

    Args:
        call: The call of the layer.
        adj: The edges into the rows that are wanted, from the rows that these need; the wanted ones come first.
        rows: The nodes of these rows.
        reduce: ``"sum"`` or ``"mean"``.
    """

    def __init__(self, call: LayerCall, adj: Adjacency, rows: Tensor, reduce: str) -> None:
        self.call, self.adj, self.rows, self.reduce = call, adj, rows, reduce
        (self.input,) = [i for i, leaf in enumerate(call.leaves) if leaf.kind == "rows"]
        #: Whether the features go through the weights before the product, where they get narrower.
        self.transform_first = False
        #: Whether the output is linear in the weights.
        self.is_linear = False

    @property
    def layer(self) -> Any:
        """The layer, which holds the weights that the model holds at this moment."""
        return self.call.layer

    def before(self, x: Tensor) -> Tensor:
        """Return what is summed over neighbours, from the input of the layer."""
        raise NotImplementedError

    def root(self, x: Tensor) -> Tensor | None:
        """Return what a row gives to its own output, from the input of the layer."""
        raise NotImplementedError

    def after(self, total: Tensor, root: Tensor | None) -> Tensor:
        """Return the output of the layer."""
        raise NotImplementedError

    def product(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Sum over the neighbours of some of the wanted rows."""
        stop = self.adj.num_dst if stop is None else stop
        whole = (start, stop) == (0, self.adj.num_dst)
        return spmm(self.adj if whole else self.adj.rows(start, stop), x, self.reduce)


class LinearStage(Stage):
    """A layer with a matrix for what it sums, and perhaps one for the row itself: GCN, SGC, GraphSAGE, GraphConv."""

    def __init__(self, call: LayerCall, adj: Adjacency, rows: Tensor, reduce: str, names: tuple[str, str]) -> None:
        super().__init__(call, adj, rows, reduce)
        self._source, self._root = names
        out, width = self._matrix(self._source).weight.shape
        self.transform_first = out <= width
        self.is_linear = not (self._root == "lin_r" and self.layer.normalize)

    def _matrix(self, name: str) -> Any:
        return getattr(self.layer, name)

    def _bias(self) -> Tensor | None:
        own = self._matrix(self._source).bias
        bias: Tensor | None = getattr(self.layer, "bias", None) if own is None and not self._root else own
        return bias

    def before(self, x: Tensor) -> Tensor:
        """Return what is summed over neighbours."""
        return linear(x, self._matrix(self._source).weight, None) if self.transform_first else x

    def root(self, x: Tensor) -> Tensor | None:
        """Return what a row gives to its own output."""
        matrix = getattr(self.layer, self._root, None) if self._root else None
        return None if matrix is None else linear(x, matrix.weight, matrix.bias)

    def after(self, total: Tensor, root: Tensor | None) -> Tensor:
        """Return the output of the layer."""
        bias = self._bias()
        if not self.transform_first:
            total = linear(total, self._matrix(self._source).weight, bias)
        elif bias is not None:
            total = total + bias
        total = total if root is None else total + root
        return F.normalize(total, p=2.0, dim=-1) if getattr(self.layer, "normalize", False) and self._root else total


class HopsStage(LinearStage):
    """Several hops and one matrix, SGC, of an input that does not depend on weights: the hops are made once.

    Args:
        call: The call of the layer.
        edges: The graph.
        weight: Edge weights in the order of the input.
        wanted: The nodes whose output is wanted.
        device: Where the layer is.
    """

    def __init__(
        self, call: LayerCall, edges: InEdges, weight: Tensor | None, wanted: Tensor, device: torch.device
    ) -> None:
        adjacency = edges.adjacency.with_value(None if weight is None else weight.detach().to("cpu"))
        full = adjacency.gcn_norm(call.layer.add_self_loops, dtype=call.layer.lin.weight.dtype)
        self._full, self._wanted = full.to(device), wanted.to(device)
        others = torch.ones(edges.num_nodes, dtype=torch.bool)
        others[wanted] = False
        rows = torch.cat([wanted, others.nonzero().view(-1)])
        super().__init__(call, self._full.rows(0, wanted.numel()), rows, "sum", ("lin", ""))

    def product(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Sum over the neighbours, again and again, and return some of the wanted rows."""
        total = torch.empty_like(x)
        total[self.rows.to(x.device)] = x
        for _ in range(self.layer.K):
            total = spmm(self._full, total)
        return total[self._wanted[start:stop]]


class GINStage(Stage):
    """A layer that runs a network on the sum over neighbours and the row itself."""

    def before(self, x: Tensor) -> Tensor:
        """Return what is summed over neighbours."""
        return x

    def root(self, x: Tensor) -> Tensor | None:
        """Return what a row gives to its own output."""
        return x

    def after(self, total: Tensor, root: Tensor | None) -> Tensor:
        """Return the output of the layer."""
        assert root is not None
        out: Tensor = self.layer.nn(total + (1 + self.layer.eps) * root)
        return out


class AnyStage:
    """A layer of any other kind, which is run on the edges into the rows that are wanted.

    Args:
        call: The call of the layer.
        edges: The graph.
        wanted: The nodes whose output is wanted.
        edge_values: For each leaf with values per edge, those of some edges.
        places: For each leaf of the model's own call with a row per node, the same one of ``call``.
        device: Where the layer is.

    Raises:
        ValueError: If the layer needs more of the graph than the edges into these rows.
    """

    def __init__(
        self,
        call: LayerCall,
        edges: InEdges,
        wanted: Tensor,
        edge_values: EdgeValues,
        places: dict[int, int],
        device: torch.device,
    ) -> None:
        self.call, self.places = call, places
        block = edges.block_of(wanted)
        self.rows = block.nodes
        values = edge_values(edges.ids(block.edges))
        self._leaves = [values.get(i, leaf.value) for i, leaf in enumerate(call.leaves)]
        block = block.to(device)
        self._edge_index, self._rowptr, self._num_dst = block.edge_index(), block.rowptr, block.num_dst
        self._form = _tried_form(call, edges, edge_values, list(places.values()), device)

    def output(self, given: dict[int, Tensor]) -> Tensor:
        """Return the output of the wanted rows.

        Args:
            given: For each leaf of the model's own call with a row per node, those of the rows that are needed.
        """
        leaves = list(self._leaves)
        for i, value in given.items():
            leaves[self.places[i]] = value
        block = BlockInput(self._edge_index, self._rowptr, self._num_dst, leaves)
        return apply_form(self.call, self._form, self.call.layer, block)[: self._num_dst]


def make_stage(
    call: LayerCall, edges: InEdges, wanted: Tensor, edge_values: EdgeValues, device: torch.device
) -> Stage | AnyStage:
    """Prepare a layer for some rows.

    Args:
        call: The call of the layer.
        edges: The graph.
        wanted: The nodes whose output is wanted.
        edge_values: For each leaf with values per edge, those of some edges of the input.
        device: Where the layer is.

    Raises:
        ValueError: If the layer cannot be run on a part of the graph.
    """
    layer = call.layer
    if layer.flow != "source_to_target":
        raise ValueError(f"layer {call.name} sends messages from target to source")
    weight = edge_values(slice(None)).get(weight_leaf(call)) if weight_leaf(call) >= 0 else None
    names = _linear_names(layer)
    given = [leaf.source for leaf in call.leaves if leaf.kind == "rows"]
    if type(layer) is SGConv and is_plain(layer.lin) and isinstance(given[0], str):
        return HopsStage(call, edges, weight, wanted, device)
    if is_gcn(layer) and is_plain(layer.lin):
        full = InEdges(full_norm(layer, edges, weight, layer.lin.weight.dtype), None)
        return LinearStage(call, *_rows_of(full, full.adjacency.value, wanted, device), "sum", ("lin", ""))
    rows = [i for i, leaf in enumerate(call.leaves) if leaf.kind == "rows"]
    if normalises(layer):
        found = {i: call.leaves[i].value for i in rows}
        plain, full, moved, values = with_full_norm(call, edges, weight, found, device)
        places = {i: j for i in rows for j in moved if moved[j] is found[i]}
        return AnyStage(plain, full, wanted, values, places, device)
    reduce = _SUMS.get(layer.aggr) if isinstance(layer.aggr, str) else None
    known = names is not None or type(layer) in (PyGGINConv, GINConv)
    if weight is not None and type(layer) is GraphConv:  # its mean divides by the number of edges
        known = reduce == "sum"
    extra = {call.arguments.leaf_names[i] for i, leaf in enumerate(call.leaves) if leaf.kind == "edges"}
    if not (known and len(rows) == 1 and reduce and extra <= {"edge_weight"}):
        return AnyStage(call, edges, wanted, edge_values, {i: i for i in rows}, device)
    value = None if weight is None else weight[edges.edge_id] if edges.edge_id is not None else weight
    adj, needed = _rows_of(edges, value, wanted, device)
    if names is None:  # its network may look across rows
        _tried_form(call, edges, edge_values, rows, device)
    return GINStage(call, adj, needed, reduce) if names is None else LinearStage(call, adj, needed, reduce, names)


def _tried_form(call: LayerCall, edges: InEdges, edge_values: EdgeValues, rows: list[int], device: torch.device) -> str:
    """Return the form in which a few destinations give the exact output of a layer, tried out on made-up rows.

    Raises:
        ValueError: If there is none.
    """
    generator = torch.Generator().manual_seed(0)

    def made_up(nodes: Tensor) -> dict[int, Tensor]:
        seen = {i: call.leaves[i].value for i in rows}
        picked = torch.randint(len(next(iter(seen.values()))), nodes.shape, generator=generator)
        return {i: value[picked.to(value.device)] for i, value in seen.items()}

    return probed_form(call, edges, made_up, edge_values, device)


def _linear_names(layer: MessagePassing) -> tuple[str, str] | None:
    """Return the names of the matrices of the layers that have just these."""
    names = None
    if type(layer) in (PyGSAGEConv, SAGEConv) and not layer.project:
        names = "lin_l", "lin_r"
    elif type(layer) is GraphConv:
        names = "lin_rel", "lin_root"
    # What a user has put in place of a matrix is run, and not taken apart.
    found = [matrix for name in names or () if (matrix := getattr(layer, name, None)) is not None]
    return names if all(map(is_plain, found)) else None


def _rows_of(edges: InEdges, value: Tensor | None, wanted: Tensor, device: torch.device) -> tuple[Adjacency, Tensor]:
    """Return the edges into some nodes, and the nodes that they join, the wanted ones first."""
    block = edges.block_of(wanted)
    size = (block.nodes.numel(), block.num_dst)
    value = None if value is None else value[block.edges]
    return Adjacency.from_edge_index(block.edge_index(), value, size, symmetric=False).to(device), block.nodes
