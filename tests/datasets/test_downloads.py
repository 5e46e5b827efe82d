"""Published files are downloaded once, checked and kept; what is read of them is as the rest of the package wants it."""

from __future__ import annotations

import gzip
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import perturbflow as pf
from perturbflow.datasets._download import RemoteFile, local_copy, read_counts
from perturbflow.datasets._published import FILES
from perturbflow.screen import read_fields

READERS = {
    "kang_2018": pf.datasets.kang_2018,
    "norman_2019": pf.datasets.norman_2019,
    "replogle_2022_k562_essential": pf.datasets.replogle_2022_k562_essential,
    "adamson_2016_upr": pf.datasets.adamson_2016_upr,
    "srivatsan_2020_sciplex3": pf.datasets.srivatsan_2020_sciplex3,
    "luecken_2021_bone_marrow": pf.datasets.luecken_2021_bone_marrow,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[tuple[Path, str, list[str]]]:
    """A folder, the address on this machine that serves it, and what was asked for."""
    folder, asked = tmp_path_factory.mktemp("served"), []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, form, *values):
            asked.append(values[0])

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PERTURBFLOW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def remote(
    server: tuple[Path, str, list[str]], name: str, content: bytes, known_hash: str | None = "right"
) -> RemoteFile:
    (server[0] / name).write_bytes(content)
    if known_hash == "right":
        known_hash = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return RemoteFile(name=name, url=f"{server[1]}/{name}", size="1 kB", known_hash=known_hash)


def test_a_file_is_downloaded_once(server, cache):
    pytest.importorskip("pooch")
    file = remote(server, "once.txt", b"content")
    for _ in range(2):
        assert local_copy(file) == cache / "once.txt"
    assert (cache / "once.txt").read_bytes() == b"content"
    assert sum("once.txt" in line for line in server[2]) == 1


def test_a_packed_file_is_unpacked(server, cache):
    pytest.importorskip("pooch")
    path = local_copy(remote(server, "packed.txt.gz", gzip.compress(b"content")))
    assert path.read_bytes() == b"content"
    assert path.parent == cache


def test_another_file_than_the_published_one_is_refused(server, cache):
    pytest.importorskip("pooch")
    with pytest.raises(ValueError, match="does not match the known hash"):
        local_copy(remote(server, "other.txt", b"content", f"md5:{'0' * 32}"))
    assert not (cache / "other.txt").exists()


def test_without_a_published_hash_that_of_the_download_is_logged(server, cache, monkeypatch):
    pooch, said = pytest.importorskip("pooch"), []
    monkeypatch.setattr(pooch.get_logger(), "info", lambda message, *values: said.append(message % values))
    local_copy(remote(server, "unknown.txt", b"content", None))
    assert any(hashlib.sha256(b"content").hexdigest() in line for line in said)


@pytest.mark.parametrize("missing", ["file", "server"])
def test_without_network_the_message_says_where_to_save_a_copy(server, cache, missing):
    pytest.importorskip("pooch")
    file = remote(server, "gone.h5ad", b"")
    (server[0] / "gone.h5ad").unlink()
    if missing == "server":
        file = replace(file, url="http://127.0.0.1:9/gone.h5ad")  # nobody listens at the port of "discard"
    with pytest.raises(ConnectionError, match=r"Expected to download .* \(1 kB\), found .*Error. .* save it as .*gone"):
        local_copy(file)


def test_without_pooch_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(
        ImportError, match=r"Expected pooch to be installed.* Run `pip install 'perturbflow\[data\]'`, or download"
    ):
        local_copy(RemoteFile(name="x.h5ad", url="https://example.org/x.h5ad", size="1 kB", known_hash=None))


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_missing_copy_is_named(reader):
    with pytest.raises(FileNotFoundError, match="at nowhere.h5ad, found no file. Omit `path` to download it"):
        reader("nowhere.h5ad")


