from __future__ import annotations

import itertools
import json
import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perturbflow.screen._conditions import Vocabulary, canonical_label, parse_dose, parse_label

STYLE = {"control": "control", "separator": "+"}

component_names = st.text(
    st.characters(codec="utf-8", categories=["L", "N"], include_characters="-_. "), min_size=1
).filter(lambda name: name == name.strip() and name != "control")
combinations = st.lists(component_names, max_size=4, unique=True)


@pytest.mark.parametrize(
    ("label", "components"),
    [
        ("SET+KLF1", ("SET", "KLF1")),
        (" SET + KLF1 ", ("SET", "KLF1")),
        ("KLF1", ("KLF1",)),
        ("control", ()),
        ("KLF1+control", ("KLF1",)),
        ("control+KLF1", ("KLF1",)),
        ("control+control", ()),
        ("CRISPRi(SET)+[3H]", ("CRISPRi(SET)", "[3H]")),
        ("smile :)", ("smile :)",)),  # nothing to split
    ],
)
def test_components_of_a_label(label, components):
    assert parse_label(label, **STYLE) == components


def test_the_control_may_contain_the_separator():
    assert parse_label("Neg1+Neg2", control="Neg1+Neg2", separator="+") == ()
    assert parse_label("non-targeting", control="non-targeting", separator="-") == ()


@pytest.mark.parametrize(
    ("label", "components"),
    [
        ("non_targeting", ()),
        ("KLF1_non_targeting", ("KLF1",)),
        ("non_targeting_KLF1", ("KLF1",)),
        ("SET_non_targeting_KLF1", ("SET", "KLF1")),
        ("non_targeting_non_targeting", ()),
        (" non _ targeting_KLF1 ", ("KLF1",)),
        ("KLF1_SET", ("KLF1", "SET")),
        ("non_KLF1", ("non", "KLF1")),
        ("targeting_non", ("targeting", "non")),
    ],
)
def test_the_control_is_found_before_labels_are_split(label, components):
    assert parse_label(label, control="non_targeting", separator="_") == components


@pytest.mark.parametrize(
    ("label", "components"),
    [("Neg", ()), ("Neg_1", ()), ("Neg_1_Neg", ()), ("A_Neg", ("A",)), ("Neg_1_A", ("A",)), ("A_1_Neg", ("A", "1"))],
)
def test_several_controls_of_which_the_longest_counts(label, components):
    assert parse_label(label, control=["Neg", "Neg_1"], separator="_") == components


@pytest.mark.parametrize("control", ["ctrl (+)", "ctrl+", "None"])
def test_the_control_may_be_written_in_any_way(control):
    assert parse_label(f"A+{control}", control=control, separator="+") == ("A",)
    assert parse_label(f"{control}+A+B", control=("other", control), separator="+") == ("A", "B")


@pytest.mark.parametrize(
    ("label", "parts"),
    [
        ("", [""]),
        ("Dox+", ["Dox", ""]),
        ("+Dox", ["", "Dox"]),
        ("A++B", ["A", "", "B"]),
        ("A+ +B", ["A", "", "B"]),
        ("+", ["", ""]),
        ("control+", ["control", ""]),
        ("(+)-JQ1", ["(", ")-JQ1"]),
        ("2i (LIF+MEKi+GSK3i)", ["2i (LIF", "MEKi", "GSK3i)"]),
        ("[A+B]", ["[A", "B]"]),
        ("{A+B}", ["{A", "B}"]),
        (")A(+B", [")A(", "B"]),
    ],
)
def test_labels_are_not_split_blindly(label, parts):
    with pytest.raises(ValueError, match="Expected non-empty components joined by '[+]'.* If '[+]' does not join") as e:
        parse_label(label, **STYLE)
    assert (
        f"found {label!r} as {parts}. If '+' does not join components, choose a `separator` that no label contains, such as '|'; otherwise"
        in str(e.value)
    )
    assert parse_label(label or "A", control="control", separator="|") == (label or "A",)


def test_spaces_may_separate():
    assert parse_label(" A  ", control="control", separator=" ") == ("A",)
    assert parse_label(" A no drug", control="no drug", separator=" ") == ("A",)
    assert parse_label("A+1 + B", control="control", separator=" + ") == ("A+1", "B")


