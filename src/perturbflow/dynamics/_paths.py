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
    """
    product = functools.reduce(lambda inner, outer: outer @ inner, layers)
    return product[..., 0, :] if product.dim() == 3 else product


def path_weights(layers: Sequence[Tensor]) -> Tensor:
    r"""Return :math:`|W_L| \cdots |W_1|`: an entry is 0 exactly if no path of non-zero weights connects the two.

    C-NODE; Aliee, Theis and Kilbertus (2021), arXiv:2106.12430.
    """
    return path_product([torch.abs(layer) for layer in layers])
