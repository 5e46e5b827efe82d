from __future__ import annotations

import logging
import re
from typing import Any

import anndata
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import perturbflow as pf
from perturbflow.trajectories import read_dynamics_fields, trajectories_of

GENES = ["GATA1", "SPI1", "KLF1", "CEBPA"]
FULL: dict[str, Any] = {"time_key": "time", "trajectory_key": "donor", "perturbation_key": "perturbation"}


@pytest.fixture
def adata() -> AnnData:
    """Two donors under control and one under knock-out of KLF1, each with cells at 0, 1, 2 and 4 h, in no order."""
    runs = [("a", "control"), ("b", "control"), ("b", "KLF1")]
    obs = pd.DataFrame(
        [(time, donor, label) for donor, label in runs for time in (0.0, 1.0, 2.0, 4.0)],
        columns=["time", "donor", "perturbation"],
    ).sample(frac=1, random_state=0)
    obs.index = [f"cell_{number}" for number in range(len(obs))]
    x = np.random.default_rng(0).normal(size=(len(obs), 4))
    return AnnData(x, obs=obs, var=pd.DataFrame({"is_tf": [True, True, False, True]}, index=GENES))


def edges(*rows) -> pd.DataFrame:
    columns = ["source", "target", "weight"]
    return pd.DataFrame(list(rows), columns=columns[: len(rows[0])])


def test_what_is_written(adata):
    assert pf.pp.setup_dynamics(adata, time_key="time") is None
    assert adata.uns["dynamics_fields"] == {
        "time_key": "time",
        "control": "control",
        "separator": "+",
        "regulators": GENES,
        "has_prior": False,
    }
    assert "dynamics_prior" not in adata.varp
    prior = edges(("GATA1", "SPI1", -2.0), ("SPI1", "SPI1", 0.5))
    pf.pp.setup_dynamics(adata, **FULL, regulators=["SPI1", "GATA1"], prior=prior)
    fields = read_dynamics_fields(adata)
    assert fields.regulators == ("GATA1", "SPI1")  # in the order of the genes
    assert (fields.trajectory_key, fields.perturbation_key, fields.has_prior) == ("donor", "perturbation", True)
    network = adata.varp["dynamics_prior"]
    assert isinstance(network, sparse.csr_matrix)
    assert network.dtype == np.float32
    expected = np.zeros((4, 4))
    expected[0, 1], expected[1, 1] = -2, 0.5
    np.testing.assert_array_equal(network.toarray(), expected)
    pf.pp.setup_dynamics(adata, time_key="time")
    assert "dynamics_prior" not in adata.varp


def test_trajectories_after_registration_and_h5ad(adata, tmp_path):
    pf.pp.setup_dynamics(adata, **FULL, prior=edges(("KLF1", "GATA1")))
    adata.write_h5ad(tmp_path / "adata.h5ad")
    for stored in (adata, anndata.read_h5ad(tmp_path / "adata.h5ad")):
        found = trajectories_of(stored, read_dynamics_fields(stored))
        assert [one.name for one in found] == ["a|control", "b|control", "b|KLF1"]
        assert all(one.time.tolist() == [0, 1, 2, 4] for one in found)
        assert [one.clamped.sum() for one in found] == [0, 0, 1]
        cells = (stored.obs["donor"] == "a").to_numpy()
        order = np.argsort(stored.obs["time"].to_numpy()[cells])
        np.testing.assert_array_equal(found[0].values, stored.X[cells][order])


def test_copies_and_views(adata, unchanged):
    with unchanged(adata):
        copied = pf.pp.setup_dynamics(adata, time_key="time", prior=edges(("KLF1", "GATA1")), copy=True)
    assert "dynamics_prior" not in adata.varp
    assert copied is not None
    assert "dynamics_prior" in copied.varp
    view = adata[(adata.obs["donor"] == "b").to_numpy()]
    with unchanged(adata), pytest.warns(UserWarning, match="`adata` is a view .* it was copied") as caught:
        pf.pp.setup_dynamics(view, time_key="time")
    assert caught[0].filename == __file__
    assert "dynamics_fields" in view.uns


def test_regulators_from_a_column(adata):
    pf.pp.setup_dynamics(adata, time_key="time", regulators="is_tf")
    assert read_dynamics_fields(adata).regulators == ("GATA1", "SPI1", "CEBPA")


