"""The probability path between noise and cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Values = TypeVar("Values", "Tensor", "NDArray[np.float32]")


def point_on_path(x0: Values, x1: Values, t: Any) -> Values:
    """Points (n, G) of the straight path ``x_t = (1 - t) x0 + t x1``, with velocity ``x1 - x0``, at times (n, 1).

    Lipman et al. 2023 (ICLR), eq. 20-23 with sigma_min = 0; noise x0 and cells x1 (n, G) are coupled independently, as
    in PRiMeFlow (arXiv 2604.13986).
    """
    return (1 - t) * x0 + t * x1
