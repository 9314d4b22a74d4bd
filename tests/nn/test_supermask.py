import math

import pytest
import torch
import torch.nn.functional as F
from models import MODELS
from torch import nn
from torch_geometric.nn import GAT, GCN, GIN, GPSConv, SAGEConv

from graphsparse.metrics import weight_sparsity
from graphsparse.nn import Supermask, SupermaskLaw, accelerate, coat_sparsities
from graphsparse.nn.weight_laws import draw_scores, draw_weight
from graphsparse.testing import random_graph
from graphsparse.training import fit

DATA = random_graph()


class Molecules(nn.Module):
    """Tables, attention, a recurrent layer, and normalisation."""

    def __init__(self):
        super().__init__()
        self.atom, self.pair = nn.Embedding(9, 8), nn.Embedding(4, 8)
        self.conv = GPSConv(8, SAGEConv(8, 8), heads=2)
        self.gru = nn.GRU(8, 6)
        self.norm, self.last = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x, edge_index):
        x = self.conv(self.atom(x[:, 0].long().clamp(0, 8)) + self.pair.weight[1], edge_index)
        return self.last(self.norm(self.gru(x)[0])).relu()


MODELS = MODELS | {
    "batch norm and epsilon": lambda: GIN(8, 16, 2, 3, norm="batch_norm", train_eps=True),
    "jumping knowledge": lambda: GCN(8, 16, 2, 3, jk="lstm"),
    "molecules": Molecules,
}


def run(model, data=DATA):
    return model(data.x, data.edge_index)


