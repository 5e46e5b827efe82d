"""Predicted cells: an AnnData of their own, a file of them, or beside the control cells that they started from."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._checks import check_key, check_type
from perturbflow._progress import count
from perturbflow.predict._controls import PREDICTED_SOURCE
from perturbflow.predict._output_space import OutputSpace, repressed_genes
from perturbflow.predict._predicted_uncertainty import uncertainty_tables
from perturbflow.predict._prediction import ConditionSampler, PredictedCondition
from perturbflow.screen._conditions import TYPE_MARK
from perturbflow.screen._modality import in_memory

SUFFIXES = (".h5ad", ".zarr")
_VALUES_OF_A_CHUNK = 1 << 18
_AGAIN = "Run `pf.tl.predict_perturbation(adata, ...)` again."


def predicted_batches(
    sampler: ConditionSampler, space: OutputSpace, condition: PredictedCondition, members: NDArray[np.intp]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Predict from control cells as :meth:`ConditionSampler.batches` does, in the units that are wanted."""
    flow, rng = sampler.flow, sampler.rng(condition, "rounding")
    vocabulary = flow.vocabulary
    components = [vocabulary.components[place] for place in np.flatnonzero(condition.perturbation)]
    targets = repressed_genes(components, flow.genes, type_mark=TYPE_MARK if vocabulary.has_types else None)
    for batch, cells in sampler.batches(condition, members):
        yield batch, space.convert(cells, members=members[batch], targets=targets, rng=rng)
        count(len(cells))


