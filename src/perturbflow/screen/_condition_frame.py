"""The table of conditions: every perturbation, dose and context that some cells are in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from perturbflow.screen._fields import PerturbationFields, perturbation_columns, read_fields, text_column

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def condition_frame(
    adata: AnnData, *, fields: PerturbationFields | None = None, with_batch: bool = True
) -> tuple[pd.DataFrame, NDArray[np.intp]]:
    """List the distinct conditions (perturbation, dose and context), and the row of every cell among them (n,).

    Columns are ``perturbation`` (canonical label), ``dose`` (text in the order of the label; only where a dose is
    registered), one per covariate, ``is_control`` and ``n_cells``. Controls come first, then alphabetical order,
    whatever the order of the cells.
    """
    fields = read_fields(adata) if fields is None else fields
    vocabulary = fields.vocabulary
    encoded, codes = vocabulary.encode_distinct(*perturbation_columns(adata, fields))
    distinct = [encoded[[row]].toarray()[0] for row in range(encoded.shape[0])]
    cells = {"perturbation": np.array([vocabulary.label(row) for row in distinct], dtype=object)[codes]}
    if fields.dose_key is not None:
        cells["dose"] = np.array([vocabulary.dose_label(row) for row in distinct], dtype=object)[codes]
    for key in fields.context_keys if with_batch else fields.covariate_keys:
        cells[key] = text_column(adata, key)

    table = pd.DataFrame(cells)
    conditions = table.value_counts(sort=False).rename("n_cells").reset_index()
    conditions.insert(len(cells), "is_control", conditions["perturbation"] == fields.control)
    conditions = conditions.sort_values(["is_control", *cells], ascending=[False] + [True] * len(cells))
    conditions = conditions.reset_index(drop=True)
    places = pd.MultiIndex.from_frame(conditions[list(cells)]).get_indexer(pd.MultiIndex.from_frame(table))
    return conditions, places
