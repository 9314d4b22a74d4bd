"""Train several GNNs apart, look whether they fit together, and merge them into one of the same cost.

python examples/graph_ladling.py --data cora --workers 2
python examples/graph_ladling.py --data ogbn-arxiv-structure --net SAGE --sampler cluster --num-parts 200 --epochs 12

The same command goes on where it was stopped: finished ingredients are found in the store. On several machines that
reach the same folder, start a Ray cluster (`ray start`) and give `--backend ray`. One plot shows how the ingredients
differ, the other what they and their soups reach.
"""

from pathlib import Path

import common
from safetensors.torch import save_file

from graphsparse.plotting import plot_bars
from graphsparse.soups import (
    Evaluator,
    Workers,
    diagnose,
    ensemble,
    greedy_soup,
    interpolation_soup,
    learned_soup,
    train_ingredients,
    uniform_soup,
)
from graphsparse.training import Training
from graphsparse.utils.files import atomic_write

SAMPLERS = ("full", "cluster", "neighbor", "random_node")


def main(argv=None) -> dict[str, float]:
    parser = common.arguments(__doc__, plot="out/soups.png")
    parser.add_argument("--net", type=common.net, default="GCN", help="GCN, SAGE, GIN or GAT of PyG")
    parser.add_argument("--hidden", type=common.count, default=64)
    parser.add_argument("--layers", type=common.count, default=2)
    parser.add_argument("--num", type=common.count, default=8, help="number of ingredients")
    parser.add_argument("--sampler", default="full", choices=SAMPLERS)
    parser.add_argument("--num-parts", type=common.count, default=32, help="clusters, of which an eighth makes a batch")
    parser.add_argument("--epochs", type=common.count, default=150)
    parser.add_argument("--backend", default="local", choices=["here", "local", "ray"])
    parser.add_argument("--workers", type=common.count, help="ingredients trained at once, by other processes")
    parser.add_argument("--granularity", type=common.count, default=20, help="ratios of the interpolation soup")
    parser.add_argument("--store", type=Path, default=Path("out/ingredients"))
    parser.add_argument("--out", type=common.out_file, default=Path("out/soup.safetensors"))
    args = parser.parse_args(argv)
    if args.fast:
        args.epochs, args.hidden, args.num, args.backend, args.granularity = 5, 16, 3, "here", 5

    data = common.load_by_name(parser, args.data, one_class=True)
    print(f"{args.data}: {data}")
    # Workers get the function that makes a model: it holds these and not the graph.
    net, sizes = args.net, (data.num_features, args.hidden, args.layers, data.num_classes)

    def make_model():
        return net(*sizes, dropout=0.5)

    options = {"cluster": {"num_parts": args.num_parts, "parts_per_batch": max(1, args.num_parts // 8)}}
    options["neighbor"] = {"num_neighbors": [10] * args.layers}
    store = train_ingredients(
        make_model,
        data,
        args.num,
        args.store / f"{args.data}_{net.__name__}_{args.hidden}x{args.layers}_{args.seed}",
        sampler=args.sampler,
        sampler_options=options.get(args.sampler),
        training=Training(epochs=args.epochs, seed=args.seed, progress=True),
        workers=Workers(args.backend, num=args.workers),
    )
    validation = Evaluator(make_model(), data)
    diagnosis = diagnose(store, validation)
    print(diagnosis)
    ingredients_plot = args.plot.with_stem(f"{args.plot.stem}_ingredients")
    diagnosis.plot(ingredients_plot)
    soups = {
        "uniform soup": uniform_soup(store, validation),
        "greedy soup": greedy_soup(store, validation),
        "interpolation soup": interpolation_soup(store, validation, granularity=args.granularity, progress=True),
        "learned soup": learned_soup(store, validation, progress=True),
    }
    # Chosen on validation nodes; test labels are read below, once.
    chosen = max(soups, key=lambda name: validation.score(soups[name].state_dict))
    with atomic_write(args.out) as temporary:
        save_file(soups[chosen].state_dict, temporary)

    test = Evaluator(make_model(), data, "test_mask", batch_norm="keep")
    reference = ensemble(store, test)
    best = max(range(len(store)), key=lambda i: store.scores[i])
    tests = {"mean ingredient": sum(reference.ingredient_scores) / len(store)}
    tests |= {"best ingredient": reference.ingredient_scores[best], f"ensemble of {len(store)}": reference.score}
    tests |= {name: test.score(soup.state_dict) for name, soup in soups.items()}
    percent = {name: 100 * value for name, value in tests.items()}
    print("\n".join([f"{'test accuracy %':>40}", *(f"  {name:<28}{value:>10.1f}" for name, value in percent.items())]))
    plot_bars(args.plot, {args.data: percent}, labels={args.data: "test accuracy (%)"}, marked=[chosen])
    how = "from aggregations that were kept" if validation.mode == "cached" else f"by plain passes, {validation.reason}"
    print(f"{args.out}: the {chosen}, best on validation nodes; soups were scored {how}")
    print(f"plots: {args.plot}, {ingredients_plot}")
    return {**tests, "soup": tests[chosen]}


if __name__ == "__main__":
    main()
