"""Where fitted flows are kept in AnnData."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from perturbflow._checks import check_key, check_no_slash, check_text
from perturbflow._fitted_flow import FittedFlow

if TYPE_CHECKING:
    from anndata import AnnData

_STORE = "store"


def write_flow(adata: AnnData, fitted: FittedFlow, *, key: str = "flow", store: str | Path | None = None) -> None:
    """Write a fitted flow to ``uns[key]``, or to a directory that ``uns[key]`` then names."""
    if store is None:
        adata.uns[key] = fitted.to_dict()
        return
    fitted.save(store)
    adata.uns[key] = {_STORE: str(Path(store).resolve())}


def read_flow(adata: AnnData, key: str = "flow") -> FittedFlow:
    """Read a fitted flow from ``uns[key]``, or from the directory that it names.

    Raises
    ------
    KeyError
        If there is none, with the function to run first.
    ValueError
        If the entry is not a fitted flow.
    """
    check_key(key, adata.uns, where="adata.uns", hint=f"Run `pf.tl.fit_flow(adata, key_added={key!r})` first.")
    entry = adata.uns[key]
    if not _is_flow(entry):
        msg = (
            f"Expected a fitted flow in `adata.uns[{key!r}]`, found something else. "
            f"Run `pf.tl.fit_flow(adata, key_added=...)` with a key of its own."
        )
        raise ValueError(msg)
    return FittedFlow.load(str(entry[_STORE])) if _STORE in entry else FittedFlow.from_dict(entry)


def check_flow_key(adata: AnnData, key: str, *, store: str | Path | None = None) -> None:
    """Raise before a fit, rather than after, if its flow could not be written or would overwrite something else.

    Raises
    ------
    TypeError
        If ``key`` is no string.
    ValueError
        If ``key`` is no name for an entry, or has other content than an earlier flow.
    NotADirectoryError
        If ``store`` is a file.
    """
    check_text(key, name="key_added")
    check_no_slash([key], what="`key_added`", hint="Choose another name.")
    if key in adata.uns and not _is_flow(adata.uns[key]):
        msg = (
            f"Expected `key_added` to be free or an earlier flow, found {key!r} with other content in `adata.uns`. "
            "Choose another `key_added`, or delete that first."
        )
        raise ValueError(msg)
    if store is not None and Path(store).exists() and not Path(store).is_dir():
        msg = f"Expected `store` to be a directory or free, found the file {str(store)!r}. Choose another `store`."
        raise NotADirectoryError(msg)


def _is_flow(entry: object) -> bool:
    return isinstance(entry, Mapping) and (_STORE in entry or {"format", "config", "weights", "prior"} <= entry.keys())
