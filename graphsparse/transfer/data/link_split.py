"""Split the links of a target into training, validation and test, and draw the non-links that go with them."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphsparse.ops.check import check_count
from graphsparse.ops.pairs import is_among
from graphsparse.ops.sort import stable_order
from graphsparse.transfer.data.link_code import both_ends, sorted_codes, sorted_unique
from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.pair_input import EdgeType
from graphsparse.transfer.data.pair_space import PairSpace
from graphsparse.transfer.data.relation import Relation
from graphsparse.transfer.data.split import LinkSplit
from graphsparse.transfer.data.split_negatives import draw_non_links, turn_non_links
from graphsparse.utils.counter_random import CounterRandom, check_seed

HOLD_OUT = ("target_only_end", "all")


def split_links(
    pair: SharedNodePair,
    ratios: Sequence[float] = (0.2, 0.4, 0.4),
    seed: int = 0,
    *,
    hold_out: str | Tensor = "target_only_end",
    num_neg: int = 5,
    edge_type: EdgeType | None = None,
) -> LinkSplit:
    r"""Split the links of a pair's target once, for every method and every derived graph.

    Links that may be held out are shuffled and divided: :math:`\lfloor r_1 n \rfloor` for training,
    :math:`\lfloor (r_1 + r_2) n \rfloor - \lfloor r_1 n \rfloor` for validation, the rest for the test. All others are
    for training. A pair of nodes goes to one part with both its directions, also where these are different links.

    Non-links are different pairs drawn uniformly from those that are no link of the whole target, in either direction,
    and no self-loop, ``num_neg`` for each held-out link; those of validation and test do not overlap. They are of the
    same kind as the held-out links: with ``"target_only_end"`` one end at least is in no source, for otherwise a node's
    kind alone would tell links from non-links. Where links are directed, so are non-links: those between a shared and
    another node begin with the latter as often as the held-out links do, all others have either direction as likely.

    Args:
        pair: The graphs.
        ratios: Shares of training, validation and test in the links that may be held out; their sum is 1.
        seed: Equal seeds give equal splits on every device and in every release.
        hold_out: Which links may be held out: ``"target_only_end"`` for those with an end that no source has, ``"all"``
            for all, or the pairs themselves, ``[2, P]``, such as those after a certain year. Non-links are drawn from
            all pairs of the target's nodes in the latter two cases.
        num_neg: Non-links per held-out link.
        edge_type: Type of the links, in heterogeneous graphs with more than one.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, a pair of ``hold_out`` is no link of the target, there is nothing to
            hold out, validation or test would be empty though their ratio is not 0, or there are too few non-links.

    Example:
        >>> from torch_geometric.data import Data
        >>> ring = torch.stack([torch.arange(40), (torch.arange(40) + 1) % 40])
        >>> target = Data(edge_index=ring, key=torch.arange(40), num_nodes=40)
        >>> source = Data(edge_index=ring[:, :20], key=torch.arange(21), num_nodes=21)
        >>> split_links(SharedNodePair(source, target))
        LinkSplit(train=24, val=8, test=8, val_neg=40, test_neg=40, seed=0, hash='...')
    """
    if not isinstance(pair, SharedNodePair):
        raise TypeError(f"'pair' must be a SharedNodePair (got {type(pair).__name__})")
    shares = _check_ratios(ratios)
    seed = check_seed(seed)
    num_neg = check_count(num_neg, "num_neg", least=0)
    relation = pair.relation(edge_type)
    whole, rule = relation.code.unordered(relation.target), hold_out if isinstance(hold_out, str) else "given"
    free = _free(relation, whole, hold_out)
    # Both directions of a pair have one number here and so fall into one part.
    candidates = sorted_unique(whole[free].numpy())
    part_of = _divide(candidates, shares, seed)
    parts = [relation.code.decode(relation.target[is_among(whole, codes)]) for codes in part_of]
    train_fixed = relation.target[~free]
    train = sorted_codes(torch.cat([relation.code.encode(parts[0]), train_fixed]))
    space = _space(relation, only_target=rule == "target_only_end")
    count = [num_neg * part.size(1) for part in parts[1:]]
    negatives = draw_non_links(space, sum(count), relation.code, sorted_unique(whole.clone().numpy()), seed=seed)
    if relation.code.square and relation.code.directed:
        negatives = turn_non_links(negatives, torch.cat(parts[1:], 1), ~relation.ends[0].shared, seed=seed)
    options: dict[str, Any] = {
        "ratios": list(shares),
        "hold_out": rule,
        "num_neg": num_neg,
        "directed": pair.directed,
        "edge_type": list(edge_type or pair.edge_types[0]) if pair.is_hetero else None,
    }
    return LinkSplit(
        relation.code.decode(train),
        parts[1],
        parts[2],
        negatives[:, : count[0]],
        negatives[:, count[0] :],
        seed,
        pair.fingerprint,
        options,
    )


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


def _free(relation: Relation, whole: Tensor, hold_out: Any) -> Tensor:
    """Say of the target's links which may be held out."""
    if isinstance(hold_out, str) and hold_out in HOLD_OUT:
        if hold_out == "all":
            return torch.ones(whole.numel(), dtype=torch.bool)
        masks = [_widen(match.shared, match.num_nodes) for match in relation.ends]
        found = ~both_ends(relation.code, relation.target, masks[0], masks[1])
        if not bool(found.any()):
            raise ValueError(
                "no link of the target has an end that only the target has, so none can be held out: with "
                "hold_out='all' any link may be"
            )
        return found
    if not isinstance(hold_out, Tensor):
        raise ValueError(f"'hold_out' must be one of {HOLD_OUT}, or pairs [2, P] (got {hold_out!r})")
    wanted = relation.code.encode(relation.check_pairs(hold_out, "hold_out"), unordered=True)
    wanted = sorted_unique(wanted.numpy())
    strange = wanted[~is_among(wanted, sorted_codes(whole.clone()))]
    if strange.numel():
        first = relation.code.decode(strange[:1]).view(-1).tolist()
        raise ValueError(f"'hold_out' holds {strange.numel()} pairs that are no link of the target, such as {first}")
    return is_among(whole, wanted)


def _widen(shared: Tensor, num_nodes: int) -> Tensor:
    mark = torch.zeros(num_nodes, dtype=torch.bool)
    mark[: shared.numel()] = shared
    return mark


def _divide(candidates: Tensor, shares: tuple[float, float, float], seed: int) -> list[Tensor]:
    """Shuffle links and cut them into three parts, each sorted."""
    count = candidates.numel()
    # Sums of fractions are a rounding error beside what they mean.
    ends = [math.floor(share * count + 1e-9) for share in (shares[0], shares[0] + shares[1])]
    ends = [end if share < 1 else count for end, share in zip(ends, (shares[0], shares[0] + shares[1]), strict=True)]
    sizes = {"training": ends[0], "validation": ends[1] - ends[0], "test": count - ends[1]}
    for (name, size), share in zip(sizes.items(), shares, strict=True):
        if share > 0 and size == 0 and name != "training":
            raise ValueError(f"{count} links may be held out: too few, none would be left for {name}")
    order = stable_order(CounterRandom(seed, "split links").words(count), 1 << 32).long()
    parts = candidates[order].tensor_split(ends)
    return [sorted_codes(part) for part in parts]


def _space(relation: Relation, *, only_target: bool) -> PairSpace:
    src, dst = (
        ~match.shared if only_target else torch.ones(match.num_target, dtype=torch.bool) for match in relation.ends
    )
    return PairSpace(src, None if relation.code.square else dst)
