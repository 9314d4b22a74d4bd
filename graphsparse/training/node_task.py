"""Labels of nodes as a task of the training loop."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData

from graphsparse.loader.batches import check_sums_weighted_messages
from graphsparse.nn import SoftMasks, Supermask
from graphsparse.ops.csr import as_csr
from graphsparse.training.check import (
    check_callable,
    check_data,
    check_graph,
    check_labels,
    check_one_graph,
    check_output,
    has_label,
)
from graphsparse.training.checkpoint import describe_loader, graph_tensors, name_of
from graphsparse.training.loader_of import LoaderOf, MakeLoader
from graphsparse.training.target import Target, check_target, read_labels, read_metric, target_loss
from graphsparse.training.task import Evaluation, add_extra
from graphsparse.utils.call_model import Call, call_model, eval_mode

#: Returns the logits ``[N, C]`` of a whole graph in evaluation mode.
Inference: TypeAlias = Callable[[nn.Module, Any], Tensor]


def predict(
    model: nn.Module, data: Data | HeteroData, call: Call | None = None, node_type: str | None = None
) -> Tensor:
    """Return the logits of the whole graph, in evaluation mode and without gradients.

    Args:
        model: Called as :func:`~graphsparse.utils.call_model.call_model` says; its mode, and that of each of its parts,
            is the same afterwards.
        data: The graph.
        call: ``(model, data) -> logits`` for a model with another signature.
        node_type: Of a ``HeteroData``, the node type whose logits are asked for.

    Returns:
        Logits ``[N, C]``.

    Raises:
        TypeError: If ``data`` is not one homogeneous graph, and no ``node_type`` is given.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> predict(GCN(8, 16, 2, 3), random_graph()).shape
        torch.Size([60, 3])
    """
    if node_type is None:
        check_graph(data)
    with eval_mode(model), torch.no_grad():
        logits: Tensor = call_model(model, data, call, node_type)
    return logits


class NodeTask:
    """Labels of the nodes of a graph: what is learned on its training nodes and judged on its validation nodes.

    The model is called as ``model(x, edge_index)``, and by name with ``edge_weight``, ``edge_attr``, ``pos`` and
    ``batch`` as far as the graph has them and its ``forward`` takes an argument of that name. On a ``HeteroData`` it is
    called with dictionaries by type, as models of ``to_hetero`` and ``HeteroConv`` are, and returns logits of the node
    type with labels, or a dictionary with them; that type has all that is said of labels and masks below.

    Args:
        data: The graph to train on, with ``x``, ``y`` and ``train_mask``; on the device of the model. Where it is
            evaluated, too, with ``val_mask`` and, if known, ``test_mask``. Nodes without a label, -1 or -100 among
            classes and NaN else, are left out of loss and metric of any part.
        eval_data: The graph to evaluate on instead, with ``val_mask`` and perhaps ``test_mask``.
        inductive: Hide validation and test nodes of ``data``, and their edges, while training; evaluate on all of it.
        loader: Any PyG loader of training batches, a list of them, or a function that makes a loader of the training
            graph, ``lambda data: NeighborLoader(data, ...)``, which is called anew where that graph is another one, as
            for a ticket with fewer edges. Of a batch with ``batch_size``, such as ``NeighborLoader``'s, the first so
            many nodes count, of others all; in both cases those in ``train_mask``. The loss is their mean, or the sum
            with the weights ``loss_weight`` of a batch, where it has them. Batches are moved to the device of the
            model. A loader with ``set_epoch``, such as :class:`~graphsparse.transforms.EdgeResampler`, is told each
            epoch before its batches are taken.
        target: ``"multiclass"`` (int64 classes ``[N]``, cross-entropy), ``"binary"`` (0, 1 or NaN, ``[N, T]``) or
            ``"regression"`` (``[N]`` or ``[N, T]``, squared error).
        metric: Figure of merit ``(logits, y) -> float`` from the rows of a part, or an evaluator of OGB. When ``None``:
            accuracy, mean AUROC, or root mean square error.
        maximize: Whether more is better with a function as ``metric``; yes when ``None``.
        node_type: The node type of a ``HeteroData`` that has the labels; when ``None``, the only one with
            ``train_mask``.
        inference: ``(model, data) -> logits`` of a whole graph in evaluation mode; one forward pass when ``None``. For
            graphs that do not fit into one, pass a function that goes layer by layer.
        call: ``(model, data) -> logits`` for a model with another signature.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``inductive`` comes with ``eval_data`` or a loader of batches, or an argument is out of range.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.training import fit
        >>> fit(GCN(8, 16, 2, 3), NodeTask(random_graph(), inductive=True), epochs=5).metric
        'accuracy'
    """

    unit = "node"

    def __init__(
        self,
        data: Data | HeteroData,
        *,
        eval_data: Data | HeteroData | None = None,
        inductive: bool = False,
        loader: Iterable[Data] | MakeLoader | None = None,
        target: Target = "multiclass",
        metric: Any = None,
        maximize: bool | None = None,
        node_type: str | None = None,
        inference: Inference | None = None,
        call: Call | None = None,
    ) -> None:
        for name, function in (("inference", inference), ("call", call)):
            if function is not None:
                check_callable(function, name)
        self._loader = LoaderOf(loader)
        if inductive and (eval_data is not None or self._loader.is_ready):
            raise ValueError(
                "'inductive' makes the training graph from 'data': give no 'eval_data' or batches with it; a 'loader' "
                "may be a function of that graph"
            )
        self.node_type = labelled_type(data, node_type)
        for name, graph in (("data", data), *([] if eval_data is None else [("eval_data", eval_data)])):
            if self.node_type is None:
                check_graph(graph, name)
            elif not isinstance(graph, HeteroData) or self.node_type not in graph.node_types:
                raise TypeError(f"'{name}' must be a HeteroData with {self.node_type!r} (got {graph!r})")
        self.target = check_target(target)
        self.metric, self._judge, self.maximize = read_metric(self.target, metric, maximize)
        self.whole, self.inductive = data, inductive
        self.data, self.eval_data = data, data if eval_data is None else eval_data
        if inductive:
            check_data(data, "data", ("train_mask", "val_mask"), self.target, self.node_type)
            self.data = observed_graph(data, self.node_type)
        self.call, self._given_metric = call, metric
        self.inference = None if inference is predict else inference
        self._device = torch.device("cpu")
        self._forward = SharedForward(call, self.node_type)
        self._kept: tuple[Tensor, Tensor, tuple[int, int], tuple[Tensor, Tensor]] | None = None

    @property
    def graphs(self) -> tuple[Any, Any]:
        """The graphs, which stay as they are while a model is trained."""
        return self.data, self.eval_data

    def nodes(self, graph: Any) -> Any:
        """Return what holds labels and masks of a graph, or of a batch: itself, or its node type with labels."""
        return graph if self.node_type is None else graph[self.node_type]

    @property
    def loader(self) -> Any:
        """What gives the batches, made of the training graph when it is first asked for; ``None`` without batches."""
        return self._loader.of(self.data)

    @property
    def has_ready_loader(self) -> bool:
        """Whether batches are those of the training graph as it was given, whatever graph the task is put on."""
        return self._loader.is_ready

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """The generators that the loader was given."""
        return own_generators(self.loader)

    def with_graphs(self, data: Any, eval_data: Any) -> "NodeTask":
        """Return the same task on another pair of graphs, to train on and to evaluate on; a ready loader stays."""
        new = copy.copy(self)
        if data is not self.data:
            new._loader = LoaderOf(self._loader.given)
        new.data, new.eval_data = data, eval_data
        new._forward = SharedForward(self.call, self.node_type)
        return new

    def without_test(self) -> "NodeTask":
        """Return the same task without its test nodes, whose labels are not there any more either."""
        eval_data = hide_test(self.eval_data, self.node_type)
        return self.with_graphs(eval_data if self.data is self.eval_data else self.data, eval_data)

    def check(self, model: nn.Module) -> None:
        """Find out before training starts whether the model, the graphs and the loader fit together."""
        data, eval_data, loader = self.data, self.eval_data, self.loader
        one = eval_data is data
        if loader is not None or not one:
            check_one_graph(model)
        if getattr(loader, "needs_weighted_sums", False) is True:
            check_sums_weighted_messages(model)
        used = {"data": (data, ("train_mask", "val_mask") if one else ("train_mask",))}
        if not one:
            used["eval_data"] = (eval_data, ("val_mask",))
        for name, (graph, masks) in used.items():
            check_data(graph, name, masks, self.target, self.node_type)
        logits, nodes, eval_nodes = self._logits(model), self.nodes(data), self.nodes(eval_data)
        name = "data" if one else "eval_data"
        check_output(logits, eval_nodes, name, used[name][1], self.target)
        if loader is None and not one:
            found = predict(model, data, self.call, self.node_type)
            check_output(found, nodes, "data", ("train_mask",), self.target)
        elif not one:  # a graph that is trained on in batches may be too large for a forward pass
            check_labels(logits.size(1), nodes, "data", ("train_mask",), self.target)
        if (mask := eval_nodes.get("test_mask")) is not None and mask.any():
            # Whether test labels are there and in range; what they are is read at the end.
            check_labels(logits.size(1), eval_nodes, name, ("test_mask",), self.target)
        self._labels(nodes.y[nodes.train_mask])
        self._labels(eval_nodes.y[eval_nodes.val_mask])
        self._device = next(model.parameters()).device
        self._forward = SharedForward(self.call, self.node_type)  # nothing is kept of a training before

    @property
    def steps_per_epoch(self) -> int | None:
        """Most steps of an epoch, where the loader tells its length."""
        return 1 if self.loader is None else len(self.loader) if isinstance(self.loader, Sized) else None

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch to a loader that wants to know it, as PyTorch's samplers do."""
        if (tell := getattr(self.loader, "set_epoch", None)) is not None:
            tell(epoch)

    def batches(self) -> Iterable[Any]:
        """Return the graph, or the batches of the loader on the device of the model; its own stay where they are."""
        return [self.data] if self.loader is None else self._moved(self.loader)

    def _moved(self, loader: Iterable[Any]) -> Iterator[Any]:
        kind = Data if self.node_type is None else HeteroData
        for batch in loader:
            if not isinstance(batch, kind) or self.nodes(batch).get("train_mask") is None:
                raise ValueError(f"'loader' must give {kind.__name__} with a 'train_mask' (got {batch!r})")
            yield copy.copy(batch).to(self._device)

    def loss(self, model: nn.Module, batch: Any, extra: Callable[[Tensor], Tensor] | None) -> Tensor | None:
        """Return the loss on the labelled training nodes of a batch, plus the further term.

        It is their mean. Where a batch has ``loss_weight`` ``[n]`` it is their sum with these weights, which therefore
        carry the scale: weights of 1 / number of training nodes of the whole graph make a share of its mean.
        """
        nodes = self.nodes(batch)
        rows, y = self._known(nodes)
        if rows.numel() == 0 and extra is None:
            return None
        logits = self._forward.train(model, batch)
        weight = nodes.get("loss_weight")
        num = nodes.train_mask.numel()
        if weight is not None and (not isinstance(weight, Tensor) or weight.shape != (num,)):
            got = list(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
            raise ValueError(f"'loss_weight' of a batch must hold one weight per node, [{num}] (got {got})")
        loss = None
        if rows.numel():
            loss = target_loss(logits[rows], y, self.target, None if weight is None else weight[rows])
        # The mean over no label is not a number, but their sum is 0; a batch without any may still have the extra term.
        return add_extra(logits[rows].sum() * 0 if loss is None else loss, extra, logits)

    def _known(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the labelled training nodes of a batch, and their labels.

        On a device both are kept for the next step on the same mask and labels, as far as PyTorch knows that these were
        not written to: to find them means to wait.
        """
        mask, y, size = batch.train_mask, batch.y, batch.get("batch_size")
        version = (mask._version, y._version)
        if self._kept is not None and self._kept[0] is mask and self._kept[1] is y and self._kept[2] == version:
            return self._kept[3]
        known = mask & has_label(y, self.target)
        if size is not None:
            known &= torch.arange(mask.numel(), device=mask.device) < size
        rows = known.nonzero().squeeze(1)
        found = rows, self._labels(y[rows]) if rows.numel() else y[rows]
        if mask.device.type != "cpu" and size is None:
            self._kept = mask, y, version, found
        return found

    def evaluate(self, model: nn.Module, epoch: int) -> Evaluation:
        """Return the metric on validation and training nodes."""
        data = self.eval_data
        shared = self._loader.given is None and data is self.data and self.inference is None
        logits = self._forward.evaluate(model, data) if shared else None
        logits = self._logits(model) if logits is None else logits
        if logits.isnan().any():
            raise FloatingPointError(f"a logit is not a number after epoch {epoch}; a smaller 'lr' may help")
        nodes = self.nodes(data)
        val, figures = self._score(logits, nodes.val_mask), {}
        train = nodes.get("train_mask")
        if train is not None and (train & has_label(nodes.y, self.target)).any():
            figures["train"] = self._score(logits, train)
        return Evaluation(val, logits, figures)

    def finish(self, model: nn.Module, best: Evaluation) -> tuple[Tensor, float, float | None]:
        """Read the test nodes, once."""
        self._forward = SharedForward(
            self.call, self.node_type
        )  # logits that nobody asks for any more, with all their gradient needs
        mask = self.nodes(self.eval_data).get("test_mask")
        test = None if mask is None or not mask.any() else self._score(best.logits, mask)
        return best.logits, best.figures.get("train", math.nan), test

    def identity(self) -> dict[str, Any]:
        """Return what the training reads of the graphs, and what is asked."""
        return {
            **graph_tensors(self.data, "data"),
            **({} if self.eval_data is self.data else graph_tensors(self.eval_data, "eval_data")),
            "loader": describe_loader(self.loader),
            "target": self.target,
            **({} if self.node_type is None else {"node_type": self.node_type}),
            "metric": name_of(self._given_metric) or self.metric,
            "inference": name_of(self.inference),
            "call": name_of(self.call),
        }

    def _labels(self, y: Tensor) -> Tensor:
        return y if self.target == "multiclass" else read_labels(y, y.size(0), self.target)

    def _score(self, logits: Tensor, mask: Tensor) -> float:
        """Return the metric of a part, of its nodes with a label."""
        y = self.nodes(self.eval_data).y
        mask = mask & has_label(y, self.target)
        return float(self._judge(logits[mask], self._labels(y[mask])))

    def _logits(self, model: nn.Module) -> Tensor:
        """Call ``inference``, which may care neither for the mode of the model nor for gradients."""
        if self.inference is None:
            return predict(model, self.eval_data, self.call, self.node_type)
        with eval_mode(model), torch.no_grad():
            # What goes layer by layer knows plain models, not the wrapper that puts weights into one.
            plain = model.materialize() if isinstance(model, SoftMasks | Supermask) else model
            with model.weighed(self.eval_data) if isinstance(model, SoftMasks) else nullcontext(self.eval_data) as data:
                logits = self.inference(plain, data)
        # It may leave them elsewhere than the graph, where labels and masks are.
        return logits.to(self.nodes(self.eval_data).y.device) if isinstance(logits, Tensor) else logits


class SharedForward:
    """Keeps the logits of an evaluation, with what their gradient needs, for the next step of training.

    Nothing is trained between the two, so that a model without dropout and the like computes the same twice. A model
    says so by an attribute ``trains_as_it_evaluates``, and is not trusted: the first time, both passes are run and
    compared bit by bit.
    """

    def __init__(self, call: Call | None = None, node_type: str | None = None) -> None:
        self._call, self._node_type = call, node_type
        self._seen_equal: bool | None = None
        self._kept: Tensor | None = None

    def evaluate(self, model: nn.Module, data: Any) -> Tensor | None:
        """Return the logits of an evaluation; ``None`` where it has to be run by itself."""
        self._kept = None
        if self._seen_equal is False or getattr(model, "trains_as_it_evaluates", False) is not True:
            return None
        with eval_mode(model), torch.set_grad_enabled(self._seen_equal is True):
            self._kept = call_model(model, data, self._call, self._node_type)
        return self._kept.detach()

    def train(self, model: nn.Module, data: Any) -> Tensor:
        """Return logits with a gradient."""
        kept, self._kept = self._kept, None
        if kept is not None and self._seen_equal:
            return kept
        logits: Tensor = call_model(model, data, self._call, self._node_type)
        if kept is not None:
            self._seen_equal = torch.equal(kept, logits.detach())
        return logits


def labelled_type(data: Any, node_type: str | None) -> str | None:
    """Return the node type that has the labels, ``None`` for a ``Data``; refuse what names none or several."""
    if not isinstance(data, HeteroData):
        if node_type is not None:
            raise ValueError(f"'node_type' is for a HeteroData (got {node_type!r} for {type(data).__name__})")
        return None
    found = [kind for kind in data.node_types if data[kind].get("train_mask") is not None]
    if node_type is None and len(found) == 1:
        return found[0]  # type: ignore[no-any-return]
    if node_type not in data.node_types:
        raise ValueError(
            f"'node_type' must be the node type with labels, one of {data.node_types} (got {node_type!r}; 'train_mask' "
            f"is in {found})"
        )
    return node_type


def hide_test(data: Any, node_type: str | None = None) -> Any:
    """Return a graph without ``test_mask``, and with the label -1 or NaN outside of training and validation nodes."""
    graph = copy.copy(data)
    nodes = graph if node_type is None else graph[node_type]
    if "test_mask" in nodes:
        del nodes["test_mask"]
    parts = [nodes[key] for key in ("train_mask", "val_mask") if nodes.get(key) is not None]
    hidden = ~torch.stack(parts).any(0).view(-1, *[1] * (nodes.y.dim() - 1))
    nodes.y = nodes.y.masked_fill(hidden, math.nan if nodes.y.is_floating_point() else -1)
    return graph


def observed_nodes(data: Any) -> Tensor:
    """Return the nodes that are neither in the validation nor in the test part, bool ``[N]``."""
    hidden: Tensor = data.val_mask
    test_mask = data.get("test_mask")
    return ~hidden if test_mask is None else ~(hidden | test_mask)


def observed_graph(data: Any, node_type: str | None = None) -> Any:
    """Return the graph without validation and test nodes and their edges."""
    if node_type is not None:
        return data.subgraph({node_type: observed_nodes(data[node_type])})
    observed = observed_nodes(data)
    if data.x.layout != torch.sparse_csr:
        return data.subgraph(observed)
    # Rows of a CSR tensor cannot be selected by a mask; they go through COO.
    graph = copy.copy(data)
    del graph.x
    graph.num_nodes = data.num_nodes
    graph = graph.subgraph(observed)
    rows = data.x.to_sparse(layout=torch.sparse_coo).index_select(0, observed.nonzero().squeeze(1))
    graph.x = as_csr(rows.coalesce())
    return graph


def own_generators(loader: Iterable[Data] | None) -> Sequence[torch.Generator]:
    """Return the generators that a loader was given, which do not follow from the seed of a training."""
    owners = [loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)]
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(entry): entry for entry in found if isinstance(entry, torch.Generator)}.values())
