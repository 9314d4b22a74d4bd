"""Tables and plots of the arena: means, paired differences, wins after Holm, average ranks, costs."""

import statistics
from collections import Counter

from scipy import stats
from tables import deviation

from graphsparse.plotting import plot_curves

#: What is judged by the area under the ROC curve, because classes are uneven; all else by accuracy.
RANKED = ("minesweeper", "tolokers")
TRACKS = {"edges": "edges alone", "weights": "weights alone", "joint": "edges and weights"}
#: What each track is compared with.
PLAIN = {"edges": "random", "weights": "random, ERK", "joint": "random + l0"}
CONTROLS = ("dense", "empty", "MLP")
#: Test accuracy of UGS and of the best other method, Spectral Graph Pruning (NeurIPS 2024), table 18: 3 runs, PubMed 2.
PUBLISHED = {
    ("cora", "A"): ("79.5 ± 1.2", "79.1"),
    ("cora", "B"): ("72.7 ± 0.6", "72.4"),
    ("cora", "C"): ("68.7 ± 1.0", "67.2"),
    ("citeseer", "A"): ("72.2 ± 0.6", "69.8"),
    ("citeseer", "B"): ("68.7 ± 0.2", "68.0"),
    ("citeseer", "C"): ("66.1 ± 0.5", "62.6"),
    ("pubmed", "A"): ("77.8 ± 1.0", "79.8"),
    ("pubmed", "B"): ("76.8", "77.8"),
    ("pubmed", "C"): ("76.3 ± 0.5", "74.7"),
}


def paired(values, others):
    """Return mean, half of the 95 % Student interval and p value of the differences at the seeds that both have.

    Of a single difference only the mean is known.
    """
    gaps = [values[seed] - others[seed] for seed in values if seed in others]
    if len(gaps) < 2:
        return (gaps[0] if gaps else None), None, None
    mean, spread = statistics.mean(gaps), statistics.stdev(gaps)
    half = float(stats.t.ppf(0.975, len(gaps) - 1)) * spread / len(gaps) ** 0.5
    if spread == 0:
        return mean, half, float(mean == 0)
    return mean, half, float(stats.ttest_1samp(gaps, 0).pvalue)


