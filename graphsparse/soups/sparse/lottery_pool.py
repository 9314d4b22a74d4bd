"""Lottery pools: one ticket, improved by tickets of other sparsities."""

from collections.abc import Sequence

from torch import Tensor
from tqdm import tqdm

from graphsparse.ops.check import check_count, check_integer, check_list, check_real
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.ingredients import Ingredients
from graphsparse.soups.recipes.result import SoupResult
from graphsparse.soups.recipes.split import fit_and_accept
from graphsparse.soups.sparse.ticket_states import are_tickets, ticket_states
from graphsparse.soups.states.prune_state import apply_masks, magnitude_masks, maskable_names, num_nonzero
from graphsparse.soups.states.states import State, States, mix
from graphsparse.soups.states.ties import tied_names
from graphsparse.tickets import Ticket
from graphsparse.training.check import check_callable
from graphsparse.typing import Log

#: Shares of the soup in a mixture, those of the paper.
COEFFICIENTS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def lottery_pool(
    tickets: Sequence[Ticket] | States,
    evaluator: Evaluator,
    *,
    target: int,
    coefficients: Sequence[float] = COEFFICIENTS,
    max_candidates: int | None = None,
    masked: Sequence[str] | None = None,
    split_validation: bool = True,
    seed: int = 0,
    progress: bool = False,
    log: Log | None = None,
) -> SoupResult:
    r"""Interpolate a ticket with tickets of other sparsities, and prune the mixture to its own.

    Two tickets of different sparsity have different masks, and their mixture has the union of both. So the weights of
    smallest magnitude are removed from it until as many are left as the target :math:`t` has:

    .. math:: W \leftarrow \mathrm{prune}_{k_t}\!\left(\alpha W + (1 - \alpha) W_i\right),
        \qquad k_t = \lVert W_t \rVert_0

    The other tickets come by the distance of their index from that of the target: :math:`t-1, t+1, t-2, t+2` and so
    on. Of each the best coefficient :math:`\alpha` is found, of equally good ones the largest, and the step is taken
    if the score does not fall below that before; at first it is the target's. With ``split_validation`` the
    coefficient is found on one half of the judged nodes, where the score must not fall either, and accepted on the
    other, which gives the scores of the result. A best of many coefficients on a few hundred nodes is often better by
    chance alone; the other half tells. It costs half the nodes for either question.

    The score of the result is never below that of the target, and exactly as many weights are left, perhaps others.
    Only the judged nodes decide. ``N + 1 + S (C + 1)`` evaluations for ``S`` candidates and ``C`` coefficients; never
    more than three states in memory, and for a moment the magnitudes that are ranked.

    Args:
        tickets: Tickets with one common edge mask, ordered by sparsity; the evaluator judges on the graph that
            :meth:`~graphsparse.tickets.Ticket.sparsify` returns. Or state dicts, a list or a store, which are judged
            on the graph of the evaluator whatever they were trained on.
        evaluator: Scores mixtures on its nodes.
        target: Index of the ticket to improve; -1 is the last.
        coefficients: Shares :math:`\alpha` of the soup, each in (0, 1).
        max_candidates: Number of other tickets to try; all when ``None``.
        masked: Names of the parameters that are pruned; those with at least two dimensions when ``None``. Others are
            only mixed.
        split_validation: Whether to find coefficients on one half of the judged nodes and accept on the other.
        seed: Of the halves.
        progress: Whether to show a progress bar, of candidates.
        log: Receives ``ingredient``, ``ratio`` and ``score`` (of the soup after it) for each candidate.

    Returns:
        The soup; it has no ``weights``, since it was pruned in between. Each step of the trace has the ``ingredient``,
        its best coefficient as ``ratio``, the score of that on the fitting half as ``fit``, the ``score``, ``None``
        where it was not asked for, and whether it was ``accepted``. :func:`~graphsparse.soups.soup_ticket` makes it a
        ticket again.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no ticket, one does not fit the model or the others, or a number is out of range.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.tickets import find_ticket
        >>> from graphsparse.training import Training
        >>> data, make_model = random_graph(), lambda: GCN(8, 16, 2, 3)
        >>> options = {"edge_sparsity": 0.3, "training": Training(epochs=5)}
        >>> tickets = [find_ticket(make_model, data, weight_sparsity=s, **options) for s in (0.2, 0.5, 0.8)]
        >>> evaluator = Evaluator(make_model(), tickets[0].sparsify(data))
        >>> soup = lottery_pool(tickets, evaluator, target=1)
        >>> soup.score >= soup.ingredient_scores[1]
        True
        >>> sum(int(w.count_nonzero()) for w in soup.state_dict.values() if w.dim() == 2)  # half of 8 * 16 + 16 * 3
        88

    Source: Yin et al., *Lottery Pools: Winning More by Interpolating Tickets without Increasing Training or Inference
    Cost*, arXiv 2208.10842, Algorithm 1, where one validation set both finds and accepts.
    """
    ratios = _coefficients(coefficients)
    if max_candidates is not None:
        check_count(max_candidates, "max_candidates")
    if log is not None:
        check_callable(log, "log")
    states = Ingredients(ticket_states(tickets, evaluator), evaluator, "tickets")
    target = _index(target, len(states))
    names = maskable_names(evaluator.model, masked)
    if are_tickets(tickets):
        _check_masked(tickets, names, tied_names(evaluator.model))
    fit, accept = fit_and_accept(evaluator, split_validation, seed)
    others = by_distance(target, len(states))[:max_candidates]
    with tqdm(total=len(states) + len(others), disable=not progress, desc="lottery pool") as bar:
        scores = states.scores(accept, bar.update)
        soup = states[target]
        soup = mix(soup, soup, 1.0)  # the result must not share its tensors with a ticket
        num_kept = num_nonzero(soup, names)
        score = scores[target]
        fit_score = score if fit is accept else fit.score(soup)
        trace = []
        for i in others:
            other = states[i]
            ratio, fit_found = _best(fit, soup, other, ratios, names, num_kept)
            found, accepted = None, False
            if ratio is not None and fit_found is not None and fit_found >= fit_score:
                candidate = _pruned(soup, other, ratio, names, num_kept)
                found = fit_found if fit is accept else accept.score(candidate)
                accepted = found >= score
                if accepted:
                    soup, score, fit_score = candidate, found, fit_found
                del candidate
            del other  # before the next one is read
            trace.append({"ingredient": i, "ratio": ratio, "fit": fit_found, "score": found, "accepted": accepted})
            if log is not None:
                log({"ingredient": i, "ratio": ratio if accepted and ratio is not None else 1.0, "score": score})
            bar.set_postfix(score=f"{score:.4f}", target=f"{scores[target]:.4f}", refresh=False)
            bar.update()
    if num_nonzero(soup, names) != num_kept:
        raise RuntimeError(f"the soup has {num_nonzero(soup, names)} weights, and not the {num_kept} of its target")
    return SoupResult(dict(accept.prepared(soup)), None, score, scores, trace)


