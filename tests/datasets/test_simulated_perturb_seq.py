from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.sparse import csgraph

import perturbflow as pf

SMALL = {"n_cells": 900, "n_genes": 60, "n_perturbations": 6, "n_combinations": 3}


@pytest.fixture(scope="module")
def adata():
    return pf.datasets.simulated_perturb_seq()


@pytest.fixture(scope="module")
def time_course():
    return pf.datasets.simulated_perturb_seq(
        2400, 150, n_combinations=2, cell_types=1, time_points=(0.0, 0.5, 1.0, 2.0, 4.0, np.inf)
    )


def simulate(**changes):
    return pf.datasets.simulated_perturb_seq(**{**SMALL, **changes})


def counts_of(adata, perturbation, gene):
    cells = (adata.obs["perturbation"] == perturbation).to_numpy()
    return adata[cells, gene].layers["counts"].toarray().ravel()


def reached_from(adata):
    """Whether the gene of a row influences that of a column, along any path; a gene influences itself."""
    distance = csgraph.shortest_path(adata.varp["true_network"] != 0, unweighted=True)
    return pd.DataFrame(np.isfinite(distance), index=adata.var_names, columns=adata.var_names)


def isolated_targets(adata):
    """Perturbed gene, target and weight of the edges that are the only path between their ends."""
    network = pd.DataFrame(adata.varp["true_network"].toarray(), index=adata.var_names, columns=adata.var_names)
    reached = reached_from(adata)
    pairs = []
    for source in adata.uns["simulation"]["perturbation_modes"]:
        downstream = reached.columns[reached.loc[source]]
        parents = (network.loc[downstream] != 0).sum()  # of every gene, among the genes downstream of the source
        if parents[source] == 0:  # no loop
            targets = network.columns[(network.loc[source] != 0) & (parents == 1)]
            pairs += [(source, target, network.loc[source, target]) for target in targets]
    return pairs


def test_whole_numbers_are_numbers():
    one, other = (simulate(mean_regulators=number) for number in (3, 3.0))
    assert (one.layers["counts"] != other.layers["counts"]).nnz == 0


def test_default_is_as_documented(adata):
    assert adata.shape == (3600, 300)
    assert adata.obs.columns.tolist() == ["perturbation", "cell_type", "dose", "time", "condition", "library_size"]
    sizes = adata.obs.groupby(["perturbation", "cell_type"], observed=True).size()
    assert len(sizes) == (1 + 12 + 10) * 2
    assert sizes.drop("control").between(65, 66).all()
    assert (sizes["control"] == 360).all()
    perturbed = adata.obs["perturbation"] != "control"
    assert (adata.obs["dose"] == perturbed.astype(float)).all()
    assert np.isinf(adata.obs["time"]).all()
    assert adata.var["is_regulator"].sum() == 30


def test_expression_is_log_normalized_counts(adata):
    counts = adata.layers["counts"]
    assert isinstance(counts, sparse.csr_matrix)
    assert isinstance(adata.X, sparse.csr_matrix)
    assert counts.dtype == adata.X.dtype == np.float32
    assert (counts.data > 0).all()
    assert (counts.data == np.round(counts.data)).all()
    counts = counts.toarray().astype(float)
    total = counts.sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(adata.obs["library_size"], total[:, 0])
    np.testing.assert_allclose(adata.X.toarray(), np.log1p(1e4 * counts / total), rtol=1e-5)


