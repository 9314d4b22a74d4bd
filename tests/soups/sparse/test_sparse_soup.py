import pytest
import torch
from models import MODELS

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.sparse.shared_mask import mask_digest
from graphsparse.soups.sparse.soup_ticket import soup_ticket
from graphsparse.soups.sparse.sparse_soup import kept_counts, sparse_soup
from graphsparse.soups.states.prune_state import maskable_names, num_nonzero
from graphsparse.soups.states.states import combine
from graphsparse.testing import random_graph
from graphsparse.tickets import find_ticket
from graphsparse.training import Training

DATA = random_graph()
GCN = MODELS["GCN"]
SHORT = {"sparsity": 0.75, "phases": 2, "copies": 3, "epochs": 4}


@pytest.fixture(scope="module")
def ticket():
    return find_ticket(GCN, DATA, edge_sparsity=0.4, weight_sparsity=0.3, training=Training(epochs=5))


class Spy:
    """Trains the copies one after another and keeps what was trained."""

    def __init__(self):
        self.masks, self.settings, self.graphs, self.copies = [], [], [], []

    def __call__(self, retrain, settings):
        self.masks.append(retrain.masks)
        self.graphs.append(retrain.data)
        self.settings.append(list(settings))
        # In another order than asked for; the results come in the right one.
        found = {i: retrain(settings[i]) for i in reversed(range(len(settings)))}
        self.copies.append([found[i] for i in range(len(settings))])
        return self.copies[-1]


def outside(state, masks):
    return sum(int(state[name][~mask].count_nonzero()) for name, mask in masks.items())


@pytest.mark.parametrize("merge", ["uniform", "greedy"])
@pytest.mark.parametrize("name", MODELS)
def test_support_and_density_of_every_phase(name, merge):
    spy = Spy()
    soup = sparse_soup(MODELS[name], DATA, **SHORT, knob="lr", merge=merge, run=spy)
    total = sum(mask.numel() for mask in spy.masks[0].values())
    kept = [sum(int(mask.sum()) for mask in masks.values()) for masks in spy.masks]
    assert kept == [total - total // 2, total - int(0.75 * total)] == [step["num_kept"] for step in soup.trace]
    assert outside(soup.state_dict, spy.masks[1]) == 0
    for masks, copies, step in zip(spy.masks, spy.copies, soup.trace, strict=True):
        assert {copy.digest for copy in copies} == {mask_digest(masks)} == {step["mask"]}
        assert sum(outside(copy.state, masks) for copy in copies) == 0
    # What is gone stays gone.
    assert all(not (spy.masks[1][key] & ~mask).any() for key, mask in spy.masks[0].items())
    MODELS[name]().load_state_dict(soup.state_dict)


def test_weights_rebuild_the_soup():
    for merge in ("uniform", "greedy"):
        spy = Spy()
        soup = sparse_soup(GCN, DATA, **SHORT, merge=merge, run=spy)
        assert float(soup.weights.sum()) == pytest.approx(1)
        assert (soup.weights >= 0).all()
        for name, value in combine([copy.state for copy in spy.copies[-1]], soup.weights).items():
            torch.testing.assert_close(value, soup.state_dict[name])


def test_greedy_is_not_worse_than_the_best_copy():
    for split in (True, False):
        soup = sparse_soup(GCN, DATA, **SHORT, merge="greedy", split_validation=split)
        assert all(step["score"] >= max(step["ingredient_scores"]) for step in soup.trace)
        assert soup.score == soup.trace[-1]["score"]


def test_one_copy_is_itself(ticket):
    spy = Spy()
    soup = sparse_soup(GCN, DATA, sparsity=0.3, phases=1, copies=1, epochs=4, parent=ticket, run=spy)
    for name, value in spy.copies[0][0].state.items():
        assert torch.equal(soup.state_dict[name], value)
    # The mask of the ticket is kept as it is.
    for name, mask in ticket.weight_masks.items():
        assert torch.equal(spy.masks[0][name], mask)


def test_on_the_edges_of_a_ticket(ticket):
    spy = Spy()
    soup = sparse_soup(GCN, DATA, **SHORT, parent=ticket, run=spy)
    assert torch.equal(spy.graphs[0].edge_index, ticket.sparsify(DATA).edge_index)
    assert soup.score == Evaluator(GCN(), ticket.sparsify(DATA)).score(soup.state_dict)
    assert outside(soup.state_dict, ticket.weight_masks) == 0
    # From 124 of 176 weights to 44 in two equal ratios.
    assert [step["num_kept"] for step in soup.trace] == [74, 44]
    again = soup_ticket(soup, ticket)
    assert torch.equal(again.edge_mask, ticket.edge_mask)
    assert sum(int(mask.sum()) for mask in again.weight_masks.values()) <= 44
    sparse_soup(GCN, DATA, **SHORT, parent=ticket, evaluator=Evaluator(GCN(), ticket.sparsify(DATA)))
    with pytest.raises(ValueError, match="ticket.sparsify"):
        sparse_soup(GCN, DATA, **SHORT, parent=ticket, evaluator=Evaluator(GCN(), DATA))
    with pytest.raises(ValueError, match="not the graph"):
        sparse_soup(GCN, random_graph(seed=1), **SHORT, parent=ticket)


def test_a_state_dict_as_parent(ticket):
    spy = Spy()
    sparse_soup(GCN, DATA, sparsity=0.5, phases=1, copies=2, epochs=2, parent=ticket.state_dict, run=spy)
    assert all(not (mask & (ticket.state_dict[name] == 0)).any() for name, mask in spy.masks[0].items())
    assert spy.graphs[0].num_edges == DATA.num_edges


def test_test_labels_change_nothing():
    other = DATA.clone()
    other.y = torch.where(DATA.test_mask, 0, DATA.y)
    other.test_mask = torch.zeros_like(DATA.test_mask)
    first, second = (sparse_soup(GCN, data, **SHORT) for data in (DATA, other))
    assert all(torch.equal(second.state_dict[name], value) for name, value in first.state_dict.items())
    assert first.trace == second.trace


def test_seeds():
    spy = Spy()
    first = sparse_soup(GCN, DATA, **SHORT, run=spy)
    seeds = [knobs.seed for settings in spy.settings for knobs in settings]
    assert len(set(seeds)) == 6
    second, third = sparse_soup(GCN, DATA, **SHORT), sparse_soup(GCN, DATA, **SHORT, seed=1)
    assert all(torch.equal(second.state_dict[name], value) for name, value in first.state_dict.items())
    assert not all(torch.equal(third.state_dict[name], value) for name, value in first.state_dict.items())
    spy = Spy()
    sparse_soup(GCN, DATA, **SHORT, knob="lr", run=spy)
    assert [len({knobs.seed for knobs in settings}) for settings in spy.settings] == [1, 1]
    assert [knobs.lr for knobs in spy.settings[0]] == [0.005, 0.01, 0.02]


def test_equal_copies_are_reported():
    with pytest.warns(UserWarning, match="all 2 copies of phase 0 are equal: the knob 'seed'"):
        sparse_soup(MODELS["GraphSAGE"], DATA, sparsity=0.5, phases=1, copies=2, epochs=2)


def test_log_gets_the_trace():
    seen = []
    soup = sparse_soup(GCN, DATA, **SHORT, log=seen.append)
    assert seen == soup.trace
    assert [len(step["best_epochs"]) for step in seen] == [3, 3]


def test_loader_and_own_names():
    seen = []

    def make_loader(data, seed):
        seen.append(seed)
        return [data, data]

    soup = sparse_soup(GCN, DATA, **SHORT, make_loader=make_loader, masked=["convs.1.lin.weight"])
    assert len(set(seen)) == 7  # the dense model too
    assert num_nonzero(soup.state_dict, ["convs.1.lin.weight"]) == 12
    assert num_nonzero(soup.state_dict, maskable_names(GCN())) == 12 + 128


def test_frozen_parameters_are_not_pruned():
    def make_model():
        model = GCN()
        model.convs[0].lin.weight.requires_grad_(False)
        return model

    soup = sparse_soup(make_model, DATA, **SHORT)
    assert num_nonzero(soup.state_dict, ["convs.0.lin.weight"]) == 128
    with pytest.raises(ValueError, match="not trained"):
        sparse_soup(make_model, DATA, **SHORT, masked=["convs.0.lin.weight"])


@pytest.mark.parametrize("total", [1, 7, 100, 999])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9, 0.995])
@pytest.mark.parametrize("phases", [1, 2, 5])
def test_counts_end_where_they_must(total, sparsity, phases):
    found = kept_counts({"w": torch.ones(total)}, ["w"], sparsity, phases)
    assert len(found) == phases
    assert found[-1] == total - int(sparsity * total)
    assert found == sorted(found, reverse=True)
    for phase, count in enumerate(found, 1):
        # p = 1 - (1 - S)^(1 / J) of those that are left, rounded up.
        expected = total * (1 - sparsity) ** (phase / phases)
        assert expected - 1e-6 <= count < expected + 1 + 1e-6


