"""Blood cells of eight donors with and without interferon beta."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from anndata import AnnData, read_h5ad
from scipy import sparse

from perturbflow.datasets._download import RemoteFile, local_copy, of_download

# Its hash is that of the same file at figshare (34464122), from which pertpy and LIANA read it before.
FILE = RemoteFile(
    name="kang_2018.h5ad",
    url="https://exampledata.scverse.org/pertpy/kang_2018.h5ad",
    size="38 MB",
    known_hash="sha256:e6a5adac64dcdeb36eaba27db49b63e0c64bb0ed4a64c6705971506b41c39830",
)
CONDITIONS = {"ctrl": "control", "stim": "IFN-beta"}


@of_download
def kang_2018(path: str | Path | None = None) -> AnnData:
    """Download raw counts of blood cells of eight donors with and without interferon beta (24,673 cells; Kang et al. 2018).

    A strong response of eight cell types, each measured in every donor under both conditions: 15,706 genes. The file (38 MB)
    is that of ``pertpy.data.kang_2018``; it is downloaded once, checked by its SHA-256, and kept. :func:`kang_ifnb` has a
    small part of the same study.

    Returns
    -------
    AnnData with counts in ``X`` (CSR, float32). ``obs`` has ``perturbation`` ("control", "IFN-beta"), ``cell_type``
    and ``donor`` besides the original columns.

    References
    ----------
    Kang et al. (2018), *Nat. Biotechnol.* 36, 89-94 (GEO: GSE96583).

    Examples
    --------
    >>> import perturbflow as pf
    >>> pf.datasets.kang_2018("elsewhere/kang_2018.h5ad")
    Traceback (most recent call last):
    FileNotFoundError: Expected kang_2018.h5ad at elsewhere/kang_2018.h5ad, found no file. Leave `path` out to ...
    """
    adata = read_h5ad(local_copy(FILE, path))
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    adata.obs["perturbation"] = adata.obs["label"].astype("category").cat.rename_categories(CONDITIONS)
    adata.obs["donor"] = adata.obs["replicate"].astype(str).astype("category")
    return adata
