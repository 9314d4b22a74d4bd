"""Say whether anything that is trained on, or a split itself, gives away what is to be predicted."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from graphsparse.ops.blocks import BLOCK
from graphsparse.ops.pairs import is_among
from graphsparse.transfer.data.link_code import sorted_codes
from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.relation import Relation
from graphsparse.transfer.data.split import PARTS, LinkSplit
from graphsparse.transfer.data.split_negatives import marked_first


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
        >>> from graphsparse.transfer.data.link_split import split_links
        >>> split = split_links(pair, hold_out="all")
        >>> assert_no_leak(split, pair, graph=pair.union(without=split))
        >>> assert_no_leak(split, pair, graph=pair.union())
        Traceback (most recent call last):
        ...
        ValueError: rule L1: 'graph' has 32 of the held-out links as edges, such as ...
    """
    if not isinstance(split, LinkSplit):
        raise TypeError(f"'split' must be a LinkSplit (got {type(split).__name__})")
    if not isinstance(pair, SharedNodePair):
        raise TypeError(f"'pair' must be a SharedNodePair (got {type(pair).__name__})")
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
            check.learned(name, check.relation.check_pairs(given, name), use_valid_as_anchor)
    if negatives is not None:
        check.negatives(check.relation.check_pairs(negatives, "negatives"), positives)
    if score is not None:
        check.score(score)


def _broken(rule: str, what: str) -> None:
    raise ValueError(f"rule {rule}: {what}")


