"""What only replicates a published release, with its constants; nothing else in the package uses it."""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.edges.mask import mask_data_edges
from graphsparse.ops.pairs import PairTable
from graphsparse.soups.recipes.learned import by_name, followed_tensors, inner_products, learned_names, state_gradient
from graphsparse.soups.recipes.soup import Acceptance, Ingredients, soup
from graphsparse.tickets import UGS, TicketRun
from graphsparse.tickets.method import Target
from graphsparse.training import Masks, NodeTask, Training, fit
from graphsparse.transfer.propagation.edge_propagation import BOUNDS
from graphsparse.transfer.propagation.line_graph import LineGraph
from graphsparse.typing import MakeModel


def released_edge_propagation(
    anchors: Tensor, y: Tensor, p: Tensor, queries: Tensor, scores: Tensor, num_nodes: int, *, rounds: int = 5
) -> Tensor:
    r"""Return scores of pairs after label propagation as in the released code of GITL, but for its errors.

    .. math::
        \mathbf{p}' = 0.998 \, \mathbf{p} + 0.002 \, \mathbf{f}^{(5)}, \qquad
        \mathbf{f}^{(k+1)} = \mathrm{clip}(0.995 \, \mathbf{S} \mathbf{f}^{(k)} + 0.005 \, \mathbf{g})

    with the symmetrically normalised line graph :math:`\mathbf{S}` of anchors and queries together: **a score depends
    on which other pairs are asked for**. The line graph is a correct one (in the release, pairs are neighbours by their
    positions in the lists of edges), and no label of a query is a seed (there, links to predict are seeds with 0.5,
    non-links with 0): a query has its score in place of a label. With so small a weight only near-ties can change.

    Args:
        anchors: Pairs with a label ``[2, C]``, each once, no self-loops.
        y: Their labels ``[C]``, from 0 to 1.
        p: Their scores ``[C]``, from 0 to 1.
        queries: Pairs that are asked for ``[2, Q]``, each once and none of them an anchor.
        scores: Their scores ``[Q]``.
        num_nodes: Number of nodes.
        rounds: Number of rounds.

    Returns:
        Scores ``[Q]``.

    Raises:
        TypeError: If the pairs are no integer tensors.
        ValueError: If a pair comes twice, is a self-loop or is out of range.

    Example:
        >>> one, half = torch.tensor([1.0]), torch.tensor([0.5])
        >>> released_edge_propagation(torch.tensor([[0], [1]]), one, one, torch.tensor([[1], [2]]), half, 3)
        tensor([0.5005])

    Source: ``amazon-science/gnn-tail-generalization``, the code of Zheng et al., 2023, arXiv 2302.14189.
    """
    table = PairTable(torch.cat([anchors, queries], 1), num_nodes, "queries")
    start, seed = (table.sorted(torch.cat([given, scores]).float()) for given in (p, y))
    found = LineGraph(table, symmetric=True).propagate(start, seed, rounds, 0.995, BOUNDS["outcome"])
    return scores + 0.002 * (table.unsorted(found)[anchors.size(1) :].to(scores.dtype) - scores)


