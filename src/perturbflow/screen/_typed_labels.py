"""Labels that a user types in an argument: which of the labels that are there is meant, and where a message puts them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from perturbflow._checks import nearest

if TYPE_CHECKING:
    from perturbflow.screen._conditions import Vocabulary


def place(argument: str, context: Mapping[str, str] | None = None) -> str:
    """Say in which argument, and for which context, a label was typed.

    Examples
    --------
    >>> place("candidates", {"cell_type": "B"})
    " in `candidates` for cell_type='B'"
    """
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
    """Return the option that a typed label stands for, whatever the order of its components, with or without types.

    Raises ValueError if it stands for none, or for several of different types; the message names the ``argument``,
    ``what`` the options are, and the ``context`` that was typed beside it.
    """
    readings = vocabulary.readings(label)
    found = [reading for reading in readings if reading in options]
    if len(found) == 1:
        return found[0]
    where = place(argument, context)
    if found:
        msg = f"Expected a perturbation of one type, found {label!r}{where}, which is any of {found}. Name one of them."
        raise ValueError(msg)
    if not readings:
        vocabulary.canonical(label, where=where)  # says which component is unknown
    shown = readings[0] if len(readings) == 1 else label
    here = where.removeprefix(place(argument))
    msg = f"Expected `{argument}` to name {what}{here}, found {shown!r}. The nearest: {nearest(shown, options, n=5)}."
    raise ValueError(msg)
