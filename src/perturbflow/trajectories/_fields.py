"""Registered fields of cells over time: where they are in AnnData, and the trajectories they make."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._checks import (
    check_genes_of_fit,
    check_key,
    check_matrix,
    check_none,
    check_type,
    check_unique_names,
    listing,
    nearest,
)
from perturbflow.dynamics import Observed, Trajectory
from perturbflow.screen._fields import expression, text_column
from perturbflow.screen._labels import canonical_label, naming, parse_label

AGAIN = "Run `pf.pp.setup_dynamics(adata, ...)` again."


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellFields:
    """Registered fields of an AnnData for cells and what was done to them."""

    perturbation_key: str | None = None  # column of `obs` with the genes that an intervention holds
    control: str = "control"  # label of cells without intervention
    other_controls: tuple[str, ...] = ()  # further labels, which all stand for `control`
    separator: str = "+"  # what stands between the genes of a label
    layer: str | None = None  # layer with the expression; None for `X`
    regulators: tuple[str, ...] = ()  # genes that may regulate others

    @property
    def controls(self) -> tuple[str, ...]:
        """All labels of cells without intervention."""
        return (self.control, *self.other_controls)

    def genes_of(self, label: str) -> tuple[str, ...]:
        """Genes that a label names, none for cells without intervention."""
        return parse_label(label, control=self.controls, separator=self.separator)

    def canonical_labels(self, adata: AnnData) -> NDArray[np.object_]:
        """Label of every cell (n,), with genes in alphabetical order; the control where no perturbation is registered."""
        if self.perturbation_key is None:
            return np.full(adata.n_obs, self.control, dtype=object)
        codes, labels = pd.factorize(text_column(adata, self.perturbation_key))
        genes = map(self.genes_of, labels)
        known = [canonical_label(each, control=self.control, separator=self.separator) for each in genes]
        return np.array(known, dtype=object)[codes]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for AnnData; what is not set is left out."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        known = {name: value for name, value in values.items() if value not in (None, ()) or name == "regulators"}
        return {"has_prior": False} | {n: list(v) if isinstance(v, tuple) else v for n, v in known.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote, also after a file has turned lists into arrays."""
        kinds = {each.name: type(each.default) for each in dataclasses.fields(cls) if each.name in values}
        known: dict[str, Any] = {}
        for name, kind in kinds.items():
            value = values[name]
            known[name] = tuple(map(str, value)) if kind is tuple else bool(value) if kind is bool else str(value)
        return cls(**known)

    def check_present(self, adata: AnnData, *columns: str | None) -> None:
        """Check that columns, the layer and the regulators are still there."""
        for key in (*columns, self.perturbation_key):
            if key is not None:
                check_key(key, adata.obs.columns, where="adata.obs", hint=AGAIN)
        if self.layer is not None:
            check_key(self.layer, adata.layers, where="adata.layers", hint=AGAIN)
        missing = [gene for gene in self.regulators if gene not in adata.var_names]
        expected = f"the {len(self.regulators)} registered regulators in `adata.var_names`"
        check_none(missing, expected, found=f"that {len(missing)} are missing: ", hint=AGAIN)


DYNAMICS_FIELDS_KEY = "dynamics_fields"
DYNAMICS_PRIOR_KEY = "dynamics_prior"

_SETUP = "Run `pf.pp.setup_dynamics(adata, ...)` first."
TRAJECTORY_COLUMNS = ("trajectory", "lineage")  # of what `pp.assign_lineages` and the simulators write
_EVERYTHING = "all"  # the name of the one trajectory where cells are not told apart
_NUMBER_WITH_UNIT = re.compile(r"([^\d+-]*?)(\d+(?:\.\d+)?)(\D*)")  # "6 h", "day 3"


@dataclass(frozen=True)
class DynamicsFields(CellFields):
    """Registered fields of an AnnData that dynamics are fitted to."""

    time_key: str  # column of `obs` with the time or pseudotime
    trajectory_key: str | None = None  # column of `obs` with the trajectory
    has_prior: bool = False  # whether `varp["dynamics_prior"]` has a prior network