def test_a_copy_under_another_mask_is_refused():
    def run(retrain, settings):
        wrong = {name: ~mask for name, mask in retrain.masks.items()}
        return [type(retrain)(retrain.model, retrain.data, wrong, None, retrain.inference)(k) for k in settings]

    with pytest.raises(RuntimeError, match="another mask"):
        sparse_soup(GCN, DATA, **SHORT, run=run)
    with pytest.raises(RuntimeError, match=r"gave 2 copies \(expected 3\)"):
        sparse_soup(GCN, DATA, **SHORT, run=lambda f, settings: map(f, settings[:2]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, "fraction removed"),
        ({"phases": 0}, "'phases' must be at least 1"),
        ({"copies": 0}, "'copies' must be at least 1"),
        ({"knob": "width"}, "'knob' must be one of"),
        ({"values": [1, 2]}, "one value for each of 3 copies"),
        ({"merge": "median"}, "'merge' must be"),
        ({"masked": ["nothing"]}, "no such parameters"),
        ({"parent": {"w": torch.ones(1)}}, "does not fit"),
        ({"parent": {name: value * torch.nan for name, value in GCN().state_dict().items()}}, "not numbers"),
        ({"parent": {name: value * 0 for name, value in GCN().state_dict().items()}}, "176 of 176 weights are zero"),
        ({"seed": -1}, "'seed' must be between"),
    ],
)
def test_bad_values(options, message):
    with pytest.raises(ValueError, match=message):
        sparse_soup(GCN, DATA, **{**SHORT, **options})


def test_bad_types():
    for options in ({"run": 1}, {"log": 1}, {"make_loader": 1}, {"epochs": 2.5}, {"sparsity": "0.5"}):
        with pytest.raises(TypeError):
            sparse_soup(GCN, DATA, **{**SHORT, **options})
    with pytest.raises(TypeError, match="'make_model'"):
        sparse_soup(GCN(), DATA, **SHORT)
    data = DATA.clone()
    del data.val_mask
    with pytest.raises(ValueError, match="val_mask"):
        sparse_soup(GCN, data, **SHORT)
