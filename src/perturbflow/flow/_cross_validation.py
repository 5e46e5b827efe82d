"""Predicting training conditions without their own cells, to see how far predictions are off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from perturbflow.flow._data import CellData, group_keys
from perturbflow.flow._effect_split import Asked
from perturbflow.flow._group_sums import GroupSums
from perturbflow.flow._hurdle_distribution import Context
from perturbflow.flow._prior import AdditiveHurdlePrior
from perturbflow.flow._prior_fit import fit_hurdle
from perturbflow.flow._uncertainty import condition_kind, mean_expression

MIN_CELLS = 5
_VALUES_JUDGED = 1_000_000  # of a fit; more conditions of as many genes make no difference
_FEWEST_JUDGED = 100  # conditions of a fit
_PSEUDO_CELLS = (
    4.0  # of the predicted distribution, added where the variance among the cells of a condition is estimated
)


@dataclass(frozen=True, eq=False)
class HeldOutPrediction:
    """A condition that was predicted without its cells."""

    kind: str  # what the prediction rests on, see `condition_kind`
    condition: int  # number of the condition
    context: int  # number of its context
    observed: NDArray[np.float64]  # mean expression of its cells (G,)
    noise: NDArray[np.float64]  # sampling variance of `observed` (G,)
    predicted: NDArray[np.float64]  # mean expression (G,)
    sd: NDArray[np.float64]  # standard deviation that the prior states for it (G,)


def cross_validate(
    cells: CellData | Sequence[GroupSums],
    *,
    features: NDArray[np.floating] | None,
    n_folds: int,
    rng: np.random.Generator,
) -> Iterator[HeldOutPrediction]:
    """Predict training conditions from fits that left them out, in all ways in which one can be new.

    Left out are, each in ``n_folds`` parts: combinations, components, components at some doses and in some contexts,
    and cells of every condition; of several sums over parts of the cells each is left out in turn
    (:func:`parts_that_tell`). In large screens one part is enough, where a million values were predicted in one way.
    Conditions of fewer than 5 held-out cells are not judged, and neither are more than some hundreds at a time.
    """
    whole = GroupSums.of(cells) if isinstance(cells, CellData) else GroupSums.union(cells)
    screen = _Screen.read(whole)
    for units in _designs(screen):
        own_names = sorted(set().union(*units))
        folds = dict(zip(own_names, rng.permutation(len(own_names)) % n_folds, strict=True))
        n_judged = 0
        for fold in range(min(n_folds, len(own_names))):
            is_left_out = np.zeros(len(whole), dtype=bool)
            is_left_out[screen.perturbed] = [any(folds[name] == fold for name in own) for own in units]
            if 0 < is_left_out.sum() < len(screen.perturbed):
                left_out = np.flatnonzero(is_left_out)
                judged = whole.take(left_out[_judged(whole.n_cells[left_out], whole.n_genes, rng)])
                if len(judged):
                    yield from _predict(whole, np.flatnonzero(~is_left_out), judged, judged, screen, features)
                n_judged += len(judged)
                if n_judged >= _enough(whole.n_genes):
                    break

    n_judged = 0
    for part in _random_parts(cells, n_folds, rng):
        judged = part.take(_judged(part.n_cells * ~part.is_control, part.n_genes, rng))
        if not len(judged):  # conditions of few cells
            del part  # before the next one is summed
            continue
        entire = whole.take(screen.find(judged))
        n_judged += len(judged)
        # In place, since sums can be as large as memory allows; controls stay.
        controls = part.take(part.is_control)
        whole.exclude(part)
        whole.include(controls)
        is_last = n_judged >= _enough(whole.n_genes)
        if is_last:
            del part
        yield from _predict(whole, np.flatnonzero(whole.n_cells), judged, entire, screen, features)
        if is_last:
            break
        whole.include(part)
        whole.exclude(controls)


def parts_that_tell(n_cells: NDArray[np.integer], n_genes: int, n_parts: int) -> int:
    """Number of even parts of the cells of conditions to leave out until that says enough, at most ``n_parts``.

    It is 0 where no part has enough cells of any condition to judge it.
    """
    if not (-(-n_cells // n_parts) >= MIN_CELLS).any():
        return 0
    n_judged = max(int((n_cells // n_parts >= MIN_CELLS).sum()), 1)
    return min(n_parts, -(-_enough(n_genes) // n_judged))


def _random_parts(cells: CellData | Sequence[GroupSums], n_folds: int, rng: np.random.Generator) -> Iterator[GroupSums]:
    """Sums over parts of the cells, every condition being divided evenly."""
    if not isinstance(cells, CellData):
        yield from (part.ordered() for part in cells if len(cells) > 1)
        return
    grouping = cells.grouping()
    parts = [
        np.array_split(rng.permutation(grouping.rows(int(i))), n_folds) for i in np.flatnonzero(~grouping.is_control)
    ]
    for fold in range(n_folds):
        rows = [part[fold] for part in parts]
        yield GroupSums.of(cells, np.sort(np.concatenate(rows)) if rows else np.zeros(0, dtype=np.intp))


@dataclass(frozen=True, eq=False)
class _Screen:
    """All groups: their doses, which are perturbed, the number of the context of each, and numbers to look them up."""

    doses: sparse.csr_matrix
    perturbed: NDArray[np.intp]
    context: NDArray[np.intp]
    number: dict[tuple[bytes, bytes, bytes], int]

    @classmethod
    def read(cls, sums: GroupSums) -> Self:
        controls = {tuple(codes): i for i, codes in enumerate(sums.covariates[sums.is_control].tolist())}
        context = np.array([controls.get(tuple(codes), -1) for codes in sums.covariates.tolist()], dtype=np.intp)
        number = {name: i for i, name in enumerate(group_keys(sums.doses, sums.covariates))}
        return cls(sums.doses, np.flatnonzero(~sums.is_control), context, number)

    def find(self, sums: GroupSums) -> NDArray[np.intp]:
        """Numbers of the groups of sums over some of the cells."""
        return np.array([self.number[name] for name in group_keys(sums.doses, sums.covariates)], dtype=np.intp)


def _designs(screen: _Screen) -> Iterator[list[set[tuple[int, ...]]]]:
    """For every perturbed group the names of what is left out together, one list per way of leaving out."""
    doses = screen.doses
    rows = [slice(*doses.indptr[i : i + 2]) for i in screen.perturbed]
    components = [tuple(doses.indices[own].tolist()) for own in rows]
    amounts = [doses.data[own].tolist() for own in rows]
    places = screen.context[screen.perturbed].tolist()
    yield [{own} if len(own) > 1 else set() for own in components]
    yield [{(j,) for j in own} for own in components]
    measured: dict[int, set[float]] = {}
    where: dict[int, set[int]] = {}
    for own, its, place in zip(components, amounts, places, strict=True):
        for j, dose in zip(own, its, strict=True):
            measured.setdefault(j, set()).add(dose)
            where.setdefault(j, set()).add(place)
    rank = {j: {dose: i for i, dose in enumerate(sorted(known))} for j, known in measured.items()}
    yield [
        {(j, rank[j][dose]) for j, dose in zip(own, its, strict=True) if len(rank[j]) > 1}
        for own, its in zip(components, amounts, strict=True)
    ]
    yield [{(j, place) for j in own if len(where[j]) > 1} for own, place in zip(components, places, strict=True)]


def _judged(n_cells: NDArray[np.integer], n_genes: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return which of the conditions that are left out are judged."""
    judged = np.flatnonzero(n_cells >= MIN_CELLS)
    most = _enough(n_genes)
    return judged if len(judged) <= most else np.sort(rng.choice(judged, most, replace=False))


