"""Published data sets, read from a folder on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
from anndata import AnnData, read_h5ad
from scipy import sparse

from perturbflow._checks import check_one_of, check_unique_names
from perturbflow._docs import shares

Donor = Literal["s1d2", "s1d1", "s2d1", "s2d4"]
Lineage = Literal["eryth", "mono", "B"]
DONORS: tuple[Donor, ...] = get_args(Donor)
LINEAGES: tuple[Lineage, ...] = get_args(Lineage)
FILE_OF_DONOR = {"s1d2": 12, "s1d1": 11, "s2d1": 21, "s2d4": 24}
NOT_RELEASED = {("s2d4", "eryth")}

FOLDER_VARIABLE = "PERTURBFLOW_DATA"
of_local = shares(
    {},
    raises="""FileNotFoundError
    If a file is missing in the folder named by the environment variable ``PERTURBFLOW_DATA``; the message gives its source.
ValueError
    If an option is unknown, out of range or repeated, or nothing is left.""",
)
FOLDER = "hematopoiesis"
BASE_NETWORK = "TFs_Targets/tf_targets_baseGRN_human_matrix.csv.gz"
SOURCE = "the repository of PathReg, github.com/theislab/PathReg"


@of_local
def norman_mcfaline_subset(part: Literal["norman", "mcfaline"] | None = None) -> AnnData:
    """Small subset of two Perturb-seq studies with single and combined perturbations (5,961 cells, 500 genes).

    Gene activation (CRISPRa) in K562 cells: 18 single genes and 15 pairs (Norman et al. 2019); and repression (CRISPRi)
    of nine kinases in three glioblastoma lines (McFaline-Figueroa et al. 2024), whose effects are hardly measurable at
    this size. This is the development data set of PerturBench. Several genes are activated in one study and repressed
    in the other: only ``perturbation`` together with ``perturbation_type`` says what was done.

    Parameters
    ----------
    part
        Only the cells of one study; by default those of both.

    Returns
    -------
    AnnData with log-normalised expression (CSR, float32) in ``X``; log1p of counts scaled to 10,000 a cell over all
    genes, not over these 500. ``obs`` is as published; among others ``perturbation`` ("control", "KLF1",
    "KLF1+MAP2K6"), ``cell_type``, ``perturbation_type`` and ``dose`` (strings "1" and "1+1").

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
    path = local_file(
        "perturbench_devel/devel.h5ad", source="the development data of PerturBench, github.com/altoslabs/perturbench"
    )
    adata = read_h5ad(path)
    if part is not None:
        adata = adata[(adata.obs["dataset"] == datasets[part]).to_numpy()].copy()  # drops unused categories
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    return adata


