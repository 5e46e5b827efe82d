"""Cells that another tool predicted, also in files, brought into the order and the words of the observed ones, with a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._checks import check_key, check_matrix, check_none, listing, looks_unlogged, only_whole_numbers
from perturbflow.evaluation._conditions import Condition, named_conditions
from perturbflow.evaluation._predictors import MIN_CELLS, GivenCells
from perturbflow.screen._fields import PerturbationFields, find_genes, perturbation_columns, read_screen, text_column
from perturbflow.screen._labels import hashable_dose
from perturbflow.screen._modality import read_annotations
from perturbflow.screen._scale import check_base
from perturbflow.screen._screen import Screen


def aligned(
    predicted: AnnData,
    *,
    name: str,
    genes: Sequence[str],
    fields: PerturbationFields,
    scale: str,
    real: Mapping[tuple[bytes, bytes], str],
) -> tuple[Screen, list[dict[str, Any]]]:
    """Encode predicted cells as the observed ones are: cells that are read when asked for, and rows of the report.

    Genes are put in order; further genes are left out and reported. Missing genes are an error: no metric is the same
    without them. So are predictions that no real condition is compared with, which another spelling makes of good ones.
    A scale of "linear" is normalised expression that is still to be logged.
    """
    where = f"predicted[{name!r}]"
    wanted = [fields.perturbation_key, *fields.covariate_keys]
    wanted += [key for key in (fields.batch_key, fields.dose_key, fields.perturbation_type_key) if key is not None]
    for key in wanted:
        check_key(
            key, predicted.obs.columns, where=f"{where}.obs", hint="Add the registered columns to the predicted cells."
        )
    try:
        places = find_genes(predicted, genes)
    except ValueError as error:
        msg = f"{where} cannot be compared with the observed cells. {error}"
        raise ValueError(msg) from None
    report: list[dict[str, Any]] = []

    def note(what: str, found: Sequence[str]) -> None:
        if len(found):
            report.append({"model": name, "what": what, "n": len(found), "which": listing(found)})

    note("genes that were not observed, left out", sorted(set(predicted.var_names) - set(genes)))
    known, unknown = _known_cells(predicted, fields)
    own = fields if fields.layer in predicted.layers else replace(fields, layer=None)
    found = read_screen(predicted, genes=genes, fields=own, rows=known)
    given = named_conditions(found, fields.vocabulary, has_doses=fields.dose_key is not None)
    if unmatched := sorted({*unknown, *(given[one] for one in given.keys() - real.keys())}):
        missing = sorted(real[one] for one in real.keys() - given.keys())
        msg = (
            f"Expected only conditions with real cells in {where}, found {len(unmatched)} others: {listing(unmatched)}. "
            f"{len(missing)} conditions with real cells have no prediction: {listing(missing)}. Use the names of the observed "
            f"cells for perturbations in `obs[{fields.perturbation_key!r}]`, doses and covariates, or leave these predictions "
            "out."
        )
        raise ValueError(msg)
    moved = [gene for k, (gene, place) in enumerate(zip(genes, places, strict=True)) if place != k]
    note("genes in a different order, sorted", moved)
    _check_values(found.x.look()[1], where=where, scale=scale)
    if scale == "log1p":
        check_base(predicted, fields.log_base, where=where, advice="Use the same logarithm as for the observed cells.")
    if not found.x.is_in_memory:  # most cells of a file are seen when they are read
        found = replace(found, x=found.x.changed(partial(_checked, where=where, scale=scale)))
    if scale == "linear":
        found = replace(found, x=found.x.changed(lambda x: np.log1p(x) / fields.natural_per_unit))
    return found, report


def check_predicted(
    name: str, given: GivenCells, conditions: Sequence[Condition], real: Mapping[tuple[bytes, bytes], str]
) -> list[Condition]:
    """Return the judged conditions without predicted cells; raise if all are, or predictions are of too few cells."""
    few = [real[one.identity] for one in conditions if 0 < given.n_predicted(one) < MIN_CELLS]
    expected = f"at least {MIN_CELLS} predicted cells per condition in predicted[{name!r}]"
    hint = "Predict cells rather than means, or leave these predictions out."
    check_none(few, expected, found="fewer for ", hint=hint)
    without = [one for one in conditions if not given.n_predicted(one)]
    if len(without) == len(conditions):
        msg = (
            f"Expected predictions of the evaluated conditions, {listing(real[one.identity] for one in without)}, in "
            f"predicted[{name!r}], found only {listing(sorted(map(real.__getitem__, given.identities)))}. Predict these "
            "conditions, or evaluate others (`splits`, `min_cells`)."
        )
        raise ValueError(msg)
    return without


def _known_cells(predicted: AnnData, fields: PerturbationFields) -> tuple[NDArray[np.bool_], list[str]]:
    """Return which cells have a perturbation and covariates that the observed ones know, and names of the others."""
    labels, doses, types = perturbation_columns(predicted, fields)
    table = pd.DataFrame(
        {
            "label": labels,
            "dose": "" if doses is None else [hashable_dose(dose) for dose in doses],
            "type": "" if types is None else types,
        }
    )
    codes, distinct = pd.factorize(pd.MultiIndex.from_frame(table))
    is_known, is_perturbed = np.ones((2, len(distinct)), dtype=bool)
    for place, (label, dose, kind) in enumerate(distinct):
        try:
            encoded = fields.vocabulary.encode_perturbations(
                [label], None if doses is None else [dose], None if types is None else [kind]
            )
            is_perturbed[place] = encoded.nnz > 0
        except ValueError:
            is_known[place] = False
    known = is_known[codes]
    unknown = {str(label) for (label, _, _), keep in zip(distinct, is_known, strict=True) if not keep}
    for key, categories in fields.vocabulary.covariates:
        values = text_column(predicted, key)
        found = np.isin(values, categories)
        other = ~found & is_perturbed[codes]  # controls are no predictions
        unknown |= {f"{label} in {value}" for label, value in zip(labels[other], values[other], strict=True)}
        known &= found
    return known, sorted(unknown)


def _checked(x: Any, *, where: str, scale: str) -> Any:
    """Cells as they are, if they can be what they should be."""
    values = x.data if sparse.issparse(x) else x
    if not np.isfinite(values).all():
        msg = f"Expected finite values in {where}, found NaN or infinity. Remove or replace them."
        raise ValueError(msg)
    if scale == "linear" and values.size and (low := float(values.min())) < 0:
        msg = f"Expected values of at least 0 in {where} (scale='linear'), found {low:g}. Pass `scale='log1p'` if they are logged."
        raise ValueError(msg)
    return x


def _check_values(x: Any, *, where: str, scale: str) -> None:
    check_matrix(x, where=where)
    values = _checked(x.data if sparse.issparse(x) else x, where=where, scale=scale)
    high = float(values.max()) if values.size else 0.0
    if scale == "log1p" and looks_unlogged(x):
        msg = (
            f"Expected log1p-normalised values in {where} (scale='log1p'), found values up to {high:g}. "
            "Log them first, or pass `scale='linear'` if they are normalised like the observed cells before log1p."
        )
        raise ValueError(msg)
    if scale == "log1p" and high > 1 and only_whole_numbers(values):
        msg = (
            f"Expected log1p-normalised values in {where} (scale='log1p'), found only whole numbers, up to {high:g}: raw "
            "counts. Normalise and log them like the observed cells."
        )
        raise ValueError(msg)


def predicted_cells(name: str, model: Any) -> AnnData:
    """Find the cells that a model predicted: an AnnData, or the path of an h5ad or zarr file."""
    if isinstance(model, str | Path):
        if not Path(model).exists():
            msg = (
                f"Expected predicted[{name!r}] to be the path of an h5ad or zarr file, found no file at {str(model)!r}. "
                "Check the path."
            )
            raise FileNotFoundError(msg)
        return _opened(Path(model))
    if not hasattr(model, "var_names"):
        msg = (
            f"Expected predicted[{name!r}] to be an AnnData, the path of an h5ad or zarr file, or a fitted sampler with "
            f"a method `sample`, found {type(model).__name__}."
        )
        raise TypeError(msg)
    read_annotations(model)
    return model


def _opened(path: Path) -> AnnData:
    """Read annotations, and expression only if it is stored by genes."""
    from anndata import AnnData, read_h5ad
    from anndata.abc import CSCDataset
    from anndata.io import read_elem, sparse_dataset

    if path.is_dir():
        import zarr

        file: Any = zarr.open_group(str(path), mode="r")
        x = file["X"]
        x = sparse_dataset(x) if "indptr" in x else x
        parts = {key: read_elem(file[key]) for key in ("obs", "var", "uns") if key in file}
        return AnnData(x.to_memory() if isinstance(x, CSCDataset) else x, **parts)
    cells = read_h5ad(path, backed="r")
    return cells.to_memory() if isinstance(cells.X, CSCDataset) else cells
