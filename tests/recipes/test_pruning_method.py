"""The recipe "add a pruning method" of CONTRIBUTING: SNIP as it stands there, and UGS, with public names only."""

import importlib
import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from models import MODELS
from resuming import same_state
from torch import nn
from torch.func import functional_call

from graphsparse.testing import random_graph
from graphsparse.tickets import AtInit, Found, TicketRun, find_tickets
from graphsparse.training import Masks, NodeTask, Training


class SoftMasks(nn.Module):
    """A model whose weights and undirected edges are multiplied by numbers that are trained with it."""

    def __init__(self, model, keep, pairs, noise, seed):
        super().__init__()
        self.model, self.names = model, list(keep.weights)
        generator = torch.Generator().manual_seed(seed)
        near_one = [1 + noise * torch.randn(m.shape, generator=generator) for m in (keep.edges, *keep.weights.values())]
        self.edges, *weights = (nn.Parameter(value) for value in near_one)
        self.weights = nn.ParameterList(weights)
        self.keep, self.pairs = keep, pairs

    def forward(self, x, edge_index):
        soft = {n: m * self.keep.weights[n] for n, m in zip(self.names, self.weights, strict=True)}
        masked = {name: self.model.get_parameter(name) * mask for name, mask in soft.items()}
        edges = (self.edges * self.keep.edges)[self.pairs]
        return functional_call(self.model, masked, (x, edge_index, torch.where(self.pairs < 0, 1.0, edges)))


@dataclass(frozen=True)
class UGS:
    """Train soft masks with an l1 term, prune the smallest, rewind, and go on so for several rounds.

    Source: Chen et al., *A Unified Lottery Ticket Hypothesis for Graph Neural Networks*, arXiv 2102.06790, Algorithm 1.
    """

    l1_edges: float = 1e-2
    l1_weights: float = 1e-2
    edges_per_round: float = 0.05
    weights_per_round: float = 0.2
    noise: float = 1e-5
    prunes = frozenset({"edges", "weights"})
    nested = True

    def find(self, run):
        keep, tag, edges, weights = run.everything(), 0, 0.0, 0.0
        for target in run.targets:
            while (edges, weights) != target:
                edges = min(target.edges, 1 - (1 - edges) * (1 - self.edges_per_round))
                weights = min(target.weights, 1 - (1 - weights) * (1 - self.weights_per_round))
                soft = SoftMasks(run.model(), keep, run.pairs, self.noise, run.training.seed + tag)
                best = run.train(soft, f"masks-{tag}", extra_loss=self.penalty(soft)).state_dict
                sizes = {name: best[f"weights.{i}"].abs() for i, name in enumerate(soft.names)}
                scores = {"edges": best["edges"].abs(), "weights": sizes}
                keep = keep.prune(**scores, edge_sparsity=edges, weight_sparsity=weights)
                tag += 1
            yield Found(target, keep.edges, keep.weights)

    def penalty(self, soft):
        def l1(logits, batch, epoch):
            return self.l1_edges * soft.edges.abs().sum() + self.l1_weights * sum(m.abs().sum() for m in soft.weights)

        return l1


def write_snip(folder):
    """Write the file that CONTRIBUTING shows, as a user would."""
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    recipe = text[text.index("**Add a pruning method.**") : text.index("**Add a projection.**")]
    (code,) = re.findall(r"```python\n(.*?)```", recipe, re.S)
    (folder / "snip.py").write_text(code, encoding="utf-8")
    return code


@pytest.fixture(scope="module")
def snip(tmp_path_factory):
    """Import the file of CONTRIBUTING."""
    folder = tmp_path_factory.mktemp("recipe")
    write_snip(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("snip").SNIP
    sys.modules.pop("snip")


TARGETS = [(0.1, 0.3), (0.19, 0.6), (0.4, 0.9)]
SHORT = Training(epochs=5)


def lines(*objects):
    return sum(len(inspect.getsource(entry).rstrip().splitlines()) for entry in objects)


def test_how_short_they_are(tmp_path):
    assert lines(SoftMasks, UGS) <= 60
    code = write_snip(tmp_path)
    assert len(code.splitlines()) <= 20
    imported = re.findall(r"^from (graphsparse\S*) import (\w+)$", code, re.M)
    assert code.count("graphsparse") == len(imported) == 1
    assert all(name in importlib.import_module(module).__all__ for module, name in imported)


@pytest.mark.parametrize("model", ["GCN", "GraphSAGE", "GAT"])
@pytest.mark.parametrize("name", ["UGS", "SNIP"])
def test_exact_and_nested(name, model, snip):
    method, data = UGS() if name == "UGS" else snip("teddy"), random_graph()
    tickets = find_tickets(MODELS[model], data, targets=TARGETS, method=method, training=SHORT)
    everything = Masks.everything(MODELS[model](), data)
    total, num_edges = sum(mask.numel() for mask in everything.weights.values()), everything.edges.numel()
    before = None
    for (edges, weights), ticket in zip(TARGETS, tickets, strict=True):
        assert sum(int((~mask).sum()) for mask in ticket.weight_masks.values()) == int(weights * total)
        assert ticket.sparsify(data).num_edges == 2 * (num_edges - int(edges * num_edges))
        masks = Masks(ticket.weight_masks, ticket.edge_mask)
        assert before is None or masks.within(before)
        before = masks
        assert ticket.config[type(method).__name__]


def test_ugs_goes_on_after_a_kill(tmp_path):
    options = {"targets": TARGETS[:2], "method": UGS(), "training": Training(epochs=3, checkpoint=tmp_path)}
    first = find_tickets(MODELS["GCN"], random_graph(), **options)
    for path in sorted(tmp_path.glob("*.pt"))[-2:]:
        path.unlink()
    again = find_tickets(MODELS["GCN"], random_graph(), **options)
    for ours, theirs in zip(again, first, strict=True):
        assert all(torch.equal(ours.state_dict[name], value) for name, value in theirs.state_dict.items())


def test_gradient_of_soft_masks_is_that_of_differences():
    """One number per undirected edge: both of its directions move together."""
    data = random_graph()
    data.x = data.x.double()
    run = TicketRun(lambda: MODELS["GCN"]().double(), NodeTask(data), [], SHORT)
    soft = SoftMasks(run.model(), run.everything(), run.pairs, 0.0, 0).double().eval()

    def loss():
        logits = soft(data.x, data.edge_index)
        return nn.functional.cross_entropy(logits[data.train_mask], data.y[data.train_mask])

    loss().backward()
    for parameter in (soft.edges, soft.weights[0]):
        flat = parameter.data.view(-1)
        for i in (0, 7, 31):
            values = []
            for step in (1e-6, -1e-6):
                flat[i] += step
                values.append(loss().item())
                flat[i] -= step
            assert parameter.grad.view(-1)[i].item() == pytest.approx(
                (values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-9
            )


def test_the_file_of_the_recipe_is_the_method_of_the_package(snip):
    options = {"targets": TARGETS, "training": SHORT}
    theirs = find_tickets(MODELS["GCN"], random_graph(), method=snip("degree"), **options)
    for ours, other in zip(
        find_tickets(MODELS["GCN"], random_graph(), method=AtInit("snip", "degree"), **options), theirs, strict=True
    ):
        assert same_state(ours.weight_masks, other.weight_masks)
        assert same_state(ours.state_dict, other.state_dict)
        assert torch.equal(ours.edge_mask, other.edge_mask)
        assert other.config["method"] == "SNIP"
