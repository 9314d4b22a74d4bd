import pytest
import torch
from torch_geometric.nn import GCN

from graphsparse.nn.supermask import Supermask
from graphsparse.nn.weight_laws import draw_weight
from graphsparse.testing import random_graph

DATA = random_graph()
BLOCKS = [f"convs.{layer}" for layer in range(1, 6)]


def make():
    torch.manual_seed(0)
    return GCN(8, 16, 7, 3, norm="batch_norm")  # convs.0 takes the features, convs.6 gives the classes


def run(model):
    return model(DATA.x, DATA.edge_index)


@pytest.mark.parametrize("stages", [1, 2])
def test_shared_masks(stages):
    each = len(BLOCKS) // stages
    fold = [BLOCKS[stage * each : (stage + 1) * each] for stage in range(stages)]
    masked = Supermask(make(), 0.5, fold=fold)
    different = 1 if stages == 1 else 3  # two stages of two, and the layer that is left
    assert masked.scores.numel() == masked.frozen.numel() == 8 * 16 + different * 256 + 48
    assert len(masked.masks()) == 2 + different
    plain = masked.eval().materialize()
    for stage in fold:
        weights = [plain.get_submodule(layer).lin.weight for layer in stage]
        assert all(weight is weights[0] for weight in weights)
    assert plain.convs[5].lin.weight is not plain.convs[3].lin.weight or stages == 1
    assert torch.equal(run(plain), run(masked))
    assert list(plain.state_dict()) == list(make().state_dict())
    model = make()
    model.load_state_dict(plain.state_dict())
    assert torch.equal(run(model.eval()), run(masked))


def test_shared_scores_get_the_sum_of_the_gradients():
    masked = Supermask(make(), 0.5, fold=[BLOCKS]).eval()
    run(masked).square().sum().backward()
    model = make()
    model.load_state_dict(masked.materialize().state_dict())
    run(model.eval()).square().sum().backward()
    total = sum(conv.lin.weight.grad for conv in model.convs[1:6])
    frozen = draw_weight((16, 16), seed=0, name="convs.1.lin.weight")
    start = list(masked.score_views()).index("convs.1.lin.weight")
    assert start == 1
    got = masked.scores.grad[8 * 16 : 8 * 16 + 256].view(16, 16)
    torch.testing.assert_close(got, total * frozen, rtol=1e-3, atol=1e-4 * float(got.abs().max()))


def test_normalisation_is_not_shared():
    masked = Supermask(make(), 0.5, fold=[BLOCKS])
    norms = [name for name, _ in masked.named_parameters() if "norms" in name]
    assert len(norms) == len(set(norms)) == 12
    run(masked)
    means = [masked.model.norms[layer].module.running_mean for layer in range(6)]
    assert not any(torch.equal(a, b) for a, b in zip(means[1:], means[:-1], strict=True))


def test_stage_in_any_order():
    """The first name says which weights are drawn, wherever in the model that layer lies."""
    masked = Supermask(make(), 0.5, fold=[["convs.4", "convs.2"]])
    weights = dict(masked.materialize().named_parameters(remove_duplicate=False))
    frozen = draw_weight((16, 16), seed=0, name="convs.4.lin.weight")
    for name in ("convs.2.lin.weight", "convs.4.lin.weight"):
        assert torch.equal(weights[name], frozen * masked.masks()["convs.4.lin.weight"])


def test_states_of_other_foldings_are_refused():
    state = Supermask(make(), 0.5, fold=[BLOCKS]).state_dict()
    with pytest.raises(RuntimeError, match="other frozen weights|size mismatch"):
        Supermask(make(), 0.5).load_state_dict(state)


BAD = [
    ([["convs.1", "convs.9"]], ValueError, "'convs.9', which is no layer"),
    ([["", "convs.1"]], ValueError, "'', which is no layer"),
    ([["convs.1", "convs.2"], ["convs.2", "convs.3"]], ValueError, "'convs.2' twice"),
    ([["convs.1", "convs.1.lin"]], ValueError, "'convs.1.lin' twice, or within another"),
    ([["convs.0", "convs.1"]], ValueError, r"'convs.0' and 'convs.1', whose frozen tensors differ: .*\(16, 8\)"),
    ([["norms.0", "norms.1"]], ValueError, "'norms.0' and 'norms.1', whose frozen tensors differ: {}"),
    (["convs.1", "convs.2"], TypeError, "'fold' must hold the names of the layers of every stage"),
    ("convs.1", TypeError, "'fold' must hold the names"),
    ([[1, 2]], TypeError, "'fold' must hold the names"),
]


@pytest.mark.parametrize(("fold", "error", "message"), BAD)
def test_bad_stages(fold, error, message):
    with pytest.raises(error, match=message):
        Supermask(make(), 0.5, fold=fold)
