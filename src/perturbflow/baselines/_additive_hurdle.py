"""The flow's own prior as baselines: what is left of the flow when its network says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perturbflow.baselines._sampler import checked_sample, not_fitted, of_fit, of_sample

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from perturbflow.flow import AdditiveHurdlePrior, CellData, GroupSums


class AdditiveHurdle:
    """Cells drawn gene by gene from the additive hurdle prior (:class:`perturbflow.flow.AdditiveHurdlePrior`).

    Right in every marginal that is additive in context and perturbations, without any dependence between genes: the
    flow from noise with its network at zero.

    Parameters
    ----------
    prior
        A prior that is estimated already; None where :meth:`fit` is to do so.

    Examples
    --------
    >>> import perturbflow as pf
    >>> rng = np.random.default_rng(0)
    >>> x = np.log1p(rng.poisson([3.0, 1.0], (200, 2)))
    >>> x[100:, 0] = 0  # the perturbation of the last 100 cells silences gene 0
    >>> cells = pf.flow.CellData(x, np.repeat([[0.0], [1.0]], 100, axis=0), np.zeros((200, 0), dtype=int))
    >>> baseline = pf.baselines.AdditiveHurdle().fit(cells)
    >>> predicted = baseline.sample(cells.x[:100], np.ones(1), np.zeros(0, dtype=int), rng=rng)
    >>> (predicted > 0).mean(axis=0).round(1).tolist(), (x[100:] > 0).mean(axis=0).round(1).tolist()
    ([0.0, 0.6], [0.0, 0.6])
    """

    _moves_controls = False

    def __init__(self, prior: AdditiveHurdlePrior | None = None) -> None:
        self._prior = prior

    @of_fit
    def fit(self, cells: CellData | GroupSums) -> Self:
        """Estimate the prior."""
        from perturbflow.flow import AdditiveHurdlePrior  # here, because it loads torch

        self._prior = AdditiveHurdlePrior.fit(cells)
        return self

    @of_sample
    def sample(
        self,
        controls: NDArray[np.float32],
        perturbation: NDArray[np.float32],
        covariates: NDArray[np.int64],
        *,
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        """Predict perturbed cells of one condition."""
        if self._prior is None:
            raise not_fitted(self)
        shape = (self._prior.n_genes, len(self._prior.trained), np.size(covariates))
        controls, perturbation, covariates = checked_sample(shape, controls, perturbation, covariates)
        context = self._prior.context(covariates, controls)
        distribution = self._prior.distribution(perturbation, context)
        if self._moves_controls:
            return self._prior.move(controls, distribution, context, rng=rng)
        return self._prior.sample(distribution, len(controls), rng=rng)


class ShiftedControls(AdditiveHurdle):
    """Control cells shifted to the additive hurdle prior (:meth:`perturbflow.flow.AdditiveHurdlePrior.move`).

    The same marginals, and the dependence between genes of real cells: the control source of the flow with its
    network at zero. The hardest of the baselines where effects are additive.

    Parameters
    ----------
    prior
        A prior that is estimated already; None where :meth:`fit` is to do so.

    Examples
    --------
    >>> import perturbflow as pf
    >>> rng = np.random.default_rng(0)
    >>> x = np.log1p(rng.poisson([3.0, 1.0], (200, 2)))
    >>> x[100:, 0] = 0  # the perturbation of the last 100 cells silences gene 0
    >>> cells = pf.flow.CellData(x, np.repeat([[0.0], [1.0]], 100, axis=0), np.zeros((200, 0), dtype=int))
    >>> baseline = pf.baselines.ShiftedControls().fit(cells)
    >>> predicted = baseline.sample(cells.x[:100], np.ones(1), np.zeros(0, dtype=int), rng=rng)
    >>> bool((predicted[:, 0] > 0).mean() < 0.05)  # gene 0 is silenced
    True
    >>> bool(((predicted[:, 1] > 0) == (x[:100, 1] > 0)).mean() > 0.8)  # where gene 1 was on, it still is
    True
    """

    _moves_controls = True
