"""Register where AnnData says what was done to its cells."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from perturbflow._checks import check_columns, check_no_slash, check_none, check_text, check_type, listing
from perturbflow.pp._check_labels import MISSING, check_labels, check_values, control_labels, report_labels
from perturbflow.screen._conditions import Vocabulary
from perturbflow.screen._fields import (
    PerturbationFields,
    check_expression,
    check_fields_are_free,
    check_gene_names,
    perturbation_columns,
    read_expression,
    text_column,
    writable,
    write_fields,
)
from perturbflow.screen._labels import dose_values, hashable_dose
from perturbflow.screen._modality import takes_modality
from perturbflow.screen._scale import recorded_base, warn_of_mixed_totals

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray
    from scipy import sparse

logger = logging.getLogger(__name__)

OF_PREDICTED_CELLS = ("source", "source_cell")  # columns of `obs` that say where predicted cells come from
# Columns of the tables of conditions, beside which covariates stand under their own names.
RESERVED = (
    *("perturbation", "is_control", "n_cells", "split", "n_components", "n_seen", "seen", "unseen"),
    *("model", "metric", "value", "reason", *OF_PREDICTED_CELLS),
)


@takes_modality
def setup_perturbation(
    adata: AnnData | MuData,
    *,
    perturbation_key: str,
    control: str | Sequence[str],
    covariate_keys: Sequence[str] = (),
    dose_key: str | None = None,
    batch_key: str | None = None,
    layer: str | None = None,
    separator: str = "+",
    perturbation_type_key: str | None = None,
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Register the columns that describe the perturbation, context and dose of every cell.

    All inputs are checked before anything is written. Calling the function again replaces the registered fields; splits
    and fits made with other fields then have to be repeated.

    Parameters
    ----------
    adata
        Cells with log1p-normalised expression, not scaled: an array, a CSR or CSC matrix, backed by a file, lazy
        (``anndata.experimental.read_lazy``) or with dask arrays. Files are not changed, and only a few thousand cells
        are read from them. Logarithms are natural, or have the base that ``scanpy.pp.log1p`` stored in
        ``uns["log1p"]``. Cells that do not seem to be normalised to the same total cause a warning. A view becomes a copy.
    perturbation_key
        Column of ``obs`` with the perturbation of every cell: ``control``, one component ("KLF1") or several
        ("SET+KLF1"), in any order. Labels with an empty part or an open bracket ("Ca2+", "(+)-JQ1") and the text of a
        missing value ("nan") raise an error.
    control
        One or several labels of control cells (``["Neg0", "Neg1"]``); the first represents all of them. They are
        recognised before labels are split ("KLF1_non_targeting" is "KLF1"), and may contain the separator.
    covariate_keys
        One or several columns of ``obs`` that define the context of a cell, such as its cell type. Every context needs
        control cells.
    dose_key
        Column of ``obs`` with the dose, all in the same unit: one number for all components of a cell, or one number
        per component in the order of the label, as a string ("1+0.5") or a list ([1, 0.5]). Components with dose 0 are
        ignored, and so are doses of control cells. By default all doses are 1.
    batch_key
        Column of ``obs`` with the batch. Batches are part of the context, but are not held out by splits.
    layer
        Layer with the expression; by default ``X``.
    separator
        Separator of the components of a label, and of their doses and types. If there are no combinations, choose one
        that does not occur in any label. The combinations that were found are logged, as a warning if a component never
        occurs alone.
    perturbation_type_key
        Column of ``obs`` with the type of perturbation, if the same label has different meanings. The components are
        then, for example, "MAPK1:CRISPRa" and "MAPK1:CRISPRi", two unrelated perturbations. Ignored in control cells.

    Returns
    -------
    None, or the copy. Sets:

    `adata.uns["perturbation_fields"]`
        The names above and the vocabulary (components, and categories of the covariates); ``log_base`` unless logarithms
        are natural.
    `adata.obsm["perturbation_doses"]` : CSR, float32
        Dose of every component of the vocabulary (n_obs, P); a row of zeros is a control cell.

    Raises
    ------
    KeyError
        If a column or the layer is missing.
    TypeError
        If an argument or the expression has the wrong type.
    ValueError
        If the expression is not log1p-normalised; genes are repeated; values are missing in a column, also as text
        ("nan"); a context, or a label in ``control``, has no control cells; a label cannot be parsed, or repeats a
        component; two names look the same; a dose is invalid, or 0 in all cells of a component; or a name cannot be
        stored.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(
    ...     adata, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"]
    ... )
    >>> adata.obsm["perturbation_doses"].shape
    (600, 4)
    """
    given = (covariate_keys,) if isinstance(covariate_keys, str) else covariate_keys
    check_type(given, Iterable, name="covariate_keys", expected="a list of column names")
    covariate_keys = tuple(given)
    for key in covariate_keys:
        check_text(key, name="covariate_keys")
    first, *others = control_labels(control)
    check_text(separator, name="separator")
    keys = {"perturbation_key": perturbation_key}
    options = {"dose_key": dose_key, "batch_key": batch_key, "perturbation_type_key": perturbation_type_key}
    keys |= {name: key for name, key in options.items() if key is not None}
    for name, key in keys.items():
        check_text(key, name=name)
    check_columns(adata.obs.columns, [*keys.values(), *covariate_keys])
    check_fields_are_free(adata)
    reserved = RESERVED if dose_key is None else (*RESERVED, "dose")
    expected = f"names of covariates other than {list(reserved)}, which are columns of the tables of conditions"
    taken = [key for key in (*covariate_keys, batch_key) if key in reserved]
    check_none(taken, expected, hint="Rename these columns of `adata.obs`.")
    wrong = [key for key in (perturbation_key, dose_key) if key in OF_PREDICTED_CELLS]
    expected = f"names of columns other than {list(OF_PREDICTED_CELLS)}, which are added to predicted cells"
    check_none(wrong, expected, hint="Rename these columns of `adata.obs`.")

    if layer is not None:
        check_text(layer, name="layer")
    check_gene_names(adata)

    fields = PerturbationFields(
        perturbation_key=perturbation_key,
        vocabulary=Vocabulary((), control=first, separator=separator, other_controls=tuple(others)),
        covariate_keys=covariate_keys,
        dose_key=dose_key,
        batch_key=batch_key,
        perturbation_type_key=perturbation_type_key,
        layer=layer,
        log_base=recorded_base(adata),
    )
    check_expression(adata, fields)
    components = _components(adata, fields)
    contexts = pd.DataFrame({key: text_column(adata, key) for key in fields.context_keys}, index=range(adata.n_obs))
    vocabulary, doses = _collect_vocabulary(adata, fields, components, contexts)
    fields = replace(fields, vocabulary=vocabulary)
    _check_controls_of_contexts(contexts, is_control=doses.getnnz(axis=1) == 0)
    report_labels(components, controls=fields.controls, separator=separator)
    x = read_expression(adata, layer)
    warn_of_mixed_totals(x, contexts, batch_key=batch_key, unit=fields.natural_per_unit)

    adata = writable(adata, copy=copy)
    write_fields(adata, fields, doses=doses)
    logger.info(
        "Registered %d perturbation components and %d covariates of %d cells.",
        len(fields.vocabulary.components),
        len(fields.context_keys),
        adata.n_obs,
    )
    return adata if copy else None


