"""Encoders that learn a source without labels, frozen, as features of the target; among them Deep Graph Infomax."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GIN, DeepGraphInfomax

from graphsparse.nn import accelerate
from graphsparse.nn.features import sparse_if_worth_it
from graphsparse.nn.link_decoders import make_decoder
from graphsparse.training import Evaluation, build_model, clipped_adam, link_training, predict
from graphsparse.training.link_task import LinkTask, check_features
from graphsparse.transfer.baselines.registry import BaselineOptions, register_baseline
from graphsparse.transfer.data.node_features import take_rows
from graphsparse.transfer.data.split import check_dense_x
from graphsparse.transfer.models.link_model import LinkModel, message_graph
from graphsparse.transfer.models.predictor import VectorPredictor
from graphsparse.transfer.models.student import NodeMLP, encode_rows

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair
    from graphsparse.transfer.data.split import LinkSplit

#: Builds an objective from an encoder, its widths of input and output, a graph, and a seed: a module without arguments
#: whose forward pass is the loss of a step, with the encoder inside.
Objective: TypeAlias = Callable[[nn.Module, int, int, Data, int], nn.Module]
#: Widths of the one-hot degree.
_BUCKETS = 128


class InfomaxObjective(nn.Module):
    """PyG's ``DeepGraphInfomax`` on one graph: sigmoid of the mean as summary, shuffled rows of features as corruption.

    Rows are shuffled by the global generator, which a training seeds.

    Source: Velickovic et al., *Deep Graph Infomax*, ICLR 2019.
    """

    def __init__(self, encoder: nn.Module, width: int, channels: int, graph: Data, seed: int) -> None:
        super().__init__()
        self.infomax = DeepGraphInfomax(channels, encoder, _summary, _shuffled)
        self._graph = graph

    @property
    def encoder(self) -> nn.Module:
        """The encoder."""
        module: nn.Module = self.infomax.encoder
        return module

    def forward(self) -> Tensor:
        """Return the loss."""
        loss: Tensor = self.infomax.loss(*self.infomax(self._graph.x, self._graph.edge_index))
        return loss


def _summary(z: Tensor, *_: Tensor) -> Tensor:
    return z.mean(0).sigmoid()


def _shuffled(x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
    return take_rows(x, torch.randperm(x.size(0))), edge_index


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

    unit, metric, maximize = "graph", "loss", False

    def __init__(self, x: Tensor, generators: Sequence[torch.Generator]) -> None:
        self.x, self.generators, self._last = x, generators, math.nan

    def check(self, model: nn.Module) -> None:
        """Refuse features of another type than the weights."""
        check_features(self.x, model, "x")

    def batches(self) -> Iterable[None]:
        """Return the one batch of an epoch."""
        return [None]

    def loss(self, model: nn.Module, batch: None, extra: Any) -> Tensor | None:
        """Return the loss of a step."""
        loss: Tensor = model()
        self._last = float(loss.detach())
        return loss

    def evaluate(self, model: nn.Module, epoch: int) -> Evaluation:
        """Return the loss of the last step."""
        return Evaluation(self._last, torch.empty(0))

    def finish(self, model: nn.Module, best: Evaluation) -> tuple[Tensor, float, float | None]:
        """Return nothing: there are no labels."""
        return best.logits, math.nan, None

    def identity(self) -> dict[str, Any]:
        """Return what tells one task from another in a checkpoint."""
        return {"x": self.x}

    def without_test(self) -> "PretrainTask":
        """Return the task itself."""
        return self


@dataclass(eq=False)
class PretrainedLinkPredictor(VectorPredictor):
    """An encoder that learned the source without labels, frozen, and a network on its vectors that learns links.

    The encoder is a GIN of two layers with learnable weight of the node itself and batch normalisation. It learns the
    source less what is held out, and then makes vectors of the target's nodes on ``messages``; these are the features
    of a network of two layers, which learns the training links of the target.

    Args:
        objective: What the encoder learns.
        inputs: What it is fed with: ``"degree"``, one-hot, which all graphs have, or the ``"features"``.
        messages: ``"target"`` or ``"enriched_target"``.
        settings: Widths, epochs and the like.
    """

    objective: Objective = InfomaxObjective
    inputs: str = "degree"
    messages: str = "target"
    settings: BaselineOptions = field(default_factory=BaselineOptions)

    def __post_init__(self) -> None:
        self.training = self.settings.student_training

    def learn(self, pair: "SharedNodePair", split: "LinkSplit", seed: int) -> Mapping[str, Any]:
        """Learn the source, then the links of the target that the split leaves."""
        if self.inputs == "features":
            check_dense_x(pair)
        options = self.settings
        source = self._with_inputs(pair.graph("source", without=split))
        objective = build_model(partial(self._objective, source, seed), seed).to(source.x.device)
        free = partial(clipped_adam, clip=math.inf)
        training = link_training(epochs=options.pretraining_epochs, lr=1e-2, eval_every=1, patience=20, optimizer=free)
        task = PretrainTask(source.x, getattr(objective, "generators", ()))
        self.train(objective, task, training, seed, "pretraining")
        encoder: Any = objective.encoder
        z = predict(encoder, self._with_inputs(pair.graph(self.messages, without=split)))
        sizes = [z.size(1), *[options.student_hidden] * (options.num_layers - 1), options.hidden]
        network = build_model(partial(NodeMLP, sizes, options.dropout), seed)
        decoder = build_model(partial(make_decoder, sizes[-1], directed=pair.directed), seed)
        model = LinkModel(network, decoder).to(z.device)
        target = message_graph(pair.graph("target", without=split, features=False))
        target.x = z
        second = LinkTask(
            target,
            {"val": (split.val, split.val_neg)},
            links_per_epoch=options.links_per_epoch,
            directed=pair.directed,
            inference=encode_rows,
            seed=3 * seed + 1,
        )
        self.train(model, second, options.student_training, seed, "pretrained")
        return self.vectors_state(encode_rows(model, second.data), decoder, directed=pair.directed)

    def _objective(self, source: Data, seed: int) -> nn.Module:
        width, hidden = source.x.size(1), self.settings.hidden
        gin = GIN(width, hidden, 2, norm="batch_norm", train_eps=True)
        return self.objective(accelerate(gin), width, hidden, source, seed)

    def _with_inputs(self, graph: Data) -> Data:
        x = one_hot_degree(graph) if self.inputs == "degree" else graph.x
        sparse = sparse_if_worth_it(x) if x.layout == torch.strided else None
        return Data(x=x if sparse is None else sparse.to_torch_csr(), edge_index=graph.edge_index)


def register_pretraining(name: str, objective: Objective) -> None:
    """Register an objective with one-hot degrees, the same with the source's links, and with features."""
    for end, inputs, messages in (
        ("", "degree", "target"),
        ("_enriched", "degree", "enriched_target"),
        ("_features", "features", "target"),
    ):
        register_baseline(name + end)(partial(_pretrained, objective, inputs, messages))


def _pretrained(objective: Objective, inputs: str, messages: str, options: BaselineOptions) -> PretrainedLinkPredictor:
    return PretrainedLinkPredictor(objective, inputs, messages, options)


register_pretraining("dgi", InfomaxObjective)
