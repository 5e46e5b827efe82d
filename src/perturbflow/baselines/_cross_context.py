"""The baseline that carries an effect over from other contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perturbflow.baselines._covariate_mean import CovariateMean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from perturbflow.baselines._group_effects import GroupEffects


class CrossContextEffect(CovariateMean):
    """Control cells plus the mean effect of the same perturbation in the other contexts.

    ::

        shift = mean over contexts c other than the one asked for of ( mean(cells of the group in c) - mean(controls of c) )

    A context is a combination of covariates, a perturbation a set of components with their doses. Contexts count whose
    dose is the one asked for or, where there is none, the one nearest in ratio (the smallest sum over components of
    ``|log(dose / asked)|``). A perturbation without a group in another context, whatever its dose, has the shift of
    :class:`CovariateMean`: the mean effect of the context asked for.

    *Weakness*: a context has no say but through its controls, and cells of the perturbation in the context itself are
    not used, whatever their dose; combinations only where the same combination was seen.

    References
    ----------
    Wenkel et al. (2025), TxPert: leveraging biochemical relationships for out-of-distribution transcriptomic
    perturbation prediction. *arXiv* 2505.14919, the general baseline.

    Examples
    --------
    >>> import numpy as np
    >>> from perturbflow.flow import CellData
    >>> x, perturbations = np.array([[1.0], [5.0], [1.0]]), np.array([[0.0], [1.0], [0.0]])
    >>> cells = CellData(x, perturbations, np.array([[0], [0], [1]]))
    >>> controls = np.ones((1, 1), dtype=np.float32)
    >>> CrossContextEffect().fit(cells).sample(controls, np.ones(1), np.array([1]), rng=np.random.default_rng(0))
    array([[5.]], dtype=float32)
    """

    def _fit(self, groups: GroupEffects) -> None:
        super()._fit(groups)
        self._groups = groups

    def _shift(self, perturbation: NDArray[np.float64], context: tuple[int, ...]) -> NDArray[np.float64]:
        effect = self._groups.of_perturbation(perturbation, within=lambda other: other != context)
        return super()._shift(perturbation, context) if effect is None else effect
