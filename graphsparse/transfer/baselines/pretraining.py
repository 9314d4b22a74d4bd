"""Encoders that learn a source without labels, frozen, as features of the target."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GIN

from graphsparse.nn import accelerate
from graphsparse.nn.features import sparse_if_worth_it
from graphsparse.training import build_model
from graphsparse.training.result import FitResult
from graphsparse.training.task import Evaluation
from graphsparse.transfer.baselines.options import BaselineOptions
from graphsparse.transfer.data.queries import check_dense_x, check_queries, check_split
from graphsparse.transfer.models.decoders import make_decoder, score_in_chunks
from graphsparse.transfer.models.link_model import LinkModel, check_x, encode
from graphsparse.transfer.models.link_task import links_of
from graphsparse.transfer.models.link_training import LinkTraining
from graphsparse.transfer.models.student import NodeMLP
from graphsparse.transfer.models.student_task import StudentTask, encode_nodes
from graphsparse.transfer.models.validation import Validation

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair
    from graphsparse.transfer.data.split import LinkSplit

#: Builds an objective from an encoder, its widths of input and output, a graph, and a seed: a module without arguments
#: whose forward pass is the loss of a step, with the encoder inside.
Objective: TypeAlias = Callable[[nn.Module, int, int, Data, int], nn.Module]
#: What an encoder is fed with.
INPUTS = ("degree", "features")
#: Widths of the one-hot degree.
_BUCKETS = 128


def one_hot_degree(graph: Data, buckets: int = _BUCKETS) -> Tensor:
    """Return the degree of each node as a one-hot vector ``[N, buckets]``; larger degrees share the last entry.

    Example:
        >>> one_hot_degree(Data(edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3), 3)
        tensor([[0., 1., 0.],
                [0., 0., 1.],
                [0., 1., 0.]])
    """
    degree = torch.bincount(graph.edge_index[1], minlength=graph.num_nodes).clamp_(max=buckets - 1)
    out = torch.zeros(degree.numel(), buckets)
    return out.scatter_(1, degree.cpu()[:, None], 1.0).to(graph.edge_index.device)


class PretrainTask:
    """Minimises an objective that has no labels; the epoch of the smallest loss is kept."""

    unit = "link"
    maximize = False
    metric = "loss"
    described: dict[str, Any] | None = None

    def check(self, model: Any) -> None:
        """Everything was checked where the task was made."""

    def identity(self) -> dict[str, Any]:
        """Return what who trains says of the task."""
        return self.described or {}

    def without_test(self) -> Any:
        """There are no test labels here."""
        return self

    generators: Sequence[torch.Generator] = ()

    def __init__(self) -> None:
        self._last = math.nan

    def batches(self) -> Iterable[None]:
        """Return the one batch of an epoch."""
        return [None]

    def loss(self, model: Any, batch: None, extra: Any = None) -> Tensor | None:
        """Return the loss of a step."""
        loss: Tensor = model()
        self._last = float(loss.detach())
        return loss

    def evaluate(self, model: Any, epoch: int) -> Evaluation:
        """Return the loss of the last step."""
        return Evaluation(self._last, torch.empty(0))

    def finish(self, model: Any, best: Evaluation) -> tuple[Tensor, float, float | None]:
        """Return nothing: there are no labels."""
        return best.logits, math.nan, None


class PretrainedLinkPredictor:
    """An encoder that learned the source without labels, frozen, and a network on its vectors that learns links.

    The encoder is a GIN of two layers with learnable weight of the node itself and batch normalisation. It learns the
    source less what is held out, and then makes vectors of the target's nodes on ``messages``; these are the features
    of a network of two layers, which learns the training links of the target.

    Args:
        objective: What the encoder learns.
        inputs: What it is fed with: ``"degree"``, one-hot, which all graphs have, or the ``"features"``.
        messages: ``"target"`` or ``"enriched_target"``.
        options: Widths, epochs and the like.

    Attributes:
        results: Course of both trainings, once fitted.

    Raises:
        ValueError: If a name is none.

    Example:
        >>> import torch
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.transfer.data.split import split_links
        >>> from graphsparse.transfer.data.pair import SharedNodePair
        >>> data, early, late = random_graph(), torch.arange(45), torch.arange(15, 60)
        >>> pair = SharedNodePair(data.subgraph(early), data.subgraph(late), early, late)
        >>> split = split_links(pair)
        >>> from graphsparse.transfer.baselines.dgi import InfomaxObjective
        >>> options = BaselineOptions(hidden=16, student_training=LinkTraining(epochs=10), pretraining_epochs=5)
        >>> found = PretrainedLinkPredictor(InfomaxObjective, options=options).fit(pair, split)
        >>> found.score(torch.tensor([[0, 1], [2, 3]])).shape
        torch.Size([2])
    """

    def __init__(
        self,
        objective: Objective,
        inputs: str = "degree",
        messages: str = "target",
        options: BaselineOptions | None = None,
    ) -> None:
        if inputs not in INPUTS:
            raise ValueError(f"'inputs' must be one of {INPUTS} (got {inputs!r})")
        if messages not in ("target", "enriched_target"):
            raise ValueError(f"'messages' must be 'target' or 'enriched_target' (got {messages!r})")
        self.objective, self.inputs, self.messages = objective, inputs, messages
        self.options = BaselineOptions() if options is None else options
        self.results: list[FitResult] = []
        self.model: LinkModel | None = None
        self._vectors: Tensor | None = None

    def fit(self, pair: "SharedNodePair", split: "LinkSplit", seed: int = 0) -> "PretrainedLinkPredictor":
        """Learn the source, then the links of the target that the split leaves.

        Raises:
            ValueError: If the split is that of another pair, or there is no link to learn from.
        """
        check_split(pair, split)
        if self.inputs == "features":
            check_dense_x(pair)
        options = self.options
        source = self._with_inputs(pair.graph("source", without=split))
        target = pair.graph("target", without=split)
        width = source.x.size(1)
        objective = build_model(lambda: self._objective(width, source, seed), seed)
        check_x(source.x, objective)
        training = LinkTraining(epochs=options.pretraining_epochs, lr=1e-2, eval_every=1, patience=20, clip=None)
        first = training.run(objective, PretrainTask(), seed=seed, progress=options.progress, log=options.log)
        encoder: Any = objective.encoder
        z = encode(encoder, self._with_inputs(pair.graph(self.messages, without=split))).detach()
        sizes = [z.size(1), *[options.student_hidden] * (options.num_layers - 1), options.hidden]
        decoder = "bilinear" if pair.directed else "dot"
        model = build_model(
            lambda: LinkModel(
                NodeMLP(sizes, options.dropout), make_decoder(decoder, options.hidden, directed=pair.directed)
            ),
            seed,
        )
        assert isinstance(model, LinkModel)
        task = StudentTask(
            Data(x=z),
            links_of(target, directed=pair.directed)[0],
            Validation(split.val, split.val_neg, options.student_training.metric),
            None,
            weights=(0.0, 0.0, 1.0),
            temperature=1.0,
            seed=seed,
            num_neg=options.num_neg,
            directed=pair.directed,
            links_per_epoch=options.student_training.links_per_epoch,
        )
        second = options.student_training.run(model, task, seed=seed, progress=options.progress, log=options.log)
        self.results, self.model, self._vectors = [first, second], model, encode_nodes(model, z)
        return self

    def _objective(self, width: int, source: Data, seed: int) -> nn.Module:
        gin = GIN(width, self.options.hidden, 2, norm="batch_norm", train_eps=True)
        return self.objective(accelerate(gin), width, self.options.hidden, source, seed)

    def _with_inputs(self, graph: Data) -> Data:
        x = one_hot_degree(graph) if self.inputs == "degree" else graph.x
        sparse = sparse_if_worth_it(x) if x.layout == torch.strided else None
        return Data(x=x if sparse is None else sparse.to_torch_csr(), edge_index=graph.edge_index)

    def score(self, pairs: Tensor) -> Tensor:
        """Return the logits ``[Q]`` of pairs ``[2, Q]`` of target nodes.

        Raises:
            RuntimeError: If nothing has been fitted.
            ValueError: If a node is not in the target, or a pair is a self-loop.
        """
        if self.model is None or self._vectors is None:
            raise RuntimeError("nothing has been learned yet: call 'fit(pair, split)' first")
        return score_in_chunks(self.model.decoder, self._vectors, check_queries(pairs, self._vectors.size(0)))
