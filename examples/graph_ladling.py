"""Train several GNNs apart, look whether they fit together, and merge them into one of the same cost.

python examples/graph_ladling.py --data cora --workers 2
python examples/graph_ladling.py --data ogbn-arxiv-structure --net SAGE --sampler cluster --num-parts 200 --epochs 12

The same command goes on where it was stopped: finished ingredients are found in the store. On several machines that
reach the same folder, start a Ray cluster (`ray start`) and give `--backend ray`.
"""

import argparse
from pathlib import Path

import torch
import torch_geometric.nn

from graphsparse.datasets import load
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

NETS = {"GCN": "GCN", "SAGE": "GraphSAGE", "GAT": "GAT"}
SAMPLERS = ("full", "cluster", "neighbor", "random_node")


def main(argv=None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic", help="name of a data set, see graphsparse.datasets.load")
    parser.add_argument("--net", default="GCN", choices=list(NETS))
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--num", type=int, default=8, help="number of ingredients")
    parser.add_argument("--sampler", default="full", choices=SAMPLERS)
    parser.add_argument("--num-parts", type=int, default=32, help="clusters, of which an eighth makes a batch")
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--backend", default="local", choices=["here", "local", "ray"])
    parser.add_argument("--workers", type=int, help="ingredients trained at once, by other processes")
    parser.add_argument("--granularity", type=int, default=20, help="ratios of the interpolation soup")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path("out/ingredients"))
    parser.add_argument("--out", type=Path, default=Path("out/soup.pt"))
    parser.add_argument("--plot", type=Path, help="draw how the ingredients differ into this file")
    parser.add_argument("--fast", action="store_true", help="a few epochs of small networks, to try the script")
    args = parser.parse_args(argv)
    if args.fast:
        args.epochs, args.hidden, args.num, args.backend, args.granularity = 5, 16, 3, "here", 5

    data = load(args.data)
    print(f"{args.data}: {data}")
    net = getattr(torch_geometric.nn, NETS[args.net])

    def make_model():
        return net(data.num_features, args.hidden, args.layers, data.num_classes, dropout=0.5)

    options = {"cluster": {"num_parts": args.num_parts, "parts_per_batch": max(1, args.num_parts // 8)}}
    options["neighbor"] = {"num_neighbors": [10] * args.layers}
    store = train_ingredients(
        make_model,
        data,
        args.num,
        args.store / f"{args.data}_{args.net}_{args.hidden}x{args.layers}_{args.seed}",
        sampler=args.sampler,
        sampler_options=options.get(args.sampler),
        training=Training(epochs=args.epochs, seed=args.seed, progress=True),
        workers=Workers(args.backend, num=args.workers),
    )
    validation = Evaluator(make_model(), data)
    diagnosis = diagnose(store, validation)
    print(diagnosis)
    if args.plot is not None:
        diagnosis.plot(args.plot)
    soups = {
        "uniform soup": uniform_soup(store, validation),
        "greedy soup": greedy_soup(store, validation),
        "interpolation soup": interpolation_soup(store, validation, granularity=args.granularity, progress=True),
        "learned soup": learned_soup(store, validation, progress=True),
    }
    # Chosen on validation nodes; test labels are read below, once.
    chosen = max(soups, key=lambda name: validation.score(soups[name].state_dict))
    with atomic_write(args.out) as temporary:
        torch.save(soups[chosen].state_dict, temporary)

    test = Evaluator(make_model(), data, "test_mask", batch_norm="keep")
    reference = ensemble(store, test)
    best = max(range(len(store)), key=lambda i: store.scores[i])
    tests = {"mean ingredient": sum(reference.ingredient_scores) / len(store)}
    tests |= {"best ingredient": reference.ingredient_scores[best], f"ensemble of {len(store)}": reference.score}
    tests |= {name: test.score(soup.state_dict) for name, soup in soups.items()}
    print(
        "\n".join([f"{'test accuracy %':>40}", *(f"  {name:<28}{100 * value:>10.1f}" for name, value in tests.items())])
    )
    print(f"{args.out}: {chosen}, evaluated the {validation.mode} way {validation.reason}".rstrip())
    return {**tests, "soup": tests[chosen]}


if __name__ == "__main__":
    main()
