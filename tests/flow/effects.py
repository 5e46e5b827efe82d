"""Effects that were measured in contexts, and tables and carries of them."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from perturbflow.flow._carry import Carry
from perturbflow.flow._interaction_factors import EffectTable, SingleEffects
from perturbflow.flow._measurements import Measurements

SCALES = (0.1, 0.2, 0.4, 0.8, 1.6)


def of_levels(levels, n_levels: int) -> sparse.csr_matrix:
    """Design of groups that have one level each, at its dose."""
    return sparse.csr_matrix((np.ones(len(levels)), (np.arange(len(levels)), levels)), shape=(len(levels), n_levels))


def measurements(effects, contexts, design, *, variance, n_contexts=None, scales=SCALES) -> Measurements:
    """Effects (n, G) of groups in contexts (n,), all as uncertain, without bounds that could be reached."""
    n_contexts = max(contexts) + 1 if n_contexts is None else n_contexts
    bounds = np.full((n_contexts, effects.shape[1]), 99.0)
    return Measurements(
        design=design,
        levels=np.arange(design.shape[1]),
        which=np.asarray(contexts),
        effects=effects.astype(np.float32),
        variances=np.full(effects.shape, variance, dtype=np.float32),
        lowest=-bounds,
        highest=bounds,
        strata=np.zeros(effects.shape[1], dtype=np.intp),
        scales=scales,
    )


def carry_between(distances, bases, *, n_perturbed=None) -> Carry:
    """The usual carry between contexts (C, C) with these bases (C, G), of which the first were perturbed."""
    n_perturbed = len(distances) if n_perturbed is None else n_perturbed
    return Carry(distances, bases, np.arange(n_perturbed), [], np.ones(bases.shape[1]))


def table_of(measured: Measurements, n_contexts: int, levels=None) -> EffectTable | None:
    """Effects of levels alone as a table, without what all have in common; None where there are too few."""
    levels = np.arange(measured.design.shape[1]) if levels is None else levels
    single = SingleEffects.of(measured, levels, n_contexts)
    return (
        None if single is None else EffectTable.of(single, measured, np.zeros((n_contexts, measured.effects.shape[1])))
    )
