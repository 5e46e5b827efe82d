"""Estimating the additive hurdle prior from training cells."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from perturbflow.flow._additive_fit import AdditiveFit, Measurements, fit_additive
from perturbflow.flow._angle import angle, evidence_variance, share_at
from perturbflow.flow._dose_levels import DoseLevels
from perturbflow.flow._shrinkage import context_covariances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.flow._data import CellData, Expression, Group

_CONTEXT_PSEUDO_CELLS = 2.0  # of the controls of all contexts, added to each context's controls
_PSEUDO_EXPRESSING_CELLS = 4.0  # of all cells, added where the mean of the expressed values is estimated
_ANGLE_SCALES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
_MEAN_SCALES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


def fit_hurdle(cells: CellData, features: NDArray[np.floating] | None = None) -> dict[str, NDArray]:
    """Arrays of an :class:`AdditiveHurdlePrior`, by the name of its fields; see its method ``fit``.

    Raises
    ------
    ValueError
        If a context has no control cells, or features do not fit the components.
    """
    n_components = cells.perturbations.shape[1]
    features = _checked_features(features, n_components)
    groups = cells.groups()
    controls = [group for group in groups if not group.perturbation.any()]
    perturbed = [group for group in groups if group.perturbation.any()]
    context_of = {tuple(group.covariates.tolist()): i for i, group in enumerate(controls)}
    for group in perturbed:
        if tuple(group.covariates.tolist()) not in context_of:
            msg = (
                f"Expected control cells in every context, found none with covariate codes "
                f"{group.covariates.tolist()}. Add controls of that context or leave its cells out of training."
            )
            raise ValueError(msg)
    n_expressing, total, squares = group_sums(cells.x, groups)
    n_cells = np.array([len(group.rows) for group in groups], dtype=np.float64)
    is_control = np.array([not group.perturbation.any() for group in groups])

    pool = _pool(n_cells, n_expressing, total, squares, is_control)
    base = [shrink_base(n_cells[i], n_expressing[i], total[i], pool) for i in np.flatnonzero(is_control)]
    control_n, control_k = n_cells[is_control], n_expressing[is_control]
    profile = total[is_control] / control_n[:, None]
    distances = squared_distances(profile, profile)
    unit = float(np.median(distances[distances > 0])) if (distances > 0).any() else 1.0

    doses = np.array([group.perturbation for group in perturbed], dtype=np.float64).reshape(-1, n_components)
    levels = DoseLevels.of(doses)
    which = np.array([context_of[tuple(group.covariates.tolist())] for group in perturbed], dtype=np.int64)
    changes = _measured_changes(
        n_cells[~is_control], n_expressing[~is_control], total[~is_control], control_n, base, which, pool
    )
    covariances = context_covariances(distances / unit)
    fits = [
        fit_additive(
            Measurements(levels.weights(doses), levels.components, which, *change),
            covariances=covariances,
            features=features,
            scales=scales,
        )
        for change, scales in zip(changes, (_ANGLE_SCALES, _MEAN_SCALES), strict=True)
    ]
    parts = {
        field.name: np.stack([getattr(fit, field.name) for fit in fits]).astype(np.float32)
        for field in fields(AdditiveFit)
    }
    return {
        "contexts": np.array([group.covariates for group in controls], dtype=np.int64).reshape(len(controls), -1),
        "n_controls": control_n,
        "control_expressed": (control_k / control_n[:, None]).astype(np.float32),
        "control_mean": safe_divide(total[is_control], control_k).astype(np.float32),
        "control_profile": profile.astype(np.float32),
        "distance_unit": np.array([unit]),
        "pool_expressed": pool.control_expressed.astype(np.float32),
        "all_expressed": pool.expressed.astype(np.float32),
        "all_mean": pool.mean.astype(np.float32),
        "variance": pool.variance.astype(np.float32),
        "level_components": levels.components,
        "level_doses": levels.doses,
        "trained": doses.any(axis=0),
        "group_doses": doses.astype(np.float32),
        "group_contexts": which,
        "group_cells": n_cells[~is_control],
        "features": features.astype(np.float32),
        **parts,
    }


def _checked_features(features: NDArray[np.floating] | None, n_components: int) -> NDArray[np.floating]:
    """Features (P, F); F is 0 where there are none."""
    if features is None:
        return np.zeros((n_components, 0))
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) != n_components:
        msg = (
            f"Expected `features` with one row for each of {n_components} perturbation components, "
            f"found shape {features.shape}."
        )
        raise ValueError(msg)
    if not np.isfinite(features).all():
        msg = "Expected `features` to be finite, found NaN or infinite values. Fill them in or leave their columns out."
        raise ValueError(msg)
    return features


@dataclass(frozen=True)
class Pool:
    """What all contexts share: frequency among controls and all cells, mean and variance of expressed values (G,)."""

    control_expressed: NDArray[np.floating]
    expressed: NDArray[np.floating]
    mean: NDArray[np.floating]
    variance: NDArray[np.floating]


def _pool(
    n_cells: NDArray[np.float64],
    n_expressing: NDArray[np.float64],
    total: NDArray[np.float64],
    squares: NDArray[np.float64],
    is_control: NDArray[np.bool_],
) -> Pool:
    n, k, s, q = n_cells.sum(), n_expressing.sum(0), total.sum(0), squares.sum(0)
    expressed = (k + 0.5) / (n + 1)
    grand_mean = s.sum() / max(k.sum(), 1)
    mean = (s + 2 * grand_mean) / (k + 2)
    variance = np.maximum(safe_divide(q, k) - safe_divide(s, k) ** 2, 0)
    typical = float(np.median(variance[k > 5])) if (k > 5).any() else 0.1
    variance = np.maximum((variance * k + 5 * typical) / (k + 5), 1e-4)
    control_expressed = (n_expressing[is_control].sum(0) + expressed) / (n_cells[is_control].sum() + 1)
    return Pool(control_expressed, expressed, mean, variance)


def shrink_base(
    n: float, n_expressing: NDArray[np.float64], total: NDArray[np.float64], pool: Pool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shrunken angle of the share of expressing cells and mean of their values, of one context's controls."""
    expressed = (n_expressing + _CONTEXT_PSEUDO_CELLS * pool.control_expressed) / (n + _CONTEXT_PSEUDO_CELLS)
    mean = (total + _PSEUDO_EXPRESSING_CELLS * pool.mean) / (n_expressing + _PSEUDO_EXPRESSING_CELLS)
    return angle(expressed), mean


