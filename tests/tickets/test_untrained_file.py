"""The file of an untrained ticket: its size on a real graph, and what it takes to read it."""

import lzma
import math
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch_geometric.nn import GCN

from graphsparse.datasets import load
from graphsparse.nn import Supermask, SupermaskLaw, accelerate
from graphsparse.testing import random_graph
from graphsparse.tickets import Ticket

pytestmark = pytest.mark.once

NUM = 1433 * 256 + 256 * 7
# As many, and as long, as those that a search leaves behind.
CONFIG = {
    "preset": "ugt",
    "epochs": 400,
    "lr": 0.01,
    "weight_decay": 0.0,
    "ramp": "linear",
    "ramp_end": 0.5,
    "score_law": "kaiming_uniform",
    "coat_spacing": "uniform",
    "alpha": 0.9996,
    "patience": None,
    "batch_size": None,
    "selected_epoch": 377,
}
METRICS = {f"{split}_{what}": 0.8131234567 for split in ("train", "val", "test") for what in ("accuracy", "loss")}
MULTI = {"coats": 3, "transform": "abs", "law": SupermaskLaw("signed_constant", scaled=True)}


@pytest.fixture(scope="module")
def cora(data_root):
    return load("cora", data_root)


def search(data, sparsity, steps=60, **options):
    torch.manual_seed(0)
    model = accelerate(GCN(1433, 256, 2, 7, bias=False))
    supermask = Supermask(model, sparsity, total_steps=steps, **options)
    optimizer = torch.optim.AdamW(supermask.parameters(), lr=0.01, weight_decay=0)
    for _ in range(steps):
        supermask.train()
        optimizer.zero_grad()
        logits = supermask(data.x, data.edge_index)
        F.cross_entropy(logits[data.train_mask], data.y[data.train_mask]).backward()
        optimizer.step()
        supermask.step()
    return supermask.eval()


def nested_entropy(sparsities):
    """Bytes of every plane where the one before is 1."""
    total, before = 0.0, 1.0
    for kept in (1 - sparsity for sparsity in sparsities):
        p = kept / before
        total -= NUM * before * (p * math.log2(p) + (1 - p) * math.log2(1 - p)) / 8
        before = kept
    return total


@pytest.mark.parametrize(
    ("sparsity", "bound", "options"),
    [(0.9, 21611, {}), (0.95, 13197, {}), (0.99, 3723, {}), (0.55, None, MULTI)],
    ids=["0.9", "0.95", "0.99", "three coats"],
)
def test_size_of_a_found_ticket_on_cora(cora, tmp_path, sparsity, bound, options):
    supermask = search(cora, sparsity, **options)
    entropy = nested_entropy(supermask.plan.sparsities)
    assert bound is None or round(entropy) == bound
    ticket = Ticket.from_supermask(supermask, data=cora, config=CONFIG, metrics=METRICS)
    assert len(ticket.config) >= 15
    assert len(ticket.metrics) >= 7
    ticket.save(tmp_path / "t")
    size = (tmp_path / "t").stat().st_size
    assert size <= 1.25 * entropy + 1000
    masks = [mask.numpy().astype(np.uint8).reshape(-1) for mask in supermask.masks().values()]
    counts = np.concatenate(masks)
    naive = b"".join(np.packbits(counts > n).tobytes() for n in range(len(supermask.plan.sparsities)))
    with_zlib, with_lzma = len(zlib.compress(naive, 9)), len(lzma.compress(naive))
    # To be read with `pytest -rP`.
    print(f"{size} bytes; entropy {entropy:.0f}, bits {len(naive)}, zlib {with_zlib}, lzma {with_lzma}, fp32 {4 * NUM}")
    again = Ticket.load(tmp_path / "t")
    logits = again.materialize(lambda: accelerate(GCN(1433, 256, 2, 7, bias=False)))(cora.x, cora.edge_index)
    assert torch.equal(logits, supermask.materialize()(cora.x, cora.edge_index))


@pytest.mark.parametrize("sparsity", [0.9, 0.95, 0.99])
def test_size_of_a_mask_without_any_pattern(tmp_path, sparsity):
    ticket = Ticket.from_supermask(
        Supermask(GCN(1433, 256, 2, 7, bias=False), sparsity, scope="layer"), config=CONFIG, metrics=METRICS
    )
    ticket.save(tmp_path / "t")
    assert (tmp_path / "t").stat().st_size <= 1.25 * nested_entropy([sparsity]) + 1000


def small(**options):
    torch.manual_seed(0)
    supermask = Supermask(GCN(8, 16, 4, 3, norm="batch_norm"), 0.8, seed=2, **options)
    supermask.train()(random_graph().x, random_graph().edge_index)
    return supermask.eval()


FRESH = """
import sys, torch
from torch_geometric.nn import GCN
from graphsparse.testing import random_graph
from graphsparse.tickets import Ticket
ticket = Ticket.load(sys.argv[1])
sparse = ticket.sparsify(random_graph())
logits = ticket.materialize(lambda: GCN(8, 16, 4, 3, norm="batch_norm"))(sparse.x, sparse.edge_index)
torch.save(logits, sys.argv[1] + ".logits")
"""


def test_fresh_process_gives_bit_identical_logits(tmp_path):
    data = random_graph()
    path = tmp_path / "t"
    supermask = small(**MULTI, fold=[["convs.1", "convs.2"]])
    Ticket.from_supermask(supermask, data=data).save(path)
    subprocess.run([sys.executable, "-W", "ignore", "-c", FRESH, str(path)], check=True)
    expected = supermask.materialize()(data.x, data.edge_index)
    assert torch.equal(torch.load(f"{path}.logits"), expected)
    assert torch.equal(supermask(data.x, data.edge_index), expected)


@pytest.mark.parametrize("options", [{}, MULTI], ids=["one coat", "three coats"])
def test_every_cut_is_refused(tmp_path, options):
    path = tmp_path / "t"
    Ticket.from_supermask(small(**options), data=random_graph()).save(path)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 29), *range(len(whole) - 60, len(whole))]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not a ticket|damaged"):
            Ticket.load(path)


@pytest.mark.parametrize("options", [{}, MULTI], ids=["one coat", "three coats"])
def test_every_changed_byte_is_refused(tmp_path, options):
    path = tmp_path / "t"
    Ticket.from_supermask(small(**options), data=random_graph()).save(path)
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        try:
            Ticket.load(path)
        except ValueError:
            continue
        # Only the padding of the header carries no meaning.
        assert whole[position : position + 1] == b" ", position


def test_parts_that_are_missing_under_a_right_checksum_are_refused(tmp_path):
    from graphsparse.tickets import format as ticket_format

    path = tmp_path / "t"
    Ticket.from_supermask(small()).save(path)
    tensors, header = ticket_format.read(path)
    for name in tensors:
        ticket_format.write(path, {key: tensor for key, tensor in tensors.items() if key != name}, header)
        with pytest.raises(ValueError, match="lacks"):
            Ticket.load(path)
    for name in header:
        ticket_format.write(path, tensors, {key: value for key, value in header.items() if key != name})
        with pytest.raises(ValueError, match="lacks"):
            Ticket.load(path)
    ticket_format.write(path, tensors, header | {"num_edges": 3})
    with pytest.raises(ValueError, match="given together"):
        Ticket.load(path)
