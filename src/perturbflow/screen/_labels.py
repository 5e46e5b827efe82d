"""Labels of perturbations: components, separator, doses."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from perturbflow._checks import listing

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"

_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"))


def parse_label(label: str, *, control: str | Sequence[str], separator: str) -> tuple[str, ...]:
    """Split a label into its components; controls, which may contain the separator, are none."""
    parts = label_parts(label, control=control, separator=separator)
    check_parts({label: parts}, control=control, separator=separator)
    controls = as_tuple(control)
    return tuple(part for part in parts if part not in controls)


def canonical_label(components: Iterable[str], *, control: str, separator: str) -> str:
    """Join components in alphabetical order, so that a combination has one label."""
    return separator.join(sorted(components)) or control


def parse_dose(dose: object, n_components: int, *, separator: str = "+") -> tuple[float, ...]:
    """Read the doses of the components of a label: one number for all, or one each, as in "1+0.5" or [1, 0.5]."""
    return one_each(dose_values(dose, separator=separator), n_components, what=f"dose {dose!r}")


def label_parts(label: str, *, control: str | Sequence[str], separator: str) -> list[str]:
    """Parts of a label, whatever they are, the controls among them."""
    controls = _controls_by_first_piece(as_tuple(control), separator)
    pieces = _pieces(label, separator)
    parts = []
    while pieces:
        here = (name for name, own in controls.get(pieces[0], ()) if pieces[: len(own)] == own)
        part = next(here, pieces[0])
        parts.append(part)
        pieces = pieces[1 if part == pieces[0] else len(_pieces(part, separator)) :]
    return parts


def check_parts(
    parts: Mapping[str, Sequence[str]], *, control: str | Sequence[str], separator: str, where: str = ""
) -> None:
    """Raise if the parts of labels, see :func:`label_parts`, are no components; ``where`` is where the labels are."""
    controls = as_tuple(control)
    blind = {label: each for label, each in parts.items() if not all(each) or not _keeps_brackets(each, controls)}
    if blind:
        free = [mark for mark in "|&;~^" if mark != separator and not any(mark in label for label in parts)]
        example = f", such as {free[0]!r}" if free else ""
        msg = (
            f"Expected non-empty components joined by {separator!r}{where}, with closed brackets, found "
            f"{readings(blind)}. If {separator!r} does not join components, choose a `separator` that no label "
            f"contains{example}; otherwise rename these labels."
        )
        raise ValueError(msg)
    components = {label: [part for part in each if part not in controls] for label, each in parts.items()}
    twice = [label for label, each in components.items() if len(set(each)) < len(each)]
    if twice:
        found = repr(twice[0]) if len(twice) == 1 else listing(twice)
        msg = f"Expected every component once in a perturbation, found {found}. Give it a higher dose instead."
        raise ValueError(msg)


def as_tuple(control: str | Sequence[str]) -> tuple[str, ...]:
    """One label of control cells, or several, as several."""
    return (control,) if isinstance(control, str) else tuple(control)


def readings(parts: Mapping[str, Sequence[str]], *, limit: int = 10) -> str:
    """Return how messages say what labels were read as: ``'A+B' as ['A', 'B'] and 7 more``."""
    shown = ", ".join(f"{label!r} as {list(each)}" for label, each in list(parts.items())[:limit])
    return f"{shown} and {len(parts) - limit} more" if len(parts) > limit else shown


def naming(controls: Sequence[str]) -> str:
    """Return how messages name the controls."""
    return repr(controls[0]) if len(controls) == 1 else f"any of {listing(controls)}"


@lru_cache(maxsize=8)
def _controls_by_first_piece(controls: tuple[str, ...], separator: str) -> dict[str, list[tuple[str, list[str]]]]:
    """Controls with their pieces, the longest first: there may be hundreds, as many as guides without a target."""
    found: dict[str, list[tuple[str, list[str]]]] = {}
    for name in controls:
        own = _pieces(name, separator)
        found.setdefault(own[0], []).append((name, own))
    return {first: sorted(named, key=lambda item: -len(item[1])) for first, named in found.items()}


def _pieces(text: str, separator: str) -> list[str]:
    """Text between separators, without the spaces around it."""
    text = text if separator.strip() else text.strip()  # where spaces separate, those at the ends do not
    return [piece.strip() for piece in text.split(separator)]


def _keeps_brackets(parts: Sequence[str], controls: Sequence[str]) -> bool:
    """Return whether every bracket closes within its part; a label of one part may have any."""
    return len(parts) == 1 or all(part in controls or _is_balanced(part) for part in parts)


def _is_balanced(text: str) -> bool:
    for opening, closing in _BRACKETS:
        depth = 0
        for mark in text:
            depth += (mark == opening) - (mark == closing)
            if depth < 0:
                return False
        if depth:
            return False
    return True


def one_each(values: tuple[Any, ...], n_components: int, *, what: str) -> tuple[Any, ...]:
    if len(values) == 1:
        return values * n_components
    if len(values) != n_components:
        msg = (
            f"Expected one value, or one for each of {n_components} components, found {len(values)} in {what}. "
            "Pass one value per component, in the order of the label."
        )
        raise ValueError(msg)
    return values


def dose_values(dose: object, *, separator: str) -> tuple[float, ...]:
    """Numbers in a dose."""
    dose = hashable_dose(dose)
    parts: Sequence[object] = dose if isinstance(dose, tuple) else (dose,)
    if isinstance(dose, str):  # the separator may belong to a number, as in "1e+05"
        parts = re.split(rf"(?<![\d.][eE]){re.escape(separator)}", dose)
    return tuple(_as_dose(part, dose, separator=separator) for part in parts or (dose,))


def hashable_dose(dose: object) -> Hashable:
    """Turn lists and arrays of doses into tuples, so that equal ones are found."""
    if isinstance(dose, np.ndarray):
        dose = dose.tolist()
    if isinstance(dose, Sequence) and not isinstance(dose, str | bytes):
        return tuple(map(hashable_dose, dose))
    return dose if isinstance(dose, Hashable) else repr(dose)


def dose_text(dose: float) -> str:
    """Write one dose, as in "0.5" or "100"."""
    return np.format_float_positional(np.float32(dose), trim="-")


def _as_dose(part: object, dose: object, *, separator: str) -> float:
    """Read one number of a dose."""
    try:
        value = float(part)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        value = np.nan
    if isinstance(part, str) and "_" in part:  # Python would read "1_0.5" as 10.5
        value = np.nan
    with np.errstate(over="ignore", under="ignore"):
        stored = np.float32(value)
    if isinstance(part, bool | np.bool_) or not np.isfinite(stored) or value < 0 or (value > 0 and stored == 0):
        msg = (
            "Expected a dose to be a finite number of at least 0 (or one per component, as in "
            f"'1{separator}0.5' or [1, 0.5]), found {dose!r}. {_advice(part, dose, separator=separator)}"
        )
        raise ValueError(msg)
    return value


def _advice(part: object, dose: object, *, separator: str) -> str:
    """Say how to write a dose that cannot be read."""
    text = part if isinstance(part, str) else ""
    if re.fullmatch(rf"\s*{_NUMBER}\s*(?:[^\W\d_]|%).*", text):
        return (
            "Use numbers without units, all in the same unit: convert them or, if all have the same unit, remove it with "
            "`.str.extract(r'([0-9.eE+-]+)', expand=False).astype(float)`."
        )
    if re.fullmatch(r"\s*\d+(,\d+)+\s*", text):
        return f"Use a decimal point, no separator for thousands, and {separator!r} between the doses of components."
    if isinstance(dose, str) and len(re.findall(_NUMBER, dose)) > 1:
        return f"Use {separator!r} between the doses of components, or pass a list of numbers."
    return "Use a number; doses of control cells are ignored."
