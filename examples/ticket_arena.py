"""Find tickets by several methods, sparser and sparser, and see beside the dense model what each is worth and costs.

python examples/ticket_arena.py --data cora --methods ugs rigl teddy
python examples/ticket_arena.py --data citeseer --methods random teddy iterative_magnitude --seeds 3

In a round 5 % of the edges and 20 % of the weights that are left go; a method that prunes edges alone, or weights
alone, is asked for those alone. All start from the same weights and end with the same training; nothing is distilled.
benchmarks/arena.py does this with more methods on more graphs, and docs/arena.md has what came out.
"""

import statistics
import time

import common

from graphsparse.plotting import plot_curves
from graphsparse.tickets import METHODS, OneShot, find_tickets
from graphsparse.training import Training


def targets(method, rounds):
    """Return what is removed after each of some rounds, of what the method prunes."""
    left = {"edges": 0.95, "weights": 0.8}
    # A hair less, so that no rounding of floats makes a further round.
    removed = [[(1 - left[what] ** n - 1e-9) * (what in method.prunes) for what in left] for n in rounds]
    return [tuple(pair) for pair in removed]


def contest(make_model, data, name, args):
    """Return the test metric of the tickets of a method, a list for each target, and what it costs for one seed."""
    method = OneShot() if name == "dense" else METHODS[name]
    wanted = [(0.0, 0.0)] if name == "dense" else targets(method, args.rounds)
    tests, seen, start = [], [], time.process_time()
    for seed in range(args.seed, args.seed + args.seeds):
        training = Training(epochs=args.epochs, seed=seed, progress=name, log=seen.append)
        tickets = find_tickets(make_model, common.node_task(data), targets=wanted, method=method, training=training)
        tests.append([ticket.metrics["test"] for ticket in tickets])
    trainings = sum(row["epoch"] == 0 for row in seen) / args.seeds
    return list(zip(*tests, strict=True)), trainings, (time.process_time() - start) / args.seeds


def deviation(values):
    """Return the standard deviation of a sample, 0 of a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main(argv=None) -> dict[str, float]:
    parser = common.arguments(__doc__, plot="out/ticket_arena.png")
    options = {"choices": list(METHODS), "metavar": "NAME"}
    parser.add_argument("--methods", nargs="+", default=["random", "teddy", "iterative_magnitude"], **options)
    parser.add_argument("--rounds", nargs="+", type=common.count, default=[4, 10, 14, 20])
    parser.add_argument("--seeds", type=common.count, default=1, help="how many, from --seed on")
    parser.add_argument("--model", type=common.net, default="GCN", help="GCN, SAGE, GIN or GAT of PyG")
    parser.add_argument("--hidden", type=common.count, default=256)
    parser.add_argument("--epochs", type=common.count, default=200)
    args = parser.parse_args(argv)
    if args.fast:
        args.epochs, args.hidden, args.rounds = 3, 16, [1, 2]
    args.rounds = sorted(set(args.rounds))  # a method that goes in rounds finds the sparser on its way
    data = common.load_by_name(parser, args.data)
    print(f"{args.data}: {data}")

    def make_model():
        return args.model(data.num_features, args.hidden, 2, common.num_outputs(data), dropout=0.5)

    print(f"{'':<22}" + "".join(f"{f'round {n}':>14}" for n in args.rounds) + f"{'trainings':>12}{'CPU s':>9}")
    result, curves, levels = {}, {}, {}
    for name in ["dense", *dict.fromkeys(args.methods)]:
        tests, trainings, seconds = contest(make_model, data, name, args)
        points = [(100 * statistics.mean(values), 100 * deviation(values)) for values in tests]
        spread = [f" ± {std:.1f}" if args.seeds > 1 else "" for _, std in points]
        shown = "".join(f"{f'{mean:.1f}{more}':>14}" for (mean, _), more in zip(points, spread, strict=True))
        print(f"{name:<22}{shown:<{14 * len(args.rounds)}}{trainings:>12.0f}{seconds:>9.1f}")
        if name == "dense":
            result["dense"], levels["dense"] = points[0][0], points[0]
            continue
        result |= {f"{name}/{n}": mean for n, (mean, _) in zip(args.rounds, points, strict=True)}
        pruned = " and ".join(sorted(METHODS[name].prunes))
        curves[f"{name} ({pruned})"] = [(n, *point) for n, point in zip(args.rounds, points, strict=True)]
    axis = "round; each takes 5 % of the edges, 20 % of the weights"
    score = f"test {common.node_task(data).metric} (%)"
    plot_curves(args.plot, {args.data: curves}, x_label=axis, y_label=score, levels={args.data: levels})
    print(f"plot: {args.plot}")
    return result


if __name__ == "__main__":
    main()
