"""Checks of all labels together: which are controls, which are combinations, and what looks like a slip."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

from perturbflow._checks import check_no_slash, check_none, check_text, check_type, listing, nearest
from perturbflow.screen._conditions import canonical_label
from perturbflow.screen._labels import check_parts, label_parts, readings

logger = logging.getLogger(__name__)

# How missing values read once they are text, as by `astype(str)` or from a file.
MISSING = frozenset(
    {"nan", "NaN", "NAN", "na", "NA", "<NA>", "n/a", "N/A", "#N/A", "NaT", "none", "None", "NONE", "null", "NULL"}
)

# Words that some values are called by, such as a stimulus or a disease.
_WORDS = frozenset({"none", "None", "NONE"})


def control_labels(control: object) -> tuple[str, ...]:
    """Read `control`: one label or several, without the spaces around them, each once, in the order given."""
    is_one = isinstance(control, str | Mapping) or not isinstance(control, Iterable)
    labels: list[Any] = [control] if is_one else list(control)  # type: ignore[call-overload]
    for label in labels:
        check_type(label, str, name="control", expected="a string")
        check_text(label.strip(), name="control")
    if not labels:
        msg = "Expected at least one label of control cells in `control`, found none. Pass the label in `adata.obs`."
        raise ValueError(msg)
    if isinstance(control, Set):
        labels.sort()  # a set has no first
    return tuple(dict.fromkeys(label.strip() for label in labels))


def check_labels(
    labels: Iterable[str], *, controls: Sequence[str], separator: str, key: str
) -> dict[str, tuple[str, ...]]:
    """Read the components of all labels of a column; ValueError for what cannot be read or told apart."""
    if separator in controls:
        msg = (
            f"Expected `separator` to differ from the labels of control cells, found {separator!r} in both. Choose another "
            "`separator`; without combinations, any that no label contains."
        )
        raise ValueError(msg)
    where = f" in `adata.obs[{key!r}]`"
    known = sorted(labels)
    parts = {label: label_parts(label, control=controls, separator=separator) for label in known}
    check_parts(parts, control=controls, separator=separator, where=where)
    missing = [label for label, each in parts.items() if (MISSING - {*controls}).intersection(each)]
    hint = (
        "Fill them in or remove these cells; where this stands for no perturbation, add it to the labels in `control`."
    )
    check_none(missing, f"the names of perturbations{where}", which=", which represent missing values", hint=hint)
    components = {label: tuple(part for part in each if part not in controls) for label, each in parts.items()}

    found = {part for each in parts.values() for part in each}
    absent = [label for label in controls if label not in found]
    if absent or all(components.values()):
        label = (absent or controls)[0]
        msg = (
            f"Expected control cells labelled {label!r}{where}, found the labels {listing(nearest(label, known))}. "
            "Pass the label of the control cells as `control`."
        )
        raise ValueError(msg)
    if not any(components.values()):
        msg = f"Expected perturbed cells{where}, found only control cells."
        raise ValueError(msg)
    rename = f"Rename them, for example with `adata.obs[{key!r}].str.replace('/', '_')`, or use another separator."
    check_no_slash([*controls, separator, *known], what="labels of perturbations", hint=rename)
    _check_canonical(components, controls=controls, separator=separator)
    twins = _twins(found, _shown)
    if twins:
        msg = f"Expected names that can be distinguished{where}, found {ascii(twins[:10])}. Use one name per perturbation."
        raise ValueError(msg)
    return components


def check_values(values: Iterable[str], *, key: str) -> None:
    """Raise ValueError if values of a column of ``obs`` are empty, name missing ones, or look the same as others."""
    where = f"in `adata.obs[{key!r}]`"
    known = sorted(values)
    missing = [value for value in known if not value.strip() or value in MISSING - _WORDS]
    hint = "Fill in the values or remove these cells."
    check_none(missing, f"a value for every cell {where}", which=", which represent missing values", hint=hint)
    twins = _twins(known, _shown)
    if twins:
        msg = f"Expected values that can be distinguished {where}, found {ascii(twins[:10])}. Use one name for each."
        raise ValueError(msg)


def report_labels(components: Mapping[str, Sequence[str]], *, controls: Sequence[str], separator: str) -> None:
    """Say how the labels were read, and point out what looks like a slip."""
    spaced = [label for label in components if label != label.strip()]
    if spaced:
        logger.warning("Spaces around labels are ignored: %s are read without them.", listing(spaced))
    combinations = {label: each for label, each in components.items() if len(each) > 1}
    if combinations:
        logger.info(
            "%d of %d labels were read as combinations, joined by %r: %s.",
            *(len(combinations), len(components), separator, readings(combinations, limit=3)),
        )
    alone = {each[0] for each in components.values() if len(each) == 1}
    unlikely = {label: each for label, each in combinations.items() if not alone.issuperset(each)}
    if unlikely:
        never = sorted({part for each in unlikely.values() for part in each} - alone)
        logger.warning(
            "Some labels were read as combinations with components that occur in no cell alone, %s: %s. If %r is part of "
            "their names, register again with a `separator` that no label contains; if they are control labels, add them to "
            "`control`.",
            *(listing(never), readings(unlikely, limit=3), separator),
        )
    twins = _twins({*controls, *(part for each in components.values() for part in each)}, str.casefold)
    if twins:
        logger.warning(
            "Names that differ only in case are treated as different: %s. Rename them if they are the same.",
            listing(twins),
        )


def _check_canonical(components: Mapping[str, Sequence[str]], *, controls: Sequence[str], separator: str) -> None:
    """Raise if components that are joined in alphabetical order would read as a control."""
    for label, each in components.items():
        joined = canonical_label(each, control=controls[0], separator=separator)
        if each and label_parts(joined, control=controls, separator=separator) != sorted(each):
            msg = (
                f"Expected combinations that differ from control labels, found {label!r}, which in alphabetical order is "
                f"{joined!r}, a control label. Choose another `separator`, or rename it."
            )
            raise ValueError(msg)


def _twins(names: Iterable[str], form: Callable[[str], str]) -> list[tuple[str, ...]]:
    """Names that have one form."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(form(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _shown(name: str) -> str:
    """Return what a reader sees of a name: without invisible characters and differences of encoding, as between two µ."""
    text = unicodedata.normalize("NFKC", name)
    return " ".join("".join(mark for mark in text if unicodedata.category(mark) != "Cf").split())