class _Check:
    """The sorted numbers of a split's pairs without their directions, and the rules on them."""

    def __init__(self, split: LinkSplit, pair: SharedNodePair) -> None:
        self.split, self.pair = split, pair
        self.relation: Relation = pair.relation(split.edge_type)
        self.pairs = {name: self.relation.check_pairs(getattr(split, name), f"split.{name}") for name in PARTS}
        self.codes = {name: self.sorted(pairs) for name, pairs in self.pairs.items()}
        self.heldout = sorted_codes(torch.cat([self.codes["val"], self.codes["test"]]))

    def sorted(self, pairs: Tensor) -> Tensor:
        return sorted_codes(self.relation.code.encode(pairs, unordered=True))

    def example(self, codes: Tensor) -> str:
        return str(tuple(self.relation.code.decode(codes[:1]).view(-1).tolist()))

    def parts(self) -> None:
        code = self.relation.code
        for name, pairs in self.pairs.items():
            exact = sorted_codes(code.encode(pairs))
            if code.square and bool((pairs[0] == pairs[1]).any()):
                _broken("L4" if "neg" in name else "L3", f"'split.{name}' has self-loops")
            if code.undirected and bool((pairs[0] > pairs[1]).any()):
                _broken("L3", f"'split.{name}' has pairs with the larger end first")
            if bool((exact[1:] == exact[:-1]).any()):
                twice = exact[1:][exact[1:] == exact[:-1]]
                _broken("L3", f"'split.{name}' has pairs more than once, such as {self.example(twice)}")
        for one, other in (("train", "val"), ("train", "test"), ("val", "test"), ("val_neg", "test_neg")):
            both = self.codes[one][is_among(self.codes[one], self.codes[other])]
            if both.numel():
                rule = "L4" if "neg" in one else "L3"
                _broken(
                    rule, f"'{one}' and '{other}' have {both.numel()} pairs in common, such as {self.example(both)}"
                )
        stored = sorted_codes(torch.cat([code.encode(self.pairs[name]) for name in ("train", "val", "test")]))
        if not torch.equal(stored, self.relation.target):
            strange = stored[~is_among(stored, self.relation.target)]
            hint = f"; {self.example(strange)} is none" if strange.numel() else ""
            _broken(
                "L2",
                f"training, validation and test have {stored.numel()} pairs and the target "
                f"{self.relation.target.numel()} links, which must be the same{hint}",
            )

    def stored_negatives(self) -> None:
        links = self.sorted(self.relation.code.decode(self.relation.target))
        for name in ("val_neg", "test_neg"):
            wrong = self.codes[name][is_among(self.codes[name], links)]
            if wrong.numel():
                count = f"{wrong.numel()} of {self.codes[name].numel()}"
                _broken("L4", f"{count} pairs in '{name}' are links of the target, such as {self.example(wrong)}")

    def kinds(self) -> None:
        src, dst = self.relation.ends
        only = self.split.options.get("hold_out") == "target_only_end"
        for part in ("val", "test"):
            links, negatives = self.pairs[part], self.pairs[f"{part}_neg"]
            if negatives.size(1) != self.split.num_neg * links.size(1):
                _broken(
                    "L6",
                    f"'{part}' has {links.size(1)} links and {negatives.size(1)} non-links, "
                    f"not {self.split.num_neg} for each",
                )
            for name, pairs in ((part, links), (f"{part}_neg", negatives)):
                between = int((src.shared[pairs[0]] & dst.shared[pairs[1]]).count_nonzero())
                if only and between:
                    _broken("L6", f"{between} pairs in '{name}' have no end that only the target has, as others have")
        if self.relation.code.square and self.relation.code.directed:
            self.directions(~src.shared)

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
        if not isinstance(graph, (Data, HeteroData)):
            raise TypeError(f"'graph' must be a Data or HeteroData (got {type(graph).__name__})")
        kind = self.split.edge_type
        if isinstance(graph, HeteroData) != (kind is not None):
            raise TypeError(f"'graph' must be a {'HeteroData' if kind else 'homogeneous Data'}, as the target is")
        if kind is None:
            self._edges(graph, graph, graph, "")
            return
        for edge_type in [kind, *self.pair.reverse_types(kind)]:
            if edge_type in graph.edge_types:
                self._edges(
                    *(graph[edge_type], graph[edge_type[0]], graph[edge_type[2]], f" of type {edge_type}"),
                    flipped=edge_type != kind,
                )

    def _edges(self, store: Any, src: Any, dst: Any, where: str, *, flipped: bool = False) -> None:
        code, edge_index = self.relation.code, store.edge_index
        ids = [end.n_id.cpu() if "n_id" in end else torch.arange(int(end.num_nodes)) for end in (src, dst)]
        asked = sorted_codes(torch.cat([self.codes[name] for name in ("val", "test", "val_neg", "test_neg")]))
        found = []
        for start in range(0, edge_index.size(1), BLOCK):
            row, col = edge_index[:, start : start + BLOCK].cpu().long()
            ends = torch.stack([ids[0][row], ids[1][col]])
            ends = ends.flip(0) if flipped else ends
            if bool((ends[0] >= code.num_src).any()) or bool((ends[1] >= code.num_dst).any()):
                raise ValueError(f"'graph' has nodes that this pair does not have{where}")
            codes = code.encode(ends, unordered=True)
            found.append(codes[is_among(codes, asked)])
        seen = torch.unique(torch.cat(found)) if found else asked[:0]
        held = is_among(seen, self.heldout)
        for rule, leaked, what in (("L1", seen[held], "held-out links"), ("L6", seen[~held], "stored non-links")):
            if leaked.numel():
                _broken(
                    rule, f"'graph' has {leaked.numel()} of the {what} as edges{where}, such as {self.example(leaked)}"
                )

    def learned(self, name: str, pairs: Tensor, valid_allowed: bool) -> None:
        codes = self.sorted(pairs)
        for part in ("test", "val"):
            leaked = codes[is_among(codes, self.codes[part])]
            if leaked.numel() and not (part == "val" and valid_allowed):
                rule = "L1" if part == "test" else "L1 and L5"
                _broken(rule, f"{leaked.numel()} '{name}' are {part} links, such as {self.example(leaked)}")
        for part in ("val_neg", "test_neg"):
            asked = codes[is_among(codes, self.codes[part])]
            if asked.numel():
                rule = "L4" if name == "positives" else "L7"
                _broken(rule, f"{asked.numel()} '{name}' are pairs of '{part}', such as {self.example(asked)}")

    def negatives(self, pairs: Tensor, positives: Tensor | None) -> None:
        codes = self.sorted(pairs)
        known = {"known links of the target": self.codes["train"]}
        if positives is not None:
            known["'positives'"] = self.sorted(self.relation.check_pairs(positives, "positives"))
        for what, links in known.items():
            wrong = codes[is_among(codes, links)]
            if wrong.numel():
                _broken("L4", f"{wrong.numel()} 'negatives' are {what}, such as {self.example(wrong)}")

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
