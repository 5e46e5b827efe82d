from __future__ import annotations

import pytest

from perturbflow.screen._splits import split_named, split_names


@pytest.mark.parametrize(
    ("split", "names"),
    {
        "train": ["train", "Train", " TRAIN ", "training"],
        "valid": ["valid", "val", "Validation", "dev", "development"],
        "test": ["test", "Testing", "ood", "OOD", "holdout", "hold-out", "held_out", "Held out", "out of distribution"],
    }.items(),
)
def test_other_names_of_splits(split, names):
    assert {split_named(name) for name in names} == {split}


@pytest.mark.parametrize("name", ["fold 1", "trains", "", "evaluation", 1, None])
def test_names_that_could_be_anything_stay_what_they_are(name):
    assert split_named(name) == name


def test_one_split_or_several():
    assert split_names("train") == ["train"]
    assert split_names("val") == ["valid"]
    assert split_names(("ood", "train", "test")) == ["test", "train"]


@pytest.mark.parametrize(
    ("splits", "error", "message"),
    [
        ("trian", ValueError, r"Expected `splits` to be one of \['test', 'train', 'valid'\], found 'trian'"),
        (["train", "fold 1"], ValueError, "found 'fold 1'"),
        ([], ValueError, "at least one split in `splits`, found none"),
        (3, TypeError, "`splits` to be the name of a split, or a list of names, found 3"),
        ([3], TypeError, "`splits` to be the name of a split, or a list of names, found 3"),
    ],
)
def test_wrong_splits_are_named(splits, error, message):
    with pytest.raises(error, match=message):
        split_names(splits)
