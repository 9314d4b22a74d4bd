"""Many rules for links, of which validation pairs say which to add up, or which is best."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphsparse.training import link_training
from graphsparse.training.link_task import LinkMetric, link_average_precision
from graphsparse.transfer.baselines.registry import BASELINES, BaselineOptions
from graphsparse.transfer.data.split import Scorer
from graphsparse.transfer.models.combination import Combination, cross_fitted
from graphsparse.transfer.models.link_model import sage_encoder
from graphsparse.transfer.models.predictor import LinkPredictor, kinds_of, part_of
from graphsparse.transfer.models.student import MLPStudent
from graphsparse.transfer.models.teacher import LinkTeacher
from graphsparse.transfer.propagation.edge_propagation import EdgeLabelPropagation
from graphsparse.transfer.propagation.step import PropagationStep

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair
    from graphsparse.transfer.data.split import LinkSplit

#: What follows the "+" of a candidate -> the graph whose links the propagation goes along.
STEPS = {"edge_labels": "target", "edge_labels_enriched": "enriched_target"}
#: Rules that read features; "student" gives way to "teacher" where there are none.
_NEED_FEATURES = ("cosine", "mlp_target", "mlp_enriched", "dgi_features", "egi_features")
#: PageRank is a candidate unasked where starting nodes times links are at most so many: about ten minutes of one core.
_MOST_STEPS = 10**11


class GITL(LinkPredictor):
    r"""Predicts links of a sparse target with the help of a dense source, where it helps, through shared nodes.

    *Candidates* are fitted one after the other: a *teacher*, a graph neural network, learns links among the shared
    nodes from both graphs; a *student*, which sees features only and so serves nodes without any link, learns the
    teacher's vectors and the training links of the target; a *propagation* adds what the known links around a pair say
    to such a score; and simple rules, such as PageRank along the target's links, know nothing of the source. Then the
    validation pairs decide: a :class:`~graphsparse.transfer.models.combination.Combination` adds up all candidates,
    each calibrated by a monotone function, with weights that are not negative. It is taken if its metric is above that
    of the best candidate both on all validation pairs and *cross-fitted*, that is on five parts of them, each scored by
    what was fitted to the other four. Otherwise the best candidate scores alone, as it is.

    So the metric on the validation pairs is never below that of the best candidate, and what looks better by chance on
    a few pairs is left. What this costs: six fits of weights in place of one; small gains, as what was fitted to four
    fifths of the pairs must be better than the best candidate already; and any gain where there are fewer than ten
    links or non-links to validate. Which candidate is best is decided without a margin. Test pairs are never read, and
    no held-out link is in any graph.

    Candidates that the choice does not use are not in a file. PageRank takes time in proportion to the nodes of all
    validation pairs times the links: where that is long it is left out, with a warning, unless it is named.

    Args:
        candidates: Names: ``"teacher"``, ``"student"``, those of :data:`~graphsparse.transfer.BASELINES`, and any of
            these with ``"+edge_labels"`` or ``"+edge_labels_enriched"`` behind it, the same with the propagation along
            the target's links or those of both graphs. :attr:`CANDIDATES` when ``None``. Where the pair has no
            features, or is one graph without a source, ``"teacher"`` takes the place of ``"student"``, and what reads
            features or the source is left out, with a warning where it was asked for.
        combine: Add up candidates where that is better; otherwise the best one scores.
        teacher: The teacher, which is fitted in place; one of default options when ``None``.
        student: The student, likewise.
        propagation: The propagation; one of default options when ``None``.
        settings: Options of the trained baselines among the candidates.
        metric: What is compared on the validation pairs, ``(scores of links, scores of non-links) -> float``; average
            precision when ``None``.

    Attributes:
        fitted: What was fitted, by name; after loading what scores.
        kept: Names of the candidates that score, once fitted, with their weights; 1 for a single one.
        validation: Metric on the validation pairs of each candidate; of ``"combination"`` and, cross-fitted, of
            ``"combination, cross-fitted"``; and of what scores, ``"GITL"``. Once fitted.

    Raises:
        TypeError: If an argument is not of the kind described.
        ValueError: If there are no candidates, one is unknown, or one comes twice.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.transfer import SharedNodePair, split_links
        >>> data, early, late = random_graph(), torch.arange(45), torch.arange(15, 60)
        >>> pair = SharedNodePair(data.subgraph(early), data.subgraph(late), early, late)
        >>> split = split_links(pair)
        >>> gitl = GITL.small(epochs=10, student_epochs=20).fit(pair, split, seed=0)
        >>> gitl.score(torch.tensor([[0, 1], [2, 3]])).shape
        torch.Size([2])
        >>> best = max(gitl.validation[name] for name in GITL.CANDIDATES)
        >>> gitl.validation["GITL"] >= best
        True
        >>> chain = GITL.small(10, 20, candidates=GITL.PUBLISHED, combine=False).fit(pair, split)
        >>> print(chain.summary())
        GITL on 45 target nodes, 30 shared nodes, ... training links; metric on the validation pairs:
          0...  student, epoch ... of 20
          0...  student+edge_labels_enriched, weight ...
        taken: ...

    Source: teacher, student and propagation: Zheng et al., *You Only Transfer What You Share*, arXiv 2302.14189; the
    other candidates and the choice are ours.
    """

    #: Candidates when none are named.
    CANDIDATES: tuple[str, ...] = (
        *("teacher", "student", "student+edge_labels", "student+edge_labels_enriched", "xmc", "xmc_enriched"),
        *("pagerank", "pagerank_enriched", "resource_allocation", "resource_allocation_enriched"),
        *("preferential_attachment", "preferential_attachment_enriched", "cosine"),
    )
    #: The published chain, of which the best is taken: ``GITL(GITL.PUBLISHED, combine=False)``.
    PUBLISHED: tuple[str, ...] = ("student", "student+edge_labels_enriched")

    def __init__(
        self,
        candidates: Sequence[str] | None = None,
        *,
        combine: bool = True,
        teacher: LinkTeacher | None = None,
        student: MLPStudent | None = None,
        propagation: EdgeLabelPropagation | None = None,
        settings: BaselineOptions | None = None,
        metric: LinkMetric | None = None,
    ) -> None:
        self.teacher = LinkTeacher() if teacher is None else teacher
        self.student = MLPStudent() if student is None else student
        self.propagation = EdgeLabelPropagation() if propagation is None else propagation
        self.settings = BaselineOptions() if settings is None else settings
        for name, value, kind in (
            ("combine", combine, bool),
            ("teacher", self.teacher, LinkTeacher),
            ("student", self.student, MLPStudent),
            ("propagation", self.propagation, EdgeLabelPropagation),
            ("settings", self.settings, BaselineOptions),
        ):
            if not isinstance(value, kind):
                raise TypeError(f"'{name}' must be of type {kind.__name__} (got {type(value).__name__})")
        self.candidates = None if candidates is None else _checked(candidates)
        self.combine, self.metric, self.training = combine, metric, self.teacher.training
        self.forget()

    def forget(self) -> None:
        """Be as before the first call of ``fit``."""
        super().forget()
        self.fitted: dict[str, Scorer] = {}

    def options(self) -> dict[str, Any]:
        """Return the arguments, as far as they are plain values."""
        return {
            "candidates": self.candidates,
            "combine": self.combine,
            "teacher": self.teacher.options(),
            "student": self.student.options(),
            "propagation": asdict(self.propagation),
        }

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "GITL":
        """Build an object, not fitted, from what :meth:`options` returned."""
        return cls(
            options["candidates"],
            combine=options["combine"],
            teacher=LinkTeacher.from_options(options["teacher"]),
            student=MLPStudent.from_options(options["student"]),
            propagation=EdgeLabelPropagation(**options["propagation"]),
        )

    @classmethod
    def small(
        cls,
        epochs: int = 60,
        student_epochs: int = 120,
        *,
        candidates: Sequence[str] | None = None,
        combine: bool = True,
        links_per_epoch: int | None = None,
        **fields: Any,
    ) -> "GITL":
        """Return one for graphs of some thousand nodes with words as features.

        Args:
            epochs: Epochs of the teacher.
            student_epochs: Epochs of the student.
            candidates: As for the class.
            combine: As for the class.
            links_per_epoch: Most links that are learned from in an epoch, for a dense source.
            fields: Further fields of ``Training``, such as ``checkpoint``, a folder, and ``progress``.

        Example:
            >>> GITL.small(candidates=("cosine", "pagerank")).candidates
            ('cosine', 'pagerank')
        """
        training = link_training(**{"epochs": epochs, "lr": 5e-3, **fields})
        later = replace(training, epochs=student_epochs)
        encoder, plain = sage_encoder(64), BaselineOptions.small(links_per_epoch=links_per_epoch)
        return cls(
            candidates,
            combine=combine,
            teacher=LinkTeacher(
                encoder, id_channels=64, input_dropout=0.5, links_per_epoch=links_per_epoch, training=training
            ),
            student=MLPStudent(128, links_per_epoch=links_per_epoch, training=later),
            settings=replace(plain, training=training, student_training=later),
        )

    def learn(self, pair: "SharedNodePair", split: "LinkSplit", seed: int) -> Mapping[str, Any]:
        """Fit all candidates and decide."""
        names = self._names(pair, split)
        queries, number = torch.cat([split.val, split.val_neg], 1), split.val.size(1)
        positive = torch.arange(queries.size(1)) < number
        if bool(positive.all()) or number == 0:
            raise ValueError(f"'split' must hold links and non-links to validate, to choose by (got {split})")
        judge = self.metric or link_average_precision

        def value(score: Tensor) -> float:
            return judge(score[:number], score[number:])

        rows = [self._fit_one(name, pair, split, seed).score(queries).float().cpu() for name in names]
        validation = {name: value(row) for name, row in zip(names, rows, strict=True)}
        best = max(names, key=validation.__getitem__)
        kept, state, top = {best: 1.0}, {}, validation[best]
        if self.combine and len(names) > 1 and min(number, queries.size(1) - number) >= 10:
            scores = torch.stack(rows)
            found = Combination.fit(scores, positive)
            validation["combination"] = value(found(scores))
            validation["combination, cross-fitted"] = value(cross_fitted(scores, positive, seed))
            if min(validation["combination"], validation["combination, cross-fitted"]) > top:
                used = found.weight.nonzero().view(-1)
                kept = {names[i]: float(found.weight[i]) for i in used.tolist()}
                top = validation["combination"]
                state = {f"combination/{key}": part for key, part in vars(found.only(used)).items()}
        validation["GITL"] = top
        parts: dict[str, Any] = {}
        for name in kept:
            # What a step corrects comes before it.
            for part in dict.fromkeys((name.partition("+")[0], name)):
                made: Any = self.fitted[part]
                predictor = isinstance(made, LinkPredictor)
                parts[part] = [type(made).__name__, made.options()] if predictor else None
                own = made.state if predictor else made.state()
                state |= {f"{part}/{key}": held for key, held in own.items()}
        summary = self._summary(pair, split, names, validation, kept)
        same = _twins(state)
        state = {name: held for name, held in state.items() if name not in same}
        return state | {"same": same, "parts": parts, "kept": kept, "validation": validation, "summary": summary}

    def _names(self, pair: "SharedNodePair", split: "LinkSplit") -> list[str]:
        """Return the candidates for a pair, which may be large, or have no features or no source."""
        names = list(self.candidates or self.CANDIDATES)
        starts = torch.unique(torch.cat([split.val, split.val_neg], 1)).numel()
        links = pair.target.num_edges + sum(source.num_edges for source in pair.source)
        if self.candidates is None and starts * links > _MOST_STEPS:
            names = [name for name in names if not name.startswith("pagerank")]
            warnings.warn("PageRank would take long here and is left out; 'candidates' may name it", stacklevel=5)
        has_features = pair.target.get("x") is not None
        if has_features and pair.source:
            return names
        able = [name for name in names if has_features or name.split("+")[0] not in _NEED_FEATURES]
        able = [name for name in able if pair.source or not name.endswith("_enriched")]
        bare = [name.replace("student", "teacher") for name in able]
        lacking = "no features 'x'" if pair.source else "no source" if has_features else "no source and no features 'x'"
        if self.candidates is not None and bare != names:
            gone = ", ".join(name for name in names if name not in bare)
            warnings.warn(f"the pair has {lacking}, which these need: {gone}", UserWarning, stacklevel=5)
        if not bare:
            raise ValueError(f"the pair has {lacking}, which all of the candidates need")
        return [*dict.fromkeys(bare)]

    def _fit_one(self, name: str, pair: "SharedNodePair", split: "LinkSplit", seed: int) -> Any:
        """Return a candidate, fitted, after what it stands on."""
        if name in self.fitted:
            return self.fitted[name]
        base, _, step = name.partition("+")
        made: Any
        if step:
            made = PropagationStep(self.propagation, self._fit_one(base, pair, split, seed).score, STEPS[step])
            made.fit(pair, split, self.metric or link_average_precision, seed)
        elif name == "teacher":
            made = self.teacher.fit(pair, split, seed=seed)
        elif name == "student":
            teacher = self._fit_one("teacher", pair, split, seed) if self.student.needs_teacher else None
            made = self.student.fit(pair, split, teacher, seed=seed)
        else:
            made = BASELINES[name](pair, split, seed, self.settings)
        self.results = (*self.results, *getattr(made, "results", ()))
        self.fitted[name] = made
        return made

    def prepare(self) -> None:
        """Build what scores, where it was read from a file."""
        state = self.state | {name: self.state[first] for name, first in self.state["same"].items()}
        for name, described in {} if self.fitted else state["parts"].items():
            own = part_of(state, f"{name}/")
            if described is None:
                self.fitted[name] = PropagationStep.restored(own, self.fitted[name.partition("+")[0]].score)
                continue
            made: Any = {"teacher": self.teacher, "student": self.student}.get(name)
            if made is None:
                made = kinds_of(LinkPredictor)[described[0]].from_options(described[1])
            self.fitted[name] = made.restore(own, self.origin)
        parts = {key: part.cpu() for key, part in part_of(state, "combination/").items()}
        self._combination = Combination(**parts) if parts else None

    @property
    def kept(self) -> dict[str, float]:
        """Weight of each candidate that scores."""
        found: dict[str, float] = self.state["kept"]
        return found

    @property
    def validation(self) -> dict[str, float]:
        """Metric on the validation pairs of all candidates, the combination, and what scores."""
        found: dict[str, float] = self.state["validation"]
        return found

    def rate(self, pairs: Tensor) -> Tensor:
        """Return the scores: log-odds of a combination, otherwise those of the candidate."""
        scores = [self.fitted[name].score(pairs) for name in self.kept]
        if self._combination is None:
            return scores[0]
        return self._combination(torch.stack([row.float().cpu() for row in scores])).to(pairs.device)

    def summary(self) -> str:
        """Return what each candidate has on the validation pairs and what was taken, as a few lines.

        Raises:
            RuntimeError: If nothing has been fitted.
        """
        lines: str = self.state["summary"]
        return lines

    def _summary(
        self,
        pair: "SharedNodePair",
        split: "LinkSplit",
        names: Sequence[str],
        validation: Mapping[str, float],
        kept: Mapping[str, float],
    ) -> str:
        sizes = f"{pair.num_nodes} target nodes, {int(pair.shared.sum())} shared nodes"
        lines = [f"GITL on {sizes}, {split.train.size(1)} training links; metric on the validation pairs:"]
        for name in [*names, *[name for name in validation if name.startswith("combination")]]:
            made: Any = self.fitted.get(name)
            result = getattr(made, "result", None)
            more = "" if result is None else f", epoch {result.best_epoch + 1} of {result.epochs_run}"
            more = f", weight {made.weight:g}" if isinstance(made, PropagationStep) else more
            lines.append(f"  {validation[name]:.4f}  {name}{more}")
        chosen = [*kept] if len(kept) == 1 else [f"{weight:.2f} {name}" for name, weight in kept.items()]
        return "\n".join([*lines, f"taken: {' + '.join(chosen)}"])


def _twins(state: Mapping[str, Any]) -> dict[str, str]:
    """Return names of tensors that equal an earlier one, with the name of that: most rules hold the same links."""
    found: dict[str, str] = {}
    tensors = [(name, held) for name, held in state.items() if isinstance(held, Tensor)]
    for i, (name, held) in enumerate(tensors):
        for first, other in tensors[:i]:
            like = (other.dtype, other.device) == (held.dtype, held.device)
            if like and first not in found and torch.equal(other, held):
                found[name] = first
                break
    return found


def _checked(candidates: Any) -> tuple[str, ...]:
    """Return names of candidates, each known and once."""
    names = (candidates,) if isinstance(candidates, str) else tuple(candidates)
    known = ("teacher", "student", *BASELINES)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"'candidates' must hold names (got {type(name).__name__})")
        base, plus, step = name.partition("+")
        if base not in known or (plus and step not in STEPS):
            raise ValueError(
                f"'candidates' must hold names out of {', '.join(known)}, alone or with +{' or +'.join(STEPS)} "
                f"(got {name!r})"
            )
    if not names or len(set(names)) < len(names):
        raise ValueError(f"'candidates' must hold at least one name, and none twice (got {names!r})")
    return names
