from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from perturbflow.screen._named_arrays import aligned, by_name, check_unnamed, chosen, names_of, same_on_both_sides

X = pd.DataFrame([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], index=["p", "q"], columns=list("abc"))


def test_other_arrays_get_the_order_of_the_first():
    x, y, z = aligned("conditions", "genes", x=X, y=X.loc[["q", "p"], list("cab")], z=X.loc["p", list("bca")])
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, X)
    np.testing.assert_array_equal(z, X.loc["p"])


def test_only_the_named_axes_count():
    x, y = aligned("genes", x=X, y=X.iloc[::-1, ::-1].rename(index={"p": "other"}))
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, X[::-1])


def test_arrays_without_names_stay_what_they_are():
    array, sparse_like, nothing = np.zeros((2, 3)), [[1.0, 2.0, 3.0]], None
    assert [array, sparse_like, nothing] == aligned("genes", a=array, b=sparse_like, c=nothing)
    x, y = aligned("genes", x=X, y=array)
    assert y is array
    np.testing.assert_array_equal(x, X)


def test_numbers_that_pandas_gives_are_names_only_among_numbers():
    numbered = pd.DataFrame(X.to_numpy())
    np.testing.assert_array_equal(aligned("genes", x=numbered, y=X)[1], X)
    np.testing.assert_array_equal(aligned("genes", x=numbered, y=numbered[[2, 0, 1]])[1], X)
    assert X.columns.equals(names_of(numbered, X))
    assert names_of(numbered) is None


def test_kinds_of_indices_do_not_matter():
    other = X.iloc[:, ::-1]
    other.columns = pd.CategoricalIndex(other.columns, categories=list("cbad"))
    np.testing.assert_array_equal(aligned("genes", x=X, y=other)[1], X)
    other.columns = pd.Index(list("cba"), dtype="string")
    np.testing.assert_array_equal(aligned("genes", x=X, y=other)[1], X)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            X.rename(columns={"a": "z"}),
            r"same genes in `x` and `y`, found only in `x` \['a'\] and only in `y` \['z'\]. Keep",
        ),
        (X[["a", "b"]], r"found only in `x` \['c'\]. Keep"),
        (X[list("aab")], r"the genes of `y` to be unique, found repeated \['a'\]"),
    ],
)
def test_other_names_are_refused(other, message):
    with pytest.raises(ValueError, match=message):
        aligned("genes", x=X, y=other)


def test_arrays_are_refused_where_tables_have_to_be_reordered():
    with pytest.raises(ValueError, match=r"names of the genes in all of .*found none in \['z'\]"):
        aligned("genes", x=X, y=X[list("cba")], z=X.to_numpy())
    aligned("genes", x=X, y=X, z=X.to_numpy())


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda a: aligned("genes", x=X, y=a), id="aligned"),
        pytest.param(lambda a: chosen(a, ["a"], name="y"), id="chosen"),
    ],
)
def test_cells_with_annotation_are_refused(call):
    with pytest.raises(TypeError, match=r"Expected `y` to be an array.*found AnnData. Pass `adata.to_df\(\)`"):
        call(AnnData(X.to_numpy()))


def test_arguments_of_functions():
    @by_name("genes", of=("x", "y"))
    def difference(x, y, *rest, factor=1.0):
        return (x - y).sum() * factor, rest

    assert difference(X, X[list("bca")], "more", factor=2.0) == (0.0, ("more",))
    assert difference(y=X[list("bca")], x=X) == (0.0, ())
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'y'"):
        difference(*[X])
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        difference(X, X, **{"z": 1})


def test_square_tables_have_one_order():
    square = pd.DataFrame(np.arange(9.0).reshape(3, 3), index=list("abc"), columns=list("abc"))
    found = same_on_both_sides(square[list("cab")], name="scores", what="conditions")
    np.testing.assert_array_equal(found, square)
    assert same_on_both_sides([[1.0]], name="scores", what="conditions") == [[1.0]]
    with pytest.raises(ValueError, match="same conditions in `scores.index` and `scores.columns`"):
        same_on_both_sides(square.rename(columns={"a": "z"}), name="scores", what="conditions")


def test_wanted_names_are_chosen():
    np.testing.assert_array_equal(chosen(X, ["c", "a"], name="x"), X[["c", "a"]])
    np.testing.assert_array_equal(chosen(X.loc["p"], ["c", "a"], name="x"), [3.0, 1.0])
    assert chosen(X.to_numpy(), ["c", "a"], name="x") is None
    with pytest.raises(ValueError, match=r"all 2 genes in `x`, found that 1 are missing: \['z'\]. Add them"):
        chosen(X, ["a", "z"], name="x")
    with pytest.raises(ValueError, match=r"found that 2 are missing: \['p', 'q'\]. They are its columns: pass `x.T`"):
        chosen(X, ["p", "q"], name="x")
    with pytest.raises(ValueError, match="genes of `x` to be unique"):
        chosen(X[list("aab")], ["a"], name="x")


def test_names_that_cannot_be_compared_are_refused():
    check_unnamed(X.to_numpy(), name="x", order="the training cells")
    check_unnamed(pd.DataFrame(X.to_numpy()), name="x", order="the training cells")
    with pytest.raises(TypeError, match=r"`x` to be an array in the order of the training cells, found DataFrame"):
        check_unnamed(X, name="x", order="the training cells")