def write_dynamics_fields(adata: AnnData, fields: CellFields, prior: sparse.csr_matrix | None) -> None:
    """Write ``uns["dynamics_fields"]`` and ``varp["dynamics_prior"]``; without a prior an earlier one is removed."""
    adata.uns[DYNAMICS_FIELDS_KEY] = fields.to_dict()
    if prior is not None:
        adata.varp[DYNAMICS_PRIOR_KEY] = prior
    elif DYNAMICS_PRIOR_KEY in adata.varp:
        del adata.varp[DYNAMICS_PRIOR_KEY]


def read_dynamics_fields(adata: AnnData) -> DynamicsFields:
    """Read the registered fields and check that all they name is still there."""
    check_key(DYNAMICS_FIELDS_KEY, adata.uns, where="adata.uns", hint=_SETUP)
    if "time_key" not in adata.uns[DYNAMICS_FIELDS_KEY]:
        msg = (
            "Expected cells along time, found a snapshot registered. Run `pf.pp.setup_dynamics(adata, time_key=...)` if "
            "there is a time; `pf.tl.fit_dynamics`, `pf.tl.infer_graph` and `pf.tl.simulate_knockout` do not need one."
        )
        raise ValueError(msg)
    fields = DynamicsFields.from_dict(adata.uns[DYNAMICS_FIELDS_KEY])
    fields.check_present(adata, fields.time_key, fields.trajectory_key)
    if fields.has_prior:
        check_key(DYNAMICS_PRIOR_KEY, adata.varp, where="adata.varp", hint=AGAIN)
    return fields


def trajectories_of(adata: AnnData, fields: DynamicsFields) -> list[Trajectory]:
    """Collect the cells of every trajectory along time, whatever the order of the cells.

    There is one trajectory for every pair of a trajectory and a perturbation that has cells, those of control cells
    first, then in the order of the names, in which "2" precedes "10". Cells of equal time are averaged, and weigh their
    number. The name is that of the trajectory ("all" where none are registered); where a perturbation is registered,
    "<trajectory>|<perturbation>".
    """
    return [Trajectory(*each) for each in _courses(adata, fields)]


def observed_of(observed: object, fields: DynamicsFields, genes: Sequence[str]) -> list[Observed]:
    """Collect new cells, which have the columns and genes of the fit, as :func:`trajectories_of`, at one time or more."""
    from anndata import AnnData

    check_type(observed, AnnData, name="observed", expected="an AnnData of new cells")
    assert isinstance(observed, AnnData)
    check_genes_of_fit(genes, observed.var_names, where="observed.var_names")
    if not observed.n_obs:
        msg = "Expected cells in `observed`, found none. Pass at least one cell of every new trajectory."
        raise ValueError(msg)
    cells = observed[:, list(genes)]
    for key in (fields.time_key, fields.trajectory_key):
        if key is not None:
            check_key(key, cells.obs.columns, where="observed.obs", hint="Name the columns as in the cells of the fit.")
    fields.check_present(cells, fields.time_key, fields.trajectory_key)
    return [Observed(name, time, levels, clamped) for name, time, levels, _, clamped in _courses(cells, fields)]


def _courses(adata: AnnData, fields: DynamicsFields) -> Iterator[Any]:
    """Yield name, times (n,), mean levels (n, d), numbers of cells (n,) and held genes (d,) of every trajectory."""
    x = finite_expression(adata, fields.layer)
    time = time_column(adata, fields.time_key)
    groups, codes = trajectory_groups(adata, fields)
    clamped = clamped_genes(adata, groups["perturbation"].tolist(), fields)
    rows = pd.DataFrame({"group": codes, "time": time}).groupby(["group", "time"], sort=True).ngroup().to_numpy()
    _, first, n_cells = np.unique(rows, return_index=True, return_counts=True)
    values = mean_of_groups(x, rows, n_groups=len(n_cells))
    for number, name in enumerate(groups["name"]):
        mine = codes[first] == number
        yield name, time[first[mine]], values[mine], n_cells[mine].astype(np.float64), clamped[number]


def finite_expression(adata: AnnData, layer: str | None) -> Any:
    """Return ``X`` or a layer as it is stored; an error unless it is a matrix of finite numbers in memory."""
    x = expression(adata, layer)
    where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    check_matrix(x, where=where)
    values = x.data if sparse.issparse(x) else np.asarray(x)
    # The sum of finite numbers may overflow; only then are they looked at one by one.
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum(dtype=np.float64)
    if not np.isfinite(total) and not (finite := np.isfinite(values)).all():
        msg = (
            f"Expected finite expression in `{where}`, found {(~finite).sum()} NaN or infinite values. "
            "Remove these cells or genes, or replace the values."
        )
        raise ValueError(msg)
    return x


