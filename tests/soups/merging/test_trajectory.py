"""Averages of the weights of one training, by hooks of ``fit`` and what PyTorch has: no method of merging is needed."""

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch_geometric.nn import GCN

from graphsparse.soups import Evaluator, combine, merge
from graphsparse.testing import random_graph
from graphsparse.training import Training, fit


def test_averages_of_one_training():
    data, model = random_graph(), GCN(8, 16, 2, 3, dropout=0.5, norm="batch_norm")
    # What a user writes.
    swa = AveragedModel(model)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    states = []

    def keep(model, epoch):
        ema.update_parameters(model)
        if epoch >= 20:
            swa.update_parameters(model)
            states.append({name: value.clone() for name, value in model.state_dict().items()})

    fit(model, data, Training(epochs=30), after_step=[keep])
    lawa = combine(states[-5:], torch.full((5,), 0.2))
    # Each against its formula.
    assert len(states) == 10
    mean = merge(states, model, method="mean").state_dict
    for name, value in dict(model.named_parameters()).items():
        torch.testing.assert_close(dict(swa.module.named_parameters())[name], mean[name], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(lawa[name], sum(state[name] for state in states[-5:]) / 5)
        assert not torch.equal(dict(ema.module.named_parameters())[name], value)
    # Statistics of the normalisation are estimated anew by an evaluator.
    scores = [
        Evaluator(model, data).score(averaged) for averaged in (swa.module.state_dict(), ema.module.state_dict(), lawa)
    ]
    assert min(scores) > 0.5


def test_moving_average():
    data, model = random_graph(), GCN(8, 16, 2, 3)
    ema, expected = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)), None

    def keep(model, epoch):
        nonlocal expected
        now = model.convs[0].lin.weight.detach().clone()
        expected = now if expected is None else 0.9 * expected + 0.1 * now
        ema.update_parameters(model)

    fit(model, data, Training(epochs=8), after_step=[keep])
    torch.testing.assert_close(ema.module.convs[0].lin.weight.detach(), expected)
