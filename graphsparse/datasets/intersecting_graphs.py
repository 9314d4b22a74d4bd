"""Pairs of graphs that share nodes, by name."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.datasets.arxiv_structure import arxiv_structure
from graphsparse.datasets.cache import data_root
from graphsparse.datasets.graph_pair import GraphPair
from graphsparse.datasets.load import load
from graphsparse.datasets.multirel import RELATION_PAIRS, relation_pair
from graphsparse.datasets.ogb import load_ogb
from graphsparse.datasets.pair_sizes import pair_sizes
from graphsparse.datasets.window_pair import coupling_source, window_pair
from graphsparse.datasets.year_pair import citation_year_pair, edge_year_pair, paper_year_pair
from graphsparse.utils.counter_random import check_seed

#: Undirected graphs that windows are cut out of.
_WINDOWED = ("cora", "citeseer", "pubmed", "cora_ml", "citeseer_full", "dblp", "synthetic")
_PROTOCOLS = {
    **dict.fromkeys(_WINDOWED, ("A", "B", "C")),
    **dict.fromkeys(RELATION_PAIRS, ("relations",)),
    "ogbn-arxiv-structure": ("citation_years", "paper_years"),
    "ogbl-citation2": ("paper_years",),
    "ogbl-collab": ("edge_years",),
}
#: Options of each protocol; the OGB sets take some more.
_OPTIONS = {
    "A": {"window", "drop"},
    "B": {"window", "num_neighbors"},
    "C": {"window"},
    "relations": {"window"},
    "citation_years": {"year"},
    "paper_years": {"low", "high", "drop", "node_keep"},
    "edge_years": {"low", "high", "node_keep"},
}
_OGB_OPTIONS = {"download", "meta_dict"}


class IntersectingGraphs:
    r"""A dense source graph and a sparse target graph that share nodes, for link prediction on the target.

    ============================== ================== ================================================================
    name                           protocol           source, target
    ============================== ================== ================================================================
    cora, citeseer, pubmed,        ``A``, ``B``,      windows of one graph: the same links, nearest features, or
    cora_ml, citeseer_full, dblp,  ``C``              common neighbours; see
    synthetic                                         :func:`graphsparse.datasets.window_pair.window_pair`
    cora-coauthor-citation, ...    ``relations``      two kinds of links on the same nodes; see
                                                      :func:`graphsparse.datasets.multirel.relation_pair`
    ogbn-arxiv-structure           ``citation_years`` citations up to ``year`` (2018) and later ones
    ogbn-arxiv-structure           ``paper_years``    papers up to ``high`` (2018) and from ``low`` (2017) on
    ogbl-citation2                 ``paper_years``    papers up to ``high`` (2016) and from ``low`` (2014) on
    ogbl-collab                    ``edge_years``     joint work up to ``high`` (2016) and from ``low`` (2015) on
    ============================== ================== ================================================================

    The first protocol is the default. The keys of nodes are their numbers in the original graph. ogbn-arxiv has no
    features here that could be used: those of ``load("ogbn-arxiv-structure")`` are computed from all citations, so also
    from those that are held out. In their place ``x`` holds what is known when a paper is submitted, its subject area
    (40 columns, one of them 1) and its year (in decades after 2010).

    Args:
        name: One of the names above.
        protocol: One of the protocols of that name.
        seed: Draws what the protocol draws.
        root: Data root, as of :func:`graphsparse.datasets.load`; for the OGB sets the folder that
            :func:`graphsparse.datasets.load_ogb` takes.
        **options: Further arguments of the protocol: ``window``, ``drop``, ``num_neighbors`` of ``A``, ``B``, ``C``;
            ``window`` of ``relations``; ``year`` of ``citation_years``; ``low``, ``high``, ``drop``, ``node_keep`` of
            ``paper_years``; ``low``, ``high``, ``node_keep`` of ``edge_years``; ``download`` and ``meta_dict`` of the
            OGB sets.

    Attributes:
        source: The source, with ``key`` ``[N]``, and ``x``, ``y``, ``node_year``, ``edge_year`` where there are such.
        target: The target, in the same way.
        hold_out: Which links may be held out, for :func:`graphsparse.transfer.split_links`: ``"target_only_end"``,
            ``"all"``, or pairs ``[2, P]``.

    Raises:
        TypeError: If the protocol takes no such argument.
        ValueError: If there is no such name or protocol, or an argument is out of range.
        FileNotFoundError: If a file is missing; the message says which.

    Example:
        >>> graphs = IntersectingGraphs("synthetic", "A", seed=1)
        >>> graphs.target.num_nodes, graphs.hold_out, graphs.summary()["intersection"]["num_nodes"]
        (1400, 'target_only_end', 800)

    Source: Zheng et al., *You Only Transfer What You Share*, TMLR 2023, arXiv 2302.14189.
    """

    def __init__(
        self, name: str, protocol: str | None = None, *, seed: int = 0, root: str | Path | None = None, **options: Any
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"'name' must be the name of a pair of graphs (got {type(name).__name__})")
        self.name = name.lower()
        if self.name not in _PROTOCOLS:
            close = difflib.get_close_matches(self.name, _PROTOCOLS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise ValueError(f"there is no pair of graphs {name!r}{hint} Known are {', '.join(self.names())}")
        known = _PROTOCOLS[self.name]
        self.protocol = known[0] if protocol is None else protocol
        if self.protocol not in known:
            raise ValueError(f"'protocol' must be one of {known} for {self.name!r} (got {protocol!r})")
        options_of = _OPTIONS[self.protocol] | (_OGB_OPTIONS if self.name.startswith("ogbl") else set())
        if not options_of.issuperset(options):
            raise TypeError(f"protocol {self.protocol!r} takes no argument {min(set(options) - options_of)!r}")
        self.seed = check_seed(seed)
        self._options = options
        self._data: Data | None = None
        folder = None if root is None else Path(root).expanduser()
        self._pair: GraphPair = _BUILDERS[self.protocol](self, folder, dict(options))
        self.source: Data = self._pair.source
        self.target: Data = self._pair.target
        self.hold_out: str | Tensor = self._pair.hold_out

    @staticmethod
    def names() -> list[str]:
        """Return all names."""
        return list(_PROTOCOLS)

    @property
    def source_needs_split(self) -> bool:
        """Whether the source grows with training links: see :meth:`source_given`."""
        return self.protocol == "C"

    def source_given(self, train: Tensor) -> Data:
        """Return the source that training links take part in; in all protocols but C it is the source as it is.

        Args:
            train: Training links in the target's numbers, ``[2, P]``, such as ``split.train``.
        """
        if not self.source_needs_split:
            return self.source
        assert self._data is not None
        return coupling_source(self._data, self._pair, train)

    def summary(self) -> dict[str, dict[str, float]]:
        """Return the sizes of all derived graphs, see :func:`graphsparse.datasets.pair_sizes.pair_sizes`."""
        return pair_sizes(self.source, self.target)

    def __repr__(self) -> str:
        """Name the pair and what it was made with."""
        options = "".join(f", {name}={value!r}" for name, value in self._options.items() if name != "meta_dict")
        return f"{type(self).__name__}({self.name!r}, {self.protocol!r}, seed={self.seed}{options})"


def _windows(graphs: IntersectingGraphs, root: Path | None, options: dict[str, Any]) -> GraphPair:
    data = load(graphs.name, root)
    if graphs.protocol == "C":
        graphs._data = data
    return window_pair(data, graphs.protocol, seed=graphs.seed, **options)


def _relations(graphs: IntersectingGraphs, root: Path | None, options: dict[str, Any]) -> GraphPair:
    return relation_pair(graphs.name, data_root() if root is None else root, seed=graphs.seed, **options)


def _citation_years(graphs: IntersectingGraphs, root: Path | None, options: dict[str, Any]) -> GraphPair:
    return citation_year_pair(_arxiv(root), options.pop("year", 2018), **options)


def _paper_years(graphs: IntersectingGraphs, root: Path | None, options: dict[str, Any]) -> GraphPair:
    if graphs.name == "ogbl-citation2":
        data, low, high = _ogb(graphs.name, root, options), 2014, 2016
    else:
        data, low, high = _arxiv(root), 2017, 2018
    return paper_year_pair(data, options.pop("low", low), options.pop("high", high), seed=graphs.seed, **options)


def _edge_years(graphs: IntersectingGraphs, root: Path | None, options: dict[str, Any]) -> GraphPair:
    data = _ogb(graphs.name, root, options)
    return edge_year_pair(data, options.pop("low", 2015), options.pop("high", 2016), seed=graphs.seed, **options)


def _ogb(name: str, root: Path | None, options: dict[str, Any]) -> Data:
    data, _ = load_ogb(name, root, download=options.pop("download", True), meta_dict=options.pop("meta_dict", None))
    return data


def _arxiv(root: Path | None) -> Data:
    """Return ogbn-arxiv with what is known of a paper when it is submitted as features."""
    data = arxiv_structure(root, dim=1, undirected=False)
    area = torch.nn.functional.one_hot(data.y, int(data.num_classes)).float()
    data.x = torch.cat([area, (data.node_year.float().unsqueeze(1) - 2010) / 10], dim=1)
    return data


_BUILDERS: dict[str, Callable[[IntersectingGraphs, Path | None, dict[str, Any]], GraphPair]] = {
    **dict.fromkeys(("A", "B", "C"), _windows),
    "relations": _relations,
    "citation_years": _citation_years,
    "paper_years": _paper_years,
    "edge_years": _edge_years,
}
