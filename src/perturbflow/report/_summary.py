"""A summary in words: what was asked, what was found, what cannot be measured, what to do next."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

_WIDTH = 100
_ASKED, _FOUND, _NOT_MEASURABLE = "What was asked", "What was found", "What cannot be measured"
_NEXT = "What to do next"


class Step(NamedTuple):
    """Something to do next: why, and the call that does it."""

    reason: str
    call: str


@dataclass(frozen=True, eq=False)
class Findings:
    """Answers about one half of the package: sentences, steps, and the tables behind them by title.

    ``headline`` is the title of the table that stands beside the sentences; empty for none.
    """

    asked: tuple[str, ...]
    found: tuple[str, ...]
    not_measurable: tuple[str, ...]
    next_steps: tuple[Step, ...]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=lambda: MappingProxyType({}))
    headline: str = ""

    def sections(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the titles of the sections of sentences that have any."""
        named = {_ASKED: self.asked, _FOUND: self.found, _NOT_MEASURABLE: self.not_measurable}
        yield from ((title, sentences) for title, sentences in named.items() if sentences)


@dataclass(frozen=True, eq=False)
class Summary:
    """Answers in words; it prints them, and is a page of its own in a notebook.

    Parameters
    ----------
    parts
        Findings by what they are about: "Perturbed cells", "Dynamics".
    """

    parts: Mapping[str, Findings]

    def __str__(self) -> str:
        return "\n\n".join(f"{title}\n{'=' * len(title)}\n\n{_as_text(part)}" for title, part in self.parts.items())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return "".join(
            f"<h2>{html.escape(title)}</h2>{findings_as_html(findings)}" for title, findings in self.parts.items()
        )


def _as_text(findings: Findings) -> str:
    """Write findings for a terminal; calls stand on lines of their own, so that they can be copied."""
    blocks = []
    for title, sentences in findings.sections():
        blocks.append("\n".join([title, *map(_item, sentences)]))
        if title == _FOUND and findings.headline:
            table = findings.tables[findings.headline].to_string(index=False)
            blocks += [f"  {findings.headline}", textwrap.indent(table, "  ")]
    if findings.next_steps:
        steps = [f"{_item(f'{step.reason}:')}\n      {step.call}" for step in findings.next_steps]
        blocks.append("\n".join([_NEXT, *steps]))
    return "\n\n".join(blocks)


def _item(sentence: str) -> str:
    return textwrap.fill(
        sentence,
        _WIDTH,
        initial_indent="  - ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def findings_as_html(findings: Findings) -> str:
    """Write findings as HTML: sections with lists, calls as code, and tables that scroll by themselves."""
    text = []
    for title, sentences in findings.sections():
        text.append(_list_as_html(title, map(html.escape, sentences)))
        if title == _FOUND and findings.headline:
            text.append(table_as_html(findings.headline, findings.tables[findings.headline]))
    if findings.next_steps:
        steps = (
            f"{html.escape(step.reason)}:<br><code>{html.escape(step.call)}</code>" for step in findings.next_steps
        )
        text.append(_list_as_html(_NEXT, steps))
    return "".join(text)


def _list_as_html(title: str, items: Iterable[str]) -> str:
    return f"<h3>{title}</h3><ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def table_as_html(title: str, table: pd.DataFrame) -> str:
    """Write a table with its title, within a box that scrolls where the page is narrower."""
    body = table.to_html(index=False, border=0, escape=True, na_rep="")
    return f'<h4>{html.escape(title)}</h4><div class="scroll" style="overflow-x:auto">{body}</div>'
