"""Lineages as paths through clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from perturbflow._checks import check_key, check_type, check_unique_names, listing, nearest
from perturbflow._warnings import warn
from perturbflow.screen._fields import text_column

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def members_of_paths(
    adata: AnnData,
    groupby: str | None,
    paths: Mapping[str, Sequence[str]] | None,
    *,
    time: NDArray[np.float64],
    names: Sequence[str] | None,
) -> tuple[NDArray[np.bool_], list[str]]:
    """Return which cells are of which lineage (n, lineages), by the clusters that each goes through, and the names.

    A warning says which clusters are earlier than the one before. ``names`` must not be given: paths have names.
    """
    if groupby is None or paths is None or names is not None:
        given = [
            name for name, value in (("groupby", groupby), ("paths", paths), ("names", names)) if value is not None
        ]
        msg = f"Expected `groupby` and `paths` together and without `names`, found {given}. Name lineages in `paths`."
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
                f"Expected clusters of `adata.obs[{groupby!r}]` in `paths[{name!r}]`, found {listing(unknown)}. The most "
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
        warn(f"On the path {name!r} the median time of {listing(early)} is before that of the cluster before.")
