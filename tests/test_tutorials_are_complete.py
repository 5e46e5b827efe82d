"""The notebooks as they are committed: run from start to end, with figures, without errors, warnings or local paths."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
NOTEBOOKS = sorted((CHECKOUT / "tutorials").glob("*.ipynb"))
LOCAL_PATH = re.compile(r"/(?:home|root|tmp|Users|work|mnt|opt|var|private)/|\bsite-packages\b|ipykernel_\d|[A-Z]:\\\\")
MAX_BYTES = 4_000_000


def code_of(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def faults(notebook: dict) -> list[str]:
    """What is wrong with a notebook that is to be committed."""
    found = []
    code = code_of(notebook)
    if [cell["execution_count"] for cell in code] != list(range(1, len(code) + 1)):
        found.append("not run from start to end")
    outputs = [output for cell in code for output in cell["outputs"]]
    if not any("image/png" in output.get("data", {}) for output in outputs):
        found.append("no figures")
    if any(output["output_type"] == "error" for output in outputs):
        found.append("an error")
    if any(output.get("name") == "stderr" for output in outputs):
        found.append("warnings or progress bars")
    texts = ["".join(output.get("text", output.get("data", {}).get("text/plain", ""))) for output in outputs]
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    if any(LOCAL_PATH.search(text) for text in [*texts, *sources]):
        found.append("a local path")
    if not any(re.search(r"^\s*assert ", "".join(cell["source"]), flags=re.MULTILINE) for cell in code):
        found.append("no claim is asserted")
    if any(cell["metadata"] for cell in notebook["cells"]):
        found.append("metadata of a run")
    return found


def test_there_are_tutorials():
    assert [path.name[0] for path in NOTEBOOKS] == ["1", "2", "3", "4", "5", "6", "7"]
    assert sum(path.stat().st_size for path in NOTEBOOKS) < MAX_BYTES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_tutorial_is_complete(path):
    notebook = json.loads(path.read_text())
    assert faults(notebook) == []
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert "what to read next" in "".join(notebook["cells"][-1]["source"]).lower()


def example(
    source: str = "assert x", *, count: int = 1, output: dict | None = None, metadata: dict | None = None
) -> dict:
    figure = {"output_type": "display_data", "data": {"image/png": "", "text/plain": "<Figure>"}}
    outputs = [figure] if output is None else [figure, output]
    cell = {
        "cell_type": "code",
        "source": source,
        "execution_count": count,
        "outputs": outputs,
        "metadata": metadata or {},
    }
    return {"cells": [cell]}


@pytest.mark.parametrize(
    ("notebook", "expected"),
    [
        pytest.param(example(), [], id="good"),
        pytest.param(example(count=2), ["not run from start to end"], id="order"),
        pytest.param(example("print(x)"), ["no claim is asserted"], id="assert"),
        pytest.param(example(output={"output_type": "error"}), ["an error"], id="error"),
        pytest.param(
            example(output={"output_type": "stream", "name": "stderr", "text": ["x"]}),
            ["warnings or progress bars"],
            id="stderr",
        ),
        pytest.param(
            example(output={"output_type": "stream", "name": "stdout", "text": ["saved in /home/someone/x"]}),
            ["a local path"],
            id="path",
        ),
        pytest.param(example("assert open('/tmp/x')"), ["a local path"], id="path_in_code"),
        pytest.param(example(metadata={"execution": {}}), ["metadata of a run"], id="metadata"),
        pytest.param({"cells": []}, ["no figures", "no claim is asserted"], id="empty"),
    ],
)
def test_faults_of_notebooks_are_found(notebook, expected):
    assert faults(notebook) == expected
