"""Cells as people have them: any container and type of numbers, any names and labels, any order."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

# What AnnData holds as it is, and functions take: the result must not depend on which of them it is.
CONTAINERS: dict[str, Callable[[Any], Any]] = {
    "array": np.asarray,
    "fortran": np.asfortranarray,
    "csr_matrix": sparse.csr_matrix,
    "csc_matrix": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "csc_array": sparse.csc_array,
}
OTHER_CONTAINERS: dict[str, Callable[[Any], Any]] = {
    "coo_matrix": sparse.coo_matrix,
    "coo_array": sparse.coo_array,
    "lil_matrix": sparse.lil_matrix,
    "matrix": np.matrix,
    "masked": lambda x: np.ma.masked_array(x, mask=np.asarray(x) == 0),
}
DENSE = ("array", "fortran", "matrix", "masked")
DTYPES = ("bool", "uint8", "int64", "float16", "float32", "float64", ">f4")
ODD_NAMES = (
    "",
    " ",
    "nan",
    "None",
    "α β",
    "日本",
    "a/b",
    "a|b",
    "1",
    "1.0",
    "-1e3",
    "x+y",
    "é",
    "e\u0301",
    "a\nb",
    "A" * 200,
)
ODD_LABELS = (
    *("", " ", "nan", "NA", "None", "control", "Control", "control ", "A", " A", "a", "B", "C", "A+B", "B+A", "A + B"),
    *(
        "A+control",
        "control+control",
        "A+A",
        "A+",
        "+",
        "Ca2+",
        "(+)-JQ1",
        "A(B+C)",
        "A/B",
        "A|B",
        "α",
        "日本",
        "1",
        "1.5",
    ),
    *("A:B", "A_B", "A\u200b", "A\u00a0", "\t", "A\nB", "[A", "True"),
)
few = settings(
    max_examples=settings().max_examples // 4,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
# For properties of which one example costs much, or which are asked of every metric.
fewer = settings(few, max_examples=few.max_examples // 3)
seeds = st.integers(0, 2**16)


def attempt(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What a function returns, or the error if it is one of its own, which says what was expected.

    Warnings of the package are no faults; those of NumPy and pandas about what it does are.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return function(*args, **options)
        except (KeyError, TypeError, ValueError) as error:
            if not (error.args and str(error.args[0]).startswith("Expected")):
                raise
            return error


def logged(n_cells: int, n_genes: int, *, seed: int, n_silent: int = 0) -> NDArray[np.float32]:
    """log1p-normalised expression, of which some is 0."""
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((n_cells, n_genes)) < 0.6, rng.gamma(4.0, 0.4, (n_cells, n_genes)), 0.0)
    values[:, :n_silent] = 0
    return values.astype(np.float32)


@st.composite
def matrices(draw, shape: tuple[int, int], *, every_container: bool = False) -> Any:
    """Numbers of any size and type in any container."""
    rng = np.random.default_rng(draw(seeds))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of casts
        values = logged(*shape, seed=draw(seeds)).astype(np.float64)
        kind = draw(
            st.sampled_from(
                (
                    "logged",
                    "logged",
                    "counts",
                    "huge",
                    "tiny",
                    "negative",
                    "nan",
                    "inf",
                    "zeros",
                    "ones",
                    "mixed",
                    "large",
                )
            )
        )
        some = rng.random(shape) < 0.2
        values = {
            "logged": lambda: values,
            "counts": lambda: np.rint(values * 10),
            "huge": lambda: values * 1e30,
            "tiny": lambda: values * 1e-30,
            "negative": lambda: np.where(some, -values - 1, values),
            "nan": lambda: np.where(some, np.nan, values),
            "inf": lambda: np.where(some, np.inf, values),
            "zeros": lambda: np.zeros(shape),
            "ones": lambda: np.ones(shape),
            "mixed": lambda: np.where(rng.random(shape[0])[:, None] < 0.5, np.rint(values * 10), values),
            "large": lambda: values + 25,
        }[kind]()
        dtype = draw(st.sampled_from(DTYPES))
        values = values.astype(dtype)
        known = CONTAINERS | {
            name: OTHER_CONTAINERS[name] for name in OTHER_CONTAINERS if every_container or name == "masked"
        }
        name = draw(st.sampled_from([name for name in known if dtype not in {"float16", ">f4"} or name in DENSE]))
        return known[name](values)


def names(n: int, *, prefix: str) -> st.SearchStrategy[list[str]]:
    """Names of cells or genes, mostly distinct."""
    plain = [f"{prefix}{i}" for i in range(n)]
    odd = st.permutations(ODD_NAMES).map(lambda some: [*some, *plain][:n])
    numbers = st.just([str(i) for i in range(n)][::-1])
    repeated = st.just([f"{prefix}{i // 2}" for i in range(n)])
    return st.one_of(st.just(plain), st.just(plain), odd, numbers, repeated)


def columns(n: int, values: Sequence[Any]) -> st.SearchStrategy[Any]:
    """A column of ``obs`` with some of the values, in any type that pandas has for it."""

    def typed(drawn: tuple[list[Any], str]) -> Any:
        entries, kind = drawn
        if kind == "category":
            return pd.Categorical(entries)
        if kind == "unused":
            known = list(dict.fromkeys(entry for entry in entries if entry is not None and entry == entry))
            return pd.Categorical(entries, categories=[*known, "unused"])
        if kind == "string":
            return pd.array(
                [None if entry is None or entry != entry else str(entry) for entry in entries], dtype="string"
            )
        return np.array(entries, dtype=object)

    entries = st.lists(st.sampled_from(values), min_size=n, max_size=n)
    return st.tuples(entries, st.sampled_from(("object", "category", "unused", "string"))).map(typed)


def labels(n: int) -> st.SearchStrategy[Any]:
    """A column of labels, mostly a few that make sense, of which the first is a control."""
    good = ("control", "A", "B", "A+B")
    few = st.sets(st.sampled_from(ODD_LABELS), min_size=1, max_size=2).flatmap(
        lambda odd: columns(n, [*good, *sorted(odd)])
    )
    other = columns(n, [*good, None, np.nan, 1, 2.5, True])
    return st.one_of(columns(n, good), few, few, columns(n, ODD_LABELS), other)


@st.composite
def perturbed_cells(draw) -> AnnData:
    """Cells with a column "p" of perturbations, covariates and doses, of which anything may be wrong."""
    n, d = draw(st.sampled_from((0, 1, 2, 3, 8, 20))), draw(st.sampled_from((0, 1, 2, 3, 6)))
    obs = pd.DataFrame(index=draw(names(n, prefix="c")))
    obs["p"] = draw(labels(n))
    obs["context"] = draw(
        columns(n, draw(st.sampled_from((("B",), ("B", "T"), ("B", " ", "日本"), ("B", None), (1, 2), (0.5, 1.5)))))
    )
    obs["dose"] = draw(
        st.one_of(
            columns(n, (0, 1, 10)),
            columns(n, ("1", "1+0.5", "10 µM", "nan", None)),
            columns(n, (1e30, 1e-60, np.inf, -1.0, np.nan, 0.0)),
            st.just(np.linspace(0, 1, n)),
        )
    )
    obs["type"] = draw(
        columns(n, draw(st.sampled_from((("CRISPRi",), ("CRISPRi", "CRISPRa"), ("i", None), ("a/b", "nan"), (1, 2)))))
    )
    return _drawn(draw, obs, d)


@st.composite
def timed_cells(draw) -> AnnData:
    """Cells with times, trajectories and held genes, of which anything may be wrong."""
    n, d = draw(st.sampled_from((0, 1, 2, 6, 24))), draw(st.sampled_from((0, 1, 2, 5)))
    obs = pd.DataFrame(index=draw(names(n, prefix="c")))
    step = np.arange(n) // max(1, draw(st.integers(1, 3)))
    obs["time"] = draw(
        st.one_of(
            st.just(step),
            st.just(step.astype(str).astype(object)),
            st.just(pd.Categorical(step)),
            st.just(step * 1e300),
            st.just(step * 1e-300),
            st.just(1e15 + step),
            st.just(np.where(step % 3 == 0, np.nan, step)),
            st.just(pd.array(step, dtype="Int64")),
            st.just(pd.to_timedelta(step, unit="h")),
            columns(n, (0, 1, 2, 3)),
            columns(n, ("0", "6 h", "12", None, "iPSC")),
            columns(n, (0.0, np.inf, -1.0, np.nan)),
            columns(n, (True, False)),
        )
    )
    wells = draw(st.sampled_from((("a",), ("a", "b"), ("a", "a|b", "1"), ("a", None), (1, 2), (0.5,))))
    obs["trajectory"] = draw(columns(n, wells))
    obs["held"] = draw(
        columns(n, draw(st.sampled_from((("control",), ("control", "g0"), ("control", "g0+g1", "g1"), ODD_LABELS))))
    )
    return _drawn(draw, obs, d)


def _drawn(draw, obs: pd.DataFrame, n_genes: int) -> AnnData:
    var = pd.DataFrame(index=draw(names(n_genes, prefix="g")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of AnnData, about repeated names
        adata = AnnData(draw(matrices((len(obs), n_genes))), obs=obs, var=var)
        return adata[:, :] if draw(st.booleans()) else adata


@st.composite
def disguises(
    draw, adata: AnnData, *, order_of_cells: bool = True
) -> tuple[AnnData, NDArray[np.intp], NDArray[np.intp]]:
    """The same cells in another order, container and type of columns, perhaps a view, and their places and those of genes."""
    rng = np.random.default_rng(draw(seeds))
    cells = rng.permutation(adata.n_obs) if order_of_cells else np.arange(adata.n_obs)
    genes = rng.permutation(adata.n_vars)
    other = adata[cells][:, genes].copy()
    x = other.X.toarray() if sparse.issparse(other.X) else other.X
    other.X = CONTAINERS[draw(st.sampled_from(sorted(CONTAINERS)))](x)
    kind = draw(st.sampled_from(("as it is", "object", "unused", "string")))
    for name, column in other.obs.items():
        if not isinstance(column.dtype, pd.CategoricalDtype) and column.dtype != object:
            continue
        if kind == "unused":
            column = column.astype("category").cat.add_categories(["of no cell"])
            other.obs[name] = column.cat.reorder_categories(column.cat.categories[::-1])
        elif kind != "as it is":
            other.obs[name] = column.astype(kind)
    if draw(st.booleans()):
        other = other[:, :]
    return other, cells, genes
