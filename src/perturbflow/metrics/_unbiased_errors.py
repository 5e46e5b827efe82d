"""Errors of mean expression without the part that is sampling noise.

The mean of finitely many cells differs from the mean of their distribution. With ``c = variance / n`` the sampling variance of
a mean,

::

    E (mean(x) - mean(y))^2 = (mu_x - mu_y)^2 + c_x + c_y        for independent samples, gene by gene,

so subtracting estimates of ``c_x`` and ``c_y`` leaves an unbiased estimate of the error of the distributions. It must fall below
0 about as often as above where the distributions have one mean: a negative value says that the difference is smaller than these
cells can resolve, and clipping it at 0 would bring back a bias. Average or add values as they are.

Everything takes :class:`Moments`; those of :func:`pseudobulk_moments` give the errors of the 2026 challenge.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._families import of_panels
from perturbflow.metrics._moments import Moments, Panel


@of_panels
def unbiased_mse(panel: Panel, *, capped: bool = False) -> NDArray[np.float64]:
    """Noise-corrected mean squared error of every condition, without the genes that are perturbed themselves.

    ``( sum over G_p of (x_pg - y_pg)^2 - c(x_p) - c(y_p) ) / |G_p|``, where ``G_p`` are the genes that are not targets
    of condition p and c is the sampling variance, summed over them.

    Capped, ``c(x_p)`` becomes ``r t_p`` with ``t_p = min(c(x_p), c(y_p))``, so that a prediction does not gain by
    dispersion. Per condition it subtracts at most what the reference does. Over all conditions it subtracts at most its
    own spread across conditions, where independent noise of that variance would be seen: with ``w_p = 1 / |G_p|``,

    ::

        r = min(1, B / sum_p w_p t_p),    B = sum_g sum_{p: g in G_p} w_p (x_pg - weighted mean over p of x_pg)^2

    Predicting one and the same cells for all conditions therefore subtracts nothing (r = 0). In cell-eval2
    ``expr_mse_unbiased`` and ``expr_mse_unbiased_capped``, which subtract the noise of targets too.

    *Direction*: lower is better; a perfect prediction has expectation 0. *Range*: any number, in squared units of
    expression. Values below 0 are noise about an error near 0: clipping them would bring back a bias. NaN where all
    genes are targets.

    *Weakness*: most genes do not respond, so predicting the controls scores well. Uncapped, a prediction earns a larger
    correction with fewer or more dispersed cells of the same mean, and one whose cells are not independent draws (two
    cells mirrored at a mean, say) earns one it does not need. Capped values are too high rather than too low where a cap
    binds; with ``r < 1`` the value of a condition depends on the other conditions.

    Parameters
    ----------
    capped
        Bound the correction of the prediction.

    Examples
    --------
    >>> x, y = Moments.of(np.array([[0.0], [2.0]])), Moments.of(np.array([[3.0], [3.0]]))
    >>> unbiased_mse(Panel([x], [y], y)), unbiased_mse(Panel([x], [y], y), capped=True)
    (array([3.]), array([4.]))
    """
    scored = _scored(panel)
    n_scored = scored.sum(axis=1)
    predicted, noise_predicted = _stack(panel.predicted, scored, name="predicted")
    observed, noise_observed = _stack(panel.observed, scored, name="observed")
    if capped:
        noise_predicted = np.minimum(noise_predicted, noise_observed)
        weights = np.divide(1.0, n_scored, out=np.zeros(len(n_scored)), where=n_scored > 0)
        claim = float(weights @ noise_predicted)
        if claim > 0:
            noise_predicted = noise_predicted * min(1.0, _spread(predicted, scored, weights) / claim)
    error = np.einsum("pg,pg->p", np.square(predicted - observed), scored)
    return _per_gene(error - noise_predicted - noise_observed, n_scored)


def unbiased_effect_sizes(panel: Panel) -> NDArray[np.float64]:
    """Noise-corrected mean squared effect (P,) of every condition, without the genes that are perturbed themselves.

    ``( sum over G_p of (y_pg - control_g)^2 - c(y_p) - c(control) ) / |G_p|``, with the symbols of
    :func:`unbiased_mse`: how much there is to predict, cell-eval2's ``expr_distance_unbiased``. Values below 0 are effects
    too small for these cells; NaN where all genes are targets.
    """
    scored = _scored(panel)
    observed, noise_observed = _stack(panel.observed, scored, name="observed")
    control, noise_control = _stack([panel.control] * len(panel), scored, name="control")
    size = np.einsum("pg,pg->p", np.square(observed - control), scored)
    return _per_gene(size - noise_observed - noise_control, scored.sum(axis=1))


@of_panels
def pooled_unbiased_mse(panel: Panel, *, capped: bool = True) -> float:
    """Noise-corrected error of all conditions, in units of the squared size of their effects.

    ``sum of unbiased_mse / sum of unbiased_effect_sizes`` over the conditions where both are defined. A ratio of sums,
    because single conditions have sizes near 0 with either sign. In cell-eval2 ``expr_mse_unbiased_capped_norm``,
    scored by the Virtual Cell Challenge of 2026.

    *Direction*: lower is better. *Range*: any number; 0 for the right means, 1 for predicting no effect (more, where a
    cap binds), whatever the number of cells. NaN where the summed size is not positive: these cells show no effect.

    *Weakness*: the largest effects decide.

    Parameters
    ----------
    capped
        Bound the correction of the prediction, see :func:`unbiased_mse`.

    Examples
    --------
    >>> y, control = Moments.of(np.array([[3.0], [5.0]])), Moments.of(np.array([[0.0], [0.0]]))
    >>> pooled_unbiased_mse(Panel([control], [y], control))
    1.0
    """
    errors, sizes = unbiased_mse(panel, capped=capped), unbiased_effect_sizes(panel)
    defined = np.isfinite(errors) & np.isfinite(sizes)
    size = float(sizes[defined].sum())
    return float(errors[defined].sum()) / size if size > 0 else float("nan")


def _sampling_variance(moments: Moments, *, name: str) -> NDArray[np.float64]:
    if np.isnan(moments.variance).any():
        msg = (
            f"Expected a variance for every gene in `{name}`, found NaN with {moments.n_cells} cells. "
            "Pass at least 2 cells, or moments with variance 0 for a mean without sampling noise."
        )
        raise ValueError(msg)
    return moments.variance / moments.n_cells


def _stack(
    conditions: Sequence[Moments], scored: NDArray[np.bool_], *, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means (P, G), and sampling variance summed over the scored genes (P,)."""
    noise = [_sampling_variance(one, name=name) @ row for one, row in zip(conditions, scored, strict=True)]
    return np.stack([one.mean for one in conditions]), np.array(noise)