def holm(p_values):
    """Return p values that hold for all of several tests together, by the step-down of Holm."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def critical_difference(methods, blocks):
    """Return by how much average ranks must differ, by Nemenyi at 95 %."""
    quantile = float(stats.studentized_range.ppf(0.95, methods, float("inf"))) / 2**0.5
    return quantile * (methods * (methods + 1) / (6 * blocks)) ** 0.5


def average_ranks(lines, track, graphs):
    """Return the average rank of every method over the cells of a track, 1 is best, and the number of cells.

    Ranked are methods that have every cell; networks that are not sparse are left out.
    """
    means = {}
    for line in lines:
        if line["track"] == track and line["data"] in graphs and line["method"] != "narrow":
            means.setdefault(line["method"], {})[line["data"], line["cell"]] = line["test mean"]
    all_cells = list(dict.fromkeys(cell for found in means.values() for cell in found))
    whole = [name for name, found in means.items() if len(found) == len(all_cells)]
    if len(whole) < 2:
        return {}, 0
    ranks = [stats.rankdata([-means[name][cell] for name in whole]) for cell in all_cells]
    return {name: float(statistics.mean(r[i] for r in ranks)) for i, name in enumerate(whole)}, len(all_cells)


def summarise(rows, order):
    """Return a line for every cell, with its paired difference to the plain method of its track.

    Args:
        rows: Tickets.
        order: Cells `(data, track, method, cell)` in the order of the lines.
    """
    cells = {}
    for row in rows:
        cells.setdefault((row["data"], row["track"], row["method"], row["cell"]), {})[row["seed"]] = row
    lines = []
    for where in (where for where in order if where in cells):
        data, track, method, cell = where
        seeds = cells[where]
        tests = {seed: 100 * row["test"] for seed, row in seeds.items()}
        line = dict(zip(("data", "track", "method", "cell"), where, strict=True)) | {"seeds": len(seeds)}
        line |= {"test mean": round(statistics.mean(tests.values()), 2), "test std": deviation(list(tests.values()))}
        for name, key in (("edges removed %", "edge_sparsity"), ("weights removed %", "weight_sparsity")):
            line[name] = round(100 * statistics.mean(row[key] for row in seeds.values()), 2)
        for name in ("weights", "macs_edges", "macs_weights", "trainings", "epochs", "seconds"):
            line[name] = round(statistics.mean(row[name] for row in seeds.values()), 1)
        plain = cells.get((data, track, PLAIN.get(track), cell), {})
        others = {seed: 100 * row["test"] for seed, row in plain.items()}
        mean, half, p = (None, None, None) if method == PLAIN.get(track) else paired(tests, others)
        line |= {"difference": mean, "interval": half, "p": p, "outcome": ""}
        lines.append(line)
    for table in dict.fromkeys((line["data"], line["track"]) for line in lines):
        tested = [line for line in lines if (line["data"], line["track"]) == table and line["p"] is not None]
        for line, p in zip(tested, holm([line["p"] for line in tested]), strict=True):
            line["p"] = p
            line["outcome"] = "tie" if p >= 0.05 else "win" if line["difference"] > 0 else "loss"
    for line in lines:
        for name, digits in (("difference", 2), ("interval", 2), ("p", 4)):
            line[name] = "" if line[name] is None else round(line[name], digits)
    return lines


def table(lines, data, track):
    """Return the table of a track on one graph as lines of text; nothing if there is none."""
    here = [line for line in lines if (line["data"], line["track"]) == (data, track)]
    if not here:
        return []
    found = {(line["method"], line["cell"]): line for line in here}
    columns = list(dict.fromkeys(line["cell"] for line in here))
    most = max(line["seeds"] for line in here)
    score = "area under the ROC curve" if data in RANKED else "accuracy"
    ranks, blocks = average_ranks(lines, track, [data])
    text = [
        f"**{data}, {TRACKS[track]}** ({_seeds(most)}, test {score} in %; in brackets the paired difference to "
        f"{PLAIN[track]} with its 95 % interval)",
        "",
        f"| method | {' | '.join(_heading(here, cell) for cell in columns)} | wins, ties, losses | rank |",
        "|" + "---|" * (len(columns) + 3),
    ]
    for name in CONTROLS:
        for line in lines:
            if (line["data"], line["track"], line["method"]) == (data, "control", name):
                text.append(f"| {name} | {_score(line)} |{' |' * (len(columns) + 1)}")
    for name in dict.fromkeys(line["method"] for line in here):
        own = [found.get((name, cell)) for cell in columns]
        fewest = min(line["seeds"] for line in own if line)
        outcomes = Counter(line["outcome"] for line in own if line and line["outcome"])
        results = ", ".join(str(outcomes[kind]) for kind in ("win", "tie", "loss")) if outcomes else ""
        note = f" ({_seeds(fewest)})" if fewest < most else ""
        rank = f"{ranks[name]:.1f}" if name in ranks else ""
        text.append(f"| {name}{note} | {' | '.join(_cell(line) for line in own)} | {results} | {rank} |")
    for which, name in enumerate(("UGS, published", "best other, published")):
        figures = [PUBLISHED.get((data, cell)) if track == "joint" else None for cell in columns]
        if any(figures):
            text.append(f"| {name} | {' | '.join(f'[{f[which]}]' if f else '' for f in figures)} | | |")
    if ranks:
        least = critical_difference(len(ranks), blocks)
        text += ["", f"Ranks that are less than {least:.1f} apart ({blocks} cells, Nemenyi, 95 %) are no difference."]
    return text


def _seeds(count):
    return f"{count} seed{'s' * (count > 1)}"


def _heading(lines, cell):
    """Return what a cell is called: what is removed in it."""
    line = next(line for line in lines if line["cell"] == cell and line["method"] != "narrow")
    removed = [line[f"{what} removed %"] for what in ("edges", "weights")]
    share = " / ".join(f"{value:.1f}" for value in removed if value)
    return f"{cell}: {share} %" if cell.isalpha() else f"{share} %"


def _score(line):
    return f"{line['test mean']:.1f}" + (f" ± {line['test std']:.1f}" if line["seeds"] > 1 else "")


def _cell(line):
    if line is None:
        return ""
    if line["difference"] == "":
        return _score(line)
    interval = f" ± {line['interval']:.1f}" if line["interval"] != "" else ""
    return f"{_score(line)} ({line['difference']:+.1f}{interval})"


def costs(lines, data):
    """Return the table of what four nested tickets cost on one graph, and what the sparsest costs in use."""
    text = [
        f"**{data}, cost** of the four tickets of one seed, and multiply-accumulates of a forward pass at round 20",
        "",
        "| track | method | trainings | epochs | CPU s | million on edges | million on weights |",
        "|" + "---|" * 7,
    ]
    for line in lines:
        if line["data"] == data and line["cell"] in ("20", "all"):
            numbers = [f"{line[name]:.0f}" for name in ("trainings", "epochs", "seconds")]
            numbers += [f"{line[name] / 1e6:.2f}" for name in ("macs_edges", "macs_weights")]
            text.append(f"| {line['track']} | {line['method']} | {' | '.join(numbers)} |")
    return text


def all_ranks(lines):
    """Return the table of average ranks over all graphs."""
    graphs, text = list(dict.fromkeys(line["data"] for line in lines)), []
    for track, title in TRACKS.items():
        have = [data for data in graphs if any((line["data"], line["track"]) == (data, track) for line in lines)]
        ranks, blocks = average_ranks(lines, track, have)
        if len(have) > 1 and ranks:
            least = critical_difference(len(ranks), blocks)
            placed = ", ".join(f"{name} {rank:.1f}" for name, rank in sorted(ranks.items(), key=lambda one: one[1]))
            text.append(f"* {title} ({blocks} cells of {', '.join(have)}; critical difference {least:.1f}): {placed}")
    return ["**Average ranks**, of the methods that have every cell", "", *text] if text else []


def as_text(lines):
    """Return all tables as one text."""
    parts = [all_ranks(lines)]
    for data in dict.fromkeys(line["data"] for line in lines):
        parts += [*(table(lines, data, track) for track in TRACKS), costs(lines, data)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def plot(path, lines, data):
    """Draw accuracy against the round of the path, a panel for each track."""
    panels, controls = {}, {}
    for line in (line for line in lines if line["data"] == data):
        point = line["test mean"], line["test std"]
        if line["track"] == "control" and line["method"] != "MLP":
            controls[line["method"]] = point
        elif line["cell"].isdigit():
            title = TRACKS[line["track"]]
            panels.setdefault(title, {}).setdefault(line["method"], []).append((int(line["cell"]), *point))
    if panels:
        score = "test area under the ROC curve (%)" if data in RANKED else "test accuracy (%)"
        axis = "round; each takes 5 % of the edges, 20 % of the weights"
        plot_curves(path, panels, x_label=axis, y_label=score, levels=dict.fromkeys(panels, controls))
