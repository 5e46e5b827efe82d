"""Input of the plots of dynamics: edges, and results along time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from perturbflow._checks import check_key, nearest
from perturbflow.predict._dynamics_store import read_edges, read_pairs

_MAKERS = {
    "dynamics": "pf.tl.fit_dynamics(adata, key_added={key!r})",
    "forecast": "pf.tl.forecast(adata, key_added={key!r})",
    "knockout": "pf.tl.simulate_knockout(adata, genes, key_added={key!r})",
}


def read_result(adata: AnnData, key: str, *, kind: str, entry: str) -> Mapping[str, Any]:
    """Return ``adata.uns[key]``; KeyError with the call that makes it if it is missing or has no ``entry``."""
    hint = f"Run `{_MAKERS[kind].format(key=key)}` first."
    check_key(key, adata.uns, where="adata.uns", hint=hint)
    result = adata.uns[key]
    check_key(entry, result if isinstance(result, Mapping) else (), where=f"adata.uns[{key!r}]", hint=hint)
    return result


def strongest_edges(adata: AnnData, key: str) -> pd.DataFrame:
    """Edges of a graph with source, target, weight, sign and confidence, the strongest first.

    The strength of an edge is confidence times absolute weight.
    """
    table = read_edges(adata, key)
    edges = pd.DataFrame(
        {
            "source": table["source"].astype(str).to_numpy(dtype=object),
            "target": table["target"].astype(str).to_numpy(dtype=object),
            "weight": table["weight"].to_numpy(dtype=np.float64),
            "sign": table["sign"].to_numpy(dtype=np.int64),
            "confidence": table["confidence"].to_numpy(dtype=np.float64),
        }
    )
    edges["strength"] = edges["confidence"] * edges["weight"].abs()
    return edges.sort_values("strength", ascending=False, kind="stable", ignore_index=True)


def ranked_pairs(adata: AnnData, key: str) -> pd.DataFrame:
    """All pairs of a graph, those of most evidence first, with whether it keeps them as ``kept``."""
    table = read_pairs(adata, key)
    if "evidence" not in table:
        table = table.assign(evidence=table["confidence"] * table["weight"].abs())
    if "kept" not in table:
        table = table.assign(kept=table["weight"] != 0)
    table = table[table["source"] != table["target"]]
    return table.sort_values("evidence", ascending=False, kind="stable", ignore_index=True)


def positions_of(names: Iterable[str], available: Iterable[Any], *, parameter: str, where: str) -> NDArray[np.intp]:
    """Positions of names among those available; KeyError with the most similar ones if one is unknown."""
    known, names = [str(name) for name in available], list(names)
    places = pd.Index(known).get_indexer(pd.Index(names, dtype=object))
    unknown = [name for name, place in zip(names, places, strict=True) if place < 0]
    if unknown:
        similar = {name: nearest(str(name), known, n=3) for name in unknown[:5]}
        rest = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        msg = (
            f"Expected `{parameter}` to be from {where}, found {unknown[:5]}{rest}. "
            f"The most similar are {similar if len(similar) > 1 else next(iter(similar.values()))}."
        )
        raise KeyError(msg)
    return np.asarray(places, dtype=np.intp)


def as_list(names: str | Sequence[str], *, parameter: str) -> list[str]:
    """Return names, also a single one, as a list without repeats; ValueError if there are none."""
    found = list(dict.fromkeys([names] if isinstance(names, str) else names))
    if not found:
        msg = f"Expected `{parameter}` to name at least one, found none."
        raise ValueError(msg)
    return found
