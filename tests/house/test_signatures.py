"""Public functions look alike: what comes first, what is keyword-only, what the docstring says."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from itertools import zip_longest

import pytest

LAYERS = ("pp", "tl", "pl")
DOCUMENTED = ("metrics", "baselines", "datasets", "models", "flow", "dynamics")

# Functions whose first parameter is not an AnnData, with the name that it has instead.
FIRST_PARAMETER: dict[str, str] = {"leaderboard": "adata"}

ADATA = {"AnnData", "ad.AnnData", "anndata.AnnData"}


def sections(function) -> dict[str, list[str]]:
    """Lines of every section of a numpydoc docstring, by its title."""
    found: dict[str, list[str]] = {}
    lines = (inspect.getdoc(function) or "").splitlines()
    title = ""
    for line, following in zip_longest(lines, lines[1:], fillvalue=""):
        if line and re.fullmatch(r"-{3,}", following):
            title = line
            found[title] = []
        elif title and not re.fullmatch(r"-{3,}", line):
            found[title].append(line)
    return found


def signature_faults(name: str, function) -> list[str]:
    """What is wrong with the signature and docstring of a function of `pp`, `tl` or `pl`."""
    faults = []
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    positional = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]

    first = parameters[0] if parameters else None
    if name in FIRST_PARAMETER:
        if first is None or first.name != FIRST_PARAMETER[name]:
            faults.append(f"first parameter is not `{FIRST_PARAMETER[name]}`")
    elif first is None or first.name != "adata" or str(first.annotation) not in ADATA:
        faults.append("first parameter is not `adata: AnnData`")
    if len(positional) > 3:
        faults.append("more than three positional parameters")
    for p in positional:
        if isinstance(p.default, bool) or re.search(r"\bbool\b", str(p.annotation)) or p.name == "copy":
            faults.append(f"`{p.name}` is not keyword-only")
    for p in parameters:
        if p.annotation is p.empty:
            faults.append(f"`{p.name}` has no annotation")
    if "copy" in signature.parameters:
        if signature.parameters["copy"].default is not False:
            faults.append("the default of `copy` is not False")
        if signature.return_annotation != "AnnData | None":
            faults.append("`copy` without the return annotation `AnnData | None`")
    if signature.return_annotation is signature.empty:
        faults.append("no return annotation")

    text = sections(function)
    entries = [line for line in text.get("Parameters", []) if line and not line[0].isspace()]
    faults += [f"the docstring gives a type: {line!r}" for line in entries if " :" in line]
    documented = {entry.split(" :")[0].strip("*` ") for line in entries for entry in line.split(", ")}
    expected = {p.name for p in parameters}
    faults += [f"`{p}` is not in the docstring" for p in sorted(expected - documented)]
    faults += [f"the docstring describes `{p}`, which is no parameter" for p in sorted(documented - expected)]
    if not "".join(text.get("Returns", [])).strip():
        faults.append("no `Returns` in the docstring")
    return faults


def documentation_faults(name: str, thing) -> list[str]:
    """What is wrong with the docstring of a public function or class; constants have none."""
    if not (inspect.isroutine(thing) or inspect.isclass(thing)):
        return []
    text = thing.__doc__ or ""  # not `inspect.getdoc`: that takes the text of a parent class
    generated = text.startswith(f"{name}(")  # by `dataclass`
    return [] if text.strip() and not generated else ["no docstring"]


def public(*layers: str) -> list:
    modules = {layer: import_module(f"perturbflow.{layer}") for layer in layers}
    return [
        pytest.param(name, getattr(module, name), id=f"{layer}.{name}")
        for layer, module in modules.items()
        for name in module.__all__
        if hasattr(module, name)  # otherwise `test_public_names_resolve` fails
    ]


@pytest.mark.parametrize(("name", "function"), public(*LAYERS))
def test_signature(name, function):
    faults = signature_faults(name, function)
    assert not faults, "; ".join(faults)


@pytest.mark.parametrize(("name", "thing"), public(*DOCUMENTED))
def test_documentation(name, thing):
    assert documentation_faults(name, thing) == []


class AnnData: ...


def good(adata: AnnData, key: str, *, strict: bool = True, copy: bool = False) -> AnnData | None:
    """Do it.

    Parameters
    ----------
    adata
        Cells.
    key, strict
        How.
    copy
        Where.

    Returns
    -------
    Nothing, or the copy.
    """


def no_adata(key: str, adata: AnnData) -> None:
    """Do it.

    Parameters
    ----------
    key, adata
        What.

    Returns
    -------
    Nothing.
    """


def four_positional(adata: AnnData, a: int, b: int, c: int) -> None:
    """Do it.

    Parameters
    ----------
    adata, a, b, c
        What.

    Returns
    -------
    Nothing.
    """


def positional_bool(adata: AnnData, strict: bool | None = None, copy: bool = False) -> AnnData | None:
    """Do it.

    Parameters
    ----------
    adata, strict, copy
        What.

    Returns
    -------
    Nothing.
    """


def copy_without_return(adata: AnnData, *, copy: bool = True) -> None:
    """Do it.

    Parameters
    ----------
    adata, copy
        What.

    Returns
    -------
    Nothing.
    """


def wrong_parameters(adata: AnnData, key: str) -> None:
    """Do it.

    Parameters
    ----------
    adata : AnnData
        What.
    keys
        What.

    Returns
    -------
    Nothing.
    """


def bare(adata, key): ...


@pytest.mark.parametrize(
    ("function", "faults"),
    [
        pytest.param(good, [], id="good"),
        pytest.param(no_adata, ["first parameter is not `adata: AnnData`"], id="no_adata"),
        pytest.param(four_positional, ["more than three positional parameters"], id="four_positional"),
        pytest.param(
            positional_bool, ["`strict` is not keyword-only", "`copy` is not keyword-only"], id="positional_bool"
        ),
        pytest.param(
            copy_without_return,
            ["the default of `copy` is not False", "`copy` without the return annotation `AnnData | None`"],
            id="copy",
        ),
        pytest.param(
            wrong_parameters,
            [
                "the docstring gives a type: 'adata : AnnData'",
                "`key` is not in the docstring",
                "the docstring describes `keys`, which is no parameter",
            ],
            id="wrong_parameters",
        ),
        pytest.param(
            bare,
            [
                "first parameter is not `adata: AnnData`",
                "`adata` has no annotation",
                "`key` has no annotation",
                "no return annotation",
                "`adata` is not in the docstring",
                "`key` is not in the docstring",
                "no `Returns` in the docstring",
            ],
            id="bare",
        ),
    ],
)
def test_faults_of_signatures_are_found(function, faults):
    assert signature_faults(function.__name__, function) == faults


def test_missing_documentation_is_found():
    class Generated:
        """Generated(x: int)"""

    assert documentation_faults("bare", bare) == ["no docstring"]
    assert documentation_faults("AnnData", AnnData) == ["no docstring"]
    assert documentation_faults("Generated", Generated) == ["no docstring"]
    assert documentation_faults("good", good) == []
    assert documentation_faults("CONSTANT", {"a": 1}) == []
