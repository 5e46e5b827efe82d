"""The components and covariates that have a number, and how labels, doses and types become numbers."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._checks import check_key, check_none, listing, nearest
from perturbflow.screen._labels import (
    as_tuple,
    canonical_label,
    dose_text,
    dose_values,
    hashable_dose,
    label_parts,
    one_each,
    parse_dose,
    parse_label,
)

__all__ = ["Vocabulary", "canonical_label", "parse_dose", "parse_label"]

TYPE_MARK = ":"  # between a perturbation and its type, as in "MAPK1:CRISPRa"


@dataclass(frozen=True)
class Vocabulary:
    """The perturbation components and covariates that have a number."""

    components: tuple[str, ...]  # in alphabetical order: "KLF1", or "KLF1:CRISPRa" where a perturbation has a type
    covariates: tuple[tuple[str, tuple[str, ...]], ...] = ()  # and categories of each, whose places are their codes
    control: str = "control"  # label of control cells
    separator: str = "+"  # what stands between the components of a label
    has_types: bool = False  # whether components name the type of the perturbation
    other_controls: tuple[str, ...] = ()  # further labels of control cells, which all stand for `control`

    @property
    def controls(self) -> tuple[str, ...]:
        """All labels of control cells."""
        return (self.control, *self.other_controls)

    @classmethod
    def from_labels(
        cls,
        labels: Iterable[str],
        *,
        control: str | Sequence[str],
        separator: str,
        types: Iterable[str] | None = None,
        covariates: Mapping[str, Iterable[str]] | None = None,
    ) -> Self:
        """Collect the components of labels, with types where there are types, and the categories of covariates."""
        first, *others = as_tuple(control)
        empty = cls((), control=first, separator=separator, has_types=types is not None, other_controls=tuple(others))
        pairs = {(label, None) for label in labels} if types is None else set(zip(labels, types, strict=True))
        components = {token for label, kind in pairs for token in empty._tokens(label, kind, known=False)}
        categories = tuple((key, tuple(sorted(set(map(str, values))))) for key, values in (covariates or {}).items())
        return replace(empty, components=tuple(sorted(components)), covariates=categories)

    def encode_perturbations(
        self, labels: Iterable[str], doses: Iterable[object] | None = None, types: Iterable[str] | None = None
    ) -> sparse.csr_matrix:
        """Dose of every component in every cell, by default 1: CSR (n, P) of float32; no dose is a control."""
        rows, codes = self.encode_distinct(labels, doses, types)
        return rows[codes]

    def encode_distinct(
        self, labels: Iterable[str], doses: Iterable[object] | None = None, types: Iterable[str] | None = None
    ) -> tuple[sparse.csr_matrix, NDArray[np.intp]]:
        """Encode every distinct label, dose and type once: rows (m, P), and the number of that of every cell (n,)."""
        labels = list(labels)
        n_cells = len(labels)
        every_dose = [1.0] * n_cells if doses is None else doses
        every_type = [None] * n_cells if types is None else types
        keys = zip(labels, every_dose, every_type, strict=True)
        places: dict[tuple[str, Hashable, str | None], int] = {}
        controls: dict[str, bool] = {}
        codes = np.empty(len(labels), dtype=np.intp)
        for cell, (label, dose, kind) in enumerate(keys):
            if label not in controls:
                controls[label] = not self._components(label)
            key = (self.control, None, None) if controls[label] else (label, hashable_dose(dose), kind)
            codes[cell] = places.setdefault(key, len(places))

        number = {token: column for column, token in enumerate(self.components)}
        encoded = [self._encode(*key) for key in places]
        indptr = np.cumsum([0, *map(len, encoded)])
        indices = [number[token] for row in encoded for token in row]
        data = np.array([dose for row in encoded for dose in row.values()], dtype=np.float32)
        rows = sparse.csr_matrix((data, indices, indptr), shape=(len(encoded), len(self.components)))
        rows.eliminate_zeros()
        rows.sort_indices()
        return rows, codes

    def named(self, codes: Iterable[int]) -> dict[str, str]:
        """Values of the covariates with these codes, by key."""
        return {key: known[code] for (key, known), code in zip(self.covariates, codes, strict=True)}

    def with_categories(self, columns: Mapping[str, Iterable[object]]) -> Self:
        """Add categories of covariates that are not known yet, behind those that are, whose codes stay."""
        covariates = []
        for key, categories in self.covariates:
            new = set(map(str, columns.get(key, ()))) - set(categories)
            covariates.append((key, categories + tuple(sorted(new))))
        return replace(self, covariates=tuple(covariates))

    def encode_covariates(self, columns: Mapping[str, Iterable[object]], *, n_cells: int) -> NDArray[np.int64]:
        """Codes of covariates (n, K); KeyError if one is missing, ValueError if a category is unknown."""
        codes = np.zeros((n_cells, len(self.covariates)), dtype=np.int64)
        for column, (key, categories) in enumerate(self.covariates):
            check_key(key, columns, where="covariates")
            values, inverse = np.unique([str(value) for value in columns[key]], return_inverse=True)
            unknown = sorted(set(values.tolist()) - set(categories))
            if unknown:
                msg = f"Expected {key!r} to be one of {listing(categories)}, found {listing(unknown)}."
                raise ValueError(msg)
            codes[:, column] = np.array([categories.index(value) for value in values.tolist()], dtype=np.int64)[inverse]
        return codes

    def canonical(self, label: str, *, perturbation_type: str | None = None, where: str = "") -> str:
        """Return the one label of a perturbation, with types; ValueError if it is unknown, or several."""
        tokens = self._tokens(label, perturbation_type, where=where)
        return canonical_label(tokens, control=self.control, separator=self.separator)

    def known(self, label: str, kind: str | None = None) -> str | None:
        """Return the one label of a perturbation, of a type where it is given; None where it is not known."""
        try:
            return self.canonical(label, perturbation_type=kind or None)
        except ValueError:
            return None

    def readings(self, label: str) -> tuple[str, ...]:
        """Return every known perturbation that a label may stand for: several where types are left out."""
        try:
            variants = [self._variants(name) for name in self._components(label)]
        except ValueError:
            return ()
        return tuple(
            canonical_label(tokens, control=self.control, separator=self.separator)
            for tokens in itertools.product(*variants)
        )

    def written(self, label: str) -> str:
        """Return a label as it is written here, its components known or not; text that cannot be read as it is."""
        try:
            return canonical_label(self._components(label), control=self.control, separator=self.separator)
        except ValueError:
            return label

    def label(self, doses: NDArray[np.floating]) -> str:
        """Canonical label of one row of doses (P,)."""
        tokens = [self.components[column] for column in np.flatnonzero(doses)]
        return canonical_label(tokens, control=self.control, separator=self.separator)

    def dose_label(self, doses: NDArray[np.floating]) -> str:
        """Doses of one row (P,) in the order of the canonical label, such as "1+0.5"; "0" for control cells."""
        return self.separator.join(dose_text(dose) for dose in np.asarray(doses)[np.flatnonzero(doses)]) or "0"

    def nearest(self, label: str, n: int = 3) -> list[str]:
        """Return the n known components and labels of control cells that are most similar to a label."""
        return nearest(label, [*self.components, *self.controls], n=n)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and strings, for AnnData and JSON; :meth:`from_dict` reads them."""
        return {
            "components": list(self.components),
            "covariate_keys": [key for key, _ in self.covariates],
            "categories": {key: list(categories) for key, categories in self.covariates},
            "control": self.control,
            "separator": self.separator,
            "has_types": self.has_types,
            **({"other_controls": list(self.other_controls)} if self.other_controls else {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote, also after a file has turned lists into arrays."""
        keys = [str(key) for key in values["covariate_keys"]]
        return cls(
            components=tuple(map(str, values["components"])),
            covariates=tuple((key, tuple(map(str, values["categories"][key]))) for key in keys),
            control=str(values["control"]),
            separator=str(values["separator"]),
            has_types=bool(values["has_types"]),
            other_controls=tuple(map(str, values.get("other_controls", ()))),
        )

    def _components(self, label: str) -> tuple[str, ...]:
        return parse_label(label, control=self.controls, separator=self.separator)

    def _encode(self, label: str, dose: object, kind: str | None) -> dict[str, float]:
        """Dose of every component of one label."""
        tokens = self._tokens(label, kind)
        if not tokens:  # whatever is written there
            return {}
        doses = self._align(dose_values(dose, separator=self.separator), label, what=f"dose {dose!r} of {label!r}")
        return dict(zip(tokens, doses, strict=True))

    def _tokens(self, label: str, kind: str | None, *, known: bool = True, where: str = "") -> tuple[str, ...]:
        """Components of a label with their types; ``known``: only those of this vocabulary."""
        names = self._components(label)
        if not names:
            return ()
        if kind is None:
            return tuple(self._resolve(name, where=where) if known else name for name in names)
        kinds = self._align(tuple(kind.split(self.separator)), label, what=f"type {kind!r} of {label!r}")
        # A name that is a component already says its type, as in cells that were predicted.
        tokens = tuple(
            name if name in self.components else f"{name}{TYPE_MARK}{part.strip()}"
            for name, part in zip(names, kinds, strict=True)
        )
        if not known:
            wrong = [token for token in tokens if token.count(TYPE_MARK) > 1 or token.endswith(TYPE_MARK)]
            expected = f"non-empty perturbations and types without {TYPE_MARK!r}, which joins the two"
            check_none(wrong, expected, hint="Rename them.")
            return tokens
        return tuple(self._resolve(token, where=where) for token in tokens)

    def _variants(self, name: str) -> list[str]:
        """Components that a name may stand for: that of its full name, or those of all its types."""
        if name in self.components:
            return [name]
        return [token for token in self.components if self.has_types and token.startswith(f"{name}{TYPE_MARK}")]

    def _resolve(self, name: str, *, where: str = "") -> str:
        """Find a component by its full name, or by its name without the type where there is only one."""
        variants = self._variants(name)
        if len(variants) == 1:
            return variants[0]
        if variants:
            msg = f"Expected a perturbation of one type, found {name!r}{where}, which could be any of {variants}. Pass one of them."
            raise ValueError(msg)
        msg = (
            f"Expected a known perturbation, found {name!r}{where}. "
            f"The most similar of {len(self.components)} known ones are {self.nearest(name)}."
        )
        raise ValueError(msg)

    def _align(self, values: tuple[Any, ...], label: str, *, what: str) -> tuple[Any, ...]:
        """One value a component; there may also be one for the control in "KLF1+control"."""
        parts = label_parts(label, control=self.controls, separator=self.separator)
        is_component = [part not in self.controls for part in parts]
        if len(values) == len(parts) and not all(is_component):
            return tuple(value for value, keep in zip(values, is_component, strict=True) if keep)
        return one_each(values, sum(is_component), what=what)


def place(argument: str, context: Mapping[str, str] | None = None) -> str:
    """Say in which argument, and for which context, a label was typed: " in `candidates` for cell_type='B'"."""
    values = ", ".join(f"{name}={value!r}" for name, value in (context or {}).items())
    return f" in `{argument}`" + (f" for {values}" if values else "")


def typed_label(
    vocabulary: Vocabulary,
    label: str,
    options: Collection[str],
    *,
    argument: str,
    what: str,
    context: Mapping[str, str] | None = None,
) -> str:
    """Return the option that a typed label stands for; ValueError if it is none, or any of several types."""
    readings = vocabulary.readings(label)
    found = [reading for reading in readings if reading in options]
    if len(found) == 1:
        return found[0]
    where = place(argument, context)
    if found:
        msg = f"Expected a perturbation of one type, found {label!r}{where}, which could be any of {found}. Pass one of them."
        raise ValueError(msg)
    if not readings:
        vocabulary.canonical(label, where=where)  # says which component is unknown
    shown = readings[0] if len(readings) == 1 else label
    here = where.removeprefix(place(argument))
    msg = f"Expected `{argument}` to name {what}{here}, found {shown!r}. The most similar are {nearest(shown, options, n=5)}."
    raise ValueError(msg)
