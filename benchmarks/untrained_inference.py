"""Inference of sparse models beside the dense one: milliseconds, bytes and multiply-accumulates.

python benchmarks/untrained_inference.py                                   # a minute, 1 thread
python benchmarks/untrained_inference.py --out inference.csv --out inference.md

Tickets: untrained GCNs of 2 x 256 for Cora, whose masks are searched for a few epochs at each sparsity. `PyG` is PyG's
model with zeros in its weights, `accelerate` and `to_csr` what these functions of `graphsparse.nn` make of it. Layers:
one linear layer over dense input, weights at random places; `torch CSR` is torch's own product with a weight in
compressed rows. "sparsity" is that of all parameters, "kB" what parameters and buffers take, "M MACs" the millions of
multiply-accumulates that are carried out, zeros in dense tensors included. All are compared with the dense one before
they are timed, in turns, with what is constant kept from the runs before.
"""

import argparse
import csv
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn import GCN

from graphsparse.datasets import load, synthetic_citation
from graphsparse.metrics import count_macs, weight_sparsity
from graphsparse.nn import FusedConv, Supermask, SupermaskLaw, accelerate, to_csr

COLUMNS = ("what", "sparsity", "form", "ms", "kB", "M MACs")


def ticket(data, sparsity, hidden, epochs):
    """Return a plain model with the weights of an untrained ticket."""
    torch.manual_seed(0)
    model = GCN(data.num_features, hidden, 2, int(data.y.max()) + 1, dropout=0.5)
    law = SupermaskLaw("signed_constant", scaled=True)
    masked = Supermask(accelerate(model), sparsity, law=law, transform="abs", total_steps=epochs)
    optimizer = torch.optim.Adam(masked.parameters(), lr=0.01)
    for _ in range(epochs):
        masked.train()
        optimizer.zero_grad()
        out = masked(data.x, data.edge_index)
        F.cross_entropy(out[data.train_mask], data.y[data.train_mask]).backward()
        optimizer.step()
        masked.step()
    model.load_state_dict(masked.materialize().state_dict())
    return model


def layer(width, density):
    """Return a linear layer with a share of its weights left."""
    generator = torch.Generator().manual_seed(0)
    made = nn.Linear(width, width)
    with torch.no_grad():
        made.weight.copy_(torch.randn(width, width, generator=generator) / width**0.5)
        made.weight.mul_(torch.rand(width, width, generator=generator) < density)
    return made


class TorchCSR(nn.Module):
    """A linear layer as torch itself multiplies by a weight in compressed rows."""

    def __init__(self, plain):
        super().__init__()
        self.register_buffer("weight", plain.weight.detach().to_sparse_csr())
        self.register_buffer("bias", plain.bias.detach())

    def forward(self, x):
        """Run the layer."""
        return F.linear(x, self.weight, self.bias)


class AsItRuns(nn.Module):
    """A model whose weights count as dense tensors, zeros included, and whose sparse products count as such."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def parameters(self, recurse=True):
        """Hide the parameters, whose zeros would not be counted."""
        return iter(())

    def modules(self):
        """Hide the layers that have no messages: asked for them, they would compute in another way."""
        return (module for module in super().modules() if not isinstance(module, FusedConv))

    def forward(self, *given):
        """Run the model."""
        return self.model(*given)


def bytes_of(model):
    """Return the memory of parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    parts = [(t.values(), t.crow_indices(), t.col_indices()) if t.layout == torch.sparse_csr else (t,) for t in tensors]
    return sum(tensor.nbytes for part in parts for tensor in part)


@torch.no_grad()
def rows_of(what, model, given, budget, more=()):
    """Return the figures of a model in every form as rows of the table."""
    model = model.eval()
    forms = {"PyG": model, "accelerate": accelerate(model), "to_csr": to_csr(model), **dict(more)}
    expected = model(*given)
    for made in forms.values():
        for _ in range(2):  # the second run keeps what is constant
            torch.testing.assert_close(made(*given), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    times, start = {name: [] for name in forms}, time.perf_counter()
    while len(times["PyG"]) < 3 or (len(times["PyG"]) < 200 and time.perf_counter() - start < budget):
        for name, made in forms.items():
            for run in range(2):  # the first one fills the caches
                begin = time.perf_counter()
                made(*given)
                if run:
                    times[name].append(time.perf_counter() - begin)
    for name, made in forms.items():
        yield {
            "what": what,
            "sparsity": round(weight_sparsity(model), 4),
            "form": name,
            "ms": round(statistics.median(times[name]) * 1e3, 3),
            "kB": round(bytes_of(made) / 1e3, 1),
            "M MACs": round(count_macs(AsItRuns(made), *given) / 1e6, 2),
        }


def as_markdown(rows):
    """Return the table in Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---:|---|---:|---:|---:|"]
    for row in rows:
        shown = [row[name] for name in COLUMNS]
        lines.append("| " + " | ".join(f"{cell:,}" if isinstance(cell, float) else str(cell) for cell in shown) + " |")
    return "\n".join(lines)


def write(path, rows):
    """Write the table to a file, in the format that its ending says."""
    path = Path(path)
    if path.suffix == ".md":
        path.write_text(as_markdown(rows) + "\n")
        return
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def main(argv=None) -> list[dict]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sparsity", type=float, nargs="*", default=[0.9, 0.95, 0.99], help="of the tickets")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=60, help="of the search of each mask")
    parser.add_argument("--nodes", type=int, help="take a synthetic graph of so many nodes in place of Cora")
    parser.add_argument("--width", type=int, nargs="*", default=[448, 1024], help="of the single layers")
    parser.add_argument("--density", type=float, nargs="*", default=[0.1, 0.05, 0.02, 0.01])
    parser.add_argument("--rows", type=int, default=2708, help="of the input of the single layers")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds for each table of forms")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", action="append", default=[], help="file for the table, .csv or .md")
    args = parser.parse_args(argv)
    for path in args.out:
        if Path(path).suffix not in (".csv", ".md"):
            parser.error(f"--out takes a .csv or .md file (got {path})")
    threads = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    rows = []
    try:
        data = load("Cora") if args.nodes is None else synthetic_citation(args.nodes)
        for sparsity in args.sparsity:
            model = ticket(data, sparsity, args.hidden, args.epochs)
            rows += rows_of(f"GCN 2 x {args.hidden}", model, (data.x, data.edge_index), args.budget)
        x = torch.randn(args.rows, max(args.width, default=0), generator=torch.Generator().manual_seed(1))
        for width in args.width:
            for density in args.density:
                plain, what = layer(width, density), f"layer {width} x {width}, density {density:g}"
                given = (x[:, :width].contiguous(),)
                rows += rows_of(what, plain, given, args.budget, [("torch CSR", TorchCSR(plain))])
    finally:
        torch.set_num_threads(threads)
    print(as_markdown(rows))
    print(f"\ntorch {torch.__version__}, {args.threads} thread(s), medians")
    for path in args.out:
        write(path, rows)
    return rows


if __name__ == "__main__":
    main()