def test_a_prior_graph_is_like_its_table(adata):
    graph = nx.DiGraph([("GATA1", "SPI1", {"weight": -2.0}), ("KLF1", "GATA1")])
    pf.pp.setup_dynamics(adata, time_key="time", prior=graph)
    from_graph = adata.varp["dynamics_prior"].toarray()
    table = edges(("KLF1", "GATA1", 1.0), ("GATA1", "SPI1", -2.0))
    pf.pp.setup_dynamics(adata, time_key="time", prior=table)
    np.testing.assert_array_equal(from_graph, adata.varp["dynamics_prior"].toarray())
    assert np.count_nonzero(from_graph) == 2


@pytest.mark.parametrize(
    "prior",
    [
        edges(("GATA1", "SPI1", 1.0), ("KLF1", "SPI1", 1.0), ("GATA1", "SPI1", -1.0)),
        edges(("GATA1", "SPI1", "1"), ("KLF1", "SPI1", "3"), ("GATA1", "SPI1", "-1")),
        edges(("GATA1", "SPI1"), ("KLF1", "SPI1"), ("GATA1", "SPI1")),
        nx.MultiDiGraph([("GATA1", "SPI1", {"weight": 1.0}), ("KLF1", "SPI1"), ("GATA1", "SPI1", {"weight": -1.0})]),
    ],
    ids=["opposite", "text", "no_weights", "graph"],
)
def test_advice_on_repeated_edges_works(adata, unchanged, prior):
    with unchanged(adata), pytest.raises(ValueError, match=r"repeated \[\('GATA1', 'SPI1'\)\]. Keep one") as error:
        pf.pp.setup_dynamics(adata, time_key="time", prior=prior)
    advice = re.findall("`([^`]*)`", str(error.value))[-1]
    pf.pp.setup_dynamics(adata, time_key="time", prior=eval(advice, {"prior": prior, "networkx": nx}))
    assert adata.varp["dynamics_prior"].nnz == 2


def test_the_strongest_of_repeated_edges_is_kept(adata):
    prior = edges(("GATA1", "SPI1", -3.0), ("GATA1", "SPI1", 1.0), ("KLF1", "SPI1", 2.0))
    with pytest.raises(ValueError, match="the strongest if they differ") as error:
        pf.pp.setup_dynamics(adata, time_key="time", prior=prior)
    pf.pp.setup_dynamics(adata, time_key="time", prior=eval(re.findall("`([^`]*)`", str(error.value))[-1]))
    assert adata.varp["dynamics_prior"].toarray()[[0, 2], 1].tolist() == [-3, 2]


def test_columns_and_index_of_a_prior_do_not_matter(adata):
    table = edges(("KLF1", "GATA1", -1.0), ("GATA1", "SPI1", 2.0)).assign(resource="x").iloc[:, ::-1]
    table.index = [7, 7]
    pf.pp.setup_dynamics(adata, time_key="time", prior=table)
    network = adata.varp["dynamics_prior"].tocoo()
    assert sorted(zip(network.row, network.col, network.data, strict=True)) == [(0, 1, 2.0), (2, 0, -1.0)]


def test_edges_from_no_regulators_are_left_out_and_logged(adata, caplog):
    prior = edges(("GATA1", "SPI1"), ("KLF1", "GATA1"))
    with caplog.at_level(logging.INFO, logger="perturbflow"):
        pf.pp.setup_dynamics(adata, time_key="time", regulators="is_tf", prior=prior)
    assert "Left out 1 of 2 edges of the prior, whose sources are not regulators." in caplog.messages
    assert "Registered 1 trajectories of 12 cells, with 3 regulators of 4 genes." in caplog.messages
    assert adata.varp["dynamics_prior"].nnz == 1


