from __future__ import annotations

from collections import Counter
from dataclasses import replace
from io import StringIO
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import perturbflow as pf
from perturbflow.pp._held_out import Conditions
from perturbflow.pp._scenarios import SCENARIOS, draw_split

BASIC: dict[str, Any] = {"perturbation_key": "perturbation", "control": "control"}
TYPES = ("NK", "T", "B")
SRIVATSAN, NORMAN = SCENARIOS["perturbench_srivatsan20"], SCENARIOS["perturbench_norman19"]


@pytest.fixture
def screen(make_adata):
    """Ten perturbations in three cell types, eight cells each, with registered fields."""

    def build(labels="ABCDEFGHIJ", *, n_cells=8, types=TYPES):
        adata = make_adata([(label, kind) for label in ("control", *labels) for kind in types], n_cells=n_cells)
        pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"])
        return adata

    return build


@pytest.fixture
def combinations(screen):
    """All 15 combinations of six perturbations, which are seen alone, in two cell types."""

    def build(**options):
        pairs = [f"{a}+{b}" for a in "ABCDEF" for b in "ABCDEF" if a < b]
        return screen([*"ABCDEF", *pairs], types=("NK", "T"), **options)

    return build


def read_split(adata):
    return adata.obs["split"].to_numpy(dtype=str)


def counts(adata) -> pd.DataFrame:
    """Number of held-out conditions of every cell type and split."""
    table = adata.uns["split"]["held_out"]
    return pd.crosstab(table["cell_type"], table["split"])


def conditions_of(pairs, keys=("cell_type",)) -> Conditions:
    table = pd.DataFrame(sorted(pairs), columns=["perturbation", *keys])
    return Conditions(table, tuple(keys), "control", "+")


# the rules of PerturBench


def test_norman_holds_out_seven_tenths_of_the_combinations(combinations):
    adata = combinations()
    assert pf.pp.split_scenario(adata, "perturbench_norman19") is None
    table = adata.uns["split"]["held_out"]
    assert table.groupby("split")["perturbation"].nunique().to_dict() == {"test": 5, "valid": 5}  # floor(0.7 * 15)
    assert (table.groupby("perturbation")["split"].nunique() == 1).all()
    assert (table.groupby("perturbation").size() == 2).all()  # in both cell types
    assert (table["seen"] == "all").all()
    split = read_split(adata)
    assert set(split[adata.obs["perturbation"].isin(list("ABCDEF"))]) == {"train"}
    pf.pp.check_split(adata)


@pytest.mark.parametrize(
    ("scenario", "fraction", "seed"),
    [
        ("perturbench_norman19", 0.7, 42),
        ("perturbench_combination", 0.3, 42),
        ("perturbench_srivatsan20", 0.3, 42),
        ("perturbench_jiang24", 0.7, 0),
        ("perturbench_frangieh21", 0.7, 0),
    ],
)
def test_fractions_seeds_and_controls_of_perturbench(scenario, fraction, seed):
    parameters = SCENARIOS[scenario].parameters()
    assert (parameters["fraction"], parameters["seed"]) == (fraction, seed)
    assert (parameters["valid_control_fraction"], parameters["test_control_fraction"]) == (0.25, 0.25)


def test_half_of_the_controls_of_every_context_are_in_training(combinations):
    adata = combinations()
    pf.pp.split_scenario(adata, "perturbench_combination")
    controls = adata.obs[adata.obs["perturbation"] == "control"]
    table = pd.crosstab(controls["cell_type"], controls["split"])
    assert table[["train", "valid", "test"]].to_numpy().tolist() == [[4, 2, 2], [4, 2, 2]]


def test_every_batch_keeps_a_control_in_training(screen):
    adata = screen()
    adata.obs["batch"] = [str(number % 4) for number in range(adata.n_obs)]
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"], batch_key="batch")
    pf.pp.split_scenario(adata, "perturbench_srivatsan20")
    controls = adata.obs[adata.obs["perturbation"] == "control"]
    table = pd.crosstab([controls["cell_type"], controls["batch"]], controls["split"])
    assert table["train"].tolist() == [1] * 12  # of two