def _scored(panel: Panel) -> NDArray[np.bool_]:
    shape = len(panel), len(panel.control.mean)
    found = {len(one.mean) for one in (*panel.predicted, *panel.observed)}
    if len(panel.predicted) != shape[0] or found != {shape[1]}:
        msg = (
            f"Expected {shape[0]} predicted conditions of {shape[1]} genes, as for the observed ones and the controls, "
            f"found {len(panel.predicted)} predicted conditions and {sorted(found)} genes."
        )
        raise ValueError(msg)
    if panel.targets is None:
        return np.ones(shape, dtype=np.bool_)
    if panel.targets.shape != shape or panel.targets.dtype != np.bool_:
        msg = (
            f"Expected boolean `targets` of shape {shape} (conditions, genes), found {panel.targets.dtype} of shape "
            f"{panel.targets.shape}."
        )
        raise ValueError(msg)
    return ~panel.targets


def _spread(means: NDArray[np.float64], scored: NDArray[np.bool_], weights: NDArray[np.float64]) -> float:
    """Weighted sum of squares about the mean of the conditions, over genes and the conditions that score them."""
    shares = scored * weights[:, None]
    total = shares.sum(axis=0)
    centre = np.divide((shares * means).sum(axis=0), total, out=np.zeros(len(total)), where=total > 0)
    return float(np.einsum("pg,pg->", shares, np.square(means - centre)))


def _per_gene(summed: NDArray[np.float64], n_genes: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.divide(summed, n_genes, out=np.full(len(summed), np.nan), where=n_genes > 0)
