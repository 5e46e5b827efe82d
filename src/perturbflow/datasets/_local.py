"""Published data sets, read from a folder on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
from anndata import AnnData, read_h5ad
from scipy import sparse

FOLDER_VARIABLE = "PERTURBFLOW_DATA"


def norman_mcfaline_subset(part: Literal["norman", "mcfaline"] | None = None) -> AnnData:
    """Small subset of two Perturb-seq studies with single and combined perturbations (5,961 cells, 500 genes).

    Gene activation (CRISPRa) in K562 cells: 18 single genes and 15 pairs (Norman et al. 2019); and repression (CRISPRi)
    of nine kinases in three glioblastoma lines (McFaline-Figueroa et al. 2024), whose effects are hardly measurable at
    this size. This is the development data set of PerturBench. Several genes are activated in one study and repressed
    in the other: only ``perturbation`` together with ``perturbation_type`` says what was done.

    The file is read from the folder that the environment variable ``PERTURBFLOW_DATA`` names.

    Parameters
    ----------
    part
        Only the cells of one study; by default those of both.

    Returns
    -------
    AnnData with log-normalised expression (CSR, float32) in ``X``; log1p of counts scaled to 10,000 a cell over all
    genes, not over these 500. ``obs`` is as published; among others ``perturbation`` ("control", "KLF1",
    "KLF1+MAP2K6"), ``cell_type``, ``perturbation_type`` and ``dose`` (strings "1" and "1+1").

    Raises
    ------
    FileNotFoundError
        If the file is not on this machine; the message says where to get it.
    ValueError
        If ``part`` is unknown.

    References
    ----------
    Norman et al. (2019), *Science* 365, 786-793. McFaline-Figueroa et al. (2024), *Cell Genomics* 4, 100487.
    Wu et al. (2024), PerturBench, arXiv:2408.10609.

    Examples
    --------
    >>> from contextlib import suppress
    >>> import perturbflow as pf
    >>> with suppress(FileNotFoundError):  # where the file is not on this machine
    ...     cells = pf.datasets.norman_mcfaline_subset("norman")
    ...     assert cells.shape == (3375, 500)
    ...     assert set(cells.obs["perturbation_type"]) == {"CRISPRa"}
    >>> pf.datasets.norman_mcfaline_subset("replogle")
    Traceback (most recent call last):
    ValueError: Expected `part` to be None or one of ['mcfaline', 'norman'], found 'replogle'.
    """
    datasets = {"norman": "norman19", "mcfaline": "mcfaline23"}
    if part is not None and part not in datasets:
        msg = f"Expected `part` to be None or one of {sorted(datasets)}, found {part!r}."
        raise ValueError(msg)
    path = _local_file(
        "perturbench_devel/devel.h5ad", source="the development data of PerturBench, github.com/altoslabs/perturbench"
    )
    adata = read_h5ad(path)
    if part is not None:
        adata = adata[(adata.obs["dataset"] == datasets[part]).to_numpy()].copy()  # drops unused categories
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    return adata


def kang_ifnb(n_top_genes: int | None = 2000) -> AnnData:
    """Blood cells of six types with and without interferon beta (832 cells): a strong response (Kang et al. 2018).

    The file is read from the folder that the environment variable ``PERTURBFLOW_DATA`` names.

    Parameters
    ----------
    n_top_genes
        Number of highly variable genes to keep, chosen over all cells without the labels (dispersion in bins of mean
        expression, Satija et al. 2015); None keeps all 14,053.

    Returns
    -------
    AnnData with log1p of counts scaled to 10,000 a cell over all genes (CSR, float32) in ``X`` and the counts in
    ``layers["counts"]``. ``obs`` has ``perturbation`` ("control", "IFN-beta") and ``cell_type`` besides the original
    columns.

    Raises
    ------
    FileNotFoundError
        If the file is not on this machine; the message says where to get it.
    ValueError
        If ``n_top_genes`` is not positive or more than there are.

    References
    ----------
    Kang et al. (2018), *Nat. Biotechnol.* 36, 89-94 (GEO: GSE96583).
    Satija et al. (2015), *Nat. Biotechnol.* 33, 495-502.

    Examples
    --------
    >>> from contextlib import suppress
    >>> import perturbflow as pf
    >>> with suppress(FileNotFoundError):  # where the file is not on this machine
    ...     cells = pf.datasets.kang_ifnb(n_top_genes=None)
    ...     assert cells.shape == (832, 14053)
    ...     assert set(cells.obs["perturbation"]) == {"control", "IFN-beta"}
    """
    path = _local_file("kang18_ifnb1k/ifnb1k.h5ad", source="Kang et al. 2018, GEO accession GSE96583")
    import scanpy as sc  # takes seconds

    adata = read_h5ad(path)
    if n_top_genes is not None and not 1 <= n_top_genes <= adata.n_vars:
        msg = f"Expected `n_top_genes` to be None or from 1 to {adata.n_vars}, found {n_top_genes!r}."
        raise ValueError(msg)
    adata.obs["perturbation"] = adata.obs["condition"].cat.rename_categories({"CTRL": "control", "STIM": "IFN-beta"})
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    adata.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    if n_top_genes is not None:
        sc.pp.highly_variable_genes(adata, n_top_genes=n_top_genes, flavor="seurat")
        adata = adata[:, adata.var["highly_variable"].to_numpy()].copy()
    return adata


def _local_file(name: str, *, source: str) -> Path:
    """Return the path of a data file, or say where to get it."""
    folder = Path(os.environ.get(FOLDER_VARIABLE) or Path.cwd().parent / "shared" / "data")
    path = folder / name
    if not path.is_file():
        msg = (
            f"Expected the file {path}, found none. Get it from its source ({source}), save it as {name} in a folder, "
            f"and name that folder in the environment variable {FOLDER_VARIABLE}."
        )
        raise FileNotFoundError(msg)
    return path
