"""A split of a target's links into training, validation and test, with its non-links, as one file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.metrics import link_report
from graphsparse.ops.check import check_count, check_edge_index
from graphsparse.ops.digest import digest
from graphsparse.ops.pairs import is_among, key_pairs, pair_keys, unique_keys
from graphsparse.ops.sort import index_dtype, stable_order
from graphsparse.transfer.data.heart import heart_negatives
from graphsparse.transfer.data.negatives import PairsBetween, PairSpace, draw_non_links, turn_non_links
from graphsparse.transfer.data.pair import SharedNodePair, as_pair
from graphsparse.transfer.data.relation import read_pairs
from graphsparse.transfer.data.sides import across, find_sides, read_sides
from graphsparse.utils.counter_random import CounterRandom, check_seed
from graphsparse.utils.files import ContentError, read_tensors, reading, write_tensors

_KIND, VERSION = "link split", "4"
#: Names of the tensors, in the order in which they are digested.
PARTS = ("train", "val", "test", "val_neg", "test_neg")
HOLD_OUT = ("target_only_end", "all")
NEGATIVES = ("uniform", "heart")


@dataclass(frozen=True, eq=False)
class LinkSplit:
    """Links of a target for training, validation and test, and non-links to rank the latter two against.

    One split serves every method and every derived graph. All pairs are in the target's node numbers.

    Attributes:
        train: Links that are known, int64 ``[2, P]``.
        val: Links held out for validation, ``[2, P]``.
        test: Links held out for the test, ``[2, P]``.
        val_neg: Non-links for validation, ``[2, k * P]``: entries ``i * k`` to ``i * k + k - 1`` are link ``i``'s.
            Where they were given (:func:`given_split`), as many as were given.
        test_neg: Non-links for the test, in the same way.
        seed: What the split was drawn with.
        fingerprint: Of the pair, see :attr:`SharedNodePair.fingerprint`.
        options: How it was drawn: ``ratios``, ``hold_out``, ``num_neg``, ``directed``; ``between``, ``"found"``,
            ``"given"`` or ``"any"``; ``non_links`` is ``"given"`` where they were, ``"heart"`` where they are hard.
        side: Where links are between two sides alone, users and items, say: the side 0 or 1 of each target node, int8
            ``[N_t]``, -1 on neither. Then non-links are too, those that methods draw for themselves included, in
            graphs whose links are all between the sides; a derived graph says so in its own ``side``.
    """

    train: Tensor
    val: Tensor
    test: Tensor
    val_neg: Tensor
    test_neg: Tensor
    seed: int
    fingerprint: str
    options: dict[str, Any] = field(default_factory=dict)
    side: Tensor | None = None

    @property
    def heldout(self) -> Tensor:
        """Links for validation and test, ``[2, P]``."""
        return torch.cat([self.val, self.test], dim=1)

    @property
    def queries(self) -> Tensor:
        """All pairs for validation and test, links and non-links, ``[2, Q]``."""
        return torch.cat([self.val, self.test, self.val_neg, self.test_neg], dim=1)

    @property
    def num_neg(self) -> int:
        """Number of stored non-links per held-out link, 0 where as many were given as there are."""
        return int(self.options.get("num_neg", 0))

    @property
    def hash(self) -> str:
        """A digest of all pairs and of how they were drawn: equal splits have equal ones."""
        side = [] if self.side is None else [self.side]
        return digest([self._header(), *(getattr(self, name) for name in PARTS), *side])

    def check(self, pair: SharedNodePair) -> None:
        """Refuse a pair that the split was not made for.

        The target must be the same. The sources may differ, so that one split compares them; but where each held-out
        pair has an end that only the target has, it must still have one.

        Raises:
            ValueError: If the split is of another pair.
        """
        if self.fingerprint != pair.fingerprint:
            raise ValueError(
                f"the split is of another pair: its target is {self.fingerprint}, the target here is {pair.fingerprint}"
            )
        if self.options.get("hold_out") == "target_only_end" and bool(pair.shared[self.queries].all(0).any()):
            raise ValueError(
                "the split is of another pair: its held-out pairs have an end that only the target has, "
                "but in this pair some are between shared nodes"
            )

    def report(self, scorer: "Scorer", part: str = "test", *, ks: Sequence[int] = (20, 50, 100)) -> dict[str, float]:
        """Return how well a scorer ranks the links of a part, as :func:`~graphsparse.metrics.link_report` does.

        Where each link has non-links of its own, that is its rank among these, too: ``mrr`` and ``own hits@20``. All
        have if they were drawn; given ones have where there are as many for each link, one end of it in each, as in
        ogbl-citation2.

        Args:
            scorer: What scores pairs of nodes.
            part: ``"val"`` or ``"test"``.
            ks: Numbers of Hits@K.

        Raises:
            ValueError: If there is no such part, or it is empty.

        Example:
            >>> from graphsparse.testing import random_graph
            >>> from graphsparse.transfer import BASELINES
            >>> data = random_graph()
            >>> split = split_links(data, (0.8, 0.1, 0.1), num_neg=10, negatives="heart")
            >>> report = split.report(BASELINES["resource_allocation"](data, split), ks=[5])
            >>> sorted(report)[-4:]
            ['own hits@5', 'recall@0.8', 'recall@1', 'recall@1.25']

        Source: Hu et al., *Open Graph Benchmark*, NeurIPS 2020, section 5.
        """
        if part not in ("val", "test"):
            raise ValueError(f"'part' must be 'val' or 'test' (got {part!r})")
        links, others = getattr(self, part), getattr(self, f"{part}_neg")
        if links.size(1) == 0:
            raise ValueError(f"'part' must hold links ({part!r} has none)")
        scores, rest = scorer.score(links), scorer.score(others)
        each, left = divmod(others.size(1), links.size(1))
        if each and not left:
            ends = others.view(2, -1, each)
            kept = (ends == links[:, :, None]) | (ends == links.flip(0)[:, :, None])
            rest = rest.view(-1, each) if self.num_neg or bool(kept.any(0).all()) else rest
        return link_report(scores, rest, ks=ks)

    def save(self, path: str | Path) -> None:
        """Write the split to a file, whole or not at all.

        Raises:
            OSError: If the file cannot be written.
        """
        tensors = {} if self.side is None else {"side": self.side}
        for name in PARTS:
            pairs = getattr(self, name)
            largest = int(pairs.max()) if pairs.numel() else 0
            tensors[name] = pairs.to(index_dtype(largest)).contiguous()
        write_tensors(path, _KIND, tensors, self._header(), VERSION)

    @classmethod
    def load(cls, path: str | Path, pair: SharedNodePair | Data | None = None) -> "LinkSplit":
        """Read a split that :meth:`save` wrote.

        Args:
            path: The file.
            pair: The pair, or the graph, that it must belong to; not checked when ``None``.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no split, or one of another version, or damaged, or of another pair.
        """
        pair = None if pair is None else as_pair(pair)
        remedy = "'split_links' with the same arguments draws the same pairs again"
        tensors, header = read_tensors(path, _KIND, VERSION, remedy)
        with reading(path):
            if any(tensors[name].is_floating_point() for name in PARTS):
                raise ContentError("it holds other than numbers of nodes")
            pairs: dict[str, Any] = {name: tensors[name].long() for name in PARTS}
            for name, found in pairs.items():
                check_edge_index(found, None if pair is None else pair.num_nodes, name)
            split = cls(**pairs, **header, side=tensors.get("side"))
        if pair is not None:
            split.check(pair)
        return split

    def _header(self) -> dict[str, Any]:
        return {"seed": self.seed, "fingerprint": self.fingerprint, "options": self.options}

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={getattr(self, name).size(1)}" for name in PARTS)
        if self.side is not None:
            one, other = (int((self.side == number).count_nonzero()) for number in (0, 1))
            sizes += f", between={one} and {other} nodes ({self.options.get('between')})"
        return f"{type(self).__name__}({sizes}, seed={self.seed}, hash={self.hash!r})"


def split_links(
    pair: SharedNodePair | Data,
    ratios: Sequence[float] = (0.2, 0.4, 0.4),
    seed: int = 0,
    *,
    hold_out: str | Tensor = "target_only_end",
    num_neg: int = 5,
    negatives: str = "uniform",
    between: str | Tensor | tuple[Tensor, Tensor] | None = None,
) -> LinkSplit:
    r"""Split the links of a pair's target, or of one graph, once, for every method and every derived graph.

    Links that may be held out are shuffled and divided: :math:`\lfloor r_1 n \rfloor` for training,
    :math:`\lfloor (r_1 + r_2) n \rfloor - \lfloor r_1 n \rfloor` for validation, the rest for the test. All others are
    for training. A pair of nodes goes to one part with both its directions, also where these are different links.

    Non-links are different pairs drawn uniformly from those that are no link of the whole target, in either direction,
    and no self-loop, ``num_neg`` for each held-out link; those of validation and test do not overlap. They are of the
    same kind as the held-out links: with ``"target_only_end"`` one end at least is in no source, for otherwise a node's
    kind alone would tell links from non-links. Where links are directed, so are non-links: those between a shared and
    another node begin with the latter as often as the held-out links do, all others have either direction as likely.

    **Bipartite targets.** Where all links are between two sides, users and items, say, so are non-links: two users
    would be told from a link by their sides alone. It is found out, and shown by the split, where it can be no accident
    and the sides are sure: the nodes of one side all have smaller numbers than those of the other, as PyG's
    ``to_homogeneous`` numbers them; or all edges are listed from one side to the other; or no cycle is odd, of at least
    20 independent ones. In the last case links outside the largest component are for training, with a warning, because
    sides cannot be told there; if these are more than a tenth of all it is an error. With fewer cycles, as in a tree,
    there is a warning, and non-links are drawn from all pairs. ``between`` says it in place of all this. Where links
    have a direction non-links begin on side 0 as often as held-out links do.

    **Hard non-links.** Most pairs that are drawn are told from a link by any heuristic. With ``negatives="heart"`` each
    link :math:`(u, v)` has non-links of its own: half of them keep :math:`u` and half keep :math:`v`, and the node in
    the place of the other end, of the same kind as that, is one of those that rank highest by the better of resource
    allocation, :math:`\sum_{w \in N(u) \cap N(x)} 1 / d_w`, and personalised PageRank, :math:`\pi_u[x]`, along the
    training links. What neither reaches is drawn. Links that share an end may then share non-links.

    Args:
        pair: The graphs; or one graph, whose links have no direction (``SharedNodePair([], data, directed=True)`` for
            one whose links do).
        ratios: Shares of training, validation and test in the links that may be held out; their sum is 1.
        seed: Equal seeds give equal splits on every device and in every release.
        hold_out: Which links may be held out: ``"target_only_end"`` for those with an end that no source has, ``"all"``
            for all, or the pairs themselves, ``[2, P]``, such as those after a certain year. Non-links are drawn from
            all pairs of the target's nodes in the latter two cases. Without a source the first is the second.
        num_neg: Non-links per held-out link.
        negatives: ``"uniform"``, or ``"heart"`` for hard ones.
        between: Between which nodes links can be: a bool tensor ``[N_t]``, True on one side, such as
            ``data.node_type == 0``; two tensors with the nodes of each side; ``"any"`` for all nodes; found out when
            ``None``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, a pair of ``hold_out`` is no link of the target, there is nothing to
            hold out, validation or test would be empty though their ratio is not 0, there are too few non-links, a link
            is not between the sides of ``between``, or links are between two sides that cannot be told.

    Example:
        >>> from torch_geometric.data import Data
        >>> ring = torch.stack([torch.arange(41), (torch.arange(41) + 1) % 41])
        >>> target = Data(edge_index=ring, key=torch.arange(41), num_nodes=41)
        >>> source = Data(edge_index=ring[:, :20], key=torch.arange(21), num_nodes=21)
        >>> split_links(SharedNodePair(source, target))
        LinkSplit(train=24, val=8, test=9, val_neg=40, test_neg=45, seed=0, hash='...')
        >>> bought = torch.cartesian_prod(torch.arange(8), torch.arange(8, 16)).t()[:, ::2]
        >>> target = Data(edge_index=bought, key=torch.arange(16), num_nodes=16)
        >>> split_links(SharedNodePair(target, target), hold_out="all", num_neg=1)
        LinkSplit(train=6, val=13, test=13, val_neg=13, test_neg=13, between=8 and 8 nodes (found), seed=0, hash='...')
        >>> split_links(target, (0.5, 0.25, 0.25), between="any", num_neg=4, negatives="heart")
        LinkSplit(train=16, val=8, test=8, val_neg=32, test_neg=32, seed=0, hash='...')

    Source: Li et al., NeurIPS 2023, arXiv 2306.10453 (HeaRT), for hard non-links.
    """
    pair = as_pair(pair)
    if negatives not in NEGATIVES:
        raise ValueError(f"'negatives' must be one of {NEGATIVES} (got {negatives!r})")
    shares = _check_ratios(ratios)
    seed = check_seed(seed)
    num_neg = check_count(num_neg, "num_neg", least=0)
    links, num_nodes = pair.target_links(), pair.num_nodes
    # Both directions of a pair have one key here and so fall into one part.
    keys = pair_keys(links, num_nodes)
    rule = hold_out if isinstance(hold_out, str) else "given"
    if rule == "target_only_end" and not pair.source:
        hold_out = rule = "all"
    side, told = sides_of_target(pair, links, between)
    may = _may_be_held_out(pair, links, keys, hold_out)
    if side is not None:
        may &= across(links, side)
    candidates = unique_keys(keys[may])
    val, test = (is_among(keys, part) for part in _divide(candidates, shares, seed))
    held = torch.cat([links[:, val], links[:, test]], 1)
    only = ~pair.shared
    marked = only if rule == "target_only_end" else torch.ones_like(only)
    every = unique_keys(keys)
    options = {"ratios": list(shares), "hold_out": rule, "num_neg": num_neg, "directed": pair.directed, "between": told}
    if negatives == "heart":
        kind = marked.long() if side is None else 3 * marked + side.long() + 1
        non_links = heart_negatives(held, links[:, ~(val | test)], every, kind, num_neg, seed=seed)
        if not pair.directed:
            non_links = non_links.sort(0).values
        options["non_links"] = "heart"
    else:
        space = PairSpace(marked) if side is None else PairsBetween(marked, side)
        non_links = draw_non_links(space, num_neg * held.size(1), every, seed=seed)
        if pair.directed:
            non_links = turn_non_links(non_links, held, only if side is None else side == 0, seed=seed)
    num_val = int(val.count_nonzero())
    return LinkSplit(
        links[:, ~(val | test)],
        held[:, :num_val],
        held[:, num_val:],
        non_links[:, : num_neg * num_val],
        non_links[:, num_neg * num_val :],
        seed,
        pair.fingerprint,
        options,
        side,
    )


def sides_of_target(pair: SharedNodePair, links: Tensor, between: Any) -> tuple[Tensor | None, str]:
    """Return the side of each of the target's nodes, ``None`` for no sides, and who says so."""
    if between is None:
        side = find_sides(links, pair.target.edge_index.as_subclass(Tensor), pair.num_nodes)
        return side, "any" if side is None else "found"
    side = read_sides(between, pair.num_nodes, links)
    return side, "any" if side is None else "given"


