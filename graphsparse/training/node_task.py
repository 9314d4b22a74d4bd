"""Node classification as a task of the training loop."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.loader.weighted_sums import check_sums_weighted_messages
from graphsparse.training.check import check_data, check_labels, check_one_graph, check_output
from graphsparse.training.extra_loss import ExtraLoss, add_extra_loss
from graphsparse.training.loop import Evaluation
from graphsparse.training.predict import predict
from graphsparse.training.shared_forward import SharedForward
from graphsparse.utils.eval_mode import eval_mode

#: A figure of merit, higher is better, from logits ``[N, C]``, labels ``[N]`` and a mask ``[N]``.
Metric: TypeAlias = Callable[[Tensor, Tensor, Tensor], float]
#: Returns the logits ``[N, C]`` of a whole graph in evaluation mode.
Inference: TypeAlias = Callable[[nn.Module, Data], Tensor]


class NodeTask:
    """Cross-entropy on the training nodes of a graph or of the batches of a loader; see :func:`fit`."""

    unit = "node"
    maximize = True
    nothing_to_train = "'loader' gave no batch with a training node"

    def __init__(
        self,
        data: Data,
        eval_data: Data,
        loader: Iterable[Data] | None,
        extra_loss: ExtraLoss | None,
        metric: Metric,
        inference: Inference,
        same_forward: Callable[[], bool] | None = None,
    ) -> None:
        self.data, self.eval_data, self.loader = data, eval_data, loader
        self.extra_loss, self.metric, self.inference = extra_loss, metric, inference
        self.generators = own_generators(loader)
        one_pass = loader is None and eval_data is data and inference is predict
        self.forward = SharedForward(same_forward if one_pass else None)
        self._device = torch.device("cpu")

    def check(self, model: nn.Module) -> None:
        """Find out before training starts whether the model, the graphs and the loader fit together."""
        data, eval_data, loader = self.data, self.eval_data, self.loader
        if isinstance(loader, Iterator):
            raise TypeError("'loader' is used up after one epoch; give a loader or a list of batches")
        if loader is not None or eval_data is not data:
            check_one_graph(model)
        if getattr(loader, "needs_weighted_sums", False) is True:
            check_sums_weighted_messages(model)
        used: dict[str, tuple[Data, tuple[str, ...]]]
        if eval_data is data:
            used = {"data": (data, ("train_mask", "val_mask"))}
        else:
            used = {"data": (data, ("train_mask",)), "eval_data": (eval_data, ("val_mask",))}
        for name, (graph, masks) in used.items():
            check_data(graph, name, masks)
        logits = self._logits(model)
        name = "data" if eval_data is data else "eval_data"
        check_output(logits, eval_data, name, used[name][1])
        if loader is None and eval_data is not data:
            check_output(predict(model, data), data, "data", ("train_mask",))
        elif eval_data is not data:  # a graph that is trained on in batches may be too large for a forward pass
            check_labels(logits.size(1), data, "data", ("train_mask",))
        self._device = next(model.parameters()).device

    def batches(self) -> Iterable[Data]:
        """Return the graph, or the batches of the loader on the device of the model; its own stay where they are."""
        return [self.data] if self.loader is None else self._moved(self.loader)

    def _moved(self, loader: Iterable[Data]) -> Iterator[Data]:
        for batch in loader:
            if not isinstance(batch, Data) or batch.get("train_mask") is None:
                raise ValueError(f"'loader' must give Data with a 'train_mask' (got {batch!r})")
            yield copy.copy(batch).to(self._device)

    def loss(self, model: nn.Module, batch: Data, epoch: int) -> Tensor | None:
        """Return the cross-entropy on the training nodes of a batch, plus the further term.

        It is their mean. Where a batch has ``loss_weight`` ``[n]`` it is their sum with these weights, which therefore
        carry the scale: weights of 1 / number of training nodes of the whole graph make a share of its mean.
        """
        mask = batch.train_mask
        size = batch.get("batch_size")
        if size is not None:
            mask = mask & (torch.arange(mask.numel(), device=mask.device) < size)
        has_train_nodes = bool(mask.any())
        if not has_train_nodes and self.extra_loss is None:
            return None
        logits = self.forward.train(model, batch)
        # The mean over no node is not a number, but their sum is 0; a batch without any may still have the extra term.
        loss = _cross_entropy(logits, batch, mask) if has_train_nodes else logits[mask].sum()
        return add_extra_loss(loss, self.extra_loss, logits, batch, epoch)

    def evaluate(self, model: nn.Module, epoch: int) -> Evaluation:
        """Return the metric on validation and training nodes."""
        data = self.eval_data
        logits = self.forward.evaluate(model, data)
        logits = self._logits(model) if logits is None else logits
        if logits.isnan().any():
            raise FloatingPointError(f"a logit is not a number after epoch {epoch}; a smaller 'lr' may help")
        val = float(self.metric(logits, data.y, data.val_mask))
        figures = {}
        if data.get("train_mask") is not None and data.train_mask.any():
            figures["train"] = float(self.metric(logits, data.y, data.train_mask))
        return Evaluation(val, logits, figures)

    def finish(self, model: nn.Module, best: Evaluation) -> tuple[Tensor, float, float | None]:
        """Read the test nodes, once."""
        mask = self.eval_data.get("test_mask")
        has_test = mask is not None and bool(mask.any())
        test = float(self.metric(best.logits, self.eval_data.y, mask)) if has_test else None
        return best.logits, best.figures.get("train", math.nan), test

    def _logits(self, model: nn.Module) -> Tensor:
        """Call ``inference``, which may care neither for the mode of the model nor for gradients."""
        with eval_mode(model), torch.no_grad():
            return self.inference(model, self.eval_data)


def _cross_entropy(logits: Tensor, batch: Data, mask: Tensor) -> Tensor:
    """Return the mean over the nodes of a mask, or the sum with their weights where a batch has ``loss_weight``."""
    weight = batch.get("loss_weight")
    if weight is None:
        return F.cross_entropy(logits[mask], batch.y[mask])
    if not isinstance(weight, Tensor) or weight.shape != mask.shape:
        got = list(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(f"'loss_weight' of a batch must hold one weight per node, [{mask.numel()}] (got {got})")
    return (F.cross_entropy(logits[mask], batch.y[mask], reduction="none") * weight[mask]).sum()


def own_generators(loader: Iterable[Data] | None) -> Sequence[torch.Generator]:
    """Return the generators that a loader was given, which do not follow from the seed of a training."""
    owners = [loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)]
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(entry): entry for entry in found if isinstance(entry, torch.Generator)}.values())
