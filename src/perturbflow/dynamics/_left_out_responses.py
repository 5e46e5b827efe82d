"""Responses to perturbations that dynamics at rest were not fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perturbflow.dynamics._snapshot import Snapshot
from perturbflow.dynamics._standing_fit import fit_standing

Array = NDArray[np.float64]

MAX_FOLDS = 10


def left_out_responses(cells: Snapshot, levels: Sequence[Mapping[int, float]], *, seed: int = 0) -> Array:
    """Simulate interventions by dynamics of which no condition held any of their genes.

    Only left-out responses can be compared between measured perturbations and those that were never made. Genes are
    left out in up to ten groups, and what all perturbations have in common is left out, too.

    Parameters
    ----------
    cells
        Cells at rest.
    levels
        Level of every held gene, by its position, of each intervention.
    seed
        Seed of the fits.

    Returns
    -------
    Changes of means in standard deviations of unperturbed cells (interventions, d); 0 of the held genes.

    Examples
    --------
    Gene 0 drives gene 1, and nobody held it:

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> first = rng.normal(size=400)
    >>> levels = np.column_stack([first, 0.8 * first + 0.6 * rng.normal(size=400)])
    >>> none = np.zeros(400, dtype=int)
    >>> cells = Snapshot(levels, none, ("control",), np.zeros((1, 2), dtype=bool), (0,), none)
    >>> left_out_responses(cells, [{0: -2.0}]).round(1).tolist()
    [[0.0, -1.9]]
    """
    measured = np.flatnonzero(cells.held.any(axis=0))
    fold_of = np.full(cells.n_genes, -1)
    fold_of[measured] = np.arange(len(measured)) % MAX_FOLDS
    folds = [tuple(sorted({int(fold_of[gene]) for gene in each} - {-1})) for each in levels]
    responses = np.zeros((len(levels), cells.n_genes))
    for chosen in sorted(set(folds)):
        model = fit_standing(_without(cells, np.isin(fold_of, chosen)), seed=seed)
        # What all perturbations have in common tells none from another, and is not the same in every group.
        model = replace(model, shared=np.zeros(cells.n_genes))
        for row in (k for k, fold in enumerate(folds) if fold == chosen):
            mean, _ = model.hold(levels[row])
            responses[row] = (mean - model.centre) / model.scale
            responses[row, list(levels[row])] = 0.0
    return responses


def _without(cells: Snapshot, genes: NDArray[np.bool_]) -> Snapshot:
    """The cells of all conditions that hold none of these genes."""
    kept = np.flatnonzero(~(cells.held & genes).any(axis=1))
    number = np.full(len(cells.names), -1)
    number[kept] = np.arange(len(kept))
    some = cells.taken(np.flatnonzero(number[cells.condition] >= 0))
    return replace(
        some,
        condition=number[some.condition],
        names=tuple(cells.names[k] for k in kept),
        held=cells.held[kept],
    )
