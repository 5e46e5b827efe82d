"""Screens as scPerturb publishes them, with labels as :func:`perturbflow.pp.setup_perturbation` reads them by default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd

from perturbflow._checks import listing
from perturbflow.datasets._count_file import read_counts
from perturbflow.datasets._download import RemoteFile, local_copy, of_download

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

CellLine = Literal["A549", "K562", "MCF7"]
CELL_LINES: tuple[CellLine, ...] = get_args(CellLine)
CONTROL = "control"
RECORD = "https://zenodo.org/records/13350497/files"  # scPerturb 1.4, CC BY 4.0


def _file(name: str, size: str, md5: str) -> RemoteFile:
    return RemoteFile(name=name, url=f"{RECORD}/{name}?download=1", size=size, known_hash=f"md5:{md5}")


# Hashes are those of the record on Zenodo.
NORMAN = _file("NormanWeissman2019_filtered.h5ad", "0.7 GB", "c870e6967d91c017d9da827bab183cd6")
REPLOGLE = _file("ReplogleWeissman2022_K562_essential.h5ad", "1.5 GB", "d8cba17576d1a8afc0f7d71b79cad0f7")
ADAMSON = _file("AdamsonWeissman2016_GSM2406681_10X010.h5ad", "0.5 GB", "2fa44ea61a8dd35742af618638ec65fc")
SCIPLEX = _file("SrivatsanTrapnell2020_sciplex3.h5ad", "2.5 GB", "c9e70629505d98c7ca1a837f62b14e89")

MISSING = frozenset({"", "nan", "NaN", "<NA>", "None", "*"})  # a star: no guide was found


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
    return _screen(NORMAN, path, lambda label: "+".join(sorted(label.split("_"))))


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
    return _screen(REPLOGLE, path, lambda label: CONTROL if label == "non-targeting" else label)


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
        ADAMSON,
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
        SCIPLEX,
        path,
        lambda label: label.strip().replace("+", "plus").replace("/", "|"),
        original="drug",
        cells=lambda obs: obs["cell_line"].isin(lines).to_numpy(),
    )
    dose = pd.to_numeric(adata.obs["dose_value"].astype(str), errors="coerce").to_numpy()
    adata.obs["dose"] = np.where(adata.obs["perturbation"] == CONTROL, 0.0, dose)
    return adata


def _screen(
    file: RemoteFile,
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

    adata = read_counts(local_copy(file, path), cells=kept)
    published = adata.obs["perturbation"].astype(str)
    names = {label: label if label == CONTROL else name_of(label) for label in set(published)}
    if CONTROL not in names.values() or len(names) < 2:
        msg = f"Expected control and perturbed cells in {file.name}, found the labels {listing(sorted(names))}."
        raise ValueError(msg)
    if original is not None:
        adata.obs[original] = published.astype("category")
    adata.obs["perturbation"] = published.map(names).astype("category")
    return adata
