"""Interface shared by the flow and every baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from perturbflow._docs import shares
from perturbflow.screen._named_arrays import check_unnamed

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from perturbflow.flow import CellData

of_fit = shares(
    {"cells": "Training cells, with controls of every context, or their sums by group."},
    returns="The fitted baseline itself.",
    raises="ValueError\n    If a context has no control cells, or there are no effects although the baseline needs some.",
)
of_sample = shares(
    {
        "controls": "Control cells (n, G) of the context, log1p-normalised.",
        "perturbation": "Dose of every perturbation component (P,).",
        "covariates": "Codes of the covariates (K,), that is, the context.",
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


def not_fitted(baseline: Any) -> RuntimeError:
    """Return the error of a baseline that is asked for cells before it was fitted."""
    return RuntimeError(f"Expected a fitted {type(baseline).__name__}. Call `fit` first.")


def checked_sample(
    shape: tuple[int, int, int], controls: Any, perturbation: Any, covariates: Any
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any]]:
    """Return the arguments of `sample` as arrays; ``shape`` are the numbers of genes, components and covariates."""
    for name, value in (("controls", controls), ("perturbation", perturbation), ("covariates", covariates)):
        check_unnamed(value, name=name, order="the training cells")
    arrays = np.asarray(controls, dtype=np.float32), np.asarray(perturbation), np.asarray(covariates)
    n_genes, n_components, n_covariates = shape
    expected = ((len(arrays[0]) if arrays[0].ndim else 0, n_genes), (n_components,), (n_covariates,))
    for name, array, wanted in zip(("controls", "perturbation", "covariates"), arrays, expected, strict=True):
        if array.shape != wanted:
            msg = f"Expected `{name}` to have shape {wanted}, as in the training cells, found {array.shape}."
            raise ValueError(msg)
    return arrays
