"""Interface shared by the flow and every baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from perturbflow._docs import shares

if TYPE_CHECKING:
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from perturbflow.flow import CellData

of_fit = shares(
    {"cells": "Training cells, controls of every context among them, or the sums over every group of them."},
    returns="The fitted baseline itself.",
    raises="ValueError\n    If a context has no control cells, or effects are needed and there are none.",
)
of_sample = shares(
    {
        "controls": "Control cells (n, G) of the context, log1p-normalised.",
        "perturbation": "Dose of every perturbation component (P,).",
        "covariates": "Codes of the covariates (K,), the context.",
        "rng": "Random generator; samplers without randomness ignore it.",
    },
    returns="As many predicted cells (n, G), a new array.",
    raises="RuntimeError\n    If the baseline is not fitted.\nValueError\n    If a shape is not that of the training cells.",
)


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

    @of_fit
    def fit(self, cells: CellData) -> Self:
        """Learn from training cells, controls among them."""
        ...

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
        ...
