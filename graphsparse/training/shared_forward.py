"""One forward pass for an evaluation and the training step that follows it."""

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.utils.call_model import Call, call_model
from graphsparse.utils.eval_mode import eval_mode


class SharedForward:
    """Keeps the logits of an evaluation, with what their gradient needs, for the next step of training.

    Nothing is trained between the two, so that a model without dropout and the like computes the same twice. A model
    says so by an attribute ``trains_as_it_evaluates``, and is not trusted: the first time, both passes are run and
    compared bit by bit.
    """

    def __init__(self, call: Call | None = None) -> None:
        self._call = call
        self._seen_equal: bool | None = None
        self._kept: Tensor | None = None

    def evaluate(self, model: nn.Module, data: Data) -> Tensor | None:
        """Return the logits of an evaluation; ``None`` where it has to be run by itself."""
        self._kept = None
        if self._seen_equal is False or getattr(model, "trains_as_it_evaluates", False) is not True:
            return None
        with eval_mode(model), torch.set_grad_enabled(self._seen_equal is True):
            self._kept = call_model(model, data, self._call)
        return self._kept.detach()

    def train(self, model: nn.Module, data: Data) -> Tensor:
        """Return logits with a gradient."""
        kept, self._kept = self._kept, None
        if kept is not None and self._seen_equal:
            return kept
        logits: Tensor = call_model(model, data, self._call)
        if kept is not None:
            self._seen_equal = torch.equal(kept, logits.detach())
        return logits
