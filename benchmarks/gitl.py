"""Link prediction through shared nodes beside all baselines: paired over seeds, with the controls that must fail.

python benchmarks/gitl.py --pairs cora-A citeseer-A --workers 2            # all methods, 10 seeds
python benchmarks/gitl.py --pairs cora-coauthor-citation acm-psp-pap --methods chain mlp_target gnn_target cosine

A seed draws the protocol (where it draws anything), the split and all weights; every method of a seed sees the same
split. `GITL` gives four rows: the default, what of its candidates is best on validation alone, the one candidate that
is no other row, and the same choice among what knows nothing of the source. `chain` gives three: the teacher alone, the
student alone, and the published chain, which is both with the propagation of edge labels at the weight that validation
chooses.
Controls teach the student with the links of the source rewired (degrees kept), or with wrong keys (the shared nodes of
the source permuted): what remains of its gain then does not come from shared structure. `shared` keeps that share of
the shared nodes in the source, `weight` multiplies the source's links. `best baseline` is the one of highest mean on
the test pairs, which nobody knows before. Test scores are computed once, from models that validation pairs have chosen.
Metrics are over 5 non-links per link, in %; 16.7 is chance for average precision. Differences are paired by seed, with
intervals of 95 % by Student's t. A run that was stopped goes on where it was; `--report` makes tables of what
is there, with the number of seeds where it is smaller.
"""

import argparse
import statistics
import sys
import time
from itertools import product
from math import sqrt
from operator import itemgetter
from pathlib import Path

import torch
from cells import compute, read
from rewire import rewire
from scipy.stats import t as student_t
from tables import command, mean_and_std, versions, write_csv, write_text

from graphsparse.datasets import IntersectingGraphs
from graphsparse.metrics import link_report
from graphsparse.plotting import plot_curves
from graphsparse.training import link_training
from graphsparse.transfer import (
    BASELINES,
    GITL,
    BaselineOptions,
    LinkTeacher,
    MLPStudent,
    SharedNodePair,
    prepare_pair,
    sage_encoder,
)

#: Name of the graphs and protocol.
PAIRS = {
    **{f"{name}-{protocol}": (name, protocol) for name in ("cora", "citeseer") for protocol in "ABC"},
    **{
        name: (name, "relations")
        for name in (
            *("cora-coauthor-citation", "cora-coauthor-cocitation", "acm-psp-pap", "dblp-apcpa-apa"),
            *("freebase-mam-mdm", "freebase-mam-mwm"),
        )
    },
}
#: Row -> the candidate that it is.
STAGES = {"teacher": "teacher", "student": "student", "published chain": "student+edge_labels_enriched"}
DEFAULT = ("GITL", "GITL, best candidate", "student+edge_labels")
NO_SOURCE = "GITL, no source"
BEST = "best baseline"
#: Row -> the candidates of the GITL that it comes from.
CANDIDATES = {
    **dict.fromkeys(DEFAULT),
    **dict.fromkeys(STAGES, GITL.PUBLISHED),
    NO_SOURCE: (
        *("mlp_target", "gnn_target", "xmc", "pagerank", "resource_allocation", "preferential_attachment", "cosine"),
    ),
}
CONTROLS = ("student, rewired source", "student, wrong keys")
SHARES, WEIGHTS = (0.25, 0.5, 0.75), (0.0, 0.25, 0.5)
SENSITIVITY = (*(f"student, shared {share:g}" for share in SHARES), *(f"student, weight {w:g}" for w in WEIGHTS))
#: FREEBASE has no features: networks on graphs train a vector per node instead, and nothing else that needs features
#: is compared there.
NEEDS_FEATURES = (
    *("student", *CONTROLS, *SENSITIVITY),
    *("cosine", "dgi_features", "egi_features", "mlp_target", "mlp_enriched"),
)
#: What is asked of the method, and of what it is compared with.
CLAIMS = (
    ("student", "mlp_target", "distillation through shared nodes helps"),
    ("student", "mlp_enriched", "it helps more than the source's links as training links"),
    ("gnn_enriched", "gnn_target", "the source's links among shared nodes help"),
    ("GITL", BEST, "against the best of all baselines"),
    ("GITL", "GITL, best candidate", "the sum of candidates against the one that validation finds best"),
    ("GITL", NO_SOURCE, "against the same choice among what knows nothing of the source: what the source is worth"),
    ("GITL", "published chain", "against the published chain"),
    ("GITL", "cosine", "against the cosine of features"),
    ("GITL", "pagerank_enriched", "against walks along the links of both, which need no training"),
    ("published chain", "student", "the published propagation helps"),
    ("published chain", "gnn_enriched", "the chain against a network on the graph with the source's links"),
    ("student", "cosine", "against the cosine of features"),
    ("student, rewired source", "mlp_target", "control: nothing remains without the source's structure"),
    ("student, wrong keys", "mlp_target", "control: nothing remains with wrong keys"),
)
KEYS = ("pair", "seed", "method")
#: Most links that any of them learns from in an epoch; only the sources of ACM, DBLP and FREEBASE have more.
LINKS_PER_EPOCH = 50_000
METRICS = ("average precision", "auroc", "hits@50", "recall@1", "recall@1.25")


