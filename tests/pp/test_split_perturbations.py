from __future__ import annotations

import logging
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import perturbflow as pf
from perturbflow.pp._held_out import Wanted, hold_out_cells
from perturbflow.screen import read_fields

BASIC: dict[str, Any] = {"perturbation_key": "perturbation", "control": "control"}
TASKS = ["combination", "covariate_transfer", "unseen_perturbation", "cells"]


@pytest.fixture
def make(make_adata):
    """Build cells with registered fields."""

    def build(conditions=None, *, covariate_keys=("cell_type",), **options):
        adata = make_adata(conditions, **options)
        pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=covariate_keys)
        return adata

    return build


def by_condition(adata) -> pd.DataFrame:
    """Conditions with their splits; fails if a condition is in several."""
    labels = ["+".join(sorted(label.split("+"))) for label in adata.obs["perturbation"]]
    columns = ["perturbation", *read_fields(adata).covariate_keys]
    obs = adata.obs.assign(perturbation=labels, split=split_of(adata))
    groups = obs.groupby(columns, observed=True)["split"]
    assert (groups.nunique() == 1).all()
    table = groups.agg(split="first", n_cells="size").reset_index()
    return table.assign(is_control=table["perturbation"] == "control")


def split_of(adata) -> np.ndarray:
    return adata.obs["split"].to_numpy().astype(str)


def held_out(adata, split) -> set[str]:
    table = adata.uns["split"]["held_out"]
    return set(table.loc[table["split"] == split, "perturbation"])


@pytest.mark.parametrize("task", TASKS[:3])
def test_record_and_cells_agree(make, task):
    adata = make()
    assert pf.pp.split_perturbations(adata, task=task, seed=3) is None
    conditions = by_condition(adata)
    assert adata.obs["split"].cat.categories.tolist() == ["train", "valid", "test"]
    assert set(conditions["split"]) == {"train", "valid", "test"}
    assert (conditions.loc[conditions["is_control"], "split"] == "train").all()
    record = adata.uns["split"]
    assert {name: record[name] for name in ("task", "seed", "test_fraction", "valid_fraction")} == {
        "task": task,
        "seed": 3,
        "test_fraction": 0.3,
        "valid_fraction": 0.15,
    }
    columns = ["perturbation", "cell_type", "split", "n_cells"]
    expected = conditions.loc[conditions["split"] != "train", columns].sort_values(columns[2:3] + columns[:2])
    np.testing.assert_array_equal(record["held_out"][columns].to_numpy(), expected.to_numpy())
    pf.pp.check_split(adata)


@pytest.mark.parametrize("task", TASKS)
def test_the_seed_decides_not_the_order_of_cells(make, task):
    adata = make(n_cells=6)
    order = np.random.default_rng(1).permutation(adata.n_obs)
    shuffled, other = adata[order].copy(), adata.copy()
    pf.pp.split_perturbations(adata, task=task)
    pf.pp.split_perturbations(shuffled, task=task)
    np.testing.assert_array_equal(split_of(adata)[order], split_of(shuffled))
    pd.testing.assert_frame_equal(adata.uns["split"]["held_out"], shuffled.uns["split"]["held_out"])
    splits = []
    for seed in range(5):
        pf.pp.split_perturbations(other, task=task, seed=seed)
        splits.append(tuple(split_of(other)))
    assert splits[0] == tuple(split_of(adata))
    assert len(set(splits)) > 1


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_the_order_of_components_does_not_matter(data):
    pairs = [("A", "B"), ("A", "C"), ("B", "C"), ("C", "D")]
    labels = ["control", "A", "B", "C", "D"]
    labels += ["+".join(data.draw(st.permutations(pair))) for pair in pairs for _ in range(2)]
    adata = anndata.AnnData(
        np.full((len(labels), 1), 0.5), obs=pd.DataFrame({"perturbation": labels}, index=[f"c{i}" for i in range(13)])
    )
    pf.pp.setup_perturbation(adata, **BASIC)
    pf.pp.split_perturbations(adata, task="combination", seed=data.draw(st.integers(0, 3)))
    split = split_of(adata)[5:].reshape(4, 2)
    np.testing.assert_array_equal(split[:, 0], split[:, 1])
    pf.pp.check_split(adata)


