"""Common parts of all stored fits: a format, a checksum, and how they are read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from perturbflow.store._stored_checks import CHECKSUM, Damage, check_unchanged, checksum, reading

FORMAT = "format"

Fit = TypeVar("Fit")


@dataclass(frozen=True)
class Entry:
    """A kind of fit as nested dictionaries of arrays and plain values, which h5ad and zarr can hold."""

    what: str  # how messages call it, such as "a fitted flow"
    format: int  # others are not read
    names: frozenset[str]  # what is in it, besides the format and the checksum
    advice: str  # what to do with one that cannot be read
    optional: frozenset[str] = frozenset()  # what may be in it as well
    may_change: tuple[str, ...] = ()  # paths that the checksum leaves out

    def sealed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values with the format and their checksum."""
        sealed = {FORMAT: self.format, **values}
        return sealed | {CHECKSUM: checksum(sealed, without=self.may_change)}

    def opened(
        self,
        values: Mapping[str, Any],
        *,
        where: str,
        check: Callable[[Mapping[str, Any]], object],
        build: Callable[[Mapping[str, Any]], Fit],
    ) -> Fit:
        """Rebuild a fit from what :meth:`sealed` gave, also after a file has turned lists into arrays.

        ``check`` raises if the values are none of a fit, before ``build`` makes anything of the sizes that they claim.
        Raises ValueError if it is of another format, incomplete, has values that a fit does not have, or was changed.
        """
        with reading(self.what, where=where, advice=self.advice):
            found = _whole_number(values[FORMAT])
        if found != self.format:
            is_later = found > self.format
            msg = (
                f"Expected {self.what} of format {self.format} in {where}, found {found} from "
                f"{'a later' if is_later else 'an earlier'} version. "
                f"{'Update perturbflow.' if is_later else self.advice}"
            )
            raise ValueError(msg)
        with reading(self.what, where=where, advice=self.advice):
            self._check_names(values)
            check(values)
            check_unchanged(values, without=self.may_change)
            return build(values)

    def _check_names(self, values: Mapping[str, Any]) -> None:
        if missing := sorted(self.names - values.keys()):
            raise KeyError(missing[0])
        unknown = sorted(map(str, values.keys() - self.names - self.optional - {FORMAT, CHECKSUM}))
        if unknown:
            msg = f"unknown entries, {unknown}"
            raise Damage(msg)


def _whole_number(value: Any) -> int:
    array = np.asarray(value)
    if array.shape or array.dtype.kind not in "iu":
        msg = f"a format that is not a whole number, {value!r}"
        raise Damage(msg)
    return int(array)
