"""How a perturbation is written: components, separator, doses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


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
        A number, which counts for every component, or a string with one number a component, in the order of the label.
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
        msg = f"Expected one value, or one for each of {n_components} components, found {len(values)} in {what}."
        raise ValueError(msg)
    return values


def dose_values(dose: object, *, separator: str) -> tuple[float, ...]:
    """Numbers in a dose."""
    texts: Sequence[object] = dose.split(separator) if isinstance(dose, str) else [dose]
    try:
        values = tuple(_as_dose(text) for text in texts)
    except ValueError:
        if len(texts) == 1:
            raise
        values = (_as_dose(dose),)  # the separator may belong to the number, as in "1e+05"
    return values


def _as_dose(text: object) -> float:
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = np.nan
    with np.errstate(over="ignore", under="ignore"):
        stored = np.float32(value)
    if isinstance(text, bool | np.bool_) or not np.isfinite(stored) or value < 0 or (value > 0 and stored == 0):
        msg = (
            f"Expected a dose to be a finite number of at least 0 (or one a component, as in '1+0.5'), found {text!r}."
        )
        raise ValueError(msg)
    return value
