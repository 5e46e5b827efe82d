"""Mean effect of every group of perturbed training cells."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

    from perturbflow.flow import CellData


@dataclass(frozen=True)
class GroupEffects:
    """Effects of the g perturbed groups: the group's mean minus the mean of the controls of its context.

    Parameters
    ----------
    doses
        Dose of every component in every group (g, P).
    contexts
        Covariate codes of every group.
    effects
        Effect of every group on every gene (g, G).
    """

    doses: NDArray[np.float64]
    contexts: list[tuple[int, ...]]
    effects: NDArray[np.float64]


def group_effects(cells: CellData) -> GroupEffects:
    """Compute the effects of all perturbed groups; time is linear in the stored values, one group is in memory at once.

    Groups of contexts without control cells have no effect to measure: they are left out, with a warning.
    """
    groups = cells.groups()
    controls = {
        tuple(group.covariates.tolist()): _mean(cells.x, group.rows) for group in groups if not group.perturbation.any()
    }
    perturbed = [group for group in groups if group.perturbation.any()]
    usable = [group for group in perturbed if tuple(group.covariates.tolist()) in controls]
    if not usable:
        msg = (
            "Expected perturbed cells and control cells of the same context, "
            f"found {len(perturbed)} perturbed groups and controls in {len(controls)} contexts, none in common. "
            "Add training cells or leave out covariates."
        )
        raise ValueError(msg)
    if len(usable) < len(perturbed):
        msg = (
            f"Left out {len(perturbed) - len(usable)} of {len(perturbed)} perturbed groups, "
            "whose contexts (combinations of covariates) have no control cells."
        )
        warnings.warn(msg, UserWarning, stacklevel=4)

    contexts = [tuple(group.covariates.tolist()) for group in usable]
    return GroupEffects(
        doses=np.stack([group.perturbation for group in usable]).astype(np.float64),
        contexts=contexts,
        effects=np.stack(
            [_mean(cells.x, group.rows) - controls[context] for group, context in zip(usable, contexts, strict=True)]
        ),
    )


def _mean(x: NDArray[np.floating] | sparse.csr_matrix, rows: NDArray[np.integer]) -> NDArray[np.float64]:
    members = x[rows]
    # SciPy sums float32 matrices in float32; the product with a float64 vector does not.
    total = members.sum(axis=0, dtype=np.float64) if isinstance(members, np.ndarray) else np.ones(len(rows)) @ members
    return total / len(rows)
