"""Ridge regression with a penalty chosen on blocks of rows, and the baseline that predicts effects from features by it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from perturbflow.baselines._control_shift import ControlShift, GroupEffects
from perturbflow.screen._named_arrays import check_unnamed

FloatArray = NDArray[np.float64]

PENALTIES = np.geomspace(1e-5, 10.0, 13)


def ridge_coefficients(x: FloatArray, y: FloatArray, block: NDArray[np.intp], penalty: float | None) -> FloatArray:
    """Coefficients (p, q) of ``min_b mean ||y - a - x b||^2 + penalty ||b||^2`` with a free intercept a.

    The penalty is by default the one of :data:`PENALTIES` with the smallest error on the blocks of rows held out together,
    summed over responses. It is the largest if all rows are of one block.
    """
    if penalty is None:
        errors = np.zeros(len(PENALTIES))
        for held_out in np.unique(block):
            seen = block != held_out
            if not seen.any():
                return _coefficients(x, y, PENALTIES[-1:])[0]
            offset_x, offset_y = x[seen].mean(axis=0), y[seen].mean(axis=0)
            for k, b in enumerate(_coefficients(x[seen], y[seen], PENALTIES)):
                errors[k] += ((y[~seen] - offset_y - (x[~seen] - offset_x) @ b) ** 2).sum()
        penalty = float(PENALTIES[np.argmin(errors)])
    return _coefficients(x, y, np.array([penalty]))[0]


def _coefficients(x: FloatArray, y: FloatArray, penalties: FloatArray) -> list[FloatArray]:
    """Coefficients at every penalty, from one singular value decomposition."""
    left, singular, right = linalg.svd(x - x.mean(axis=0), full_matrices=False)
    projected = left.T @ (y - y.mean(axis=0))
    return [right.T @ ((singular / (singular**2 + len(x) * h))[:, None] * projected) for h in penalties]


RELATIVE_PENALTIES = np.append(np.geomspace(1e-4, 100.0, 19), np.inf)  # to the largest variance; the last is the mean
_AS_GOOD = 1e-6  # relative difference of errors below which the larger penalty is taken


class FeatureRidge(ControlShift):
    """Control cells plus an effect that is linear in features of the perturbation, a ridge regression.

    ::

        z     = sum over components p of dose_p / unit_p * features_p
        shift = a + z W,    (a, W) = argmin mean over groups of ||effect - a - z W||^2 + penalty ||W||^2

    The effects are those of the training groups (mean of the group minus mean of the controls of its context), every
    group counted once and contexts not told apart. A unit is the largest dose of the component in training; that of
    a component without cells is the median of the others.

    The penalty is the one of 20 that best predicts the groups of a set of components, at all doses and in all contexts,
    from those of all other sets; the sum of squares over genes and groups counts. It is found without fitting again:
    the errors of a set b are ``(I - H_bb)^-1 r_b``, with the residuals r and the hat matrix H of the fit to all groups.
    Of equally good penalties the largest is taken. The largest of all is infinite, with which the shift is that of
    :class:`MeanEffect`; it is also the shift where features do not vary.

    Without features every component is one of its own (one-hot): an additive model that is shrunk to the mean effect
    as far as combinations ask for it. Where no component is in two sets, nothing can be learned about one from the
    others, and the shift is that of :class:`MeanEffect`, as it is for a perturbation of which no component was seen.

    *Weakness*: as good as the features; no interactions, dose response a straight line, no context; all genes share
    one penalty, which those of large effects choose.

    Parameters
    ----------
    features
        Features of every perturbation component (P, F), of comparable scale, such as the table of
        :func:`perturbflow.pp.perturbation_features`; None for one-hot.

    Raises
    ------
    ValueError
        If features are no finite matrix.

    References
    ----------
    Ahlmann-Eltze, Huber and Anders (2025), Deep-learning-based gene perturbation effect prediction does not yet
    outperform simple linear baselines. *Nat. Methods* 22, 1657-1661, the linear model with given perturbation
    embeddings. Hastie, Tibshirani and Friedman (2009), *The Elements of Statistical Learning*, equation 7.64, of
    which the formula above is the one for sets of rows.

    Examples
    --------
    >>> from perturbflow.flow import CellData
    >>> cells = CellData(np.array([[1.0], [2.0], [3.0], [4.0]]), np.eye(4, 5, -1), np.zeros((4, 0), dtype=int))
    >>> baseline = FeatureRidge(np.array([[1.0], [2.0], [3.0], [4.0], [5.0]])).fit(cells)
    >>> controls, unseen = np.ones((1, 1), dtype=np.float32), np.array([0.0, 0.0, 0.0, 1.0, 0.0])
    >>> baseline.sample(controls, unseen, np.zeros(0, dtype=int), rng=np.random.default_rng(0)).round(2)
    array([[5.]], dtype=float32)
    """

    def __init__(self, features: NDArray[np.floating] | None = None) -> None:
        if features is not None:
            check_unnamed(features, name="features", order="the columns of `perturbations`")
            features = np.asarray(features, dtype=np.float64)
            if features.ndim != 2 or not np.isfinite(features).all():
                msg = (
                    "Expected `features` to be a matrix of finite numbers, one row per perturbation component, found "
                    f"shape {features.shape} and {(~np.isfinite(features)).sum()} values that are not finite. "
                    "Fill them in, or pass None."
                )
                raise ValueError(msg)
        self._features = features

    def _fit(self, groups: GroupEffects) -> None:
        n_components = groups.doses.shape[1]
        if self._features is not None and len(self._features) != n_components:
            msg = (
                f"Expected `features` of all {n_components} perturbation components, found {len(self._features)} rows. "
                "Pass one row per component, in the order of the columns of `perturbations`."
            )
            raise ValueError(msg)
        largest = groups.doses.max(axis=0)
        self._seen = largest > 0
        self._unit = np.where(self._seen, largest, np.median(largest[self._seen]))
        self._mean = groups.effects.mean(axis=0)
        design = self._encode(groups.doses)
        self._centre = design.mean(axis=0)
        self._coefficients = self._regress(design, groups)

    def _regress(self, design: NDArray[np.float64], groups: GroupEffects) -> NDArray[np.float64] | None:
        """Coefficients (F, G); None where they are 0."""
        sets, block = np.unique(groups.doses > 0, axis=0, return_inverse=True)
        block = block.reshape(-1)
        shares_nothing = self._features is None and sets.sum(axis=0).max() < 2
        if len(sets) < 2 or shares_nothing:
            return None
        largest_variance = _largest_variance(design)
        if largest_variance == 0:
            return None
        penalties = RELATIVE_PENALTIES * largest_variance
        errors = left_out_errors(design, groups.effects, block, penalties)
        penalty = penalties[errors <= errors.min() * (1 + _AS_GOOD)].max()
        return None if np.isinf(penalty) else ridge_coefficients(design, groups.effects, block, float(penalty))

    def _encode(self, doses: NDArray[np.float64]) -> NDArray[np.float64]:
        relative = doses / self._unit
        return relative if self._features is None else relative @ self._features

    def _shift(self, perturbation: NDArray[np.float64], context: tuple[int, ...]) -> NDArray[np.float64]:
        unknown = self._features is None and not self._seen[perturbation != 0].any()
        if self._coefficients is None or unknown:
            return self._mean
        return self._mean + (self._encode(perturbation) - self._centre) @ self._coefficients


def left_out_errors(
    x: NDArray[np.float64], y: NDArray[np.float64], block: NDArray[np.intp], penalties: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Squared errors (k,) of predicting every block of rows by ridge regression on the other rows, at every penalty h.

    The rows that are left have ``sum ||y - a - x b||^2 + n h ||b||^2`` at its minimum; errors are summed over rows and responses.
    """
    n = len(x)
    left, singular, _ = linalg.svd(x - x.mean(axis=0), full_matrices=False)
    y = y - y.mean(axis=0)
    order = np.argsort(block, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(block[order])) + 1)
    # The errors need inner products over responses only, and a block has far fewer rows than there are genes.
    projected = left.T @ y
    with_projected, of_projected = y @ projected.T, projected @ projected.T
    within = [y[rows] @ y[rows].T for rows in members]
    errors = np.zeros(len(penalties))
    for k, penalty in enumerate(penalties):
        weighted = left * (singular**2 / (singular**2 + n * penalty))
        spread = weighted @ of_projected
        for rows, own in zip(members, within, strict=True):
            fitted = weighted[rows] @ with_projected[rows].T
            residual = own - fitted - fitted.T + spread[rows] @ weighted[rows].T
            rest = np.eye(len(rows)) - 1 / n - weighted[rows] @ left[rows].T
            errors[k] += max(np.trace(np.linalg.solve(rest, np.linalg.solve(rest, residual).T)), 0.0)
    return errors


def _largest_variance(x: NDArray[np.float64]) -> float:
    """Largest variance of any direction of the rows, 0 where it is only rounding."""
    if not x.size:
        return 0.0
    largest = linalg.svdvals(x - x.mean(axis=0))[0] ** 2 / len(x)
    return float(largest) if largest > 1e-12 * np.square(x).max() else 0.0
