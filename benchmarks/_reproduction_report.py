"""Tables of the reproduction: nearness to real cells, energy distance against cells seen, guidance, and zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from _common import markdown

if TYPE_CHECKING:
    from pathlib import Path

MODEL = ["panel", "space", "network"]
RUN = [*MODEL, "seed"]


def report(file: Path) -> None:
    """Print all tables of what was measured so far."""
    table = pd.read_csv(file)
    plain = table[table["guidance"] == 1]
    for title, part in (
        ("Where validation cells are nearest", nearness(plain)),
        ("Energy distance against cells seen", curves(plain)),
        ("Guidance", guidance(table)),
        ("Exact zeros", zeros(plain)),
    ):
        print(f"\n{title}\n\n{markdown(part.set_index(part.columns[0]))}")


def nearness(plain: pd.DataFrame) -> pd.DataFrame:
    """Energy distance to test cells where that to validation cells is lowest, beside the floor; means over seeds."""
    stopped = _stopped(plain)
    groups = stopped.groupby(MODEL, sort=False)
    n_seeds = groups["seed"].nunique()
    means = groups[["cells seen", "seconds", "energy", "floor", "floor se"]].mean()
    # Seeds divide the same cells in other ways, so that their standard errors do not shrink.
    limit = means["floor"] + 2 * means["floor se"]
    return pd.DataFrame(
        {
            "seeds": n_seeds,
            "cells seen": means["cells seen"].map("{:,.0f}".format),
            "CPU seconds": means["seconds"].map("{:.0f}".format),
            "energy distance": means["energy"].map("{:.3f}".format),
            "two halves": [
                f"{floor:.3f} ± {error:.3f}" for floor, error in zip(means["floor"], means["floor se"], strict=True)
            ],
            "at the floor": np.where(means["energy"] <= limit, "yes", "no"),
        }
    ).reset_index()


def curves(plain: pd.DataFrame) -> pd.DataFrame:
    """Energy distance to test cells against cells seen, mean over seeds."""
    test = plain[plain["part"] == "test"]
    means = test.groupby([*MODEL, "cells seen"], sort=False)["energy"].mean()
    table = means.map("{:.3f}".format).rename("energy distance").reset_index()
    return table.assign(**{"cells seen": table["cells seen"].map("{:,}".format)})


def guidance(table: pd.DataFrame) -> pd.DataFrame:
    """Energy distance to test cells by the weight of guidance, at the end of training, mean over seeds."""
    test = table[table["part"] == "test"]
    at_end = test[test["cells seen"] == test.groupby(RUN)["cells seen"].transform("max")]
    wide = at_end.groupby([*MODEL, "guidance"], sort=False)["energy"].mean().unstack("guidance")
    return wide.map("{:.3f}".format).rename(columns="guidance {:g}".format).reset_index()


def zeros(plain: pd.DataFrame) -> pd.DataFrame:
    """What exact zeros are worth, on validation and on test cells, mean over seeds."""
    at_end = plain[plain["cells seen"] == plain.groupby(RUN)["cells seen"].transform("max")]
    of_genes = at_end[at_end["space"] == "genes"]
    names = ["energy", "energy without zeros", "zeros", "values below 0.1", "real zeros"]
    return of_genes.groupby([*MODEL, "part"], sort=False)[names].mean().map("{:.3f}".format).reset_index()


def _stopped(plain: pd.DataFrame) -> pd.DataFrame:
    """Test rows where the distance to validation cells is lowest."""
    valid = plain[plain["part"] == "valid"]
    best = valid.loc[valid.groupby(RUN, sort=False)["energy"].idxmin(), [*RUN, "cells seen"]]
    return best.merge(plain[plain["part"] == "test"], on=[*RUN, "cells seen"])
