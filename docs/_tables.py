"""Tables of the benchmark pages as data frames, so that their figures are drawn from the numbers that are printed."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

DOCS = Path(__file__).parent


def table(page: str, *columns: str) -> pd.DataFrame:
    """Return the first table of a page whose header begins with ``columns``; empty cells repeat the one above.

    Raises ValueError if there is none.
    """
    rows: list[list[str]] = []
    for line in [*(DOCS / page).read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip().strip("*") for cell in line.strip().strip("|").split("|")])
        elif rows:
            if rows[0][: len(columns)] == list(columns):
                found = pd.DataFrame(rows[2:], columns=rows[0])
                return found.mask(found == "").ffill()
            rows = []
    msg = f"Expected a table with the columns {columns} in {page}, found none."
    raise ValueError(msg)


def numbers(values: pd.Series) -> pd.DataFrame:
    """Return the columns ``mean`` and ``sd`` of cells such as ``0.52 ± 0.16``; NaN where there is none."""
    parts = [re.sub("[%+,]", "", value).split("±") for value in values]
    mean = pd.to_numeric(pd.Series([part[0].strip() for part in parts], values.index), errors="coerce")
    sd = pd.to_numeric(pd.Series([part[-1].strip() for part in parts], values.index), errors="coerce")
    sd = sd.where([len(part) == 2 for part in parts])
    return pd.DataFrame({"mean": mean, "sd": sd})
