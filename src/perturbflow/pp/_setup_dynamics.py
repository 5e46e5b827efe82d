"""Register where AnnData keeps what dynamics are fitted to."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from perturbflow._checks import check_columns, check_key, check_text, check_type, check_unique_names, listing, nearest
from perturbflow.pp._bin_pseudotime import MIN_TIMES, check_distinct_times, check_fields
from perturbflow.pp._check_labels import check_values, control_labels
from perturbflow.screen._fields import FIELDS_KEY, check_gene_names, check_in_memory, read_fields, text_column, writable
from perturbflow.screen._labels import naming
from perturbflow.screen._modality import takes_modality
from perturbflow.store._keys import check_registration
from perturbflow.trajectories._fields import (
    DYNAMICS_FIELDS_KEY,
    DYNAMICS_PRIOR_KEY,
    DynamicsFields,
    check_not_merged,
    check_times_differ,
    clamped_genes,
    finite_expression,
    time_column,
    trajectory_groups,
    write_dynamics_fields,
)
from perturbflow.trajectories._snapshot_fields import SnapshotFields, snapshot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from networkx import DiGraph

logger = logging.getLogger(__name__)


@takes_modality
def setup_dynamics(
    adata: AnnData | MuData,
    *,
    time_key: str | None = None,
    trajectory_key: str | None = None,
    regulators: Sequence[str] | str | None = None,
    prior: pd.DataFrame | DiGraph | None = None,
    perturbation_key: str | None = None,
    perturbation_type_key: str | None = None,
    control: str | Sequence[str] = "control",
    separator: str = "+",
    layer: str | None = None,
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Register the columns and genes to which dynamics are fitted.

    All inputs are checked before anything is written. Calling the function again replaces the registered fields.

    Without ``time_key`` the cells are a snapshot: every condition is assumed to be at steady state, and dynamics are fitted
    to the covariation of its cells and to the effects of perturbations. Fields that were registered by
    :func:`perturbflow.pp.setup_perturbation` are used by default.

    Parameters
    ----------
    adata
        Cells, or means of cells (see :func:`~perturbflow.pp.bin_pseudotime`), with finite expression on any scale: an
        array or a CSR or CSC matrix. A view becomes a copy, with a warning.
    time_key
        Column of ``obs`` with the time or pseudotime, in one unit, as numbers or as text ("0", "6", "12"). Cells with the
        same time are replicates and are averaged. By default the cells are a snapshot.
    trajectory_key
        Column of ``obs`` with the trajectory of every cell, such as a donor, a lineage or a well. By default there is one
        trajectory. Every trajectory, and every perturbation of it, needs three distinct times. Not for snapshots.
    regulators
        Genes that may regulate others: their names, or the name of a boolean column of ``var``. By default all genes.
    prior
        Known network: a table with the columns ``source`` (regulator), ``target`` and, optionally, ``weight`` (finite, not
        0, by default 1; its sign is that of the regulation), such as ``decoupler.op.collectri()``, or a directed networkx
        graph. Edges of unmeasured genes, and from genes that are not ``regulators``, are omitted and logged. Not for
        snapshots.
    perturbation_key
        Column of ``obs`` with the intervention on every cell: ``control``, or the genes that are held at their observed
        level ("GATA1", "GATA1+SPI1"), in any order. Their own regulation is not fitted in these cells. By default there
        are no interventions, or, in a snapshot, those of a registered screen.
    perturbation_type_key
        Column of ``obs`` with the type of the intervention on every cell of a snapshot, such as knock-down or activation.
        Different types on the same gene are different conditions.
    control
        One or several labels of cells without intervention; the first represents all of them.
    separator
        Separator of the genes of a label.
    layer
        Layer with the expression; by default ``X``.

    Returns
    -------
    None, or the copy. Sets:

    `adata.uns["dynamics_fields"]`
        The names above, and the regulators in the order of ``var_names``; without ``time_key`` for a snapshot.
    `adata.varp["dynamics_prior"]` : CSR, float32
        Weights of the prior network, where the row regulates the column; only with a ``prior``.

    Raises
    ------
    KeyError
        If a column, the layer or a column of the prior is missing.
    TypeError
        If an argument or the expression has the wrong type.
    ValueError
        If a column "trajectory" or "lineage" exists but is not passed; times are missing, infinite, not numeric or all
        equal, or a trajectory has fewer than three; a trajectory or perturbation is missing; a perturbation, a regulator
        or all edges of the prior do not match any gene; regulators, edges or genes are repeated; or expression is not
        finite.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, perturbflow as pf
    >>> time = np.tile([0.0, 1.0, 2.0, 4.0], 2)
    >>> adata = anndata.AnnData(
    ...     np.exp(-np.outer(time, [0.5, 1.0])),
    ...     obs=pd.DataFrame({"time": time, "donor": ["a"] * 4 + ["b"] * 4}, index=[f"cell_{i}" for i in range(8)]),
    ...     var=pd.DataFrame(index=["GATA1", "SPI1"]),
    ... )
    >>> prior = pd.DataFrame({"source": ["GATA1"], "target": ["SPI1"], "weight": [-1.0]})
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="donor", regulators=["GATA1"], prior=prior)
    >>> adata.varp["dynamics_prior"].toarray()
    array([[ 0., -1.],
           [ 0.,  0.]], dtype=float32)
    """
    first, *others = control_labels(control)
    shared: dict[str, Any] = {"perturbation_key": perturbation_key, "control": first, "other_controls": tuple(others)}
    shared |= {"separator": separator, "layer": layer}
    if time_key is None:
        given = {"trajectory_key": trajectory_key, "prior": prior}
        if named := [f"`{name}`" for name, value in given.items() if value is not None]:
            msg = (
                f"Expected {' and '.join(named)} only for cells along time, found no `time_key`. Pass the column with the time, "
                "or omit them."
            )
            raise ValueError(msg)
        snapshot = SnapshotFields(perturbation_type_key=perturbation_type_key, **shared)
        return _setup_snapshot(adata, snapshot, regulators=regulators, copy=copy)
    if perturbation_type_key is not None:
        msg = (
            f"Expected `perturbation_type_key` only without a time, found {perturbation_type_key!r} together with "
            f"`time_key={time_key!r}`. Make each type of perturbation a separate trajectory in `trajectory_key`."
        )
        raise ValueError(msg)
    fields = DynamicsFields(time_key=time_key, trajectory_key=trajectory_key, **shared)
    check_fields(adata, fields)
    _check_place(adata)
    finite_expression(adata, layer)
    genes = _regulators(adata, regulators)
    network = None if prior is None else _prior(adata, prior, regulators=genes)
    fields = replace(fields, regulators=genes, has_prior=network is not None)
    n_trajectories = _check_times(adata, fields)

    adata = writable(adata, copy=copy)
    write_dynamics_fields(adata, fields, network)
    logger.info(
        "Registered %d trajectories of %d cells, with %d regulators of %d genes.",
        n_trajectories,
        adata.n_obs,
        len(genes),
        adata.n_vars,
    )
    return adata if copy else None


