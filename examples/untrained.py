"""Find an untrained ticket: a mask under which a network with random weights works, saved as a seed and bits.

python examples/untrained.py --data cora --net GCN --sparsity 0.9 --out ticket.safetensors
python examples/untrained.py --data cora --preset multicoated --coats 5 --sparsity 0.5
python examples/untrained.py --data ogbn-arxiv --layers 4 --hidden 386 --checkpoint search  # hours

With `--checkpoint` a search that was stopped goes on when the same command is given again. `--compare` names what is
trained, or drawn by chance, with masks of the same sparsity; the dense model is always there. The plot shows their test
figures, and the bytes on disk.
"""

from pathlib import Path

import common
import torch

from graphsparse.nn import accelerate
from graphsparse.plotting import plot_bars
from graphsparse.tickets import Ticket, Untrained, compare_tickets, find_ticket
from graphsparse.training import Training, predict

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
    parser = common.arguments(__doc__, plot="out/untrained.png")
    parser.add_argument("--net", type=common.net, default="GCN", help="GCN, SAGE, GIN or GAT of PyG")
    parser.add_argument("--hidden", type=common.count, default=256)
    parser.add_argument("--layers", type=common.count, default=2)
    parser.add_argument("--sparsity", type=common.fraction, default=0.9, help="fraction of the weights to remove")
    parser.add_argument("--preset", default="ugt", choices=PRESETS, help="how to search")
    parser.add_argument(
        "--coats", type=common.count, help="nested masks whose sum multiplies the weights, for multicoated"
    )
    parser.add_argument("--epochs", type=common.count, help="instead of those of the preset")
    parser.add_argument("--compare", nargs="*", default=["random_untrained"], choices=COMPARED)
    parser.add_argument("--checkpoint", type=Path, help="folder from which a search that was stopped goes on")
    parser.add_argument("--out", type=common.out_file, default=Path("out/ticket.safetensors"))
    args = parser.parse_args(argv)
    if args.fast:
        args.epochs, args.hidden = 5, 16

    try:
        method = Untrained(args.preset, coats=args.coats, epochs=args.epochs)
    except ValueError as error:
        parser.error(str(error))
    data = common.load_by_name(parser, args.data)
    task, num_outputs = common.node_task(data), common.num_outputs(data)
    print(f"{args.data}: {data}")

    def make_model():
        return args.net(data.num_features, args.hidden, args.layers, num_outputs)

    training = Training(epochs=args.epochs or 200, seed=args.seed, progress=True, checkpoint=args.checkpoint)
    ticket = find_ticket(make_model, task, weight_sparsity=args.sparsity, method=method, training=training)
    ticket.save(args.out)
    tests = {"untrained ticket": ticket.metrics["test"]}
    rows = compare_tickets(make_model, task, args.compare, weight_sparsity=args.sparsity, training=training)
    tests |= {row["method"].replace("_", " "): row["test"] for row in rows}
    sparsity = ticket.metrics["weight_sparsity"]
    sizes = {
        "dense weights": sum(tensor.nbytes for tensor in ticket.state_dict.values()),
        f"ticket, sparsity {100 * sparsity:.1f} %": args.out.stat().st_size,
        "entropy of its masks": mask_entropy(ticket),
    }
    percent = {name: 100 * test for name, test in tests.items()}
    shown = {f"test {task.metric} (%)": percent, "size (kB)": {name: size / 1e3 for name, size in sizes.items()}}
    for title, figures in shown.items():
        print(table(title, figures))
    plot_bars(args.plot, shown, marked=["untrained ticket", list(sizes)[1]])

    # What a user of the ticket does: the file, the code of the model and the graph are all it takes.
    loaded = Ticket.load(args.out)
    before, after = (predict(accelerate(t.materialize(make_model)), data) for t in (ticket, loaded))
    if not torch.equal(before, after):
        raise RuntimeError(f"the logits of {args.out} differ from those of the ticket that was saved")
    print(f"{args.out}: same logits after loading\nplot: {args.plot}")
    kilobytes = dict(zip(("dense kB", "ticket kB", "entropy kB"), (size / 1e3 for size in sizes.values()), strict=True))
    return {**tests, "sparsity": sparsity, **kilobytes}


if __name__ == "__main__":
    main()
