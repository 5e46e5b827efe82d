"""MuData or a lazy AnnData where an AnnData is expected."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import pandas as pd

from perturbflow._docs import shares

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

Function = TypeVar("Function", bound=Callable[..., Any])

_MEANT = "Modality to use if a MuData is passed"
_PARAMETERS = {
    "modality": f"{_MEANT}; results are written into it.",
    "copy": "Return a copy of ``adata`` instead of writing into it.",
}


def takes_modality(function: Function) -> Function:
    """Let a function of an AnnData take a MuData too, with the keyword-only argument ``modality``.

    It sees only the AnnData of the modality, in every argument whose annotation names MuData or a mapping of such. With
    ``copy=True`` it returns a copy of the MuData. What a lazy AnnData has beside its expression is read before.
    """
    signature = inspect.signature(function)
    names = [name for name, parameter in signature.parameters.items() if "MuData" in str(parameter.annotation)]
    writes = "copy" in signature.parameters
    function = shares(_PARAMETERS if writes else {"modality": f"{_MEANT}."})(function)
    is_alone = names[0] == "adata" and "Mapping" not in str(signature.parameters["adata"].annotation)

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if is_alone and (args or "adata" in kwargs):
            adata = args[0] if args else kwargs["adata"]
            _check_annotated(adata)
            if not is_mudata(adata):
                read_annotations(adata)
        if kwargs.get("modality") is None and "mudata" not in sys.modules:
            return function(*args, **kwargs)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # which says better what is wrong
        bound.apply_defaults()
        given = bound.arguments
        mdata, modality = given[names[0]], given["modality"]
        given["modality"] = None
        _check_use(mdata, modality, name=names[0])
        if is_mudata(mdata):
            adata = modality_of(mdata, modality, name=names[0])
            _check_columns(mdata, adata, given, modality=modality)
            if writes and mdata.isbacked:
                msg = (
                    f"Expected `{names[0]}` in memory, found a MuData in a file. Read it with `mudata.read_h5mu(path)`."
                )
                raise ValueError(msg)
            is_copy = writes and given["copy"]
            if is_copy:
                given["copy"] = False
                given[names[0]] = mdata = mdata.copy()
        given |= {name: resolved(given[name], modality, name=name) for name in names}
        result = function(*bound.args, **bound.kwargs)
        if not (is_mudata(mdata) and writes) or result is not None:
            return result
        if mdata.is_view:
            mdata.obs = mdata.obs.copy()  # any assignment makes a view actual; it keeps what was written
        return mdata if is_copy else None

    return cast("Function", wrapper)


def is_mudata(value: object) -> bool:
    """Return whether a value is a MuData; nobody has one before mudata is imported."""
    return "mudata" in sys.modules and isinstance(value, sys.modules["mudata"].MuData)


def resolved(value: Any, modality: str | None, *, name: str) -> Any:
    """Put modalities in the place of a MuData, or of those among the values of a mapping."""
    if is_mudata(value):
        if modality is None:
            example = next(iter(value.mod), "rna")
            msg = (
                f"Expected an AnnData in `{name}`, found a MuData and no modality. "
                f"Pass one of its modalities, such as `{name}[{example!r}]`."
            )
            raise TypeError(msg)
        return modality_of(value, modality, name=name)
    if isinstance(value, Mapping) and any(map(is_mudata, value.values())):
        return {key: resolved(entry, modality, name=f"{name}[{key!r}]") for key, entry in value.items()}
    return value


def modality_of(mdata: MuData, modality: str | None, *, name: str) -> AnnData:
    """Return the AnnData of one modality itself, not a copy; ``name`` is what messages call ``mdata``."""
    names = list(mdata.mod)
    if modality not in names:
        example = names[0] if names else "rna"
        msg = (
            f"Expected `modality` to be one of {names}, those of the MuData in `{name}`, found {modality!r}. "
            f"Pass one of them, for example `modality={example!r}`."
        )
        raise ValueError(msg)
    adata = mdata.mod[modality]
    if is_mudata(adata):
        msg = (
            f"Expected an AnnData in the modality {modality!r} of `{name}`, found a MuData. "
            f"Pass `{name}[{modality!r}]` with one of its modalities."
        )
        raise TypeError(msg)
    return adata


def _check_annotated(value: object) -> None:
    """Raise if a value has no annotations of observations."""
    if not (hasattr(value, "obs") and hasattr(value, "uns")):
        msg = (
            f"Expected `adata` to be an AnnData, found {type(value).__name__}. "
            "Read a file with `anndata.read_h5ad(path)`, or create an AnnData from an array with `anndata.AnnData(array)`."
        )
        raise TypeError(msg)


def _check_use(value: object, modality: str | None, *, name: str) -> None:
    """Raise if a modality is named where there is none."""
    inside = value.values() if isinstance(value, Mapping) else (value,)
    if modality is not None and not any(map(is_mudata, inside)):
        msg = (
            f"Expected a MuData in `{name}` for `modality={modality!r}`, found {type(value).__name__}. Omit `modality`."
        )
        raise TypeError(msg)


def _check_columns(mdata: MuData, adata: AnnData, arguments: Mapping[str, Any], *, modality: str) -> None:
    """Raise if a column that is asked for is in the table of all modalities alone."""
    for argument, value in arguments.items():
        if not argument.endswith(("_key", "_keys")):
            continue
        keys = [value] if isinstance(value, str) else value if isinstance(value, Iterable) else ()
        for key in keys:
            if not isinstance(key, str) or key in adata.obs or key not in mdata.obs:
                continue
            own = key.removeprefix(f"{modality}:")
            advice = (
                f"Pass {own!r}" if own in adata.obs else f"Run `mdata.push_obs([{key!r}], mods=[{modality!r}])` first"
            )
            msg = (
                f"Expected {key!r} (`{argument}`) in `mdata[{modality!r}].obs`, found it only in `mdata.obs`, which is "
                f"not used. {advice}."
            )
            raise KeyError(msg)


def read_annotations(adata: AnnData) -> None:
    """Read the tables and ``uns`` of a lazy AnnData in place, so that they can be written to."""
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
