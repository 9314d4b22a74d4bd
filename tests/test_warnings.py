"""What a user runs has no warnings that are not theirs."""

import subprocess
import sys

import pytest

RUN = """
import tempfile, threading, warnings
import torch
from torch_geometric.nn import GCN, GraphSAGE

import graphsparse
from graphsparse.nn import CSRLinear, accelerate
from graphsparse.soups import Evaluator, greedy_soup, train_ingredients
from graphsparse.testing import random_graph
from graphsparse.tickets import find_ticket
from graphsparse.training import LinkTask, NodeTask, Training, fit, link_training, predict

warnings.simplefilter("error")
filters = list(warnings.filters)
data = random_graph()

def make_model():
    return GCN(8, 16, 2, 3)

def run():
    predict(accelerate(make_model()), data)
    fit(accelerate(make_model()), data, epochs=2)

threads = [threading.Thread(target=run) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
run()
CSRLinear(torch.eye(30))
fit(make_model(), NodeTask(data, inductive=True), epochs=2)
for method in ("teddy", "random", "untrained"):
    edges = {} if method == "untrained" else {"edge_sparsity": 0.4}
    ticket = find_ticket(make_model, data, weight_sparsity=0.5, method=method, training=Training(epochs=2), **edges)
    ticket.materialize(make_model)
with tempfile.TemporaryDirectory() as folder:
    store = train_ingredients(make_model, data, 2, folder, training=Training(epochs=2), workers=0)
    greedy_soup(store, Evaluator(make_model(), data))
val = (torch.tensor([[0], [1]]), torch.tensor([[2], [3]]))
fit(accelerate(GraphSAGE(8, 16, 2)), LinkTask(data, {"val": val}), link_training(epochs=2))
assert warnings.filters == filters
print("no warning")
"""


@pytest.mark.once
def test_a_run_without_warnings():
    found = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, timeout=300)
    assert found.stdout.strip() == "no warning", found.stderr
    assert "Warning" not in found.stderr
