"""Entries that functions write into AnnData, told from other content, which is never replaced."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pandas as pd
from anndata import AnnData

from perturbflow._checks import check_key, check_no_slash, check_text

Place = tuple[str, str]
"""An attribute of AnnData and a name in it, such as ``("obsm", "predicted")``."""

_ADVICE = "Choose another `key_added`, or delete that first."


def _mapping(*names: str) -> Callable[[Any], bool]:
    return lambda entry: isinstance(entry, Mapping) and entry.keys() >= set(names)


def _table(*columns: str) -> Callable[[Any], bool]:
    return lambda entry: isinstance(entry, pd.DataFrame) and set(columns) <= set(entry.columns)


def _is_flow(entry: Any) -> bool:
    in_folder = (
        isinstance(entry, Mapping) and set(entry) in ({"store"}, {"store", "id"}) and isinstance(entry["store"], str)
    )
    return in_folder or _mapping("format", "config", "weights", "prior")(entry)


def is_standing(entry: Any) -> bool:
    """Return whether an entry of ``uns`` is the fit to a snapshot."""
    return _mapping("standing", "evidence", "genes")(entry)


_is_course = _mapping("config", "weights", "genes", "sparsity_path")


def _table_or_empty(column: str) -> Callable[[Any], bool]:
    return lambda entry: isinstance(entry, pd.DataFrame) and (column in entry or not entry.shape[1])


def _of_graph(key: str, entry: Mapping[str, Any]) -> list[Place]:
    second_order = "acts_through" in entry["edges"]
    return [("varp", f"{key}{suffix}") for suffix in ("", "_evidence", *(["_rate"] if second_order else []))]


@dataclass(frozen=True)
class Record:
    """Entries that a function writes under a key."""

    writer: str  # the function
    what: str  # how messages call an earlier one
    tests: Mapping[str, Callable[[Any], bool]]  # what recognises entries of `uns`, by the suffix of their key
    beside: Callable[[str, Any], Collection[Place]] = lambda key, entry: ()  # what else an entry accounts for


RECORDS: Mapping[str, Record] = MappingProxyType(
    {
        "perturbation_fields": Record(
            "pf.pp.setup_perturbation",
            "an earlier registration",
            {"": _mapping("perturbation_key", "vocabulary")},
            lambda key, entry: [("obsm", "perturbation_doses")],
        ),
        "dynamics_fields": Record(
            "pf.pp.setup_dynamics",
            "an earlier registration",
            {"": _mapping("separator", "regulators", "has_prior")},
            lambda key, entry: [("varp", "dynamics_prior")] if entry.get("has_prior") else [],
        ),
        "bin_pseudotime": Record(
            "pf.pp.bin_pseudotime", "an earlier record of bins", {"": _mapping("time_offset", "time_scale", "n_bins")}
        ),
        "perturbation_feature_table": Record(
            "pf.pp.perturbation_features",
            "earlier features",
            {"": lambda entry: _table()(entry) and [*entry] == [f"feature_{k + 1}" for k in range(entry.shape[1])]},
        ),
        "split": Record(
            "pf.pp.split_perturbations",
            "an earlier split",
            {"": _mapping("task", "held_out")},
            lambda key, entry: [("obs", key)],
        ),
        "lineage": Record("pf.pp.assign_lineages", "absent", {}),
        "flow": Record("pf.tl.fit_flow", "an earlier flow", {"": _is_flow}),
        "predicted": Record(
            "pf.tl.predict_perturbation",
            "an earlier prediction",
            {"": _mapping("perturbations", "obsm", "params")},
            lambda key, entry: [*(("obsm", str(name)) for name in entry["obsm"]), ("varm", f"{key}_sd")],
        ),
        "evaluation": Record(
            "pf.tl.evaluate",
            "an earlier evaluation",
            {
                "": _table("split", "perturbation", "model", "metric", "value", "n_cells"),
                "_summary": _table("split", "model", "metric", "mean", "best_baseline"),
                "_verdicts": _table_or_empty("verdict"),
                "_params": _mapping("metrics", "left_out", "report"),
            },
        ),
        "dose_response": Record(
            "pf.tl.dose_response",
            "earlier curves",
            {
                "": _table("perturbation", "source", "ec50", "status"),
                "_points": _table("perturbation", "dose", "effect", "sd"),
                "_curves": _table("perturbation", "dose", "effect", "lower"),
                "_combinations": _table_or_empty("bliss_excess"),
                "_params": _mapping("level", "readout"),
            },
        ),
        "interaction_scores": Record(
            "pf.tl.interaction_scores",
            "earlier scores",
            {"": _table("perturbation", "source", "coefficient_1", "class"), "_params": _mapping("level", "min_cells")},
            lambda key, entry: [("varm", f"{key}{suffix}") for suffix in ("", "_sd", "_measured", "_measured_sd")],
        ),
        "next_perturbations": Record(
            "pf.tl.next_perturbations",
            "an earlier choice",
            {"": _table("perturbation", "reduction", "cumulative_share"), "_params": _mapping("n_cells", "variance")},
        ),
        "response_parts": Record(
            "pf.tl.explain_response",
            "an earlier explanation",
            {
                "": _table("perturbation", "total", "template", "interaction", "reliability"),
                "_summary": _table("part", "share_of_effect"),
            },
        ),
        "ranked_perturbations": Record(
            "pf.tl.rank_perturbations",
            "an earlier ranking",
            {"": _table("perturbation", "score", "sd"), "_params": _mapping("metric", "level", "distance")},
        ),
        "dynamics": Record(
            "pf.tl.fit_dynamics", "earlier dynamics", {"": lambda entry: _is_course(entry) or is_standing(entry)}
        ),
        "dynamics_graph": Record("pf.tl.infer_graph", "an earlier graph", {"": _mapping("edges", "method")}, _of_graph),
        "forecast": Record("pf.tl.forecast", "an earlier forecast", {"": _mapping("values", "observed_until")}),
        "knockout": Record(
            "pf.tl.simulate_knockout", "an earlier response", {"": _mapping("unperturbed", "perturbed")}
        ),
    }
)
"""All kinds of records by their default key."""

# Entries of other names or of other packages, which something reads by name.
_READ_BY = {
    **dict.fromkeys(("perturbation_doses", "dynamics_prior"), "perturbflow"),
    **dict.fromkeys(("log1p", "hvg", "pca", "neighbors", "umap", "rank_genes_groups"), "scanpy"),
}


def is_record(entry: object, kind: str) -> bool:
    """Return whether an entry of ``uns`` is a record of a kind."""
    return RECORDS[kind].tests[""](entry)


def read_record(adata: AnnData, key: str, kind: str, *, what: str, hint: str) -> Any:
    """Return a record of a kind, ``what`` in words; KeyError if there is none, ValueError if it is something else."""
    check_key(key, adata.uns, where="adata.uns", hint=hint)
    if not is_record(adata.uns[key], kind):
        msg = f"Expected {what} in `adata.uns[{key!r}]`, found {type(adata.uns[key]).__name__}. {hint}"
        raise ValueError(msg)
    return adata.uns[key]


def check_name(key: str, kind: str, *, name: str = "key_added") -> None:
    """Raise unless a key is a name that AnnData can have and that nothing else reads by default."""
    check_text(key, name=name)
    check_no_slash([key], what=f"`{name}`", hint="Choose another name.")
    reader = _READ_BY.get(key, RECORDS[key].writer if key in RECORDS and RECORDS[key].tests and key != kind else None)
    if reader is not None:
        msg = (
            f"Expected `{name}` to be an unused key, found {key!r}, which is reserved for {reader}. Choose another "
            f"`{name}`."
        )
        raise ValueError(msg)


def check_key_added(adata: AnnData, key: str, kind: str, *, beside: Collection[Place] = ()) -> None:
    """Raise, before any work, if a function would replace something else than an earlier result of its own.

    ``kind`` is one of ``RECORDS``; ``beside`` is what will be written elsewhere than under the key in ``uns``.
    """
    check_name(key, kind)
    if taken := _taken(adata, key, kind, beside):
        found = f"found {key!r} with other content in {_listing(taken)}"
        msg = f"Expected `key_added` to be free or {RECORDS[kind].what}, {found}. {_ADVICE}"
        raise ValueError(msg)


def check_registration(adata: AnnData, kind: str, *, beside: Collection[Place] = ()) -> None:
    """Raise if fields would be registered where something else is."""
    if taken := _taken(adata, kind, kind, beside):
        msg = (
            f"Expected {_listing([('uns', kind), *beside])} to be free or {RECORDS[kind].what}, found other content in "
            f"{_listing(taken)}. Rename or delete it."
        )
        raise ValueError(msg)


def remove_earlier(adata: AnnData, key: str, kind: str) -> None:
    """Remove what an earlier result under a key has written beside ``uns``."""
    for attribute, name in _own(adata, key, kind):
        if attribute != "uns" and name in getattr(adata, attribute):
            del getattr(adata, attribute)[name]


def _own(adata: AnnData, key: str, kind: str) -> set[Place]:
    """Return what an earlier result has written."""
    record = RECORDS[kind]
    names = {f"{key}{suffix}": test for suffix, test in record.tests.items()}
    own = {("uns", name) for name, test in names.items() if name in adata.uns and test(adata.uns[name])}
    return own | {*record.beside(key, adata.uns[key])} if ("uns", key) in own else own


def _taken(adata: AnnData, key: str, kind: str, beside: Collection[Place]) -> list[Place]:
    """Return what would be replaced and is not of an earlier result."""
    wanted = [*(("uns", f"{key}{suffix}") for suffix in RECORDS[kind].tests), *beside]
    own = _own(adata, key, kind)
    return [place for place in wanted if place[1] in getattr(adata, place[0]) and place not in own]


def _listing(places: Collection[Place], *, limit: int = 3) -> str:
    named = [f"`adata.{attribute}[{name!r}]`" for attribute, name in places]
    more = [f"{len(named) - limit} more"] if len(named) > limit else []
    return " and ".join([*named[:limit], *more])
