"""Bone-marrow cells of the competition of NeurIPS 2021."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from perturbflow._checks import check_one_of
from perturbflow.datasets._count_file import read_counts
from perturbflow.datasets._download import RemoteFile, local_copy, of_download

if TYPE_CHECKING:
    from anndata import AnnData

SERIES = "https://ftp.ncbi.nlm.nih.gov/geo/series/GSE194nnn/GSE194122/suppl"


def _file(assay: str, size: str, known_hash: str | None) -> RemoteFile:
    name = f"GSE194122_openproblems_neurips2021_{assay}_BMMC_processed.h5ad.gz"
    return RemoteFile(name=name, url=f"{SERIES}/{name}", size=size, known_hash=known_hash)


# GEO publishes no hashes; that of the smaller file is the one that the models of scvi-tools were trained on.
FILES = {
    "multiome": _file("multiome", "2.9 GB", None),
    "cite": _file("cite", "0.6 GB", "sha256:b9b50fade9349719cba23c97c6515d3501a32ee3735fe95fe51221d2e8a5f361"),
}


@of_download
def luecken_2021_bone_marrow(
    path: str | Path | None = None, *, assay: Literal["multiome", "cite"] = "multiome"
) -> AnnData:
    """Download raw counts of bone-marrow cells of several donors and sites (Luecken et al. 2021).

    The gene expression of 69,249 cells measured together with open chromatin (13,431 genes), from which
    :func:`hematopoiesis` has trajectories of 529 genes, or of 90,261 cells measured together with surface proteins (13,953
    genes). Cells are not perturbed; they are for dynamics along pseudotime. The file (2.9 or 0.6 GB, packed) is downloaded
    once from GEO, unpacked and kept. GEO publishes no hash: only the smaller one is checked, by the SHA-256 of the copy that models of
    scvi-tools were trained on; that of the larger one is logged by pooch.

    Parameters
    ----------
    assay
        "multiome" or "cite".

    Returns
    -------
    AnnData of the genes with counts in ``X`` (CSR, float32). ``obs`` and ``var`` are as published, among others ``cell_type`` and
    ``batch``.

    References
    ----------
    Luecken et al. (2021), A sandbox for prediction and integration of DNA, RNA, and proteins in single cells, *NeurIPS
    Datasets and Benchmarks* (GEO: GSE194122).

    Examples
    --------
    >>> import perturbflow as pf
    >>> pf.datasets.luecken_2021_bone_marrow(assay="atac")
    Traceback (most recent call last):
    ValueError: Expected `assay` to be one of ['cite', 'multiome'], found 'atac'.
    """
    check_one_of(assay, FILES, name="assay")
    return read_counts(
        local_copy(FILES[assay], path),
        matrix="layers/counts",
        genes=lambda var: (var["feature_types"].astype(str) == "GEX").to_numpy(),
    )
