"""One forward pass for an evaluation and the training step that follows it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.utils.call_model import call_model
from graphsparse.utils.eval_mode import eval_mode


class SharedForward:
    """Keeps the logits of an evaluation, with what their gradient needs, for the next step of training.

    Nothing is trained between the two, so that a model without dropout and the like computes the same twice. That it
    does is not taken on trust: the first time that it is said, both passes are run and compared bit by bit.

    Args:
        same_forward: Says before an evaluation whether the passes are the same from now on; ``None`` for never.
    """

    def __init__(self, same_forward: Callable[[], bool] | None = None) -> None:
        self._same_forward = same_forward
        self._seen_equal = False
        self._kept: Tensor | None = None

    def evaluate(self, model: nn.Module, data: Data) -> Tensor | None:
        """Return the logits of an evaluation; ``None`` where it has to be run by itself."""
        self._kept = None
        if self._same_forward is None or not self._same_forward():
            return None
        with eval_mode(model), torch.set_grad_enabled(self._seen_equal):
            self._kept = call_model(model, data)
        return self._kept.detach()

    def train(self, model: nn.Module, data: Data) -> Tensor:
        """Return logits with a gradient."""
        kept, self._kept = self._kept, None
        if kept is not None and self._seen_equal:
            return kept
        logits: Tensor = call_model(model, data)
        if kept is not None:
            self._seen_equal = torch.equal(kept, logits.detach())
            if not self._seen_equal:
                self._same_forward = None
        return logits