@of_local
def kang_ifnb(n_top_genes: int | None = 2000) -> AnnData:
    """Blood cells of six types with and without interferon beta (832 cells): a strong response (Kang et al. 2018).

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
    path = local_file("kang18_ifnb1k/ifnb1k.h5ad", source="Kang et al. 2018, GEO accession GSE96583")
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


@of_local
def hematopoiesis(
    *,
    lineages: Sequence[Lineage] = LINEAGES,
    donors: Sequence[Donor] = DONORS,
) -> AnnData:
    """Bone-marrow cells of four donors along diffusion pseudotime in three lineages (Aliee et al. 2022).

    The expression part of 10x Multiome data (Luecken et al. 2021), 529 genes, as released with PathReg: 11
    trajectories of 198 to 1,472 cells, 9,127 rows in all. The erythroid trajectory of donor s2d4 was not released. The
    lineages of a donor share its stem cells: these occur once for every lineage. The paper trains on s1d2.

    Parameters
    ----------
    lineages
        Lineages to read.
    donors
        Donors to read.

    Returns
    -------
    AnnData, rows sorted by trajectory and pseudotime, with

    `adata.X` : CSR, float32
        Counts divided by size factors, not logged, as released.
    `adata.layers["log1p"]` : CSR, float32
        Their log1p.
    `adata.obs`
        ``dpt_pseudotime``, ``lineage``, ``donor``, ``trajectory`` ("s1d2 eryth").
    `adata.var["is_regulator"]`
        Whether the gene is a regulator in the base network (113 of them).
    `adata.uns["base_network"]`
        Table, ``source`` and ``target``: the edges between these genes of the motif network that PathReg started from,
        22,689. A dense prior, not the truth.
    `adata.uns["cell_type_networks"]`
        Table, ``source``, ``target``, ``cell_type``: the edges between these genes of the networks of cell types.

    References
    ----------
    Aliee et al. (2022), Sparsity in continuous-depth neural networks, *NeurIPS* 35, arXiv:2210.14672. Luecken et al.
    (2021), A sandbox for prediction and integration of DNA, RNA, and proteins in single cells, *NeurIPS Datasets and
    Benchmarks* (GEO: GSE194122).

    Examples
    --------
    >>> from contextlib import suppress
    >>> import perturbflow as pf
    >>> with suppress(FileNotFoundError):  # where the files are not on this machine
    ...     cells = pf.datasets.hematopoiesis(lineages=["B"], donors=["s1d2"])
    ...     assert cells.n_vars == 529 and cells.obs["dpt_pseudotime"].is_monotonic_increasing
    ...     pf.pp.setup_dynamics(cells, time_key="dpt_pseudotime", trajectory_key="trajectory", layer="log1p")
    >>> pf.datasets.hematopoiesis(lineages=["T"])
    Traceback (most recent call last):
    ValueError: Expected `lineages` to be one of ['B', 'eryth', 'mono'], found 'T'...
    """
    for name, chosen, options in (("lineages", lineages, LINEAGES), ("donors", donors, DONORS)):
        for value in chosen:
            check_one_of(value, options, name=name)
        check_unique_names(chosen, what=f"`{name}`", hint="Name each once.")
    trajectories = [pair for pair in product(donors, lineages) if pair not in NOT_RELEASED]
    if not trajectories:
        msg = f"Expected a released trajectory, found none of donors {list(donors)} and lineages {list(lineages)}."
        raise ValueError(msg)

    tables = []
    for donor, lineage in trajectories:
        name = f"{FOLDER}/trajectories/{lineage}_{FILE_OF_DONOR[donor]}_norm.csv.gz"
        table = pd.read_csv(local_file(name, source=SOURCE), sep="\t").sort_values("dpt_pseudotime", kind="stable")
        tables.append(table.set_axis([f"{donor} {lineage} {cell}" for cell in range(len(table))]))
    cells = pd.concat(tables)
    sizes = [len(table) for table in tables]
    labels: dict[str, list[str]] = {
        "lineage": [lineage for _, lineage in trajectories],
        "donor": [donor for donor, _ in trajectories],
        "trajectory": [f"{donor} {lineage}" for donor, lineage in trajectories],
    }
    obs = pd.DataFrame(
        {
            "dpt_pseudotime": cells.pop("dpt_pseudotime"),
            **{
                key: pd.Categorical(np.repeat(values, sizes), categories=list(dict.fromkeys(values)))
                for key, values in labels.items()
            },
        }
    )
    base, by_cell_type = _networks(cells.columns)
    x = sparse.csr_matrix(cells.to_numpy(dtype=np.float32))
    return AnnData(
        x,
        obs=obs,
        var=pd.DataFrame({"is_regulator": cells.columns.isin(base["source"])}, index=cells.columns.astype(str)),
        layers={"log1p": x.log1p()},
        uns={"base_network": base, "cell_type_networks": by_cell_type},
    )


def _networks(genes: pd.Index[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the base network and those of the cell types, each restricted to edges between genes."""
    path = local_file(f"{FOLDER}/{BASE_NETWORK}", source=SOURCE)
    known = set(genes)
    first = pd.read_csv(path, nrows=0).columns[0]
    matrix = pd.read_csv(path, usecols=lambda name: name == first or name in known, index_col=0)
    matrix = matrix.loc[matrix.index.isin(known)]
    regulator, target = matrix.to_numpy().nonzero()
    base = pd.DataFrame({"source": matrix.index.to_numpy()[regulator], "target": matrix.columns.to_numpy()[target]})
    return base, _cell_type_networks(path.parent, known)


def _cell_type_networks(folder: Path, genes: set[str]) -> pd.DataFrame:
    """Return the edges between genes in the tables of all cell types."""
    suffix = ".csv.gz"
    files = sorted(path for path in folder.glob(f"*{suffix}") if not path.name.endswith(f"_matrix{suffix}"))
    if not files:
        msg = f"Expected tables of cell types in {folder}, found none. Download them from {SOURCE}."
        raise FileNotFoundError(msg)
    tables = [
        pd.read_csv(path)
        .assign(cell_type=path.name.removesuffix(suffix))
        .rename(columns={"tf.name": "source", "target.gene.name": "target"})[["source", "target", "cell_type"]]
        for path in files
    ]
    edges = pd.concat(tables)
    return edges[edges["source"].isin(genes) & edges["target"].isin(genes)].astype(str).reset_index(drop=True)


def local_file(name: str, *, source: str) -> Path:
    """Return the path of a data file, or say where to get it."""
    folder = Path(os.environ.get(FOLDER_VARIABLE) or Path.cwd().parent / "shared" / "data")
    path = folder / name
    if not path.is_file():
        msg = (
            f"Expected the file {path}, found none. Download it from its source ({source}), save it as {name} in a folder, "
            f"and set the environment variable {FOLDER_VARIABLE} to that folder."
        )
        raise FileNotFoundError(msg)
    return path