def _check_ratios(ratios: Any) -> tuple[float, float, float]:
    try:
        shares = tuple(float(share) for share in ratios)
    except (TypeError, ValueError):
        raise TypeError(f"'ratios' must be three numbers (got {ratios!r})") from None
    if len(shares) != 3 or min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(f"'ratios' must be three shares with the sum 1 (got {ratios!r})")
    if shares[1] + shares[2] == 0:
        raise ValueError(f"'ratios' must hold something out for validation or test (got {ratios!r})")
    return shares


def _may_be_held_out(pair: SharedNodePair, links: Tensor, keys: Tensor, hold_out: Any) -> Tensor:
    """Say of the target's links which may be held out."""
    if isinstance(hold_out, Tensor):
        wanted = unique_keys(pair_keys(read_pairs(hold_out, pair.num_nodes, "hold_out"), pair.num_nodes))
        strange = wanted[~is_among(wanted, unique_keys(keys.clone()))]
        if strange.numel():
            first = key_pairs(strange[:1], pair.num_nodes).view(-1).tolist()
            raise ValueError(
                f"'hold_out' holds {strange.numel()} pairs that are no link of the target, such as {first}"
            )
        return is_among(keys, wanted)
    if hold_out not in HOLD_OUT:
        raise ValueError(f"'hold_out' must be one of {HOLD_OUT}, or pairs [2, P] (got {hold_out!r})")
    if hold_out == "all":
        return torch.ones(keys.numel(), dtype=torch.bool)
    found = ~pair.shared[links].all(0)
    if not bool(found.any()):
        raise ValueError(
            "no link of the target has an end that only the target has, so none can be held out: with hold_out='all' "
            "any link may be"
        )
    return found


