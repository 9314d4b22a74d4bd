"""Thin out a graph by every sparsifier, train the same network on what is left, and see what each keeps.

python examples/sparsify.py --data cora --sparsity 0.7 --model GCN
python examples/sparsify.py --data ogbn-arxiv --sparsity 0.5 --methods random k_neighbor local_degree dspar

The table has the accuracy of the network, the share of the edges that are left, of the nodes in the largest component
and of isolated nodes, and the time that choosing the edges took. All leave the same number of edges but the two that
draw with replacement, whose number is random.
"""

import time

import common
import torch
from scipy import sparse

from graphsparse.edges import SPARSIFIERS, sparsifier
from graphsparse.plotting import plot_bars
from graphsparse.training import Training, build_model, fit
from graphsparse.transforms import SparsifyEdges


def connected(data):
    """Return the share of the nodes in the largest component, and that of isolated nodes."""
    row, col = data.edge_index.numpy()
    matrix = sparse.coo_array((torch.ones(row.size).numpy(), (row, col)), shape=(data.num_nodes,) * 2)
    count = torch.from_numpy(sparse.csgraph.connected_components(matrix, directed=False)[1]).bincount()
    alone = torch.ones(data.num_nodes, dtype=torch.bool)
    alone[data.edge_index[:, data.edge_index[0] != data.edge_index[1]].flatten()] = False
    return float(count.max()) / data.num_nodes, float(alone.float().mean())


def thin_out(data, name, model, args):
    """Return the graph that a sparsifier leaves; without new weights where the model takes none."""
    method = SPARSIFIERS[name]
    if method.reweights and not getattr(model, "supports_edge_weight", False):
        method = sparsifier(name, reweight=False)
    return SparsifyEdges(args.sparsity, method, args.seed)(data)


def main(argv=None) -> dict[str, float]:
    parser = common.arguments(__doc__, plot="out/sparsify.png")
    parser.add_argument("--model", type=common.net, default="GCN", help="GCN, SAGE, GIN or GAT of PyG")
    parser.add_argument("--sparsity", type=common.fraction, default=0.5, help="fraction of the edges to remove")
    parser.add_argument("--methods", nargs="+", choices=sorted(SPARSIFIERS), default=list(SPARSIFIERS), metavar="NAME")
    parser.add_argument("--hidden", type=common.count, default=64)
    parser.add_argument("--layers", type=common.count, default=2)
    parser.add_argument("--epochs", type=common.count, default=200)
    args = parser.parse_args(argv)
    if args.fast:
        args.epochs = 5
    data = common.load_by_name(parser, args.data)
    print(f"{args.data}: {data}")

    def make_model():
        sizes = (data.num_features, args.hidden, args.layers, common.num_outputs(data))
        return args.model(*sizes, dropout=0.5)

    tests, shares = {}, {}
    for name in [None, *args.methods]:
        title, start = name or "all edges", time.perf_counter()
        try:
            graph = data if name is None else thin_out(data, name, args.model, args)
        except ValueError as error:  # a core that is larger than what may stay
            print(f"{title:<20} left out: {error}")
            continue
        seconds = time.perf_counter() - start
        training = Training(epochs=args.epochs, seed=args.seed, progress=title)
        result = fit(build_model(make_model, args.seed), common.node_task(graph), training)
        tests[title], (shares[title], alone) = result.test, connected(graph)
        kept = graph.num_edges / data.num_edges
        print(
            f"{title:<20}{result.metric} {result.test:.4f}, {kept:6.1%} of the edges, largest component "
            f"{shares[title]:6.1%}, isolated {alone:6.1%}, {seconds:.2f} s"
        )
    titles = {f"test {result.metric}": tests, "share of the largest component": shares}
    plot_bars(args.plot, titles, marked=["all edges"])
    print(f"plot: {args.plot}")
    return tests


if __name__ == "__main__":
    main()
