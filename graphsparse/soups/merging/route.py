"""The reference that is no merge: keep all networks, and ask for each node the one that answers for it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.soups.merging.domain import domains_for, domains_of, num_outputs
from graphsparse.soups.merging.outputs import logits_of, network_of
from graphsparse.soups.states import States, check_states
from graphsparse.training.check import check_graph, check_model


@torch.no_grad()
def route(
    states: States,
    model: nn.Module,
    data: Data,
    responsibility: Tensor | Sequence[Tensor] | None = None,
    classes: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    r"""Say of every node what the network says that answers for it, a reference that keeps all networks.

    .. math:: z_v = \log \frac{1}{|R_v|} \sum_{i \in R_v} p_i(v)

    with the networks :math:`R_v` that answer for node :math:`v`, and their probabilities :math:`p_i`, 0 for classes
    that a network does not know. Networks are read and run one at a time. It shows what merging can be worth, but needs
    all networks, and to know of each node which of them to ask.

    Args:
        states: State dicts of the networks, as for :func:`~graphsparse.soups.merge`.
        model: A model that fits them.
        data: The graph. Labels and masks are not read.
        responsibility: Which network answers for each node; by default the parts of a store, else all for all, which is
            :func:`~graphsparse.soups.ensemble` of probabilities.
        classes: The class of each output of each network, where heads differ.

    Returns:
        Logits, float64 ``[N, C]``: logarithms of probabilities, ``-inf`` for a class that no network in charge knows. A
        row is NaN where no network answers for the node.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If states do not fit the model, or ``responsibility`` or ``classes`` the graph or the networks.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> data, models = random_graph(), [GCN(8, 16, 2, 3) for _ in range(2)]
        >>> owner = torch.arange(60) % 2
        >>> logits = route([model.state_dict() for model in models], models[0], data, owner)
        >>> own = models[1].eval()(data.x, data.edge_index).log_softmax(1)
        >>> torch.allclose(logits[1::2], own[1::2].double(), atol=1e-6)
        True
    """
    check_model(model)
    check_graph(data)
    like = model.state_dict()
    check_states(states, like, shorter=() if classes is None else like.keys())
    asked = domains_for(states, model, data, responsibility, classes)
    parts = getattr(states, "parts", None)
    given = parts() if responsibility is None and callable(parts) else responsibility
    placed = domains_of(data, given, classes, len(states), num_outputs(model))  # by their numbers in the whole graph
    network = network_of(model, asked)
    total = torch.zeros(int(data.num_nodes or 0), num_outputs(model), dtype=torch.float64)
    answers = torch.zeros(len(total), 1)
    for i, (domain, place) in enumerate(zip(asked, placed, strict=True)):
        logits = logits_of(network, states[i], domain).cpu()
        total[place.nodes] += domain.targets(logits, total.size(1))
        answers[place.nodes] += 1
    return (total / answers).log()