def _components(adata: AnnData, fields: PerturbationFields) -> dict[str, tuple[str, ...]]:
    """Check the labels of all cells and read the components of each."""
    key = fields.perturbation_key
    labels = set(text_column(adata, key).tolist())
    values = adata.obs[key].dropna().unique().tolist()
    numbers = [value for value in values if not isinstance(value, str)]
    wrong = numbers or [value for value in values if not value.strip()]
    column = f"adata.obs[{key!r}]"
    advice = f" If numbers are names, run `{column} = {column}.astype(str)`." if numbers else ""
    hint = f"Label every perturbation, and the controls.{advice}"
    check_none(wrong, f"labels in `{column}` to be non-empty strings", hint=hint)
    return check_labels(labels, controls=fields.controls, separator=fields.separator, key=key)


def _collect_vocabulary(
    adata: AnnData, fields: PerturbationFields, components: Mapping[str, Sequence[str]], contexts: pd.DataFrame
) -> tuple[Vocabulary, sparse.csr_matrix]:
    """Check doses and types of all cells, collect what they name, and encode them."""
    labels, doses, types = perturbation_columns(adata, fields)
    perturbed = np.array([bool(components[label]) for label in labels])
    if types is not None:
        _check_types(adata, types, perturbed=perturbed, key=fields.perturbation_type_key)
    if doses is not None:
        _check_doses(adata, doses, perturbed=perturbed, fields=fields)
    covariates = {key: contexts[key].to_numpy() for key in fields.context_keys}
    for key, values in covariates.items():
        check_values(set(values.tolist()), key=key)
    vocabulary = Vocabulary.from_labels(
        labels, control=fields.controls, separator=fields.separator, types=types, covariates=covariates
    )
    encoded = vocabulary.encode_perturbations(labels, doses, types)
    never = [
        token for token, total in zip(vocabulary.components, np.ravel(encoded.sum(axis=0)), strict=True) if total == 0
    ]
    hint = f"Correct `adata.obs[{fields.dose_key!r}]` or label these cells {fields.control!r}."
    check_none(never, "a dose above 0 for every perturbation in at least one cell", found="only 0 for ", hint=hint)
    return vocabulary, encoded