def _divide(candidates: Tensor, shares: tuple[float, float, float], seed: int) -> tuple[Tensor, Tensor]:
    """Shuffle links, and return the sorted keys of those for validation and for the test."""
    count = candidates.numel()
    # Sums of fractions are a rounding error beside what they mean.
    ends = [count if share >= 1 else math.floor(share * count + 1e-9) for share in (shares[0], shares[0] + shares[1])]
    for name, share, size in zip(("validation", "test"), shares[1:], (ends[1] - ends[0], count - ends[1]), strict=True):
        if share > 0 and size == 0:
            raise ValueError(f"{count} links may be held out: too few, none would be left for {name}")
    order = stable_order(CounterRandom(seed, "split links").words(count), 1 << 32).long()
    _, val, test = candidates[order].tensor_split(ends)
    return unique_keys(val), unique_keys(test)


class Scorer(Protocol):
    """Anything that scores pairs of target nodes."""

    def score(self, pairs: Tensor) -> Tensor:
        """Return scores ``[Q]`` of pairs ``[2, Q]`` of target nodes, higher = more likely a link."""
        ...


def check_queries(pairs: Tensor, num_nodes: int, name: str = "pairs") -> Tensor:
    """Return pairs of target nodes as int64, or refuse them.

    Example:
        >>> check_queries(torch.tensor([[0, 2], [1, 2]]), 3)
        Traceback (most recent call last):
        ...
        ValueError: 'pairs' must hold no self-loops (got 1, the first for node 2)
    """
    check_edge_index(pairs, num_nodes, name)
    pairs = pairs.long()
    loops = pairs[0] == pairs[1]
    if bool(loops.any()):
        first = int(pairs[0, loops][0])
        raise ValueError(f"'{name}' must hold no self-loops (got {int(loops.sum())}, the first for node {first})")
    return pairs


def check_split(pair: SharedNodePair, split: LinkSplit) -> None:
    """Refuse a split of another pair of graphs."""
    for name, value, kind in (("pair", pair, SharedNodePair), ("split", split, LinkSplit)):
        if not isinstance(value, kind):
            raise TypeError(f"'{name}' must be a {kind.__name__} (got {type(value).__name__})")
    split.check(pair)


def check_dense_x(pair: SharedNodePair) -> None:
    """Refuse a pair without dense features.

    Example:
        >>> from torch_geometric.data import Data
        >>> graph = Data(edge_index=torch.tensor([[0], [1]]), key=torch.arange(3), num_nodes=3)
        >>> check_dense_x(SharedNodePair(graph, graph))
        Traceback (most recent call last):
        ...
        ValueError: the target has no features 'x' to learn from; 'pair.with_x' returns a pair that has
    """
    x = pair.target.get("x")
    if x is None:
        raise ValueError("the target has no features 'x' to learn from; 'pair.with_x' returns a pair that has")
    if x.layout != torch.strided or not x.is_floating_point():
        raise TypeError(f"'x' of the target must be dense floating point numbers (got {x.dtype}, {x.layout})")
