"""Cells with what was done to them, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from perturbflow.flow._grouping import Group, Grouping

Expression: TypeAlias = NDArray[np.float32] | sparse.csr_matrix


@dataclass(frozen=True, eq=False)
class CellData:
    """Expression, perturbation and covariates of cells.

    Parameters
    ----------
    x
        Log1p-normalised expression (n, G), an array or a CSR matrix; converted to float32 where it is not.
    perturbations
        Dose of every perturbation component (n, P), at least 0; an all-zero row is a control cell. Stored as CSR.
    covariates
        Codes of the categorical covariates (n, K), K may be 0. A distinct row is a context.

    Raises
    ------
    ValueError
        If shapes disagree, a dose is negative or not finite, or codes are not integers.

    Examples
    --------
    >>> import numpy as np
    >>> cells = CellData(np.ones((3, 4)), np.array([[0.0], [1.0], [1.0]]), np.zeros((3, 0), dtype=int))
    >>> [group.rows.tolist() for group in cells.groups()]
    [[0], [1, 2]]
    """

    x: Expression
    perturbations: sparse.csr_matrix
    covariates: NDArray[np.int64]

    def __post_init__(self) -> None:
        x = sparse.csr_matrix(self.x) if sparse.issparse(self.x) else np.asarray(self.x)
        x = x.astype(np.float32, copy=False)
        perturbations = sparse.csr_matrix(self.perturbations, dtype=np.float32, copy=True)
        covariates = np.asarray(self.covariates)
        for name, array in (("x", x), ("perturbations", perturbations), ("covariates", covariates)):
            if array.ndim != 2 or array.shape[0] != x.shape[0]:
                msg = (
                    f"Expected `{name}` to have one row for each of the {x.shape[0]} cells, found shape {array.shape}."
                )
                raise ValueError(msg)
        if not (np.isfinite(perturbations.data) & (perturbations.data >= 0)).all():
            msg = "Expected doses in `perturbations` to be finite and at least 0, found others."
            raise ValueError(msg)
        if covariates.size and covariates.dtype.kind not in "iu":
            msg = f"Expected `covariates` to be integer codes, found dtype {covariates.dtype}."
            raise ValueError(msg)
        perturbations.sum_duplicates()
        perturbations.eliminate_zeros()
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "perturbations", perturbations)
        object.__setattr__(self, "covariates", covariates.astype(np.int64, copy=False))

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @property
    def n_genes(self) -> int:
        """Number of genes G."""
        return int(self.x.shape[1])

    def subset(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> CellData:
        """Cells of some rows.

        Parameters
        ----------
        rows
            Indices of rows, or one boolean per cell.

        Returns
        -------
        New data in the order of ``rows``.
        """
        rows = np.asarray(rows)
        return CellData(self.x[rows], self.perturbations[rows], self.covariates[rows])

    def grouping(self) -> Grouping:
        """Split the cells by perturbation and covariates, in the order of :meth:`groups`, without a list of them.

        Returns
        -------
        Sparse doses and covariates of the groups, and which cells are of them.
        """
        return Grouping.of(self.perturbations, self.covariates)

    def groups(self) -> list[Group]:
        """Split the cells by perturbation and covariates; time O(n log n).

        Returns
        -------
        One group per distinct pair of a perturbation row and a covariate row: controls first, then ordered by
        components, doses and covariates.
        """
        return self.grouping().groups()