def test_a_component_named_twice_is_refused():
    with pytest.raises(ValueError, match=r"Expected every component once in a perturbation, found 'A\+A'\. Give"):
        parse_label("A+A", **STYLE)


@given(combinations, st.sampled_from(["+", "|", ";;", "&"]), st.randoms(use_true_random=False))
def test_the_order_of_components_does_not_matter(components, separator, random):
    label = canonical_label(components, control="control", separator=separator)
    parsed = parse_label(label, control="control", separator=separator)
    assert sorted(parsed) == sorted(components)
    random.shuffle(components)
    assert canonical_label(components, control="control", separator=separator) == label
    assert canonical_label(parsed, control="control", separator=separator) == label


@pytest.mark.parametrize(
    ("dose", "n_components", "doses"),
    [
        (2, 2, (2.0, 2.0)),
        (np.float32(0.5), 1, (0.5,)),
        ("1+0.5", 2, (1.0, 0.5)),
        (" 1 + 0 ", 2, (1.0, 0.0)),
        ("3", 3, (3.0, 3.0, 3.0)),
        ("1e+05", 2, (1e5, 1e5)),
        ("1e+05", 1, (1e5,)),
        ("1e+05+2", 2, (1e5, 2.0)),
        ([1, 0.5], 2, (1.0, 0.5)),
        (("1", " .5 "), 2, (1.0, 0.5)),
        (np.array([1, 0.5]), 2, (1.0, 0.5)),
        (np.array(3.0), 2, (3.0, 3.0)),
        ([2], 2, (2.0, 2.0)),
        (Decimal("0.1"), 1, (0.1,)),
        (np.int64(3), 1, (3.0,)),
    ],
)
def test_doses(dose, n_components, doses):
    assert parse_dose(dose, n_components) == doses


def test_doses_use_the_separator_of_the_labels():
    assert parse_dose("1_0.5", 2, separator="_") == (1.0, 0.5)  # float("1_0.5") is 10.5


@pytest.mark.parametrize(
    "dose",
    [-1, "-1", np.nan, "nan", np.inf, "high", "", "1+", None, "1+-1", 1e-60, 1e60, True, [], [1, [2]], {"A": 1}, pd.NA],
    ids=repr,
)
def test_wrong_doses_are_refused(dose):
    with pytest.raises(ValueError, match="Expected a dose to be a finite number of at least 0"):
        parse_dose(dose, 2)


@pytest.mark.parametrize(
    ("dose", "advice"),
    [
        ("10 uM", "without units"),
        ("10nM", "without units"),
        ("1e-3 µM+5 µM", "without units"),
        ("50%", "without units"),
        ("0,5", "a decimal point"),
        ("1,000", "a decimal point"),
        ("1;0.5", r"'\+' between the doses"),
        ("1, 0.5", r"'\+' between the doses"),
        ("1 0.5", r"'\+' between the doses"),
        ("1_0.5", r"'\+' between the doses"),  # Python reads 10.5
        ("[1.0, 0.5]", r"'\+' between the doses"),
    ],
)
def test_doses_in_other_words_are_explained(dose, advice):
    with pytest.raises(ValueError, match=f"Expected a dose .* found {re.escape(repr(dose))}.*{advice}"):
        parse_dose(dose, 2)


@pytest.mark.parametrize(("dose", "n_components"), [("1+1", 3), ("1+1+1", 2), ("1+1", 1)])
def test_other_numbers_of_doses_are_refused(dose, n_components):
    with pytest.raises(ValueError, match=f"one for each of {n_components} components, found .* in dose '"):
        parse_dose(dose, n_components)


def vocabulary(*labels, **options) -> Vocabulary:
    return Vocabulary.from_labels(labels, control="control", separator="+", **options)


def test_vocabulary_collects_components_in_order():
    assert vocabulary("control", "SET+KLF1", "KLF1", "BAK1+control").components == ("BAK1", "KLF1", "SET")