def test_published_files_are_at_archives_with_their_hashes():
    for file in FILES.values():
        assert file.url.startswith("https://")
        assert file.name in file.url
        kind, _, digits = (file.known_hash or "none:").partition(":")
        assert len(digits) == {"md5": 32, "sha256": 64, "none": 0}[kind]
    assert [name for name, file in FILES.items() if file.known_hash is None] == ["multiome"]


# As others publish them: a few cells in the layout of each file.


def counts(n_cells: int, n_genes: int = 5) -> np.ndarray:
    return np.random.default_rng(0).poisson(2.0, (n_cells, n_genes)).astype(np.float32)


def saved(path: Path, labels: list, *, x=None, **columns) -> AnnData:
    obs = pd.DataFrame({"perturbation": labels, **columns}, index=[f"cell{k}" for k in range(len(labels))])
    adata = AnnData(sparse.csr_matrix(counts(len(obs))) if x is None else x, obs=obs)
    adata.write_h5ad(path)
    return adata


def registered(adata: AnnData, **fields) -> list[str]:
    """Labels with which the cells can be registered as they are, once normalised."""
    adata = adata.copy()
    adata.X = sparse.csr_matrix(np.log1p(adata.X.toarray() / 2))
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control", **fields)
    return list(read_fields(adata).vocabulary.components)


def test_kang(tmp_path):
    path = tmp_path / "kang.h5ad"
    obs = pd.DataFrame(
        {"label": ["ctrl", "stim"] * 10, "replicate": [101, 107] * 10, "cell_type": ["B cells"] * 20},
        index=[f"cell{k}" for k in range(20)],
    )
    AnnData(sparse.csc_matrix(counts(20)), obs=obs).write_h5ad(path)
    adata = pf.datasets.kang_2018(path)
    assert isinstance(adata.X, sparse.csr_matrix)
    np.testing.assert_array_equal(adata.X.toarray(), counts(20))
    assert adata.obs["perturbation"].tolist() == ["control", "IFN-beta"] * 10
    assert set(adata.obs["donor"]) == {"101", "107"}
    assert registered(adata, covariate_keys=["cell_type"], batch_key=None) == ["IFN-beta"]


def test_norman_joins_pairs_by_plus_in_alphabetical_order(tmp_path):
    path = tmp_path / "norman.h5ad"
    saved(path, ["control", "SET_KLF1", "KLF1", "SET"] * 5)
    adata = pf.datasets.norman_2019(path)
    assert adata.obs["perturbation"].tolist() == ["control", "KLF1+SET", "KLF1", "SET"] * 5
    assert registered(adata) == ["KLF1", "SET"]


def test_replogle_is_read_from_a_dense_matrix_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("perturbflow.datasets._download.ROWS_AT_ONCE", 7)
    path = tmp_path / "replogle.h5ad"
    saved(path, ["control", "non-targeting", "AARS", "POLR2A"] * 5, x=counts(20), batch=[1, 2] * 10)
    adata = pf.datasets.replogle_2022_k562_essential(path)
    np.testing.assert_array_equal(adata.X.toarray(), counts(20))
    assert adata.obs["perturbation"].tolist() == ["control", "control", "AARS", "POLR2A"] * 5
    assert registered(adata, batch_key="batch") == ["AARS", "POLR2A"]


def test_adamson_names_genes_and_leaves_out_cells_without_guide(tmp_path):
    path = tmp_path / "adamson.h5ad"
    labels = ["63(mod)_pBA580", "OST4_pDS353", "*", np.nan, "Gal4-4(mod)_pBA582"] * 4
    saved(path, pd.Categorical(labels))
    adata = pf.datasets.adamson_2016_upr(path)
    assert adata.obs["perturbation"].tolist() == ["control", "OST4", "control"] * 4
    assert adata.obs["guide"].tolist()[:2] == ["63(mod)_pBA580", "OST4_pDS353"]
    np.testing.assert_array_equal(adata.X.toarray(), counts(20)[[k for k in range(20) if k % 5 not in {2, 3}]])
    assert registered(adata) == ["OST4"]