def _setup_snapshot(
    adata: AnnData, fields: SnapshotFields, *, regulators: Sequence[str] | str | None, copy: bool
) -> AnnData | None:
    """Register cells without a time."""
    check_in_memory(adata)
    _check_place(adata)
    fields = snapshot_fields(adata, replace(fields, regulators=_regulators(adata, regulators)))
    adata = writable(adata, copy=copy)
    write_dynamics_fields(adata, fields, None)
    return adata if copy else None


def _check_place(adata: AnnData) -> None:
    """Raise if something else is registered under the names of dynamics, or genes occur twice."""
    check_registration(adata, DYNAMICS_FIELDS_KEY, beside=[("varp", DYNAMICS_PRIOR_KEY)])
    check_gene_names(adata)


def _check_times(adata: AnnData, fields: DynamicsFields) -> int:
    """Raise unless labels name genes and every trajectory has enough times; return the number of trajectories."""
    time = time_column(adata, fields.time_key)
    groups, codes = trajectory_groups(adata, fields)
    if fields.trajectory_key is not None:
        check_values(set(groups["trajectory"]), key=fields.trajectory_key)
    clamped_genes(adata, groups["perturbation"].tolist(), fields)
    check_times_differ(time, fields.time_key)
    advice = "Remove these cells, or join trajectories in `trajectory_key`."
    check_distinct_times(time, groups["name"], codes, least=MIN_TIMES, advice=advice)
    check_not_merged(adata, fields)
    return len(groups)


