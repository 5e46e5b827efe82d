"""Base class of all penalties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from perturbflow.dynamics._field import VectorField

Weights = Sequence[Tensor]


class Sparsity(nn.Module):
    """No sparsity: the weights as they are. Others override what they need.

    A fit minimises the error plus ``strength`` times :meth:`penalty`, with the weights that :meth:`draw` returns, and
    calls :meth:`proximal_` after every step. Penalties are means over targets, so that a strength means the same for
    any number of genes.

    Parameters
    ----------
    field
        The vector field whose weights become sparse.
    factors
        How much each input of each target is penalised (K, n_inputs), 1 by default: less where a prior has an edge.

    Examples
    --------
    >>> import perturbflow as pf
    >>> field = pf.dynamics.build_field(pf.dynamics.FieldConfig(3, (0, 1, 2), structure="linear"))
    >>> float(pf.dynamics.Sparsity(field).penalty(field.weights()))
    0.0
    >>> penalty = pf.dynamics.SPARSITIES["cnode"](field).penalty(field.weights())  # of all paths, a mean over targets
    >>> bool(penalty.isclose(pf.dynamics.path_weights(field.weights()).sum() / 3))
    True
    """

    structures: ClassVar[tuple[str, ...]] = ("per_target", "linear", "dense")
    needs_skip: ClassVar[bool] = False
    factors: Tensor

    def __init__(self, field: VectorField, *, factors: Tensor | None = None) -> None:
        super().__init__()
        shape = (len(field.targets), field.config.n_inputs)
        self.register_buffer("factors", torch.ones(shape) if factors is None else factors.to(torch.float32))
        self.has_skip = field.config.skip

    def draw(self, weights: Weights, *, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Return the weights of one solve in training: gates are drawn here, once.

        Parameters
        ----------
        weights
            Weights of the field, as of :meth:`VectorField.weights`.
        generator
            Source of randomness.

        Returns
        -------
        Weights of the same shapes.
        """
        return tuple(weights)

    def expected(self, weights: Weights) -> tuple[Tensor, ...]:
        """Return the weights without noise, for prediction.

        Parameters
        ----------
        weights
            Weights of the field, as of :meth:`VectorField.weights`.

        Returns
        -------
        Weights of the same shapes.
        """
        return tuple(weights)

    def split(self, weights: Weights) -> tuple[Weights, Tensor | None]:
        """Return the layers that follow each other, and the linear skip if there is one.

        Parameters
        ----------
        weights
            Weights of the field, as of :meth:`VectorField.weights`.

        Returns
        -------
        The layers, and the matrix of the skip or None.
        """
        return (weights[:-1], weights[-1]) if self.has_skip else (weights, None)

    def penalty(self, weights: Weights) -> Tensor:
        """Return the penalty, a number, given the weights of the field.

        Parameters
        ----------
        weights
            Weights of the field, as of :meth:`VectorField.weights`.

        Returns
        -------
        The penalty, differentiable.
        """
        return weights[0].new_zeros(())

    def proximal_(self, field: VectorField, strength: float, steps: Mapping[str, Tensor]) -> None:
        """Take the proximal step of a penalty that is not differentiable, in place.

        Parameters
        ----------
        field
            The vector field.
        strength
            Strength of the penalty.
        steps
            Size of the last gradient step of every parameter by its name, a number for each entry.
        """


def first_layer(field: VectorField) -> nn.Parameter:
    """Return the matrices of the first layer, (K, H, n_inputs) or (H, n_inputs) for all targets."""
    return field.matrices[0]