@pytest.mark.parametrize(("task", "form"), [*((task, "h5ad") for task in TASKS), (TASKS[0], "zarr")])
def test_splits_survive_files(make, tmp_path, task, form):
    adata = make()
    pf.pp.split_perturbations(adata, task=task)
    getattr(adata, f"write_{form}")(tmp_path / "adata")
    again = getattr(anndata, f"read_{form}")(tmp_path / "adata")
    np.testing.assert_array_equal(split_of(again), split_of(adata))
    ours, theirs = adata.uns["split"].copy(), again.uns["split"]
    table = ours.pop("held_out")
    assert theirs["held_out"].columns.tolist() == table.columns.tolist()
    np.testing.assert_array_equal(theirs["held_out"].to_numpy(), table.to_numpy())
    assert theirs["held_out"].index.astype(str).tolist() == table.index.tolist()
    assert {name: theirs[name] for name in ours if name != "fields"} == {
        name: value for name, value in ours.items() if name != "fields"
    }
    pf.pp.check_split(again)
    pf.pp.split_perturbations(again, task=task)  # recognised as an earlier split
    np.testing.assert_array_equal(split_of(again), split_of(adata))


# combinations


def test_singles_are_in_training_and_combinations_are_told_apart(make):
    adata = make()
    pf.pp.split_perturbations(adata, task="combination", test_fraction=0.75, valid_fraction=0.25)
    conditions = by_condition(adata)
    assert set(conditions.loc[conditions["split"] == "train", "perturbation"]) == {"control", "A", "B", "C"}
    table = adata.uns["split"]["held_out"].drop_duplicates("perturbation").set_index("perturbation")
    assert table["seen"].to_dict() == {"A+B": "all", "A+C": "all", "B+D": "some", "E+F": "none"}
    assert table["n_seen"].to_dict() == {"A+B": 2, "A+C": 2, "B+D": 1, "E+F": 0}
    assert set(table["n_components"]) == {2}


def test_larger_combinations_have_the_same_classes(make):
    labels = ["control", "A", "B", "C", "A+B+C", "A+B+D", "D+E+F"]
    adata = make([(label, "T") for label in labels])
    pf.pp.split_perturbations(adata, task="combination", test_fraction=1, valid_fraction=0)
    table = adata.uns["split"]["held_out"].set_index("perturbation")
    assert table["seen"].to_dict() == {"A+B+C": "all", "A+B+D": "some", "D+E+F": "none"}
    assert table["n_seen"].tolist() == [3, 2, 0]


def test_classes_of_combinations_are_held_out_evenly(make):
    both = ["A+B", "A+C", "A+D", "B+C", "B+D", "C+D"]
    none = ["E+F", "E+G", "E+H", "F+G", "F+H", "G+H"]
    adata = make([(label, "T") for label in ["control", "A", "B", "C", "D", *both, *none]], n_cells=1)
    for seed in range(10):
        pf.pp.split_perturbations(adata, task="combination", test_fraction=0.5, valid_fraction=1 / 3, seed=seed)
        table = adata.uns["split"]["held_out"]
        assert table.groupby(["split", "seen"]).size().to_dict() == {
            ("test", "all"): 3,
            ("test", "none"): 3,
            ("valid", "all"): 2,
            ("valid", "none"): 2,
        }


def test_fractions_are_of_the_combinations(make):
    adata = make([(f"{a}+{b}", "T") for a in "ABCDE" for b in "VWXYZ"] + [("control", "T"), ("A", "T")], n_cells=1)
    pf.pp.split_perturbations(adata, task="combination", test_fraction=0.4, valid_fraction=0.2)
    assert (len(held_out(adata, "test")), len(held_out(adata, "valid"))) == (10, 5)


