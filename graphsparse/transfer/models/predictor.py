"""What teacher, student, chain and baselines have in common: they are fitted, score pairs, and are saved and loaded."""

import copy
import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.nn.link_decoders import BilinearDecoder, make_decoder, score_in_chunks
from graphsparse.ops.check import check_count
from graphsparse.ops.digest import digest
from graphsparse.ops.sort import index_dtype
from graphsparse.training import FitResult, Training, fit, link_training
from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.data.pair import as_pair
from graphsparse.transfer.data.partners import Barred, Best, best_of_blocks, scored_again
from graphsparse.transfer.data.split import check_queries, check_split
from graphsparse.utils.files import read_tensors, reading, write_tensors

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair
    from graphsparse.transfer.data.split import LinkSplit

P = TypeVar("P", bound="LinkPredictor")
V = TypeVar("V", bound="VectorPredictor")

#: What an option may be to be held by a file.
_PLAIN = (bool, int, float, str, list, tuple, NoneType)
#: What the files say that they hold.
_KIND = "link predictor of graphsparse, version 2"
#: Names under which they hold what was known when it was fitted: links, and sides if there are any.
_KNOWN = "known."
#: Partners that are scored again beyond those asked for, as sums in another order round otherwise.
_MORE = 8


class LinkPredictor:
    """Learns links of a target from what a split leaves, and scores pairs of its nodes.

    A predictor is a subclass with two methods: :meth:`learn` returns all that scoring needs, as tensors and plain
    values by name, which are then found in :attr:`state`; :meth:`rate` returns scores. Everything else is here: the
    checks of pair, split and queries, and files. :meth:`prepare` may build from the state what is slow to build, and
    :meth:`options` returns the arguments of the class, if it takes any, as plain values: the fields of a dataclass.

    Attributes:
        state: What was learned, once fitted or loaded.
        results: Course of each training, once fitted.
        training: How it is trained, if it is; its ``seed`` is taken where :meth:`fit` is given none, and its
            ``checkpoint`` is a folder, with a file for each training.

    Example:
        >>> import torch
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.transfer import SharedNodePair, split_links
        >>> class Popularity(LinkPredictor):
        ...     def learn(self, pair, split, seed):
        ...         links = pair.graph("target", without=split).edge_index
        ...         return {"degree": torch.bincount(links[0], minlength=pair.num_nodes)}
        ...
        ...     def rate(self, pairs):
        ...         return self.state["degree"][pairs].sum(0).float()
        >>> data = random_graph()
        >>> pair = SharedNodePair(data, data, torch.arange(60), torch.arange(60))
        >>> Popularity().fit(pair, split_links(pair, hold_out="all")).score(torch.tensor([[0, 1], [2, 3]])).shape
        torch.Size([2])
    """

    #: Name of the checkpoint's file.
    stage = "predictor"
    training: Training = link_training()
    results: Sequence[FitResult] = ()
    _state: dict[str, Any] | None = None
    _origin: Mapping[str, Any] = MappingProxyType({})
    _known: Mapping[str, Tensor] = MappingProxyType({})

    def forget(self) -> None:
        """Be as before the first call of :meth:`fit`."""
        self.results, self._state = (), None

    def learn(self, pair: "SharedNodePair", split: "LinkSplit", seed: int) -> Mapping[str, Any]:
        """Return all that scoring needs, as tensors and plain values; graphs come ``without=split``."""
        raise NotImplementedError

    def rate(self, pairs: Tensor) -> Tensor:
        """Return scores ``[Q]`` of pairs ``[2, Q]`` of target nodes, int64, no self-loops; higher = more likely."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Build what :meth:`rate` needs besides :attr:`state`; called after fitting and after loading."""

    def options(self) -> dict[str, Any]:
        """Return the arguments that build the object again, as far as they are plain values.

        Those of a dataclass are its fields.
        """
        names: list[str] = [entry.name for entry in fields(self)] if is_dataclass(self) else []
        return {name: getattr(self, name) for name in names if isinstance(getattr(self, name), _PLAIN)}

    @classmethod
    def from_options(cls: type[P], options: Mapping[str, Any]) -> P:
        """Build an object, not fitted, from what :meth:`options` returned."""
        return cls(**options)

    def best(self, nodes: Tensor, k: int, barred: Barred) -> Best:
        """Return the partners of some nodes for :meth:`recommend`: here from the scores of all pairs, block by block.

        A predictor that need not score all pairs overrides it.
        """

        def score(rows: Tensor, part: slice) -> Tensor:
            pairs = torch.cartesian_prod(rows, torch.arange(part.start, part.stop)).t()
            loops = pairs[0] == pairs[1]  # which have no score
            pairs[1, loops] = torch.where(pairs[0, loops] == 0, 1, 0)
            return self.rate(pairs).view(rows.numel(), part.stop - part.start)

        return best_of_blocks(nodes, k, barred, score)

    def fit(self: P, pair: "SharedNodePair | Data", split: "LinkSplit", *, seed: int | None = None) -> P:
        """Learn what the split leaves; test pairs are never read, and those of validation only to choose.

        Args:
            pair: Source and target; or one graph, whose links have no direction.
            split: Links of the target that are held out.
            seed: Seed of all that is drawn; that of ``training`` when ``None``.

        Returns:
            The object itself.

        Raises:
            TypeError: If the graphs are heterogeneous, or their features no floating point numbers.
            ValueError: If the split is that of another pair, breaks a rule against leaks
                (:func:`~graphsparse.transfer.assert_no_leak`), or there is nothing to learn from.
        """
        return self._fit(pair, split, seed)

    def _fit(self: P, pair: "SharedNodePair | Data", split: "LinkSplit", seed: int | None, *given: Any) -> P:
        pair = as_pair(pair)
        check_split(pair, split)
        assert_no_leak(split, pair)
        self.forget()
        state = dict(self.learn(pair, split, self.training.seed if seed is None else seed, *given))
        self._known = {"train": split.train} | ({} if split.side is None else {"side": split.side})
        return self.restore(state, origin_of(pair, split))

    def score(self, pairs: Tensor) -> Tensor:
        """Return scores ``[Q]`` of pairs ``[2, Q]`` of target nodes, higher = more likely a link.

        Raises:
            RuntimeError: If nothing has been fitted.
            ValueError: If a node is not in the target, or a pair is a self-loop.
        """
        return self.rate(check_queries(pairs, self.origin["num_nodes"]))

    def recommend(self, nodes: Tensor, k: int, *, exclude_known: bool = True) -> tuple[Tensor, Tensor]:
        """Return the ``k`` partners of each of some nodes that score highest, and their scores, best first.

        Of all pairs only a block is scored at a time, so that memory does not grow with the square of the nodes:
        predictors with a vector per node multiply blocks of them, and heuristics take sparse products, in which only
        nodes within their reach have an entry. Scores are those of :meth:`score`. Where links are between two sides,
        partners are on the other side.

        Args:
            nodes: Target nodes ``[n]``.
            k: Number of partners.
            exclude_known: Leave out the links that were known when it was fitted. Held-out ones are never left out.

        Returns:
            Partners ``[n, k]``, int64, and scores ``[n, k]`` on CPU; -1 and -infinity where there are fewer than ``k``.
            Heuristics recommend nobody with a score of 0.

        Raises:
            RuntimeError: If nothing has been fitted.
            TypeError: If ``nodes`` are no integers, or ``exclude_known`` is no bool.
            ValueError: If a node is not in the target, or ``k`` is below 1.

        Example:
            >>> from graphsparse.testing import random_graph
            >>> from graphsparse.transfer import BASELINES, split_links
            >>> data = random_graph()
            >>> scorer = BASELINES["resource_allocation"](data, split_links(data))
            >>> partners, scores = scorer.recommend(torch.tensor([3, 7]), 5)
            >>> partners.shape, bool((scores[:, 1:] <= scores[:, :-1]).all())
            (torch.Size([2, 5]), True)
        """
        origin, k = self.origin, check_count(k, "k")
        if not isinstance(nodes, Tensor) or nodes.dim() != 1 or nodes.dtype not in (torch.int32, torch.int64):
            got = f"{nodes.dtype} {list(nodes.shape)}" if isinstance(nodes, Tensor) else type(nodes).__name__
            raise TypeError(f"'nodes' must be integers [n] (got {got})")
        if nodes.numel() and not 0 <= int(nodes.min()) <= int(nodes.max()) < origin["num_nodes"]:
            raise ValueError(
                f"'nodes' must be from 0 to {origin['num_nodes'] - 1} (got {int(nodes.min())} to {int(nodes.max())})"
            )
        if not isinstance(exclude_known, bool):
            raise TypeError(f"'exclude_known' must be True or False (got {exclude_known!r})")
        if exclude_known and not self._known:
            raise RuntimeError("this is part of a predictor that was read from a file, which knows the links: ask that")
        links, directed = self._known["train"] if exclude_known else None, origin["directed"]
        barred = Barred(origin["num_nodes"], links, directed=directed, side=self._known.get("side"))
        with torch.no_grad():
            return self.best(nodes.cpu().long(), k, barred)

    @property
    def state(self) -> dict[str, Any]:
        """What was learned."""
        if self._state is None:
            raise RuntimeError(f"this {type(self).__name__} has learned nothing yet: call 'fit(pair, split)' first")
        return self._state

    @property
    def result(self) -> FitResult | None:
        """Course of the last training, ``None`` before."""
        return self.results[-1] if self.results else None

    @property
    def origin(self) -> Mapping[str, Any]:
        """What it was fitted on: the number of nodes, and digests of target, split and source."""
        return self._origin if self.state is not None else {}

    def save(self, path: str | Path) -> None:
        """Write what was learned to a safetensors file with a JSON header, whole or not at all.

        It holds what scoring needs, and no code. What is no plain value is not in it: functions, and modules that were
        handed over.

        Raises:
            RuntimeError: If nothing has been fitted.
            TypeError: If what was learned is neither a tensor nor a plain value.
            OSError: If the file cannot be written.
        """
        header = {"class": type(self).__name__, "options": self.options(), "origin": dict(self.origin)}
        tensors = {name: value for name, value in self.state.items() if isinstance(value, Tensor)}
        plain = {name: value for name, value in self.state.items() if name not in tensors}
        header["state"] = plain
        largest = index_dtype(self.origin["num_nodes"])
        tensors |= {
            _KNOWN + name: value.to(largest) if name == "train" else value for name, value in self._known.items()
        }
        for name, value in plain.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"a file holds tensors and plain values, and 'state[{name!r}]' is neither: {error}"
                ) from None
        write_tensors(path, _KIND, tensors, header)

    @classmethod
    def load(cls: type[P], path: str | Path, pair: "SharedNodePair | Data") -> P:
        """Read what :meth:`save` wrote; scores are the same, bit for bit.

        Args:
            path: The file. Its class is this one, or one that is derived from it: ``LinkPredictor.load`` reads all.
            pair: The pair, or the graph, that it was fitted on; sources may be others.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it holds something else, is damaged, or was fitted on another target.
        """
        pair = as_pair(pair)
        tensors, header = read_tensors(path, _KIND)
        with reading(path):
            name, options, origin, state = (header[key] for key in ("class", "options", "origin", "state"))
            kind = kinds_of(cls).get(name)
            target = origin["target"]
        if kind is None:
            raise ValueError(f"{path} holds a {name}, and not a {cls.__name__} that is known here")
        if target != pair.fingerprint:
            raise ValueError(f"{path} was fitted on another target: {target}, not {pair.fingerprint}")
        device = pair.target.edge_index.device
        with reading(path):
            found: P = kind.from_options(options)
            known = part_of(tensors, _KNOWN)
            found._known = known | ({"train": known["train"].long()} if known else {})
            learned = {name: value.to(device) for name, value in tensors.items() if not name.startswith(_KNOWN)}
            return found.restore(state | learned, origin)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds, and name what it cannot hold."""
        for name, value in vars(self).items():
            if isinstance(value, Training) or (callable(value) and not isinstance(value, nn.Module)):
                try:
                    pickle.dumps(value)
                except (pickle.PicklingError, AttributeError, TypeError) as error:
                    raise TypeError(
                        f"'{name}' of this {type(self).__name__} cannot be pickled ({error}): give a function that a "
                        "module defines, or write what scoring needs with 'save(path)'"
                    ) from None
        return dict(vars(self))

    def __copy__(self: P) -> P:
        new = object.__new__(type(self))
        vars(new).update(vars(self))
        return new

    def __deepcopy__(self: P, memo: dict[int, Any]) -> P:
        new = memo[id(self)] = object.__new__(type(self))
        vars(new).update(copy.deepcopy(vars(self), memo))
        return new

    def restore(self: P, state: dict[str, Any], origin: Mapping[str, Any]) -> P:
        """Take what was learned from elsewhere."""
        self._state, self._origin = state, origin
        self.prepare()
        return self

    def train(
        self,
        model: nn.Module,
        task: Any,
        training: Training,
        seed: int,
        name: str,
        parameters: Iterable[nn.Parameter] | None = None,
    ) -> None:
        """Train a model, or some of its parameters, with ``name`` as name of the checkpoint's file."""
        if training.checkpoint is not None:
            training = replace(training, checkpoint=Path(training.checkpoint) / f"{name}.pt")
        training = replace(training, seed=seed)
        task.tag = json.dumps(LinkPredictor.options(self) | self.options())
        optimizer, scheduler = training.make_optimizer(model if parameters is None else parameters)
        try:
            self.results = (*self.results, fit(model, task, training, optimizer=optimizer, scheduler=scheduler))
        finally:
            model.zero_grad(set_to_none=True)
            model.eval()


