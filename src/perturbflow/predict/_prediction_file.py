"""An h5ad or zarr file of predicted cells, written a block at a time, that is there when all of it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from perturbflow._checks import check_type

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = (".h5ad", ".zarr")
_VALUES_OF_A_CHUNK = 1 << 18


def check_path(path: str | Path) -> Path:
    """Raise, before any work, unless a file of predictions can be made there."""
    check_type(path, str | Path, name="path", expected="the path of a file to write")  # type: ignore[arg-type]
    path = Path(path)
    if path.suffix not in SUFFIXES:
        msg = f"Expected `path` to end in one of {list(SUFFIXES)}, found {str(path)!r}. Name a file of one of these kinds."
        raise ValueError(msg)
    if not path.parent.is_dir():
        msg = f"Expected the folder of `path` to be there, found none at {str(path.parent)!r}. Make it first."
        raise ValueError(msg)
    if path.exists():
        msg = f"Expected nothing at `path`, found {str(path)!r}. Delete it, or name another file."
        raise ValueError(msg)
    return path


def write_cells(path: Path, blocks: Iterable[NDArray[np.float32]], elements: Mapping[str, Any]) -> None:
    """Write an AnnData whose expression comes in blocks of cells, of which one is in memory at a time.

    It is written beside its place and put there when it is complete. What an interrupted call left is replaced.
    """
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
