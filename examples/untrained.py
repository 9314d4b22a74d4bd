"""Find an untrained ticket: a mask under which a network with random weights works, saved as a seed and bits.

python examples/untrained.py --data cora --net GCN --sparsity 0.9 --out ticket.safetensors
python examples/untrained.py --data cora --preset multicoated --coats 5 --sparsity 0.5
python examples/untrained.py --data ogbn-arxiv-structure --layers 4 --hidden 386 --checkpoint search  # hours

With `--checkpoint` a search that was stopped goes on when the same command is given again. `--compare` names what is
trained, or drawn by chance, with masks of the same sparsity; the dense model is always there.
"""

import argparse
from pathlib import Path

import torch
import torch_geometric.nn

from graphsparse.datasets import load
from graphsparse.metrics import accuracy
from graphsparse.nn import accelerate
from graphsparse.tickets import Ticket, Untrained, compare_tickets, find_ticket
from graphsparse.training import Training, predict

NETS = {"GCN": "GCN", "GIN": "GIN", "GAT": "GAT", "SAGE": "GraphSAGE"}
PRESETS = ("ugt", "edge_popup", "edge_popup_original", "multicoated")
COMPARED = ("random_untrained", "random", "magnitude", "iterative_magnitude")


def mask_entropy(ticket):
    """Return the bytes that masks of these frequencies take at the least if nothing else is known about them."""
    masks = [mask.flatten() for mask in ticket.weight_masks.values()]
    counts = torch.cat(masks).long().bincount()  # of removed weights, and of those that one coat keeps, or two, ...
    p = counts[counts > 0] / counts.sum()
    return float(-counts.sum() * (p * p.log2()).sum() / 8)


def table(title, figures):
    """Format one figure per line."""
    return "\n".join([f"{title:>45}", *(f"  {name:<30}{figure:>13,.1f}" for name, figure in figures.items())])


def main(argv=None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic", help="name of a data set, see graphsparse.datasets.load")
    parser.add_argument("--net", default="GCN", choices=list(NETS))
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--sparsity", type=float, default=0.9, help="fraction of the weights to remove")
    parser.add_argument("--preset", default="ugt", choices=PRESETS, help="how to search")
    parser.add_argument("--coats", type=int, help="nested masks whose sum multiplies the weights, for multicoated")
    parser.add_argument("--epochs", type=int, help="instead of those of the preset")
    parser.add_argument("--compare", nargs="*", default=["random_untrained"], choices=COMPARED)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, help="folder from which a search that was stopped goes on")
    parser.add_argument("--out", type=Path, default=Path("out/ticket.safetensors"))
    parser.add_argument("--fast", action="store_true", help="a few epochs of a small network, to try the script")
    args = parser.parse_args(argv)
    if args.fast:
        args.epochs, args.hidden = 5, 16

    data = load(args.data)
    print(f"{args.data}: {data}")
    net = getattr(torch_geometric.nn, NETS[args.net])

    def make_model():
        return net(data.num_features, args.hidden, args.layers, data.num_classes)

    training = Training(epochs=args.epochs or 200, seed=args.seed, progress=True, checkpoint=args.checkpoint)
    method = Untrained(args.preset, coats=args.coats, epochs=args.epochs)
    ticket = find_ticket(make_model, data, weight_sparsity=args.sparsity, method=method, training=training)
    ticket.save(args.out)
    tests = {"untrained ticket": ticket.metrics["test"]}
    rows = compare_tickets(make_model, data, args.compare, weight_sparsity=args.sparsity, training=training)
    tests |= {row["method"].replace("_", " "): row["test"] for row in rows}
    sparsity = ticket.metrics["weight_sparsity"]
    sizes = {
        "dense weights": sum(tensor.nbytes for tensor in ticket.state_dict.values()),
        f"ticket, sparsity {100 * sparsity:.1f} %": args.out.stat().st_size,
        "entropy of its masks": mask_entropy(ticket),
    }
    print(table("test accuracy %", {name: 100 * test for name, test in tests.items()}))
    print(table("kB", {name: size / 1e3 for name, size in sizes.items()}))

    # What a user of the ticket does: the file, the code of the model and the graph are all it takes.
    loaded = Ticket.load(args.out)
    before, after = (predict(accelerate(t.materialize(make_model)), data) for t in (ticket, loaded))
    if not torch.equal(before, after):
        raise RuntimeError(f"the logits of {args.out} differ from those of the ticket that was saved")
    test = accuracy(after, data.y, data.test_mask)
    print(f"{args.out}: same logits after loading, test accuracy {100 * test:.1f} %")
    kilobytes = dict(zip(("dense kB", "ticket kB", "entropy kB"), (size / 1e3 for size in sizes.values()), strict=True))
    return {**tests, "loaded ticket": test, "sparsity": sparsity, **kilobytes}


if __name__ == "__main__":
    main()
