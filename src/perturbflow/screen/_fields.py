"""The one place that knows the keys of AnnData: writes them, reads them, says what to run when one is missing."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._checks import check_key, check_log_normalised, check_matrix, check_none, check_unique_names, listing
from perturbflow._warnings import warn
from perturbflow.flow import CellData
from perturbflow.screen._conditions import Vocabulary
from perturbflow.screen._expression import Expression
from perturbflow.screen._modality import in_memory
from perturbflow.screen._scale import check_base, check_no_counts, natural_per_unit
from perturbflow.screen._screen import Screen
from perturbflow.store._keys import check_registration, is_record

FIELDS_KEY = "perturbation_fields"
DOSES_KEY = "perturbation_doses"

_SETUP = "Run `pf.pp.setup_perturbation(adata, ...)` first."


FEATURE_TABLE_KEY = "perturbation_feature_table"


@dataclass(frozen=True)
class PerturbationFields:
    """Registered fields of an AnnData that say what was done to its cells; keys are columns of ``obs``."""

    perturbation_key: str
    vocabulary: Vocabulary  # components and covariates, with the control label and the separator
    covariate_keys: tuple[str, ...] = ()  # that make the context of a cell
    dose_key: str | None = None
    batch_key: str | None = None
    perturbation_type_key: str | None = None
    layer: str | None = None  # with the expression; None for `X`
    log_base: float | None = None  # of its logarithm; None for the natural one

    @property
    def natural_per_unit(self) -> float:
        """Natural logarithms in one of the expression."""
        return natural_per_unit(self.log_base)

    @property
    def control(self) -> str:
        """Label of control cells, the first where there are several."""
        return self.vocabulary.control

    @property
    def controls(self) -> tuple[str, ...]:
        """All labels of control cells."""
        return self.vocabulary.controls

    @property
    def separator(self) -> str:
        """Return what stands between the components of a label."""
        return self.vocabulary.separator

    @property
    def context_keys(self) -> tuple[str, ...]:
        """Covariates and, last, the batch."""
        return self.covariate_keys if self.batch_key is None else (*self.covariate_keys, self.batch_key)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for AnnData and JSON; what is not set is left out."""
        options = ("dose_key", "batch_key", "perturbation_type_key", "layer")
        return {
            "perturbation_key": self.perturbation_key,
            "covariate_keys": list(self.covariate_keys),
            **{name: getattr(self, name) for name in options if getattr(self, name) is not None},
            **({} if self.log_base is None else {"log_base": self.log_base}),
            "vocabulary": self.vocabulary.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote, also after a file has turned lists into arrays."""
        options = ("dose_key", "batch_key", "perturbation_type_key", "layer")
        return cls(
            perturbation_key=str(values["perturbation_key"]),
            vocabulary=Vocabulary.from_dict(values["vocabulary"]),
            covariate_keys=tuple(map(str, values["covariate_keys"])),
            log_base=float(values["log_base"]) if "log_base" in values else None,
            **{name: str(values[name]) for name in options if name in values},
        )


def writable(adata: AnnData, *, copy: bool) -> AnnData:
    """Return what a function writes to: a copy, or ``adata``; a view becomes a copy in place, with a warning."""
    check_writable(adata, copy=copy)
    if copy:
        return adata.copy()
    if adata.is_view:
        from anndata import ImplicitModificationWarning

        warn(
            "`adata` is a view of another AnnData: it was copied, and the original is unchanged. "
            "Pass `adata.copy()` to avoid this warning."
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImplicitModificationWarning)
            adata.obs = adata.obs.copy()  # any assignment makes a view actual
    return adata


def check_writable(adata: AnnData, *, copy: bool) -> None:
    """Raise ValueError if a copy is wanted, or needed, of an AnnData that is backed by a file."""
    if adata.isbacked and (copy or adata.is_view):
        msg = (
            f"Expected an AnnData in memory {'for `copy=True`' if copy else 'or a whole one'}, found "
            f"{'one' if copy else 'a view of one'} that is backed by a file. Run `adata = adata.to_memory()` first, or "
            "copy it to another file with `adata.copy(filename=path)`."
        )
        raise ValueError(msg)


def check_in_memory(adata: AnnData) -> None:
    """Raise ValueError if an AnnData is backed by a file."""
    if adata.isbacked:
        msg = "Expected `adata` in memory, found a backed one. Run `adata = adata.to_memory()` first."
        raise ValueError(msg)


def check_gene_names(adata: AnnData) -> None:
    """Raise ValueError if a gene occurs twice."""
    hint = "Run `adata.var_names_make_unique()` first."
    check_unique_names(adata.var_names, what="gene names in `adata.var_names`", hint=hint)


def check_fields_are_free(adata: AnnData) -> None:
    """Raise if :func:`write_fields` would replace something that is no earlier registration."""
    doses = in_memory(adata.obsm.get(DOSES_KEY))
    # Joining registered cells (`anndata.concat`) keeps their doses and loses what was registered.
    check_registration(adata, FIELDS_KEY, beside=[] if sparse.issparse(doses) else [("obsm", DOSES_KEY)])


def write_fields(adata: AnnData, fields: PerturbationFields, *, doses: sparse.csr_matrix | None = None) -> None:
    """Write ``uns["perturbation_fields"]`` and the doses of all components, ``obsm["perturbation_doses"]``."""
    adata.obsm[DOSES_KEY] = encode_perturbations(adata, fields) if doses is None else doses
    adata.uns[FIELDS_KEY] = fields.to_dict()


def read_fields(adata: AnnData) -> PerturbationFields:
    """Read the registered fields; KeyError if there are none."""
    check_key(FIELDS_KEY, adata.uns, where="adata.uns", hint=_SETUP)
    return PerturbationFields.from_dict(adata.uns[FIELDS_KEY])


def expression(adata: AnnData, layer: str | None) -> Any:
    """Return ``X`` or a layer, as it is stored."""
    if layer is not None:
        check_key(layer, adata.layers, where="adata.layers")
        return adata.layers[layer]
    x = adata.X  # once, since a view of a file is read by this
    if x is None:
        msg = "Expected expression in `adata.X`, found none. Pass a `layer`."
        raise ValueError(msg)
    return x


def read_expression(adata: AnnData, layer: str | None = None, *, genes: Sequence[str] | None = None) -> Expression:
    """Return what reads ``X`` or a layer, wherever it is stored; nothing is read yet."""
    where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    x = Expression(expression(adata, layer), where=where)
    return x if genes is None else x.part(genes=find_genes(adata, genes))


def check_expression(adata: AnnData, fields: PerturbationFields) -> None:
    """Raise unless cells, or some thousands of those in a file, are log1p-normalised, with the registered base."""
    layer = fields.layer
    where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    rows, x = read_expression(adata, layer).look()
    check_matrix(x, where=where)
    check_no_counts(x, adata.obs_names[rows], where=where)  # before the advice to take the logarithm of all cells
    check_log_normalised(x, where=where, layer=layer)
    advice = "Take the logarithm with the same base, or register the cells again and fit again."
    check_base(adata, fields.log_base, where=f"`{where}`, as registered", advice=advice)


def text_column(adata: AnnData, key: str, *, missing: str | None = None) -> NDArray[np.object_]:
    """Values of a column of ``obs`` as text (n,), ``missing`` where there is none; no floating-point numbers."""
    check_key(key, adata.obs.columns, where="adata.obs")
    try:
        column = adata.obs[key].astype("category")
    except TypeError:
        found = sorted({type(value).__name__ for value in adata.obs[key] if not isinstance(value, Hashable)})
        msg = f"Expected one string per cell in `adata.obs[{key!r}]`, found {listing(found)}. Join the parts of each."
        raise TypeError(msg) from None
    if column.cat.categories.dtype.kind == "f" and len(column.cat.categories):
        msg = (
            f"Expected categories in `adata.obs[{key!r}]`, found floating-point numbers. "
            f"If they are categories, run `adata.obs[{key!r}] = adata.obs[{key!r}].astype(str)`."
        )
        raise ValueError(msg)
    codes = column.cat.codes.to_numpy()
    if missing is None and (codes < 0).any():
        cells = adata.obs_names[codes < 0]
        msg = (
            f"Expected a value for every cell in `adata.obs[{key!r}]`, found none in {len(cells)} cells: "
            f"{listing(cells, limit=3)}. Fill in the values or remove these cells."
        )
        raise ValueError(msg)
    return np.array([*map(str, column.cat.categories), missing], dtype=object)[codes]


def perturbation_columns(
    adata: AnnData, fields: PerturbationFields
) -> tuple[NDArray[np.object_], NDArray[np.object_] | None, NDArray[np.object_] | None]:
    """Label, dose and type of the perturbation of every cell (n,); None for a column that is not registered."""
    labels = text_column(adata, fields.perturbation_key)
    doses = types = None
    if fields.dose_key is not None:
        check_key(fields.dose_key, adata.obs.columns, where="adata.obs")
        doses = adata.obs[fields.dose_key].to_numpy(dtype=object)
    if fields.perturbation_type_key is not None:  # control cells may have none
        types = text_column(adata, fields.perturbation_type_key, missing="")
    return labels, doses, types


def type_column(adata: AnnData, fields: PerturbationFields) -> NDArray[np.object_] | None:
    """Type of the perturbation of every cell (n,), "" where there is none; None where no types are registered."""
    key = fields.perturbation_type_key
    if key is None:
        return None
    return text_column(adata, key, missing="") if key in adata.obs else np.full(adata.n_obs, "", dtype=object)


def encode_perturbations(
    adata: AnnData, fields: PerturbationFields, *, vocabulary: Vocabulary | None = None
) -> sparse.csr_matrix:
    """Dose of every component in every cell: CSR (n, P) of float32."""
    return (vocabulary or fields.vocabulary).encode_perturbations(*perturbation_columns(adata, fields))


def canonical_labels(adata: AnnData, fields: PerturbationFields) -> NDArray[np.object_]:
    """Label of the perturbation of every cell (n,) as it is known, with its type; as it is written where it is unknown."""
    labels, types = text_column(adata, fields.perturbation_key), type_column(adata, fields)
    kinds = [""] * len(labels) if types is None else types
    vocabulary, pairs = fields.vocabulary, set(zip(labels, kinds, strict=True))
    names = {(label, kind): vocabulary.known(label, kind) or vocabulary.written(label) for label, kind in pairs}
    return np.array([names[pair] for pair in zip(labels, kinds, strict=True)], dtype=object)


def read_screen(
    adata: AnnData,
    *,
    genes: Sequence[str] | None = None,
    fields: PerturbationFields | None = None,
    vocabulary: Vocabulary | None = None,
    rows: NDArray[np.integer] | NDArray[np.bool_] | None = None,
) -> Screen:
    """Encode cells, by default all, without reading expression; labels of cells outside ``rows`` do not matter."""
    fields = read_fields(adata) if fields is None else fields
    from anndata import AnnData  # here, because it takes a second to load

    vocabulary = fields.vocabulary if vocabulary is None else vocabulary
    x = read_expression(adata, fields.layer, genes=genes)
    cells = adata
    if rows is not None:
        x = x.part(rows=rows)
        cells = AnnData(obs=adata.obs.iloc[np.asarray(rows)])
    distinct, codes = vocabulary.encode_distinct(*perturbation_columns(cells, fields))
    columns = {key: text_column(cells, key) for key, _ in vocabulary.covariates}
    return Screen(fields, x, distinct, codes, vocabulary.encode_covariates(columns, n_cells=cells.n_obs))


def read_cells(adata: AnnData, **options: Any) -> CellData:
    """Read cells into memory, with the options of :func:`read_screen`; copied only where format or type has to change."""
    return read_screen(adata, **options).subset()


def find_genes(adata: AnnData, genes: Sequence[str]) -> NDArray[np.intp]:
    """Places of genes in ``adata``."""
    check_gene_names(adata)
    places = adata.var_names.get_indexer(list(genes))
    missing = [gene for gene, place in zip(genes, places, strict=True) if place < 0]
    hint = "Check that the names are of the same kind (symbols or identifiers)."
    expected = f"{len(genes)} genes in `adata.var_names`"
    check_none(missing, expected, found=f"that {len(missing)} are missing: ", hint=hint)
    return places


def read_feature_table(
    adata: AnnData, *, key: str = FEATURE_TABLE_KEY, vocabulary: Vocabulary | None = None
) -> NDArray[np.float64] | None:
    """Features of all components (P, F) in the order of the vocabulary, by default the registered one, or None."""
    if key not in adata.uns:
        return None
    table = adata.uns[key]
    if not is_record(table, FEATURE_TABLE_KEY):
        msg = (
            f"Expected features of perturbations in `adata.uns[{key!r}]`, found something else. "
            "Run `pf.pp.perturbation_features(adata, ...)`, or rename that entry."
        )
        raise ValueError(msg)
    components = list((vocabulary or read_fields(adata).vocabulary).components)
    missing = sorted(set(components) - set(table.index))
    expected = f"features of all {len(components)} perturbation components in `adata.uns[{key!r}]`"
    hint = "Run `pf.pp.perturbation_features(adata, ...)` again, or delete that entry."
    check_none(missing, expected, found="none for ", hint=hint)
    return table.loc[components].to_numpy(dtype=np.float64)
