"""Products along all paths from the inputs of a network to its outputs."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor


def path_product(layers: Sequence[Tensor]) -> Tensor:
    r"""Return :math:`W_L \cdots W_2 W_1`, the sum over paths of the products of their entries.

    Parameters
    ----------
    layers
        Matrices (n_out, n_in) of the layers from the first to the last, with leading axes for several networks.

    Returns
    -------
    Matrix (n_targets, n_inputs). Networks of one output each, (K, 1, n_inputs), give (K, n_inputs).

    Examples
    --------
    >>> import perturbflow as pf
    >>> import torch
    >>> first, second = torch.tensor([[1.0, 0.0], [1.0, 2.0]]), torch.tensor([[3.0, -3.0]])
    >>> pf.dynamics.path_product([first, second])  # two paths from the first input cancel
    tensor([[ 0., -6.]])
    """
    product = functools.reduce(lambda inner, outer: outer @ inner, layers)
    return product[..., 0, :] if product.dim() == 3 else product


def path_weights(layers: Sequence[Tensor]) -> Tensor:
    r"""Return :math:`|W_L| \cdots |W_1|`: an entry is 0 exactly if no path of non-zero weights connects the two.

    C-NODE; Aliee, Theis and Kilbertus (2021), arXiv:2106.12430.

    Parameters
    ----------
    layers
        Matrices (n_out, n_in) of the layers from the first to the last, with leading axes for several networks.

    Returns
    -------
    Matrix (n_targets, n_inputs), as of :func:`path_product`.

    Examples
    --------
    >>> import perturbflow as pf
    >>> import torch
    >>> first, second = torch.tensor([[1.0, 0.0], [1.0, 2.0]]), torch.tensor([[3.0, -3.0]])
    >>> pf.dynamics.path_weights([first, second])  # paths never cancel
    tensor([[6., 6.]])
    """
    return path_product([torch.abs(layer) for layer in layers])