def test_target_sum_scales_expression():
    a, b = simulate(target_sum=1e4), simulate(target_sum=1e3)
    np.testing.assert_array_equal(a.layers["counts"].toarray(), b.layers["counts"].toarray())
    np.testing.assert_allclose(np.expm1(a.X.toarray()), 10 * np.expm1(b.X.toarray()), rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_most_counts_are_zero(seed):
    counts = pf.datasets.simulated_perturb_seq(1000, seed=seed).layers["counts"]
    assert 0.6 < 1 - counts.nnz / np.prod(counts.shape) < 0.95


def test_library_size():
    controls = {
        "n_perturbations": 1,
        "n_combinations": 0,
        "control_fraction": 0.9,
        "cell_state_sd": 0.0,
        "n_genes": 200,
    }
    sd = {}
    for spread in (0.0, 0.5):
        adata = simulate(n_cells=5000, mean_library_size=2000, library_size_sd=spread, cell_types=1, **controls)
        size = adata.obs.loc[adata.obs["perturbation"] == "control", "library_size"]
        assert size.mean() == pytest.approx(2000, rel=0.05)
        sd[spread] = np.log(size).std()
    # Bursts vary the total too; the two variances add up.
    assert sd[0.5] ** 2 - sd[0.0] ** 2 == pytest.approx(0.25, rel=0.1)


def test_cell_types_differ():
    adata = simulate(cell_types=3, n_cells=2400)
    control = adata[(adata.obs["perturbation"] == "control").to_numpy()]
    types = control.obs["cell_type"].cat.categories
    means = np.array(
        [control[(control.obs["cell_type"] == name).to_numpy()].X.toarray().mean(axis=0) for name in types]
    )
    assert types.tolist() == ["type_1", "type_2", "type_3"]
    for first, second in [(0, 1), (0, 2), (1, 2)]:
        assert np.abs(means[first] - means[second]).max() > 1
    sizes = control.obs.groupby("cell_type", observed=True)["library_size"].mean()
    assert sizes.max() / sizes.min() > 1.1


def test_regulators_and_their_targets_covary():
    def mean_signed_correlation(cell_state_sd):
        adata = pf.datasets.simulated_perturb_seq(
            4000, 150, n_perturbations=1, n_combinations=0, cell_types=1, control_fraction=0.99,
            cell_state_sd=cell_state_sd, mean_library_size=5000,
        )  # fmt: skip
        correlation = np.corrcoef(np.log1p(adata.layers["counts"].toarray()), rowvar=False)
        network = adata.varp["true_network"].toarray()
        return np.mean(correlation[network != 0] * np.sign(network[network != 0]))

    assert abs(mean_signed_correlation(0.0)) < 0.01
    assert mean_signed_correlation(0.6) > 0.04


def test_seed_decides_everything():
    a, b, c = simulate(seed=1), simulate(seed=1), simulate(seed=2)
    np.testing.assert_array_equal(a.layers["counts"].toarray(), b.layers["counts"].toarray())
    pd.testing.assert_frame_equal(a.obs, b.obs)
    pd.testing.assert_frame_equal(a.uns["true_effects"], b.uns["true_effects"])
    assert not np.array_equal(a.layers["counts"].toarray(), c.layers["counts"].toarray())
    assert not a.uns["true_network"]["edges"].equals(c.uns["true_network"]["edges"])


def test_truth_does_not_depend_on_the_sampling():
    a, b = simulate(), simulate(n_cells=500, dropout=0.0, mean_library_size=50, control_fraction=0.4)
    pd.testing.assert_frame_equal(a.uns["true_effects"], b.uns["true_effects"])
    pd.testing.assert_frame_equal(a.uns["true_network"]["edges"], b.uns["true_network"]["edges"])


def test_network_matrix_and_edges_agree(adata):
    network = adata.varp["true_network"]
    edges = adata.uns["true_network"]["edges"]
    assert isinstance(network, sparse.csr_matrix)
    assert edges.columns.tolist() == ["source", "target", "weight"]
    row, column = adata.var_names.get_indexer(edges["source"]), adata.var_names.get_indexer(edges["target"])
    rebuilt = sparse.csr_matrix((edges["weight"].to_numpy(), (row, column)), shape=network.shape)
    assert (rebuilt != network).nnz == 0
    assert adata.var["is_regulator"].to_numpy()[row].all()


def test_perturbed_genes_change_as_told(adata):
    modes = adata.uns["simulation"]["perturbation_modes"]
    assert sorted(modes.values()) == ["knockout"] * 6 + ["overexpression"] * 6
    for gene, mode in modes.items():
        counts, control = counts_of(adata, gene, gene), counts_of(adata, "control", gene)
        if mode == "knockout":
            assert (counts == 0).all()
            assert control.any()
        else:
            assert counts.mean() > 2 * control.mean()


def test_combinations_contain_both(adata):
    modes = adata.uns["simulation"]["perturbation_modes"]
    combinations = [name for name in adata.obs["perturbation"].cat.categories if "+" in name]
    assert len(combinations) == 10
    for combination in combinations:
        genes = combination.split("+")
        assert genes == sorted(genes)
        assert set(genes) <= set(adata.obs["perturbation"].cat.categories)  # each is a single as well
        for gene in genes:
            counts = counts_of(adata, combination, gene)
            assert counts.any() == (modes[gene] == "overexpression")


def test_some_combinations_are_not_additive(adata):
    effects = adata.uns["true_effects"]
    deviation = []
    for name in effects.index[effects.index.str.contains("+", regex=False)]:
        combination, cell_type = name.split("|")
        additive = sum(effects.loc[f"{gene}|{cell_type}"] for gene in combination.split("+"))
        deviation.append(np.linalg.norm(effects.loc[name] - additive) / np.linalg.norm(effects.loc[name]))
    assert max(deviation) > 0.2
    assert min(deviation) < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_nothing_upstream_changes(seed):
    adata = simulate(seed=seed, mean_regulators=1.5)
    reached = reached_from(adata)
    n_unchanged = 0
    for name, effect in adata.uns["true_effects"].iterrows():
        genes = [gene for gene in name.split("|")[0].split("+") if gene != "control"]
        downstream = reached.loc[genes].any(axis=0) if genes else pd.Series(False, index=reached.columns)
        assert (effect[~downstream] == 0).all()
        assert (effect[genes] != 0).all()
        n_unchanged += (~downstream).sum()
    assert n_unchanged > 0


def test_targets_change_in_the_direction_of_the_edge(adata):
    modes = adata.uns["simulation"]["perturbation_modes"]
    pairs = isolated_targets(adata)
    assert len(pairs) > 20
    for source, target, weight in pairs:
        direction = np.sign(weight) * {"knockout": -1, "overexpression": 1}[modes[source]]
        for cell_type in adata.obs["cell_type"].cat.categories:
            assert np.sign(adata.uns["true_effects"].loc[f"{source}|{cell_type}", target]) == direction


def test_observed_effects_follow_the_true_effects():
    adata = simulate(n_cells=12_000, n_combinations=2, cell_types=1, mean_library_size=300, control_fraction=0.4)
    expression = pd.DataFrame(adata.X.toarray(), columns=adata.var_names)
    means = expression.groupby(adata.obs["condition"].to_numpy()).mean()
    effects = adata.uns["true_effects"].drop("control|type_1")
    for name, effect in effects.iterrows():
        observed = means.loc[name] - means.loc["control|type_1"]
        assert np.corrcoef(observed, effect)[0, 1] > 0.8


def test_effects_of_conditions_are_found_by_the_cells(adata):
    assert set(adata.obs["condition"].cat.categories) == set(adata.uns["true_effects"].index)
    parts = adata.obs["condition"].astype(str).str.split("|", expand=True)
    assert (parts[0] == adata.obs["perturbation"].astype(str)).all()
    assert (parts[1] == adata.obs["cell_type"].astype(str)).all()
    assert (adata.uns["true_effects"].filter(like="control", axis=0) == 0).all(axis=None)


def test_doses():
    adata = simulate(doses=(0.0, 0.5, 1.0), modes=("knockout",), n_perturbations=3, n_combinations=1, cell_types=1)
    gene, other = sorted(adata.uns["simulation"]["perturbation_modes"])[:2]
    effects = adata.uns["true_effects"]
    pair = next(name for name in adata.obs["perturbation"].cat.categories if "+" in name)
    first, second = pair.split("+")

    doses = adata.obs.groupby("perturbation", observed=True)["dose"].unique()
    assert set(doses["control"]) == {"0"}
    assert set(doses[gene]) == {"0", "0.5", "1"}
    assert set(doses[pair]) == {f"{a}+{b}" for a in ("0", "0.5", "1") for b in ("0", "0.5", "1")}

    assert (effects.loc[[f"{gene}|type_1|dose=0", f"{other}|type_1|dose=0", f"{pair}|type_1|dose=0+0"]] == 0).all(
        axis=None
    )
    assert 0 > effects.loc[f"{gene}|type_1|dose=0.5", gene] > effects.loc[f"{gene}|type_1|dose=1", gene]
    for dose in ("0.5", "1"):  # a component at dose 0 is absent
        np.testing.assert_allclose(
            effects.loc[f"{pair}|type_1|dose={dose}+0"], effects.loc[f"{first}|type_1|dose={dose}"], atol=1e-12
        )
        np.testing.assert_allclose(
            effects.loc[f"{pair}|type_1|dose=0+{dose}"], effects.loc[f"{second}|type_1|dose={dose}"], atol=1e-12
        )
    complete = adata[(adata.obs["condition"] == f"{gene}|type_1|dose=1").to_numpy(), gene]
    assert complete.layers["counts"].nnz == 0


def test_partial_knockout_leaves_its_share_of_production():
    dose = 0.3
    adata = simulate(doses=(dose,), modes=("knockout",), mean_regulators=0.0, n_combinations=0, target_sum=1e9)
    assert set(adata.obs["dose"]) == {0.0, dose}
    for gene in adata.uns["simulation"]["perturbation_modes"]:
        # With so large a target sum the effect is a log fold change.
        effect = adata.uns["true_effects"].loc[f"{gene}|type_1", gene]
        assert effect == pytest.approx(np.log(1 - dose), rel=1e-4)


def test_overexpression_may_exceed_dose_one():
    adata = simulate(doses=(2.0,), modes=("overexpression",), mean_regulators=0.0, n_combinations=0, target_sum=1e9)
    gene = next(iter(adata.uns["simulation"]["perturbation_modes"]))
    assert adata.uns["true_effects"].loc[f"{gene}|type_1", gene] == pytest.approx(np.log(1 + 4 * 2.0), rel=1e-4)


def test_effects_grow_with_time(time_course):
    times = ["0", "0.5", "1", "2", "4", "inf"]
    assert set(time_course.obs["time"]) == {float(time) for time in times}
    pairs = isolated_targets(time_course)
    assert len(pairs) > 10
    for source, target, _ in pairs:
        course = [time_course.uns["true_effects"].loc[f"{source}|type_1|time={time}", target] for time in times]
        assert course[0] == 0
        assert (np.diff(np.abs(course)) > 0).all()


def test_knocked_out_gene_decays(time_course):
    modes = time_course.uns["simulation"]["perturbation_modes"]
    gene = max(
        (gene for gene, mode in modes.items() if mode == "knockout"),
        key=lambda gene: counts_of(time_course, "control", gene).mean(),
    )
    for time, nonzero in {0.0: True, 0.5: True, np.inf: False}.items():
        cells = (time_course.obs["perturbation"] == gene) & (time_course.obs["time"] == time)
        assert (time_course[cells.to_numpy(), gene].layers["counts"].nnz > 0) == nonzero


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="default"),
        pytest.param({"doses": (0.5, 1.0), "time_points": (1.0, np.inf), "n_cells": 4000}, id="doses_and_times"),
        pytest.param({"doses": [1.0], "time_points": range(1, 3), "modes": ["knockout"]}, id="other_sequences"),
    ],
)
def test_round_trip(tmp_path, changes):
    adata = simulate(**{"n_genes": 20, **changes})
    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = [ad.read_h5ad(tmp_path / "cells.h5ad")]
    if not changes:
        adata.write_zarr(tmp_path / "cells.zarr")
        again.append(ad.read_zarr(tmp_path / "cells.zarr"))
    for read in again:
        np.testing.assert_array_equal(read.X.toarray(), adata.X.toarray())
        np.testing.assert_array_equal(read.layers["counts"].toarray(), adata.layers["counts"].toarray())
        np.testing.assert_array_equal(read.varp["true_network"].toarray(), adata.varp["true_network"].toarray())
        pd.testing.assert_frame_equal(read.obs, adata.obs, check_dtype=False, check_index_type=False)
        for written, original in (
            (read.uns["true_effects"], adata.uns["true_effects"]),
            (read.uns["true_network"]["edges"], adata.uns["true_network"]["edges"]),
        ):
            pd.testing.assert_frame_equal(
                written, original, check_dtype=False, check_index_type=False, check_column_type=False, check_names=False
            )
        simulation = adata.uns["simulation"]
        assert set(read.uns["simulation"]) == set(simulation)
        assert read.uns["simulation"]["perturbation_modes"] == simulation["perturbation_modes"]
        assert list(read.uns["simulation"]["doses"]) == simulation["doses"]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"cell_types": 1}, id="one_cell_type"),
        pytest.param({"n_perturbations": 1, "n_combinations": 0}, id="one_perturbation"),
        pytest.param({"n_genes": 6, "n_regulators": 6}, id="only_regulators"),
        pytest.param({"n_genes": 1, "n_perturbations": 1, "n_combinations": 0}, id="one_gene"),
        pytest.param({"n_combinations": 15}, id="all_combinations"),
        pytest.param({"n_cells": 20, "control_fraction": 0.1}, id="one_cell_a_condition"),
        pytest.param({"mean_library_size": 0.1}, id="cells_without_counts"),
        pytest.param({"library_size_sd": 0.0, "cell_state_sd": 0.0, "dropout": 0.0}, id="no_variation"),
    ],
)
def test_extremes(changes):
    adata = simulate(**changes)
    parameters = {**SMALL, **changes}
    assert adata.shape == (parameters["n_cells"], parameters["n_genes"])
    assert np.isfinite(adata.X.data).all()
    assert np.isfinite(adata.uns["true_effects"].to_numpy()).all()
    n_conditions = 1 + parameters["n_perturbations"] + parameters["n_combinations"]
    assert adata.obs["perturbation"].nunique() == n_conditions


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        pytest.param({"n_cells": -1}, "`n_cells` to be at least 1, found -1", id="negative_cells"),
        pytest.param({"n_genes": 0}, "`n_genes` to be at least 1", id="no_genes"),
        pytest.param({"n_cells": 10.5}, "`n_cells` to be a whole number", id="half_a_cell"),
        pytest.param({"cell_types": 0}, "`cell_types` to be at least 1", id="no_cell_type"),
        pytest.param({"n_combinations": -2}, "`n_combinations` to be at least 0", id="combinations"),
        pytest.param({"n_combinations": 16}, "at most 15 combinations of 6 perturbations, found n_comb", id="too_many"),
        pytest.param({"n_perturbations": 61}, "found 61, 61 and 60. .*lower `n_perturbations`", id="too_many_singles"),
        pytest.param({"n_regulators": 5}, "n_perturbations <= n_regulators <= n_genes, found 6, 5", id="regulators"),
        pytest.param({"n_regulators": 99}, "n_perturbations <= n_regulators <= n_genes", id="too_many_regulators"),
        pytest.param({"n_cells": 15}, "one cell in each of 20 conditions .*Raise `n_cells`", id="too_few_cells"),
        pytest.param({"modes": ("knockdown",)}, r"`modes` from \['knockout', 'overexpression'\]", id="unknown_mode"),
        pytest.param({"modes": ()}, "`modes` from", id="no_mode"),
        pytest.param({"doses": ()}, "`doses` to be distinct numbers", id="no_dose"),
        pytest.param({"doses": (-0.5,)}, "`doses` to be distinct numbers", id="negative_dose"),
        pytest.param({"doses": (1.5,)}, "`doses` to be distinct numbers from 0 to 1, found", id="more_than_knockout"),
        pytest.param({"doses": (1.0, 1.0)}, "`doses` to be distinct", id="repeated_dose"),
        pytest.param(
            {"time_points": (-1.0,)}, "`time_points` to be distinct numbers from 0 to inf", id="negative_time"
        ),
        pytest.param({"time_points": (np.nan,)}, "`time_points` to be distinct", id="nan_time"),
        pytest.param({"control_fraction": 0.0}, "`control_fraction` between 0 and 1", id="no_control"),
        pytest.param({"control_fraction": 1.0}, "`control_fraction` between 0 and 1", id="only_control"),
        pytest.param({"dropout": 1.0}, "`dropout` to be at least 0 and below 1", id="dropout"),
        pytest.param({"mean_regulators": -1.0}, "`mean_regulators` to be a finite number of at least 0", id="density"),
        pytest.param({"effect_strength": np.inf}, "`effect_strength` to be a finite number", id="strength"),
        pytest.param({"cell_state_sd": np.nan}, "`cell_state_sd` to be a finite number", id="cell_state"),
        pytest.param({"library_size_sd": -0.1}, "`library_size_sd` to be a finite number", id="library_sd"),
        pytest.param({"mean_library_size": 0.0}, "`mean_library_size` to be a finite number above 0", id="library"),
        pytest.param({"target_sum": -1.0}, "`target_sum` to be a finite number above 0", id="target_sum"),
    ],
)
def test_bad_input(changes, match):
    with pytest.raises((TypeError, ValueError), match=match):
        simulate(**changes)
