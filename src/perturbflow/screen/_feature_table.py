"""Storage of the features of perturbations in AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perturbflow._checks import listing
from perturbflow.screen._fields import read_fields
from perturbflow.store._keys import is_record

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from perturbflow.screen._conditions import Vocabulary

FEATURE_TABLE_KEY = "perturbation_feature_table"


def read_feature_table(
    adata: AnnData, *, key: str = FEATURE_TABLE_KEY, vocabulary: Vocabulary | None = None
) -> NDArray[np.float64] | None:
    """Features of all components (P, F) in the order of the vocabulary, by default the registered one, or None.

    Raises ValueError if the entry is something else, or components have none because the fields were registered anew.
    """
    if key not in adata.uns:
        return None
    table = adata.uns[key]
    if not is_record(table, FEATURE_TABLE_KEY):
        msg = (
            f"Expected features of perturbations in `adata.uns[{key!r}]`, found something else. "
            "Run `pf.pp.perturbation_features(adata, ...)`, or give that entry another name."
        )
        raise ValueError(msg)
    components = list((vocabulary or read_fields(adata).vocabulary).components)
    missing = sorted(set(components) - set(table.index))
    if missing:
        msg = (
            f"Expected features of all {len(components)} perturbation components in `adata.uns[{key!r}]`, found none "
            f"of {listing(missing)}. Run `pf.pp.perturbation_features(adata, ...)` again, or delete that entry."
        )
        raise ValueError(msg)
    return table.loc[components].to_numpy(dtype=np.float64)
