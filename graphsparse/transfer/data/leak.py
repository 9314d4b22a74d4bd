"""Say whether anything that is trained on, or a split itself, gives away what is to be predicted."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.ops.blocks import blocks
from graphsparse.ops.pairs import is_among, key_pairs, pair_keys, sort_keys, unique_keys
from graphsparse.transfer.data.edge_lists import edge_lists, feature_pairs
from graphsparse.transfer.data.negatives import marked_first
from graphsparse.transfer.data.node_features import equal_rows, take_rows
from graphsparse.transfer.data.pair import SharedNodePair, as_pair
from graphsparse.transfer.data.relation import read_pairs
from graphsparse.transfer.data.sides import across
from graphsparse.transfer.data.split import PARTS, LinkSplit

#: Held-out links from which on, and share of them above which, what is found in features is no accident.
_FEW, _SHARE = 3, 0.1


def assert_no_leak(
    split: LinkSplit,
    pair: SharedNodePair | Data,
    *,
    graph: Any = None,
    positives: Tensor | None = None,
    anchors: Tensor | None = None,
    negatives: Tensor | None = None,
    score: Callable[[Tensor], Tensor] | None = None,
    use_valid_as_anchor: bool = False,
) -> None:
    """Raise an error if a rule against leaks is broken.

    ==== ======================================================================================================
    L1   No held-out link, in either direction, is among messages, positives or anchors, whichever graph it is from,
         nor in any other list of edges of ``graph``. Features are no rows of an adjacency that holds them, and the
         source does not have them between copies of the target's nodes, with other keys and the same features.
    L2   The split is of this pair's target, and all of its links are in it: one split serves every method.
    L3   Both directions of a pair are in one part, and every pair is there once.
    L4   No negative is a positive: stored non-links are no link of the whole target, ``negatives`` no known link.
    L5   Validation links serve the choice of a model only, unless ``use_valid_as_anchor`` says otherwise.
    L6   Stored non-links are of the same kind as the held-out links: with an end that only the target has, and between
         the two sides, where those are. There are ``num_neg`` of them for each link, if we drew them. None
         is an edge of a graph either: as no held-out link is one, what a source says of them would tell them apart.
    L7   Pairs that are asked for do not influence one another: none is an anchor, and each has the score it has alone.
    ==== ======================================================================================================

    The split is always checked; what else is given is checked as well. **That source and target have links in common
    is no leak**: the method lives on it. Training links of the target, and links of a source that are not held out, may
    be anywhere. A leak is a pair that is held out, in a graph that is trained on or sends messages; so
    ``pair.graph(name, without=split)`` leaves those pairs out of all graphs, the source's own included. Non-links that
    were given (:func:`given_split`) may be as many as they are; they and hard ones may come twice and be in both parts.

    Args:
        split: The split.
        pair: The graphs, or one graph.
        graph: A graph whose edges are messages or are learned from: a ``Data`` or ``HeteroData``, with ``n_id`` where
            its nodes are not the target's (nodes of several types are numbered type by type otherwise, as PyG's
            ``to_homogeneous`` does), an ``Adjacency``, a ``SparseTensor`` or a sparse tensor. All types of edges are
            looked at, ``adj_t``, and pairs of nodes in all other attributes, dictionaries and lists, except where the
            last part of their name holds "neg".
        positives: Pairs that a model learns to be links, ``[2, P]`` in the target's numbers.
        anchors: Pairs with known labels that labels are spread from, ``[2, C]``.
        negatives: Pairs that a model learns to be none, ``[2, Q]``. One may be a held-out link by chance: who draws
            them cannot know.
        score: A method's ``score``. A sample of the test pairs is scored together and apart.
        use_valid_as_anchor: Allow validation links among positives and anchors, as some protocols do for the test.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a rule is broken; the message begins with it.

    Example:
        >>> ring = torch.stack([torch.arange(41), (torch.arange(41) + 1) % 41])
        >>> target = Data(edge_index=ring, key=torch.arange(41), num_nodes=41)
        >>> pair = SharedNodePair(target, target)
        >>> from graphsparse.transfer.data.split import split_links
        >>> split = split_links(pair, hold_out="all")
        >>> assert_no_leak(split, pair, graph=pair.union(without=split))
        >>> assert_no_leak(split, pair, graph=pair.union())
        Traceback (most recent call last):
        ...
        ValueError: rule L1: 'graph' has 33 of the held-out links as edges, such as ...
    """
    if not isinstance(split, LinkSplit):
        raise TypeError(f"'split' must be a LinkSplit (got {type(split).__name__})")
    pair = as_pair(pair)
    if split.fingerprint != pair.fingerprint:
        _broken("L2", f"the split was made from the target {split.fingerprint}, not from {pair.fingerprint}")
    check = _Check(split, pair)
    check.stored_negatives()
    check.parts()
    check.kinds()
    check.features()
    check.copies()
    if graph is not None:
        check.graph(graph)
    for name, given in (("positives", positives), ("anchors", anchors)):
        if given is not None:
            check.learned(name, check.read(given, name), use_valid_as_anchor)
    if negatives is not None:
        known = {"known links of the target": check.keys["train"]}
        if positives is not None:
            known["'positives'"] = check.read(positives, "positives")
        for what, links in known.items():
            check.refuse("L4", "{} 'negatives' are " + what, check.read(negatives, "negatives"), links)
    if score is not None:
        check.score(score)


def _broken(rule: str, what: str) -> None:
    raise ValueError(f"rule {rule}: {what}")


class _Check:
    """The sorted keys of a split's pairs without their directions, and the rules on them."""

    def __init__(self, split: LinkSplit, pair: SharedNodePair) -> None:
        self.split, self.pair = split, pair
        self.num_nodes, self.sizes = pair.num_nodes, (pair.num_nodes, pair.num_union_nodes)
        self.given = split.options.get("non_links") == "given"
        self.repeated = split.options.get("non_links") in ("given", "heart")
        self.pairs = {name: read_pairs(getattr(split, name), self.num_nodes, f"split.{name}") for name in PARTS}
        self.keys = {name: self.sorted(pairs) for name, pairs in self.pairs.items()}

    def sorted(self, pairs: Tensor, *, directed: bool = False) -> Tensor:
        return sort_keys(pair_keys(pairs, self.num_nodes, directed=directed))

    def read(self, pairs: Any, name: str) -> Tensor:
        return self.sorted(read_pairs(pairs, self.num_nodes, name))

    def example(self, keys: Tensor) -> str:
        return f"({int(keys[0]) // self.num_nodes}, {int(keys[0]) % self.num_nodes})"

    def refuse(self, rule: str, what: str, keys: Tensor, known: Tensor) -> None:
        """Say that a rule is broken if some keys are among known ones; their number goes into the braces."""
        both = keys[is_among(keys, known)]
        if both.numel():
            _broken(rule, f"{what.format(both.numel())}, such as {self.example(both)}")

    def stored_negatives(self) -> None:
        # Of given non-links one may be the opposite of a link, as a citation is that nobody returned.
        directed = self.given and self.pair.directed
        links = torch.cat([self.pair.target_links(), self.split.heldout.cpu()], 1)
        known = unique_keys(self.sorted(links, directed=directed))
        for name in ("val_neg", "test_neg"):
            keys = self.sorted(self.pairs[name], directed=directed)
            self.refuse("L4", f"{{}} of {keys.numel()} pairs in '{name}' are links of the target", keys, known)

    def parts(self) -> None:
        directed = self.pair.directed
        exact = {name: sort_keys(pair_keys(p, self.num_nodes, directed=directed)) for name, p in self.pairs.items()}
        for name, pairs in self.pairs.items():
            if bool((pairs[0] == pairs[1]).any()):
                _broken("L4" if "neg" in name else "L3", f"'split.{name}' has self-loops")
            if not directed and bool((pairs[0] > pairs[1]).any()):
                _broken("L3", f"'split.{name}' has pairs with the larger end first")
            twice = exact[name][1:][exact[name][1:] == exact[name][:-1]]
            if twice.numel() and not (self.repeated and "neg" in name):
                _broken("L3", f"'split.{name}' has pairs more than once, such as {self.example(twice)}")
        together = [("train", "val"), ("train", "test"), ("val", "test"), ("val_neg", "test_neg")]
        for one, other in together[: 3 if self.repeated else 4]:
            what = f"'{one}' and '{other}' have {{}} pairs in common"
            self.refuse("L4" if "neg" in one else "L3", what, self.keys[one], self.keys[other])
        links = pair_keys(self.pair.target_links(), self.num_nodes, directed=directed)
        stored = sort_keys(torch.cat([exact[name] for name in ("train", "val", "test")]))
        if self.given:
            # What is held out may be none of the target's edges, as in OGB's data; what is known must be.
            stored = sort_keys(
                torch.cat([exact["train"], stored[is_among(stored, links) & ~is_among(stored, exact["train"])]])
            )
        if not torch.equal(stored, links):
            strange = stored[~is_among(stored, links)]
            hint = f"; {self.example(strange)} is none" if strange.numel() else ""
            _broken(
                "L2",
                f"training, validation and test have {stored.numel()} pairs and the target {links.numel()} links, "
                f"which must be the same{hint}",
            )

    def kinds(self) -> None:
        shared, num_neg = self.pair.shared, self.split.num_neg
        only = self.split.options.get("hold_out") == "target_only_end"
        for part in ("val", "test"):
            links, negatives = (self.pairs[name].size(1) for name in (part, f"{part}_neg"))
            if negatives != num_neg * links and not self.given:
                _broken("L6", f"'{part}' has {links} links and {negatives} non-links, not {num_neg} for each")
            for name in (part, f"{part}_neg"):
                between = int(shared[self.pairs[name]].all(0).count_nonzero())
                if only and between:
                    _broken("L6", f"{between} pairs in '{name}' have no end that only the target has, as others have")
                side = self.split.side
                within = 0 if side is None else int((~across(self.pairs[name], side.cpu())).count_nonzero())
                if within:
                    _broken(
                        "L6",
                        f"{within} of {self.pairs[name].size(1)} pairs in '{name}' are not between the two sides that "
                        "the links of the target are between: who knows the sides alone tells them from links; "
                        "between='any' lets them be",
                    )
        if self.pair.directed and not self.given:
            self.directions(~shared if self.split.side is None else self.split.side == 0)

    def directions(self, marked: Tensor) -> None:
        """Compare how often links and non-links begin with a marked node, where one end is one."""
        shares, counts = zip(
            *(
                marked_first(torch.cat([self.pairs[f"val{kind}"], self.pairs[f"test{kind}"]], 1), marked)
                for kind in ("", "_neg")
            ),
            strict=True,
        )
        if min(counts) == 0:
            return
        pooled = sum(share * count for share, count in zip(shares, counts, strict=True)) / sum(counts)
        # Five standard deviations of what chance alone would do.
        if abs(shares[0] - shares[1]) > 5 * sqrt(pooled * (1 - pooled) * (1 / counts[0] + 1 / counts[1])):
            ends = ("a shared and another node", "latter") if self.split.side is None else ("the sides", "first one")
            _broken(
                "L6",
                f"of the held-out links between {ends[0]} {shares[0]:.0%} begin with the {ends[1]}, of the stored "
                f"non-links {shares[1]:.0%}",
            )

    def found(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Return which held-out links and which stored non-links are among pairs ``[2, E]``, as keys."""
        held = unique_keys(torch.cat([self.keys["val"], self.keys["test"]]))
        rest = unique_keys(torch.cat([self.keys["val_neg"], self.keys["test_neg"]]))
        parts: list[list[Tensor]] = [[held[:0]], [rest[:0]]]
        for where in blocks(pairs.size(1)):
            ends = pairs[:, where]
            keys = pair_keys(ends[:, (ends < self.num_nodes).all(0)], self.num_nodes)
            for known, part in zip((held, rest), parts, strict=True):
                part.append(keys[is_among(keys, known)])
        return unique_keys(torch.cat(parts[0])), unique_keys(torch.cat(parts[1]))

    def no_chance(self, links: Tensor, non_links: Tensor) -> bool:
        """Say whether more held-out links than stored non-links were found than chance would find."""
        total, others = (sum(self.keys[f"{part}{kind}"].numel() for part in ("val", "test")) for kind in ("", "_neg"))
        share = links.numel() / max(total, 1)
        return links.numel() >= _FEW and share > max(_SHARE, 2 * non_links.numel() / max(others, 1))

    def graph(self, graph: Any) -> None:
        """Look for held-out pairs among the edges, and for held-out links in all other lists of pairs."""
        for part in edge_lists(graph, self.sizes):
            links, non_links = self.found(part.pairs)
            if links.numel() and (part.sure or part.messages or self.no_chance(links, non_links)):
                where = "as edges" if part.messages else f"in '{part.name}'"
                _broken(
                    "L1", f"'graph' has {links.numel()} of the held-out links {where}, such as {self.example(links)}"
                )
            if part.messages and non_links.numel():
                count = non_links.numel()
                _broken(
                    "L6", f"'graph' has {count} of the stored non-links as edges, such as {self.example(non_links)}"
                )

    def features(self) -> None:
        """Look for held-out links in features that have a column for each node."""
        ids = [torch.arange(self.num_nodes), *self.pair.nodes().source_ids]
        for i, (graph, numbers) in enumerate(zip((self.pair.target, *self.pair.source), ids, strict=True)):
            part = feature_pairs(graph.get("x"), numbers, self.sizes)
            if part is None:
                continue
            links, non_links = self.found(part.pairs)
            if self.no_chance(links, non_links):
                name = f"source {i - 1}" if i else "target"
                _broken("L1", f"'x' of the {name} has a column for each node, and {links.numel()} held-out links in it")

    def copies(self) -> None:
        """Look for held-out links that the source has between nodes whose features, and no others', are the same."""
        match, own = self.pair.nodes(), self.pair.target.get("x")
        number = torch.arange(match.num_nodes)
        if own is None or own.layout != torch.strided:
            return
        start = match.num_target
        for graph, ids in zip(self.pair.source, match.source_ids, strict=True):
            new = (ids >= start).nonzero().view(-1)
            start += new.numel()
            if new.numel() and graph.get("x") is not None:
                node, place = equal_rows(own, take_rows(graph.x, new))
                number[ids[new[place]]] = node
        if bool((number == torch.arange(match.num_nodes)).all()):
            return
        links = key_pairs(self.pair.relation().source, match.num_nodes)
        links = links[:, (links >= self.num_nodes).any(0)]
        links, non_links = self.found(number[links])
        if self.no_chance(links, non_links):
            _broken(
                "L1",
                f"the source has {links.numel()} of the held-out links between nodes that have other keys than those "
                f"of the target and the same features, such as {self.example(links)}: give them the same keys",
            )

    def learned(self, name: str, keys: Tensor, valid_allowed: bool) -> None:
        self.refuse("L1", f"{{}} '{name}' are test links", keys, self.keys["test"])
        if not valid_allowed:
            self.refuse("L1 and L5", f"{{}} '{name}' are val links", keys, self.keys["val"])
        for part in ("val_neg", "test_neg"):
            rule = "L4" if name == "positives" else "L7"
            self.refuse(rule, f"{{}} '{name}' are pairs of '{part}'", keys, self.keys[part])

    def score(self, score: Callable[[Tensor], Tensor]) -> None:
        """Score some links and non-links together, then each part alone."""
        links, others = self.split.test[:, :64], self.split.test_neg[:, :64]
        together = score(torch.cat([links, others], dim=1)).detach().cpu().double()
        alone = torch.cat([score(part).detach().cpu().double() for part in (links, others[:, :1], others[:, 1:])])
        if together.shape != (links.size(1) + others.size(1),) or alone.shape != together.shape:
            raise ValueError(
                f"'score' must return a number for each of {links.size(1) + others.size(1)} pairs (got the shape "
                f"{list(together.shape)})"
            )
        if not bool(together.isfinite().all()):
            raise ValueError("'score' must return finite numbers (got NaN or infinity)")
        if not torch.allclose(together, alone, rtol=1e-4, atol=1e-5):
            _broken("L7", "'score' gives a pair another score when other pairs are asked for with it")
