"""Teacher, student and propagation in a chain, with all that is chosen chosen on validation pairs of the target."""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor

from graphsparse.ops.check import check_number
from graphsparse.training.result import FitResult
from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.data.queries import check_queries, check_split
from graphsparse.transfer.models.link_model import sage_encoder
from graphsparse.transfer.models.link_training import LinkTraining
from graphsparse.transfer.models.student import MLPStudent
from graphsparse.transfer.models.teacher import LinkTeacher
from graphsparse.transfer.propagation.edge_propagation import LAMBDA_GRID, EdgeLabelPropagation
from graphsparse.transfer.propagation.xmc import XMC_GRID, XMCPropagation
from graphsparse.transfer.propagation_step import PropagationStep, check_direction
from graphsparse.typing import Log

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair
    from graphsparse.transfer.data.split import LinkSplit

#: What may be added to the scores.
Propagation: TypeAlias = EdgeLabelPropagation | XMCPropagation
_KINDS = (EdgeLabelPropagation, XMCPropagation)


class GITL:
    r"""Predicts links of a sparse target with the help of a dense source, through the nodes that both share.

    1. A *teacher*, a graph neural network, learns links among the shared nodes from both graphs.
    2. A *student*, a network that sees features only, learns the teacher's vectors of the shared nodes and the training
       links of the target; so it serves target nodes without any link, too.
    3. A *propagation* adds what the known links around a pair say to its score, with a weight that is chosen on the
       validation pairs. 0 is always among the weights to choose from, so that a step that does not help is left out.

    Each may be left out. What scores is the student, or the teacher without one; the sources of some pairs mislead, for
    which there is a ``guard``. All choices (epochs, weight) are made on validation pairs of the target; test pairs are
    never read, and no held-out link is in any graph.

    Args:
        teacher: A teacher; ``True`` for one of default options, ``False`` for none.
        student: A student; ``True`` for one of default options, ``False`` for none.
        propagation: ``EdgeLabelPropagation`` or ``XMCPropagation``, or both, of which the one that is better on the
            validation pairs is taken; ``True`` for the former with default options, whose time is linear in the links,
            ``False`` for none.
        grid: Weights of the propagation to choose from, with 0 among them; ``LAMBDA_GRID`` and ``XMC_GRID`` when
            ``None``.
        guard: Train the same student without the teacher, too, on the target's links alone, and go on with it where it
            is better on the validation pairs; try each propagation along the target's links alone, too. A source that
            misleads then costs little more than a training.

    Attributes:
        kept: Name of the stage that scores: ``"student"``, ``"student alone"`` or ``"teacher"``, once fitted.
        propagation: The propagation that was chosen, once fitted; ``None`` where none helps.
        weight: Its weight; 0 without one.
        steps: Each propagation with its own best weight, by the name of its class, once fitted; with ``guard`` also
            ``"<name>, target alone"``.
        validation: Metric on the validation pairs of each stage, and for each propagation and weight, once fitted.
        results: Course of each training by the name of its stage, once fitted.

    Raises:
        TypeError: If a stage is none.
        ValueError: If there is neither teacher nor student, the student needs a teacher and there is none, 0 is not
            among the weights, a kind of propagation comes twice, one is transductive, or there is no student with a
            teacher to guard.

    Example:
        >>> import torch
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.transfer.data.split import split_links
        >>> from graphsparse.transfer.data.pair import SharedNodePair
        >>> data, early, late = random_graph(), torch.arange(45), torch.arange(15, 60)
        >>> pair = SharedNodePair(data.subgraph(early), data.subgraph(late), early, late)
        >>> split = split_links(pair)
        >>> gitl = GITL.small(epochs=10, student_epochs=20).fit(pair, split, seed=0)
        >>> gitl.score(torch.tensor([[0, 1], [2, 3]])).shape
        torch.Size([2])
        >>> print(gitl.summary())
        GITL on 45 target nodes, 30 shared nodes, ... training links; metric on the validation pairs:
          teacher: 0..., epoch ... of 10
          student: 0..., epoch ... of 20
          EdgeLabelPropagation(...
            weight ... of 0: 0...
          XMCPropagation(...
            weight ... of 0: 0...

    Source: Zheng et al., *You Only Transfer What You Share*, arXiv 2302.14189.
    """

    def __init__(
        self,
        *,
        teacher: LinkTeacher | bool = True,
        student: MLPStudent | bool = True,
        propagation: Propagation | Sequence[Propagation] | bool = True,
        grid: Sequence[float] | None = None,
        guard: bool = False,
    ) -> None:
        for name, stage, kinds in (
            ("teacher", teacher, (LinkTeacher,)),
            ("student", student, (MLPStudent,)),
        ):
            if not isinstance(stage, (bool, *kinds)):
                known = " or ".join(kind.__name__ for kind in kinds)
                raise TypeError(f"'{name}' must be True, False or {known} (got {type(stage).__name__})")
        self.teacher: LinkTeacher | None = LinkTeacher() if teacher is True else teacher or None
        self.student: MLPStudent | None = MLPStudent() if student is True else student or None
        self.propagations = _propagations(propagation)
        if self.teacher is None and self.student is None:
            raise ValueError("'teacher' and 'student' are both False: there is nothing that scores")
        if self.teacher is None and self.student is not None and self.student.needs_teacher:
            raise ValueError("'teacher' is False, but 'student' has a weight for what a teacher knows")
        most = 1 if any(isinstance(p, EdgeLabelPropagation) for p in self.propagations) else inf
        if not isinstance(guard, bool):
            raise TypeError(f"'guard' must be True or False (got {guard!r})")
        if grid is not None and not isinstance(grid, Iterable):
            raise TypeError(f"'grid' must hold numbers (got {grid!r} of type {type(grid).__name__})")
        for weight in () if grid is None else grid:
            check_number(weight, "grid", least=0, most=most)
        self.grid = None if grid is None else sorted(set(map(float, grid)))
        if self.grid is not None and 0 not in self.grid:
            raise ValueError(f"'grid' must hold 0, so that a step that does not help is left out (got {self.grid})")
        if guard and (self.student is None or not self.student.needs_teacher):
            raise ValueError("'guard' is True, but there is no 'student' that learns from a teacher")
        self.guard, self.kept = guard, ""
        self.propagation: Propagation | None = None
        self.weight = 0.0
        self.steps: dict[str, PropagationStep] = {}
        self.validation: dict[str, float] = {}
        self.results: dict[str, FitResult] = {}
        self._num_nodes: int | None = None

    @classmethod
    def small(
        cls,
        epochs: int = 60,
        student_epochs: int = 120,
        *,
        scope: str = "intersection",
        propagation: Propagation | Sequence[Propagation] | bool | None = None,
        links_per_epoch: int | None = None,
        guard: bool = False,
    ) -> "GITL":
        """Return a chain for graphs of some thousand nodes with words as features.

        Args:
            epochs: Epochs of the teacher.
            student_epochs: Epochs of the student.
            scope: Scope of the teacher.
            propagation: As for the class; when ``None`` both kinds, of which the better is taken.
            links_per_epoch: Most links that are learned from in an epoch, for a dense source.
            guard: As for the class.

        Example:
            >>> GITL.small(propagation=False).propagation is None
            True
        """
        training = LinkTraining(epochs=epochs, lr=5e-3, links_per_epoch=links_per_epoch)
        teacher = LinkTeacher(sage_encoder(64), scope=scope, input_dropout=0.5, training=training)
        student = MLPStudent(128, training=replace(training, epochs=student_epochs))
        propagation = (EdgeLabelPropagation(), XMCPropagation()) if propagation is None else propagation
        return cls(teacher=teacher, student=student, propagation=propagation, guard=guard)

    def fit(
        self,
        pair: "SharedNodePair",
        split: "LinkSplit",
        *,
        seed: int = 0,
        checkpoint: str | Path | None = None,
        progress: bool = False,
        log: Log | None = None,
    ) -> "GITL":
        """Fit the chain on what the split leaves.

        Args:
            pair: Source and target.
            split: Links of the target that are held out.
            seed: Seed of all that is drawn in any stage.
            checkpoint: Folder for a file per stage, from which a killed training goes on.
            progress: Whether to show progress bars.
            log: Receives the entries of the histories of teacher and student one by one.

        Returns:
            The object itself.

        Raises:
            ValueError: If the split is that of another pair or breaks a rule against leaks, a stage has nothing to
                learn from, or ``XMCPropagation`` is directed and the links are not, or the other way round.
        """
        check_split(pair, split)
        assert_no_leak(split, pair)
        for propagation in self.propagations:
            check_direction(propagation, pair)
        self._num_nodes, self.propagation, self.weight, self.steps = None, None, 0.0, {}
        stages: dict[str, LinkTeacher | MLPStudent] = {}

        def options(name: str) -> dict[str, Any]:
            file = None if checkpoint is None else Path(checkpoint) / f"{name.replace(' ', '_')}.pt"
            return {"seed": seed, "checkpoint": file, "progress": progress, "log": log}

        if self.teacher is not None:
            stages["teacher"] = self.teacher.fit(pair, split, **options("teacher"))
        if self.student is not None:
            stages["student"] = self.student.fit(pair, split, self.teacher, **options("student"))
            if self.guard:
                stages["student alone"] = self.student.alone().fit(pair, split, **options("student alone"))
        self.results = {name: stage.result for name, stage in stages.items() if stage.result is not None}
        self.validation = {name: result.val for name, result in self.results.items()}
        self._sizes = {
            "target nodes": pair.num_nodes,
            "shared nodes": int(pair.shared.sum()),
            "training links": split.train.size(1),
        }
        # The student without a teacher must be better, not level, to take its place.
        last: list[str] = [name for name in ("student", "student alone") if name in stages] or ["teacher"]
        self.kept = max(last, key=self.validation.__getitem__)
        scorer = stages[self.kept]
        self._score, best = scorer.score, self.validation[self.kept]
        for name, step in self._steps(scorer):
            self.steps[name] = step.fit(pair, split, seed)
            self.validation |= {f"{name} {weight:g}": value for weight, value in step.tried.items()}
            if step.weight > 0 and step.tried[step.weight] > best:
                best = step.tried[step.weight]
                self.propagation, self.weight, self._score = step.propagation, step.weight, step.score
        self._num_nodes = pair.num_nodes
        return self

    def _steps(self, scorer: LinkTeacher | MLPStudent) -> Iterator[tuple[str, PropagationStep]]:
        """Yield the propagations to try and their names, those along the links of both graphs first."""
        for graph in ("enriched_target", "target") if self.guard else ("enriched_target",):
            for propagation in self.propagations:
                name = type(propagation).__name__
                grid = self.grid or (LAMBDA_GRID if isinstance(propagation, EdgeLabelPropagation) else XMC_GRID)
                if graph == "target":
                    name, propagation = f"{name}, target alone", copy(propagation)
                yield name, PropagationStep(propagation, scorer.score, grid, scorer.training.metric, graph)

    def score(self, pairs: Tensor) -> Tensor:
        """Return scores ``[Q]`` of pairs ``[2, Q]`` of target nodes, higher = more likely a link.

        They are logits, save where ``XMCPropagation`` was given a weight: then they are a probability plus its scores.

        Raises:
            RuntimeError: If nothing has been fitted.
            ValueError: If a node is not in the target, or a pair is a self-loop.
        """
        if self._num_nodes is None:
            raise RuntimeError("nothing has been learned yet: call 'fit(pair, split)' first")
        return self._score(check_queries(pairs, self._num_nodes))

    def summary(self) -> str:
        """Return what was fitted and what was chosen, as a few lines.

        Raises:
            RuntimeError: If nothing has been fitted.
        """
        if self._num_nodes is None:
            raise RuntimeError("nothing has been learned yet: call 'fit(pair, split)' first")
        sizes = ", ".join(f"{count} {name}" for name, count in self._sizes.items())
        lines = [f"GITL on {sizes}; metric on the validation pairs:"]
        for name in ("teacher", "student", *(["student alone"] if self.guard else [])):
            if name not in self.results:
                lines.append(f"  {name}: none")
                continue
            result, kept = self.results[name], ", kept" if self.guard and name == self.kept else ""
            lines.append(f"  {name}: {result.val:.4f}, epoch {result.best_epoch + 1} of {result.epochs_run}{kept}")
        for step in self.steps.values():
            listed = ", ".join(f"{weight:g}: {value:.4f}" for weight, value in step.tried.items())
            alone = ", target alone" if step.graph == "target" else ""
            kept = ", kept" if step.propagation is self.propagation else ""
            lines.append(f"  {step.propagation!r}{alone}{kept}")
            lines.append(f"    weight {step.weight:g} of {listed}")
        return "\n".join([*lines, *([] if self.steps else ["  propagation: none"])])


def _propagations(given: Any) -> tuple[Propagation, ...]:
    """Return the propagations to choose from, each kind once."""
    if isinstance(given, bool):
        return (EdgeLabelPropagation(),) if given else ()
    found = tuple(given) if isinstance(given, (list, tuple)) else (given,)
    for propagation in found:
        if not isinstance(propagation, _KINDS):
            known = " or ".join(kind.__name__ for kind in _KINDS)
            raise TypeError(
                f"'propagation' must be True, False, {known}, or several (got {type(propagation).__name__})"
            )
        if isinstance(propagation, EdgeLabelPropagation) and propagation.transductive:
            raise ValueError(
                "'propagation' must not be transductive: scores of pairs would hang together with what else is asked "
                f"for (got {propagation!r})"
            )
    if len({type(propagation) for propagation in found}) < len(found):
        raise ValueError(f"'propagation' must hold each kind once (got {list(found)})")
    return found