def test_srivatsan_has_56_of_188_drugs_a_cell_type():
    drugs = [f"drug_{number}" for number in range(188)]
    conditions = conditions_of([(drug, kind) for drug in ("control", *drugs) for kind in TYPES])
    split = draw_split(conditions, SRIVATSAN, rng=np.random.default_rng(42))
    table = pd.crosstab(conditions.table["cell_type"], split)
    assert table[["test", "valid"]].to_numpy().tolist() == [[28, 28]] * 3
    assert conditions.table["perturbation"][split != "train"].is_unique


def test_at_most_so_many_conditions(screen, combinations):
    rng = np.random.default_rng(0)
    conditions = conditions_of([(label, kind) for label in "ABCDEFGHIJKLMNOPQRSTUVWX" for kind in TYPES])
    split = draw_split(conditions, replace(SRIVATSAN, max_conditions=4), rng=rng)
    assert Counter(conditions.table["cell_type"][split != "train"]) == {"NK": 4, "T": 4, "B": 4}
    conditions = conditions_of([(f"A+{letter}", "T") for letter in "BCDEFGHIJKLMN"])
    split = draw_split(conditions, replace(NORMAN, max_conditions=6), rng=rng)
    assert Counter(split.tolist()) == {"train": 7, "test": 3, "valid": 3}


@settings(max_examples=60, deadline=None)
@given(
    st.sets(st.tuples(st.sampled_from("ABCDEFGHIJKL"), st.sampled_from("xyz")), min_size=12),
    st.floats(0.2, 1),
    st.integers(0, 100),
)
def test_limits_of_a_transfer(pairs, fraction, seed):
    conditions = conditions_of(pairs)
    rule = replace(SRIVATSAN, fraction=fraction)
    try:
        split = draw_split(conditions, rule, rng=np.random.default_rng(seed))
    except ValueError as error:
        assert "Expected two perturbations to hold out in a context" in str(error)  # noqa: PT017
        return
    table = conditions.table.assign(split=split, held_out=split != "train")
    by_context = table.groupby("cell_type")
    assert (by_context["held_out"].sum() <= by_context.size() * fraction + 1e-9).all()
    assert (by_context["held_out"].sum() != 1).all()
    by_label = table.groupby("perturbation")["held_out"]
    assert (by_label.sum() <= 1).all()
    assert (by_label.sum() < by_label.size()).all()
    halves = table.groupby("cell_type")["split"].agg(lambda of: abs((of == "test").sum() - (of == "valid").sum()))
    assert (halves <= 1).all()
    assert (table["split"] == "test").sum() - (table["split"] == "valid").sum() in {0, 1}


def test_a_pair_that_is_alone_in_its_context_is_no_longer_held_out():
    pairs = [(label, kind) for label in "ABCDEFGHIJ" for kind in ("x", "y")] + [(label, "z") for label in "ABCD"]
    conditions = conditions_of(pairs)
    contexts = conditions.table["cell_type"].to_numpy()
    for seed in range(5):
        split = draw_split(conditions, SRIVATSAN, rng=np.random.default_rng(seed))
        assert set(split[contexts == "z"]) == {"train"}  # floor(0.3 * 4) is 1
        assert (split[contexts == "x"] != "train").sum() == 3


def jiang(make_adata, treatments=("IFNG", "INS", "TGFB", "TNFA")):
    lines = ("k562", "mcf7", "ht29", "hap1", "a549", "bxpc3")
    genes = [f"g{number}" for number in range(10)]
    rows = [(label, line, treatment) for label in ("control", *genes) for line in lines for treatment in treatments]
    adata = make_adata([row[:2] for row in rows], n_cells=2)
    adata.obs["treatment"] = np.repeat([row[2] for row in rows], 2)
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type", "treatment"])
    return adata


