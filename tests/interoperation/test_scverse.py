"""The draft for the list of scverse ecosystem packages, and the page that says what of it is met."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="comes with scvi-tools")

CHECKOUT = Path(__file__).parents[2]
DRAFT = CHECKOUT / "docs" / "meta.yaml"
PAGE = (CHECKOUT / "docs" / "scverse.md").read_text(encoding="utf-8")

# Version 2.0 of the schema of scverse/ecosystem-packages.
REQUIRED = {
    "name": str,
    "description": str,
    "project_home": str,
    "documentation_home": str,
    "install": dict,
    "license": str,
    "tags": list,
    "version": str,
    "category": str,
    "contact": list,
}
OPTIONAL = {"tutorials_home": str, "publications": list, "logo": str, "test_command": str}


def faults(entry: dict) -> list[str]:
    """What the schema would find wrong with an entry."""
    known = REQUIRED | OPTIONAL
    found = [f"no `{key}`" for key in REQUIRED if key not in entry]
    found += [f"unknown `{key}`" for key in entry if key not in known]
    found += [
        f"`{key}` is no {known[key].__name__}" for key in entry if not isinstance(entry[key], known.get(key, object))
    ]
    for key in ("tags", "contact"):
        values = entry.get(key, [])
        if not values or len(set(values)) < len(values) or not all(isinstance(value, str) for value in values):
            found.append(f"`{key}` are no different texts")
    found += [
        f"`{key}` is no address"
        for key in known
        if key.endswith("_home") and not _is_address(entry.get(key, "https://a.b"))
    ]
    if not entry.get("install"):
        found.append("no registry in `install`")
    if entry.get("category") != "ecosystem":
        found.append("another category than that of new entries")
    return found


def _is_address(text: object) -> bool:
    return re.fullmatch(r"https://[\w.-]+\.\w+(/\S*)?", str(text)) is not None


@pytest.fixture
def entry() -> dict:
    return yaml.safe_load(DRAFT.read_text(encoding="utf-8"))


def test_the_draft_has_what_the_schema_requires(entry):
    assert faults(entry) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"license": None}, "`license` is no str"),
        ({"version": 0.1}, "`version` is no str"),
        ({"tags": ["a", "a"]}, "`tags` are no different texts"),
        ({"contact": []}, "`contact` are no different texts"),
        ({"project_home": "perturbflow"}, "`project_home` is no address"),
        ({"install": {}}, "no registry in `install`"),
        ({"category": "core-framework"}, "another category than that of new entries"),
        ({"authors": ["a"]}, "unknown `authors`"),
    ],
)
def test_faults_are_found(entry, change, fault):
    assert fault in faults(entry | change)


def test_missing_keys_are_found(entry):
    for key in REQUIRED:
        assert f"no `{key}`" in faults({name: value for name, value in entry.items() if name != key})


def test_the_draft_agrees_with_the_package(entry):
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for key in ("name", "version", "license"):
        assert entry[key] == project[key]
    assert entry["description"].strip() == project["description"]
    assert entry["install"]["pypi"] == project["name"]
    assert set(entry["tags"]) & set(project["keywords"])
    assert (CHECKOUT / "LICENSE").read_text(encoding="utf-8").startswith("BSD 3-Clause License")
    assert f"**Short description:** {project['description']}" in PAGE


def test_what_stands_in_is_named_on_the_page(entry):
    stand_ins = [key for key in ("project_home", "documentation_home") if "example.org" in entry[key]]
    stand_ins += ["contact"] * ("github-user-of-a-maintainer" in entry["contact"])
    hint = PAGE.partition("## Draft")[2]
    assert [key for key in stand_ins if f"`{key}`" not in hint] == []


def test_the_evidence_is_there():
    rows = [
        line
        for line in PAGE.splitlines()
        if line.startswith("| ") and not line.startswith(("| required", "| recommended"))
    ]
    assert len(rows) == 11  # eight requirements and three recommendations
    named = {name for row in rows for name in re.findall(r"`([\w./-]+)`", row.rpartition(" | ")[2])}
    files = {name for name in named if "." in name or "/" in name or (CHECKOUT / name).exists()}
    assert {"LICENSE", "CHANGELOG.md", "tests", ".github/workflows/test.yaml", ".ci/run"} <= files
    assert [name for name in sorted(files) if not (CHECKOUT / name).exists()] == []


def test_continuous_integration_runs_the_tests_at_every_push_and_pull_request():
    text = (CHECKOUT / ".github" / "workflows" / "test.yaml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert {"push", "pull_request"} <= workflow[True].keys()  # YAML 1.1 reads "on" as true
    assert "make test" in text