def test_doses_of_a_combination_stay_together(make_adata):
    adata = make_adata([(label, "T") for label in ["control", "A", "B", "A+B", "B+A", "A+C", "C+B"]], n_cells=4)
    adata.obs["dose"] = np.where(adata.obs["perturbation"] == "B+A", "0.5+1", "1")
    pf.pp.setup_perturbation(adata, **BASIC, dose_key="dose")
    for seed in range(5):
        pf.pp.split_perturbations(adata, task="combination", seed=seed)
        is_pair = adata.obs["perturbation"].isin(["A+B", "B+A"])
        assert adata.obs.loc[is_pair, "split"].nunique() == 1
        assert not adata.uns["split"]["held_out"]["perturbation"].duplicated().any()


@pytest.mark.parametrize("label", ["A+B", "B+A", " B + A "])
def test_named_combinations(make, label):
    adata = make()
    pf.pp.split_perturbations(adata, task="combination", held_out=[label, "E+F"])
    assert held_out(adata, "test") == {"A+B", "E+F"}
    assert len(held_out(adata, "valid")) == 1
    pf.pp.split_perturbations(adata, task="combination", held_out=label, valid_fraction=0)
    assert held_out(adata, "test") == {"A+B"}
    assert held_out(adata, "valid") == set()


def test_one_combination_leaves_none_for_validation(make, caplog):
    adata = make([(label, "T") for label in ["control", "A", "A+B"]])
    pf.pp.split_perturbations(adata, task="combination")
    assert held_out(adata, "test") == {"A+B"}
    assert "nothing is held out for validation" in caplog.text


def test_without_singles_a_combination_stays_in_training(make):
    adata = make([(label, "T") for label in ["control", "A+B", "C+D"]])
    pf.pp.split_perturbations(adata, task="combination")
    assert sorted(by_condition(adata)["split"]) == ["test", "train", "train"]


# transfer between contexts


def test_every_perturbation_and_context_stays_in_training(make):
    kinds, labels = ["T", "NK", "B", "Mono"], ["P", "Q", "R", "S", "U"]
    adata = make([(label, kind) for label in ["control", *labels] for kind in kinds], n_cells=1)
    for seed in range(10):
        pf.pp.split_perturbations(adata, task="covariate_transfer", seed=seed, test_fraction=0.4, valid_fraction=0.2)
        conditions = by_condition(adata)
        counts = conditions["split"].value_counts()
        assert (counts["test"], counts["valid"]) == (8, 4)
        perturbed_training = conditions[(conditions["split"] == "train") & ~conditions["is_control"]]
        assert set(perturbed_training["perturbation"]) == set(labels)
        assert set(perturbed_training["cell_type"]) == set(kinds)
        assert (conditions.loc[conditions["split"] == "test", "cell_type"].value_counts() == 2).all()


def test_perturbations_of_one_context_are_no_candidates(make):
    adata = make([("control", "T"), ("control", "NK"), ("A", "T"), ("A", "NK"), ("B", "T")])
    for seed in range(5):
        pf.pp.split_perturbations(adata, task="covariate_transfer", seed=seed)
        assert held_out(adata, "test") == {"A"}
        assert held_out(adata, "valid") == set()


def test_the_only_perturbation_can_be_held_out_in_a_context(make):
    kinds = ["B", "Mono", "NK", "T", "DC", "Mega"]
    adata = make([(label, kind) for label in ("control", "IFN-beta") for kind in kinds])
    pf.pp.split_perturbations(adata, task="covariate_transfer")
    assert by_condition(adata)["split"].value_counts().to_dict() == {"train": 9, "test": 2, "valid": 1}
    pf.pp.split_perturbations(adata, task="covariate_transfer", held_out=[("IFN-beta", {"cell_type": "B"})])
    table = adata.uns["split"]["held_out"]
    assert table.loc[table["split"] == "test", "cell_type"].tolist() == ["B"]
    assert table["split"].tolist() == ["test", "valid"]


