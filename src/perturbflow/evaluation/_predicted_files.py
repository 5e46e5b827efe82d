"""Cells that were predicted elsewhere, also in files, whose expression stays there until it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from perturbflow.screen._annotations import read_annotations

if TYPE_CHECKING:
    from anndata import AnnData


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
