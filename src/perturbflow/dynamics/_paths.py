"""Products along all paths from the inputs of a network to its outputs."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor


def path_product(layers: Sequence[Tensor]) -> Tensor:
    r"""Return :math:`W_L \cdots W_2 W_1` (n_targets, n_inputs), the sum over paths of the products of their entries.

    Layers may have leading axes for several networks: those of one output each, (K, 1, n_inputs), give (K, n_inputs).
    """
    product = functools.reduce(lambda inner, outer: outer @ inner, layers)
    return product[..., 0, :] if product.dim() == 3 else product


def path_weights(layers: Sequence[Tensor]) -> Tensor:
    r"""Return :math:`|W_L| \cdots |W_1|`, as of :func:`path_product`: 0 exactly where no path connects the two.

    C-NODE; Aliee, Theis and Kilbertus (2021), arXiv:2106.12430.
    """
    return path_product([torch.abs(layer) for layer in layers])
