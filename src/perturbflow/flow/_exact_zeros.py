"""Thresholds below which predicted values are zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def zero_thresholds(predicted: NDArray[np.floating], expressed: NDArray[np.floating]) -> NDArray[np.float32]:
    """Thresholds below which predicted values are zero, so that as many are expressed as in real cells.

    A velocity without a distribution of the gene is a smooth function of noise: where real cells have an exact zero,
    its cells have a small value of either sign. The threshold of a gene is the quantile of its predicted values, over
    all conditions at once, that leaves the real share of cells above.

    Parameters
    ----------
    predicted
        Predicted cells (n, G) of conditions with as many cells as the real ones have in proportion.
    expressed
        Share of real cells of these conditions that express the gene (G,).

    Returns
    -------
    Thresholds (G,), not negative: values below them are zero.

    Raises
    ------
    ValueError
        If there are no cells, or not one share per gene, between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> import perturbflow as pf
    >>> predicted = np.array([[0.1, 2.0], [-0.1, 3.0], [0.2, 4.0], [1.5, 5.0]])
    >>> pf.flow.zero_thresholds(predicted, np.array([0.25, 1.0])).tolist()  # one cell of four, and all of them
    [1.5, 2.0]
    """
    n_cells, n_genes = predicted.shape
    if not n_cells:
        msg = "Expected predicted cells, found none. Predict some of every training condition."
        raise ValueError(msg)
    share = np.asarray(expressed, dtype=np.float64)
    if share.shape != (n_genes,) or not ((share >= 0) & (share <= 1)).all():
        msg = (
            f"Expected `expressed` to be {n_genes} shares between 0 and 1, one per gene, found shape {share.shape} with values "
            f"from {share.min(initial=np.inf):g} to {share.max(initial=-np.inf):g}. Take the means of `x > 0`."
        )
        raise ValueError(msg)
    n_zeros = np.rint(n_cells * (1 - share)).astype(int)
    ordered = np.sort(np.maximum(predicted, 0), axis=0).astype(np.float32)
    above = np.nextafter(ordered[-1:], np.float32(np.inf))
    return np.take_along_axis(np.vstack([ordered, above]), n_zeros[None], axis=0)[0]
