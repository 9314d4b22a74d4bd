"""Loops that are not ours: the pieces attach to the optimiser, so they hold in any loop."""

import copy

import pytest
import torch
import torch.nn.functional as F
from models import MODELS

from graphsparse.testing import random_graph
from graphsparse.training import FixedMask, L0Projection, build_model, distillation_loss, fit, predict

OPTIMIZERS = {
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=5e-4),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.05),
}
CONSTRAINTS = {
    "global": lambda optimizer: L0Projection(optimizer, 0.6),
    "tensor": lambda optimizer: L0Projection(optimizer, 0.6, scope="tensor"),
    "fixed": lambda optimizer: FixedMask(optimizer, 0.6),
}
# GCN(8, 16, 2, 3) has matrices of 128 and 48 entries; of 71 that a random mask keeps 40 and 31, as 8 + 16 to 16 + 3
EXPECTED = {
    "global": [int(0.6 * 176)],
    "tensor": [76, 28],
    "fixed": [88, 17],
}


def zeros(model, name):
    counts = [int((parameter == 0).sum()) for parameter in model.parameters() if parameter.dim() == 2]
    return [sum(counts)] if name == "global" else counts


@pytest.fixture(scope="module")
def data():
    return random_graph()


@pytest.fixture(scope="module")
def teacher(data):
    model = build_model(MODELS["GCN"], 7)
    fit(model, data, epochs=40)
    return predict(model, data)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_plain_pytorch(kind, constraint, data, teacher):
    model = build_model(MODELS["GCN"], 0)
    optimizer = OPTIMIZERS[kind](model.parameters())
    CONSTRAINTS[constraint](optimizer)
    before = float(distillation_loss(predict(model, data), teacher))
    torch.manual_seed(0)
    for _ in range(40):
        model.train()
        logits = model(data.x, data.edge_index)
        loss = F.cross_entropy(logits[data.train_mask], data.y[data.train_mask])
        loss = loss + distillation_loss(logits, teacher)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert zeros(model, constraint) == EXPECTED[constraint]
    logits = predict(model, data)
    assert float(distillation_loss(logits, teacher)) < 0.5 * before
    hits = logits.argmax(1) == data.y
    assert float(hits[data.test_mask].float().mean()) > 0.7


def test_sparsity_survives_a_checkpoint(data):
    """The state of optimiser and model is all there is to save; a new projection goes on where the old one was."""

    def start():
        model = build_model(MODELS["GraphSAGE"], 0)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        L0Projection(optimizer, 0.5)
        return model, optimizer

    def step(model, optimizer):
        optimizer.zero_grad()
        F.cross_entropy(model(data.x, data.edge_index)[data.train_mask], data.y[data.train_mask]).backward()
        optimizer.step()

    model, optimizer = start()
    for _ in range(5):
        step(model, optimizer)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    for _ in range(5):
        step(model, optimizer)
    resumed, other = start()
    resumed.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    for _ in range(5):
        step(resumed, other)
    for p, q in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)


class Module(torch.nn.Module):
    """What a user of Lightning writes."""

    def __init__(self, optimizer, constraint, teacher):
        super().__init__()
        self.net = build_model(MODELS["GCN"], 0)
        self.teacher = teacher
        self.kind, self.constraint = optimizer, constraint
        self.seen = []

    def configure_optimizers(self):
        optimizer = OPTIMIZERS[self.kind](self.parameters())
        CONSTRAINTS[self.constraint](optimizer)
        return optimizer

    def training_step(self, batch, batch_idx):
        logits = self.net(batch.x, batch.edge_index)
        loss = F.cross_entropy(logits[batch.train_mask], batch.y[batch.train_mask])
        return loss + distillation_loss(logits, self.teacher)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.seen.append((float(outputs), zeros(self, self.constraint)))


class Trainer:
    """Does what Lightning's trainer does: the step gets forward and backward pass as a closure."""

    def __init__(self, max_epochs):
        self.max_epochs = max_epochs

    def fit(self, module, batches):
        optimizer = module.configure_optimizers()
        module.train()
        for _ in range(self.max_epochs):
            for i, batch in enumerate(batches):

                def closure(batch=batch, i=i):
                    loss = module.training_step(batch, i)
                    optimizer.zero_grad()
                    loss.backward()
                    return loss

                module.on_train_batch_end(optimizer.step(closure).detach(), batch, i)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_lightning_style(kind, constraint, data, teacher):
    module = Module(kind, constraint, teacher)
    torch.manual_seed(0)
    Trainer(max_epochs=15).fit(module, [data, data])
    assert [counts for _, counts in module.seen] == [EXPECTED[constraint]] * 30
    losses = [loss for loss, _ in module.seen]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
