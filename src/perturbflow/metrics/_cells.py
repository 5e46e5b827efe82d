"""Input of every metric: a matrix of cells by genes, dense or sparse."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from perturbflow.screen._named_arrays import without_names

Cells: TypeAlias = NDArray[np.floating] | sparse.spmatrix | sparse.sparray
"""Cells by genes (n, G): an array or any SciPy sparse container."""

RELATIVE_ZERO = 1e-9  # differences below this share of what they are differences of are rounding


def check_cells(cells: Cells, *, name: str, minimum: int = 1) -> Cells:
    """Cells as a two-dimensional array or a CSR container, with at least ``minimum`` rows.

    Values are not read here: :func:`gene_means`, which every metric computes anyway, finds those that are not finite.
    """
    cells = without_names(cells, name=name)
    matrix = cells.tocsr() if not isinstance(cells, np.ndarray) and sparse.issparse(cells) else np.asarray(cells)
    if matrix.ndim != 2:
        msg = f"Expected `{name}` to have shape (cells, genes), found {matrix.shape}."
        raise ValueError(msg)
    if matrix.dtype.kind not in "fiub":
        msg = f"Expected `{name}` to hold real numbers, found dtype {matrix.dtype}."
        raise TypeError(msg)
    if matrix.shape[0] < minimum or matrix.shape[1] == 0:
        msg = (
            f"Expected at least {minimum} cells and 1 gene in `{name}`, found shape {matrix.shape}. "
            "Leave out conditions with too few cells."
        )
        raise ValueError(msg)
    return matrix


def check_samples(*, minimum: int = 1, **named: Cells) -> list[Cells]:
    """Check samples of cells of the same genes, each with at least ``minimum`` rows and finite values."""
    found = {name: check_cells(cells, name=name, minimum=minimum) for name, cells in named.items()}
    check_same_genes(**found)
    for name, cells in found.items():
        gene_means(cells, name=name)
    return list(found.values())


def dense(cells: Cells) -> NDArray[np.float64]:
    """Cells as an array in float64."""
    return np.asarray(cells if isinstance(cells, np.ndarray) else cells.toarray(), dtype=np.float64)


def check_same_genes(**named: Any) -> None:
    """Refuse cells, or moments of them, with different numbers of genes."""
    found = {name: cells.shape[-1] for name, cells in named.items()}
    if len(set(found.values())) > 1:
        msg = f"Expected the same genes in {', '.join(found)}; found {found}."
        raise ValueError(msg)


def check_predictions(x: Cells, again: Cells | None, y: Cells, *, minimum: int) -> list[Cells]:
    """Check a prediction, and a second one from the same source cells if there is one, against the reference ``y``."""
    predictions = [check_cells(x, name="x", minimum=minimum)]
    if again is not None:
        predictions.append(check_cells(again, name="again", minimum=2))
        if predictions[0].shape[0] != predictions[1].shape[0]:
            msg = f"Expected two predictions from the same cells, found {x.shape[0]} and {again.shape[0]} cells."
            raise ValueError(msg)
    for prediction in predictions:
        check_same_genes(x=prediction, y=y)
        gene_means(prediction, name="x")
    return predictions


def gene_means(cells: Cells, *, name: str) -> NDArray[np.float64]:
    """Mean of every gene (G,), summed in float64; a NaN or an infinity anywhere is an error."""
    n_cells = cells.shape[0]
    with np.errstate(invalid="ignore"):
        # SciPy sums float32 matrices in float32; the product with a float64 vector does not.
        total = cells.sum(axis=0, dtype=np.float64) if isinstance(cells, np.ndarray) else np.ones(n_cells) @ cells
    bad = np.flatnonzero(~np.isfinite(total))
    if bad.size:
        msg = (
            f"Expected finite values in `{name}`, found NaN or infinity in {bad.size} genes, first in column {bad[0]}."
        )
        raise ValueError(msg)
    return total / n_cells
