"""The probability path between noise and cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Values = TypeVar("Values", "Tensor", "NDArray[np.float32]")


def point_on_path(x0: Values, x1: Values, t: Any) -> Values:
    """Straight path ``x_t = (1 - t) x0 + t x1`` of conditional flow matching, velocity ``x1 - x0``.

    Parameters
    ----------
    x0
        Source samples (n, G), standard normal.
    x1
        Cells (n, G).
    t
        Times in [0, 1] (n, 1).

    Returns
    -------
    Points (n, G).

    Notes
    -----
    Lipman et al. 2023 (ICLR), eq. 20-23 with sigma_min = 0; PRiMeFlow (arXiv 2604.13986) couples x0 and x1
    independently.

    Examples
    --------
    >>> import numpy as np
    >>> import perturbflow as pf
    >>> noise, cell = np.zeros((1, 2), dtype=np.float32), np.array([[2.0, 4.0]], dtype=np.float32)
    >>> pf.flow.point_on_path(noise, cell, 0.5).tolist()  # half-way
    [[1.0, 2.0]]
    """
    return (1 - t) * x0 + t * x1