def _regulators(adata: AnnData, regulators: Sequence[str] | str | None) -> tuple[str, ...]:
    """Return the names of the regulators, in the order of the genes."""
    if regulators is None:
        return tuple(map(str, adata.var_names))
    if isinstance(regulators, str):
        hint = "Pass a boolean column, or a list of gene names."
        check_key(regulators, adata.var.columns, where="adata.var", hint=hint)
        column = adata.var[regulators]
        if not pd.api.types.is_bool_dtype(column) or column.isna().any():
            msg = f"Expected booleans in `adata.var[{regulators!r}]`, found values of type {column.dtype}. {hint}"
            raise TypeError(msg)
        chosen = set(adata.var_names[column.to_numpy(dtype=bool)])
    else:
        check_type(regulators, Iterable, name="regulators", expected="names of genes, or a column of `adata.var`")
        names = list(regulators)
        for name in names:
            check_type(name, str, name="regulators", expected="names of genes, or a column of `adata.var`")
        check_unique_names(names, what="`regulators`", hint="Name every gene once.")
        _check_genes(
            adata, names, what="regulators", hint="Leave them out: `[g for g in regulators if g in adata.var_names]`."
        )
        chosen = set(names)
    if not chosen:
        msg = "Expected at least one regulator in `regulators`, found none. Omit it to use all genes as regulators."
        raise ValueError(msg)
    return tuple(gene for gene in map(str, adata.var_names) if gene in chosen)


def _check_genes(adata: AnnData, names: Iterable[str], *, what: str, hint: str) -> None:
    """Raise unless all names are genes."""
    unknown = [name for name in dict.fromkeys(names) if name not in adata.var_names]
    if unknown:
        msg = (
            f"Expected {what} to be genes in `adata.var_names`, found {len(unknown)} that are not: {listing(unknown)}. "
            f"The most similar genes to {unknown[0]!r} are {nearest(unknown[0], adata.var_names, n=3)}. {hint}"
        )
        raise ValueError(msg)


