"""Pairs of graphs that share nodes, by name."""

import difflib
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.datasets.cache import data_root
from graphsparse.datasets.graph_pair import RELATION_PAIRS, GraphPair, pair_sizes, relation_pair
from graphsparse.datasets.load import load
from graphsparse.datasets.ogb import load_ogb
from graphsparse.datasets.structure import read_structure
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


#: First year of the target and last year of the source of ``paper_years``.
_PAPER_YEARS = {"ogbn-arxiv-structure": (2017, 2018), "ogbl-citation2": (2014, 2016)}


class IntersectingGraphs:
    r"""A dense source graph and a sparse target graph that share nodes, for link prediction on the target.

    ============================== ================== ================================================================
    name                           protocol           source, target
    ============================== ================== ================================================================
    cora, citeseer, pubmed,        ``A``, ``B``,      windows of one graph: the same links, nearest features, or
    cora_ml, citeseer_full, dblp,  ``C``              common neighbours; see
    synthetic                                         :func:`graphsparse.datasets.window_pair.window_pair`
    cora-coauthor-citation, ...    ``relations``      two kinds of links on the same nodes; see
                                                      :func:`graphsparse.datasets.graph_pair.relation_pair`
    ogbn-arxiv-structure           ``citation_years`` citations up to 2018 and later ones
    ogbn-arxiv-structure           ``paper_years``    papers up to 2018 and from 2017 on
    ogbl-citation2                 ``paper_years``    papers up to 2016 and from 2014 on
    ogbl-collab                    ``edge_years``     joint work up to 2016 and from 2015 on
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
        download: Whether an OGB set that is not there may be downloaded.

    Attributes:
        source: The source, with ``key`` ``[N]``, and ``x``, ``y``, ``node_year``, ``edge_year`` where there are such.
        target: The target, in the same way.
        hold_out: Which links may be held out, for :func:`graphsparse.transfer.split_links`: ``"target_only_end"``,
            ``"all"``, or pairs ``[2, P]``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no such name or protocol, or an argument is out of range.
        FileNotFoundError: If a file is missing; the message says which.

    Example:
        >>> graphs = IntersectingGraphs("synthetic", "A", seed=1)
        >>> graphs.target.num_nodes, graphs.hold_out, graphs.summary()["intersection"]["num_nodes"]
        (1400, 'target_only_end', 800)

    Source: Zheng et al., *You Only Transfer What You Share*, TMLR 2023, arXiv 2302.14189.
    """

    def __init__(
        self,
        name: str,
        protocol: str | None = None,
        *,
        seed: int = 0,
        root: str | Path | None = None,
        download: bool = True,
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
        self.seed = check_seed(seed)
        folder = None if root is None else Path(root).expanduser()
        self._whole, self._pair = self._cut(folder, download)
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
        return coupling_source(self._whole, self._pair, train)

    def summary(self) -> dict[str, dict[str, float]]:
        """Return the sizes of all derived graphs, see :func:`graphsparse.datasets.graph_pair.pair_sizes`."""
        return pair_sizes(self.source, self.target)

    def _cut(self, root: Path | None, download: bool) -> tuple[Data, GraphPair]:
        """Return the whole graph, where there is one, and the pair that the protocol makes of it."""
        if self.protocol == "relations":
            return Data(), relation_pair(self.name, data_root() if root is None else root)
        if self.name.startswith("ogbl"):
            data, _ = load_ogb(self.name, root, download=download)
        elif self.name == "ogbn-arxiv-structure":
            data = _arxiv(data_root() if root is None else root)
        else:
            data = load(self.name, root)
            return data, window_pair(data, self.protocol, seed=self.seed)
        if self.protocol == "edge_years":
            return data, edge_year_pair(data, 2015, 2016)
        if self.protocol == "citation_years":
            return data, citation_year_pair(data, 2018)
        return data, paper_year_pair(data, *_PAPER_YEARS[self.name], seed=self.seed)

    def __repr__(self) -> str:
        """Name the pair and what it was made with."""
        return f"{type(self).__name__}({self.name!r}, {self.protocol!r}, seed={self.seed})"


def _arxiv(root: Path) -> Data:
    """Return ogbn-arxiv with what is known of a paper when it is submitted as features."""
    parts = read_structure("ogbn-arxiv-structure", root)
    area = torch.nn.functional.one_hot(parts["y"]).float()
    return Data(x=torch.cat([area, (parts["node_year"].float().unsqueeze(1) - 2010) / 10], dim=1), **parts)
