"""The values that a flow may predict: which genes have in real cells, and which small ones are zeros."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from perturbflow.flow import GeneSupport, zero_thresholds
from perturbflow.screen._expression import dense

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perturbflow.flow import CellData, ConditionalFlow, FlowConfig
    from perturbflow.flow._data import Expression
    from perturbflow.screen._screen import Screen

_MOST_CONDITIONS = 16
_MOST_CELLS = 500
_N_PREDICTED = 100


def support_of(config: FlowConfig, chunks: Iterable[Expression], *, has_zeros: bool) -> GeneSupport:
    """Clipping of predictions before thresholds of zeros are known, from chunks of cells (n, G)."""
    support = GeneSupport.of(chunks)
    if has_zeros:
        return support
    if config.zeros == "none":  # then small values are what stands for zeros, and stay
        return replace(support, smallest=np.zeros_like(support.smallest))
    return support.rounded()


def learn_zeros(flow: ConditionalFlow, training: CellData | Screen, *, seed: int) -> None:
    """Give a trained flow the thresholds with which as many values are zero as in training cells.

    One whose parametrisation or configuration asks for no thresholds is left alone.
    """
    if flow.parametrisation.has_zeros or flow.config.zeros != "learned":
        return
    rng, groups = np.random.default_rng([seed, 2]), training.grouping()
    controls = {tuple(groups.covariates[i].tolist()): groups.rows(int(i)) for i in np.flatnonzero(groups.is_control)}
    size = min(_MOST_CONDITIONS, len(groups.n_cells))
    # With large conditions more often, as their cells are among all cells.
    drawn = rng.choice(len(groups.n_cells), size, replace=False, p=groups.n_cells / groups.n_cells.sum())
    solver: dict[str, Any] = {"method": "multistep"} if flow.config.solver_steps is None else {}
    support, predicted, expressed = flow.support, [], []
    # Values as they come.
    flow.support = GeneSupport.unknown(flow.config.n_genes)
    try:
        for group in np.sort(drawn).tolist():
            codes = groups.covariates[group]
            rows = groups.rows(group)
            start = dense(training.x[np.sort(rng.choice(controls[tuple(codes.tolist())], _N_PREDICTED))])
            real = dense(training.x[np.sort(rng.permutation(rows)[:_MOST_CELLS])])
            dose = groups.doses[[group]].toarray()[0]
            predicted.append(flow.sample(start, dose, codes, rng=rng, **solver))
            expressed.append((real > 0).mean(axis=0))
    finally:
        flow.support = support
    flow.support = replace(support, zero_below=zero_thresholds(np.vstack(predicted), np.mean(expressed, axis=0)))
