"""What becomes of what a pruning method finds: its last training, and the ticket."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graphsparse.edges.graph_edges import by_kind
from graphsparse.ops.select import num_removed
from graphsparse.tickets.edge_rule import EdgeRule, count_kept, kept_edges
from graphsparse.tickets.method import Found, Target
from graphsparse.tickets.run import TicketRun
from graphsparse.tickets.ticket import Ticket
from graphsparse.training import FitResult, GraphTask, Masks, NodeTask, seeded


class TicketMaker:
    """Makes the tickets of a run of what a method finds; it alone reads test labels.

    Args:
        run: The run.
    """

    def __init__(self, run: TicketRun) -> None:
        self._run, self._num_finished = run, 0

    def finish(self, found: Found | Ticket) -> Ticket:
        """Train what a method found from its starting weights, and return the ticket; test labels are read here."""
        run = self._run
        self._num_finished += 1
        if isinstance(found, Ticket):
            test = run.test(found.materialize(run._make_model), int(found.metrics.get("best_epoch", 0)))
            measured = {} if test is None else {"test": test}
            return replace(found, metrics={**found.metrics, **measured, **self._spent()})
        target, rule, seed = found.target, found.weights, run.training.seed
        term = None
        if run._distillation is not None and run._distillation.weight > 0:
            assert isinstance(run._task, NodeTask)
            nodes = run._task.nodes(run._task.data)  # of the task with its test nodes, which are not distilled on
            term = run._distillation.term(nodes, run.teacher)
        epochs = run.training.epochs if found.epochs is None else found.epochs
        hold = run.hold(rule, target.weights, epochs) if callable(rule) else rule
        if found.trained:
            result = self._judge(found)
        else:
            model, tag = run.model(found.start), f"final-{self._num_finished}"
            result = run._fit(run._task, model, tag, hold, found.edges, extra_loss=term, epochs=epochs)
        masks = Masks(result.weight_masks, None if run.graph is None else kept_edges(run.graph, found.edges))
        self._check_counts(target, masks, exact=getattr(rule, "exact", True))
        config = {"seed": seed, "edge_sparsity": target.edges, "weight_sparsity": target.weights, **run.described()}
        config |= {} if found.member is None else {"member": found.member}
        spent = self._spent(*([] if found.trained else [result.epochs_run]))
        ticket = Ticket.from_fit(result, masks, run.graph, config=config, metrics=spent)
        if found.trained:
            ticket = replace(ticket, metrics={k: v for k, v in ticket.metrics.items() if k != "best_epoch"})
        if run.graph is None and target.edges > 0:
            ticket = self._with_rule(ticket, found.edges, target)
        run.check(ticket, result.logits)
        return ticket

    def _with_rule(self, ticket: Ticket, rule: Any, target: Target) -> Ticket:
        """Return a ticket that chooses the edges of each graph by a score."""
        run = self._run
        assert isinstance(run._task, GraphTask)
        if not isinstance(rule, EdgeRule) or rule.sparsity != target.edges:
            raise ValueError(f"the method chose no edges by run.score_edges for a sparsity of {target.edges}")
        graphs = (run._task.dataset[int(i)] for part in run._task.split.values() for i in part)
        kept, total = count_kept(graphs, rule)
        metrics = {**ticket.metrics, "edge_sparsity": 1 - kept / max(total, 1)}
        return replace(ticket, edge_rule=rule, metrics=metrics)

    def _judge(self, found: Found) -> FitResult:
        """Return what the parts of the task say of weights that a method has trained, as the result of no epoch."""
        run = self._run
        masks = found.weights if isinstance(found.weights, Mapping) else {}
        model, task = run.model(found.start, masks), run._sparse(run._task, found.edges)
        held = {id(model.get_parameter(name)): mask for name, mask in masks.items()}
        named = model.named_parameters(remove_duplicate=False)
        with seeded(run.training.seed):
            best = task.evaluate(model, 0)
            logits, train, test = task.finish(model, best)
        return FitResult(
            state_dict=model.state_dict(),
            logits=logits,
            best_epoch=0,
            epochs_run=0,
            metric=task.metric,
            train=train,
            val=best.val,
            test=test,
            history=[],
            weight_masks={name: held[id(parameter)] for name, parameter in named if id(parameter) in held},
        )

    def _spent(self, *last: int) -> dict[str, int]:
        """Return what a ticket took: trainings and epochs of the search so far, of the teacher and of the last one."""
        run = self._run
        epochs = [*run._searched.values(), *last]
        return {"trainings": len(epochs), "epochs": sum(epochs)}

    def next_search(self) -> None:
        """Count from here on for the next ticket, which needs no training of this one but the teacher."""
        run = self._run
        run._searched = {tag: epochs for tag, epochs in run._searched.items() if tag == "teacher"}

    def _check_counts(self, target: Target, masks: Masks, *, exact: bool) -> None:
        """Refuse what is not as sparse as was asked for; a rule for each tensor by itself rounds down in each."""
        run = self._run
        weights = [masks.weights[name] for name in run.names if name in masks.weights]
        parts = [("weights", weights, target.weights)]
        if run.graph is not None:
            edges = [] if masks.edges is None else list(by_kind(masks.edges).values())
            parts += [("edges", [mask], target.edges) for mask in edges] or [("edges", [], target.edges)]
        for what, kept, sparsity in parts:
            removed, total = (sum(int((~mask).sum()) for mask in kept), sum(mask.numel() for mask in kept))
            missing = num_removed(sparsity, total) - removed
            most = total if what == "weights" and not exact else max(len(kept), 1)
            if not 0 <= missing < most or (sparsity > 0 and not kept):
                raise ValueError(f"the method removed {removed} of {total} {what} for a sparsity of {sparsity}")