def test_edges_of_unmeasured_genes_are_left_out_and_logged(adata, caplog):
    prior = edges(("GATA1", "SPI1", 1.0), ("TP53", "SPI1", np.nan), ("GATA1", "MYC", 1.0), ("TP53", "MYC", 1.0))
    for network in (prior, nx.from_pandas_edgelist(prior, edge_attr="weight", create_using=nx.DiGraph)):
        caplog.clear()
        pf.pp.setup_dynamics(adata, time_key="time", prior=network)
        message = "Left out 3 of 4 edges of the prior, whose source or target is not in `adata.var_names`."
        assert caplog.messages[0] == message
        found = adata.varp["dynamics_prior"].tocoo()
        assert [(found.row[0], found.col[0])] == [tuple(adata.var_names.get_indexer(["GATA1", "SPI1"]))]
        assert found.nnz == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"time_key": "hours"}, KeyError, r"'hours' in `adata.obs`"),
        ({"time_key": 3}, TypeError, "`time_key` to be a string"),
        ({"trajectory_key": ""}, ValueError, "`trajectory_key` to be a string of at least one character"),
        ({"trajectory_key": "donors"}, KeyError, r"'donors' in `adata.obs`, found \['donor'"),
        ({"trajectory_key": "time"}, ValueError, r"repeated \['time'\]. Use each column for one purpose only"),
        ({"layer": "smooth"}, KeyError, "'smooth' in `adata.layers`"),
        (
            {"regulators": ["GATA1", "gata2"]},
            ValueError,
            r"regulators to be genes .* 1 that are not: \['gata2'\].*\['GATA1'",
        ),
        ({"regulators": ["SPI1", "SPI1"]}, ValueError, r"`regulators` to be unique, found repeated \['SPI1'\]"),
        ({"regulators": []}, ValueError, "at least one regulator in `regulators`, found none"),
        ({"regulators": [0, 1]}, TypeError, "`regulators` to be names of genes, .* found 0"),
        ({"regulators": 3}, TypeError, "`regulators` to be names of genes, .* found 3"),
        ({"regulators": "is_tfs"}, KeyError, r"'is_tfs' in `adata.var`, found \['is_tf'.*list of gene names"),
        ({"regulators": "length"}, TypeError, r"booleans in `adata.var\['length'\]`, found values of type int"),
        ({"regulators": "never"}, ValueError, "at least one regulator"),
        (
            {"prior": edges(("TP53", "SPI1"), ("SPI1", "MYC"))},
            ValueError,
            r"2 that are not: \['TP53', 'MYC'\].*Use the gene names of `adata.var_names` in `prior`",
        ),
        ({"prior": nx.DiGraph([("TP53", "SPI1")])}, ValueError, r"1 that are not: \['TP53'\]"),
        ({"prior": nx.Graph([("GATA1", "SPI1")])}, TypeError, "a DataFrame or a directed graph of networkx"),
        ({"prior": edges(("SPI1", "KLF1"), ("SPI1", "KLF1"))}, ValueError, r"repeated \[\('SPI1', 'KLF1'\)\]"),
        ({"prior": nx.MultiDiGraph([("SPI1", "KLF1")] * 2)}, ValueError, r"repeated \[\('SPI1', 'KLF1'\)\]"),
        ({"prior": edges(("SPI1", "KLF1", 0.0))}, ValueError, r"finite numbers other than 0, found 1 .*'KLF1', 0"),
        ({"prior": edges(("SPI1", "KLF1", np.nan))}, ValueError, "weights of `prior` to be finite"),
        ({"prior": edges(("SPI1", "KLF1", "up"))}, ValueError, "weights of `prior` to be finite"),
        ({"prior": edges(("SPI1", None))}, TypeError, r"names of genes in `prior\['target'\]`, found \[None\]"),
        ({"prior": edges(("SPI1", "KLF1")).rename(columns={"source": "tf"})}, KeyError, "'source' in `prior`"),
        ({"prior": edges(("SPI1", "KLF1")).iloc[:0]}, ValueError, "at least one edge in `prior`, found none"),
        (
            {"prior": edges(("KLF1", "SPI1")), "regulators": "is_tf"},
            ValueError,
            "edges from the 3 regulators in `prior`",
        ),
        ({"control": "ntc"}, ValueError, r"genes of .* or 'ntc', found \['control'\], which are not genes"),
        (
            {"control": ["ntc", "Neg 1"]},
            ValueError,
            r"genes of .* or any of \['ntc', 'Neg 1'\], found \['control'\], which are not genes",
        ),
        ({"control": []}, ValueError, "at least one label of control cells in `control`, found none"),
    ],
)
def test_wrong_arguments_leave_adata_unchanged(adata, unchanged, options, error, message):
    adata.var["length"], adata.var["never"] = 1, False
    with unchanged(adata), pytest.raises(error, match=message):
        pf.pp.setup_dynamics(adata, **(FULL | options))
    assert "dynamics_prior" not in adata.varp