def _prior(adata: AnnData, prior: pd.DataFrame | DiGraph, *, regulators: tuple[str, ...]) -> sparse.csr_matrix:
    """Weights of a prior network (d, d), row regulates column."""
    edges = _edges(prior)
    ends = ["source", "target"]
    for end in ends:
        wrong = [name for name in edges[end] if not isinstance(name, str)]
        if wrong:
            msg = f"Expected names of genes in `prior[{end!r}]`, found {listing(wrong)}. Remove or name them."
            raise TypeError(msg)
    is_known = edges[ends].isin(adata.var_names).all(axis=1).to_numpy()
    if not is_known.any():
        hint = "Use the gene names of `adata.var_names` in `prior`, or omit `prior`."
        _check_genes(adata, edges[ends].to_numpy().ravel(), what="sources and targets of `prior`", hint=hint)
    if not is_known.all():
        logger.warning(
            "Left out %d of %d edges of the prior, whose source or target is not in `adata.var_names`.",
            (~is_known).sum(),
            len(edges),
        )
        edges = edges[is_known].reset_index(drop=True)
    weight = pd.to_numeric(edges["weight"], errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(weight) | (weight == 0)
    if bad.any():
        found = edges.loc[bad, [*ends, "weight"]].itertuples(index=False, name=None)
        msg = (
            f"Expected weights of `prior` to be finite numbers other than 0, found {bad.sum()} that are not: "
            f"{listing(found, limit=3)}. Remove these edges or correct their weights."
        )
        raise ValueError(msg)

    again = edges.duplicated(ends)
    if again.any():
        repeated = list(dict.fromkeys(edges.loc[again, ends].itertuples(index=False, name=None)))
        # No mean: of opposite weights it would be 0, which is no edge.
        unique = "prior.drop_duplicates(['source', 'target'], keep='last')"
        if not isinstance(prior, pd.DataFrame):
            unique = "networkx.DiGraph(prior)"
        elif "weight" in prior:
            unique = unique.replace("prior.", "prior.astype({'weight': float}).sort_values('weight', key=abs).")
        msg = (
            f"Expected every edge of `prior` once, found repeated {listing(repeated)}. Keep one of each, the strongest if "
            f"they differ: `{unique}`."
        )
        raise ValueError(msg)

    allowed = edges["source"].isin(regulators).to_numpy()
    if not allowed.any():
        msg = (
            f"Expected edges from the {len(regulators)} regulators in `prior`, found none among {len(edges)} edges. "
            "Add their sources to `regulators`, or omit `prior`."
        )
        raise ValueError(msg)
    if not allowed.all():
        logger.info(
            "Left out %d of %d edges of the prior, whose sources are not regulators.", (~allowed).sum(), len(edges)
        )
    source, target = (adata.var_names.get_indexer(edges.loc[allowed, end]) for end in ends)
    values = weight[allowed].astype(np.float32)
    return sparse.csr_matrix((values, (source, target)), shape=(adata.n_vars, adata.n_vars))


def _edges(prior: pd.DataFrame | DiGraph) -> pd.DataFrame:
    """Return the edges of a prior as a table with the columns source, target and weight."""
    if isinstance(prior, pd.DataFrame):
        for column in ("source", "target"):
            check_key(column, prior.columns, where="prior", hint="Rename the columns of `prior`.")
        edges = prior.reset_index(drop=True)
        edges = edges if "weight" in edges else edges.assign(weight=1.0)
        edges = edges[["source", "target", "weight"]]
    else:
        import networkx as nx

        check_type(prior, nx.DiGraph, name="prior", expected="a DataFrame or a directed graph of networkx")
        edges = pd.DataFrame(list(prior.edges.data("weight", default=1.0)), columns=["source", "target", "weight"])
    if edges.empty:
        msg = "Expected at least one edge in `prior`, found none. Omit `prior`."
        raise ValueError(msg)
    return edges


def snapshot_fields(adata: AnnData, fields: SnapshotFields) -> SnapshotFields:
    """Check the fields of a snapshot; what is not named is taken from a registered screen."""
    if fields.perturbation_key is None and FIELDS_KEY in adata.uns:
        screen = read_fields(adata)
        first, *others = screen.controls
        fields = replace(
            fields,
            perturbation_key=screen.perturbation_key,
            perturbation_type_key=fields.perturbation_type_key or screen.perturbation_type_key,
            control=first,
            other_controls=tuple(others),
            separator=screen.separator,
            layer=fields.layer or screen.layer,
            context_keys=screen.context_keys,
        )
    for name in ("perturbation_key", "perturbation_type_key", "layer"):
        if getattr(fields, name) is not None:
            check_text(getattr(fields, name), name=name)
    check_text(fields.separator, name="separator")
    if fields.perturbation_type_key is not None and fields.perturbation_key is None:
        msg = (
            f"Expected `perturbation_key` together with `perturbation_type_key`, found only the latter, "
            f"{fields.perturbation_type_key!r}. Pass the column with the perturbed genes."
        )
        raise ValueError(msg)
    keys = [fields.perturbation_key, fields.perturbation_type_key, *fields.context_keys]
    check_columns(adata.obs.columns, [key for key in keys if key is not None])
    if fields.perturbation_key is not None:
        _check_names_genes(adata, fields)
    cells = snapshot_of(adata, fields)
    logger.info(
        "Registered a snapshot of %d cells under %d perturbations of measured genes, with %d regulators of %d genes.",
        len(cells.condition),
        len(cells.names) - 1,
        len(fields.regulators),
        adata.n_vars,
    )
    return fields


def _check_names_genes(adata: AnnData, fields: SnapshotFields) -> None:
    """Raise unless some label names measured genes."""
    labels = sorted(set(text_column(adata, str(fields.perturbation_key))))
    named = sorted({gene for label in labels for gene in fields.genes_of(label)})
    if named and not any(name in adata.var_names for name in named):
        msg = (
            f"Expected labels of `adata.obs[{fields.perturbation_key!r}]` that name genes of `adata.var_names`, or "
            f"{naming(fields.controls)}, found {listing(named)}, none of which is a gene. The most similar genes to "
            f"{named[0]!r} are {nearest(named[0], adata.var_names, n=3)}. Label cells with the perturbed genes, joined by "
            f"{fields.separator!r}; types of perturbations belong into `perturbation_type_key`."
        )
        raise ValueError(msg)
