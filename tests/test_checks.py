"""Every message once: what was expected, what was found, what to do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from perturbflow._checks import (
    check_between,
    check_key,
    check_log_normalised,
    check_matrix,
    check_no_slash,
    check_one_of,
    check_text,
    check_type,
    check_unique_names,
    check_whole_number,
    listing,
    nearest,
)


def test_long_lists_are_cut():
    assert listing("abc", limit=3) == "['a', 'b', 'c']"
    assert listing("abcde", limit=3) == "['a', 'b', 'c'] and 2 more"


def test_nearest_first_whatever_the_case():
    assert nearest("klf1", ["SET", "KLF11", "KLF1"]) == ["KLF1", "KLF11", "SET"]
    assert nearest("klf1", ["SET", "KLF11", "KLF1"], n=1) == ["KLF1"]


@pytest.mark.parametrize(
    ("check", "error", "message"),
    [
        pytest.param(
            lambda: check_type(3, str, name="task", expected="a string"),
            TypeError,
            "Expected `task` to be a string, found 3 of type int.",
            id="type",
        ),
        pytest.param(
            lambda: check_text(None, name="control"),
            TypeError,
            "Expected `control` to be a string, found None of type NoneType.",
            id="text_type",
        ),
        pytest.param(
            lambda: check_text("", name="control"),
            ValueError,
            "Expected `control` to be a string of at least one character, found ''.",
            id="text_empty",
        ),
        pytest.param(
            lambda: check_one_of("c", {"b", "a"}, name="task"),
            ValueError,
            "Expected `task` to be one of ['a', 'b'], found 'c'.",
            id="one_of",
        ),
        pytest.param(
            lambda: check_whole_number(1.0, name="seed"),
            TypeError,
            "Expected `seed` to be a whole number, found 1.0 of type float.",
            id="whole_type",
        ),
        pytest.param(
            lambda: check_whole_number(True, name="seed"),
            TypeError,
            "Expected `seed` to be a whole number, found True of type bool.",
            id="whole_bool",
        ),
        pytest.param(
            lambda: check_whole_number(-1, name="seed"),
            ValueError,
            "Expected `seed` to be at least 0, found -1.",
            id="whole_low",
        ),
        pytest.param(
            lambda: check_between("1", 0, 1, name="fraction"),
            TypeError,
            "Expected `fraction` to be a number, found '1' of type str.",
            id="between_type",
        ),
        pytest.param(
            lambda: check_between(True, 0, 1, name="fraction"),
            TypeError,
            "Expected `fraction` to be a number, found True of type bool.",
            id="between_bool",
        ),
        pytest.param(
            lambda: check_between(float("nan"), 0, 1, name="fraction"),
            ValueError,
            "Expected `fraction` to be from 0 to 1, found nan.",
            id="between",
        ),
        pytest.param(
            lambda: check_key("celltype", ["batch", "cell_type", None], where="adata.obs", hint="Add it."),
            KeyError,
            "Expected 'celltype' in `adata.obs`, found ['cell_type', 'batch']. Add it.",
            id="key",
        ),
        pytest.param(
            lambda: check_no_slash(["a", "b/c"], what="labels", hint="Rename them."),
            ValueError,
            "Expected labels without '/', which h5ad and zarr files read as a folder, found ['b/c']. Rename them.",
            id="slash",
        ),
        pytest.param(
            lambda: check_unique_names(["b", "a", "b"], what="genes", hint="Rename one."),
            ValueError,
            "Expected genes to be unique, found repeated ['b']. Rename one.",
            id="unique",
        ),
    ],
)
def test_message(check, error, message):
    with pytest.raises(error) as caught:
        check()
    assert caught.value.args == (message,)


def test_what_is_right_passes():
    check_type("a", str, name="x", expected="a string")
    check_text("a", name="x")
    check_one_of("a", ["a"], name="x")
    check_whole_number(np.int64(1), name="x", least=1)
    check_between(np.float32(1), 0, 1, name="x")
    check_between(0, 0, 1, name="x")
    check_key("a", ["a", None], where="x")
    check_no_slash(["a"], what="x", hint="")
    check_unique_names([], what="x", hint="")
    check_unique_names(["a", "b"], what="x", hint="")


LOGGED = np.log1p(np.array([[0.0, 1.5], [2.0, 0.0], [7.0, 1.0]]))
FORMATS = {
    "dense": np.asarray,
    "csr_matrix": sparse.csr_matrix,
    "csc_matrix": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "csc_array": sparse.csc_array,
}


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logged_values_pass(make, dtype):
    check_log_normalised(make(LOGGED.astype(dtype)), where="adata.X")


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    ("x", "message"),
    [
        pytest.param(
            np.array([[0.0, 3.0]]), r"raw counts \(only whole numbers, up to 3\). Run `sc.pp.norm", id="counts"
        ),
        pytest.param(np.array([[0, 3]]), "raw counts", id="integers"),
        pytest.param(
            np.array([[0.5, 31.0]]), "values up to 31, which do not seem to be logged. Run `sc.pp.log1p", id="unlogged"
        ),
        pytest.param(np.array([[0.5, -1.5]]), "negative values down to -1.5. Start from counts", id="negative"),
        pytest.param(np.array([[0.5, np.nan]]), "NaN or infinite values. Remove", id="nan"),
        pytest.param(np.array([[0.5, np.inf]]), "NaN or infinite values", id="inf"),
        pytest.param(np.array([[0.5, -np.inf]]), "NaN or infinite values", id="minus_inf"),
        pytest.param(np.zeros((1, 2)), "only zeros. Name the layer", id="zeros"),
    ],
)
def test_what_is_not_logged_is_named(x, message, make):
    with pytest.raises(ValueError, match=f"Expected log1p-normalised expression in `adata.X`, found {message}"):
        check_log_normalised(make(x), where="adata.X")


def test_calls_name_the_layer():
    with pytest.raises(
        ValueError, match=r"normalize_total\(adata, target_sum=1e4, layer='c'\)` and .*log1p\(adata, layer='c'\)"
    ):
        check_log_normalised(np.ones((2, 2)), where="adata.layers['c']", layer="c")


def test_fractions_far_from_the_start_are_seen():
    x = np.ones((10_000, 1))
    x[-1] = 0.5
    check_log_normalised(x, where="adata.X")


@pytest.mark.parametrize(
    ("x", "found"),
    [
        pytest.param([[1.0]], "list", id="list"),
        pytest.param(sparse.coo_matrix(LOGGED), "coo_matrix of float64", id="coo"),
        pytest.param(np.array([["a"]]), "ndarray of <U1", id="text"),
        pytest.param(np.array([[True]]), "ndarray of bool", id="bool"),
    ],
)
def test_other_matrices_are_refused(x, found):
    with pytest.raises(
        TypeError, match=f"NumPy array or a SciPy CSR or CSC matrix of numbers in memory, found {found}"
    ):
        check_log_normalised(x, where="adata.X")


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_matrices_are_refused(shape):
    with pytest.raises(ValueError, match="at least one cell and one gene in `adata.X`, found shape"):
        check_log_normalised(np.zeros(shape), where="adata.X")


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]], ids=["sorted", "unsorted"])
def test_places_that_are_stored_twice_are_refused(form, order):
    indices, data = np.array([0, 1, 1])[order], np.array([0.5, 0.7, 0.8])[order]
    twice = form((data, indices, np.array([0, 3, 3])), shape=(2, 2))
    with pytest.raises(ValueError, match=r"found several, whose sum is the value.* `adata.X.sum_duplicates\(\)`"):
        check_log_normalised(twice, where="adata.X")
    assert twice.nnz == 3
    twice.sum_duplicates()
    check_log_normalised(twice, where="adata.X")


def test_places_in_any_order_are_accepted_as_they_are():
    unsorted = sparse.csr_matrix((np.array([0.5, 0.7]), np.array([1, 0]), np.array([0, 2])), shape=(1, 2))
    check_log_normalised(unsorted, where="adata.X")
    assert unsorted.indices.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("x", "found"),
    [
        pytest.param(np.ones((2, 2), dtype=np.float16), "ndarray of float16", id="half_precision"),
        pytest.param(np.ones((2, 2), dtype=np.dtype("f4").newbyteorder()), "ndarray of [<>]f4", id="order_of_bytes"),
        pytest.param(np.ma.masked_less(np.eye(2), 0.5), "MaskedArray of float64", id="masked"),
        pytest.param(np.ones((2, 2), dtype=bool), "ndarray of bool", id="booleans"),
        pytest.param(sparse.coo_array(np.eye(2)), "coo_array of float64", id="coordinates"),
    ],
)
def test_arrays_that_cannot_be_read_safely_are_refused(x, found):
    with pytest.raises(TypeError, match=f"Expected `adata.X` to be .* found {found}. Convert it first"):
        check_matrix(x, where="adata.X")