def _measured_changes(
    n_cells: NDArray[np.float64],
    n_expressing: NDArray[np.float64],
    total: NDArray[np.float64],
    n_controls: NDArray[np.float64],
    base: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
    which: NDArray[np.int64],
    pool: Pool,
) -> list[tuple[NDArray[np.float64], ...]]:
    """Changes of angles and of means in every perturbed group, their sampling variances and their bounds (g, G)."""
    base_angle, base_mean = (np.array(part).reshape(len(base), -1)[which] for part in zip(*base, strict=True))
    n = n_cells[:, None]
    before, after = share_at(base_angle), n_expressing / n
    variance = evidence_variance(before, n_controls[which, None] + _CONTEXT_PSEUDO_CELLS, after, n)
    mean = np.where(n_expressing > 0, safe_divide(total, n_expressing) - base_mean, 0.0)
    return [
        (angle(after) - base_angle, variance, -base_angle, np.pi - base_angle),
        (mean, pool.variance / np.maximum(n_expressing, 0.1), -base_mean, np.full_like(mean, np.inf)),
    ]


def group_sums(
    x: Expression, groups: list[Group] | list[NDArray[np.intp]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Number of expressing cells, sum and sum of squares of every gene in every group (g, G)."""
    rows = [group if isinstance(group, np.ndarray) else group.rows for group in groups]
    lengths = [len(r) for r in rows]
    columns = np.concatenate(rows) if rows else np.zeros(0, dtype=np.intp)
    indicator = sparse.csr_matrix(
        (np.ones(len(columns)), (np.repeat(np.arange(len(rows)), lengths), columns)), shape=(len(rows), x.shape[0])
    )
    squared = np.square(x, dtype=np.float64) if isinstance(x, np.ndarray) else x.multiply(x)
    parts = (x > 0, x, squared)
    sums = [indicator @ part.astype(np.float64) for part in parts]
    count, total, squares = (s.toarray() if sparse.issparse(s) else np.asarray(s) for s in sums)
    return count, total, squares


def squared_distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.square(x[:, None] - y[None]).sum(axis=-1)


def safe_divide(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(np.shape(a), np.shape(b))), where=b > 0)