def time_column(adata: AnnData, key: str, *, allow_missing: bool = False) -> NDArray[np.float64]:
    """Times of all cells (n,), NaN where missing ones are allowed; text that is a number, such as "12", is read."""
    check_key(key, adata.obs.columns, where="adata.obs")
    column = adata.obs[key].astype("category").cat.remove_unused_categories()
    levels, codes = column.cat.categories, column.cat.codes.to_numpy()
    numbers = levels if levels.dtype.kind in "iuf" else pd.to_numeric(levels.astype(str), errors="coerce")
    numbers = numbers.to_numpy(dtype=np.float64)
    wrong = np.isnan(numbers)
    if wrong.any():
        is_wrong = np.append(wrong, False)[codes]
        msg = (
            f"Expected times in `adata.obs[{key!r}]` to be numbers, or text that is a number, "
            f"found {listing(levels[wrong].tolist())} of type {adata.obs[key].dtype} in {is_wrong.sum()} cells: "
            f"{listing(adata.obs_names[is_wrong], limit=3)}. {_as_numbers(levels, numbers, key)}"
        )
        raise ValueError(msg)
    time = np.append(numbers, np.nan)[codes]
    is_finite, is_known = f"~numpy.isinf(adata.obs[{key!r}].astype(float))", f"adata.obs[{key!r}].notna()"
    missing = np.isnan(time) & (not allow_missing)
    for bad, what, others in ((np.isinf(time), "infinite", is_finite), (missing, "missing", is_known)):
        if bad.any():
            msg = (
                f"Expected a finite time for every cell in `adata.obs[{key!r}]`, found it {what} in {bad.sum()} cells: "
                f"{listing(adata.obs_names[bad], limit=3)}. Fill in the times, or remove these cells with "
                f"`adata = adata[{others}].copy()`."
            )
            raise ValueError(msg)
    return time


def _as_numbers(levels: pd.Index, numbers: NDArray[np.float64], key: str) -> str:
    """Say how times become numbers of which not all are, given the different ones and NaN for what is no number."""
    column = f"adata.obs[{key!r}]"
    if levels.dtype.kind == "M":
        hours = f"(pandas.to_datetime({column}) - pandas.Timestamp({str(levels.min())!r})).dt.total_seconds() / 3600"
        return f"Convert dates to hours: `{column} = {hours}`."
    if levels.dtype.kind == "m":
        return f"Convert durations to hours: `{column} = pandas.to_timedelta({column}).dt.total_seconds() / 3600`."
    parts = [_NUMBER_WITH_UNIT.fullmatch(str(level)) for level in levels]
    units = {(part[1], part[3]) for part in parts if part is not None and float(part[2]) != 0}  # 0 is 0 in any unit
    if None not in parts and len(units) == 1:
        pattern = r"(\d+\.?\d*)"
        return f"Leave out the unit: `{column} = {column}.astype(str).str.extract({pattern!r}, expand=False).astype(float)`."
    shown = [
        f"{level!r}: {'...' if np.isnan(number) else f'{number:g}'}"
        for level, number in zip(levels, numbers, strict=True)
    ]
    mapping = "{" + ", ".join(shown[:10]) + ("}" if len(shown) <= 10 else ", ...}")
    return (
        f"Give every value a number in one unit, `{column} = {column}.map({mapping}).astype(float)`, or remove the cells "
        "that are at no time."
    )


def check_times_differ(time: NDArray[np.float64], key: str) -> None:
    """Raise if all cells that have a time have the same, or none has any."""
    known = time[~np.isnan(time)]
    if len(known) and (known != known[0]).any():
        return
    found = f"{known[0]:g} in all {len(known)} cells" if len(known) else f"none in all {len(time)} cells"
    msg = f"Expected times that differ in `adata.obs[{key!r}]`, found {found}. Pass the column with the time as `time_key`."
    raise ValueError(msg)


