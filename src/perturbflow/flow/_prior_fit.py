"""Estimating the additive hurdle prior from sums over training cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from perturbflow.flow._additive_fit import fit_additive
from perturbflow.flow._arrays import pack, pack_variances, unpack, unpack_variances
from perturbflow.flow._carry import WAYS_OF_ANGLES, Carry, as_array, choose_ways, compared_groups
from perturbflow.flow._context_covariance import in_factors
from perturbflow.flow._dose_levels import DoseLevels
from perturbflow.flow._effect_split import Asked
from perturbflow.flow._group_sums import GroupSums
from perturbflow.flow._hurdle_distribution import angle, evidence_variance, share_at
from perturbflow.flow._measurements import Measurements
from perturbflow.flow._shrinkage import context_covariances

Changes: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]

_CONTEXT_PSEUDO_CELLS = 2.0  # of the controls of all contexts, added to each context's controls
_PSEUDO_EXPRESSING_CELLS = 4.0  # of all cells, added where the mean of the expressed values is estimated
_VALUES_AT_ONCE = 4_000_000
_STRATA = (0.05, 0.3)  # of the share of cells that express a gene
_ANGLE_SCALES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
_MEAN_SCALES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


def fit_hurdle(
    sums: GroupSums,
    features: NDArray[np.floating] | None = None,
    *,
    groups: NDArray[np.intp] | None = None,
    asked: Asked | None = None,
) -> dict[str, NDArray]:
    """Arrays of an :class:`AdditiveHurdlePrior`, by the name of its fields; see its method ``fit``.

    ``groups``, ascending, are those to fit to, of sums in the order of :meth:`GroupSums.ordered`; ``asked`` is what is
    asked for of all groups. Raises ValueError if a context has no control cells, or features do not fit the components.
    """
    n_components = sums.doses.shape[1]
    features = _checked_features(features, n_components)
    if groups is None:
        sums = sums.ordered()
        groups = np.arange(len(sums))
    controls, perturbed = groups[sums.is_control[groups]], groups[~sums.is_control[groups]]
    if asked is not None:
        asked = replace(asked, groups=asked.groups[perturbed])
    contexts, which = _contexts(sums.covariates[controls], sums.covariates[perturbed])
    # Contexts without perturbed cells are only placed among the others, as new ones are.
    measured_contexts = np.unique(which) if len(which) else np.arange(len(contexts))
    pool = _pool(sums, np.concatenate([controls[measured_contexts], perturbed]))
    control_n, control_k = sums.n_cells[controls].astype(np.float64), sums.n_expressing[controls].astype(np.float64)
    control_total = sums.total[controls]
    base = np.array(
        [shrink_base(*parts, pool) for parts in zip(control_n, control_k, control_total, strict=True)]
    ).reshape(-1, 2, sums.n_genes)
    profile = control_total / control_n[:, None]
    distances = squared_distances(profile, profile)
    among = distances[np.ix_(measured_contexts, measured_contexts)]
    unit = float(np.median(among[among > 0])) if (among > 0).any() else 1.0

    doses = sums.doses[perturbed]
    levels = DoseLevels.of(doses)
    design = levels.design(doses)
    covariances = [in_factors(each) for each in context_covariances(among / unit)]
    # Derivatives of the mean expression, squared: by the angle of the share, and by the mean of the expressed values.
    sensitivities = np.stack([pool.mean**2 * pool.expressed * (1 - pool.expressed), pool.expressed**2])
    strata = _strata(sums, controls, perturbed, which)
    parts: dict[str, NDArray] = {}
    halves = (_ANGLE_SCALES, _MEAN_SCALES)

    def half_of(half: int, rows: NDArray[np.intp]) -> Measurements:
        change = (_changes_of_angles, _changes_of_means)[half]
        changes = change(sums, perturbed[rows], which[rows], base, control_n, pool)
        return Measurements(design[rows], levels.components, which[rows], *changes, strata, halves[half])

    of_means = Carry(distances / unit, base[:, 1], measured_contexts, covariances, sensitivities[1])
    of_angles = replace(of_means, bases=base[:, 0], weights=sensitivities[0], candidates=WAYS_OF_ANGLES)
    carries = (of_angles, of_means)
    compared = compared_groups(design, which)
    errors = [carry.errors(half_of(half, compared)) for half, carry in enumerate(carries)]
    ways = choose_ways(carries, (errors[0], errors[1]))
    for half, carry in enumerate(carries):
        measured = half_of(half, np.arange(len(perturbed)))
        found = fit_additive(measured, carry=replace(carry, ways=ways[half]), features=features, asked=asked)
        del measured
        for name in list(found):
            array = _as_stored(name, found.pop(name))
            parts.setdefault(name, np.empty((2, *array.shape), dtype=np.float32))[half] = array
        del array
    return {
        "contexts": contexts,
        "n_controls": control_n,
        "control_expressed": (control_k / control_n[:, None]).astype(np.float32),
        "control_mean": safe_divide(control_total, control_k).astype(np.float32),
        "control_profile": profile.astype(np.float32),
        "distance_unit": np.array([unit]),
        "carry": as_array(ways),
        "pool_expressed": pool.control_expressed.astype(np.float32),
        "all_expressed": pool.expressed.astype(np.float32),
        "all_mean": pool.mean.astype(np.float32),
        "variance": pool.variance.astype(np.float32),
        "level_components": levels.components,
        "level_doses": levels.doses,
        "trained": np.bincount(doses.indices, minlength=n_components) > 0,
        "group_starts": doses.indptr.astype(np.int64),
        "group_components": doses.indices.astype(np.int64),
        "group_amounts": doses.data.astype(np.float32),
        "group_contexts": which,
        "group_cells": sums.n_cells[perturbed].astype(np.float64),
        "features": features.astype(np.float32),
        **parts,
    }


def _as_stored(name: str, array: NDArray[np.floating]) -> NDArray[np.floating]:
    """An array of a fit, to what a store holds of it."""
    if name in ("effects", "interactions"):
        return unpack(*pack(array.astype(np.float32, copy=False)))
    if name == "effect_variances":
        return unpack_variances(pack_variances(array.astype(np.float32, copy=False)))
    return array


def _contexts(controls: NDArray[np.int64], perturbed: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Codes of the covariates of every context (C, K), and the context of every perturbed group (g,)."""
    number = {tuple(each): i for i, each in enumerate(controls.tolist())}
    which = []
    for each in perturbed.tolist():
        if tuple(each) not in number:
            msg = (
                f"Expected control cells in every context, found none with covariate codes "
                f"{each}. Add controls for this context, or leave its cells out of training."
            )
            raise ValueError(msg)
        which.append(number[tuple(each)])
    return controls, np.array(which, dtype=np.int64)


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