def test_jiang_holds_out_in_four_cell_lines_under_three_cytokines(make_adata):
    adata = jiang(make_adata)
    pf.pp.split_scenario(adata, "perturbench_jiang24")
    table = adata.uns["split"]["held_out"]
    assert len(table) == 12 * 7
    assert set(table["cell_type"]) == {"k562", "mcf7", "ht29", "hap1"}
    assert set(table["treatment"]) == {"IFNG", "INS", "TGFB"}
    halves = pd.crosstab([table["cell_type"], table["treatment"]], table["split"])
    assert halves["test"].between(3, 4).all()
    assert (table["split"] == "test").sum() == 42
    pf.pp.check_split(adata)


def test_frangieh_in_other_words(screen):
    adata = screen()
    with pytest.raises(KeyError, match=r"'treatment' in `covariate_keys`, .*held_out={'treatment': \['co-culture'\]}"):
        pf.pp.split_scenario(adata, "perturbench_frangieh21")
    pf.pp.split_scenario(adata, "perturbench_frangieh21", held_out={"cell_type": "B"})
    assert counts(adata).to_dict("index") == {"B": {"test": 4, "valid": 3}}
    assert adata.uns["split"]["parameters"]["contexts"] == {"cell_type": ["B"]}


def test_only_perturbations_of_other_contexts_are_drawn(make_adata):
    adata = make_adata(
        [(label, "B") for label in ("control", *"ABCDEFGHIJ")] + [(label, "T") for label in ("control", *"ACD")]
    )
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"])
    pf.pp.split_scenario(adata, "perturbench_frangieh21", held_out={"cell_type": "B"})
    assert set(adata.uns["split"]["held_out"]["perturbation"]) == {"A", "C", "D"}


# leaving one value out


def test_one_value_is_tested_and_another_validated(screen):
    adata = screen("AB")
    pf.pp.split_scenario(adata, "leave_one_out", held_out={"cell_type": "B"})
    perturbed = adata.obs["perturbation"] != "control"
    split = read_split(adata)
    np.testing.assert_array_equal(split == "test", perturbed & (adata.obs["cell_type"] == "B"))
    valid = adata.obs["cell_type"][split == "valid"].unique()
    assert len(valid) == 1
    np.testing.assert_array_equal(split == "valid", perturbed & (adata.obs["cell_type"] == valid[0]))
    pf.pp.check_split(adata)


def test_validation_leaves_every_perturbation_in_training(make_adata, caplog):
    rows = [("control", kind) for kind in ("B", "T", "NK", "DC")]
    rows += [("A", "B"), ("C", "B"), ("A", "T"), ("A", "NK"), ("C", "T"), ("C", "DC"), ("E", "DC")]
    adata = make_adata(rows)
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"])
    for seed in range(5):  # without DC, E would be nowhere
        pf.pp.split_scenario(adata, "leave_one_out", held_out={"cell_type": "B"}, seed=seed)
        assert set(adata.obs["cell_type"][read_split(adata) == "valid"]) <= {"T", "NK"}
    two = adata[adata.obs["cell_type"].isin(["B", "T"])].copy()
    pf.pp.split_scenario(two, "leave_one_out", held_out={"cell_type": "B"})
    assert "no conditions to validate on for 'leave_one_out': nothing is held out" in caplog.text
    pf.pp.check_split(two)


def test_a_perturbation_of_the_left_out_value_alone_is_named(make_adata):
    adata = make_adata([("control", "B"), ("control", "T"), ("A", "B"), ("C", "B"), ("A", "T")])
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"])
    with pytest.raises(ValueError, match=r"of cell_type \['B'\] in another cell_type, too, found \['C'\] nowhere else"):
        pf.pp.split_scenario(adata, "leave_one_out", held_out={"cell_type": "B"})


def test_several_values_are_left_out_together(screen):
    adata = screen("AB")
    pf.pp.split_scenario(adata, "leave_one_out", held_out={"cell_type": ["B", "NK"]})
    assert set(adata.uns["split"]["held_out"]["cell_type"]) == {"B", "NK"}
    assert set(adata.uns["split"]["held_out"]["split"]) == {"test"}


# tables of conditions


