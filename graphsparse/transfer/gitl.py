"""Teacher, student and propagation in a chain, with all that is chosen chosen on validation pairs of the target."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from graphsparse.training import link_training
from graphsparse.training.link_task import link_average_precision
from graphsparse.transfer.models.link_model import sage_encoder
from graphsparse.transfer.models.predictor import LinkPredictor, part_of
from graphsparse.transfer.models.student import MLPStudent
from graphsparse.transfer.models.teacher import LinkTeacher
from graphsparse.transfer.propagation.edge_propagation import EdgeLabelPropagation
from graphsparse.transfer.propagation.step import KINDS, Propagation, PropagationStep

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair
    from graphsparse.transfer.data.split import LinkSplit


class GITL(LinkPredictor):
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
        student: A student; ``True`` for one of default options, ``False`` for none. Where the pair has no features
            there is none, with a warning.
        propagation: ``EdgeLabelPropagation`` or ``XMCPropagation``, or both, of which the one that is better on the
            validation pairs is taken; ``True`` for the former with default options, whose time is linear in the links,
            ``False`` for none.
        guard: Train the student, or the teacher without one, on the target's links alone, too, and go on with that
            where it is better on the validation pairs; try each propagation along the target's links alone, too. A
            source that misleads then costs little more than a training.

    Attributes:
        stages: What was trained, by name: ``"teacher"``, ``"student"``, ``"student alone"``.
        kept: Name of the stage that scores, once fitted.
        propagation: The propagation that was chosen, once fitted; ``None`` where none helps.
        weight: Its weight; 0 without one.
        steps: Each propagation with its own best weight, by the name of its class, once fitted; with ``guard`` also
            ``"<name>, target alone"``. Not in a file.
        validation: Metric on the validation pairs of each stage, and for each propagation and weight, once fitted.

    Raises:
        TypeError: If a stage is none.
        ValueError: If there is neither teacher nor student, the student needs a teacher and there is none, or a kind of
            propagation comes twice.

    Example:
        >>> import torch
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.transfer import SharedNodePair, split_links
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
        guard: bool = False,
    ) -> None:
        for name, stage, kind in (("teacher", teacher, LinkTeacher), ("student", student, MLPStudent)):
            if not isinstance(stage, bool | kind):
                raise TypeError(f"'{name}' must be True, False or {kind.__name__} (got {type(stage).__name__})")
        if not isinstance(guard, bool):
            raise TypeError(f"'guard' must be True or False (got {guard!r})")
        self.teacher: LinkTeacher | None = LinkTeacher() if teacher is True else teacher or None
        self.student: MLPStudent | None = MLPStudent() if student is True else student or None
        first = self.teacher or self.student
        if first is None:
            raise ValueError("'teacher' and 'student' are both False: there is nothing that scores")
        if self.teacher is None and self.student is not None and self.student.needs_teacher:
            raise ValueError("'teacher' is False, but 'student' has a weight for what a teacher knows")
        self.propagations = _propagations(propagation)
        self.guard, self.training = guard, first.training
        self.forget()

    def forget(self) -> None:
        """Be as before the first call of ``fit``."""
        super().forget()
        self.stages: dict[str, LinkTeacher | MLPStudent] = {}
        self.steps: dict[str, PropagationStep] = {}
        self._step: PropagationStep | None = None

    def options(self) -> dict[str, Any]:
        """Return the arguments, as far as they are plain values."""
        stages = {"teacher": self.teacher, "student": self.student}
        propagations = [[KINDS.index(type(one)), asdict(one)] for one in self.propagations]
        plain = {"propagation": propagations, "guard": self.guard}
        return {name: None if stage is None else stage.options() for name, stage in stages.items()} | plain

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "GITL":
        """Build a chain, not fitted, from what :meth:`options` returned."""
        teacher, student = options["teacher"], options["student"]
        return cls(
            teacher=False if teacher is None else LinkTeacher.from_options(teacher),
            student=False if student is None else MLPStudent.from_options(student),
            propagation=[KINDS[kind](**own) for kind, own in options["propagation"]],
            guard=options["guard"],
        )

    @classmethod
    def small(
        cls,
        epochs: int = 60,
        student_epochs: int = 120,
        *,
        propagation: Propagation | Sequence[Propagation] | bool | None = None,
        links_per_epoch: int | None = None,
        guard: bool = False,
        **fields: Any,
    ) -> "GITL":
        """Return a chain for graphs of some thousand nodes with words as features.

        Args:
            epochs: Epochs of the teacher.
            student_epochs: Epochs of the student.
            propagation: As for the class; when ``None`` both kinds, of which the better is taken.
            links_per_epoch: Most links that are learned from in an epoch, for a dense source.
            guard: As for the class.
            fields: Further fields of ``Training``, such as ``checkpoint``, a folder, and ``progress``.

        Example:
            >>> GITL.small(propagation=False).propagations
            ()
        """
        training = link_training(**{"epochs": epochs, "lr": 5e-3, **fields})
        later = replace(training, epochs=student_epochs)
        teacher = LinkTeacher(
            sage_encoder(64),
            id_channels=64,
            input_dropout=0.5,
            links_per_epoch=links_per_epoch,
            training=training,
        )
        propagation = tuple(kind() for kind in KINDS) if propagation is None else propagation
        student = MLPStudent(128, links_per_epoch=links_per_epoch, training=later)
        return cls(teacher=teacher, student=student, propagation=propagation, guard=guard)

    def learn(self, pair: "SharedNodePair", split: "LinkSplit", seed: int) -> Mapping[str, Any]:
        """Fit all stages and choose among them."""
        stages = self.stages
        if self.teacher is not None:
            stages["teacher"] = self.teacher.fit(pair, split, seed=seed)
        if self.student is not None and (pair.target.get("x") is not None or not stages):
            stages["student"] = self.student.fit(pair, split, self.teacher, seed=seed)
        elif self.student is not None:
            warnings.warn("the pair has no features 'x': there is no student", UserWarning, stacklevel=4)
        last = [*stages][-1:]
        if self.guard:
            last.append(f"{last[0]} alone")
            stages[last[1]] = stages[last[0]].alone().fit(pair, split, seed=seed)
        results = {name: stage.result for name, stage in stages.items() if stage.result is not None}
        self.results = [*results.values()]
        validation = {name: result.val for name, result in results.items()}
        # What sees the target alone must be better, not level, to take the place of the other.
        kept = max(last, key=validation.__getitem__)
        scorer, best, chosen = stages[kept], validation[kept], None
        for graph in ("enriched_target", "target") if self.guard else ("enriched_target",):
            for propagation in self.propagations:
                name = type(propagation).__name__ + (", target alone" if graph == "target" else "")
                step = PropagationStep(propagation, scorer.score, graph)
                self.steps[name] = step.fit(pair, split, scorer.metric or link_average_precision, seed)
                validation |= {f"{name} {weight:g}": value for weight, value in step.tried.items()}
                if step.weight > 0 and step.tried[step.weight] > best:
                    best, chosen = step.tried[step.weight], name
        state = {f"{name}/{key}": value for name, stage in stages.items() for key, value in stage.state.items()}
        if chosen is not None:
            self._step = self.steps[chosen]
            state |= {f"step/{key}": value for key, value in self._step.state().items()}
        return state | {
            "stages": list(stages),
            "kept": kept,
            "validation": validation,
            "summary": self._summary(pair, split, kept, chosen),
        }

    def prepare(self) -> None:
        """Build the stages and the step, where they were read from a file."""
        for name in () if self.stages else self.state["stages"]:
            stage: Any = self.teacher if name.startswith("teacher") else self.student
            stage = stage.alone() if name.endswith(" alone") else stage
            self.stages[name] = stage.restore(part_of(self.state, f"{name}/"), self.origin)
        step = part_of(self.state, "step/")
        if step and self._step is None:
            self._step = PropagationStep.restored(step, self.stages[self.kept].score)

    @property
    def kept(self) -> str:
        """Name of the stage that scores."""
        name: str = self.state["kept"]
        return name

    @property
    def validation(self) -> dict[str, float]:
        """Metric on the validation pairs of each stage, and for each propagation and weight."""
        found: dict[str, float] = self.state["validation"]
        return found

    @property
    def propagation(self) -> Propagation | None:
        """The propagation that was chosen, ``None`` where none helps."""
        return None if self._step is None else self._step.propagation

    @property
    def weight(self) -> float:
        """Weight of the propagation."""
        return 0.0 if self._step is None else self._step.weight

    def rate(self, pairs: Tensor) -> Tensor:
        """Return the scores: logits, but where ``XMCPropagation`` has a weight a probability plus its scores."""
        return (self.stages[self.kept] if self._step is None else self._step).score(pairs)

    def summary(self) -> str:
        """Return what was fitted and what was chosen, as a few lines.

        Raises:
            RuntimeError: If nothing has been fitted.
        """
        lines: str = self.state["summary"]
        return lines

    def _summary(self, pair: "SharedNodePair", split: "LinkSplit", kept: str, chosen: str | None) -> str:
        sizes = f"{pair.num_nodes} target nodes, {int(pair.shared.sum())} shared nodes"
        lines = [f"GITL on {sizes}, {split.train.size(1)} training links; metric on the validation pairs:"]
        for name in dict.fromkeys(("teacher", "student", *self.stages)):
            result = self.stages[name].result if name in self.stages else None
            if result is None:
                lines.append(f"  {name}: none")
                continue
            mark = ", kept" if self.guard and name == kept else ""
            lines.append(f"  {name}: {result.val:.4f}, epoch {result.best_epoch + 1} of {result.epochs_run}{mark}")
        for name, step in self.steps.items():
            listed = ", ".join(f"{weight:g}: {value:.4f}" for weight, value in step.tried.items())
            alone = ", target alone" if step.graph == "target" else ""
            lines.append(f"  {step.propagation!r}{alone}{', kept' if name == chosen else ''}")
            lines.append(f"    weight {step.weight:g} of {listed}")
        return "\n".join([*lines, *([] if self.steps else ["  propagation: none"])])


def _propagations(given: Any) -> tuple[Propagation, ...]:
    """Return the propagations to choose from, each kind once."""
    if isinstance(given, bool):
        return (EdgeLabelPropagation(),) if given else ()
    found = tuple(given) if isinstance(given, list | tuple) else (given,)
    for propagation in found:
        if not isinstance(propagation, KINDS):
            known = " or ".join(kind.__name__ for kind in KINDS)
            raise TypeError(
                f"'propagation' must be True, False, {known}, or several (got {type(propagation).__name__})"
            )
    if len({type(propagation) for propagation in found}) < len(found):
        raise ValueError(f"'propagation' must hold each kind once (got {list(found)})")
    return found
