"""Published screens and atlases, with labels as :func:`perturbflow.pp.setup_perturbation` reads them by default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
from anndata import AnnData, read_h5ad
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._checks import check_one_of, listing
from perturbflow.datasets._download import RemoteFile, local_copy, of_download, read_counts

CellLine = Literal["A549", "K562", "MCF7"]
CELL_LINES: tuple[CellLine, ...] = get_args(CellLine)
CONTROL = "control"
MISSING = frozenset({"", "nan", "NaN", "<NA>", "None", "*"})  # a star: no guide was found

GEO = "https://ftp.ncbi.nlm.nih.gov/geo/series/GSE194nnn/GSE194122/suppl/{}"
PERTPY = "https://exampledata.scverse.org/pertpy/{}"
SCPERTURB = "https://zenodo.org/records/13350497/files/{}?download=1"  # scPerturb 1.4, CC BY 4.0
BONE_MARROW = "GSE194122_openproblems_neurips2021_{}_BMMC_processed.h5ad.gz"


def _file(source: str, name: str, size: str, known_hash: str | None) -> RemoteFile:
    return RemoteFile(name=name, url=source.format(name), size=size, known_hash=known_hash)


# Hashes are those of Zenodo, of figshare (34464122) for Kang, from which pertpy and LIANA read it before, and of the file
# that models of scvi-tools were trained on for CITE: GEO publishes none.
FILES = {
    "kang": _file(
        PERTPY, "kang_2018.h5ad", "38 MB", "sha256:e6a5adac64dcdeb36eaba27db49b63e0c64bb0ed4a64c6705971506b41c39830"
    ),
    "norman": _file(SCPERTURB, "NormanWeissman2019_filtered.h5ad", "0.7 GB", "md5:c870e6967d91c017d9da827bab183cd6"),
    "replogle": _file(
        SCPERTURB, "ReplogleWeissman2022_K562_essential.h5ad", "1.5 GB", "md5:d8cba17576d1a8afc0f7d71b79cad0f7"
    ),
    "adamson": _file(
        SCPERTURB, "AdamsonWeissman2016_GSM2406681_10X010.h5ad", "0.5 GB", "md5:2fa44ea61a8dd35742af618638ec65fc"
    ),
    "sciplex": _file(
        SCPERTURB, "SrivatsanTrapnell2020_sciplex3.h5ad", "2.5 GB", "md5:c9e70629505d98c7ca1a837f62b14e89"
    ),
    "multiome": _file(GEO, BONE_MARROW.format("multiome"), "2.9 GB", None),
    "cite": _file(
        GEO,
        BONE_MARROW.format("cite"),
        "0.6 GB",
        "sha256:b9b50fade9349719cba23c97c6515d3501a32ee3735fe95fe51221d2e8a5f361",
    ),
}


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
    FileNotFoundError: Expected kang_2018.h5ad at elsewhere/kang_2018.h5ad, found no file. Omit `path` to ...
    """
    adata = read_h5ad(local_copy(FILES["kang"], path))
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    adata.obs["perturbation"] = (
        adata.obs["label"].astype("category").cat.rename_categories({"ctrl": CONTROL, "stim": "IFN-beta"})
    )
    adata.obs["donor"] = adata.obs["replicate"].astype(str).astype("category")
    return adata


@of_download
def norman_2019(path: str | Path | None = None) -> AnnData:
    """Download raw counts of 105 genes and 131 pairs of genes that were activated in K562 cells (Norman et al. 2019).

    111,445 cells with an assigned guide, 33,694 genes. The file (0.7 GB) is that of scPerturb 1.4; it is downloaded once,
    checked by its MD5, and kept. :func:`norman_mcfaline_subset` has a small part of the same study.

    Returns
    -------
    AnnData with counts in ``X`` (CSR, float32). ``obs`` is as published, but for ``perturbation``: "control", "KLF1",
    "KLF1+MAP2K6".

    References
    ----------
    Norman et al. (2019), *Science* 365, 786-793 (GEO: GSE133344).
    Peidli et al. (2024), scPerturb, *Nat. Methods* 21, 531-540.

    Examples
    --------
    >>> import perturbflow as pf
    >>> pf.datasets.norman_2019("elsewhere/norman.h5ad")
    Traceback (most recent call last):
    FileNotFoundError: Expected NormanWeissman2019_filtered.h5ad at elsewhere/norman.h5ad, found no file. ...
    """
    return _screen("norman", path, lambda label: "+".join(sorted(label.split("_"))))


@of_download
def replogle_2022_k562_essential(path: str | Path | None = None) -> AnnData:
    """Download raw counts of some 2,000 essential genes that were repressed in K562 cells (Replogle et al. 2022).

    310,385 cells, 8,563 genes. The file (1.5 GB) is that of scPerturb 1.4; it is downloaded once, checked by its MD5, and
    kept. It is read block by block, since it stores zeros, too.

    Returns
    -------
    AnnData with counts in ``X`` (CSR, float32). ``obs`` is as published, among others ``perturbation`` ("control", or the
    gene) and ``batch``; guides without a target are "control".

    References
    ----------
    Replogle et al. (2022), *Cell* 185, 2559-2575. Peidli et al. (2024), scPerturb, *Nat. Methods* 21, 531-540.

    Examples
    --------
    >>> import perturbflow as pf
    >>> pf.datasets.replogle_2022_k562_essential("elsewhere/replogle.h5ad")
    Traceback (most recent call last):
    FileNotFoundError: Expected ReplogleWeissman2022_K562_essential.h5ad at elsewhere/replogle.h5ad, found no file. ...
    """
    return _screen("replogle", path, lambda label: CONTROL if label == "non-targeting" else label)