def check_not_merged(adata: AnnData, fields: DynamicsFields) -> None:
    """Raise if no trajectories are registered but there are some under a usual name: they would become one course."""
    roles = (fields.time_key, fields.perturbation_key)
    present = [name for name in TRAJECTORY_COLUMNS if name in adata.obs and name not in roles]
    several = {name: number for name in present if (number := int(adata.obs[name].nunique())) > 1}
    if fields.trajectory_key is None and several:
        name, number = next(iter(several.items()))
        msg = (
            f"Expected `trajectory_key`, because `adata.obs[{name!r}]` has {number} trajectories, found none: their cells would be "
            f"averaged into one trajectory. Pass the column, `trajectory_key={name!r}`, or remove it, `del adata.obs[{name!r}]`, "
            "if all cells follow one trajectory."
        )
        raise ValueError(msg)


def trajectory_groups(adata: AnnData, fields: DynamicsFields) -> tuple[pd.DataFrame, NDArray[np.intp]]:
    """Pairs of a trajectory and a perturbation that have cells, and the row of every cell among them (n,).

    Columns are ``name``, ``trajectory`` and ``perturbation`` (genes in alphabetical order), in the order of
    :func:`trajectories_of`.
    """
    trajectories = np.full(adata.n_obs, _EVERYTHING, dtype=object)
    perturbations = fields.canonical_labels(adata)
    if fields.trajectory_key is not None:
        trajectories = text_column(adata, fields.trajectory_key)
    codes, pairs = pd.factorize(pd.MultiIndex.from_arrays([trajectories, perturbations]))
    order = sorted(range(len(pairs)), key=lambda at: (pairs[at][1] != fields.control, *map(_natural, pairs[at])))
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    table = pd.DataFrame([pairs[at] for at in order], columns=["trajectory", "perturbation"], dtype=object)
    names = table["trajectory"]
    if fields.perturbation_key is not None:
        names = names + "|" + table["perturbation"]
    check_unique_names(names.tolist(), what="names of trajectories", hint="Do without '|' in names of trajectories.")
    table.insert(0, "name", names)
    return table, rank[codes]


def clamped_genes(adata: AnnData, labels: list[str], fields: DynamicsFields) -> NDArray[np.bool_]:
    """Genes that every label names (len(labels), d); an error if a label names anything else."""
    parts = list(map(fields.genes_of, labels))
    places = [adata.var_names.get_indexer(list(names)) for names in parts]
    unknown = {
        name: label
        for label, names, found in zip(labels, parts, places, strict=True)
        for name, place in zip(names, found, strict=True)
        if place < 0
    }
    if unknown:
        name, label = next(iter(unknown.items()))
        msg = (
            f"Expected genes of `adata.var_names` in the labels of `adata.obs[{fields.perturbation_key!r}]`, or "
            f"{naming(fields.controls)}, found {listing(unknown)}, which are not genes. The most similar genes to {name!r} in "
            f"{label!r} are {nearest(name, adata.var_names, n=3)}. Use the names of the perturbed genes, joined by "
            f"{fields.separator!r}, and controls in `control`; remove cells under an intervention on no measured gene, "
            "such as a drug, or make each such condition a trajectory of its own in `trajectory_key`."
        )
        raise ValueError(msg)
    clamped = np.zeros((len(labels), adata.n_vars), dtype=bool)
    for row, found in zip(clamped, places, strict=True):
        row[found] = True
    return clamped


def mean_of_groups(x: Any, codes: NDArray[np.integer], *, n_groups: int) -> NDArray[np.float64]:
    """Mean over the cells of every group (m, d), of an array or sparse matrix (n, d); every group has cells."""
    total = sum_of_groups(x, codes, n_groups=n_groups)
    return total / np.bincount(codes, minlength=n_groups)[:, None]


def sum_of_groups(x: Any, codes: NDArray[np.integer], *, n_groups: int) -> NDArray[np.float64]:
    """Sum over the cells of every group (m, d), as in :func:`mean_of_groups`."""
    cells = np.arange(len(codes))
    member = sparse.csr_matrix((np.ones(len(codes)), (codes, cells)), shape=(n_groups, len(codes)))
    total = member @ x
    return np.asarray(total.toarray() if sparse.issparse(total) else total, dtype=np.float64)


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Key that sorts the numbers within a name by their value."""
    parts = re.split("([0-9]+)", text)
    return [(0, int(part), part) if at % 2 else (1, 0, part) for at, part in enumerate(parts) if part]
