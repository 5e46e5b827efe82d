"""A summary as text and as an HTML page: data and question, findings, what remains unknown, next steps."""

from __future__ import annotations

import base64
import html
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

_WIDTH = 100
_ASKED, _FOUND, _NOT_MEASURABLE = "Data and question", "Findings", "What remains unknown"
_NEXT = "Next steps"


class Step(NamedTuple):
    """A next step: its purpose and the call."""

    reason: str
    call: str


@dataclass(frozen=True, eq=False)
class Findings:
    """Findings about perturbed cells or dynamics: sentences, next steps, and tables by title.

    ``headline`` is the title of the main table, or empty.
    """

    asked: tuple[str, ...]
    found: tuple[str, ...]
    not_measurable: tuple[str, ...]
    next_steps: tuple[Step, ...]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=lambda: MappingProxyType({}))
    headline: str = ""

    def sections(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the non-empty sections: titles and sentences."""
        named = {_ASKED: self.asked, _FOUND: self.found, _NOT_MEASURABLE: self.not_measurable}
        yield from ((title, sentences) for title, sentences in named.items() if sentences)


@dataclass(frozen=True, eq=False)
class Summary:
    """A summary in plain language: text when printed, HTML in a notebook.

    Parameters
    ----------
    parts
        Findings by topic: "Perturbed cells", "Dynamics".
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
    """Format findings for a terminal, with calls on separate lines, so that they can be copied."""
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
    """Format findings as HTML: lists, code and scrollable tables."""
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
    """Format a table with its title, in a box that scrolls on narrow pages."""
    body = table.to_html(index=False, border=0, escape=True, na_rep="")
    return f'<h4>{html.escape(title)}</h4><div class="scroll" style="overflow-x:auto">{body}</div>'


_WIDE = 640  # pixels: wider figures scroll on a phone
_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f5f7; color: #1d2430; font: 16px/1.55 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 56px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 8px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 0 0 4px; }
summary { font-size: 1.1rem; font-weight: 600; cursor: pointer; }
h3 { font-size: 1.02rem; margin: 20px 0 4px; }
h4 { font-size: .92rem; margin: 18px 0 6px; color: #465063; }
p.about { margin: 0 0 20px; color: #5a6475; }
section { background: #fff; border: 1px solid #dde1e8; border-radius: 10px; padding: 20px 24px 24px; margin: 0 0 20px; }
ul { margin: 0; padding-left: 1.2em; }
li { margin: 4px 0; overflow-wrap: anywhere; }
code { font: .88em/1.5 ui-monospace, Menlo, Consolas, monospace; background: #eef1f5; border-radius: 4px; padding: 2px 5px; }
.scroll { overflow-x: auto; border: 1px solid #e4e7ed; border-radius: 6px; }
table { border-collapse: separate; border-spacing: 0; font-size: .85rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 12px; text-align: right; white-space: nowrap; border-bottom: 1px solid #edeff3; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
th { color: #465063; font-weight: 600; }
tr:last-child td { border-bottom: 0; }
figure { margin: 22px 0 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figure .scroll { border: 0; }
figcaption { color: #5a6475; font-size: .9rem; margin-top: 6px; }
@media (max-width: 600px) {
  main { padding: 14px 10px 36px; }
  section { padding: 14px 14px 18px; }
  figure .wide { max-width: none; width: 680px; }
  th:first-child, td:first-child { min-width: 8em; max-width: 46vw; white-space: normal; }
}
"""


class Figure:
    """A figure of a part of the summary, with its display width in pixels."""

    def __init__(self, part: str, caption: str, png: bytes, *, width: int) -> None:
        self.part, self.caption, self.png, self.width = part, caption, png, width

    def to_html(self) -> str:
        """Return the figure as HTML with the embedded image."""
        data = base64.b64encode(self.png).decode("ascii")
        caption = html.escape(self.caption)
        kind = ' class="wide"' if self.width > _WIDE else ""
        image = f'<img{kind} src="data:image/png;base64,{data}" width="{self.width}" alt="{caption}">'
        return f'<figure><div class="scroll">{image}</div><figcaption>{caption}</figcaption></figure>'


def page(title: str, about: str, summary: Summary, figures: Sequence[Figure]) -> str:
    """Format a summary and its figures as a self-contained HTML page."""
    sections = []
    for name, findings in summary.parts.items():
        drawn = "".join(figure.to_html() for figure in figures if figure.part == name)
        body = f"<h2>{html.escape(name)}</h2>{findings_as_html(findings)}"
        sections.append(f"<section>{body}{drawn}</section>")
        others = [table_as_html(*item) for item in findings.tables.items() if item[0] != findings.headline]
        if others:
            sections.append(
                f"<section><details><summary>{html.escape(name)}: all tables</summary>{''.join(others)}</details></section>"
            )
    heading = html.escape(title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{heading}</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>{heading}</h1><p class="about">{html.escape(about)}</p>{"".join(sections)}</main></body></html>\n'
    )
