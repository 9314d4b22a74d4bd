"""Find one TEDDY ticket on any data set with a PyG model, beside what it must beat; save it, load it, and use it.

python examples/teddy.py --data cora --model GCN --edges 0.4 --weights 0.65 --out ticket.safetensors
python examples/teddy.py --data ogbn-arxiv --model SAGE --edges 0.6 --hidden 256 --layers 3

The plot has a bar for the dense model, the ticket, a random ticket of the same sparsity, and a model without any edge.
"""

from pathlib import Path

import common
import torch
from torch_geometric.data import Data

from graphsparse.nn import accelerate
from graphsparse.plotting import plot_bars
from graphsparse.tickets import L0, Distillation, Fixed, OneShot, Ticket, find_ticket
from graphsparse.training import Training, build_model, fit, predict


def main(argv=None) -> dict[str, float]:
    parser = common.arguments(__doc__, plot="out/teddy.png")
    parser.add_argument("--model", type=common.net, default="GCN", help="GCN, SAGE, GIN or GAT of PyG")
    parser.add_argument("--edges", type=common.fraction, default=0.4, help="fraction of the edges to remove")
    parser.add_argument("--weights", type=common.fraction, default=0.65, help="fraction of the weights to remove")
    parser.add_argument("--score", default="teddy", help="edge score, see graphsparse.edges.edge_score")
    parser.add_argument("--distill", type=float, default=10.0, help="weight of the distillation on training nodes")
    parser.add_argument("--hidden", type=common.count, default=64)
    parser.add_argument("--layers", type=common.count, default=2)
    parser.add_argument("--dropout", type=common.fraction, default=0.5)
    parser.add_argument("--epochs", type=common.count, default=200)
    parser.add_argument("--out", type=common.out_file, default=Path("out/ticket.safetensors"))
    args = parser.parse_args(argv)
    if args.fast:
        args.epochs = 5
    try:
        methods = {"TEDDY ticket": OneShot(args.score, L0()), "random ticket": OneShot("random", Fixed())}
    except ValueError as error:
        parser.error(str(error))
    data = common.load_by_name(parser, args.data)
    task, num_outputs = common.node_task(data), common.num_outputs(data)
    print(f"{args.data}: {data}")

    def make_model():
        return args.model(data.num_features, args.hidden, args.layers, num_outputs, dropout=args.dropout)

    def named(name):
        return Training(epochs=args.epochs, seed=args.seed, progress=name)

    dense = fit(build_model(make_model, args.seed), task, named("dense model"))
    tests = {"dense model": dense.test}
    tickets = {}
    empty = common.node_task(Data(**{**data.to_dict(), "edge_index": data.edge_index[:, :0]}))
    for name, graph in [("TEDDY ticket", task), ("random ticket", task), ("no edges", empty)]:
        tickets[name] = find_ticket(
            make_model,
            graph,
            edge_sparsity=args.edges if graph is task else 0.0,
            weight_sparsity=args.weights,
            method=methods.get(name, methods["TEDDY ticket"]),
            training=named(name),
            distillation=Distillation(weight=args.distill, teacher=dense.logits),
        )
        tests[name] = tickets[name].metrics["test"]
    tickets["TEDDY ticket"].save(args.out)
    print(tickets["TEDDY ticket"].summary())
    print("\n".join(f"test {dense.metric}, {name:<16}{test:>8.4f}" for name, test in tests.items()))
    title = f"{args.data}, {100 * args.edges:g} % of edges and {100 * args.weights:g} % of weights removed"
    plot_bars(args.plot, {title: tests}, labels={title: f"test {dense.metric}"}, marked=["TEDDY ticket"])

    # What a user of the ticket does: the file, the code of the model and the graph are all it takes.
    ticket = Ticket.load(args.out)
    before, after = (
        predict(accelerate(t.materialize(make_model)), t.sparsify(data)) for t in (tickets["TEDDY ticket"], ticket)
    )
    if not torch.equal(before, after):
        raise RuntimeError(f"the logits of {args.out} differ from those of the ticket that was saved")
    print(f"{args.out}: {args.out.stat().st_size / 1e3:.1f} kB, same logits after loading\nplot: {args.plot}")
    return tests


if __name__ == "__main__":
    main()
