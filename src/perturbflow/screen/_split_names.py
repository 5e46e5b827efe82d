"""Names of the parts of a split: training, validation and test, here and elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from perturbflow._checks import check_one_of, check_type, listing

logger = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")

# What others call them, in lower case and without spaces, "_" and "-".
_SYNONYMS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev", "development"), "valid"),
    **dict.fromkeys(("test", "testing", "ood", "outofdistribution", "holdout", "heldout"), "test"),
}


def split_named(name: Any) -> Any:
    """Return "train", "valid" or "test" for what others call them ("val", "OOD"), and anything else as it is.

    Examples
    --------
    >>> split_named("Held-out"), split_named("fold 1")
    ('test', 'fold 1')
    """
    if not isinstance(name, str):
        return name
    return _SYNONYMS.get("".join(mark for mark in name.casefold() if mark not in " _-"), name)


def split_meanings(names: Mapping[str, Any], *, where: str) -> dict[str, str]:
    """Return which split every name in a column stands for; what others call them is understood, and logged.

    ``names`` has the values that they are the text of. Raises ValueError if a name stands for no split.
    """
    meaning = {name: split_named(name) for name in sorted(names)}
    wrong = [name for name, split in meaning.items() if split not in SPLITS]
    if wrong:
        pairs = ", ".join(f"{names[name]!r}: ..." for name in list(meaning)[:5])
        msg = (
            f"Expected 'train', 'valid' or 'test' in `{where}`, found {listing(wrong)}. Say which is which, for example "
            f"with `{where} = {where}.map({{{pairs}}})`, or name another column."
        )
        raise ValueError(msg)
    renamed = {name: split for name, split in meaning.items() if split != name}
    if renamed:
        logger.warning("The names in `%s`, which stays as it is, are read as %s.", where, renamed)
    return meaning


def split_names(splits: str | Iterable[str], *, name: str = "splits") -> list[str]:
    """Read the names of one split or several, each once, in the order given.

    Examples
    --------
    >>> split_names("val"), split_names(("ood", "train", "test"))
    (['valid'], ['test', 'train'])
    """
    expected = "the name of a split, or a list of names"
    check_type(splits, Iterable, name=name, expected=expected)
    entries = [splits] if isinstance(splits, str) else list(splits)
    for entry in entries:
        check_type(entry, str, name=name, expected=expected)
        check_one_of(split_named(entry), SPLITS, name=name)
    if not entries:
        msg = f"Expected at least one split in `{name}`, found none. Name some of {list(SPLITS)}."
        raise ValueError(msg)
    return list(dict.fromkeys(map(split_named, entries)))
