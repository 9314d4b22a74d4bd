"""Distillation without labels: a network is trained to say at each node what the network that answers for it says."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam

from graphsparse.ops import constant
from graphsparse.ops.check import check_count, check_number
from graphsparse.soups.merging.domain import Domain, check_target
from graphsparse.soups.merging.merge import MergeRun, merge_method
from graphsparse.soups.merging.outputs import logits_of, network_of
from graphsparse.soups.states import State
from graphsparse.utils.call_model import call_model
from graphsparse.utils.running_norms import fresh_statistics, running_norms


@merge_method("distil", needs=("graph",), heads=True, source="Hinton et al., arXiv 1503.02531")
def distil(run: MergeRun, *, epochs: int = 100, lr: float = 0.01) -> State:
    r"""Train a network on the probabilities that each network has for its own nodes, without any label.

    .. math:: \min_\theta \sum_i \sum_{v \in V_i} \mathrm{KL}(p_i(v) \,\Vert\, p_\theta(v))

    with the probabilities :math:`p_i` of network :math:`i`, 0 for classes that it does not know. Adam, without dropout
    and weight decay, from the mean of all networks; a head of more classes than theirs starts as that of the model.
    Any architecture is taken, at the cost of a training: what the other methods are to be compared with. Normalisations
    take the statistics of each graph in training, and have the mean of these in the end.

    Args:
        run: Networks and what they answer for.
        epochs: Number of steps, each on all nodes.
        lr: Learning rate.
    """
    check_target("probabilities", run.num_outputs)
    check_count(epochs, "epochs")
    check_number(lr, "lr", least=0)
    student, teachers = network_of(run.model, run.domains), list[tuple[Domain, Tensor]]()
    for state, domain in zip(run, run.domains, strict=True):
        logits = logits_of(student, state, domain)
        teachers.append((domain, domain.targets(logits, run.num_outputs).to(logits.dtype)))
    student.load_state_dict(run.mean())
    graphs = {id(domain.data): domain.data for domain, _ in teachers}
    optimizer, rows = Adam(student.requires_grad_(True).parameters(), lr=lr), sum(len(p) for _, p in teachers)
    for norm in running_norms(student).values():
        norm.train()  # dropout stays off
    with torch.enable_grad(), constant(*graphs.values()):
        for epoch in range(epochs):
            optimizer.zero_grad()
            total = 0.0
            for graph in graphs.values():
                log_q = call_model(student, graph).log_softmax(1)
                own = [(domain, p) for domain, p in teachers if domain.data is graph]
                parts = [F.kl_div(log_q[domain.nodes], p, reduction="sum") for domain, p in own]
                loss = torch.stack(parts).sum() / rows
                loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss)
            run.note(epoch=epoch, loss=total)
            optimizer.step()
    with fresh_statistics(student.eval()):
        for graph in graphs.values():
            call_model(student, graph)
    return student.state_dict()