@pytest.mark.parametrize("scenario", ["perturbench_srivatsan20", "perturbench_norman19"])
def test_the_table_of_another_study_gives_the_same_split(screen, combinations, scenario):
    make = combinations if scenario == "perturbench_norman19" else screen
    adata, again = make(), make()
    pf.pp.split_scenario(adata, scenario)
    text = adata.uns["split"]["held_out"].sample(frac=1, random_state=0).to_csv(index=False)
    pf.pp.split_scenario(again, scenario, held_out=pd.read_csv(StringIO(text)))
    np.testing.assert_array_equal(read_split(again), read_split(adata))
    for name in ("hash", "cell_hash", "n_cells", "scenario"):
        assert again.uns["split"][name] == adata.uns["split"][name]
    assert (adata.uns["split"]["conditions"], again.uns["split"]["conditions"]) == ("drawn", "given")
    assert "fraction" not in again.uns["split"]["parameters"]
    pd.testing.assert_frame_equal(again.uns["split"]["held_out"], adata.uns["split"]["held_out"])
    pf.pp.check_split(again)


def test_a_table_without_splits_is_halved_in_every_context(screen):
    adata = screen()
    pairs = [(label, "B") for label in "ABCD"] + [(label, "T") for label in "EFG"] + [("H", "NK")]
    pf.pp.split_scenario(
        adata, "perturbench_jiang24", held_out=pd.DataFrame(pairs, columns=["perturbation", "cell_type"])
    )
    table = counts(adata)
    assert table.loc["B"].tolist() == [2, 2]
    assert sorted(table.loc["T"]) == [1, 2]
    assert table.to_numpy().sum() == 8  # one that is alone in its context was asked for, and stays
    assert table["test"].sum() == 4


def test_a_single_row_is_tested(screen):
    adata = screen()
    pf.pp.split_scenario(
        adata, "perturbench_jiang24", held_out=pd.DataFrame({"perturbation": ["A"], "cell_type": ["B"]})
    )
    assert adata.uns["split"]["held_out"][["perturbation", "split"]].to_numpy().tolist() == [["A", "test"]]


def test_labels_of_a_table_may_name_components_in_any_order(combinations):
    adata = combinations()
    table = pd.DataFrame({"perturbation": ["B+A", "D+C"], "split": ["test", "valid"]})
    pf.pp.split_scenario(adata, "perturbench_norman19", held_out=table)
    held_out = adata.uns["split"]["held_out"]
    assert set(zip(held_out["perturbation"], held_out["split"], strict=True)) == {("A+B", "test"), ("C+D", "valid")}


# what stays the same


@pytest.mark.parametrize(
    ("scenario", "options"),
    [
        ("perturbench_norman19", {}),
        ("perturbench_srivatsan20", {"fraction": 0.5}),
        ("perturbench_frangieh21", {"held_out": {"cell_type": "T"}}),
        ("leave_one_out", {"held_out": {"cell_type": "T"}}),
    ],
)
def test_the_order_of_cells_does_not_matter_and_files_keep_the_split(screen, tmp_path, scenario, options):
    adata = screen([*"ABCDE", "A+B", "B+C", "C+D", "D+E"])
    shuffled = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    pf.pp.split_scenario(adata, scenario, **options)
    pf.pp.split_scenario(shuffled, scenario, **options)
    assert (shuffled.obs["split"][adata.obs_names].astype(str) == adata.obs["split"].astype(str)).all()
    for name in ("hash", "cell_hash"):
        assert shuffled.uns["split"][name] == adata.uns["split"][name]
    shuffled.write_h5ad(tmp_path / "adata.h5ad")
    again = anndata.read_h5ad(tmp_path / "adata.h5ad")
    pf.pp.check_split(again)
    assert again.uns["split"]["scenario"] == scenario
    pf.pp.split_scenario(again, scenario, **options)
    assert again.uns["split"]["hash"] == adata.uns["split"]["hash"]