@soup(name="es2025", source="the code that came with arXiv 2503.11612")
def released_learned_soup(
    ingredients: Ingredients,
    acceptance: Acceptance,
    *,
    epochs: int = 50,
    lr: float = 10.0,
    weight_decay: float = 0.0,
    restart_every: int = 4,
) -> None:
    r"""Learn mixing coefficients as the released code of Enhanced Soups does.

    .. math:: a_j = \operatorname{softmax}(r_j), \qquad r_j = \operatorname{softmax}(\mathbf{1}) \text{ at the start}

    A softmax of a softmax for each tensor, an output scale that is learned and thrown away, SGD with warm restarts, and
    the weights of the last epoch whatever their score: nothing is promised. Gradients carry a factor of about
    :math:`1 / N`, which is why its learning rates are in the order of :math:`N` or more. In the release all validation
    nodes give the loss, which is ``split_validation=False`` here, and dropout is on. Buffers, which it cannot mix,
    follow their layer.

    Args:
        ingredients: State dicts: a list, or a store that reads them from disk.
        evaluator: Scores them on its nodes; further keywords are those of every :func:`~graphsparse.soups.soup`.
        epochs: Number of steps.
        lr: Learning rate; from there it falls to 0 along a cosine again and again.
        weight_decay: L2 coefficient of the coefficients and of the output scale.
        restart_every: Steps of such a cosine.

    Returns:
        The soup; the trace has ``epoch`` and ``loss``.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups import Evaluator
        >>> from graphsparse.testing import random_graph
        >>> states = [GCN(8, 16, 2, 3).state_dict() for _ in range(3)]
        >>> found = released_learned_soup(states, Evaluator(GCN(8, 16, 2, 3), random_graph()), split_validation=False)
        >>> len(found.trace)
        50

    Source: *Enhanced Soups for Graph Neural Networks*, arXiv 2503.11612, and its code.
    """
    fit = acceptance.fit
    followed = followed_tensors(fit.model)
    names = learned_names(followed)
    raw = torch.full((len(names), len(ingredients)), 1 / len(ingredients), dtype=torch.float64, requires_grad=True)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([raw, scale], lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=restart_every)

    def scaled_loss(logits: Tensor, y: Tensor) -> Tensor:
        if y.dim() != 1 or y.is_floating_point() or int(y.max()) >= logits.size(1):
            raise ValueError(
                "the released soup learns by cross-entropy, from one class per node below the number of outputs (got "
                f"'data.y' {list(y.shape)} of {y.dtype} and {logits.size(1)} outputs); learned_soup takes a 'loss'"
            )
        found = F.cross_entropy(scale.to(logits.dtype) * logits, y)
        (scale.grad,) = torch.autograd.grad(found, scale, retain_graph=True)
        return found

    state = ingredients.combine(by_name(raw.detach().softmax(1), followed))
    for epoch in acceptance.steps(range(1, epochs + 1)):
        loss, gradient = state_gradient(
            fit.model, fit.prepared(state), names, fit.data, loss=scaled_loss, call=fit.call
        )
        (raw.grad,) = torch.autograd.grad(raw.softmax(1), raw, inner_products(ingredients, gradient))
        optimizer.step()
        schedule.step()
        state = ingredients.combine(by_name(raw.detach().softmax(1), followed))
        acceptance.note(epoch=epoch, loss=loss)
    acceptance.take(state)


def released_ugs(
    make_model: MakeModel, data: Data, targets: Sequence[tuple[float, float]], method: UGS, training: Training
) -> list[dict[str, Any]]:
    """Return what UGS finds with a mask for each direction of an edge, as in its released code.

    An edge whose two directions are not both removed still carries messages one way, so that a graph of the same
    sparsity holds more of its edges than with :class:`~graphsparse.tickets.UGS`. Counts are exact, the smallest go
    first, and self-loops have no mask, unlike there. What is left is trained from the initial weights of the seed.

    Args:
        make_model: As for :func:`~graphsparse.tickets.find_ticket`, like ``data``.
        data: The graph.
        targets: Pairs of the sparsity of the entries of ``edge_index`` and that of the weights, from the least sparse
            to the sparsest.
        method: The options.
        training: How models are trained; its ``checkpoint`` is not used.

    Returns:
        For each target ``edges``, ``weights``, ``val``, ``test`` and ``masks``, those of the edges for each entry that
        is no self-loop.

    Raises:
        TypeError: As for :func:`~graphsparse.tickets.find_ticket`.
        ValueError: As for :func:`~graphsparse.tickets.find_ticket`.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> method, training = UGS(1e-2, 1e-2, edges_per_round=0.2), Training(epochs=5)
        >>> found = released_ugs(lambda: GCN(8, 16, 2, 3), random_graph(), [(0.2, 0.2)], method, training)
        >>> round(found[0]["masks"].edge_sparsity, 1)
        0.2

    Source: ``VITA-Group/Unified-LTH-GNN``, the code of Chen et al., arXiv 2102.06790.
    """
    run = TicketRun(make_model, NodeTask(data), [Target(*target) for target in targets], training)
    paired, entry = copy.copy(data), data.edge_index[0] != data.edge_index[1]
    paired.edge_pair = (entry.cumsum(0) - 1).masked_fill(~entry, -1)
    keep, number, rows = Masks(run.everything().weights, torch.ones_like(entry[entry])), 0, []
    for target, rounds in run.path(edges=method.edges_per_round, weights=method.weights_per_round):
        for step in rounds:
            number += 1
            soft = method.soften(run, keep, number)
            fit(soft, NodeTask(paired).without_test(), training, **method.terms(run))
            keep = keep.prune(**soft.scores(), edge_sparsity=step.edges, weight_sparsity=step.weights)
        assert isinstance(keep.edges, Tensor)
        model, kept = run.model(), torch.ones_like(entry).masked_scatter(entry, keep.edges)
        result = fit(model, NodeTask(mask_data_edges(data, kept)), training, project=partial(keep.hold, model))
        rows.append({**target._asdict(), "val": result.val, "test": result.test, "masks": keep})
    return rows
