"""How a perturbation is written: components, separator, doses."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


def parse_label(label: str, *, control: str, separator: str) -> tuple[str, ...]:
    """Split a label into its components.

    Parameters
    ----------
    label
        Label of a cell, such as ``"SET+KLF1"``; spaces around the components do not count.
    control
        Label of control cells. It is no component: ``"KLF1+control"`` is ``"KLF1"``.
    separator
        What stands between components.

    Returns
    -------
    The components in the order of the label, none for control cells.

    Raises
    ------
    ValueError
        If a component is named twice.

    Examples
    --------
    >>> parse_label("SET+KLF1", control="control", separator="+")
    ('SET', 'KLF1')
    """
    components = tuple(part for part in label_parts(label, control=control, separator=separator) if part != control)
    if len(set(components)) < len(components):
        msg = f"Expected every component once in a perturbation, found {label!r}. Give it a higher dose instead."
        raise ValueError(msg)
    return components


def canonical_label(components: Iterable[str], *, control: str, separator: str) -> str:
    """Join components in alphabetical order, so that a combination has one label.

    Examples
    --------
    >>> canonical_label(["SET", "KLF1"], control="control", separator="+")
    'KLF1+SET'
    """
    return separator.join(sorted(components)) or control


def parse_dose(dose: object, n_components: int, *, separator: str = "+") -> tuple[float, ...]:
    """Read the doses of the components of a label.

    Parameters
    ----------
    dose
        A number, which counts for every component, or one number a component in the order of the label: as a string
        or as a list.
    n_components
        Number of components of the label.
    separator
        What stands between the numbers.

    Returns
    -------
    One dose a component.

    Raises
    ------
    ValueError
        If this is no number, negative, not finite, too large or too small for single precision, or if there are more
        or fewer numbers than components.

    Examples
    --------
    >>> parse_dose("1+0.5", 2)
    (1.0, 0.5)
    >>> parse_dose([1, 0.5], 2)
    (1.0, 0.5)
    >>> parse_dose(0.1, 2)
    (0.1, 0.1)
    """
    return one_each(dose_values(dose, separator=separator), n_components, what=f"dose {dose!r}")


def label_parts(label: str, *, control: str, separator: str) -> list[str]:
    """Non-empty parts of a label, the control among them."""
    if label.strip() == control:  # which may itself contain the separator
        return [control]
    return [part for part in map(str.strip, label.split(separator)) if part]


def one_each(values: tuple[Any, ...], n_components: int, *, what: str) -> tuple[Any, ...]:
    if len(values) == 1:
        return values * n_components
    if len(values) != n_components:
        msg = (
            f"Expected one value, or one for each of {n_components} components, found {len(values)} in {what}. "
            "Give as many as there are components, in the order of the label."
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
            "Expected a dose to be a finite number of at least 0 (or one a component, as in "
            f"'1{separator}0.5' or [1, 0.5]), found {dose!r}. {_advice(part, dose, separator=separator)}"
        )
        raise ValueError(msg)
    return value


def _advice(part: object, dose: object, *, separator: str) -> str:
    """Say how to write a dose that cannot be read."""
    text = part if isinstance(part, str) else ""
    if re.fullmatch(rf"\s*{_NUMBER}\s*(?:[^\W\d_]|%).*", text):
        return (
            "Give numbers without units, all in the same unit: convert them, or take the unit off with "
            "`.str.extract(r'([0-9.eE+-]+)', expand=False).astype(float)` where all have the same."
        )
    if re.fullmatch(r"\s*\d+(,\d+)+\s*", text):
        return (
            f"Write a point before decimals and nothing between thousands, and {separator!r} between the doses of "
            "components."
        )
    if isinstance(dose, str) and len(re.findall(_NUMBER, dose)) > 1:
        return f"Write {separator!r} between the doses of components, or give a list of numbers."
    return "Give a number; doses of control cells do not count."
