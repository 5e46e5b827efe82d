"""Perturbations to choose among, and how many cells of them a fit has seen."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from perturbflow.predict._prediction import conditions_to_predict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from perturbflow.predict._controls import ControlCells
    from perturbflow.predict._fitted_flow import FittedFlow
    from perturbflow.predict._prediction import PredictedCondition
    from perturbflow.screen._conditions import Vocabulary


def candidate_labels(
    flow: FittedFlow, candidates: Sequence[str] | None, *, combinations: bool, untrained: bool = False
) -> list[str]:
    """Labels of all candidates, by default every component with training cells or features, or all if ``untrained``.

    With ``combinations`` all pairs of single candidates are added.
    """
    vocabulary, prior = flow.vocabulary, flow.flow.prior
    if candidates is None:
        known = prior.trained | (untrained or bool(prior.features.shape[1]))
        names = [name for name, keep in zip(vocabulary.components, known, strict=True) if keep]
    else:
        names = [candidates] if isinstance(candidates, str) else list(candidates)
    if not names:
        msg = "Expected at least one perturbation in `candidates`, found none."
        raise ValueError(msg)
    if combinations:
        singles = sorted(
            {name for name in (_unambiguous(vocabulary, each) for each in names) if vocabulary.separator not in name}
        )
        names += [vocabulary.separator.join(pair) for pair in itertools.combinations(singles, 2)]
    return names


def candidate_conditions(
    flow: FittedFlow,
    controls: ControlCells,
    candidates: Sequence[str] | None,
    dose: Any,
    *,
    combinations: bool,
    untrained: bool = False,
) -> list[PredictedCondition]:
    """Candidates, see :func:`candidate_labels`, in every context and at every dose at which they were measured."""
    labels = candidate_labels(flow, candidates, combinations=combinations, untrained=untrained)
    conditions = conditions_to_predict(flow, controls, labels, dose, argument="candidates", every_dose=True)
    if not all(condition.perturbation.any() for condition in conditions):
        msg = f"Expected perturbations in `candidates`, found {flow.fields.control!r} or a dose of 0. Leave it out."
        raise ValueError(msg)
    return conditions


def _unambiguous(vocabulary: Vocabulary, name: str) -> str:
    """Return the one label that a name stands for; where its type is left to the context, the name as it is."""
    readings = vocabulary.readings(name)
    return readings[0] if len(readings) == 1 else vocabulary.written(name)


def n_training_cells(
    flow: FittedFlow, perturbation: NDArray[np.floating], covariates: NDArray[np.integer] | None = None
) -> int:
    """Number of training cells of a perturbation at these doses, in one context or, where none is given, in all."""
    prior = flow.flow.prior
    where = prior.groups.all_contexts
    if covariates is not None:
        where = np.flatnonzero((prior.contexts == covariates).all(axis=1))
    doses = np.minimum(np.asarray(perturbation, dtype=np.float32), prior.dose_unit)
    same = prior.groups.find(sparse.csr_matrix(np.repeat(doses[None], len(where), axis=0)), where)
    return int(prior.group_cells[same[same >= 0]].sum())
