"""Predict links of a sparse graph with the help of a dense one, through the nodes that both share.

python examples/gitl_link_prediction.py --data cora                             # windows of one citation graph
python examples/gitl_link_prediction.py --pair cora-coauthor-citation           # co-authors help citations
python examples/gitl_link_prediction.py --pair ogbl-collab --batches 15 10      # by years; sampled neighbours

Test links are scored once, by models that validation links have chosen; beside the chain stand what it must beat.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from graphsparse.datasets import IntersectingGraphs
from graphsparse.metrics import link_report
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


def main(argv=None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic", help="graph of which both windows are cut")
    parser.add_argument("--pair", help="another pair, see graphsparse.datasets.IntersectingGraphs")
    parser.add_argument("--protocol", help="how the pair is made; the first of its protocols by default")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=60, help="of the teacher; the student takes twice as many")
    parser.add_argument("--batches", type=int, nargs="+", help="neighbours per hop, to train in batches of links")
    parser.add_argument("--baselines", nargs="*", default=["cosine", "mlp_target", "gnn_target", "gnn_enriched"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--splits", type=Path, default=Path("out/splits"), help="folder in which splits are kept")
    parser.add_argument("--checkpoint", type=Path, help="folder from which a run that was stopped goes on")
    parser.add_argument("--fast", action="store_true", help="a few epochs of small networks, to try the script")
    args = parser.parse_args(argv)
    if args.fast:
        args.epochs, args.hidden, args.baselines = 3, 8, ["cosine", "mlp_target"]

    name = args.pair or args.data
    protocol = () if args.protocol is None else (args.protocol,)
    prepared = prepare_pair(IntersectingGraphs(name, *protocol, seed=args.seed), seed=args.seed, folder=args.splits)
    pair, split = prepared.pair, prepared.split
    for graph, sizes in pair.summary(without=split).items():
        print(f"{graph:<24}" + ", ".join(f"{key} {value:,.6g}" for key, value in sizes.items()))

    training = link_training(epochs=args.epochs, lr=5e-3, seed=args.seed, checkpoint=args.checkpoint, progress=True)
    later = replace(training, epochs=2 * args.epochs)
    teacher = LinkTeacher(sage_encoder(args.hidden), input_dropout=0.5, training=training, num_neighbors=args.batches)
    chain = GITL(teacher=teacher, student=MLPStudent(2 * args.hidden, training=later))
    chain.fit(pair, split)
    print(chain.summary())

    target = pair.graph("target", without=split, features=False)
    degree = torch.bincount(target.edge_index[1], minlength=pair.num_nodes)
    options = BaselineOptions.small(args.epochs, 2 * args.epochs)
    options = replace(options, hidden=args.hidden, student_hidden=2 * args.hidden, num_neighbors=args.batches)
    scorers = {"GITL": chain, "student": chain.student, "teacher": chain.teacher}
    scorers |= {method: BASELINES[method](pair, split, args.seed, options) for method in args.baselines}
    cold = "average precision, an end of degree 0"
    print(f"{'test, in %':<24}{'AP':>8}{'AUC':>8}{'Hits@50':>9}{'AP, cold':>10}")
    found = {}
    for method, scorer in scorers.items():
        report = link_report(
            scorer.score(split.test), scorer.score(split.test_neg), split.test, split.test_neg, degree, ks=[50]
        )
        shown = [100 * report[key] for key in ("average precision", "auroc", "hits@50", cold)]
        print(f"{method:<24}{shown[0]:>8.1f}{shown[1]:>8.1f}{shown[2]:>9.1f}{shown[3]:>10.1f}")
        found[method] = report["average precision"]
    return found


if __name__ == "__main__":
    main()
