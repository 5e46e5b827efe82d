"""Published files: downloaded once with pooch, checked by their hash, kept in a folder of the user, and read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.utils import make_index_unique
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._docs import shares

CACHE_VARIABLE = "PERTURBFLOW_CACHE"
ROWS_AT_ONCE = 4096

of_download = shares(
    {"path": "Local copy of the (unpacked) file, read instead of downloading it."},
    raises="""ConnectionError
    If the file cannot be downloaded; the message says where to save a local copy.
FileNotFoundError
    If there is no file at ``path``.
ImportError
    If pooch is not installed: ``pip install 'perturbflow[data]'``.
ValueError
    If the downloaded file or its labels differ from the published ones, or an option is unknown.""",
)


@dataclass(frozen=True)
class RemoteFile:
    """A file that others publish.

    ``known_hash`` is as published, such as "md5:..."; None where none is published: pooch then logs that of the download.
    """

    name: str
    url: str
    size: str
    known_hash: str | None


def local_copy(file: RemoteFile, path: str | Path | None = None) -> Path:
    """Return the path of a published file on this machine, and download it first if it was never asked for.

    Files are kept in the folder that the environment variable ``PERTURBFLOW_CACHE`` names, else in the cache of the
    operating system. One whose name ends with ".gz" is unpacked. With the ``path`` of a copy nothing is downloaded, and its
    hash is not checked.
    """
    if path is not None:
        if not Path(path).is_file():
            msg = f"Expected {file.name} at {path}, found no file. Omit `path` to download it ({file.size})."
            raise FileNotFoundError(msg)
        return Path(path)
    try:
        import pooch
    except ImportError:
        msg = (
            f"Expected pooch to be installed, to download {file.name} ({file.size}), found it missing. Run "
            f"`pip install 'perturbflow[data]'`, or download {file.url} and pass the file as `path`."
        )
        raise ImportError(msg) from None
    folder = Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("perturbflow"))
    unpacks = file.name.endswith(".gz")
    try:
        found = pooch.retrieve(
            file.url,
            known_hash=file.known_hash,
            fname=file.name,
            path=folder,
            processor=pooch.Decompress(name=file.name.removesuffix(".gz")) if unpacks else None,
            progressbar=sys.stderr.isatty(),
        )
    except OSError as error:  # that of requests for everything that a network does
        msg = (
            f"Expected to download {file.url} ({file.size}), found {type(error).__name__}. Check the internet "
            f"connection, or download the file elsewhere and save it as {folder / file.name} or pass it as `path`."
        )
        raise ConnectionError(msg) from error
    return Path(found)


def read_counts(
    path: Path,
    *,
    matrix: str = "X",
    cells: Callable[[pd.DataFrame], NDArray[np.bool_]] | None = None,
    genes: Callable[[pd.DataFrame], NDArray[np.bool_]] | None = None,
) -> AnnData:
    """Read CSR counts of float32 of some cells and genes of an h5ad file, block by block: all may not fit in memory."""
    import h5py
    from anndata.io import read_elem, sparse_dataset

    with h5py.File(path, "r") as file:
        obs, var = read_elem(file["obs"]), read_elem(file["var"])
        rows = np.ones(len(obs), dtype=bool) if cells is None else cells(obs)
        columns = np.ones(len(var), dtype=bool) if genes is None else genes(var)
        entry = file[matrix]
        is_sparse = isinstance(entry, h5py.Group)
        if is_sparse and entry.attrs["encoding-type"] == "csc_matrix":  # has to be turned as a whole
            x = sparse.csr_matrix(read_elem(entry), dtype=np.float32)[rows][:, columns]
        else:
            source: Any = sparse_dataset(entry) if is_sparse else entry
            x = sparse.vstack(list(_blocks(source, rows, columns)), format="csr")
    obs, var = obs[rows].copy(), var[columns].copy()
    obs.index, var.index = (make_index_unique(names.astype(str)) for names in (obs.index, var.index))
    for column in obs.select_dtypes("category"):
        obs[column] = obs[column].cat.remove_unused_categories()
    return AnnData(x, obs=obs, var=var)


def _blocks(source: Any, rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> list[sparse.csr_matrix]:
    found = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        here = rows[start : start + ROWS_AT_ONCE]
        if here.any():
            block = sparse.csr_matrix(source[start : start + len(here)], dtype=np.float32)[here]
            found.append(block if columns.all() else block[:, columns])
    return found
