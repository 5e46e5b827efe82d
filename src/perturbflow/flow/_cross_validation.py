"""Predicting training conditions without their own cells, to see how far predictions are off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from perturbflow.flow._prior import AdditiveHurdlePrior
from perturbflow.flow._prior_fit import group_sums
from perturbflow.flow._uncertainty import condition_kind, mean_expression

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from numpy.typing import NDArray

    from perturbflow.flow._data import CellData, Group

MIN_CELLS = 5
_PSEUDO_CELLS = 4.0  # of the predicted law, added where the variance among the cells of a condition is estimated


@dataclass(frozen=True, eq=False)
class HeldOutPrediction:
    """A condition that was predicted without its cells.

    Parameters
    ----------
    kind
        What the prediction rests on; see :func:`condition_kind`.
    condition, context
        Number of the condition and of its context.
    observed
        Mean expression of its cells (G,).
    noise
        Sampling variance of ``observed`` (G,).
    predicted
        Predicted mean expression (G,).
    sd
        Standard deviation that the prior states for it (G,).
    """

    kind: str
    condition: int
    context: int
    observed: NDArray[np.float64]
    noise: NDArray[np.float64]
    predicted: NDArray[np.float64]
    sd: NDArray[np.float64]


def cross_validate(
    cells: CellData, *, features: NDArray[np.floating] | None, n_folds: int, rng: np.random.Generator
) -> Iterator[HeldOutPrediction]:
    """Predict training conditions from fits that left them out, in all ways in which one can be new.

    Left out are, each in ``n_folds`` parts, as far as the conditions allow: all conditions of some combinations, all
    conditions with some components, all with some components at some of their doses, all with some components in some
    contexts; and some cells of every condition.

    Parameters
    ----------
    cells
        Training cells, controls of every context among them.
    features
        Features of the components (P, F).
    n_folds
        Number of parts.
    rng
        Source of randomness.

    Yields
    ------
    Every prediction; conditions of fewer than 5 held-out cells are left out of the fit but not judged.
    """
    screen = _Screen.read(cells)
    for units in _designs(screen.perturbed, screen.contexts):
        names = sorted(set().union(*units))
        folds = dict(zip(names, rng.permutation(len(names)) % n_folds, strict=True))
        for fold in range(min(n_folds, len(names))):
            left_out = [i for i, own in enumerate(units) if any(folds[name] == fold for name in own)]
            if 0 < len(left_out) < len(screen.perturbed):
                yield from _predict(cells, {i: screen.perturbed[i].rows for i in left_out}, screen, features)

    parts = [np.array_split(rng.permutation(group.rows), n_folds) for group in screen.perturbed]
    for fold in range(n_folds):
        yield from _predict(cells, {i: np.sort(rows[fold]) for i, rows in enumerate(parts)}, screen, features)


@dataclass(frozen=True, eq=False)
class _Screen:
    """The perturbed conditions, the number of every context, and the scatter of the cells of every condition (g, G)."""

    perturbed: list[Group]
    contexts: dict[tuple[int, ...], int]
    scatter: NDArray[np.float64]

    @classmethod
    def read(cls, cells: CellData) -> Self:
        groups = cells.groups()
        perturbed = [group for group in groups if group.perturbation.any()]
        controls = [tuple(group.covariates.tolist()) for group in groups if not group.perturbation.any()]
        _, totals, squares = group_sums(cells.x, perturbed)
        n_cells = np.array([len(group.rows) for group in perturbed]).reshape(-1, 1)
        scatter = np.maximum(squares - totals**2 / n_cells, 0)
        return cls(perturbed, {codes: i for i, codes in enumerate(controls)}, scatter)


def _designs(groups: list[Group], contexts: dict[tuple[int, ...], int]) -> Iterator[list[set[tuple[int, ...]]]]:
    """For every group the names of what is left out together, one list per way of leaving out."""
    components = [tuple(np.flatnonzero(group.perturbation).tolist()) for group in groups]
    places = [contexts[tuple(group.covariates.tolist())] for group in groups]
    yield [{own} if len(own) > 1 else set() for own in components]
    yield [{(j,) for j in own} for own in components]
    doses = {j: sorted({float(group.perturbation[j]) for group in groups} - {0.0}) for own in components for j in own}
    yield [
        {(j, doses[j].index(float(group.perturbation[j]))) for j in own if len(doses[j]) > 1}
        for own, group in zip(components, groups, strict=True)
    ]
    where: dict[int, set[int]] = {}
    for own, place in zip(components, places, strict=True):
        for j in own:
            where.setdefault(j, set()).add(place)
    yield [{(j, place) for j in own if len(where[j]) > 1} for own, place in zip(components, places, strict=True)]


def _predict(
    cells: CellData, left_out: dict[int, NDArray[np.intp]], screen: _Screen, features: NDArray[np.floating] | None
) -> Iterator[HeldOutPrediction]:
    """Fit without some rows of some conditions and predict these conditions."""
    keep = np.ones(len(cells), dtype=bool)
    for rows in left_out.values():
        keep[rows] = False
    prior = AdditiveHurdlePrior.fit(cells.subset(keep), features=features)
    judged = {i: rows for i, rows in left_out.items() if len(rows) >= MIN_CELLS}
    _, totals, _ = group_sums(cells.x, list(judged.values()))
    for (i, rows), total in zip(judged.items(), totals, strict=True):
        group = screen.perturbed[i]
        context = prior.context(group.covariates)
        law = prior.law(group.perturbation, context)
        predicted, sd = mean_expression(prior, group.perturbation, context)
        # Of all cells of the condition: in few cells a low mean goes with a low variance and would seem certain.
        expected = law.expressed * (law.variance + law.mean.astype(np.float64) ** 2) - predicted**2
        variance = (screen.scatter[i] + _PSEUDO_CELLS * expected) / (len(group.rows) - 1 + _PSEUDO_CELLS)
        yield HeldOutPrediction(
            kind=condition_kind(prior, group.perturbation, context),
            condition=i,
            context=screen.contexts[tuple(group.covariates.tolist())],
            observed=total / len(rows),
            noise=variance / len(rows),
            predicted=predicted,
            sd=sd,
        )
