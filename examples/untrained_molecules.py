"""Find an untrained ticket for molecules: a mask under which a network with random weights tells their properties.

python examples/untrained_molecules.py --data ogbg-molbace --sparsity 0.5 --epochs 50
python examples/untrained_molecules.py --data ogbg-molbace --preset multicoated --hidden 448 --epochs 200 --lr 0.015

Atoms are embedded by OGB's encoder, of whose tables whole columns are masked; atoms are averaged to a molecule. The
figures are those of OGB's evaluator: ROC-AUC or average precision, of which more is better, or the error of a
regression. The plot has a bar for the ticket, the dense model, and whatever `--compare` names.
"""

from pathlib import Path

import common
import torch
import torch_geometric.nn
from ogb.graphproppred.mol_encoder import AtomEncoder
from torch_geometric.loader import DataLoader

from graphsparse.datasets import load_ogb
from graphsparse.plotting import plot_bars
from graphsparse.tickets import Ticket, Untrained, compare_tickets, find_ticket
from graphsparse.training import GraphTask, Training

COMPARED = ("random_untrained", "random", "magnitude", "iterative_magnitude")


class MoleculeNet(torch.nn.Module):
    """Embed atoms, pass messages, average over each molecule, answer."""

    def __init__(self, net, hidden, layers, num_tasks):
        super().__init__()
        self.atoms = AtomEncoder(hidden)
        self.gnn = net(hidden, hidden, layers)
        self.answer = torch.nn.Linear(hidden, num_tasks)

    def forward(self, x, edge_index, batch, batch_size=None):
        """Return one row of logits per molecule."""
        x = self.gnn(self.atoms(x), edge_index).relu()
        return self.answer(torch_geometric.nn.global_mean_pool(x, batch, batch_size))


def predict_graphs(model, graphs):
    """Return the logits of graphs."""
    with torch.no_grad():
        batches = DataLoader(graphs, batch_size=512)
        return torch.cat([model(b.x, b.edge_index, b.batch, b.num_graphs) for b in batches])


def main(argv=None) -> dict[str, float]:
    parser = common.arguments(__doc__, data="ogbg-molbace", plot="out/untrained_molecules.png")
    parser.add_argument("--net", type=common.net, default="GCN", help="GCN, SAGE, GIN or GAT of PyG")
    parser.add_argument("--hidden", type=common.count, default=256)
    parser.add_argument("--layers", type=common.count, default=3)
    parser.add_argument("--sparsity", type=common.fraction, default=0.5, help="fraction of the weights to remove")
    parser.add_argument("--preset", default="ugt", choices=("ugt", "edge_popup", "edge_popup_original", "multicoated"))
    parser.add_argument("--epochs", type=common.count, default=50)
    parser.add_argument("--lr", type=float, default=0.015)
    parser.add_argument("--batch-size", type=common.count, default=64)
    parser.add_argument("--compare", nargs="*", default=["random_untrained"], choices=COMPARED)
    parser.add_argument("--checkpoint", type=Path, help="folder from which a search that was stopped goes on")
    parser.add_argument("--out", type=common.out_file, default=Path("out/ticket.safetensors"))
    args = parser.parse_args(argv)
    if args.fast:
        args.epochs, args.hidden = 2, 16

    if not args.data.startswith("ogbg-mol"):
        parser.error(f"--data must be one of OGB's sets of molecules, ogbg-mol... (got {args.data!r})")
    try:
        graphs, evaluator = load_ogb(args.data)
    except (ValueError, OSError) as error:
        parser.error(f"--data: {error}")
    print(f"{args.data}: {len(graphs)} graphs, {graphs.num_tasks} tasks")

    def make_model():
        return MoleculeNet(args.net, args.hidden, args.layers, graphs.num_tasks)

    task = GraphTask(graphs, metric=evaluator, batch_size=args.batch_size)
    training = Training(epochs=args.epochs, seed=args.seed, progress=True, checkpoint=args.checkpoint)
    method = Untrained(args.preset, epochs=args.epochs, lr=args.lr)
    ticket = find_ticket(make_model, task, weight_sparsity=args.sparsity, method=method, training=training)
    ticket.save(args.out)
    metric, tests = task.metric, {"untrained ticket": ticket.metrics["test"]}
    rows = compare_tickets(make_model, task, args.compare, weight_sparsity=args.sparsity, training=training)
    tests |= {row["method"].replace("_", " "): row["test"] for row in rows}
    for name, test in tests.items():
        print(f"test {metric}, {name:<24}{test:>8.4f}")
    plot_bars(args.plot, {args.data: tests}, labels={args.data: f"test {metric}"}, marked=["untrained ticket"])

    # What a user of the ticket does: the file and the code of the model are all it takes, and any molecules.
    model, loaded = (t.materialize(make_model) for t in (ticket, Ticket.load(args.out)))
    unseen = graphs[graphs.get_idx_split()["test"]]
    before, after = (predict_graphs(m, unseen) for m in (model, loaded))
    if not torch.equal(before, after):
        raise RuntimeError(f"the logits of {args.out} differ from those of the ticket that was saved")
    test = evaluator.eval({"y_true": unseen.y.view(after.shape), "y_pred": after})[metric]
    dense, size = sum(tensor.nbytes for tensor in ticket.state_dict.values()), args.out.stat().st_size
    print(f"{args.out}: {size / 1e3:.1f} kB, dense weights {dense / 1e3:.1f} kB")
    print(f"same logits after loading, test {metric} {test:.4f}\nplot: {args.plot}")
    return {**tests, "loaded ticket": float(test)}


if __name__ == "__main__":
    main()
