"""Predict links of a sparse graph with the help of a dense one, through the nodes that both share.

python examples/gitl_link_prediction.py --data cora                             # windows of one citation graph
python examples/gitl_link_prediction.py --pair cora-coauthor-citation           # co-authors help citations
python examples/gitl_link_prediction.py --pair acm-psp-pap                      # a source that misleads
python examples/gitl_link_prediction.py --pair ogbl-collab --batches 15 10      # by years; sampled neighbours

A teacher learns among the shared nodes, a student that reads features only learns from it, propagations add what the
known links around a pair say, and simple rules know nothing of the source; what validation links say is added up.
Beside it stand its own parts, and what it must beat. Test links are scored once.
"""

import math
from dataclasses import replace
from pathlib import Path

import common
import torch

from graphsparse.datasets import IntersectingGraphs
from graphsparse.metrics import link_report
from graphsparse.plotting import plot_bars
from graphsparse.training import link_training
from graphsparse.transfer import (
    BASELINES,
    GITL,
    BaselineOptions,
    LinkTeacher,
    MLPStudent,
    prepare_pair,
    sage_encoder,
)

#: What is compared unless it is asked for by name; PageRank is what a graph says without any training.
COMPARED = ["cosine", "mlp_target", "gnn_target", "gnn_enriched", "pagerank", "pagerank_enriched"]
READ_FEATURES = {"cosine", "mlp_target", "mlp_enriched", "dgi_features", "egi_features"}
COLD = "average precision, an end of degree 0"


def main(argv=None) -> dict[str, float]:
    parser = common.arguments(__doc__, plot="out/gitl.png")
    parser.add_argument("--pair", help="another pair, see graphsparse.datasets.IntersectingGraphs")
    parser.add_argument("--protocol", help="how the pair is made; the first of its protocols by default")
    parser.add_argument("--hidden", type=int, default=64, help="width of the teacher; the student is twice as wide")
    parser.add_argument("--epochs", type=int, default=60, help="of the teacher; the student takes twice as many")
    parser.add_argument("--batches", type=int, nargs="+", help="neighbours per hop, to train in batches of links")
    parser.add_argument("--baselines", nargs="*", metavar="NAME", help=f"of {', '.join(BASELINES)}")
    parser.add_argument("--splits", type=Path, default=Path("out/splits"), help="folder in which splits are kept")
    parser.add_argument("--checkpoint", type=Path, help="folder from which a run that was stopped goes on")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.baselines or ()) - set(BASELINES))
    if unknown:
        parser.error(f"--baselines: there is no {', '.join(unknown)}; known are {', '.join(BASELINES)}")
    compared = COMPARED if args.baselines is None else args.baselines
    if args.fast:
        args.epochs, args.hidden = 3, 8
        compared = ["cosine", "mlp_target", "pagerank_enriched"] if args.baselines is None else compared

    name = args.pair or args.data
    protocol = () if args.protocol is None else (args.protocol,)
    try:
        graphs = IntersectingGraphs(name, *protocol, seed=args.seed)
    except (ValueError, OSError) as error:  # an unknown name, or a file that is not there
        parser.error(f"{'--pair' if args.pair else '--data'}: {error}")
    prepared = prepare_pair(graphs, seed=args.seed, folder=args.splits)
    pair, split = prepared.pair, prepared.split
    if pair.target.get("x") is None:
        without = sorted(READ_FEATURES & set(args.baselines or ()))
        if without:
            parser.error(f"--baselines: {', '.join(without)} read features, which {name} has none of")
        compared = [method for method in compared if method not in READ_FEATURES]
    print("without held-out links:")
    for graph, sizes in pair.summary(without=split).items():
        print(f"  {graph:<24}" + ", ".join(f"{key.replace('_', ' ')} {value:,.6g}" for key, value in sizes.items()))

    training = link_training(epochs=args.epochs, lr=5e-3, seed=args.seed, checkpoint=args.checkpoint, progress=True)
    later = replace(training, epochs=2 * args.epochs)
    encoder = sage_encoder(args.hidden)
    teacher = LinkTeacher(
        encoder, id_channels=args.hidden, input_dropout=0.5, training=training, num_neighbors=args.batches
    )
    student = MLPStudent(2 * args.hidden, training=later)
    options = BaselineOptions.small(args.epochs, 2 * args.epochs)
    options = replace(options, hidden=args.hidden, student_hidden=2 * args.hidden, num_neighbors=args.batches)
    gitl = GITL(teacher=teacher, student=student, settings=options).fit(pair, split)
    print(gitl.summary())

    target = pair.graph("target", without=split, features=False)
    degree = torch.bincount(target.edge_index[1], minlength=pair.num_nodes)
    stages = {name: gitl.fitted[name] for name in ("teacher", "student") if name in gitl.fitted}
    scorers = {"GITL": gitl, **stages}
    scorers |= {method: BASELINES[method](pair, split, args.seed, options) for method in compared}
    chance = 100 * split.test.size(1) / (split.test.size(1) + split.test_neg.size(1))
    print(
        f"\n{split.test.size(1):,} test links among {split.test_neg.size(1):,} non-links, in %. AP: average precision,"
    )
    print(f"{chance:.1f} by chance. AUC: area under the ROC curve. Hits@50: links above the 50th highest non-link. AP,")
    print("cold: of pairs with an end without a training link. Names with '_enriched' and GITL see the source's links")
    print("between shared nodes, too.\n")
    print(f"{'':<24}{'AP':>8}{'AUC':>8}{'Hits@50':>9}{'AP, cold':>10}")
    found = {}
    for method, scorer in scorers.items():
        report = link_report(
            scorer.score(split.test), scorer.score(split.test_neg), split.test, split.test_neg, degree, ks=[50]
        )
        shown = [100 * report[key] for key in ("average precision", "auroc", "hits@50", COLD)]
        print(f"{method:<24}{shown[0]:>8.1f}{shown[1]:>8.1f}{shown[2]:>9.1f}{shown[3]:>10.1f}")
        found[method] = report
    panels = {
        title: {method: 100 * report[key] for method, report in found.items() if math.isfinite(report[key])}
        for title, key in (("all test pairs", "average precision"), ("pairs with an end without training link", COLD))
    }
    panels = {title: figures for title, figures in panels.items() if figures}
    plot_bars(args.plot, panels, labels=dict.fromkeys(panels, f"average precision on {name} (%)"), marked=["GITL"])
    print(f"\nplot: {args.plot}")
    return {method: report["average precision"] for method, report in found.items()}


if __name__ == "__main__":
    main()
