"""A split of links and non-links that somebody else made, such as those of OGB."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.ops.pairs import is_among, key_pairs, pair_keys, unique_keys
from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.data.pair import SharedNodePair, as_pair
from graphsparse.transfer.data.relation import read_pairs
from graphsparse.transfer.data.split import LinkSplit, sides_of_target

#: Names of the parts, and what OGB calls them.
_NAMES = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}


def given_split(
    pair: SharedNodePair | Data,
    parts: Mapping[str, Any],
    *,
    between: str | Tensor | tuple[Tensor, Tensor] | None = None,
) -> LinkSplit:
    """Return a split of given links and non-links, as many of each as there are.

    Every method takes it as it takes one of :func:`split_links`. What is held out need not be among the target's edges,
    as in OGB's data, whose edges are those for training; where it is, it is no training link. All rules against leaks
    are checked.

    Args:
        pair: The graphs, or one graph.
        parts: Links and non-links ``([2, P], [2, N])`` under ``"val"`` and ``"test"``, in the target's numbers, and
            perhaps links ``[2, P]`` under ``"train"``: the target's other links, which they are if it is missing. Or
            the ``split_edge`` of :func:`graphsparse.datasets.load_ogb`, which has its pairs under ``"edge"`` and
            ``"edge_neg"``, or ``"source_node"``, ``"target_node"`` and ``"target_node_neg"``.
        between: As of :func:`split_links`. Given non-links within a side are an error unless it is ``"any"``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a part is missing, a pair is out of range or in two parts, a link is there twice in a part, a
            non-link is a link, links for training are no links of the target, or a rule against leaks is broken.

    Example:
        >>> ring = torch.stack([torch.arange(41), (torch.arange(41) + 1) % 41])
        >>> target = Data(edge_index=ring, key=torch.arange(41), num_nodes=41)
        >>> pair = SharedNodePair(target, target)
        >>> non_links = torch.tensor([[0, 1, 2], [9, 9, 9]])
        >>> given_split(pair, {"val": (ring[:, :5], non_links[:, :2]), "test": (ring[:, 30:], non_links)})
        LinkSplit(train=25, val=5, test=11, val_neg=2, test_neg=3, seed=0, hash='...')

    Source: Hu et al., *Open Graph Benchmark*, NeurIPS 2020, for the splits that it is made for.
    """
    pair = as_pair(pair)
    if not isinstance(parts, Mapping):
        raise TypeError(f"'parts' must be a dictionary with 'val' and 'test' (got {type(parts).__name__})")
    found: dict[str, Tensor] = {}
    for part, names in _NAMES.items():
        name = next((name for name in names if name in parts), None)
        if name is None and part != "train":
            raise ValueError(f"'parts' must hold links and non-links under {part!r} (got {sorted(map(str, parts))})")
        if name is None:
            continue
        links, others = _read_part(parts[name], part)
        found[part] = _directed_as(pair, links, f"parts[{name!r}]")
        if part != "train":
            found[f"{part}_neg"] = _directed_as(pair, others, f"parts[{name!r}], non-links")
    links, num_nodes = pair.target_links(), pair.num_nodes
    held = unique_keys(pair_keys(torch.cat([found["val"], found["test"]], 1), num_nodes))
    if "train" in found:
        _check_train(pair, found["train"], links, held)
        links = key_pairs(_keys(pair, found["train"]), num_nodes)
    else:
        links = links[:, ~is_among(pair_keys(links, num_nodes), held)]
    every = torch.cat([links, found["val"], found["test"]], 1)
    side, told = sides_of_target(pair, every, between)
    options = {"hold_out": "given", "non_links": "given", "directed": pair.directed, "between": told}
    val, test, val_neg, test_neg = (found[name] for name in ("val", "test", "val_neg", "test_neg"))
    split = LinkSplit(links, val, test, val_neg, test_neg, 0, pair.fingerprint, options, side)
    assert_no_leak(split, pair)
    return split


def _keys(pair: SharedNodePair, pairs: Tensor) -> Tensor:
    return unique_keys(pair_keys(pairs, pair.num_nodes, directed=pair.directed))


def _check_train(pair: SharedNodePair, train: Tensor, links: Tensor, held: Tensor) -> None:
    """Refuse training links that are held out, too, or are not the rest of the target's links."""
    num_nodes = pair.num_nodes
    both = is_among(pair_keys(train, num_nodes), held)
    if bool(both.any()):
        raise ValueError(
            f"{int(both.count_nonzero())} links for training are held out, too, such as "
            f"{train[:, both][:, 0].tolist()}: "
            "leave 'train' out of 'parts', and whatever is held out is no training link"
        )
    own, known = _keys(pair, train), _keys(pair, links)
    strange = own[~is_among(own, known)]
    missing = known[~is_among(known, own) & ~is_among(pair_keys(key_pairs(known, num_nodes), num_nodes), held)]
    for keys, what in (
        (strange, "links for training are no links of the target"),
        (missing, "links of the target are in no part"),
    ):
        if keys.numel():
            raise ValueError(f"{keys.numel()} {what}, such as {key_pairs(keys[:1], num_nodes).view(-1).tolist()}")


def _read_part(part: Any, name: str) -> tuple[Tensor, Tensor]:
    """Return links and non-links ``[2, P]`` of a part."""
    none = torch.empty(2, 0, dtype=torch.int64)
    if isinstance(part, Mapping):
        return _of_ogb({key: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for key, v in part.items()}, name)
    if name == "train" and isinstance(part, Tensor):
        return part, none
    if name == "train" or not isinstance(part, (tuple, list)) or len(part) != 2:
        wanted = "links [2, P]" if name == "train" else "links and non-links ([2, P], [2, N])"
        raise TypeError(f"'parts' must hold {wanted} under {name!r} (got {type(part).__name__})")
    return part[0], part[1]


def _of_ogb(part: Mapping[str, Any], name: str) -> tuple[Tensor, Tensor]:
    none = torch.empty(2, 0, dtype=torch.int64)
    if "edge" in part and (name == "train" or "edge_neg" in part):
        return part["edge"].t(), none if name == "train" else part["edge_neg"].t()
    if {"source_node", "target_node"} <= set(part) and (name == "train" or "target_node_neg" in part):
        source, target = part["source_node"], part["target_node"]
        if name == "train":
            return torch.stack([source, target]), none
        rest = part["target_node_neg"]
        others = torch.stack([source[:, None].expand_as(rest), rest]).flatten(1)
        return torch.stack([source, target]), others
    raise ValueError(
        f"'parts' must hold pairs under 'edge' and 'edge_neg', or 'source_node', 'target_node' and 'target_node_neg', "
        f"in {name!r} (got {sorted(part)}): links of several relations are not taken"
    )


def _directed_as(pair: SharedNodePair, pairs: Any, name: str) -> Tensor:
    """Return pairs as a split keeps them: the smaller end first unless links have a direction."""
    pairs = read_pairs(pairs, pair.num_nodes, name)
    return pairs if pair.directed else torch.stack([pairs.amin(0), pairs.amax(0)])
