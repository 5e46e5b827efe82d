"""The code of `docs/interoperation.md`, section by section; sections whose packages are not installed are skipped."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

PAGE = Path(__file__).parents[2] / "docs" / "interoperation.md"
REASON = "installed by `make interoperation`"


def code_of_sections(text: str) -> dict[str, list[str]]:
    """Python blocks of every section of a page, by its title; the title of what precedes the first one is empty."""
    titles, parts = ["", *re.findall(r"^## (.+)$", text, re.MULTILINE)], re.split(r"^## .+$", text, flags=re.MULTILINE)
    return {
        title: re.findall(r"^```python\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
        for title, part in zip(titles, parts, strict=True)
    }


SECTIONS = code_of_sections(PAGE.read_text(encoding="utf-8"))


def imported(block: str) -> list[str]:
    """Top-level packages that a block imports."""
    return re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE)


def run(blocks: list[str], names: dict[str, Any]) -> None:
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)


@pytest.fixture(scope="module")
def start() -> dict[str, Any]:
    """What the first blocks of the page leave behind."""
    names: dict[str, Any] = {}
    run(SECTIONS[""], names)
    return names


@pytest.fixture
def names(start, tmp_path, monkeypatch) -> dict[str, Any]:
    """Copies of that, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return {name: value.copy() if isinstance(value, AnnData) else value for name, value in start.items()}


NEEDS = {"pertpy": ["scanpy"]}  # sections that go on from another one


def differs(names: dict[str, Any]) -> bool:
    table = names["sc"].get.rank_genes_groups_df(names["cells"], f"predicted {names['label']}")
    return bool((table["pvals_adj"] < 0.05).any())


def rises(names: dict[str, Any], key: str) -> bool:
    """Whether times rise within every trajectory of the bins."""
    obs = names["bins"].obs
    trajectories = obs["lineage"] if "lineage" in obs else np.zeros(len(obs))
    return all(times.is_monotonic_increasing for _, times in obs[key].groupby(trajectories, observed=True))


# What has to be there after a section; its other lines only have to run.
CHECKS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "scanpy": differs,
    "pertpy": lambda names: set(names["single"].obs["mixscape_class_global"]) == {"control", "KO"},
    "decoupler": lambda names: names["activities"].shape[0] == names["timecourse"].n_obs,
    "networkx, Cytoscape, Gephi": lambda names: (
        names["nx"].read_graphml("dynamics.graphml").edges == names["graph"].edges
    ),
    "CellRank and Palantir": lambda names: (
        rises(names, "dpt_pseudotime") and names["bins"].obs["lineage"].nunique() == 4
    ),
    "scVelo": lambda names: rises(names, "latent_time"),
    "cell-eval": lambda names: set(names["results"]["perturbation"]) == {"GENE_015", "GENE_036"},
}


def slug(title: str) -> str:
    return re.sub(r"\W+", "_", title).lower()


# Others about themselves and their own dependencies.
@pytest.mark.filterwarnings("default:::(anndata|cellrank|cell_eval|decoupler|pdex|pertpy|polars|scanpy|scvelo|sklearn)")
@pytest.mark.filterwarnings("default:Changing the sparsity structure")  # within scVelo
@pytest.mark.parametrize("title", [title for title in SECTIONS if title], ids=slug)
def test_section(title, names):
    blocks = [block for section in [*NEEDS.get(title, []), title] for block in SECTIONS[section]]
    for package in dict.fromkeys(package for block in blocks for package in imported(block)):
        pytest.importorskip(package, reason=f"{package} is {REASON}")
    run(blocks, names)
    assert CHECKS[title](names)


def test_every_section_has_a_check():
    assert CHECKS.keys() == {title for title in SECTIONS if title}
    assert all(SECTIONS.values())
