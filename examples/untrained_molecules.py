"""Find an untrained ticket for molecules: a mask under which a network with random weights tells their properties.

python examples/untrained_molecules.py --data ogbg-molbace --sparsity 0.5 --epochs 50
python examples/untrained_molecules.py --data ogbg-molbace --preset multicoated --hidden 448 --epochs 200 --lr 0.015

Atoms are embedded by OGB's encoder, of whose tables whole columns are masked; atoms are averaged to a molecule. The
figures are those of OGB's evaluator: ROC-AUC, or the error of a regression.
"""

import argparse
from pathlib import Path

import torch
import torch_geometric.nn
from ogb.graphproppred.mol_encoder import AtomEncoder
from torch_geometric.loader import DataLoader

from graphsparse.datasets import load_ogb
from graphsparse.tickets import Ticket, Untrained, compare_tickets, find_ticket
from graphsparse.training import GraphTask, Training

NETS = {"GCN": "GCN", "GIN": "GIN", "GAT": "GAT", "SAGE": "GraphSAGE"}


class MoleculeNet(torch.nn.Module):
    """Embed atoms, pass messages, average over each molecule, answer."""

    def __init__(self, net, hidden, layers, num_tasks):
        super().__init__()
        self.atoms = AtomEncoder(hidden)
        self.gnn = getattr(torch_geometric.nn, NETS[net])(hidden, hidden, layers)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ogbg-molbace", help="a set of molecules of OGB, downloaded if need be")
    parser.add_argument("--net", default="GCN", choices=list(NETS))
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--sparsity", type=float, default=0.5, help="fraction of the weights to remove")
    parser.add_argument("--preset", default="ugt", choices=("ugt", "edge_popup", "edge_popup_original", "multicoated"))
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--lr", type=float, default=0.015)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--compare", nargs="*", default=["random_untrained"], help="methods, beside the dense model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, help="folder from which a search that was stopped goes on")
    parser.add_argument("--out", type=Path, default=Path("out/ticket.safetensors"))
    parser.add_argument("--fast", action="store_true", help="a few epochs of a small network, to try the script")
    args = parser.parse_args(argv)
    if args.fast:
        args.epochs, args.hidden = 2, 16

    graphs, evaluator = load_ogb(args.data)
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

    # What a user of the ticket does: the file and the code of the model are all it takes, and any molecules.
    model, loaded = (t.materialize(make_model) for t in (ticket, Ticket.load(args.out)))
    unseen = graphs[graphs.get_idx_split()["test"]]
    before, after = (predict_graphs(m, unseen) for m in (model, loaded))
    if not torch.equal(before, after):
        raise RuntimeError(f"the logits of {args.out} differ from those of the ticket that was saved")
    test = evaluator.eval({"y_true": unseen.y.view(after.shape), "y_pred": after})[metric]
    dense, size = sum(tensor.nbytes for tensor in ticket.state_dict.values()), args.out.stat().st_size
    print(f"{args.out}: {size / 1e3:.1f} kB, dense weights {dense / 1e3:.1f} kB")
    print(f"same logits after loading, test {metric} {test:.4f}")
    return {**tests, "loaded ticket": float(test)}


if __name__ == "__main__":
    main()
