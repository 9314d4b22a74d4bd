"""Find one TEDDY ticket on any data set with any PyG model, save it, load it, and use it.

python examples/teddy.py --data cora --model GCN --edges 0.4 --weights 0.65 --out ticket.safetensors
"""

import argparse
from pathlib import Path

import torch_geometric.nn

from graphsparse.datasets import load
from graphsparse.metrics import accuracy
from graphsparse.tickets import L0, Distillation, OneShot, Ticket, find_ticket
from graphsparse.training import Training, build_model, fit, predict


def main(argv=None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic", help="name of a data set, see graphsparse.datasets.load")
    parser.add_argument("--model", default="GCN", help="a model of torch_geometric.nn: GCN, GIN, GAT, GraphSAGE, ...")
    parser.add_argument("--edges", type=float, default=0.4, help="fraction of the edges to remove")
    parser.add_argument("--weights", type=float, default=0.65, help="fraction of the weights to remove")
    parser.add_argument("--score", default="teddy", help="edge score, see graphsparse.edges.edge_score")
    parser.add_argument("--distill", type=float, default=10.0, help="weight of the distillation on training nodes")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/ticket.safetensors"))
    parser.add_argument("--fast", action="store_true", help="a few epochs, to try the script")
    args = parser.parse_args(argv)
    if args.fast:
        args.epochs = 5

    data = load(args.data)
    print(f"{args.data}: {data}")
    net = getattr(torch_geometric.nn, args.model, None)
    if net is None:
        parser.error(f"torch_geometric.nn has no model {args.model!r}")

    def make_model():
        return net(data.num_features, args.hidden, args.layers, data.num_classes, dropout=args.dropout)

    training = Training(epochs=args.epochs, seed=args.seed, progress=True)
    dense = fit(build_model(make_model, args.seed), data, training)
    ticket = find_ticket(
        make_model,
        data,
        edge_sparsity=args.edges,
        weight_sparsity=args.weights,
        method=OneShot(args.score, L0()),
        training=training,
        distillation=Distillation(weight=args.distill, teacher=dense.logits),
    )
    ticket.save(args.out)
    print(f"dense model: test accuracy {100 * dense.test:.1f} %")
    print(ticket.summary())

    # What a user of the ticket does: the file, the code of the model and the graph are all it takes.
    ticket = Ticket.load(args.out)
    model, sparse = ticket.materialize(make_model), ticket.sparsify(data)
    test = accuracy(predict(model, sparse), data.y, data.test_mask)
    print(f"{args.out}: {args.out.stat().st_size / 1e3:.1f} kB, test accuracy after loading {100 * test:.1f} %")
    return {"dense": dense.test, "ticket": test}


if __name__ == "__main__":
    main()