def _check_types(adata: AnnData, types: NDArray[np.object_], *, perturbed: NDArray[np.bool_], key: str | None) -> None:
    """Raise unless every perturbed cell has a type that can be stored."""
    missing = perturbed & (types == "")
    if missing.any():
        msg = (
            f"Expected the type of the perturbation of every perturbed cell in `adata.obs[{key!r}]`, "
            f"found none in {missing.sum()} cells: {listing(adata.obs_names[missing], limit=3)}. Fill in the types."
        )
        raise ValueError(msg)
    unnamed = sorted(MISSING.intersection(types[perturbed]))
    expected = f"the names of types in `adata.obs[{key!r}]`"
    check_none(unnamed, expected, which=", which represent missing values", hint="Fill in the types.")
    check_no_slash(
        sorted(set(types[perturbed])), what="types of perturbations", hint=f"Rename them in `adata.obs[{key!r}]`."
    )


def _check_doses(
    adata: AnnData, doses: NDArray[np.object_], *, perturbed: NDArray[np.bool_], fields: PerturbationFields
) -> None:
    """Raise unless the dose of every perturbed cell can be read, and name the cells where it cannot."""
    where = f"`adata.obs[{fields.dose_key!r}]`"
    missing = perturbed & pd.isna(doses)
    if missing.any():
        msg = (
            f"Expected the dose of every perturbed cell in {where}, found none in {missing.sum()} cells: "
            f"{listing(adata.obs_names[missing], limit=3)}. Fill in the doses, or remove these cells."
        )
        raise ValueError(msg)
    places: dict[Hashable, list[int]] = {}
    for place in np.flatnonzero(perturbed).tolist():
        places.setdefault(hashable_dose(doses[place]), []).append(place)
    for dose, cells in places.items():
        try:
            dose_values(dose, separator=fields.separator)
        except ValueError as error:
            msg = f"{error} This is in {where} of {len(cells)} cells: {listing(adata.obs_names[cells], limit=3)}."
            raise ValueError(msg) from None


def _check_controls_of_contexts(contexts: pd.DataFrame, *, is_control: NDArray[np.bool_]) -> None:
    """Raise unless every context has control cells, since effects are measured against these."""
    keys = list(contexts.columns)
    if not keys:
        return
    n_controls = contexts.assign(n=is_control).groupby(keys, sort=True)["n"].sum()
    empty = n_controls.index[n_controls == 0]
    if len(empty):
        named = [dict(zip(keys, row if isinstance(row, tuple) else (row,), strict=True)) for row in empty]
        msg = (
            f"Expected control cells in every context, found none among the cells of {listing(named)}. "
            "Remove these cells, or register fewer covariates."
        )
        raise ValueError(msg)