def check_training(training: object) -> None:
    """Refuse what does not say how to train."""
    if not isinstance(training, Training):
        raise TypeError(f"'training' must be a Training (got {type(training).__name__})")


def check_new_x(x: Any, width: int) -> None:
    """Refuse what are no features of new nodes."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.layout != torch.strided:
        raise TypeError(f"'x' must be dense floating point numbers (got {getattr(x, 'dtype', type(x).__name__)})")
    if x.dim() != 2 or x.size(1) != width:
        raise ValueError(f"'x' must be [n, {width}], features as those that were learned from (got {list(x.shape)})")


def origin_of(pair: "SharedNodePair", split: "LinkSplit") -> dict[str, Any]:
    """Return what tells one pair and split from others."""
    source = digest([pair.shared, pair.relation().source])
    target = {"num_nodes": pair.num_nodes, "directed": pair.directed, "target": pair.fingerprint}
    return {**target, "split": split.hash, "source": source}


def kinds_of(cls: type[LinkPredictor]) -> dict[str, Any]:
    """Return a class and all that are derived from it, by name."""
    derived = (found for kind in cls.__subclasses__() for found in kinds_of(kind).items())
    return dict([(cls.__name__, cls), *derived])


class VectorPredictor(LinkPredictor):
    """A predictor that scores pairs by vectors of the target's nodes and a decoder."""

    #: Scores pairs of vectors.
    scorer: nn.Module

    @staticmethod
    def vectors_state(vectors: Tensor, decoder: nn.Module, *, directed: bool) -> dict[str, Any]:
        """Return a state of vectors and the weights of the decoder."""
        weights = {f"decoder.{key}": value for key, value in decoder.state_dict().items()}
        return {"vectors": vectors, "directed": directed, **weights}

    def prepare(self) -> None:
        """Build the decoder."""
        vectors: Tensor = self.state["vectors"]
        decoder = make_decoder(vectors.size(1), directed=self.state["directed"])
        decoder.load_state_dict(part_of(self.state, "decoder."))
        self.scorer = decoder.to(vectors.device).eval()

    def rate(self, pairs: Tensor) -> Tensor:
        """Return the logits ``[Q]``."""
        return score_in_chunks(self.scorer, self.state["vectors"], pairs)

    def from_features(self, x: Tensor) -> Tensor:
        """Return vectors of any nodes from their features ``[n, F]``, checked by :func:`check_new_x`."""
        raise TypeError(f"{type(self).__name__} scores nodes by their place in the target, not by features alone")

    def extend(self: V, x: Tensor) -> V:
        """Return a predictor that scores new nodes, too, from their features alone.

        They have the numbers after the target's, in all that takes or returns nodes. This one is not changed.

        Args:
            x: Their features ``[n, F]``, of the kind that it was fitted on.

        Raises:
            RuntimeError: If nothing has been fitted.
            TypeError: If ``x`` is no floating point tensor, or vectors do not follow from features alone.
            ValueError: If ``x`` has another width than the features that it was fitted on.

        Example:
            >>> from graphsparse.testing import random_graph
            >>> from graphsparse.transfer import BASELINES, split_links
            >>> data = random_graph()
            >>> cosine = BASELINES["cosine"](data, split_links(data)).extend(data.x[:1])
            >>> partners, scores = cosine.recommend(torch.tensor([60]), 1)
            >>> partners, round(float(scores), 4)
            (tensor([[0]]), 1.0)
        """
        num, new = self.origin["num_nodes"], self.from_features(x)
        other = copy.copy(self)
        if "side" in self._known:
            unknown = torch.full((new.size(0),), -1, dtype=torch.int8)
            other._known = {**self._known, "side": torch.cat([self._known["side"].cpu(), unknown])}
        vectors = torch.cat([self.state["vectors"], new.to(self.state["vectors"])])
        return other.restore({**self.state, "vectors": vectors}, {**self.origin, "num_nodes": num + new.size(0)})

    def best(self, nodes: Tensor, k: int, barred: Barred) -> Best:
        """Return the partners of some nodes from products of blocks of vectors."""
        right: Tensor = self.state["vectors"]
        weight = self.scorer.weight if isinstance(self.scorer, BilinearDecoder) else None

        def score(rows: Tensor, part: slice) -> Tensor:
            left = right[rows.to(right.device)]
            return (left if weight is None else left @ weight) @ right[part].t()

        return scored_again(nodes, best_of_blocks(nodes, k + _MORE, barred, score), k, self.rate)


def part_of(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the entries whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