def teacher_of(epochs, **options):
    """Return a teacher for small graphs."""
    training = link_training(epochs=epochs, lr=5e-3)
    return LinkTeacher(sage_encoder(64), id_channels=64, links_per_epoch=LINKS_PER_EPOCH, training=training, **options)


def teacher_and_student(epochs, weight):
    """Return a chain for small graphs whose teacher weighs the source's links."""
    teacher = teacher_of(epochs, source_edge_weight=weight, input_dropout=0.5)
    training = link_training(epochs=2 * epochs, lr=5e-3)
    student = MLPStudent(128, links_per_epoch=LINKS_PER_EPOCH, training=training)
    return GITL(("student",), teacher=teacher, student=student)


def changed(method, graphs, pair, seed):
    """Return the pair of a control or of a smaller intersection."""
    source, target = graphs.source.clone(), graphs.target
    generator = torch.Generator().manual_seed(seed)
    inside = torch.isin(source.key, target.key)
    if method == "student, rewired source":
        source.edge_index = rewire(source.edge_index, source.num_nodes, seed)
    elif method == "student, wrong keys":
        place = inside.nonzero().view(-1)
        source.key[place] = source.key[place[torch.randperm(place.numel(), generator=generator)]]
    elif method.startswith("student, shared"):
        share = float(method.split()[-1])
        gone = inside & (torch.rand(inside.numel(), generator=generator) >= share)
        source = source.subgraph(~gone)
    else:
        return pair
    return SharedNodePair(source, target)


def run_group(group, setting):
    """Fit and test methods on one pair and seed."""
    torch.set_num_threads(1)
    name, seed = group[0]["pair"], group[0]["seed"]
    graphs = IntersectingGraphs(*PAIRS[name], seed=seed)
    prepared = prepare_pair(graphs, seed=seed)
    pair, split = prepared.pair, prepared.split
    target = pair.graph("target", without=split, features=False)
    degree = torch.bincount(target.edge_index[1], minlength=pair.num_nodes)
    options = BaselineOptions.small(setting["epochs"], 2 * setting["epochs"], LINKS_PER_EPOCH)
    rows, fitted = [], {}
    for job in group:
        method, begin = job["method"], time.perf_counter()
        if method in CANDIDATES:
            names = CANDIDATES[method]
            if names not in fitted:
                sizes = (setting["epochs"], 2 * setting["epochs"])
                made = GITL.small(
                    *sizes, candidates=names, combine=names != GITL.PUBLISHED, links_per_epoch=LINKS_PER_EPOCH
                )
                if pair.target.x is None:
                    made.teacher = teacher_of(setting["epochs"])
                fitted[names] = made.fit(pair, split, seed=seed)
            scorer = gitl = fitted[names]
            best = max(gitl.fitted, key=lambda name: gitl.validation.get(name, 0.0))
            name = {**STAGES, DEFAULT[1]: best, DEFAULT[2]: DEFAULT[2]}.get(method)
            if name is not None:
                name = name if name in gitl.fitted else name.replace("student", "teacher")
                scorer = gitl.fitted[name]
        elif method in BASELINES:
            scorer = BASELINES[method](pair, split, seed, options)
        else:
            weight = float(method.split()[-1]) if method.startswith("student, weight") else 1.0
            other = changed(method, graphs, pair, seed)
            scorer = teacher_and_student(setting["epochs"], weight).fit(other, split, seed=seed)
        pos, neg = scorer.score(split.test), scorer.score(split.test_neg)
        report = link_report(pos, neg, split.test, split.test_neg, degree, ks=[50])
        row = {**job, "figures": report, "seconds": round(time.perf_counter() - begin, 2)}
        if method in ("GITL", NO_SOURCE):
            row |= {"kept": gitl.kept, "validation": gitl.validation}
        rows.append(row)
    return rows


