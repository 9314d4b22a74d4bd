import pytest
import torch
from torch import nn

from graphsparse.nn.flat_layout import draw_flat_scores, lay_out, one_of_each
from graphsparse.nn.folding import fold_roles
from graphsparse.nn.parameter_roles import parameter_roles
from graphsparse.nn.straight_through import MaskedTensor
from graphsparse.nn.weight_laws import draw_scores


def entries(model, **options):
    return [entry for entry in parameter_roles(model, **options) if entry.role in ("weights", "columns", "dense")]


def test_places_by_hand():
    model = nn.ModuleList([nn.Linear(3, 2), nn.Embedding(5, 4), nn.Linear(4, 1)])
    masked, dense, num = lay_out(entries(model))
    assert masked == {
        "0.weight": MaskedTensor((2, 3), weight=0, score=0, columns=False),
        "1.weight": MaskedTensor((5, 4), weight=6, score=6, columns=True),
        "2.weight": MaskedTensor((1, 4), weight=26, score=10, columns=False),
    }
    assert dense == {}
    assert num == 30
    masked, dense, num = lay_out(entries(model, select=lambda name, p: name == "2.weight"))
    assert masked == {"2.weight": MaskedTensor((1, 4), weight=26, score=0, columns=False)}
    assert [(name, place.weight) for name, place in dense.items()] == [("0.weight", 0), ("1.weight", 6)]
    assert num == 30


def test_borrowed_weights_take_no_place():
    model = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(3, 3)])
    roles = fold_roles(model, entries(model), [["2", "0"]], share_masks=False)
    masked, _, num = lay_out(roles)
    assert num == 9 + 6
    assert masked["0.weight"].weight == masked["2.weight"].weight == 6
    assert masked["1.weight"].weight == 0
    assert [place.score for place in masked.values()] == [0, 9, 15]


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.float32, torch.float32), (torch.float64, torch.float64), (torch.half, torch.float32)]
)
def test_scores_one_after_another(dtype, expected):
    masked, _, _ = lay_out(entries(nn.ModuleList([nn.Embedding(5, 4), nn.Linear(4, 2)])))
    scores = draw_flat_scores(masked, "edge_popup", 3, torch.device("cpu"), dtype)
    assert scores.dtype == expected
    parts = [draw_scores(shape, "edge_popup", seed=3, name=f"{i}.weight") for i, shape in enumerate([(1, 4), (2, 4)])]
    assert torch.equal(scores.float(), torch.cat([part.reshape(-1) for part in parts]))


def test_one_of_each():
    with pytest.raises(ValueError, match=r"one device and in one type .*\['cpu', 'meta'\], \['torch.float32'\]"):
        one_of_each([nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1, device="meta"))])
    with pytest.raises(ValueError, match="'torch.float16', 'torch.float32'"):
        one_of_each([nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1).half())])
