"""Say whether anything that is trained on, or a split itself, gives away what is to be predicted."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.ops.blocks import blocks
from graphsparse.ops.pairs import is_among, pair_keys, sort_keys, unique_keys
from graphsparse.transfer.data.negatives import marked_first
from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.relation import read_pairs
from graphsparse.transfer.data.split import PARTS, LinkSplit


def assert_no_leak(
    split: LinkSplit,
    pair: SharedNodePair,
    *,
    graph: Data | None = None,
    positives: Tensor | None = None,
    anchors: Tensor | None = None,
    negatives: Tensor | None = None,
    score: Callable[[Tensor], Tensor] | None = None,
    use_valid_as_anchor: bool = False,
) -> None:
    """Raise an error if a rule against leaks is broken.

    ==== ======================================================================================================
    L1   No held-out link, in either direction, is among messages, positives or anchors, whichever graph it is from.
    L2   The split is of this pair's target, and all of its links are in it: one split serves every method.
    L3   Both directions of a pair are in one part, and every pair is there once.
    L4   No negative is a positive: stored non-links are no link of the whole target, given ones no known link.
    L5   Validation links serve the choice of a model only, unless ``use_valid_as_anchor`` says otherwise.
    L6   Stored non-links are of the same kind as the held-out links, and there are ``num_neg`` of them for each. None
         is an edge of a graph either: as no held-out link is one, what a source says of them would tell them apart.
    L7   Pairs that are asked for do not influence one another: none is an anchor, and each has the score it has alone.
    ==== ======================================================================================================

    The split is always checked; what else is given is checked as well.

    Args:
        split: The split.
        pair: The graphs.
        graph: A graph whose edges are messages or are learned from, with ``n_id`` where its nodes are not the target's.
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
        >>> ring = torch.stack([torch.arange(40), (torch.arange(40) + 1) % 40])
        >>> target = Data(edge_index=ring, key=torch.arange(40), num_nodes=40)
        >>> pair = SharedNodePair(target, target)
        >>> from graphsparse.transfer.data.split import split_links
        >>> split = split_links(pair, hold_out="all")
        >>> assert_no_leak(split, pair, graph=pair.union(without=split))
        >>> assert_no_leak(split, pair, graph=pair.union())
        Traceback (most recent call last):
        ...
        ValueError: rule L1: 'graph' has 32 of the held-out links as edges, such as ...
    """
    for name, value, kind in (("split", split, LinkSplit), ("pair", pair, SharedNodePair)):
        if not isinstance(value, kind):
            raise TypeError(f"'{name}' must be a {kind.__name__} (got {type(value).__name__})")
    if split.fingerprint != pair.fingerprint:
        _broken("L2", f"the split was made from the target {split.fingerprint}, not from {pair.fingerprint}")
    check = _Check(split, pair)
    check.stored_negatives()
    check.parts()
    check.kinds()
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
        self.num_nodes = pair.num_nodes
        self.pairs = {name: read_pairs(getattr(split, name), self.num_nodes, f"split.{name}") for name in PARTS}
        self.keys = {name: self.sorted(pairs) for name, pairs in self.pairs.items()}

    def sorted(self, pairs: Tensor) -> Tensor:
        return sort_keys(pair_keys(pairs, self.num_nodes))

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
        links = self.sorted(self.pair.target_links())
        for name in ("val_neg", "test_neg"):
            count = self.keys[name].numel()
            self.refuse("L4", f"{{}} of {count} pairs in '{name}' are links of the target", self.keys[name], links)

    def parts(self) -> None:
        directed = self.pair.directed
        exact = {name: sort_keys(pair_keys(p, self.num_nodes, directed=directed)) for name, p in self.pairs.items()}
        for name, pairs in self.pairs.items():
            if bool((pairs[0] == pairs[1]).any()):
                _broken("L4" if "neg" in name else "L3", f"'split.{name}' has self-loops")
            if not directed and bool((pairs[0] > pairs[1]).any()):
                _broken("L3", f"'split.{name}' has pairs with the larger end first")
            twice = exact[name][1:][exact[name][1:] == exact[name][:-1]]
            if twice.numel():
                _broken("L3", f"'split.{name}' has pairs more than once, such as {self.example(twice)}")
        for one, other in (("train", "val"), ("train", "test"), ("val", "test"), ("val_neg", "test_neg")):
            what = f"'{one}' and '{other}' have {{}} pairs in common"
            self.refuse("L4" if "neg" in one else "L3", what, self.keys[one], self.keys[other])
        links = pair_keys(self.pair.target_links(), self.num_nodes, directed=directed)
        stored = sort_keys(torch.cat([exact[name] for name in ("train", "val", "test")]))
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
            if negatives != num_neg * links:
                _broken("L6", f"'{part}' has {links} links and {negatives} non-links, not {num_neg} for each")
            for name in (part, f"{part}_neg"):
                between = int(shared[self.pairs[name]].all(0).count_nonzero())
                if only and between:
                    _broken("L6", f"{between} pairs in '{name}' have no end that only the target has, as others have")
        if self.pair.directed:
            self.directions(~shared)

    def directions(self, marked: Tensor) -> None:
        """Compare how often links and non-links begin with a node that only the target has, where one end is one."""
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
            _broken(
                "L6",
                f"of the held-out links between a shared and another node {shares[0]:.0%} begin with the latter, of "
                f"the stored non-links {shares[1]:.0%}",
            )

    def graph(self, graph: Any) -> None:
        """Look for held-out pairs among the edges, in blocks."""
        if not isinstance(graph, Data):
            raise TypeError(f"'graph' must be a Data (got {type(graph).__name__})")
        ids = graph.n_id.cpu() if "n_id" in graph else torch.arange(int(graph.num_nodes))
        if bool((ids >= self.pair.num_union_nodes).any()):
            raise ValueError("'graph' has nodes that this pair does not have")
        asked = unique_keys(torch.cat([self.keys[name] for name in PARTS[1:]]))
        found = [asked[:0]]
        for where in blocks(graph.edge_index.size(1)):
            ends = ids[graph.edge_index[:, where].cpu().long()]
            keys = pair_keys(ends[:, (ends < self.num_nodes).all(0)], self.num_nodes)
            found.append(keys[is_among(keys, asked)])
        seen = unique_keys(torch.cat(found))
        held = unique_keys(torch.cat([self.keys["val"], self.keys["test"]]))
        self.refuse("L1", "'graph' has {} of the held-out links as edges", seen, held)
        if seen.numel():
            _broken("L6", f"'graph' has {seen.numel()} of the stored non-links as edges, such as {self.example(seen)}")

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
