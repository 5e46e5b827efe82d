"""Annotations of a lazy AnnData, read once: tables of cells and genes, and what functions wrote into ``uns``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData


def read_annotations(adata: AnnData) -> None:
    """Read what stands beside the expression of a lazy AnnData into memory, in place; of any other nothing changes.

    Tables that ``anndata.experimental.read_lazy`` gives can be neither grouped nor written to. They and ``uns`` are
    small beside the expression, which stays where it is, and so do layers and what is in ``obsm``.
    """
    from anndata import ImplicitModificationWarning  # here, because it takes a second to load

    with warnings.catch_warnings():
        # Of a view, which becomes an AnnData of its own: its tables would be others in any case.
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        for name in ("obs", "var"):
            if not isinstance(getattr(adata, name), pd.DataFrame):
                setattr(adata, name, in_memory(getattr(adata, name)))
        for key in [key for key, entry in adata.uns.items() if _has_lazy(entry)]:
            adata.uns[key] = in_memory(adata.uns[key])


def in_memory(entry: Any) -> Any:
    """Read an entry: an array of dask, a lazy table, or a mapping of such."""
    if isinstance(entry, Mapping) and not isinstance(entry, pd.DataFrame) and not _is_lazy(entry):
        return {key: in_memory(each) for key, each in entry.items()}
    if hasattr(entry, "to_memory"):
        return entry.to_memory()
    if _is_lazy(entry):
        values = entry.compute()
        # zarr has a type of text of its own, which neither masks nor sorts as objects do.
        return values.astype(object) if isinstance(values, np.ndarray) and values.dtype.kind == "T" else values
    return entry


def _is_lazy(entry: Any) -> bool:
    return hasattr(entry, "to_memory") or (hasattr(entry, "compute") and hasattr(entry, "chunks"))


def _has_lazy(entry: Any) -> bool:
    if isinstance(entry, Mapping) and not isinstance(entry, pd.DataFrame) and not _is_lazy(entry):
        return any(map(_has_lazy, entry.values()))
    return _is_lazy(entry)