def search(model, steps=30, lr=0.1):
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0)
    for _ in range(steps):
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(run(model)[DATA.train_mask], DATA.y[DATA.train_mask]).backward()
        optimizer.step()
        model.step()
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_any_model(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    masked = search(Supermask(model, 0.6, seed=3, total_steps=6, law=SupermaskLaw(scaled=True)), steps=8, lr=0.01)
    before = torch.random.get_rng_state()
    plain = masked.materialize()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert type(plain) is type(model)
    assert list(plain.state_dict()) == list(model.state_dict())
    model.load_state_dict(plain.state_dict())
    expected = run(masked)
    assert torch.equal(run(plain), expected)
    assert torch.equal(run(model.eval()), expected)
    assert expected.isfinite().all()
    own = dict(model.named_parameters())
    frozen = set(own) - {name.removeprefix("model.") for name, _ in masked.named_parameters()}
    for key in frozen:
        weight, mask = own[key], masked.masks().get(key)
        if mask is None:
            assert "bias" in key
            assert weight.count_nonzero() == 0
        else:
            drawn = draw_weight(weight.shape, seed=3, name=key, mean_square=0.4)
            assert torch.equal(weight, drawn * mask)
    masks, views, num = masked.masks(), masked.score_views(), masked.scores.numel()
    assert sum(view.numel() for view in views.values()) == num
    kept = sum(int((masks[n][0] if v.dim() < masks[n].dim() else masks[n]).sum()) for n, v in views.items())
    assert kept == num - math.floor(0.6 * num)


@pytest.mark.parametrize("name", ["GCN", "GAT", "GIN", "GraphSAGE"])
def test_fast_layers_inside(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    slow, fast = (Supermask(m, 0.5, total_steps=10).eval() for m in (model, accelerate(model)))
    for masked in (slow, fast):
        run(masked).square().sum().backward()
    torch.testing.assert_close(run(fast), run(slow), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fast.scores.grad, slow.scores.grad, rtol=1e-3, atol=1e-4)
    assert torch.equal(run(fast.materialize()), run(fast))


def test_gradient_through_the_model():
    """As by autograd on the plain model, times the frozen weights."""
    masked = Supermask(
        GAT(8, 4, 2, 3, heads=2, concat=False), 0.5, transform="abs", coats=3, law="signed_constant"
    ).eval()
    run(masked).square().sum().backward()
    plain = masked.materialize()
    run(plain).square().sum().backward()
    frozen = {name: draw_weight(p.shape, "signed_constant", seed=0, name=name) for name, p in plain.named_parameters()}
    views = masked.score_views()
    gradients = masked.scores.grad.split([view.numel() for view in views.values()])
    for (name, view), gradient in zip(views.items(), gradients, strict=True):
        expected = 3 * plain.get_parameter(name).grad * frozen[name] * view.detach().sign()
        torch.testing.assert_close(gradient.view(view.shape), expected, rtol=1e-4, atol=1e-6)


def test_coats_are_nested_and_multiply():
    law = SupermaskLaw("signed_constant", scaled=True)
    masked = Supermask(GCN(8, 16, 2, 3), 0.55, coats=3, transform="abs", law=law)
    sparsities = coat_sparsities(0.55, 3)
    assert masked.plan.sparsities == sparsities
    counts = torch.cat([mask.reshape(-1) for mask in masked.masks().values()])
    num = counts.numel()
    assert counts.dtype == torch.uint8
    for coat, sparsity in enumerate(sparsities):
        assert int((counts > coat).sum()) == num - math.floor(sparsity * num)
        assert masked.scores.detach().abs()[counts > coat].min() > masked.scores.detach().abs()[counts <= coat].max()
    weight = masked.materialize().convs[0].lin.weight
    scale = math.sqrt(2 / 8 / (0.45 + 3 * 0.3 + 5 * 0.15))
    assert torch.allclose((weight / scale).abs().unique(), torch.arange(4.0))


@pytest.mark.parametrize("coats", [1, 2, 5])
def test_scaled_coats_keep_the_variance_of_the_whole(coats):
    """The mean square of all masked weights is that of Kaiming's law without a mask, however many coats there are."""

    def square(scaled):
        law = SupermaskLaw("signed_constant", scaled=scaled)
        masked = Supermask(nn.Linear(400, 300, bias=False), 0.6, coats=coats, transform="abs", law=law)
        return float(masked.materialize().weight.detach().double().square().mean())

    assert square(True) == pytest.approx(2 / 400, rel=1e-4)
    ratio = square("first") / square(True)
    assert ratio == pytest.approx(sum((2 * n + 1) * (1 - n / coats) for n in range(coats)), rel=1e-3)


def test_coats_by_their_sparsities():
    first = search(Supermask(GCN(8, 16, 2, 3), 0.5, transform="abs"))
    for spacing in ("linear", "adaptive_linear"):
        sparsities = coat_sparsities(0.5, 4, spacing, scores=first.scores)
        masked = Supermask(GCN(8, 16, 2, 3), 0.5, transform="abs", coats=sparsities)
        assert masked.plan.sparsities == sparsities
        counts = torch.cat([mask.reshape(-1) for mask in masked.masks().values()])
        if len(sparsities) > 1:
            kept = [int((counts > coat).sum()) for coat in range(len(sparsities))]
            assert kept == [counts.numel() - math.floor(sparsity * counts.numel()) for sparsity in sparsities]


def test_embedding_has_one_score_per_column():
    masked = Supermask(nn.Sequential(nn.Embedding(50, 10), nn.Linear(10, 4)), 0.5)
    assert masked.scores.shape == (10 + 40,)
    assert masked.score_views()["0.weight"].shape == (10,)
    mask = masked.masks()["0.weight"]
    assert mask.shape == (50, 10)
    assert (mask == mask[0]).all()
    expected = draw_scores((1, 10), seed=0, name="0.weight")[0]
    assert torch.equal(masked.score_views()["0.weight"], expected)


@pytest.mark.parametrize("scope", ["2:4", "1:4", "layer"])
def test_other_scopes(scope):
    sparsity = {"2:4": 0.5, "1:4": 0.75, "layer": 0.3}[scope]
    masked = Supermask(GCN(8, 16, 2, 3), sparsity, scope=scope, total_steps=40)
    for mask in masked.masks().values():
        if scope == "layer":
            assert int(mask.sum()) == mask.numel() - math.floor(0.3 * mask.numel())
        else:
            assert (mask.view(-1, 4).sum(1) == int(scope[0])).all()


def test_ramp():
    masked = Supermask(GCN(8, 16, 2, 3), 0.8, total_steps=10)
    num, seen = masked.scores.numel(), []
    plain = run(masked.eval()).detach()
    for step in range(8):
        nominal = 0.8 * min(1, step / 5)
        assert masked.current_sparsity == pytest.approx(nominal)
        assert masked.trains_as_it_evaluates == (step >= 5)
        masked.train()
        zero = sum(int((w == 0).sum()) for n, w in masked._weights(final=False).items() if "bias" not in n)
        assert zero == math.floor(nominal * num)
        seen.append(run(masked).detach())
        # Evaluation and everything that is handed out are those of the final sparsity.
        assert torch.equal(run(masked.eval()), plain)
        assert masked.sparsity() == math.floor(0.8 * num) / num
        weights = [conv.lin.weight for conv in masked.materialize().convs]
        assert weight_sparsity(weights) == pytest.approx(masked.sparsity())
        masked.step()
    assert torch.equal(seen[5], plain)
    assert not torch.equal(seen[4], plain)
    assert masked.steps_done == 8
    assert Supermask(GCN(8, 16, 2, 3), 0.8).current_sparsity == 0.8
    cubic = Supermask(GCN(8, 16, 2, 3), 0.8, ramp="cubic", total_steps=8)
    cubic.step()
    assert cubic.current_sparsity == 0.8 * (1 - 27 / 64)


@pytest.mark.parametrize("transform", ["identity", "abs"])
def test_search_beats_the_random_mask(transform):
    gains = []
    for seed in range(6):
        masked = Supermask(GCN(8, 32, 2, 3), 0.9, seed=seed, transform=transform, total_steps=40)
        test = [0.0, 0.0]
        for after in range(2):
            correct = run(masked.eval()).argmax(1) == DATA.y
            test[after] = float(correct[DATA.test_mask].float().mean())
            if not after:  # the first mask is that of random scores
                search(masked, steps=40)
        gains.append(test[1] - test[0])
    gains = torch.tensor(gains)
    assert gains.mean() > 4 * gains.std() / len(gains) ** 0.5
    assert gains.mean() > 0.2


def test_in_the_training_loop():
    masked = Supermask(GCN(8, 32, 2, 3), 0.5, total_steps=40)
    result = fit(masked, DATA, epochs=40, lr=0.1, weight_decay=0.0, after_step=[lambda model, epoch: model.step()])
    assert masked.scores.grad is not None
    assert result.val > 0.6
    assert torch.equal(run(masked.eval()), result.logits)
    assert torch.equal(run(masked.materialize()), result.logits)


def test_keyword_arguments_and_results_pass_through():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(2, 2)

        def forward(self, x, *, scale=1.0):
            return {"out": self.lin(x) * scale, "scale": scale}

    masked = Supermask(Model(), 0.5)
    assert masked(torch.ones(1, 2), scale=3.0)["scale"] == 3.0
    assert "seed=0" in repr(masked)


BAD = [
    ({"sparsity": 1.0}, ValueError, r"'sparsity' is the fraction removed and must be in \[0, 1\)"),
    ({"sparsity": "0.5"}, TypeError, "'sparsity' must be a number"),
    ({"seed": None}, TypeError, "'seed' must be an integer"),
    ({"seed": -1}, ValueError, "'seed' must be between"),
    ({"scope": "row"}, ValueError, "'scope' must be 'global', 'layer' or 'n:m'"),
    ({"scope": "2:4"}, ValueError, r"'sparsity' must be 0.5 for the scope '2:4' \(got 0.6\)"),
    ({"scope": "2:5", "coats": 2}, ValueError, "'coats' must be 1 for the scope '2:5'"),
    ({"transform": "square"}, ValueError, "'transform' must be one of"),
    ({"law": "xavier"}, ValueError, "law of 'weights' must be one of .*got 'xavier'"),
    ({"coats": 0}, ValueError, "'coats' must be at least 1"),
    ({"coats": 2.0}, TypeError, "'coats' must be an integer"),
    ({"coats": [0.5, 0.7]}, ValueError, "'coats' must be sparsities that begin with 0.6"),
    ({"coats": [0.6, 0.8, 0.7]}, ValueError, "'coats' must be sparsities that .* do not fall"),
    ({"coats": [0.6, 1.1]}, ValueError, "'coats' must be sparsities that .* end by 1"),
    ({"coats": []}, ValueError, "'coats' must be sparsities"),
    ({"select": "lin"}, TypeError, "'select' must be a function"),
    ({"train": "lin"}, TypeError, "'train' must be a function"),
    ({"ramp": "square"}, ValueError, "'ramp' must be one of"),
    ({"total_steps": 0}, ValueError, "'total_steps' must be at least 1"),
    ({"total_steps": 2.5}, TypeError, "'total_steps' must be an integer"),
    ({"model": "GCN"}, TypeError, "'model' must be a torch module"),
    ({"model": GCN(-1, 16, 2, 3)}, ValueError, "one forward pass first"),
    ({"model": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())}, ValueError, "one device and in one type"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_arguments(change, error, message):
    arguments = {"model": GCN(8, 16, 2, 3), "sparsity": 0.6} | change
    with pytest.raises(error, match=message):
        Supermask(arguments.pop("model"), arguments.pop("sparsity"), **arguments)
