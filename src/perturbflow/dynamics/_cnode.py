"""C-NODE: lasso of paths."""

from __future__ import annotations

from torch import Tensor

from perturbflow.dynamics._paths import path_weights
from perturbflow.dynamics._sparsity import Sparsity, Weights


class CNODE(Sparsity):
    r"""Lasso of paths, :math:`\lambda \big\| |W_L| \cdots |W_1| \big\|_{1,1} / d`.

    The sum over all paths from inputs to targets of the products of absolute weights. An entry of the product that is 0
    proves that the target does not depend on the input. Aliee, Theis and Kilbertus (2021), arXiv:2106.12430; there the
    mean over all entries instead of the sum divided by d.
    """

    def penalty(self, weights: Weights) -> Tensor:
        return total_paths(*self.split(weights), self.factors)


def total_paths(layers: Weights, skip: Tensor | None, factors: Tensor) -> Tensor:
    """Return the factor-weighted sum over inputs of the path weights, mean over targets; a linear skip is a path."""
    paths = path_weights(layers)
    if skip is not None:
        paths = paths + skip[:, 0].abs()
    return (factors * paths).sum() / len(factors)
