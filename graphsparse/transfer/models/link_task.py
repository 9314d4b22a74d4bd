"""Link prediction on a graph as a task of the training loop."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.loader.draws import start_of_order
from graphsparse.ops.pairs import hide_pairs, pair_keys
from graphsparse.training.task import Evaluation
from graphsparse.transfer.data.negatives import UniformNegatives
from graphsparse.transfer.data.relation import FROM_SOURCE
from graphsparse.transfer.models.link_batches import LinkBatch, make_link_batches, some_of
from graphsparse.transfer.models.link_loss import link_loss
from graphsparse.transfer.models.link_model import LinkModel, encode, message_graph
from graphsparse.transfer.models.validation import Validation
from graphsparse.utils.call_model import call_model


def links_of(graph: Data, *, directed: bool = False) -> tuple[Tensor, Tensor]:
    """Return the links of a graph, each once and no self-loop, and which of its edges they are.

    Args:
        graph: The graph, without repeated edges, and with both directions of each unless ``directed``.
        directed: Whether each direction is a link of its own.

    Returns:
        Links ``[2, P]``, the smaller end first unless directed, and positions in ``edge_index``, ``[P]``.

    Example:
        >>> links_of(Data(edge_index=torch.tensor([[0, 1, 2], [1, 0, 2]])))
        (tensor([[0],
                [1]]), tensor([0]))
    """
    source, target = graph.edge_index
    at = (source != target if directed else source < target).nonzero().view(-1)
    return graph.edge_index[:, at], at


class LinkTask:
    """Tells the links of a graph from as good as random pairs, and is judged on the validation pairs of the target.

    All links are messages and are learned from. With a ``mask_ratio`` only so large a share of them is learned from in
    an epoch, drawn anew each time, and these are no messages in that epoch.

    Args:
        graph: The graph that is trained on.
        eval_graph: The graph whose vectors the validation pairs are scored with.
        validation: The validation pairs.
        seed: Seed of everything that is drawn for the batches; it has generators of its own.
        num_neg: Non-links per link, drawn anew in every epoch among the nodes of ``graph``.
        mask_ratio: See above; 0 for none.
        source_weight: Weight of a link that only a source has, in the loss.
        links_per_epoch: Most links that are learned from in an epoch, drawn anew each time; all when ``None``.
        directed: Whether each direction is a link of its own.
        num_neighbors: Fan-out of each hop, for batches; one batch of the whole graph when ``None``.
        batch_size: Links in a batch.
        sampler: ``"graphsparse"`` or ``"pyg"``.

    Raises:
        ValueError: If the graph has no link, or no pair of nodes without one.
    """

    unit = "link"
    metric = "average_precision"
    described: dict[str, Any] | None = None
    maximize = True

    def __init__(
        self,
        graph: Data,
        eval_graph: Data,
        validation: Validation,
        *,
        seed: int,
        num_neg: int = 3,
        mask_ratio: float = 0.0,
        source_weight: float = 1.0,
        links_per_epoch: int | None = None,
        directed: bool = False,
        num_neighbors: Sequence[int] | None = None,
        batch_size: int = 4096,
        sampler: str = "graphsparse",
    ) -> None:
        self.graph, self.eval_graph, self.validation = message_graph(graph), eval_graph, validation
        self.num_neg, self.mask_ratio, self.directed = num_neg, mask_ratio, directed
        self.links_per_epoch = links_per_epoch
        self.links, at = links_of(graph, directed=directed)
        if self.links.size(1) == 0:
            raise ValueError("the training graph has no link to learn from, besides what is held out")
        self.weight = None
        if source_weight != 1:
            only_source = graph.edge_origin[at] == FROM_SOURCE
            self.weight = torch.where(only_source, float(source_weight), 1.0)
            if not bool(self.weight.any()):
                raise ValueError("'source_edge_weight' is 0, but the training graph has links of the source only")
        self.generator = torch.Generator().manual_seed(seed)
        self.negatives = UniformNegatives(graph.num_nodes, self.links, self.generator, directed=directed)
        self.generators: Sequence[torch.Generator] = [self.generator]
        self.batcher = None
        if num_neighbors is not None:
            options = {"num_neighbors": num_neighbors, "batch_size": batch_size, "seed": seed}
            self.batcher = make_link_batches(sampler, self.graph, **options)
            self.generators = [self.generator, self.batcher.generator]

    def check(self, model: Any) -> None:
        """Everything was checked where the task was made."""

    def identity(self) -> dict[str, Any]:
        """Return what who trains says of the task."""
        return self.described or {}

    def without_test(self) -> Any:
        """Test pairs are not known here."""
        return self

    def batches(self) -> Iterator[tuple[LinkBatch, Tensor | None]]:
        """Draw an epoch: batches, and the weights of their links."""
        links, weight, keep = self.links, self.weight, None
        if self.mask_ratio > 0:
            links, weight, keep = self._masked()
        elif (drawn := some_of(links.size(1), self.links_per_epoch, self.generator)) is not None:
            picked = drawn.to(links.device)
            links, weight = links[:, picked], None if weight is None else weight[picked]
        negative = self.negatives(self.num_neg * links.size(1)).to(links.device)
        if self.batcher is None:
            graph = self.graph if keep is None else message_graph(self.graph, keep)
            every = torch.arange(links.size(1), device=links.device)
            yield LinkBatch(graph, torch.cat([links, negative], 1), every), weight
            return
        for batch in self.batcher.epoch(links, negative):
            graph = message_graph(batch.graph, None if keep is None else keep[batch.graph.e_id])
            found = LinkBatch(graph, batch.pairs, batch.picked)
            yield found, None if weight is None else weight[batch.picked]

    def _masked(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """Draw the links to learn from; return them, their weights, and which edges are left as messages."""
        total, num_nodes = self.links.size(1), self.graph.num_nodes
        count = min(total, max(1, round(self.mask_ratio * total)), self.links_per_epoch or total)
        picked = start_of_order(total, count, self.generator).to(self.links.device)
        links = self.links[:, picked]
        keys = pair_keys(self.graph.edge_index, num_nodes, directed=self.directed)
        keep = hide_pairs(keys, links, num_nodes, directed=self.directed)
        return links, None if self.weight is None else self.weight[picked], keep

    def loss(self, model: Any, batch: tuple[LinkBatch, Tensor | None], extra: Any = None) -> Tensor | None:
        """Return the cross-entropy of the links and of the non-links, each with its own mean."""
        part, weight = batch
        if weight is not None and not bool(weight.any()):
            return None
        scores = model.decoder(call_model(model, part.graph), part.pairs)
        num = part.picked.numel()
        return link_loss(scores[:num], scores[num:], weight)

    def evaluate(self, model: Any, epoch: int) -> Evaluation:
        """Return the metric on the validation pairs."""
        h = encode(model, self.eval_graph, layerwise=self.batcher is not None)
        return self.validation.judge(model.decoder, h, epoch)

    def finish(self, model: Any, best: Evaluation) -> tuple[Tensor, float, float | None]:
        """Return the scores of the validation pairs; test pairs are not known here."""
        return best.logits, math.nan, None


def check_link_model(model: LinkModel, graphs: Iterable[Data], num_neighbors: Sequence[int] | None = None) -> None:
    """Refuse an encoder that cannot be called on the graphs: edge weights that it does not take, hops that it lacks.

    Raises:
        ValueError: If a graph has edge weights and the encoder takes none, or there is not one fan-out per layer; how
            many there are is looked up in ``num_layers``, which PyG's models have.
    """
    layers = getattr(model.encoder, "num_layers", None)
    if isinstance(num_neighbors, Sequence) and isinstance(layers, int) and len(num_neighbors) != layers:
        raise ValueError(f"'num_neighbors' must hold one fan-out per layer, {layers} (got {list(num_neighbors)})")
    if not model.supports_edge_weight and any(graph.get("edge_weight") is not None for graph in graphs):
        raise ValueError(
            f"'source_edge_weight' needs an encoder that takes edge weights (got {type(model.encoder).__name__}, "
            "whose forward pass has no 'edge_weight')"
        )
