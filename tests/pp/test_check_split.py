from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import perturbflow as pf

BASIC: dict[str, Any] = {"perturbation_key": "perturbation", "control": "control"}
TASKS = ["combination", "covariate_transfer", "unseen_perturbation", "cells"]
LABELS = [*"ABCDEF", "A+B", "B+C", "C+D", "D+E"]


@pytest.fixture
def make(make_adata):
    """Six perturbations and four combinations in three cell types, with registered fields."""

    def build(labels=LABELS, *, n_cells=4):
        rows = [(label, kind) for label in ("control", *labels) for kind in ("B", "NK", "T")]
        adata = make_adata(rows, n_cells=n_cells)
        pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["cell_type"])
        return adata

    return build


def move(adata, to, *, perturbation, cell_type=None, n_cells=None):
    """Change the split of cells of a condition."""
    found = adata.obs["perturbation"] == perturbation
    if cell_type is not None:
        found &= adata.obs["cell_type"] == cell_type
    adata.obs.loc[adata.obs_names[found][:n_cells], "split"] = to


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(3))
def test_what_was_split_passes(make, task, seed):
    adata = make()
    pf.pp.split_perturbations(adata, task=task, seed=seed)
    pf.pp.check_split(adata)


# the hashes


def tiny(names=("c0", "c1", "c2", "c3")) -> AnnData:
    obs = pd.DataFrame({"perturbation": ["control", "A", "B", "B+A"], "kind": ["x"] * 4}, index=list(names))
    adata = AnnData(np.full((4, 1), 0.5), obs=obs)
    pf.pp.setup_perturbation(adata, **BASIC, covariate_keys=["kind"])
    pf.pp.split_perturbations(adata, task="combination", valid_fraction=0)
    return adata


def test_the_hashes_are_those_of_the_documented_text():
    record = tiny().uns["split"]
    conditions = '[[["A"],[["kind","x"]],"train"],[["A","B"],[["kind","x"]],"test"],[["B"],[["kind","x"]],"train"]]'
    cells = '[["c0","train"],["c1","train"],["c2","train"],["c3","test"]]'
    assert record["hash"] == hashlib.sha256(conditions.encode()).hexdigest()
    assert record["cell_hash"] == hashlib.sha256(cells.encode()).hexdigest()
    assert record["n_cells"] == {"train": 3, "valid": 0, "test": 1}


def test_the_hash_of_conditions_knows_neither_cells_nor_separators(make):
    adata, more = make(), make(n_cells=7)
    other = make()
    other.obs["perturbation"] = [
        "_".join(reversed(str(label).split("+"))).replace("control", "ntc") for label in other.obs["perturbation"]
    ]
    pf.pp.setup_perturbation(
        other, perturbation_key="perturbation", control="ntc", separator="_", covariate_keys=["cell_type"]
    )
    test = [label for label in LABELS if "+" in label][:2]
    for cells, named in ((adata, test), (more, test), (other, [label.replace("+", "_") for label in test])):
        pf.pp.split_perturbations(cells, task="combination", held_out=named, valid_fraction=0)
    assert adata.uns["split"]["hash"] == more.uns["split"]["hash"] == other.uns["split"]["hash"]
    assert adata.uns["split"]["cell_hash"] == other.uns["split"]["cell_hash"] != more.uns["split"]["cell_hash"]


def test_the_hash_is_another_for_another_split(make):
    adata = make()
    hashes = set()
    for held_out in (["A+B"], ["B+C"], ["A+B", "B+C"]):
        pf.pp.split_perturbations(adata, task="combination", held_out=held_out, valid_fraction=0)
        hashes.add(adata.uns["split"]["hash"])
    assert len(hashes) == 3


def test_names_that_hold_the_marks_of_the_text_are_told_apart():
    first, second = (tiny(names) for names in (('c0","train"],["c1', "b", "c", "d"), ("c0", "b", "c", "d")))
    assert first.uns["split"]["hash"] == second.uns["split"]["hash"]
    assert first.uns["split"]["cell_hash"] != second.uns["split"]["cell_hash"]


# what is found


def test_a_held_out_condition_in_training(make):
    adata = make()
    pf.pp.split_perturbations(adata, task="combination", held_out=["A+B"])
    move(adata, "train", perturbation="A+B", n_cells=1)
    with pytest.raises(ValueError, match=r"no cells of held-out conditions in training, found 1 cells of \['A\+B'\]"):
        pf.pp.check_split(adata)


def test_a_condition_in_two_splits(make):
    adata = make()
    pf.pp.split_perturbations(adata, task="covariate_transfer", held_out=[("A", {"cell_type": "B"})])
    move(adata, "test", perturbation="C", cell_type="T", n_cells=2)
    with pytest.raises(ValueError, match=r"every perturbed condition in one split, found \['C in T'\] in several"):
        pf.pp.check_split(adata)


