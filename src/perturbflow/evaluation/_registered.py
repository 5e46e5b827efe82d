"""Cells of an AnnData with registered fields as arrays, and the conditions that models can be judged on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from perturbflow.evaluation._conditions import Condition, conditions_of
from perturbflow.screen._fields import read_cells, read_fields, read_screen
from perturbflow.screen._split_names import split_names
from perturbflow.screen._splits import read_split

if TYPE_CHECKING:
    from anndata import AnnData

    from perturbflow.flow import CellData


def registered_cells(adata: AnnData) -> CellData:
    """Return expression, doses and contexts of all cells as arrays.

    Parameters
    ----------
    adata
        Cells with registered fields (:func:`perturbflow.pp.setup_perturbation`).

    Returns
    -------
    The cells, in their order: expression (n, G), doses of the perturbation components (n, P) in alphabetical order, and
    codes of the covariates (n, K).

    Raises
    ------
    KeyError
        If fields are not registered, or have gone since.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=300, n_genes=20, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> cells = pf.evaluation.registered_cells(adata)
    >>> cells.x.shape, cells.perturbations.shape, cells.covariates.shape
    ((300, 20), (300, 4), (300, 0))
    """
    return read_cells(adata)


def judged_conditions(
    adata: AnnData,
    *,
    splits: str | Sequence[str] = ("train", "valid", "test"),
    fitted_splits: Sequence[str] = ("train",),
    split_key: str = "split",
    min_cells: int = 10,
) -> list[Condition]:
    """Return the conditions of some splits that have enough cells, block by block.

    Parameters
    ----------
    adata
        Cells with registered fields and a split (:func:`perturbflow.pp.split_perturbations`).
    splits
        The split to judge, or several, in the order of the result.
    fitted_splits
        Splits whose control cells models start from.
    split_key
        Column of ``adata.obs`` with the split.
    min_cells
        Conditions with fewer real cells, and contexts with fewer controls, are left out.

    Returns
    -------
    The conditions; rows are those of ``adata``.

    Raises
    ------
    KeyError
        If fields or the split are missing.
    ValueError
        If a context has no control cells in ``fitted_splits``.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=300, n_genes=20, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination", test_fraction=0.5)
    >>> [one.labels["split"] for one in pf.evaluation.judged_conditions(adata, splits="test")]
    ['test']
    """
    fields = read_fields(adata)
    split = read_split(adata, split_key)
    conditions, _ = conditions_of(
        read_screen(adata, fields=fields),
        split,
        fitted=np.flatnonzero(np.isin(split, fitted_splits)),
        splits=split_names(splits),
        vocabulary=fields.vocabulary,
        has_doses=fields.dose_key is not None,
        min_cells=min_cells,
    )
    return conditions
