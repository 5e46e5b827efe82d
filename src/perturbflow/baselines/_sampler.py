"""Interface shared by the flow and every baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from perturbflow.flow import CellData


class Sampler(Protocol):
    """Draws perturbed cells for control cells.

    A structural type: whatever has these two methods can be judged beside the flow and the baselines, without
    inheriting from anything here.

    Examples
    --------
    >>> import numpy as np
    >>> import perturbflow as pf
    >>> class Doubled:
    ...     def fit(self, cells):
    ...         return self
    ...
    ...     def sample(self, controls, perturbation, covariates, *, rng):
    ...         return 2 * controls
    >>> baseline: pf.baselines.Sampler = Doubled()
    >>> baseline.sample(np.ones((1, 3)), np.ones(1), np.zeros(0, dtype=int), rng=np.random.default_rng(0)).tolist()
    [[2.0, 2.0, 2.0]]
    """

    def fit(self, cells: CellData) -> Self:
        """Learn from training cells, controls among them.

        Parameters
        ----------
        cells
            Training cells.

        Returns
        -------
        The fitted sampler itself.
        """
        ...

    def sample(
        self,
        controls: NDArray[np.float32],
        perturbation: NDArray[np.float32],
        covariates: NDArray[np.int64],
        *,
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        """Predict perturbed cells of one condition.

        Parameters
        ----------
        controls
            Control cells (n, G) of the context, log1p-normalised.
        perturbation
            Dose of every perturbation component (P,).
        covariates
            Codes of the covariates (K,), the context.
        rng
            Random generator; samplers without randomness ignore it.

        Returns
        -------
        As many predicted cells (n, G).
        """
        ...
