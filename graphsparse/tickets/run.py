"""What a pruning method sees of a search for tickets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch_geometric.data import Data, HeteroData

from graphsparse.edges.graph_edges import PerEdge, as_given, attach_pairs, check_has_edges
from graphsparse.edges.sparsifier import Sparsifier, as_sparsifier
from graphsparse.nn import SoftMasks, accelerate
from graphsparse.tickets.described import as_plain
from graphsparse.tickets.distillation import Distillation
from graphsparse.tickets.edge_rule import EdgeRule, keep_edges
from graphsparse.tickets.method import Target, WeightRule, num_rounds
from graphsparse.tickets.ticket import Ticket
from graphsparse.training import (
    FitResult,
    GraphTask,
    Masks,
    NodeTask,
    StepProjection,
    Task,
    Training,
    build_model,
    fit,
    predict,
    seeded,
)
from graphsparse.training.check import check_model
from graphsparse.training.node_task import observed_nodes
from graphsparse.training.seeding import kept_state
from graphsparse.typing import EdgeScore, MakeModel

#: Kept weights by name, or what attaches a projection to an optimiser.
HoldWeights: TypeAlias = Mapping[str, Tensor] | Callable[[Optimizer], StepProjection]


class TicketRun:
    """All that a pruning method sees: a task without test labels, and the trainings that it asks for.

    A killed run goes on when the same call is given again: every training has a tag, and what was trained under a tag
    before comes back at once from its file in the folder ``training.checkpoint``.

    Attributes:
        targets: The sparsities that are asked for, in their order.
        training: How a model is trained.
        task: What it is trained on; it has no test part.
        graph: The graph whose edges are pruned; ``None`` for a task on many graphs.
        names: Names of the parameters that are pruned: those with at least two dimensions, a tied one once.
    """

    def __init__(
        self,
        make_model: MakeModel,
        task: Task,
        targets: Sequence[Target],
        training: Training,
        distillation: Distillation | None = None,
    ) -> None:
        self._make_model, self._task, self._distillation = make_model, task, distillation
        self.targets, self.training = [Target(*target) for target in targets], training
        self.graph: Data | HeteroData | None = getattr(task, "eval_data", None)
        self._searched: dict[str, int] = {}  # epochs of every training of the search
        if self.graph is not None:
            check_has_edges(self.graph)
        if any(target.edges > 0 for target in self.targets):
            self._check_can_lose_edges()
        if distillation is not None:
            distillation.check(task)
        plain = build_model(make_model, training.seed)
        check_model(plain)
        with seeded(training.seed):
            task.check(plain)  # what the fast form takes besides, such as weights, the model of the ticket would refuse
        self.task = task.without_test()
        self.names = list(Masks.everything(plain).weights)
        for name, entry in plain.state_dict().items():
            if not isinstance(entry, Tensor):
                raise TypeError(f"'make_model' builds a model with {name!r} in its state dict, which is no tensor")
        model = self.model()
        untouched = Ticket({name: entry.detach().cpu() for name, entry in plain.state_dict().items()}, {})
        self.check(replace(untouched, config={"seed": training.seed}), self.logits(model))

    def _check_can_lose_edges(self) -> None:
        """Refuse a task that cannot be put on fewer edges."""
        task = self._task
        if not hasattr(task, "with_graphs"):
            raise ValueError(
                f"'edge_sparsity' must be 0 for a task that cannot be put on other graphs (got {type(task).__name__} "
                "without 'with_graphs')"
            )
        if getattr(task, "has_ready_loader", False):
            raise ValueError(
                "'edge_sparsity' must be 0 where the batches are ready, for they hold all edges: give a function of "
                "the graph as 'loader', as in NodeTask(data, loader=lambda data: NeighborLoader(data, ...))"
            )

    def model(
        self,
        start: Mapping[str, Tensor] | None = None,
        weights: Mapping[str, Tensor] | None = None,
        *,
        plain: bool = False,
    ) -> nn.Module:
        """Return a model with the initial weights of the seed, or with those given; 0 where masks do not keep them.

        With ``plain`` its layers are those of ``make_model``, never faster ones in their place.
        """
        model = build_model(self._make_model, self.training.seed)
        if start is not None:
            model.load_state_dict(dict(start))
        for name, mask in (weights or {}).items():
            model.get_parameter(name).data.masked_fill_(~mask, 0)
        return model if plain else self._fast(model)

    def logits(self, model: nn.Module) -> Tensor:
        """Return what the task says of a model in evaluation mode, without the test part; NaN where it says nothing."""
        return self._logits(model, self.task, 0)

    def _logits(self, model: nn.Module, task: Task, draw: int) -> Tensor:
        with seeded(self.training.seed + draw):
            return task.finish(model, task.evaluate(model, 0))[0]

    def check(self, ticket: Ticket, logits: Tensor) -> None:
        """Refuse a ticket whose file would give a model with other logits, beyond rounding.

        Args:
            ticket: The ticket.
            logits: What :meth:`logits`, or the result of :meth:`train`, says of the model that it was made of.

        Raises:
            ValueError: If they differ; the message says why they may.
        """
        ticket = ticket.as_read_back()
        task: Any = self.task
        model = self._fast(ticket.materialize(self._make_model).to(logits.device))
        if isinstance(task, GraphTask):
            task = task if ticket.edge_rule is None else task.with_graphs(ticket.sparsify)
        elif self.graph is not None and hasattr(task, "with_graphs"):
            graph = ticket.sparsify(task.eval_data)
            task = task.with_graphs(graph, graph)
        # Another seed, because a model that draws numbers here has no logits to compare.
        found = self._logits(model, task, 1)
        if (differ := _difference(found, logits)) is None:
            return
        why = "'make_model' builds different models, or the model computes with what its state dict does not hold"
        if _difference(self._logits(model, task, 2), found) is not None:
            why = "it draws random numbers in evaluation mode"
        raise ValueError(f"the file of the ticket would give a model with other logits ({differ}): {why}")

    def _fast(self, model: nn.Module) -> nn.Module:
        return accelerate(model) if self.training.fast else model

    def everything(self) -> Masks:
        """Return masks that keep all weights of the model and all edges of the graph."""
        return Masks.everything(self.model(), self.graph)

    @property
    def pairs(self) -> PerEdge:
        """The undirected edge of every entry of the graph's ``edge_index``, int32 ``[E]``; -1 for a self-loop.

        Of a ``HeteroData`` by edge type, as :func:`~graphsparse.edges.attach_pairs` numbers them.
        """
        stores = self._paired.edge_stores
        return as_given({store._key: store["edge_pair"] for store in stores})  # type: ignore[no-any-return]

    @cached_property
    def _paired(self) -> Data | HeteroData:
        if self.graph is None:
            raise ValueError("a mask says nothing of the edges of other graphs: choose them by run.score_edges")
        return attach_pairs(self.graph)

    def learnable(self, *, one_type: bool = False) -> Masks:
        """Return what :meth:`everything` does, for a method that learns a mask of the edges which shall be sparse.

        Args:
            one_type: Whether the edges must be of one type.

        Raises:
            ValueError: If the task is trained or judged on several graphs, of which a mask of one says nothing.
        """
        if any(target.edges > 0 for target in self.targets):
            self._check_one_graph()
            if one_type and isinstance(self.graph, HeteroData):
                raise ValueError("'edge_sparsity' must be 0 for this method on a HeteroData: it knows one edge type")
        return self.everything()

    def _check_one_graph(self) -> None:
        graphs = getattr(self.task, "graphs", (None, None))
        if self.graph is None or graphs[0] is not graphs[1]:
            raise ValueError(
                "learned masks of edges say nothing of another graph: train and evaluate on one, or let a score choose "
                "the edges of each, as OneShot does"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps of an epoch."""
        steps: int | None = getattr(self.task, "steps_per_epoch", None)
        if steps is None:
            raise ValueError("'loader' must say by len() how many batches it has, for terms of the loss once per epoch")
        return steps

    def path(self, *, edges: float = 1.0, weights: float = 1.0) -> list[tuple[Target, list[Target]]]:
        r"""Return each target and the rounds that lead to it from the one before; the last round is the target itself.

        There are as few rounds as may be when each takes at most the given share of what is left,
        :math:`\lceil \log(1 - s) / \log(1 - q) \rceil` from the whole graph and model; all take the same share, so that
        edges and weights arrive together. There is none where a target is no sparser than the one before.

        Args:
            edges: Share of the edges left that a round removes at most, in ``(0, 1]``.
            weights: Share of the weights left.

        Raises:
            ValueError: If a share is out of range, or the targets do not come from the least sparse to the sparsest.
        """
        shares, before, found = Target(edges, weights), Target(), []
        for what, share in shares._asdict().items():
            if not 0 < share <= 1:
                raise ValueError(f"'{what}' must be above 0 and at most 1 (got {share!r})")
        for target in self.targets:
            for what, was, now in zip(Target._fields, before, target, strict=True):
                if now < was:
                    raise ValueError(
                        f"'targets' must come from the least sparse to the sparsest for a method that goes in rounds: "
                        f"{what} {now} is below what is removed already, {was}"
                    )
            rounds = (num_rounds(*ends) for ends in zip(before, target, shares, strict=True))
            found.append((target, before.towards(target, max(rounds))))
            before = target
        return found

    def score_edges(
        self, score: str | EdgeScore | Sparsifier | None, sparsity: float, seed: int | None = None
    ) -> EdgeRule | None:
        """Return the edges that a score keeps, for :class:`Found` and :meth:`train`; all of them without a score."""
        if score is None:
            return None
        seed = self.training.seed if seed is None else seed
        rule = EdgeRule(as_sparsifier(score), sparsity, seed, per_graph=self.graph is None)
        if self.graph is None and sparsity > 0:
            rule.check_named()
        return rule

    @cached_property
    def teacher(self) -> Tensor:
        """Logits of the dense model for the nodes of the training graph, ``[n, C]``; it is trained once."""
        task, given = self.task, None if self._distillation is None else self._distillation.teacher
        assert isinstance(task, NodeTask)
        if given is not None:
            return given[observed_nodes(task.nodes(task.whole))] if task.inductive else given
        model = self.model()
        result = self.train(model, "teacher")
        return result.logits if task.data is task.eval_data else predict(model, task.data, task.call, task.node_type)

    def gradient(self, model: nn.Module, times: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the gradient of the loss over the training part, of all batches, for every parameter to prune.

        Args:
            model: The model.
            times: A vector in the shape of the parameters; returned is then its product with the second derivatives.
        """
        parameters = {name: model.get_parameter(name) for name in self.names}
        total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}

        def derive(value: Tensor, again: bool) -> dict[str, Tensor]:
            found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True, create_graph=again)
            return {name: entry for name, entry in zip(parameters, found, strict=True) if entry is not None}

        with seeded(self.training.seed), kept_state(self.task.generators):
            for batch in self.task.batches():
                loss = self.task.loss(model, batch, None)
                if loss is None:
                    continue
                found = derive(loss, again=times is not None)
                if times is not None:
                    found = derive(
                        torch.stack([(g * times[name]).sum() for name, g in found.items()]).sum(), again=False
                    )
                for name, gradient in found.items():
                    total[name] += gradient
        return total

    def example(self) -> Any:
        """Return what models are called on: the training graph, or a batch where there is none as a whole."""
        if getattr(self.task, "loader", None) is None and hasattr(self.task, "data"):
            return self.task.data
        states = [generator.get_state() for generator in self.task.generators]
        with seeded(self.training.seed):
            batch = next(iter(self.task.batches()))
        for generator, state in zip(self.task.generators, states, strict=True):
            generator.set_state(state)  # the next training draws what it would have drawn
        return getattr(batch, "graph", batch)

    def hold(
        self, rule: WeightRule, sparsity: float, epochs: int | None = None
    ) -> Callable[[Optimizer], StepProjection]:
        """Return what attaches a rule to the optimiser of a training, for ``weights`` of :meth:`train`.

        Args:
            rule: The rule.
            sparsity: Fraction of the weights that it removes.
            epochs: Length of that training; ``None`` for that of the run.
        """
        per_epoch = getattr(self.task, "steps_per_epoch", None)
        steps = None if per_epoch is None else per_epoch * (self.training.epochs if epochs is None else epochs)
        return lambda optimizer: rule(optimizer, sparsity, steps=steps, seed=self.training.seed)

    def train(
        self,
        model: nn.Module,
        tag: str,
        *,
        weights: HoldWeights | None = None,
        edges: PerEdge | EdgeRule | None = None,
        **options: Any,
    ) -> FitResult:
        """Train a model in place, without the test part, and return the result at its best epoch.

        Args:
            model: The model.
            tag: A name, another one for every training of the run.
            weights: Kept weights by name, bool, the others are held at 0; or a function that attaches a projection to
                the optimiser.
            edges: Kept undirected edges, bool ``[M]``, or what :meth:`score_edges` returned.
            options: Fields of :class:`~graphsparse.training.Training` in the place of those of the run, and
                ``extra_loss``, ``before_step``, ``after_step`` and ``save_at`` of :func:`~graphsparse.training.fit`.
        """
        task: Any = self.task
        if isinstance(model, SoftMasks) and model.edge is not None:
            self._check_one_graph()
            task = task.with_graphs(self._paired, self._paired)
        result = self._fit(task, model, tag, weights, edges, **options)
        self._searched[tag] = result.epochs_run
        return result

    def _fit(
        self,
        task: Task,
        model: nn.Module,
        tag: str,
        weights: HoldWeights | None,
        edges: PerEdge | EdgeRule | None,
        **options: Any,
    ) -> FitResult:
        own = {entry.name: options.pop(entry.name) for entry in fields(Training) if entry.name in options}
        folder = self.training.checkpoint
        training = replace(self.training, checkpoint=None if folder is None else Path(folder) / f"{tag}.pt", **own)
        training = training.named(tag)
        hold = weights if weights is None or callable(weights) else lambda o: Masks(weights).hold(model, o)
        with kept_state(task.generators):  # every training draws the same batches, whatever was trained before it
            return fit(model, self._sparse(task, edges), training, project=hold, **options)

    def _sparse(self, task: Any, edges: PerEdge | EdgeRule | None) -> Task:
        """Return the task on the kept edges of its graphs."""
        if edges is None or (isinstance(edges, EdgeRule) and edges.sparsity == 0):
            return task  # type: ignore[no-any-return]
        self._check_can_lose_edges()
        many = isinstance(task, GraphTask)
        if not isinstance(edges, EdgeRule) and (many or task.data is not task.eval_data):
            raise ValueError("a mask of edges says nothing of another graph: give what run.score_edges returns")
        if many:
            return task.with_graphs(edges.apply)  # type: ignore[no-any-return, union-attr]
        evaluated = keep_edges(task.eval_data, edges)
        # Another training graph is pruned by its own scores: those of the whole graph know the degrees of hidden nodes.
        own = evaluated if task.data is task.eval_data else keep_edges(task.data, edges)
        return task.with_graphs(own, evaluated)  # type: ignore[no-any-return]

    def test(self, model: nn.Module, epoch: int) -> float | None:
        """Return the metric on the test part of a model that was chosen; not for a method that still searches."""
        model = self._fast(model)
        with seeded(self.training.seed):
            return self._task.finish(model, self._task.evaluate(model, epoch))[2]

    def described(self) -> dict[str, Any]:
        """Return how models are trained, in values that JSON can hold."""
        named = {"Training": self.training, "Distillation": self._distillation}
        return {"metric": self.task.metric} | {k: as_plain(v) for k, v in named.items() if v is not None}


def _difference(found: Tensor, expected: Tensor) -> str | None:
    """Say by how much logits differ, where both are known, if that is more than rounding explains."""
    if found.shape != expected.shape:
        return f"shape {list(found.shape)}, not {list(expected.shape)}"
    known = ~(found.isnan() | expected.isnan())
    found, wide = found[known].double(), expected[known].double()
    if wide.numel() == 0:
        return None
    gap, scale = float((found - wide).abs().max()), float(wide.abs().max())
    return f"by {gap:.2g} at a scale of {scale:.2g}" if gap > torch.finfo(expected.dtype).eps ** 0.5 * scale else None
