"""What the examples share: data sets and models by name, and options that are checked before anything runs."""

import argparse
import os
from pathlib import Path

import torch_geometric.nn
import torch_geometric.transforms as T
from torch_geometric.utils import scatter

from graphsparse.datasets import load, load_ogb
from graphsparse.training import NodeTask

#: Short name -> model of ``torch_geometric.nn``; the long names are known, too, in capitals or not.
NETS = {"GCN": "GCN", "SAGE": "GraphSAGE", "GIN": "GIN", "GAT": "GAT"}
PLOTS = (".png", ".pdf", ".svg")


def arguments(doc, *, plot, data="synthetic"):
    """Return a parser with what all examples take; the text of a script, with its worked lines, is its help."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=data, help="a name that graphsparse.datasets.load or load_ogb knows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=plot_file, default=Path(plot), help="the plot (default: %(default)s)")
    parser.add_argument("--fast", action="store_true", help="a few epochs of small networks, to try the script")
    return parser


def load_by_name(parser, name, *, one_class=False):
    """Return a graph as :func:`graph_by_name` does; end the script in one line if it is none for it."""
    try:
        data = graph_by_name(name)
    except (ValueError, OSError) as error:  # an unknown name, or a file that is not there
        parser.error(f"--data: {error}")
    if one_class and data.y.dim() != 1:
        parser.error(f"--data: {name} has several labels for a node, this script takes one class for each")
    return data


def graph_by_name(name):
    """Return a graph to classify nodes of, ours or OGB's, ready to train on.

    Graphs of OGB are made undirected, as its leaderboards do, and get features where OGB has only those of edges: the
    mean over the edges of a node.
    """
    if not name.lower().startswith("ogb") or name.lower().endswith("-structure"):
        return load(name)
    scripts = {"ogbl": ("links", "gitl_link_prediction"), "ogbg": ("graphs", "untrained_molecules")}
    if name[:4].lower() in scripts:
        kind, script = scripts[name[:4].lower()]
        raise ValueError(f"{name} is a set of {kind}, see examples/{script}.py")
    data, _ = load_ogb(name.lower())
    if "edge_index" not in data:
        raise ValueError(f"{name} has several types of nodes or edges, this script takes one")
    if "x" not in data:
        data.x = scatter(data.edge_attr, data.edge_index[1], 0, data.num_nodes, "mean")
    data.edge_attr = None
    return T.ToUndirected()(data) if data.is_directed() else data


def node_task(data):
    """Return labels of nodes as a task: one class for each, or several that a node has or has not."""
    return NodeTask(data, target="binary" if data.y.dim() == 2 else "multiclass")


def num_outputs(data):
    """Return how many numbers a model must give for a node."""
    return data.y.size(1) if data.y.dim() == 2 else data.num_classes


def net(name):
    """Return a model of PyG by its name."""
    known = {key.lower(): NETS[short] for short in NETS for key in (short, NETS[short])}
    if name.lower() not in known:
        raise argparse.ArgumentTypeError(f"there is no model {name!r}; known are {', '.join(NETS)}")
    return getattr(torch_geometric.nn, known[name.lower()])


def fraction(text):
    """Return a number in [0, 1)."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be a fraction in [0, 1) (got {text}; {value:g} % is {value / 100:g})")
    return value


def count(text):
    """Return a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1 (got {text})")
    return value


def out_file(text):
    """Return the path of a file that can be written."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file ({text} is a folder)")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise argparse.ArgumentTypeError(f"{there} is no folder that can be written to")
    return path


def plot_file(text):
    """Return the path of a plot."""
    path = out_file(text)
    if path.suffix not in PLOTS:
        raise argparse.ArgumentTypeError(f"must end in {', '.join(PLOTS)} (got {text})")
    return path