def test_sciplex_has_doses_and_labels_that_can_be_read(tmp_path):
    path = tmp_path / "sciplex.h5ad"
    lines, doses = ["A549", "A549", "MCF7", "A549"] * 5, [0.0, 1e4, 10.0, 100.0] * 5
    saved(path, ["control", "(+)-JQ1", "(+)-JQ1", "AC/DC "] * 5, cell_line=lines, dose_value=doses)
    adata = pf.datasets.srivatsan_2020_sciplex3(path, cell_lines=["A549"])
    assert adata.obs["perturbation"].tolist() == ["control", "(plus)-JQ1", "AC|DC"] * 5
    assert adata.obs["drug"].tolist()[:2] == ["control", "(+)-JQ1"]
    assert adata.obs["dose"].tolist() == [0.0, 1e4, 100.0] * 5
    assert registered(adata, dose_key="dose") == ["(plus)-JQ1", "AC|DC"]
    assert pf.datasets.srivatsan_2020_sciplex3(path).n_obs == 20
    with pytest.raises(
        ValueError, match=r"Expected `cell_lines` among \['A549', 'K562', 'MCF7'\], at least one, found \[\]"
    ):
        pf.datasets.srivatsan_2020_sciplex3(path, cell_lines=[])


def test_bone_marrow_keeps_genes_with_their_counts(tmp_path):
    path = tmp_path / "marrow.h5ad"
    var = pd.DataFrame({"feature_types": ["GEX", "ATAC", "GEX"]}, index=["g0", "peak", "g1"])
    adata = AnnData(
        sparse.csr_matrix(np.log1p(counts(6, 3))), var=var, layers={"counts": sparse.csr_matrix(counts(6, 3))}
    )
    adata.obs["cell_type"] = "HSC"
    adata.write_h5ad(path)
    found = pf.datasets.luecken_2021_bone_marrow(path)
    assert list(found.var_names) == ["g0", "g1"]
    np.testing.assert_array_equal(found.X.toarray(), counts(6, 3)[:, [0, 2]])
    with pytest.raises(ValueError, match=r"Expected `assay` to be one of \['cite', 'multiome'\], found 'atac'"):
        pf.datasets.luecken_2021_bone_marrow(path, assay="atac")  # type: ignore[arg-type]


def test_labels_that_are_not_as_published_are_an_error(tmp_path):
    path = tmp_path / "norman.h5ad"
    saved(path, ["DMSO", "KLF1"] * 5)
    with pytest.raises(
        ValueError, match=r"Expected control and perturbed cells in Norman.*, found the labels \['DMSO', "
    ):
        pf.datasets.norman_2019(path)


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_counts_of_a_part_are_those_of_the_whole(tmp_path, monkeypatch, form):
    monkeypatch.setattr("perturbflow.datasets._download.ROWS_AT_ONCE", 4)
    whole = AnnData(form(counts(11)))
    whole.obs["kind"] = pd.Categorical(list("aabbbbbbbbc"))
    whole.write_h5ad(tmp_path / "cells.h5ad")
    part = read_counts(
        tmp_path / "cells.h5ad",
        cells=lambda obs: (obs["kind"] != "b").to_numpy(),
        genes=lambda var: np.arange(len(var)) % 2 == 0,
    )
    np.testing.assert_array_equal(part.X.toarray(), counts(11)[[0, 1, 10]][:, [0, 2, 4]])
    assert part.X.dtype == np.float32
    assert list(part.obs["kind"].cat.categories) == ["a", "c"]


def test_a_published_file_is_read_from_the_download(server, cache, monkeypatch, tmp_path):
    pytest.importorskip("pooch")
    saved(tmp_path / "cells.h5ad", ["control", "A_B"] * 3)
    file = remote(server, "cells.h5ad", (tmp_path / "cells.h5ad").read_bytes())
    monkeypatch.setitem(FILES, "norman", file)
    assert set(pf.datasets.norman_2019().obs["perturbation"]) == {"control", "A+B"}
    assert (cache / "cells.h5ad").is_file()
