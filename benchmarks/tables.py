"""What benchmarks write: tables whole or not at all, figures over seeds, and how a table was made."""

import csv
import statistics

import torch
import torch_geometric

import graphsparse
from graphsparse.utils.files import atomic_write


def write_csv(path, rows):
    """Write dictionaries as a table with a column for every name in any of them."""
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_text(path, text):
    """Write a text, with a line end at its end."""
    with atomic_write(path) as temporary:
        temporary.write_text(text.rstrip("\n") + "\n")


def deviation(values, digits=2):
    """Return the standard deviation of a sample, 0 of a single value."""
    return round(statistics.stdev(values), digits) if len(values) > 1 else 0.0


def mean_and_std(values, name, digits=2):
    """Return mean and standard deviation over seeds under a name."""
    return {f"{name} mean": round(statistics.mean(values), digits), f"{name} std": deviation(values, digits)}


def versions():
    """Return what the results depend on beside the command."""
    return f"graphsparse {graphsparse.__version__}, torch {torch.__version__}, PyG {torch_geometric.__version__}"


def command(parser, args, script):
    """Return the command that gives the results, without what does not change them."""
    words = [f"python benchmarks/{script}.py"]
    for action in parser._actions:
        value = getattr(args, action.dest, None)
        if action.dest in ("help", "out", "workers", "report") or value == action.default:
            continue
        values = value if isinstance(value, list) else [] if value is True else [value]
        words += [action.option_strings[0], *(f"{v:g}" if isinstance(v, float) else str(v) for v in values)]
    return " ".join(words)