def _strata(
    sums: GroupSums, controls: NDArray[np.intp], perturbed: NDArray[np.intp], which: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Stratum of every gene by the largest share of cells that expresses it in a context, perturbed or not (G,)."""
    largest = np.zeros(sums.n_genes)
    for context, control in enumerate(controls):
        own = perturbed[which == context]
        if len(own):
            cells = sums.n_expressing[own].sum(axis=0, dtype=np.float64) / sums.n_cells[own].sum()
            largest = np.maximum(largest, cells)
            largest = np.maximum(largest, sums.n_expressing[control] / sums.n_cells[control])
    return np.digitize(largest, _STRATA)


@dataclass(frozen=True)
class Pool:
    """Statistics that all contexts share: frequency among controls and all cells, mean and variance of expressed values (G,)."""

    control_expressed: NDArray[np.floating]
    expressed: NDArray[np.floating]
    mean: NDArray[np.floating]
    variance: NDArray[np.floating]


def _pool(sums: GroupSums, groups: NDArray[np.intp]) -> Pool:
    """Return what some groups show."""
    n = sums.n_cells[groups].sum(dtype=np.float64)
    k, s, q, between, degrees = np.zeros((5, sums.n_genes))
    for block in row_blocks(len(groups), sums.n_genes):
        rows = groups[block]
        own_k, own_s = sums.n_expressing[rows], sums.total[rows]
        k += own_k.sum(axis=0, dtype=np.float64)
        s += own_s.sum(axis=0)
        q += sums.squares[rows].sum(axis=0)
        # Within groups: what differs between conditions is not what cells of a condition vary by.
        between += (own_s**2 / np.maximum(own_k, 1)).sum(axis=0)
        degrees += ((own_k - 1) * (own_k > 0)).sum(axis=0)
    expressed = (k + 0.5) / (n + 1)
    grand_mean = s.sum() / max(k.sum(), 1)
    mean = (s + 2 * grand_mean) / (k + 2)
    variance = np.maximum(safe_divide(q - between, degrees), 0)
    typical = float(np.median(variance[degrees > 5])) if (degrees > 5).any() else 0.1
    variance = np.maximum((variance * degrees + 5 * typical) / (degrees + 5), 1e-4)
    controls = groups[sums.is_control[groups]]
    n_expressing = sums.n_expressing[controls].sum(axis=0, dtype=np.float64)
    control_expressed = (n_expressing + expressed) / (sums.n_cells[controls].sum() + 1)
    return Pool(control_expressed, expressed, mean, variance)


def shrink_base(
    n: float, n_expressing: NDArray[np.float64], total: NDArray[np.float64], pool: Pool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shrunken angle of the share of expressing cells and mean of their values, of one context's controls."""
    expressed = (n_expressing + _CONTEXT_PSEUDO_CELLS * pool.control_expressed) / (n + _CONTEXT_PSEUDO_CELLS)
    mean = (total + _PSEUDO_EXPRESSING_CELLS * pool.mean) / (n_expressing + _PSEUDO_EXPRESSING_CELLS)
    return angle(expressed), mean


def _changes_of_angles(
    sums: GroupSums,
    groups: NDArray[np.intp],
    which: NDArray[np.int64],
    base: NDArray[np.float64],
    n_controls: NDArray[np.float64],
    pool: Pool,
) -> Changes:
    """Changes of angles in perturbed groups and their sampling variances (g, G), and their bounds (C, G)."""
    effects, variances = np.empty((2, len(groups), sums.n_genes), dtype=np.float32)
    angles = base[:, 0]
    shares = share_at(angles)
    for rows in row_blocks(len(groups), sums.n_genes):
        n, own = sums.n_cells[groups[rows], None].astype(np.float64), which[rows]
        after = sums.n_expressing[groups[rows]] / n
        effects[rows] = angle(after) - angles[own]
        known = n_controls[own, None] + _CONTEXT_PSEUDO_CELLS
        variances[rows] = evidence_variance(shares[own], known, after, n)
    return effects, variances, -angles, np.pi - angles


def _changes_of_means(
    sums: GroupSums,
    groups: NDArray[np.intp],
    which: NDArray[np.int64],
    base: NDArray[np.float64],
    n_controls: NDArray[np.float64],
    pool: Pool,
) -> Changes:
    """The same of the means of the expressed values."""
    effects, variances = np.empty((2, len(groups), sums.n_genes), dtype=np.float32)
    for rows in row_blocks(len(groups), sums.n_genes):
        k = sums.n_expressing[groups[rows]].astype(np.float64)
        effects[rows] = np.where(k > 0, safe_divide(sums.total[groups[rows]], k) - base[which[rows], 1], 0.0)
        variances[rows] = pool.variance / np.maximum(k, 0.1)
    return effects, variances, -base[:, 1], np.full_like(base[:, 1], np.inf)


def row_blocks(n_rows: int, n_genes: int) -> Iterator[slice]:
    """Rows in blocks of which temporary arrays over genes are small."""
    at_once = max(1, _VALUES_AT_ONCE // max(n_genes, 1))
    for first in range(0, n_rows, at_once):
        yield slice(first, min(first + at_once, n_rows))


def squared_distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distance of every row of x to every row of y."""
    found = np.empty((len(x), len(y)))
    for i, row in enumerate(x):
        found[i] = np.square(row - y).sum(axis=-1)
    return found


def safe_divide(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(np.shape(a), np.shape(b))), where=b > 0)