def _enough(n_genes: int) -> int:
    """Number of conditions of so many genes that say enough."""
    return max(_FEWEST_JUDGED, _VALUES_JUDGED // max(n_genes, 1))


def _predict(
    sums: GroupSums,
    kept: NDArray[np.intp],
    left_out: GroupSums,
    entire: GroupSums,
    screen: _Screen,
    features: NDArray[np.floating] | None,
) -> Iterator[HeldOutPrediction]:
    """Fit to the groups that are kept and predict conditions that were left out, or whose cells in part were.

    ``entire`` has all cells of these conditions.
    """
    # A dose above those that are kept is predicted as the largest of them.
    doses = left_out.doses.copy()
    doses.data = np.minimum(doses.data, sums.doses[kept].max(axis=0).toarray().ravel()[doses.indices])
    groups = np.zeros(len(sums), dtype=bool)
    groups[[screen.number[name] for name in group_keys(doses, left_out.covariates) if name in screen.number]] = True
    components = np.bincount(left_out.doses.indices, minlength=left_out.doses.shape[1]) > 0
    prior = AdditiveHurdlePrior(**fit_hurdle(sums, features, groups=kept, asked=Asked(groups, components)))
    contexts: dict[int, Context] = {}
    for i, group in enumerate(screen.find(left_out)):
        n_cells = left_out.n_cells[i]
        place = int(screen.context[group])
        if place not in contexts:
            contexts[place] = prior.context(left_out.covariates[i])
        perturbation = left_out.doses[[i]].toarray()[0]
        distribution = prior.distribution(perturbation, contexts[place])
        predicted, sd = mean_expression(prior, perturbation, contexts[place])
        # Of all cells of the condition: in few cells a low mean goes with a low variance and would seem certain.
        expected = (
            distribution.expressed * (distribution.variance + distribution.mean.astype(np.float64) ** 2) - predicted**2
        )
        scatter = np.maximum(entire.squares[i] - entire.total[i] ** 2 / entire.n_cells[i], 0)
        variance = (scatter + _PSEUDO_CELLS * expected) / (entire.n_cells[i] - 1 + _PSEUDO_CELLS)
        yield HeldOutPrediction(
            kind=condition_kind(prior, perturbation, contexts[place]),
            condition=int(np.searchsorted(screen.perturbed, group)),
            context=place,
            observed=left_out.total[i] / n_cells,
            noise=variance / n_cells,
            predicted=predicted,
            sd=sd,
        )
