"""Train a network on each part of a graph, where nobody sees another part, and make one network of them by one message.

python examples/merge_parts.py --data cora --parts 4
python examples/merge_parts.py --data ogbn-arxiv-structure --net SAGE --parts 64 --epochs 20 --backend ray

Each network starts from weights of its own, and is trained on the nodes, edges and labels of its part alone. Then it
sends its weights and a Gram matrix for each of its maps, once, and the merge needs no graph and no label. The same
command goes on where it was stopped. On several machines that reach the same folder, start a Ray cluster (`ray start`)
and give `--backend ray`. The plot shows what the networks reach, and what a machine sends.
"""

import time
import warnings
from pathlib import Path

import common
import torch

from graphsparse.nn import layerwise_inference
from graphsparse.plotting import plot_bars
from graphsparse.soups import Workers, combine, merge, train_ingredients, write_statistics
from graphsparse.training import Training


def main(argv=None) -> dict[str, float]:
    parser = common.arguments(__doc__, plot="out/merge_parts.png")
    parser.add_argument("--net", type=common.net, default="SAGE", help="GCN, SAGE or GIN of PyG")
    parser.add_argument("--hidden", type=common.count, default=64)
    parser.add_argument("--layers", type=common.count, default=2)
    parser.add_argument("--parts", type=common.count, default=4, help="parts of the graph, with a network each")
    parser.add_argument("--epochs", type=common.count, default=100)
    parser.add_argument("--backend", default="local", choices=["here", "local", "ray"])
    parser.add_argument("--workers", type=common.count, help="networks trained at once, by other processes")
    parser.add_argument("--store", type=Path, default=Path("out/parts"))
    args = parser.parse_args(argv)
    if args.fast:
        args.epochs, args.hidden, args.parts, args.backend = 5, 16, 3, "here"

    data = common.load_by_name(parser, args.data, one_class=True)
    print(f"{args.data}: {data}")
    # Workers get the function that makes a model: it holds these and not the graph.
    net, sizes = args.net, (data.num_features, args.hidden, args.layers, data.num_classes)

    def make_model():
        return net(*sizes, dropout=0.5)

    folder = args.store / f"{args.data}_{net.__name__}_{args.hidden}x{args.layers}_{args.seed}"
    training = Training(epochs=args.epochs, seed=args.seed, progress=True)
    workers = Workers(args.backend, num=args.workers)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "init='independent'")  # no mean is to be taken of them, but for comparison
        store = train_ingredients(
            make_model,
            data,
            args.parts,
            folder / "parts",
            sampler="own_part",
            init="independent",
            training=training,
            workers=workers,
        )
    one = train_ingredients(make_model, data, 1, folder / "everything", training=training, workers=workers)

    begin = time.perf_counter()
    write_statistics(store, make_model(), workers=workers, progress=True)
    sums = time.perf_counter() - begin
    begin = time.perf_counter()
    merged = merge(store, make_model(), method="gnnmerge").state_dict  # without the graph
    solving = time.perf_counter() - begin
    begin = time.perf_counter()
    mean = combine(store, torch.full((len(store),), 1 / len(store)))
    mixing = time.perf_counter() - begin

    best = max(range(len(store)), key=lambda i: store.scores[i])
    trained = [store.meta(i)["seconds"] for i in range(len(store))]
    found = {
        "best network on its own part": (store[best], trained[best]),
        "mean of weights": (mean, mixing),
        "merged": (merged, sums + solving),
        "one network on everything": (one[0], one.meta(0)["seconds"]),
    }
    tests = {}
    print(f"{'':<32}{'test accuracy %':>16}{'seconds':>10}")
    for name, (state, seconds) in found.items():
        model = make_model()
        model.load_state_dict(state)
        right = layerwise_inference(model, data).argmax(1) == data.y
        tests[name] = float(right[data.test_mask].float().mean())
        print(f"{name:<32}{100 * tests[name]:>16.1f}{seconds:>10.2f}")
    print(f"training of the {len(store)} networks: {sum(trained):.1f} seconds in all, {max(trained):.1f} the longest;")
    print(f"seconds of merged: {sums:.1f} for the sums of all networks, {solving:.1f} for the solution")

    weights = sum(value.numel() * value.element_size() for value in store[0].values())
    statistics = sum(value.numel() * value.element_size() for value in store.statistics(0)[0].values())
    sent = {"merged": weights + statistics, "trained together": weights * args.epochs}
    print(f"sent by a machine: {weights / 1e6:.2f} MB of weights and {statistics / 1e6:.2f} MB of Gram matrices, once;")
    print(
        f"by one that trains together with others, {sent['trained together'] / 1e6:.2f} MB: a gradient in each epoch,"
    )
    print("and besides, not counted, what lies at the other end of edges between parts, in each layer")
    plot_bars(
        args.plot,
        {
            args.data: {name: 100 * value for name, value in tests.items()},
            "sent": {k: v / 1e6 for k, v in sent.items()},
        },
        labels={args.data: "test accuracy (%)", "sent": "sent by a machine (MB)"},
        marked=["merged"],
    )
    print(f"plot: {args.plot}")
    return {**tests, **{f"bytes sent, {name}": float(value) for name, value in sent.items()}}


if __name__ == "__main__":
    main()