def test_several_controls_are_one():
    known = Vocabulary.from_labels(["Neg0", "Neg_1", "B_A", "A_Neg_1"], control=["Neg0", "Neg_1"], separator="_")
    assert (known.components, known.control, known.controls) == (("A", "B"), "Neg0", ("Neg0", "Neg_1"))
    assert known.canonical("Neg_1") == "Neg0"
    assert known.canonical("Neg_1_A") == "A"
    encoded = known.encode_perturbations(["Neg_1", "Neg_1_A", "A_Neg_1", "B_A"], doses=["x", "1_2", "3_0", 4])
    assert encoded.toarray().tolist() == [[0, 0], [2, 0], [3, 0], [4, 4]]
    assert Vocabulary.from_dict(json.loads(json.dumps(known.to_dict()))) == known
    assert "other_controls" not in vocabulary("A").to_dict()  # as files have it that were written before


def test_labels_have_one_way_to_be_written():
    known = Vocabulary.from_labels(["A"], control=["Neg0", "Neg1"], separator="+")
    assert [known.written(label) for label in ("B+A", " A + B", "Neg1", "X+Neg0", "A+")] == [
        "A+B",
        "A+B",
        "Neg0",
        "X",
        "A+",
    ]


def test_doses_follow_the_order_of_the_label():
    encoded = vocabulary("A", "B+C").encode_perturbations(
        ["C+A", "A+C", "control", "B", "B+control", "control+B"], doses=["2+0.5", [2, 0.5], "9", 3, "4+1", "1+5"]
    )
    assert encoded.toarray().tolist() == [[0.5, 0, 2], [2, 0, 0.5], [0, 0, 0], [0, 3, 0], [0, 4, 0], [0, 5, 0]]
    assert encoded.dtype == np.float32
    assert encoded.format == "csr"


def test_a_component_of_dose_zero_is_none():
    known = vocabulary("A+B")
    encoded = known.encode_perturbations(["A+B", "A"], doses=["0+2", 0])
    assert encoded.toarray().tolist() == [[0, 2], [0, 0]]
    assert encoded.nnz == 1
    assert [known.label(row) for row in encoded.toarray()] == ["B", "control"]


def test_doses_of_control_cells_do_not_count():
    encoded = vocabulary("A").encode_perturbations(["control", "A", "control"], doses=[np.nan, 1, "none"])
    assert encoded.toarray().tolist() == [[0], [1], [0]]


def test_a_missing_dose_is_not_the_default():
    with pytest.raises(ValueError, match="Expected a dose to be .* found None"):
        vocabulary("A").encode_perturbations(["A"], doses=[None])


def test_wrong_doses_name_the_label():
    with pytest.raises(ValueError, match=r"one for each of 2 components, found 3 in dose '1\+1\+1' of 'A\+B'"):
        vocabulary("A+B").encode_perturbations(["A+B"], doses=["1+1+1"])


@given(combinations.filter(len), st.data())
def test_labels_and_doses_round_trip(components, data):
    known = vocabulary(*components, "other")
    positive = st.floats(2.0**-20, 2.0**20, width=32)
    doses = data.draw(st.lists(positive, min_size=len(components), max_size=len(components)))
    label = "+".join(components)
    row = known.encode_perturbations([label], doses=["+".join(map(str, doses))]).toarray()[0]
    assert dict(zip(known.components, row, strict=True)) == {"other": 0, **dict(zip(components, doses, strict=True))}
    assert known.label(row) == known.canonical(label)
    again = known.encode_perturbations([known.label(row)], doses=[known.dose_label(row)]).toarray()[0]
    np.testing.assert_array_equal(again, row)


def test_dose_labels():
    known = vocabulary("A+B")
    assert known.dose_label(np.array([1.0, 0.1], dtype=np.float32)) == "1+0.1"
    assert known.dose_label(np.array([0.0, 0.1])) == "0.1"
    assert known.dose_label(np.zeros(2)) == "0"


def test_an_unknown_perturbation_names_the_nearest():
    with pytest.raises(ValueError, match=r"known perturbation, found 'klf'. .* 3 known ones are \['KLF1', "):
        vocabulary("KLF1", "SET", "MAPK1").encode_perturbations(["SET+klf"])
    assert vocabulary("KLF1", "SET", "MAPK1").nearest("set", n=1) == ["SET"]


