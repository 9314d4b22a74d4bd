"""Train one copy of a pruned model, with what was pruned held at zero."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch_geometric.data import Data

from graphsparse.soups.sparse.knobs import Knobs
from graphsparse.soups.sparse.shared_mask import mask_digest
from graphsparse.soups.states.states import State
from graphsparse.training import HeldMask, fit
from graphsparse.training.node_task import Inference


@dataclass(frozen=True, eq=False)
class Trained:
    """A copy after its training.

    Args:
        state: Weights and buffers at the epoch with the best validation accuracy.
        digest: Of the masks that were held, see :func:`~graphsparse.soups.sparse.shared_mask.mask_digest`.
        best_epoch: That epoch, from 0.
    """

    state: dict[str, Tensor]
    digest: str
    best_epoch: int


@dataclass(frozen=True, eq=False)
class Retrain:
    """A function that trains a copy of a model under masks; it can be sent to another process.

    Args:
        model: The model with the weights to start from; each call trains a copy of it.
        data: The graph with ``train_mask`` and ``val_mask``.
        masks: For some parameters, by their first names, a bool mask, ``True`` where a weight is kept. All weights are
            trained when empty.
        make_loader: Returns the training batches for a graph and a seed; the whole graph at once when ``None``.
        inference: Returns the logits of the whole graph, as in :func:`~graphsparse.training.fit`.
    """

    model: nn.Module
    data: Data
    masks: State
    make_loader: Callable[[Data, int], Iterable[Data]] | None
    inference: Inference

    def __call__(self, knobs: Knobs) -> Trained:
        """Train a copy.

        Args:
            knobs: Its settings.
        """
        model = copy.deepcopy(self.model)
        optimizer = Adam(model.parameters(), lr=knobs.lr, weight_decay=knobs.weight_decay)
        names = {id(parameter): name for name, parameter in model.named_parameters() if name in self.masks}

        def kept_masks(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
            return [self.masks[names[id(parameter)]] for parameter in parameters]

        held: dict[str, Tensor] = {}
        if self.masks:
            hook = HeldMask(optimizer, kept_masks, exclude=lambda parameter: id(parameter) not in names)
            held = {names[id(p)]: kept for p, kept in zip(hook.parameters, hook.kept, strict=True)}
        result = fit(
            model,
            self.data,
            epochs=knobs.epochs,
            optimizer=optimizer,
            loader=None if self.make_loader is None else self.make_loader(self.data, knobs.seed),
            inference=self.inference,
            seed=knobs.seed,
        )
        return Trained(result.state_dict, mask_digest(held), result.best_epoch)


def without_test(data: Data) -> Data:
    """Return a graph whose only labels are those of training and validation nodes, with no other mask.

    Args:
        data: The graph.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> data = without_test(random_graph())
        >>> "test_mask" in data, int((data.y == -1).sum())
        (False, 20)
    """
    seen = data.train_mask | data.val_mask
    train, val = data.train_mask, data.val_mask
    data = copy.copy(data)
    for name in list(data.keys()):
        if name.endswith("_mask"):
            del data[name]
    data.train_mask, data.val_mask = train, val
    data.y = torch.where(seen, data.y, -1)
    return data