def interval(values):
    """Return mean and half the width of the interval of 95 %."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, float("inf")
    spread = statistics.stdev(values) / sqrt(len(values))
    return mean, float(student_t.ppf(0.975, len(values) - 1)) * spread


def summarise(rows):
    """Return mean and deviation over seeds for every pair and method."""
    cells = {}
    for row in rows:
        cells.setdefault((row["pair"], row["method"]), []).append(row)
    lines = []
    for (pair, method), seeds in cells.items():
        line = {"pair": pair, "method": method, "seeds": len(seeds)}
        for metric in seeds[0]["figures"]:
            values = [100 * row["figures"][metric] for row in seeds]
            if "links" not in metric and all(value == value for value in values):
                line |= mean_and_std(values, metric)
        line["seconds"] = round(statistics.mean(row["seconds"] for row in seeds), 2)
        lines.append(line)
    return lines


def differences(rows, metric="average precision"):
    """Return the paired differences of all claims."""
    found = {(row["pair"], row["method"], row["seed"]): row["figures"][metric] for row in rows}
    lines = []
    for pair in dict.fromkeys(row["pair"] for row in rows):
        means = {}
        for _, method, seed in [key for key in found if key[0] == pair and key[1] in BASELINES]:
            means.setdefault(method, []).append(found[pair, method, seed])
        if means:
            best = max(means, key=lambda method: statistics.mean(means[method]))
            found |= {(pair, BEST, key[2]): value for key, value in found.items() if key[:2] == (pair, best)}
    for pair, (first, second, claim) in product(dict.fromkeys(row["pair"] for row in rows), CLAIMS):
        seeds = [key[2] for key in found if key[:2] == (pair, first) and (pair, second, key[2]) in found]
        if len(seeds) > 1:
            mean, half = interval([100 * (found[pair, first, s] - found[pair, second, s]) for s in seeds])
            line = {"pair": pair, "claim": claim, "first": first, "second": second, "seeds": len(seeds)}
            line |= {"difference": round(mean, 2), "half interval": round(half, 2)}
            lines.append(line | {"excludes 0": abs(mean) > half})
    return lines


def markdown(lines, gaps):
    """Format the tables: average precision of all methods on all pairs, and the claims."""
    pairs = list(dict.fromkeys(line["pair"] for line in lines))
    found = {(line["pair"], line["method"]): line for line in lines}
    most = max(line["seeds"] for line in lines)
    text = [f"Test average precision in % ({most} seeds, or as many as in brackets; chance is 16.7)", ""]
    text += ["| method | " + " | ".join(pairs) + " |", "|" + "---|" * (len(pairs) + 1)]
    for method in dict.fromkeys(line["method"] for line in lines):
        cells = []
        for pair in pairs:
            line = found.get((pair, method))
            shown = ""
            if line:
                spread = f" ± {line['average precision std']:.1f}" if line["seeds"] > 1 else ""
                few = f" ({line['seeds']})" if line["seeds"] < most else ""
                shown = f"{line['average precision mean']:.1f}{spread}{few}"
            cells.append(shown)
        text.append(f"| {method} | " + " | ".join(cells) + " |")
    text += ["", "Paired differences of average precision, with intervals of 95 %:", ""]
    text += ["| | " + " | ".join(pairs) + " |", "|" + "---|" * (len(pairs) + 1)]
    known = {(gap["pair"], gap["first"], gap["second"]): gap for gap in gaps}
    for first, second, claim in CLAIMS:
        cells = []
        for pair in pairs:
            gap = known.get((pair, first, second))
            cells.append(f"{gap['difference']:+.1f} ± {gap['half interval']:.1f}" if gap else "")
        if any(cells):
            text.append(f"| {first} - {second} ({claim}) | " + " | ".join(cells) + " |")
    return "\n".join(text)


def plots(lines, out):
    """Draw the sensitivity of the student to shared nodes and source weight, and all bins of degree."""
    panels, bins, bin_names = {}, {}, []
    varied = {line["pair"] for line in lines if line["method"] in SENSITIVITY}
    for line in lines:
        point = (line["average precision mean"], line["average precision std"])
        for kind, title in (("shared", "shared nodes kept"), ("weight", "weight of the source's links")):
            if line["method"].startswith(f"student, {kind}"):
                x = float(line["method"].split()[-1])
                panels.setdefault(title, {}).setdefault(line["pair"], []).append((x, *point))
            elif line["method"] == "student" and line["pair"] in varied:
                panels.setdefault(title, {}).setdefault(line["pair"], []).append((1.0, *point))
        if line["method"] in (
            "teacher",
            "student",
            "published chain",
            "GITL",
            "mlp_target",
            "gnn_target",
            "gnn_enriched",
            "cosine",
        ):
            names = [name for name in line if name.startswith("average precision, ") and name.endswith(" mean")]
            bin_names = [name.removeprefix("average precision, ").removesuffix(" mean") for name in names]
            for i, name in enumerate(names):
                spread = line[name.removesuffix("mean") + "std"]
                bins.setdefault(line["pair"], {}).setdefault(line["method"], []).append((i, line[name], spread))
    label = "test average precision (%)"
    if panels:
        plot_curves(out / "gitl_sensitivity.png", panels, x_label="share", y_label=label)
    if bins:
        plot_curves(out / "gitl_bins.png", bins, x_label="", y_label=label, x_names=bin_names)


def main(argv=None):
    """Compute what is missing, write tables and plots, and return the paired differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    known = ["GITL", "chain", "controls", "sensitivity", *BASELINES]
    parser.add_argument("--methods", nargs="+", default=known, choices=known)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=60, help="of graph networks; students take twice as many")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="tables of what is there, nothing is computed")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"), help="folder of the results")
    args = parser.parse_args(argv)

    groups = {"GITL": (*DEFAULT, NO_SOURCE), "chain": tuple(STAGES), "controls": CONTROLS, "sensitivity": SENSITIVITY}
    methods = [name for given in args.methods for name in groups.get(given, (given,))]
    jobs = [
        dict(zip(KEYS, values, strict=True))
        for values in product(args.pairs, range(args.seeds), methods)
        # Protocol C makes its source from the split, so there is none to change before.
        if not (values[0].endswith("-C") and values[2] in (*CONTROLS, *SENSITIVITY[: len(SHARES)]))
        and not (values[0].startswith("freebase") and values[2] in NEEDS_FEATURES)
    ]
    path, common = (
        args.out / "gitl.jsonl",
        {"setting": {"epochs": args.epochs, "torch": torch.__version__}, "keys": KEYS},
    )
    if args.report:
        done = {tuple(row[name] for name in KEYS): row for row in read(path, common["setting"])}
        rows = [done[key] for job in jobs if (key := tuple(job.values())) in done]
    else:
        # A pair is made once for all methods.
        options = {"group_by": itemgetter("pair", "seed"), "workers": args.workers, "group_size": 1000}
        rows = compute(jobs, run_group, path, **options, **common)
    lines, gaps = summarise(rows), differences(rows)
    write_csv(args.out / "gitl.csv", lines)
    if gaps:
        write_csv(args.out / "gitl_differences.csv", gaps)
    text = f"{markdown(lines, gaps)}\n\n{versions()}.\n\n    {command(parser, args, 'gitl')}"
    write_text(args.out / "gitl.md", text)
    plots(lines, args.out)
    print(text)
    return gaps


if __name__ == "__main__":
    main()
    sys.exit(0)