def test_types_make_components():
    known = vocabulary("control", "A+B", "A", "C", types=["", "a", "i", "i"])
    assert known.components == ("A:a", "A:i", "B:a", "C:i")
    encoded = known.encode_perturbations(["A", "A", "B+A", "control"], types=["a", "i", "a", "a"]).toarray()
    assert encoded.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert known.label(encoded[2]) == "A:a+B:a"


def test_types_may_differ_between_components():
    known = vocabulary("A+B", types=["a+i"])
    assert known.components == ("A:a", "B:i")
    with pytest.raises(ValueError, match=r"found 3 in type 'a\+i\+a' of 'A\+B'"):
        vocabulary("A+B", types=["a+i+a"])


def test_types_are_needed_only_where_there_are_several():
    known = vocabulary("A", "A", "B", types=["a", "i", "i"])
    assert known.canonical("B") == "B:i"
    assert known.canonical("A:i+B") == "A:i+B:i"
    assert known.canonical("A", perturbation_type="i") == "A:i"
    assert known.encode_perturbations(["A:i"], types=["i"]).toarray().tolist() == [[0, 1, 0]]
    with pytest.raises(
        ValueError, match=r"one type, found 'A', which could be any of \['A:a', 'A:i'\]. Pass one of them"
    ):
        known.canonical("A")
    with pytest.raises(ValueError, match="known perturbation, found 'B:a'"):
        known.canonical("B", perturbation_type="a")


def test_without_types_the_mark_is_a_letter():
    known = vocabulary("A:1", "A:2")
    assert known.components == ("A:1", "A:2")
    with pytest.raises(ValueError, match="known perturbation, found 'A'"):
        known.canonical("A")


@pytest.mark.parametrize(("label", "kind"), [("A:1", "a"), ("A", "a:1"), ("A", "")])
def test_types_and_names_must_be_told_apart(label, kind):
    with pytest.raises(ValueError, match="non-empty perturbations and types without ':'.*Rename them"):
        vocabulary(label, types=[kind])


def test_covariates_are_coded_in_alphabetical_order():
    known = vocabulary("A", covariates={"cell_type": ["T", "B", "T"], "batch": [2, 1, 2]})
    codes = known.encode_covariates({"batch": ["1", "2"], "cell_type": ["B", "T"], "other": [0, 0]}, n_cells=2)
    assert codes.tolist() == [[0, 0], [1, 1]]
    assert codes.dtype == np.int64
    assert vocabulary("A").encode_covariates({}, n_cells=3).shape == (3, 0)


def test_unknown_and_missing_covariates_are_refused():
    known = vocabulary("A", covariates={"cell_type": ["T", "B"]})
    with pytest.raises(ValueError, match=r"Expected 'cell_type' to be one of \['B', 'T'\], found \['NK'\]"):
        known.encode_covariates({"cell_type": ["NK", "B"]}, n_cells=2)
    with pytest.raises(KeyError, match="Expected 'cell_type' in `covariates`"):
        known.encode_covariates({"batch": ["1"]}, n_cells=1)


@pytest.mark.parametrize(
    "known",
    [
        vocabulary("A+B", covariates={"z": ["1", "2"], "a": ["x"]}),
        vocabulary("A", types=["i"]),
        Vocabulary((), control="ctrl", separator="|"),
    ],
)
def test_vocabulary_survives_json_and_arrays(known):
    values = json.loads(json.dumps(known.to_dict()))
    assert Vocabulary.from_dict(values) == known
    arrays = {**values, "components": np.array(values["components"]), "has_types": np.bool_(values["has_types"])}
    assert Vocabulary.from_dict(arrays) == known


def test_every_distinct_condition_is_encoded_once():
    labels = list(itertools.chain.from_iterable([["A+B", "B+A", "control"]] * 50))
    rows, codes = vocabulary("A+B").encode_distinct(labels)
    assert rows.toarray().tolist() == [[1, 1], [1, 1], [0, 0]]
    assert codes.tolist() == [0, 1, 2] * 50