@of_download
def adamson_2016_upr(path: str | Path | None = None) -> AnnData:
    """Download raw counts of some 80 genes of the unfolded protein response, repressed in K562 cells (Adamson et al. 2016).

    The larger experiment of the study (10X010): 65,337 cells of the file, of which those with an assigned guide are kept;
    32,738 genes. The file (0.5 GB) is that of scPerturb 1.4; it is downloaded once, checked by its MD5, and kept.

    Returns
    -------
    AnnData with counts in ``X`` (CSR, float32). ``obs`` is as published, but for ``perturbation``, the gene of the guide or
    "control", and ``guide``, the published label ("OST4_pDS353").

    Notes
    -----
    Labels with "(mod)" are taken as controls: "63(mod)_pBA580", "62(mod)_pBA581" and "Gal4-4(mod)_pBA582", whose vectors
    the paper does not list by these names. Some 2,600 cells of the file have no guide, because scPerturb matched barcodes without
    the number of their lane.

    References
    ----------
    Adamson et al. (2016), *Cell* 167, 1867-1882 (GEO: GSM2406681). Peidli et al. (2024), scPerturb, *Nat. Methods* 21,
    531-540.

    Examples
    --------
    >>> import perturbflow as pf
    >>> pf.datasets.adamson_2016_upr("elsewhere/adamson.h5ad")
    Traceback (most recent call last):
    FileNotFoundError: Expected AdamsonWeissman2016_GSM2406681_10X010.h5ad at elsewhere/adamson.h5ad, found no file. ...
    """
    return _screen(
        "adamson",
        path,
        lambda label: CONTROL if "(mod)" in label else label.rsplit("_", 1)[0],
        original="guide",
    )


@of_download
def srivatsan_2020_sciplex3(path: str | Path | None = None, *, cell_lines: Sequence[CellLine] = CELL_LINES) -> AnnData:
    """Download raw counts of three cancer lines with 188 drugs at four doses (sci-Plex 3; Srivatsan et al. 2020).

    762,795 cells with an assigned drug, 110,983 genes as annotated. The file (2.5 GB) is that of
    scPerturb 1.4; it is downloaded once, checked by its MD5, and kept. All lines take 8 GB of memory, and twice as much while
    they are read; name the lines that are needed.

    Parameters
    ----------
    cell_lines
        Lines to read.

    Returns
    -------
    AnnData with counts in ``X`` (CSR, float32). ``obs`` is as published, but for ``perturbation`` ("control", or the drug,
    with "plus" for "+" and "|" for "/"), ``drug``, its published name, and ``dose`` in nM; among others ``cell_line`` and
    ``replicate``.

    References
    ----------
    Srivatsan et al. (2020), *Science* 367, 45-51 (GEO: GSM4150378). Peidli et al. (2024), scPerturb, *Nat. Methods* 21,
    531-540.

    Examples
    --------
    >>> import perturbflow as pf
    >>> pf.datasets.srivatsan_2020_sciplex3(cell_lines=["HeLa"])
    Traceback (most recent call last):
    ValueError: Expected `cell_lines` among ['A549', 'K562', 'MCF7'], at least one, found ['HeLa'].
    """
    lines = [cell_lines] if isinstance(cell_lines, str) else list(cell_lines)
    if not lines or not set(lines) <= set(CELL_LINES):
        msg = f"Expected `cell_lines` among {list(CELL_LINES)}, at least one, found {lines}."
        raise ValueError(msg)
    adata = _screen(
        "sciplex",
        path,
        lambda label: label.strip().replace("+", "plus").replace("/", "|"),
        original="drug",
        cells=lambda obs: obs["cell_line"].isin(lines).to_numpy(),
    )
    dose = pd.to_numeric(adata.obs["dose_value"].astype(str), errors="coerce").to_numpy()
    adata.obs["dose"] = np.where(adata.obs["perturbation"] == CONTROL, 0.0, dose)
    return adata


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
    check_one_of(assay, ("multiome", "cite"), name="assay")
    return read_counts(
        local_copy(FILES[assay], path),
        matrix="layers/counts",
        genes=lambda var: (var["feature_types"].astype(str) == "GEX").to_numpy(),
    )


def _screen(
    key: str,
    path: str | Path | None,
    name_of: Callable[[str], str],
    *,
    original: str | None = None,
    cells: Callable[[pd.DataFrame], NDArray[np.bool_]] | None = None,
) -> AnnData:
    """Read the cells of a file whose perturbation is known, with new labels, and the published ones in a column."""

    def kept(obs: pd.DataFrame) -> NDArray[np.bool_]:
        has_label = ~obs["perturbation"].astype(object).fillna("").astype(str).isin(MISSING).to_numpy()
        return has_label if cells is None else has_label & cells(obs)

    adata = read_counts(local_copy(FILES[key], path), cells=kept)
    published = adata.obs["perturbation"].astype(str)
    names = {label: label if label == CONTROL else name_of(label) for label in set(published)}
    if CONTROL not in names.values() or len(names) < 2:
        msg = f"Expected control and perturbed cells in {FILES[key].name}, found the labels {listing(sorted(names))}."
        raise ValueError(msg)
    if original is not None:
        adata.obs[original] = published.astype("category")
    adata.obs["perturbation"] = published.map(names).astype("category")
    return adata
