"""Files for cell-eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._checks import check_key, check_none, check_text, check_unique_names, listing
from perturbflow.predict._controls import ControlCells, control_cells
from perturbflow.predict._fitted_flow import FittedFlow, read_flow
from perturbflow.predict._output_space import renormalised
from perturbflow.predict._predicted_cells import read_prediction
from perturbflow.screen._conditions import TYPE_MARK, Vocabulary, canonical_label
from perturbflow.screen._fields import canonical_labels, find_genes, read_expression, text_column
from perturbflow.screen._modality import takes_modality

if TYPE_CHECKING:
    from mudata import MuData

_AGAIN = "Run `pf.tl.predict_perturbation(adata, ...)` first."


@takes_modality
def write_cell_eval(
    adata: AnnData | MuData,
    path: str | Path,
    *,
    predicted: AnnData | None = None,
    key: str = "predicted",
    real_path: str | Path | None = None,
    genes: Sequence[str] | None = None,
    perturbation_column: str = "target_gene",
    control_label: str = "non-targeting",
    modality: str | None = None,
) -> None:
    """Write predicted cells beside control cells as an h5ad file that cell-eval reads.

    cell-eval (Arc Institute) judges two files, one of predicted and one of real cells: log1p-normalised expression of
    the same genes in the same order, the same perturbations in one column of ``obs``, control cells in both. With
    ``real_path`` the second file is written too. Then ``cell-eval run -ap predicted.h5ad -ar real.h5ad``.

    Parameters
    ----------
    adata
        Cells with the control cells, the fitted flow, and the predictions in ``obsm`` unless ``predicted`` has them.
    path
        File to write, replaced if it exists.
    predicted
        Predicted cells that ``pf.tl.predict_perturbation(adata, ..., as_anndata=True)`` returned.
    key
        Where the predictions are: entry of ``uns`` with their description.
    real_path
        File for the real cells of the same perturbations and contexts, and the control cells.
    genes
        Genes to write, in this order; by default all that the flow knows. The challenge has a list.
    perturbation_column
        Column of ``obs`` in the files that names the perturbation. The default is that of cell-eval.
    control_label
        Label of control cells in the files. The default is that of cell-eval.

    Returns
    -------
    None

    Raises
    ------
    KeyError
        If there is no prediction under ``key``, or no fitted flow.
    ValueError
        If the predictions are counts, there are none, genes are unknown to the flow, a perturbation has the label of
        the control cells or, with ``real_path``, no real cells, or the two files are one.

    Notes
    -----
    Predictions with ``output="challenge"`` are scaled to the median total; the real cells are then scaled likewise.
    If the label of control cells was predicted too, the predicted control cells take the place of the real ones in the
    first file, as PRiMeFlow does it. Labels are in canonical form ("A+B"), without the type of a perturbation where no
    two then coincide. Covariates are further columns.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import anndata
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.tl.fit_flow(adata, max_steps=20, progress_bar=False)
    >>> label = adata.obs["perturbation"].cat.categories[0]
    >>> pf.tl.predict_perturbation(adata, [label])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pf.tl.write_cell_eval(adata, Path(folder) / "predicted.h5ad", real_path=Path(folder) / "real.h5ad")
    ...     cells = anndata.read_h5ad(Path(folder) / "predicted.h5ad")
    >>> sorted(cells.obs["target_gene"].unique()) == sorted([label, "non-targeting"])
    True
    """
    check_text(perturbation_column, name="perturbation_column")
    check_text(control_label, name="control_label")
    if real_path is not None and Path(real_path).resolve() == Path(path).resolve():
        msg = f"Expected two different files in `path` and `real_path`, found {str(path)!r} in both."
        raise ValueError(msg)
    record = _record(adata, key) if predicted is None else _record(predicted, key, where="predicted")
    params = record["params"]
    flow = read_flow(adata, str(params["key"]))
    fixed = {name: str(value) for name, value in params["covariates"].items()}
    controls = control_cells(adata, flow.fields, genes=flow.genes, covariates=fixed)
    places = _gene_places(flow.genes, genes)
    cells = _in_obsm(adata, flow, controls, record, key=key) if predicted is None else _new_cells(predicted, flow)
    names = _names(flow.vocabulary, cells.labels, control_label=control_label)
    total = float(params["target_total"]) if "target_total" in params else None
    unit = flow.fields.natural_per_unit
    if total is None:  # predictions for the challenge are scaled already
        cells = cells._replace(x=_scaled(cells.x, None, unit))
    labels = np.full(len(controls.covariates), flow.fields.control, dtype=object)
    real_controls = _Cells(_scaled(controls.x.take(), total, unit), labels, _contexts(controls, controls.covariates))
    parts = {Path(path): [cells] if flow.fields.control in cells.labels else [cells, real_controls]}
    if real_path is not None:
        real = _real_cells(adata, flow, cells, fixed=fixed, total=total)
        parts[Path(real_path)] = [real, real_controls]
    for file, each in parts.items():
        _assembled(each, flow.genes, places, names, perturbation_column).write_h5ad(file)


class _Cells(NamedTuple):
    """Log1p-normalised cells over the genes of the flow: CSR (n, G), with a label and covariates of every cell."""

    x: sparse.csr_matrix
    labels: NDArray[np.object_]
    contexts: pd.DataFrame


def _scaled(x: Any, total: float | None, unit: float) -> sparse.csr_matrix:
    """Return cells with natural logarithms, which cell-eval undoes, and a total where predictions have one."""
    return sparse.csr_matrix(x * unit, dtype=np.float32) if total is None else renormalised(x * unit, total)


def _record(adata: AnnData, key: str, *, where: str = "adata") -> Mapping[str, Any]:
    """Description of predictions that can be written."""
    check_key(key, adata.uns, where=f"{where}.uns", hint=_AGAIN)
    record = adata.uns[key]
    if not isinstance(record, Mapping) or "params" not in record:
        msg = f"Expected predictions in `{where}.uns[{key!r}]`, found something else. {_AGAIN}"
        raise ValueError(msg)
    if record["params"].get("output") == "counts":
        msg = (
            "Expected log1p-normalised predictions, which cell-eval compares with log1p-normalised control cells, found "
            'counts. Predict with `output="log_normalised"` or `output="challenge"`.'
        )
        raise ValueError(msg)
    return record


def _gene_places(known: Sequence[str], genes: Sequence[str] | None) -> NDArray[np.intp]:
    """Places of the genes to write among those of the flow."""
    if genes is None:
        return np.arange(len(known))
    check_unique_names(genes, what="`genes`", hint="Name every gene once.")
    places = pd.Index(known).get_indexer(list(genes))
    unknown = [gene for gene, place in zip(genes, places, strict=True) if place < 0]
    if unknown or not len(places):
        msg = (
            f"Expected genes of the fitted flow in `genes`, found {listing(unknown)} among {len(places)}. "
            "Fit a flow to cells with all of these genes."
        )
        raise ValueError(msg)
    return places


def _contexts(controls: ControlCells, codes: NDArray[np.int64]) -> pd.DataFrame:
    """Covariates of cells as text."""
    columns = {
        name: np.array(categories, dtype=object)[column]
        for (name, categories), column in zip(controls.vocabulary.covariates, codes.T, strict=True)
    }
    return pd.DataFrame(columns, index=range(len(codes)))


def _in_obsm(
    adata: AnnData, flow: FittedFlow, controls: ControlCells, record: Mapping[str, Any], *, key: str
) -> _Cells:
    """Predictions in the rows of control cells."""
    places = find_genes(adata, flow.genes)
    x, labels, codes = [], [], []
    for label, name in zip(record["perturbations"], record["obsm"], strict=True):
        predicted = read_prediction(adata, key, str(name))
        filled = predicted.has_cell[controls.rows]
        x.append(predicted.cells(controls.rows[filled], places))
        labels += [str(label)] * int(filled.sum())
        codes.append(controls.covariates[filled])
    if not labels:
        msg = f"Expected predictions in the rows of the control cells, found none. {_AGAIN}"
        raise ValueError(msg)
    return _Cells(
        sparse.vstack(x, format="csr"), np.array(labels, dtype=object), _contexts(controls, np.concatenate(codes))
    )


def _new_cells(predicted: AnnData, flow: FittedFlow) -> _Cells:
    """Predictions that are an AnnData of their own."""
    labels = text_column(predicted, flow.fields.perturbation_key)
    if not len(labels):
        msg = f"Expected cells in `predicted`, found none. {_AGAIN}"
        raise ValueError(msg)
    contexts = {name: text_column(predicted, name) for name, _ in flow.vocabulary.covariates}
    x = read_expression(predicted, genes=flow.genes).take()
    return _Cells(sparse.csr_matrix(x, dtype=np.float32), labels, pd.DataFrame(contexts, index=range(len(labels))))


def _names(vocabulary: Vocabulary, labels: NDArray[np.object_], *, control_label: str) -> dict[str, str]:
    """Label in the files for every canonical label: without types where no two then coincide."""
    distinct = sorted(set(labels.tolist()) - {vocabulary.control})
    names = {label: label for label in distinct}
    if vocabulary.has_types:
        separator = vocabulary.separator
        short = {
            label: canonical_label(
                [part.rpartition(TYPE_MARK)[0] for part in label.split(separator)],
                control=control_label,
                separator=separator,
            )
            for label in distinct
        }
        names = short if len(set(short.values())) == len(distinct) else names
    if control_label in names.values():
        msg = (
            f"Expected perturbations with other labels than control cells, found {control_label!r} among them. Choose "
            "another `control_label`."
        )
        raise ValueError(msg)
    return {**names, vocabulary.control: control_label}


def _real_cells(
    adata: AnnData, flow: FittedFlow, cells: _Cells, *, fixed: Mapping[str, str], total: float | None
) -> _Cells:
    """Real cells of the perturbations and contexts that were predicted."""
    fields = flow.fields
    wanted = set(cells.labels.tolist()) - {fields.control}
    canonical = canonical_labels(adata, fields)
    contexts = pd.DataFrame(
        {
            name: text_column(adata, name, missing="") if name in adata.obs else np.full(adata.n_obs, fixed[name])
            for name, _ in flow.vocabulary.covariates
        },
        index=range(adata.n_obs),
    )
    keep = np.isin(canonical, list(wanted))
    if len(contexts.columns):
        keep &= pd.MultiIndex.from_frame(contexts).isin(pd.MultiIndex.from_frame(cells.contexts.drop_duplicates()))
    missing = sorted(wanted - set(canonical[keep].tolist()))
    hint = "Predict others, or leave out `real_path`."
    check_none(missing, "real cells of every predicted perturbation", found="none of ", hint=hint)
    x = read_expression(adata, fields.layer, genes=flow.genes)[keep]
    return _Cells(_scaled(x, total, fields.natural_per_unit), canonical[keep], contexts[keep])


def _assembled(
    parts: Sequence[_Cells],
    known: Sequence[str],
    places: NDArray[np.intp],
    names: Mapping[str, str],
    perturbation_column: str,
) -> AnnData:
    from anndata import AnnData

    x = sparse.vstack([part.x for part in parts], format="csr")
    labels = [names[label] for part in parts for label in part.labels]
    obs = pd.concat([part.contexts for part in parts], ignore_index=True)
    obs[perturbation_column] = labels
    obs = obs.astype("category")
    obs.index = [f"cell_{i}" for i in range(len(obs))]
    return AnnData(x[:, places], obs=obs, var=pd.DataFrame(index=np.array(known, dtype=object)[places]))