def test_the_seed_is_that_of_the_scenario_unless_given(screen):
    adata = screen()
    hashes = []
    for seed in (None, 42, 0, 1):
        pf.pp.split_scenario(adata, "perturbench_srivatsan20", seed=seed)
        hashes.append(adata.uns["split"]["hash"])
        assert adata.uns["split"]["parameters"]["seed"] == (42 if seed is None else seed)
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_doses_are_held_out_together(screen):
    adata = screen()
    adata.obs["dose"] = [1.0, 10.0] * (adata.n_obs // 2)
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"], dose_key="dose")
    other = screen()
    for cells in (adata, other):
        pf.pp.split_scenario(cells, "perturbench_srivatsan20")
    assert (adata.uns["split"]["held_out"]["n_cells"] == 8).all()
    assert adata.uns["split"]["hash"] == other.uns["split"]["hash"]
    pf.pp.check_split(adata)


def test_copy_and_another_key(screen, unchanged):
    adata = screen()
    with unchanged(adata):
        copied = pf.pp.split_scenario(adata, "perturbench_srivatsan20", key_added="fold", copy=True)
    assert copied is not None
    assert copied.uns["fold"]["scenario"] == "perturbench_srivatsan20"
    pf.pp.check_split(copied, split_key="fold")


def test_every_scenario_is_described():
    documented = pf.pp.split_scenario.__doc__ or ""
    assert all(f'``"{name}"``' in documented for name in SCENARIOS)
    assert all(name == scenario.name for name, scenario in SCENARIOS.items())


# bad input


def table(**columns) -> dict[str, pd.DataFrame]:
    return {"held_out": pd.DataFrame(columns)}


PAIR = {"perturbation": ["A"], "cell_type": ["B"]}
BAD: dict[str, tuple] = {
    "scenario": ("norman", {}, ValueError, r"Expected `scenario` to be one of \['leave_one_out', 'perturbench_combination'"),
    "scenario_type": (3, {}, TypeError, "Expected `scenario` to be a string"),
    "fraction": ("perturbench_srivatsan20", {"fraction": 2}, ValueError, "Expected `fraction` to be from 0 to 1"),
    "fraction_low": ("perturbench_srivatsan20", {"fraction": 0.1}, ValueError, "Expected two perturbations to hold out in a context .* found at most 1 with fraction=0.1"),
    "fraction_zero": ("perturbench_norman19", {"fraction": 0}, ValueError, "Expected two combinations of perturbations to hold out .* found 0 with fraction=0 of 0"),
    "fraction_of_table": ("perturbench_jiang24", {"fraction": 0.5, **table(**PAIR)}, ValueError, "Expected no `fraction` for 'perturbench_jiang24'"),
    "fraction_of_value": ("leave_one_out", {"fraction": 0.5, "held_out": {"cell_type": "B"}}, ValueError, "Expected no `fraction` for 'leave_one_out'"),
    "seed": ("perturbench_srivatsan20", {"seed": -1}, ValueError, "Expected `seed` to be at least 0"),
    "mapping": ("perturbench_norman19", {"held_out": {"cell_type": "B"}}, TypeError, r"a table of conditions \(a pandas.DataFrame\) for 'perturbench_norman19'"),
    "labels": ("perturbench_frangieh21", {"held_out": ["A"]}, TypeError, "covariates with their values for 'perturbench_frangieh21', found"),
    "no_value": ("leave_one_out", {}, ValueError, r"Expected the value to hold out .* held_out={'cell_type': 'B'}"),
    "empty_mapping": ("leave_one_out", {"held_out": {}}, ValueError, "Expected one covariate in `held_out`"),
    "two_covariates": ("leave_one_out", {"held_out": {"cell_type": "B", "donor": "1"}}, ValueError, "Expected one covariate"),
    "covariate": ("leave_one_out", {"held_out": {"celltype": "B"}}, KeyError, "Expected 'celltype' in `covariate_keys`"),
    "value": ("leave_one_out", {"held_out": {"cell_type": "b"}}, ValueError, r"values of 'cell_type' among \['B', 'NK', 'T'\] to hold out, found \['b'\]"),
    "no_values": ("leave_one_out", {"held_out": {"cell_type": []}}, ValueError, r"to hold out, found \[\]"),
    "every_value": ("leave_one_out", {"held_out": {"cell_type": list(TYPES)}}, ValueError, "nowhere else"),
    "every_context": ("perturbench_frangieh21", {"held_out": {"cell_type": list(TYPES)}}, ValueError, "found at most 0"),
    "column": ("perturbench_jiang24", table(perturbation=["A"]), KeyError, "Expected 'cell_type' in `held_out.columns`"),
    "empty": ("perturbench_jiang24", table(perturbation=[], cell_type=[]), ValueError, "at least one condition in the table `held_out`"),
    "not_there": ("perturbench_jiang24", table(perturbation=["A"], cell_type=["DC"]), ValueError, r"perturbed conditions with cells in the table `held_out`, found 1 others: \['A in DC'\]"),
    "control": ("perturbench_jiang24", table(perturbation=["control"], cell_type=["B"]), ValueError, "found 1 others: .'control in B'"),
    "no_combination": ("perturbench_norman19", table(perturbation=["A"]), ValueError, r"Expected combinations with cells .* \['A'\]"),
    "unknown": ("perturbench_norman19", table(perturbation=["A+X"]), ValueError, "Expected a known perturbation, found 'X'"),
    "split": ("perturbench_jiang24", table(**PAIR, split=["val"]), ValueError, r"'valid' or 'test' in `held_out\['split'\]`, .* found \['val'\]"),
    "no_test": ("perturbench_jiang24", table(**PAIR, split=["valid"]), ValueError, "at least once 'test', found"),
    "two_splits": ("perturbench_jiang24", table(perturbation=["A"] * 2, cell_type=["B"] * 2, split=["valid", "test"]), ValueError, r"Expected one split per condition in `held_out`, found two for \['A in B'\]"),
    "no_training": ("perturbench_jiang24", table(perturbation=["A"] * 3, cell_type=TYPES), ValueError, r"every held-out perturbation in another context in training .* found \['A'\]"),
    "key_taken": ("perturbench_srivatsan20", {"key_added": "mine"}, ValueError, r"found 'mine' with other content in `adata.obs\['mine'\]`"),
}  # fmt: skip


@pytest.mark.parametrize(("scenario", "options", "error", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("copy", [False, True])
def test_bad_input_is_named_and_nothing_is_written(screen, unchanged, scenario, options, error, message, copy):
    adata = screen(n_cells=1)
    adata.obs["mine"] = "train"
    with unchanged(adata), pytest.raises(error, match=message):
        pf.pp.split_scenario(adata, scenario, **options, copy=copy)


def test_transfer_needs_covariates(make_adata):
    adata = make_adata()
    pf.pp.setup_perturbation(adata, **BASIC)
    with pytest.raises(ValueError, match="Expected registered covariates for 'perturbench_srivatsan20', found none"):
        pf.pp.split_scenario(adata, "perturbench_srivatsan20")
    pf.pp.split_scenario(adata, "perturbench_norman19")  # all cells are in one context
    pf.pp.check_split(adata)


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_controls_need_names_of_their_own(screen):
    adata = screen()
    adata.obs_names = ["cell"] * adata.n_obs
    with pytest.raises(ValueError, match=r"names of control cells .* Run `adata.obs_names_make_unique\(\)` first"):
        pf.pp.split_scenario(adata, "perturbench_srivatsan20")


# real cells


def test_kang_leaves_b_cells_out(data_folder, monkeypatch):
    monkeypatch.setenv("PERTURBFLOW_DATA", str(data_folder))
    adata = pf.datasets.kang_ifnb(n_top_genes=None)
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"])
    pf.pp.split_scenario(adata, "leave_one_out", held_out={"cell_type": "B"})
    is_test = (adata.obs["perturbation"] == "IFN-beta") & (adata.obs["cell_type"] == "B")
    np.testing.assert_array_equal(read_split(adata) == "test", is_test)
    pf.pp.check_split(adata)