def test_covariates_that_are_not_named_may_have_any_value(make_adata):
    adata = make_adata([(label, kind) for label in ("control", "A", "B") for kind in ("T", "NK")], n_cells=4)
    adata.obs["donor"] = [1, 2] * (adata.n_obs // 2)
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["donor", "cell_type"])
    pf.pp.split_perturbations(
        adata, task="covariate_transfer", held_out=[("A", {"cell_type": "T"}), ("B", {"donor": 1, "cell_type": "NK"})]
    )
    table = adata.uns["split"]["held_out"]
    test = table.loc[table["split"] == "test", ["perturbation", "donor", "cell_type"]].to_numpy().tolist()
    assert test == [["A", "1", "T"], ["A", "2", "T"], ["B", "1", "NK"]]
    pf.pp.check_split(adata)


def test_the_batch_is_no_context(make_adata):
    adata = make_adata([(label, kind) for label in ("control", "A", "B") for kind in ("T", "NK")], n_cells=4)
    adata.obs["batch"] = ["1", "2"] * (adata.n_obs // 2)
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"], batch_key="batch")
    pf.pp.split_perturbations(adata, task="covariate_transfer")
    assert "batch" not in adata.uns["split"]["held_out"]
    assert (adata.uns["split"]["held_out"]["n_cells"] == 4).all()


# unseen perturbations


def test_no_held_out_component_is_in_training(make):
    adata = make()
    for seed in range(10):
        pf.pp.split_perturbations(adata, task="unseen_perturbation", seed=seed)
        conditions = by_condition(adata)
        parts = {split: set("+".join(table["perturbation"]).split("+")) for split, table in conditions.groupby("split")}
        unseen = adata.uns["split"]["held_out"]
        components = {split: set("+".join(table["unseen"]).split("+")) for split, table in unseen.groupby("split")}
        assert len(components["test"] - components["valid"]) == 2
        assert not (components["test"] | components["valid"]) & parts["train"]


def test_named_components(make):
    adata = make()
    pf.pp.split_perturbations(adata, task="unseen_perturbation", held_out=["A"], valid_fraction=0)
    table = adata.uns["split"]["held_out"]
    assert set(table["perturbation"]) == {"A", "A+B", "A+C"}
    assert set(table["unseen"]) == {"A"}


def test_of_two_perturbations_one_is_tested_and_one_trained_on(make):
    adata = make([("control", "T"), ("A", "T"), ("B", "T")])
    pf.pp.split_perturbations(adata, task="unseen_perturbation")
    assert sorted(by_condition(adata)["split"]) == ["test", "train", "train"]


def test_types_are_perturbations_of_their_own(make_adata):
    adata = make_adata([("control", "T"), ("A", "T"), ("A", "NK"), ("control", "NK"), ("B", "T")])
    adata.obs["type"] = np.where(adata.obs["cell_type"] == "T", "a", "i")
    pf.pp.setup_perturbation(adata, **BASIC, perturbation_type_key="type")
    with pytest.raises(ValueError, match=r"one type, found 'A' in `held_out`, which could be any of \['A:a', 'A:i'\]"):
        pf.pp.split_perturbations(adata, task="unseen_perturbation", held_out=["A"])
    pf.pp.split_perturbations(adata, task="unseen_perturbation", held_out=["A:i"], valid_fraction=0)
    assert held_out(adata, "test") == {"A:i"}
    assert (split_of(adata) == "test").sum() == 3
    pf.pp.check_split(adata)


# cells


def test_cells_of_every_condition_are_divided(make):
    adata = make(n_cells=20)
    pf.pp.split_perturbations(adata, task="cells")
    counts = pd.crosstab([adata.obs["perturbation"], adata.obs["cell_type"]], adata.obs["split"])
    assert (counts["test"] == 6).all()
    assert (counts["valid"] == 3).all()
    assert len(adata.uns["split"]["held_out"]) == 0
    pf.pp.check_split(adata)


@given(st.integers(1, 30), st.floats(0.01, 1), st.floats(0, 1), st.integers(0, 5))
def test_every_condition_keeps_a_training_cell(n_cells, test, valid, seed):
    conditions = np.r_[np.zeros(n_cells, dtype=int), np.ones(50, dtype=int)]
    names = pd.Index([f"cell_{number}" for number in range(n_cells + 50)])
    split = hold_out_cells(conditions, names, Wanted(test, valid), rng=np.random.default_rng(seed))
    for condition in (0, 1):
        counts = {name: (split[conditions == condition] == name).sum() for name in ("train", "valid", "test")}
        total = sum(counts.values())
        assert counts["train"] >= 1
        assert counts["test"] <= total * test + 0.5
        assert counts["valid"] <= total * valid + 0.5


# where it is written


def test_copy_and_another_key(make, unchanged):
    adata = make()
    with unchanged(adata):
        copied = pf.pp.split_perturbations(adata, task="cells", key_added="fold", copy=True)
    assert copied is not None
    assert "split" not in copied.obs
    assert copied.uns["fold"]["task"] == "cells"


def test_views_become_copies(make, unchanged):
    adata = make()
    view = adata[:40]
    with unchanged(adata), pytest.warns(UserWarning, match="`adata` is a view") as caught:
        pf.pp.split_perturbations(view, task="combination")
    assert caught[0].filename == __file__
    assert not view.is_view
    assert len(by_condition(view)) > 0


def test_a_fraction_of_zero_means_no_validation(make, caplog):
    adata = make()
    with caplog.at_level(logging.INFO, logger="perturbflow"):
        pf.pp.split_perturbations(adata, task="combination", valid_fraction=0)
    assert held_out(adata, "valid") == set()
    assert "nothing is held out" not in caplog.text
    assert "Split 48 cells for the task 'combination': {'train': " in caplog.text


# bad input

PAIR = ("A", {"cell_type": "T"})
BAD: dict[str, tuple] = {
    "task": ({"task": "combinations"}, ValueError, r"Expected `task` to be one of \['cells', 'combination', "),
    "task_type": ({"task": ["cells"]}, TypeError, "Expected `task` to be a string"),
    "test_fraction": ({"test_fraction": 1.5}, ValueError, "Expected `test_fraction` to be from 0 to 1, found 1.5"),
    "valid_fraction": ({"valid_fraction": -0.1}, ValueError, "Expected `valid_fraction` to be from 0 to 1"),
    "no_test": ({"test_fraction": 0}, ValueError, "Expected `test_fraction` above 0"),
    "too_much": ({"test_fraction": 0.8, "valid_fraction": 0.3}, ValueError, "sum of at most 1 with `valid_fraction`, found 0.8 and 0.3"),
    "fraction_type": ({"test_fraction": "0.3"}, TypeError, "Expected `test_fraction` to be a number"),
    "seed": ({"seed": -1}, ValueError, "Expected `seed` to be at least 0"),
    "seed_type": ({"seed": None}, TypeError, "Expected `seed` to be a whole number"),
    "key_registered": ({"key_added": "cell_type"}, ValueError, r"`key_added` to be free or an earlier split, found 'cell_type' with other content in `adata.obs\['cell_type'\]`\. Choose"),
    "key_taken": ({"key_added": "mine"}, ValueError, r"found 'mine' with other content in `adata.obs\['mine'\]`"),
    "key_in_uns": ({"key_added": "perturbation_fields"}, ValueError, "found 'perturbation_fields', which is reserved for pf.pp.setup_perturbation"),
    "key_slash": ({"key_added": "a/b"}, ValueError, "Expected `key_added` without '/'"),
    "key_type": ({"key_added": 3}, TypeError, "Expected `key_added` to be a string"),
    "cells_named": ({"task": "cells", "held_out": ["A"]}, ValueError, "Expected no `held_out` for task='cells'"),
    "named_nothing": ({"held_out": []}, ValueError, "at least one condition in `held_out`, found none"),
    "named_type": ({"held_out": 3}, TypeError, "Expected `held_out` to be a list of labels or of"),
    "named_unknown": ({"held_out": ["A+X"]}, ValueError, r"Expected a known perturbation, found 'X'"),
    "named_not_there": ({"held_out": ["E+D"]}, ValueError, r"a combination in the data for task='combination', found 'D\+E'. The most similar are \['"),
    "named_single": ({"held_out": ["A"]}, ValueError, "to name a combination in the data for task='combination', found 'A'"),
    "named_pair": ({"held_out": [PAIR]}, TypeError, "to be labels for task='combination', .* Use task='covariate_transfer'"),
    "named_control": ({"task": "unseen_perturbation", "held_out": ["control"]}, ValueError, "to name a single component .* found 'control'"),
    "named_combination": ({"task": "unseen_perturbation", "held_out": ["A+B"]}, ValueError, r"to name a single component .* found 'A\+B'"),
    "named_all": ({"task": "unseen_perturbation", "held_out": list("ABCDEF")}, ValueError, "perturbed conditions in training, found all 14 of them held out. Lower"),
    "everything": ({"task": "unseen_perturbation", "test_fraction": 1, "valid_fraction": 0}, ValueError, "perturbed conditions in training"),
    "transfer_label": ({"task": "covariate_transfer", "held_out": ["A"]}, TypeError, r"entries of `held_out` such as \('IFN-beta'"),
    "transfer_no_covariates": ({"task": "covariate_transfer", "held_out": [("A", {})]}, TypeError, "entries of `held_out` such as"),
    "transfer_not_a_list": ({"task": "covariate_transfer", "held_out": PAIR}, TypeError, "entries of `held_out` such as .* found 'A'"),
    "transfer_control": ({"task": "covariate_transfer", "held_out": [("control", {"cell_type": "T"})]}, ValueError, "to name a perturbation .* found 'control'"),
    "transfer_covariate": ({"task": "covariate_transfer", "held_out": [("A", {"celltype": "T"})]}, KeyError, r"Expected 'celltype' in `covariate_keys`, found \['cell_type'\]"),
    "transfer_context": ({"task": "covariate_transfer", "held_out": [("A", {"cell_type": "B"})]}, ValueError, r"cells of 'A' in {'cell_type': 'B'}, found it only in \[\('NK',\), \('T',\)\]"),
    "transfer_all": ({"task": "covariate_transfer", "held_out": [PAIR, ("A", {"cell_type": "NK"})]}, ValueError, "Expected 'A' to keep a context in training, found all of them in `held_out`"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("copy", [False, True])
def test_bad_input_is_named_and_nothing_is_written(make, unchanged, arguments, error, message, copy):
    adata = make()
    adata.obs["mine"] = "train"
    pf.pp.split_perturbations(adata, task="cells")  # an earlier split stays, too
    with unchanged(adata), pytest.raises(error, match=message):
        pf.pp.split_perturbations(adata, **{"task": "combination", **arguments}, copy=copy)


SINGLES = [("control", "T"), ("A", "T"), ("B", "T")]
TOO_FEW = {
    "combination": ("combination", SINGLES, "combinations of perturbations .* found none. Use task='unseen_perturbation'"),
    "contexts": ("covariate_transfer", SINGLES, "a perturbation with cells in two contexts .* found none. .* use task='combination'"),
    "unseen": ("unseen_perturbation", SINGLES[:2], r"at least two perturbations .* found \['A'\]. Use task='covariate_transfer' or 'cells'"),
    "cells": ("cells", SINGLES, "test cells, found conditions of at most 1 cells"),
    "only_combination": ("combination", [("control", "T"), ("A+B", "T")], "perturbed conditions in training, found all 1 of them"),
}  # fmt: skip


@pytest.mark.parametrize(("task", "conditions", "message"), TOO_FEW.values(), ids=TOO_FEW)
def test_too_few_candidates_name_another_task(make, unchanged, task, conditions, message):
    adata = make(conditions, n_cells=1)
    with unchanged(adata), pytest.raises(ValueError, match=message):
        pf.pp.split_perturbations(adata, task=task)


def test_transfer_needs_covariates(make, unchanged):
    adata = make(covariate_keys=())
    with (
        unchanged(adata),
        pytest.raises(ValueError, match="Expected registered covariates for task='covariate_transfer'"),
    ):
        pf.pp.split_perturbations(adata, task="covariate_transfer")


def test_components_that_are_not_in_the_data_are_no_candidates(make, unchanged):
    adata = make()
    adata = adata[~adata.obs["perturbation"].str.contains("E").to_numpy()].copy()
    with unchanged(adata), pytest.raises(ValueError, match="to name a single component in the data .* found 'E'"):
        pf.pp.split_perturbations(adata, task="unseen_perturbation", held_out=["E"])


def test_fields_come_first(make_adata, unchanged):
    adata = make_adata()
    with unchanged(adata), pytest.raises(KeyError, match=r"Run `pf.pp.setup_perturbation\(adata, ...\)` first"):
        pf.pp.split_perturbations(adata, task="cells")
    with pytest.raises(TypeError, match="Expected `adata` to be an AnnData"):
        pf.pp.split_perturbations(adata.obs, task="cells")


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_cells_need_names_of_their_own(make, unchanged):
    adata = make()
    adata.obs_names = ["cell"] * adata.n_obs
    with (
        unchanged(adata),
        pytest.raises(ValueError, match=r"cell names .* Run `adata.obs_names_make_unique\(\)` first"),
    ):
        pf.pp.split_perturbations(adata, task="cells")
    pf.pp.split_perturbations(adata, task="combination")  # decided by conditions alone


def test_leakage_is_refused(make):
    adata = make()
    pf.pp.split_perturbations(adata, task="combination", held_out=["A+B"])
    adata.obs.loc[adata.obs_names[adata.obs["perturbation"] == "A+B"][0], "split"] = "train"
    with pytest.raises(ValueError, match=r"no cells of held-out conditions in training, found 1 cells of \['A\+B'\]"):
        pf.pp.check_split(adata)


# real cells


def test_norman_combinations(data_folder, monkeypatch):
    monkeypatch.setenv("PERTURBFLOW_DATA", str(data_folder))
    adata = pf.datasets.norman_mcfaline_subset("norman")
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"], dose_key="dose")
    pf.pp.split_perturbations(adata, task="combination", test_fraction=0.8, valid_fraction=0.2)
    table = adata.uns["split"]["held_out"]
    assert table["seen"].value_counts().to_dict() == {"none": 7, "all": 5, "some": 3}
    assert set(table.loc[table["seen"] == "some", "perturbation"]) == {"KLF1+SET", "CNN1+MAPK1", "SGK1+TBX3"}
    assert set(split_of(adata)[adata.obs["perturbation"] == "SET+KLF1"]) <= {"test", "valid"}
    pf.pp.check_split(adata)


def test_mcfaline_transfer(data_folder, monkeypatch):
    monkeypatch.setenv("PERTURBFLOW_DATA", str(data_folder))
    adata = pf.datasets.norman_mcfaline_subset("mcfaline")
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"])
    pf.pp.split_perturbations(adata, task="covariate_transfer")
    table = adata.uns["split"]["held_out"]
    assert table["split"].value_counts().to_dict() == {"test": 8, "valid": 4}
    assert (table.groupby("perturbation").size() <= 2).all()
    assert (table["cell_type"].value_counts() == 4).all()


def test_kang_leaves_a_cell_type_out(data_folder, monkeypatch):
    monkeypatch.setenv("PERTURBFLOW_DATA", str(data_folder))
    adata = pf.datasets.kang_ifnb(n_top_genes=None)
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"])
    pf.pp.split_perturbations(adata, task="covariate_transfer", held_out=[("IFN-beta", {"cell_type": "B"})])
    is_test = (adata.obs["perturbation"] == "IFN-beta") & (adata.obs["cell_type"] == "B")
    np.testing.assert_array_equal(split_of(adata) == "test", is_test)
    assert adata.uns["split"]["held_out"]["split"].tolist() == ["test", "valid"]
