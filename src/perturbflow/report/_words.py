"""Numbers, lists and calls formatted for sentences."""

from __future__ import annotations

from collections.abc import Iterable

MOST_NAMES = 5
_ROUNDING = 1e-12


def number(value: float) -> str:
    """Format a number with three significant digits; rounding errors are 0."""
    if abs(value) < _ROUNDING:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def counted(n: int, what: str, *, plural: str | None = None) -> str:
    """Format a count with its noun, for example "1 gene" and "2,000 genes"."""
    return f"{n:,} {what if n == 1 else plural or f'{what}s'}"


def listed(items: Iterable[str], *, most: int = MOST_NAMES) -> str:
    """Join names, of which only the first are shown."""
    names = list(items)
    shown, rest = names[:most], len(names) - most
    if rest > 0:
        return f"{', '.join(shown)} and {rest:,} more"
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else "".join(shown)


def between(low: float, high: float) -> str:
    """Format an interval."""
    return f"95 % interval {number(low)} to {number(high)}"


def call_with(function: str, **arguments: object) -> str:
    """Format a call with ``adata`` and all arguments that are not None."""
    given = "".join(f", {name}={value!r}" for name, value in arguments.items() if value is not None)
    return f"pf.{function}(adata{given})"


def unless(usual: str, **arguments: str) -> dict[str, str]:
    """Return the arguments that differ from the default."""
    return {name: value for name, value in arguments.items() if value != usual}
