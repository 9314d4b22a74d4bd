"""From a pair of graphs by name to what methods take: the pair, and its split, made once and kept in a file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graphsparse.datasets.intersecting_graphs import IntersectingGraphs
from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.split import LinkSplit, split_links


@dataclass(frozen=True)
class PreparedPair:
    """A pair of graphs and the split of its target's links.

    Attributes:
        pair: The pair.
        split: The split, which every method on this pair is judged by.
    """

    pair: SharedNodePair
    split: LinkSplit


def prepare_pair(
    graphs: IntersectingGraphs,
    *,
    seed: int = 0,
    ratios: Sequence[float] = (0.2, 0.4, 0.4),
    num_neg: int = 5,
    folder: str | Path | None = None,
    directed: bool = False,
) -> PreparedPair:
    """Join a named pair of graphs, and split its target's links as its protocol says.

    In protocol C the source is computed anew from the training links. The rules against leaks are checked.

    Args:
        graphs: The graphs.
        seed: Seed of the split.
        ratios: As of :func:`graphsparse.transfer.split_links`.
        num_neg: As of :func:`graphsparse.transfer.split_links`.
        folder: Where splits are kept: one that is there is read, checked and used, any other written.
        directed: As of :class:`graphsparse.transfer.SharedNodePair`.

    Raises:
        TypeError: If ``graphs`` is no ``IntersectingGraphs``.
        ValueError: If an argument is out of range, or a split in ``folder`` was not drawn in this way.

    Example:
        >>> prepared = prepare_pair(IntersectingGraphs("synthetic", "A"), seed=3)
        >>> prepared.pair.num_nodes, prepared.split.seed
        (1400, 3)
    """
    if not isinstance(graphs, IntersectingGraphs):
        raise TypeError(f"'graphs' must be IntersectingGraphs (got {type(graphs).__name__})")
    pair = SharedNodePair(graphs.source, graphs.target, directed=directed)
    file = None if folder is None else Path(folder) / _file_name(graphs, seed, directed)
    if file is not None and file.is_file():
        split = LinkSplit.load(file, pair)
        asked = {"ratios": [float(share) for share in ratios], "num_neg": num_neg}
        found = {name: split.options.get(name) for name in asked}
        if found != asked or split.seed != seed:
            raise ValueError(f"{file} holds a split with {found} and seed {split.seed}, not {asked} and seed {seed}")
    else:
        split = split_links(pair, ratios, seed, hold_out=graphs.hold_out, num_neg=num_neg)
        if file is not None:
            split.save(file)
    if graphs.source_needs_split:
        pair = SharedNodePair(graphs.source_given(split.train), graphs.target, directed=directed)
    assert_no_leak(split, pair)
    return PreparedPair(pair, split)


def _file_name(graphs: IntersectingGraphs, seed: int, directed: bool) -> str:
    """Name a file by all that the target depends on; that it is the right one is checked by its fingerprint."""
    text = re.sub(r"[^\w.-]+", "-", re.sub(r"^\w+", "", repr(graphs))).strip("-")
    return f"{text}{'-directed' if directed else ''}-split-{seed}.safetensors"
