"""What the files for registries, citations and lists say is the same everywhere."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="comes with scvi-tools")

CHECKOUT = Path(__file__).parents[1]
CONDA_NAMES = {"matplotlib": "matplotlib-base", "torch": "pytorch"}


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> dict:
    return yaml.safe_load((CHECKOUT / name).read_text(encoding="utf-8"))


def test_version_licence_and_addresses_are_the_same_everywhere(project):
    citation, entry, recipe = read("CITATION.cff"), read("docs/meta.yaml"), read("conda/meta.yaml")
    versions = {project["version"], citation["version"], entry["version"], recipe["package"]["version"]}
    assert len(versions) == 1
    assert {citation["license"], entry["license"], recipe["about"]["license"]} == {project["license"]}
    homes = {entry["project_home"], recipe["about"]["home"], project["urls"]["Homepage"]}
    documents = {entry["documentation_home"], recipe["about"]["doc_url"], project["urls"]["Documentation"]}
    assert len(homes) == len(documents) == 1
    assert recipe["about"]["summary"] == project["description"]


def test_the_recipe_needs_what_the_package_needs(project):
    def requirement(text: str) -> str:
        name = re.split(r"[^\w-]", text)[0]
        return f"{CONDA_NAMES.get(name, name)} {text.removeprefix(name)}".strip()

    needed = read("conda/meta.yaml")["requirements"]
    assert needed["run"][0] == f"python {project['requires-python']}" == needed["host"][0]
    assert sorted(needed["run"][1:]) == sorted(map(requirement, project["dependencies"]))
    extras = {requirement(each) for name in ("data", "chemistry") for each in project["optional-dependencies"][name]}
    assert set(read("conda/meta.yaml")["requirements"]["run_constrained"]) == extras


def test_both_papers_are_cited():
    papers = {paper["url"]: paper for paper in read("CITATION.cff")["references"]}
    assert set(papers) == {"https://arxiv.org/abs/2604.13986", "https://arxiv.org/abs/2210.14672"}
    for url, paper in papers.items():
        assert paper["identifiers"] == [{"type": "other", "value": f"arXiv:{url.rsplit('/', 1)[1]}"}]
        assert all(set(author) == {"family-names", "given-names"} for author in paper["authors"])


def test_python_versions_are_those_that_are_tested(project):
    workflow = (CHECKOUT / ".github" / "workflows" / "test.yaml").read_text(encoding="utf-8")
    tested = set(re.findall(r'python: "(3\.\d+)", packages', workflow))
    classified = {each.rsplit(" ", 1)[1] for each in project["classifiers"] if re.search(r":: 3\.\d+$", each)}
    assert classified == tested
    assert f">={min(tested, key=lambda version: int(version.split('.')[1]))}" == project["requires-python"]


def test_the_ten_lines_are_those_that_the_tutorial_runs():

    page = (CHECKOUT / "docs" / "own_counts.md").read_text(encoding="utf-8")
    lines = re.findall(r"```python\n(.+?)```", page, flags=re.DOTALL)[1].strip()
    notebook = json.loads((CHECKOUT / "tutorials" / "7_your_own_counts.ipynb").read_text(encoding="utf-8"))
    assert lines in ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(lines.splitlines()) == 10