@dataclass(frozen=True, eq=False)
class PredictedCells:
    """Cells of some conditions, each from a control cell; they are predicted when they are asked for."""

    sampler: ConditionSampler
    space: OutputSpace
    conditions: Sequence[PredictedCondition]
    members: Sequence[NDArray[np.intp]]  # places of the control cells that each condition starts from

    @classmethod
    def draw(
        cls,
        sampler: ConditionSampler,
        space: OutputSpace,
        conditions: Sequence[PredictedCondition],
        n_cells: int | None,
    ) -> PredictedCells:
        """Choose control cells: all, or ``n_cells`` of every condition, each as often as any other but for one."""
        members = [
            one.members if n_cells is None else _draw(one.members, n_cells, sampler.rng(one, "controls"))
            for one in conditions
        ]
        return cls(sampler, space, conditions, members)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return sum(map(len, self.members))

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Predict, a batch of one condition at a time (m, G)."""
        for condition, members in zip(self.conditions, self.members, strict=True):
            for _, cells in predicted_batches(self.sampler, self.space, condition, members):
                yield cells

    def obs(self, control_names: pd.Index) -> pd.DataFrame:
        """Table of the cells: perturbation, dose where doses are registered, covariates, source and source cell."""
        fields, vocabulary = self.sampler.flow.fields, self.sampler.controls.vocabulary
        named: dict[str, list[str]] = {fields.perturbation_key: [one.label for one in self.conditions]}
        if fields.dose_key is not None:
            named[fields.dose_key] = [one.dose_label for one in self.conditions]
        for column, (name, categories) in enumerate(vocabulary.covariates):
            named[name] = [categories[one.covariates[column]] for one in self.conditions]
        named["source"] = [PREDICTED_SOURCE] * len(self.conditions)
        sizes = [len(members) for members in self.members]
        columns: dict[str, Any] = {
            name: pd.Categorical(values).repeat(sizes)  # of every condition once, not of every cell
            for name, values in named.items()
        }
        columns["source_cell"] = control_names[np.concatenate(self.members)]
        return pd.DataFrame(columns, index=pd.Index([f"predicted_{i}" for i in range(self.n_cells)]))

    def annotations(self, adata: AnnData, params: Mapping[str, Any], *, key: str) -> dict[str, Any]:
        """Everything but the expression: ``obs``, ``var``, ``uns`` and ``varm`` of an AnnData of the cells."""
        flow, controls = self.sampler.flow, self.sampler.controls
        uncertainty, sds = uncertainty_tables(flow, controls, self.conditions)
        return {
            "obs": self.obs(adata.obs_names[controls.rows]),
            "var": adata.var.loc[list(flow.genes)].copy(),
            "uns": {key: {"params": dict(params), "uncertainty": uncertainty}},
            "varm": {f"{key}_sd": sds},
        }


def _draw(members: NDArray[np.intp], n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw n of the members, each as often as any other but for one."""
    whole = np.tile(members, n // len(members))
    return np.concatenate([whole, rng.choice(members, n - len(whole), replace=False)])


def check_path(path: str | Path) -> Path:
    """Raise, before any work, unless a file of predictions can be made there."""
    check_type(path, str | Path, name="path", expected="the path of a file to write")  # type: ignore[arg-type]
    path = Path(path)
    if path.suffix not in SUFFIXES:
        msg = f"Expected `path` to end in one of {list(SUFFIXES)}, found {str(path)!r}. Use one of these endings."
        raise ValueError(msg)
    if not path.parent.is_dir():
        msg = f"Expected the folder of `path` to exist, found none at {str(path.parent)!r}. Create it first."
        raise ValueError(msg)
    if path.exists():
        msg = f"Expected `path` to be a new file, found an existing one, {str(path)!r}. Delete it, or choose another file."
        raise ValueError(msg)
    return path


def write_cells(path: Path, blocks: Iterable[NDArray[np.float32]], elements: Mapping[str, Any]) -> None:
    """Write an AnnData from blocks of cells, one in memory at a time; it is there when it is complete."""
    from anndata.io import sparse_dataset, write_elem

    partial = path.with_name(f"{path.name}.partial")
    _remove(partial)
    try:
        with _opened(partial, form=path.suffix) as file:
            file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            for name in ("obs", "var", "uns", "varm", "layers", "obsm", "obsp", "varp"):
                write_elem(file, name, elements.get(name, {}))
            for block in blocks:
                cells = sparse.csr_matrix(block)
                if "X" in file:
                    sparse_dataset(file["X"]).append(cells)
                else:
                    cells.indptr = cells.indptr.astype(np.int64)  # to count the values of all blocks
                    write_elem(file, "X", cells, dataset_kwargs={"chunks": (_VALUES_OF_A_CHUNK,)})
        partial.replace(path)
    finally:
        _remove(partial)


@contextmanager
def _opened(path: Path, *, form: str) -> Iterator[Any]:
    if form == ".h5ad":
        import h5py

        with h5py.File(path, "w") as file:
            yield file
        return
    import zarr

    # Format 2 is what every version of anndata reads, and the only one that earlier versions of zarr know.
    options: dict[str, Any] = {"zarr_format": 2} if int(version("zarr").partition(".")[0]) > 2 else {}
    yield zarr.open_group(str(path), mode="w", **options)
    zarr.consolidate_metadata(str(path))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@dataclass(frozen=True, eq=False)
class StoredPrediction:
    """Predicted cells of one perturbation."""

    values: sparse.csr_matrix  # CSR (n_obs, n_vars), empty in rows and genes without a prediction
    has_gene: NDArray[np.bool_]  # whether the flow knew a gene (n_vars,)

    @property
    def has_cell(self) -> NDArray[np.bool_]:
        """Return whether a row has a predicted cell (n_obs,): one that stores any value, be it a zero."""
        return self.values.getnnz(axis=1) > 0

    def cells(self, rows: NDArray[np.integer] | NDArray[np.bool_], genes: NDArray[np.integer]) -> sparse.csr_matrix:
        """Predicted cells of some rows and genes, in their order: CSR (n, G)."""
        return self.values[rows][:, genes]


def scattered(
    blocks: Sequence[sparse.csr_matrix],
    rows: NDArray[np.intp],
    genes: NDArray[np.intp],
    shape: tuple[int, int],
) -> sparse.csr_matrix:
    """Put predicted cells into the rows of their controls and the columns of genes; a cell of zeros stores one zero."""
    cells = sparse.vstack(blocks, format="csr")[np.argsort(rows)]
    sizes = np.diff(cells.indptr)
    starts = cells.indptr[:-1][sizes == 0]
    values, columns = np.insert(cells.data, starts, 0), np.asarray(genes)[np.insert(cells.indices, starts, 0)]
    ends = np.zeros(shape[0] + 1, dtype=np.int64)
    ends[np.sort(rows) + 1] = np.maximum(sizes, 1)
    found = sparse.csr_matrix((values, columns, np.cumsum(ends)), shape=shape)
    found.sort_indices()
    return found


def read_prediction(adata: AnnData, key: str, name: str) -> StoredPrediction:
    """Read the predicted cells in ``obsm[name]``, described in ``uns[key]``; KeyError if a part is missing."""
    check_key(name, adata.obsm, where="adata.obsm", hint=_AGAIN)
    check_key(f"{key}_sd", adata.varm, where="adata.varm", hint=_AGAIN)
    known: Any = in_memory(adata.varm[f"{key}_sd"])
    return StoredPrediction(
        values=sparse.csr_matrix(in_memory(adata.obsm[name])),
        has_gene=np.asarray(np.isfinite(np.asarray(known, dtype=np.float64)).all(axis=1)),
    )
