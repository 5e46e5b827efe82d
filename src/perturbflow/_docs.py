"""Docstrings that share text: what a parameter means is said once for all functions of a room."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Documented = TypeVar("Documented", bound=Callable[..., Any])


def shares(parameters: Mapping[str, str], *, returns: str = "", raises: str = "") -> Callable[[Documented], Documented]:
    """Complete a numpydoc docstring with what several functions have in common: parameters by name, returns, raises."""

    def decorate(function: Documented) -> Documented:
        if function.__doc__ is None:  # python -OO
            return function
        head, *parts = re.split(r"^(\w+)\n-{3,}\n", inspect.cleandoc(function.__doc__), flags=re.MULTILINE)
        sections = {title: text.strip("\n") for title, text in zip(parts[::2], parts[1::2], strict=True)}
        order = list(inspect.signature(function).parameters)
        own = re.split(r"^(?=\S)", sections.pop("Parameters", ""), flags=re.MULTILINE)
        entries = {order.index(re.split(r"[,\n]", entry)[0].lstrip("*")): entry.rstrip() for entry in own if entry}
        described = {name for entry in entries.values() for name in entry.split("\n")[0].split(", ")}
        for place, name in enumerate(order):
            if name in parameters and name not in described:
                entries[place] = f"{name}\n    " + parameters[name].replace("\n", "\n    ")
        parts_before = {"Parameters": "\n".join(entries[place] for place in sorted(entries))}
        for title, text in (("Returns", returns), ("Raises", raises)):
            if found := sections.pop(title, text):
                parts_before[title] = found
        sections = parts_before | sections
        function.__doc__ = "\n\n".join(
            [head.strip(), *(f"{title}\n{'-' * len(title)}\n{text}" for title, text in sections.items())]
        )
        return function

    return decorate
