"""Storage of fitted flows in AnnData."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from perturbflow._checks import check_key
from perturbflow._warnings import warn
from perturbflow.predict._fitted_flow import FittedFlow
from perturbflow.store._keys import is_record

if TYPE_CHECKING:
    from anndata import AnnData

_STORE, _IDENTITY = "store", "id"


def write_flow(adata: AnnData, fitted: FittedFlow, *, key: str = "flow", store: str | Path | None = None) -> None:
    """Write a fitted flow to ``uns[key]``, or to a directory that ``uns[key]`` then names.

    A flow that cannot be written to the directory, for want of space for example, goes to ``uns[key]`` with a warning.
    """
    if store is not None:
        try:
            identity = fitted.save(store)
        except OSError as error:
            msg = (
                f"The fitted flow could not be written to {str(store)!r} ({error}): it is kept in `adata.uns[{key!r}]`. "
                f"`pf.models.FittedFlow.from_dict(adata.uns[{key!r}]).save(folder)` writes it elsewhere."
            )
            warn(msg)
        else:
            adata.uns[key] = {_STORE: str(Path(store).resolve()), _IDENTITY: identity}
            return
    adata.uns[key] = fitted.to_dict()


def read_flow(adata: AnnData, key: str = "flow") -> FittedFlow:
    """Read a fitted flow from ``uns[key]``, or from the directory that it names."""
    check_key(key, adata.uns, where="adata.uns", hint=f"Run `pf.tl.fit_flow(adata, key_added={key!r})` first.")
    entry = adata.uns[key]
    if not is_record(entry, "flow"):
        msg = (
            f"Expected a fitted flow in `adata.uns[{key!r}]`, found something else. "
            f"Run `pf.tl.fit_flow(adata, key_added=...)` with a key of its own."
        )
        raise ValueError(msg)
    if _STORE in entry:
        identity = entry.get(_IDENTITY)  # earlier versions stored none
        return FittedFlow.load(str(entry[_STORE]), identity=None if identity is None else str(identity))
    return FittedFlow.from_dict(entry, where=f"`adata.uns[{key!r}]`")