def by_distance(target: int, num: int) -> list[int]:
    """Return all other indices by their distance from one; of two at the same distance the lower comes first.

    Args:
        target: An index below ``num``.
        num: How many there are.

    Example:
        >>> by_distance(1, 5)
        [0, 2, 3, 4]
    """
    return sorted((i for i in range(num) if i != target), key=lambda i: abs(i - target))


def _pruned(soup: State, other: State, ratio: float, names: Sequence[str], num_kept: int) -> dict[str, Tensor]:
    candidate = mix(soup, other, ratio)
    apply_masks(candidate, magnitude_masks(candidate, names, num_kept))
    return candidate


def _best(
    evaluator: Evaluator, soup: State, other: State, ratios: Sequence[float], names: Sequence[str], num_kept: int
) -> tuple[float | None, float | None]:
    """Return the coefficient with the highest score, the first of equal ones, and that score."""
    best: tuple[float | None, float | None] = (None, None)
    for ratio in ratios:
        candidate = _pruned(soup, other, ratio, names, num_kept)
        # Where weights of opposite sign cancel, fewer are left than the target has.
        found = evaluator.score(candidate) if num_nonzero(candidate, names) == num_kept else None
        del candidate  # before the next one is made
        if found is not None and (best[1] is None or found > best[1]):
            best = (ratio, found)
    return best


def _coefficients(coefficients: Sequence[float]) -> list[float]:
    """Return the coefficients from large to small, so that of equal ones that nearest to the soup is first."""
    listed = check_list(coefficients, "coefficients")
    found = sorted({check_real(a, "coefficients", "a list of numbers") for a in listed}, reverse=True)
    if not found or not all(0 < a < 1 for a in found):
        raise ValueError(f"'coefficients' must be numbers between 0 and 1, without both (got {coefficients!r})")
    return found


def _index(target: int, num: int) -> int:
    target = check_integer(target, "target")
    if not -num <= target < num:
        raise ValueError(f"'target' must be the index of one of {num} tickets (got {target})")
    return target % num


def _check_masked(tickets: Sequence[Ticket], names: Sequence[str], ties: dict[str, str]) -> None:
    """Refuse masks of tensors that would not be pruned: mixtures would fill them."""
    for i, ticket in enumerate(tickets):
        more = sorted(name for name in ticket.weight_masks if ties.get(name, name) not in names)
        if more:
            raise ValueError(f"ticket {i} has a mask of {more[0]!r}, which 'masked' leaves out (it covers {names})")
