import copy

import pytest
import torch
import torch.nn.functional as F
from models import MODELS
from torch import nn
from torch_geometric.nn import GAT, GCN, GIN

from graphsparse.nn import Supermask, SupermaskLaw, accelerate
from graphsparse.ops.digest import graph_fingerprint
from graphsparse.testing import random_graph
from graphsparse.tickets import Ticket

DATA = random_graph()


class Tables(nn.Module):
    """Embedding tables, which are masked by columns, and normalisation."""

    def __init__(self):
        super().__init__()
        self.atom, self.bond = nn.Embedding(9, 16), nn.Embedding(4, 16)
        self.conv, self.norm, self.last = GCN(16, 16, 1), nn.BatchNorm1d(16), nn.Linear(16, 3)

    def forward(self, x, edge_index):
        x = self.atom(x[:, 0].long().clamp(0, 8)) + self.bond.weight[1]
        return self.last(self.norm(self.conv(x, edge_index)).relu())


class Wholes(nn.Module):
    """A parameter without gradient, one that is left whole, and a buffer."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)
        self.shift = nn.Parameter(torch.full((16,), 0.5), requires_grad=False)
        self.register_buffer("factor", torch.tensor(2.0))

    def forward(self, x, edge_index):
        return self.last((self.first(x) + self.shift).relu()) * self.factor


def deep():
    return GCN(8, 16, 5, 3, norm="batch_norm")


FOLD = [["convs.1", "convs.2", "convs.3"]]
MULTI = {"coats": 3, "transform": "abs", "law": SupermaskLaw("signed_constant", scaled=True)}
SCALED = {"law": SupermaskLaw(scaled=True)}
CASES = {name: (make, {}) for name, make in MODELS.items()} | {
    "fast layers": (lambda: accelerate(GCN(8, 16, 2, 3)), {}),
    "no biases": (lambda: GCN(8, 16, 2, 3, bias=False), {"law": "kaiming_normal"}),
    "norm and epsilon": (lambda: GIN(8, 16, 2, 3, norm="batch_norm", train_eps=True), SCALED),
    "three coats": (lambda: GCN(8, 16, 2, 3), MULTI),
    "five coats": (lambda: GAT(8, 16, 2, 3, heads=2), MULTI | {"coats": 5}),
    "two of four": (lambda: GCN(8, 16, 2, 4), {"scope": "2:4", "sparsity": 0.5}),
    "layer by layer": (lambda: GCN(8, 16, 2, 3), {"scope": "layer"}),
    "folded": (deep, {"fold": FOLD}),
    "folded, three coats": (deep, MULTI | {"fold": FOLD}),
    "tables": (Tables, {}),
    "tables, three coats": (Tables, MULTI),
    "left whole": (Wholes, {"select": lambda name, _: name == "first.weight", **SCALED}),
    "biases masked": (lambda: GCN(8, 16, 2, 3), {"select": lambda name, _: True}),
    "double": (lambda: GCN(8, 16, 2, 3).double(), {"law": SupermaskLaw("kaiming_normal", scaled=True)}),
    "bfloat16": (lambda: Wholes().to(torch.bfloat16), MULTI),
    "nothing removed": (lambda: GCN(8, 16, 2, 3), {"sparsity": 0.0}),
}


def run(model):
    own = next(p for p in model.state_dict().values() if p.is_floating_point())
    with torch.no_grad():
        return model.eval()(DATA.x.to(own.dtype), DATA.edge_index)


def searched(make_model, options, steps=4):
    torch.manual_seed(0)
    model = make_model()
    supermask = Supermask(model, **{"sparsity": 0.6, "seed": 5, "total_steps": steps} | options)
    optimizer = torch.optim.AdamW(supermask.parameters(), lr=0.1, weight_decay=0)
    dtype = next(iter(model.parameters())).dtype
    for _ in range(steps):
        supermask.train()
        optimizer.zero_grad()
        logits = supermask(DATA.x.to(dtype), DATA.edge_index)
        F.cross_entropy(logits[DATA.train_mask], DATA.y[DATA.train_mask]).backward()
        optimizer.step()
        supermask.step()
    return supermask.eval()


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


@pytest.mark.parametrize("case", CASES)
def test_ticket_and_its_file_are_the_materialised_model(case, tmp_path):
    make_model, options = CASES[case]
    supermask = searched(make_model, options)
    plain = supermask.materialize()
    ticket = Ticket.from_supermask(supermask)
    ticket.save(tmp_path / "t")
    again = Ticket.load(tmp_path / "t")
    expected = run(plain)
    for t in (ticket, again):
        assert list(t.state_dict) == list(plain.state_dict())
        for name, tensor in plain.state_dict().items():
            assert t.state_dict[name].dtype == tensor.dtype
            assert torch.equal(bits(t.state_dict[name]), bits(tensor)), name
        assert torch.equal(run(t.materialize(make_model)), expected)
        for name, mask in supermask.masks().items():
            assert t.weight_masks[name].dtype == mask.dtype
            assert torch.equal(t.weight_masks[name], mask)
    assert (again.frozen, again.config, again.metrics) == (ticket.frozen, ticket.config, ticket.metrics)
    assert again.weight_masks.keys() == ticket.weight_masks.keys()
    assert again.summary() == ticket.summary()


@pytest.mark.parametrize("case", CASES)
def test_only_what_was_trained_or_kept_is_stored(case, tmp_path):
    from graphsparse.tickets import format as ticket_format

    make_model, options = CASES[case]
    supermask = searched(make_model, options, steps=1)
    Ticket.from_supermask(supermask).save(tmp_path / "t")
    tensors, _ = ticket_format.read(tmp_path / "t")
    state = supermask.state_dict()
    left = {name.removeprefix("model.") for name in state if name.startswith("model.")}
    assert {name for name in tensors if not name.startswith("plane/")} == {f"dense/{name}" for name in left}


def test_frozen_tensors_say_names_and_roles():
    shared = Supermask(deep(), 0.5, fold=FOLD)
    entries = {entry.names[0]: entry for entry in shared.frozen_tensors()}
    assert entries["convs.1.lin.weight"].names == tuple(f"convs.{i}.lin.weight" for i in (1, 2, 3))
    assert entries["convs.4.bias"].role == "zero"
    assert not any(entry.parameter.requires_grad for entry in entries.values())
    tables = {entry.names[0]: entry.role for entry in Supermask(Tables(), 0.5).frozen_tensors()}
    assert (tables["atom.weight"], tables["last.weight"], tables["last.bias"]) == ("columns", "weights", "zero")
    wholes = Supermask(Wholes(), 0.5, select=lambda name, _: name == "first.weight")
    assert {e.names[0]: e.role for e in wholes.frozen_tensors()}["last.weight"] == "dense"


def test_shared_mask_is_stored_and_counted_once(tmp_path):
    sizes, counted = {}, {}
    for share in (True, False):
        fold = [[f"convs.{i}" for i in range(1, 7)]] if share else []
        ticket = Ticket.from_supermask(Supermask(GCN(8, 64, 8, 3, bias=False), 0.5, fold=fold))
        ticket.save(tmp_path / "t")
        sizes[share], counted[share] = (tmp_path / "t").stat().st_size, ticket.summary()
    # Five more masks of 64 * 64 bits, which half of the weights leave without anything to compress.
    assert 5 * 512 < sizes[False] - sizes[True] < 5 * 512 + 400
    assert f"of {64 * 8 + 64 * 64 + 3 * 64:,} weights" in counted[True]
    assert f"of {64 * 8 + 6 * 64 * 64 + 3 * 64:,} weights" in counted[False]


def test_graph_of_the_ticket():
    supermask = Supermask(GCN(8, 16, 2, 3), 0.6)
    none = Ticket.from_supermask(supermask)
    assert none.edge_mask is none.graph is None
    whole = Ticket.from_supermask(supermask, data=DATA)
    assert whole.edge_mask.all()
    assert whole.graph == graph_fingerprint(DATA.edge_index, DATA.num_nodes)
    assert torch.equal(whole.sparsify(DATA).edge_index, DATA.edge_index)
    kept = torch.arange(DATA.num_edges) % 3 > 0
    sparse = Ticket.from_supermask(supermask, data=DATA, edge_mask=kept)
    assert torch.equal(sparse.sparsify(DATA).edge_index, DATA.edge_index[:, kept])


def test_config_and_metrics():
    supermask = Supermask(GCN(8, 16, 2, 3), 0.55, seed=9, **MULTI)
    ticket = Ticket.from_supermask(supermask, config={"method": "multicoated", "lr": 0.1}, metrics={"test": 0.5})
    assert ticket.config == {
        "method": "multicoated",
        "seed": 9,
        "sparsities": list(supermask.plan.sparsities),
        "scope": "global",
        "transform": "abs",
        "lr": 0.1,
    }
    assert ticket.metrics == {"weight_sparsity": supermask.sparsity(), "test": 0.5}


def test_supermask_is_left_alone():
    supermask = searched(MODELS["BatchNorm and a tied weight"], {})
    before, training = copy.deepcopy(supermask.state_dict()), supermask.train().training
    ticket = Ticket.from_supermask(supermask)
    assert training
    assert supermask.training
    for name, tensor in supermask.state_dict().items():
        assert torch.equal(tensor, before[name])
    for tensor in ticket.state_dict.values():
        tensor.zero_()
    for name, tensor in supermask.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_weights_that_are_not_the_seed_s_are_refused():
    supermask = Supermask(GCN(8, 16, 2, 3), 0.5)
    supermask.half().float()
    with pytest.raises(ValueError, match="other weights in 'convs.0.lin.weight'"):
        Ticket.from_supermask(supermask)
    supermask.redraw()
    Ticket.from_supermask(supermask)
    Ticket.from_supermask(supermask.double())


def test_bad_input_is_refused():
    supermask = Supermask(GCN(8, 16, 2, 3), 0.5)
    with pytest.raises(TypeError, match="'supermask' must be a Supermask"):
        Ticket.from_supermask(GCN(8, 16, 2, 3))
    with pytest.raises(ValueError, match="'edge_mask' needs 'data'"):
        Ticket.from_supermask(supermask, edge_mask=torch.ones(3, dtype=torch.bool))
    for mask in (torch.ones(3, dtype=torch.bool), torch.ones(DATA.num_edges)):
        with pytest.raises(ValueError, match=f"each of the {DATA.num_edges} entries"):
            Ticket.from_supermask(supermask, data=DATA, edge_mask=mask)
    other = copy.copy(DATA)
    del other.edge_index
    with pytest.raises(ValueError, match="must hold 'edge_index'"):
        Ticket.from_supermask(supermask, data=other)


@pytest.mark.cuda
def test_ticket_found_on_a_gpu_is_drawn_on_cpu(tmp_path, device):
    torch.manual_seed(0)
    for law in ("kaiming_uniform", "kaiming_normal", "signed_constant"):
        supermask = Supermask(GCN(8, 64, 3, 3).to(device), 0.9, law=SupermaskLaw(law, scaled=True))
        Ticket.from_supermask(supermask).save(tmp_path / "t")
        state = supermask.materialize().state_dict()
        for name, tensor in Ticket.load(tmp_path / "t").state_dict.items():
            assert torch.equal(bits(tensor), bits(state[name].cpu()))
