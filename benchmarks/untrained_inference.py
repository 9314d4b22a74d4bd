"""Inference of sparse models in every form, beside the dense one: milliseconds, bytes and multiply-accumulates.

python benchmarks/untrained_inference.py                                   # a minute, 1 thread
python benchmarks/untrained_inference.py --out inference.csv --out inference.md

Tickets: untrained GCNs of 2 x 256 for Cora, whose masks are searched for a few epochs at each sparsity. `dense` is
PyG's model with zeros in its weights; what the other forms are is said by `graphsparse.nn.inference_form`, and * marks
the one that `graphsparse.nn.fastest_form` chooses. Layers: one linear layer over dense input, weights at random places;
`torch CSR` is torch's own product with a weight in compressed rows. "sparsity" is that of all parameters, "kB" what
parameters and buffers take, "M MACs" the millions of multiply-accumulates that are carried out, zeros in dense tensors
included. Every form is compared with the dense one before it is timed.
"""

import argparse
import csv
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCN

from graphsparse.datasets import load, synthetic_citation
from graphsparse.metrics import weight_sparsity
from graphsparse.nn import Supermask, accelerate, fastest_form

COLUMNS = ("what", "sparsity", "form", "ms", "kB", "M MACs", "chosen")


def ticket(data, sparsity, hidden, epochs):
    """Return a plain model with the weights of an untrained ticket."""
    torch.manual_seed(0)
    model = GCN(data.num_features, hidden, 2, int(data.y.max()) + 1, dropout=0.5)
    masked = Supermask(
        accelerate(model), sparsity, law="signed_constant", transform="abs", scaled=True, total_steps=epochs
    )
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


def rows_of(what, choice):
    """Return the figures of a choice as rows of the table."""
    for row in choice.rows():
        macs = row["multiply_accumulates"]
        yield {
            "what": what,
            "sparsity": round(row["sparsity"], 4),
            "form": row["form"],
            "ms": row["left_out"] or round(row["milliseconds"], 3),
            "kB": None if row["bytes"] is None else round(row["bytes"] / 1e3, 1),
            "M MACs": None if macs is None else round(macs / 1e6, 2),
            "chosen": "*" if row["chosen"] else "",
        }


def layer_rows(width, density, num_rows, budget):
    """Return the rows of a single layer, and one for torch's own sparse product."""
    generator = torch.Generator().manual_seed(1)
    data = Data(x=torch.randn(num_rows, width, generator=generator))
    plain, what = layer(width, density), f"layer {width} x {width}, density {density:g}"
    yield from rows_of(what, fastest_form(plain, data, budget=budget, call=on_features))
    torch_csr = TorchCSR(plain)
    with torch.no_grad():
        torch.testing.assert_close(torch_csr(data.x), plain(data.x), rtol=1e-4, atol=1e-4)
    # The only form there is of a layer without parameters: this times it as the others were.
    (row,) = rows_of(what, fastest_form(torch_csr, data, ["dense"], budget=budget / 4, call=on_features))
    weight = torch_csr.weight
    held = (weight.values(), weight.crow_indices(), weight.col_indices(), torch_csr.bias)
    kilobytes = round(sum(part.nbytes for part in held) / 1e3, 1)
    yield row | {"sparsity": round(weight_sparsity(plain), 4), "form": "torch CSR", "kB": kilobytes, "chosen": ""}


def on_features(model, data):
    return model(data.x)


def as_markdown(rows):
    """Return the table in Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---:|---|---:|---:|---:|---|"]
    for row in rows:
        shown = ["" if row[name] is None else row[name] for name in COLUMNS]
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
            choice = fastest_form(ticket(data, sparsity, args.hidden, args.epochs), data, budget=args.budget)
            rows += rows_of(f"GCN 2 x {args.hidden}", choice)
        for width in args.width:
            for density in args.density:
                rows += layer_rows(width, density, args.rows, args.budget)
    finally:
        torch.set_num_threads(threads)
    print(as_markdown(rows))
    print(f"\ntorch {torch.__version__}, {args.threads} thread(s), medians")
    for path in args.out:
        write(path, rows)
    return rows


if __name__ == "__main__":
    main()