def test_a_single_perturbation_held_out_of_the_combinations(make):
    adata = make()
    pf.pp.split_perturbations(adata, task="combination", held_out=["A+B"])
    move(adata, "test", perturbation="F")
    with pytest.raises(ValueError, match=r"all single perturbations in training for task='combination', found \['F'\]"):
        pf.pp.check_split(adata)


def test_a_combination_in_training_in_one_context(make):
    adata = make()
    pf.pp.split_perturbations(adata, task="combination", held_out=["A+B"], valid_fraction=0)
    move(adata, "test", perturbation="C+D", cell_type="T")
    with pytest.raises(ValueError, match=r"every combination in one split in all contexts .* found \['C\+D'\]"):
        pf.pp.check_split(adata)


def test_a_transfer_without_training(make):
    adata = make()
    pf.pp.split_perturbations(adata, task="covariate_transfer", held_out=[("A", {"cell_type": "B"})], valid_fraction=0)
    move(adata, "test", perturbation="A")
    with pytest.raises(ValueError, match=r"every held-out perturbation in another context in training .* \['A'\]"):
        pf.pp.check_split(adata)


def test_a_value_that_is_not_left_out_whole(make):
    adata = make("AC")
    pf.pp.split_scenario(adata, "leave_one_out", held_out={"cell_type": "B"})
    adata.uns["split"]["held_out"] = adata.uns["split"]["held_out"].query("perturbation != 'A'")
    move(adata, "train", perturbation="A", cell_type="B")
    with pytest.raises(ValueError, match=r"all perturbed cells of {'cell_type': \('B',\)} in the test, found \['A'\]"):
        pf.pp.check_split(adata)


@pytest.mark.parametrize(
    ("moved", "to", "message"),
    [
        ("C", "test", r"unseen component in every test condition .* found \['C'\]"),
        ("C", "valid", "in every valid condi"),
    ],
)
def test_a_known_component_that_is_held_out(make, moved, to, message):
    adata = make()
    pf.pp.split_perturbations(adata, task="unseen_perturbation", held_out=["A"], valid_fraction=0)
    move(adata, to, perturbation=moved)  # its combinations stay in training
    with pytest.raises(ValueError, match=message):
        pf.pp.check_split(adata)


def test_a_component_of_validation_that_is_tested(make):
    adata = make()
    pf.pp.split_perturbations(adata, task="unseen_perturbation", held_out=["A"], valid_fraction=0.15, seed=0)
    table = adata.uns["split"]["held_out"]
    valid = table.loc[(table["split"] == "valid") & (table["cell_type"] == "T"), "perturbation"]
    assert len(valid) > 1
    move(adata, "test", perturbation=valid.iloc[0])
    with pytest.raises(ValueError, match="an unseen component in every test condition"):
        pf.pp.check_split(adata)


def test_a_condition_that_moved_within_the_rules(make):
    adata = make()
    pf.pp.split_perturbations(adata, task="combination", held_out=["A+B"], valid_fraction=0)
    move(adata, "test", perturbation="C+D")
    with pytest.raises(ValueError, match="Expected the conditions of the recorded split, with hash .* restore"):
        pf.pp.check_split(adata)


def test_cells_that_moved_left_or_were_renamed(make):
    adata = make()
    pf.pp.split_perturbations(adata, task="combination", held_out=["A+B"])
    fewer, renamed, moved = adata[1:].copy(), adata.copy(), adata.copy()
    renamed.obs_names = [f"{name}-1" for name in renamed.obs_names]
    move(moved, "test", perturbation="control", n_cells=1)
    for cells in (fewer, renamed, moved):
        with pytest.raises(
            ValueError, match="Expected the cells of the recorded split, .* the conditions are the same"
        ):
            pf.pp.check_split(cells)
    pf.pp.check_split(adata[::-1].copy())  # the order is free


def test_cells_of_a_condition_that_moved(make):
    adata = make(n_cells=20)
    pf.pp.split_perturbations(adata, task="cells")
    move(adata, "train", perturbation="A", cell_type="B", n_cells=20)
    with pytest.raises(ValueError, match="Expected the conditions of the recorded split"):
        pf.pp.check_split(adata)


# bad input


def test_a_split_needs_its_record(make, unchanged):
    adata = make()
    with unchanged(adata), pytest.raises(KeyError, match="Expected 'split' in `adata.obs`"):
        pf.pp.check_split(adata)
    adata.obs["mine"] = "train"
    with unchanged(adata), pytest.raises(KeyError, match=r"Expected 'mine' in `adata.uns`, .*`pf.pp.split_scenario`"):
        pf.pp.check_split(adata, split_key="mine")
    pf.pp.split_perturbations(adata, task="cells")
    del adata.uns["split"]["hash"]
    with pytest.raises(KeyError, match=r"Expected 'hash' in `adata.uns\['split'\]`"):
        pf.pp.check_split(adata)
    adata.uns["split"] = "combination"
    with pytest.raises(TypeError, match="the record of a split, found 'combination'"):
        pf.pp.check_split(adata)
    with pytest.raises(TypeError, match="Expected `adata` to be an AnnData"):
        pf.pp.check_split(adata.obs)
