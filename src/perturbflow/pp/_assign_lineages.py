"""Cells of every lineage, from how likely each of them becomes what, or from paths through clusters."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbflow._checks import (
    check_between,
    check_key,
    check_none,
    check_text,
    check_type,
    check_unique_names,
    listing,
    nearest,
)
from perturbflow._warnings import warn
from perturbflow.pp._bin_pseudotime import parts_of_genes
from perturbflow.screen._fields import check_in_memory, text_column
from perturbflow.screen._modality import takes_modality
from perturbflow.store._keys import check_key_added
from perturbflow.trajectories._fields import check_times_differ, time_column

if TYPE_CHECKING:
    from mudata import MuData
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

START = 1 / 20  # share of the cells that are taken for the start
LEAST = 0.01  # what a probability at the start counts as where it is smaller, so that rounding makes no members
_HINT = "Pass the key of fate probabilities computed by another tool, such as 'lineages_fwd' of CellRank."


@takes_modality
def assign_lineages(
    adata: AnnData | MuData,
    key: str = "lineages_fwd",
    *,
    time_key: str,
    names: Sequence[str] | None = None,
    min_share: float = 0.5,
    groupby: str | None = None,
    paths: Mapping[str, Sequence[str]] | None = None,
    key_added: str = "lineage",
    modality: str | None = None,
) -> AnnData:
    """Give every lineage the cells that may still become it: a row for every pair of a lineage and such a cell.

    A trajectory starts in the trunk, which all lineages share: a cell stays in a lineage as long as its probability is at
    least ``min_share`` of what it is at the start, so that cells that are not committed are in several lineages. Without
    probabilities, ``groupby`` and ``paths`` say through which clusters each lineage goes; a cluster may be in several.

    Parameters
    ----------
    adata
        Cells. They are not changed.
    key
        Entry of ``obsm`` with one column per lineage: probabilities of fates (``"lineages_fwd"`` of CellRank,
        ``"palantir_fate_probabilities"`` of Palantir), weights of lineages, or booleans that say which cells are of which
        lineage (``"branch_masks"`` of Palantir). A missing value is 0.
    time_key
        Column of ``obs`` with the time or pseudotime. The first twentieth of the cells that have one is the start, with
        all that are at the same time as the last of them.
    names
        Names of the lineages. By default the columns of a table, or what CellRank calls them. Those of ``paths`` have them.
    min_share
        Smallest probability relative to the mean at the start, between 0 and 1. Not of ``paths``.
    groupby
        Column of ``obs`` with clusters or types, instead of ``key``.
    paths
        Clusters of every lineage in the order of time, by the name of the lineage.
    key_added
        Column of ``obs`` with the lineage.

    Returns
    -------
    A new AnnData, lineage by lineage, with the names "<cell>-<lineage>" and the categorical column ``key_added``: the
    ``trajectory_key`` of :func:`~perturbflow.pp.bin_pseudotime` and :func:`~perturbflow.pp.setup_dynamics`. Expression,
    layers, ``obs``, what describes genes and ``uns``, except registered fields and neighbourhoods of cells, are copied.

    Raises
    ------
    KeyError
        If there is no such entry, column or cluster.
    TypeError
        If an argument or the entry is of the wrong type.
    ValueError
        If lineages have no names or as many as something else, values are negative or infinite, a lineage has no cell with
        a time, or all times are the same.

    Notes
    -----
    Rows of one cell in several lineages are not independent. What is held out by whole trajectories then shares the trunk
    with what is fitted, and looks easier to predict than a new lineage would be.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, perturbflow as pf
    >>> obs = pd.DataFrame({"pseudotime": [0.0, 1.0, 1.0]}, index=["stem", "red", "white"])
    >>> adata = anndata.AnnData(np.ones((3, 2)), obs=obs)
    >>> adata.obsm["fates"] = pd.DataFrame({"erythroid": [0.8, 1, 0], "myeloid": [0.2, 0, 1]}, index=obs.index)
    >>> pf.pp.assign_lineages(adata, "fates", time_key="pseudotime").obs["lineage"].to_dict()
    {'stem-erythroid': 'erythroid', 'red-erythroid': 'erythroid', 'stem-myeloid': 'myeloid', 'white-myeloid': 'myeloid'}
    """
    check_in_memory(adata)
    check_text(key, name="key")
    check_text(time_key, name="time_key")
    check_key_added(adata, key_added, "lineage", beside=[("obs", key_added)])
    check_between(min_share, 0, 1, name="min_share")
    time = time_column(adata, time_key, allow_missing=True)
    check_times_differ(time, time_key)
    if groupby is not None or paths is not None:
        member, lineages = members_of_paths(adata, groupby, paths, time=time, names=names)
    else:
        member, lineages = _members_of_fates(adata, key, time, names=names, min_share=min_share)
    source = f"`adata.obsm[{key!r}]`" if groupby is None else "`paths`"
    timeless = [name for name, column in zip(lineages, member.T, strict=True) if np.isnan(time[column]).all()]
    expected = f"cells with a time in `adata.obs[{time_key!r}]` in every lineage"
    hint = f"Leave these lineages of {source} out, or give their cells a time."
    check_none(timeless, expected, found="none in ", hint=hint)
    return _rows_of_members(adata, member, lineages, key_added=key_added)


def _members_of_fates(
    adata: AnnData, key: str, time: NDArray[np.float64], *, names: Sequence[str] | None, min_share: float
) -> tuple[NDArray[np.bool_], list[str]]:
    """Return which cells may still become which lineage (n, lineages), and the names of these."""
    check_key(key, adata.obsm, where="adata.obsm", hint=_HINT)
    entry = adata.obsm[key]
    values = _values(entry, key)
    lineages = _names(entry, names, key=key, n_lineages=values.shape[1])
    empty = [name for name, column in zip(lineages, values.T, strict=True) if not column.any()]
    expected = f"cells of every lineage in `adata.obsm[{key!r}]`"
    check_none(empty, expected, found="none of ", hint="Leave these columns out.")

    known = np.sort(time[~np.isnan(time)])
    # All cells of the last of these times, which would else be chosen by their order.
    start = values[time <= known[max(int(len(known) * START), 1) - 1]].mean(axis=0)
    return (values > 0) & (values >= min_share * np.maximum(start, LEAST)), lineages


def _rows_of_members(adata: AnnData, member: NDArray[np.bool_], lineages: list[str], *, key_added: str) -> AnnData:
    """Return a row for every pair of a lineage and a cell of it."""
    lineage, cell = np.nonzero(member.T)
    n_left_out = int((~member.any(axis=1)).sum())
    if n_left_out:
        logger.warning("Left out %d of %d cells, which belong to no lineage.", n_left_out, adata.n_obs)
    obs = adata.obs.iloc[cell].copy()
    obs[key_added] = pd.Categorical.from_codes(lineage, categories=lineages)
    obs.index = [f"{name}-{lineages[which]}" for name, which in zip(adata.obs_names[cell], lineage, strict=True)]
    return AnnData(
        None if adata.X is None else adata.X[cell],
        obs=obs,
        layers={name: layer[cell] for name, layer in adata.layers.items() if name is not None},  # None is X
        **parts_of_genes(adata),
    )


def _values(entry: Any, key: str) -> NDArray[np.float64]:
    """Values of an entry (n, lineages), 0 where they are missing."""
    advice = "Provide one column of probabilities, weights or booleans per lineage."
    try:
        values = np.nan_to_num(np.asarray(entry, dtype=np.float64), nan=0.0, posinf=np.inf)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 2 or not values.shape[1]:
        msg = f"Expected a matrix of numbers in `adata.obsm[{key!r}]`, found {type(entry).__name__}. {advice}"
        raise TypeError(msg)
    if (wrong := ~np.isfinite(values) | (values < 0)).any():
        msg = f"Expected numbers of at least 0 in `adata.obsm[{key!r}]`, found {listing(values[wrong], limit=3)}. {advice}"
        raise ValueError(msg)
    return values


def _names(entry: Any, names: Sequence[str] | None, *, key: str, n_lineages: int) -> list[str]:
    """Names of the lineages: those that are given, or those that the entry has."""
    if names is None:
        names = getattr(entry, "columns", getattr(entry, "names", None))  # of a table, or of CellRank's `Lineage`
    if names is None:
        msg = f"Expected `names` for the columns of `adata.obsm[{key!r}]`, found none. Provide one name per column."
        raise ValueError(msg)
    found = list(map(str, names))
    if len(found) != n_lineages:
        msg = (
            f"Expected {n_lineages} names of lineages, one per column of `adata.obsm[{key!r}]`, found {len(found)}: "
            f"{listing(found)}. Provide one name per column."
        )
        raise ValueError(msg)
    check_unique_names(found, what="names of lineages", hint="Use every name once.")
    return found


def members_of_paths(
    adata: AnnData,
    groupby: str | None,
    paths: Mapping[str, Sequence[str]] | None,
    *,
    time: NDArray[np.float64],
    names: Sequence[str] | None,
) -> tuple[NDArray[np.bool_], list[str]]:
    """Return which cells are of which lineage (n, lineages), by the clusters on its path, and the names."""
    if groupby is None or paths is None or names is not None:
        given = [
            name for name, value in (("groupby", groupby), ("paths", paths), ("names", names)) if value is not None
        ]
        msg = f"Expected `groupby` and `paths` together and without `names`, found {given}. Lineages are named in `paths`."
        raise ValueError(msg)
    check_key(groupby, adata.obs.columns, where="adata.obs", hint="Name the column with the clusters.")
    check_type(paths, Mapping, name="paths", expected="the clusters of every lineage by its name")
    clusters = text_column(adata, groupby, missing="")
    known = sorted({*clusters} - {""})
    lineages = list(map(str, paths))
    member = np.zeros((adata.n_obs, len(lineages)), dtype=bool)
    for column, (name, path) in enumerate(paths.items()):
        if isinstance(path, str) or not isinstance(path, Sequence) or not len(path):
            msg = f"Expected a list of clusters in `paths[{name!r}]`, found {path!r}. Name at least one cluster."
            raise TypeError(msg)
        steps = list(map(str, path))
        check_unique_names(steps, what=f"`paths[{name!r}]`", hint="Name every cluster once.")
        if unknown := [step for step in steps if step not in known]:
            msg = (
                f"Expected clusters of `adata.obs[{groupby!r}]` in `paths[{name!r}]`, found {listing(unknown)}. The names most "
                f"similar to {unknown[0]!r} are {nearest(unknown[0], known, n=3)}."
            )
            raise KeyError(msg)
        member[:, column] = np.isin(clusters, steps)
        _warn_of_order(name, steps, clusters, time)
    if not lineages:
        msg = "Expected at least one lineage in `paths`, found none. Name the clusters of each."
        raise ValueError(msg)
    return member, lineages


def _warn_of_order(name: str, steps: list[str], clusters: NDArray[np.object_], time: NDArray[np.float64]) -> None:
    """Say which clusters of a path are earlier than the one before."""
    inside = [time[(clusters == step) & ~np.isnan(time)] for step in steps]
    middle = [float(np.median(each)) if len(each) else np.nan for each in inside]
    early = [later for later, before, after in zip(steps[1:], middle[:-1], middle[1:], strict=True) if after < before]
    if early:
        warn(
            f"On the path {name!r}, the median time of {listing(early)} is earlier than that of the preceding cluster."
        )
