"""Distance of a prediction from training, and uncertainty of mean expression there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from perturbflow.flow._angle import share_error
from perturbflow.flow._distribution_uncertainty import distribution_uncertainty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.flow._prior import AdditiveHurdlePrior, Context

KINDS = ("seen", "new dose", "combination", "new context", "unseen")  # in the order of how much has to be inferred


def condition_kind(prior: AdditiveHurdlePrior, perturbation: NDArray[np.floating], context: Context) -> str:
    """Training data that a prediction rests on.

    "unseen" if a component has no training cells; "new context" if one, or the context, has none here; "seen" for
    training conditions and controls of training contexts; "new dose" for components that were there, alone or together,
    at other doses; else "combination": known components together as they have not been.
    """
    asked = sparse.csr_matrix(np.asarray(perturbation, dtype=np.float32)[None])
    components = asked.indices
    if not prior.trained[components].all():
        return "unseen"
    groups, index = prior.groups, context.index
    if index is None or not all(len(groups.here(int(j), index)) for j in components):
        return "new context"
    if not len(components) or groups.find(asked, np.array([index]))[0] >= 0:
        return "seen"
    return "new dose" if groups.has_components(components, index) else "combination"


def mean_expression(
    prior: AdditiveHurdlePrior, perturbation: NDArray[np.floating], context: Context
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Mean expression of every gene in a condition, with the standard deviation that the prior states.

    The mean is ``p m``, with the share p of cells that express the gene and the mean m of the expressed values. Its
    variance is :math:`(m\, \sigma_p)^2 + (p\, \sigma_m)^2 + 2 \rho\, m\, \sigma_p\, p\, \sigma_m`, the error of p
    following from that of its angle (:func:`share_error`), with the correlation :math:`\rho` of both errors.

    Parameters
    ----------
    prior
        The fitted prior.
    perturbation
        Dose of every component (P,).
    context
        Where it is applied.

    Returns
    -------
    Means and standard deviations (G,).

    Examples
    --------
    >>> import numpy as np
    >>> import perturbflow as pf
    >>> rng = np.random.default_rng(0)
    >>> x = np.log1p(rng.poisson([3.0, 1.0], (200, 2)))
    >>> x[100:, 0] = 0  # the perturbation of the last 100 cells silences gene 0
    >>> cells = pf.flow.CellData(x, np.repeat([[0.0], [1.0]], 100, axis=0), np.zeros((200, 0), dtype=int))
    >>> prior = pf.flow.AdditiveHurdlePrior.fit(cells)
    >>> context = prior.context(np.zeros(0, dtype=int))
    >>> mean, sd = pf.flow.mean_expression(prior, np.ones(1), context)
    >>> bool((abs(mean - x[100:].mean(axis=0)) < 2 * sd).all())
    True
    """
    distribution = prior.distribution(perturbation, context)
    sd = distribution_uncertainty(prior, perturbation, context, distribution.expressed)
    expressed, mean = distribution.expressed.astype(np.float64), distribution.mean.astype(np.float64)
    of_share, of_mean = mean * share_error(expressed, sd.angle), expressed * sd.mean
    variance = of_share**2 + of_mean**2 + 2 * sd.correlation * of_share * of_mean
    return expressed * mean, np.sqrt(np.maximum(variance, 0))