def set_times(value, cells=slice(None)):
    def change(adata):
        adata.obs.iloc[cells, 0] = value

    return change


def relabel(column, old, new):
    def change(adata):
        adata.obs[column] = adata.obs[column].replace(old, new)

    return change


def keep_two_of_donor_a(adata):
    adata._inplace_subset_obs(((adata.obs["donor"] != "a") | (adata.obs["time"] < 2)).to_numpy())


def put_nan(adata):
    adata.X[3, 2] = np.nan


def repeat_gene(adata):
    adata.var_names = ["GATA1", "SPI1", "SPI1", "CEBPA"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (set_times(3.0), r"times that differ in `adata.obs\['time'\]`, found 3 in all 12 cells"),
        (set_times(np.nan, [1, 4]), r"found it missing in 2 cells: \['cell_1', 'cell_4'\]"),
        (set_times(np.inf, [1]), "found it infinite in 1 cells"),
        (
            relabel("donor", "a", "nan"),
            r"a value for every cell in `adata.obs\['donor'\]`, found \['nan'\], which represent",
        ),
        (keep_two_of_donor_a, r"at least 3 distinct times .* for 1 of 3: \['a\|control: 2 \(2 cells\)'\]"),
        (relabel("donor", "a", None), r"a value for every cell in `adata.obs\['donor'\]`, found none in 4 cells"),
        (relabel("perturbation", "KLF1", None), "a value for every cell in `adata.obs.'perturbation'"),
        (relabel("perturbation", "KLF1", "dasatinib"), r"found \['dasatinib'\], which are not genes.* such as a drug"),
        (
            relabel("perturbation", "KLF1", "SPI1+KLF2"),
            r"found \['KLF2'\].*genes to 'KLF2' in 'KLF2\+SPI1' are \['KLF1'",
        ),
        (relabel("perturbation", "KLF1", "KLF1+KLF1"), "every component once in a perturbation"),
        (put_nan, "finite expression in `adata.X`, found 1 NaN"),
        (repeat_gene, r"found repeated \['SPI1'\]. Run `adata.var_names_make_unique\(\)` first"),
    ],
)
def test_wrong_data_are_left_unchanged(adata, unchanged, spoil, message):
    spoil(adata)
    with unchanged(adata), pytest.raises(ValueError, match=message):
        pf.pp.setup_dynamics(adata, **FULL)


def test_replicates_do_not_make_up_for_times(adata):
    adata.obs["time"] = np.where(adata.obs["time"] > 1, 4.0, 0.0)
    with pytest.raises(ValueError, match=r"found fewer for 3 of 3: \['a\|control: 2 \(4 cells\)', 'b\|control"):
        pf.pp.setup_dynamics(adata, **FULL)


def test_backed_data_are_refused(adata, tmp_path):
    adata.write_h5ad(tmp_path / "adata.h5ad")
    backed = anndata.read_h5ad(tmp_path / "adata.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"Expected `adata` in memory, .* Run `adata = adata.to_memory\(\)` first"):
        pf.pp.setup_dynamics(backed, time_key="time")
    backed.file.close()


def test_what_is_no_anndata():
    with pytest.raises(TypeError, match="`adata` to be an AnnData"):
        pf.pp.setup_dynamics(np.ones((3, 2)), time_key="time")


@pytest.mark.parametrize("column", ["trajectory", "lineage"])
def test_trajectories_are_not_merged_silently(adata, column):
    adata.obs[column] = adata.obs["donor"]
    with pytest.raises(
        ValueError, match=f"would be averaged into one trajectory. Pass the column, `trajectory_key='{column}'`"
    ):
        pf.pp.setup_dynamics(adata, time_key="time")
    assert "dynamics_fields" not in adata.uns
    pf.pp.setup_dynamics(adata, time_key="time", trajectory_key=column)
    adata.obs[column] = "one"
    pf.pp.setup_dynamics(adata, time_key="time")
