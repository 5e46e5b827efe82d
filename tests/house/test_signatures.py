"""Public functions look alike: what comes first, what is keyword-only, what the docstring says."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from itertools import zip_longest
from typing import Any, TypedDict, is_typeddict

import pytest

LAYERS = ("pp", "tl", "pl")
DOCUMENTED = ("metrics", "evaluation", "baselines", "datasets", "models", "flow", "dynamics")

# Functions whose first parameter is not an AnnData, with the name that it has instead.
FIRST_PARAMETER: dict[str, str] = {"leaderboard": "adata"}

# Public names that are neither functions nor classes: tables by name, and a type alias. They have no docstring to hold
# an example; the comment below their definition says what they are.
CONSTANTS = {
    *("metrics.METRICS", "metrics.SUITES"),
    *("baselines.BASELINES", "baselines.FLOORS", "baselines.TRAJECTORY_BASELINES", "baselines.CONTINUATIONS"),
    *("dynamics.SPARSITIES", "flow.NETWORKS"),
}

ADATA = "AnnData | MuData"
MODALITY = "modality: str | None = None"


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


def entries(text: dict[str, list[str]], title: str) -> list[str]:
    """Lines of a section that name parameters."""
    return [line for line in text.get(title, []) if line and not line[0].isspace()]


def documented_names(text: dict[str, list[str]], *titles: str) -> set[str]:
    """Names of the parameters that some sections describe."""
    lines = [line for title in titles for line in entries(text, title)]
    return {entry.split(" :")[0].strip("*` ") for line in lines for entry in line.split(", ")}


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
    elif first is None or first.name != "adata" or first.annotation != ADATA:
        faults.append(f"first parameter is not `adata: {ADATA}`")
    if len(positional) > 3:
        faults.append("more than three positional parameters")
    for p in positional:
        if isinstance(p.default, bool) or re.search(r"\bbool\b", str(p.annotation)) or p.name == "copy":
            faults.append(f"`{p.name}` is not keyword-only")
    for p in parameters:
        if p.annotation is p.empty:
            faults.append(f"`{p.name}` has no annotation")
    modality = signature.parameters.get("modality")
    if modality is None or modality.kind is not modality.KEYWORD_ONLY or str(modality).replace("'", "") != MODALITY:
        faults.append(f"no keyword-only `{MODALITY}`")
    if "copy" in signature.parameters:
        if signature.parameters["copy"].default is not False:
            faults.append("the default of `copy` is not False")
        if signature.return_annotation != f"{ADATA} | None":
            faults.append(f"`copy` without the return annotation `{ADATA} | None`")
    if signature.return_annotation is signature.empty:
        faults.append("no return annotation")

    text = sections(function)
    faults += [f"the docstring gives a type: {line!r}" for line in entries(text, "Parameters") if " :" in line]
    documented = documented_names(text, "Parameters")
    expected = {p.name for p in parameters}
    faults += [f"`{p}` is not in the docstring" for p in sorted(expected - documented)]
    faults += [f"the docstring describes `{p}`, which is no parameter" for p in sorted(documented - expected)]
    if not "".join(text.get("Returns", [])).strip():
        faults.append("no `Returns` in the docstring")
    return faults


def documentation_faults(name: str, thing) -> list[str]:
    """What is wrong with the docstring of a public function or class."""
    own = thing.__doc__ or ""  # not `inspect.getdoc`: that takes the text of a parent class
    if not own.strip() or own.startswith(f"{name}("):  # the latter is by `dataclass`
        return ["no docstring"]
    text, returns = sections(thing), False
    if is_typeddict(thing):
        named = set(thing.__annotations__)
    else:
        signature = inspect.signature(thing)
        parameters = signature.parameters.values()
        named = {p.name for p in parameters if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}}
        returns = not inspect.isclass(thing) and signature.return_annotation not in {"None", signature.empty}
    missing = named - documented_names(text, "Parameters", "Attributes")
    faults = [f"`{name}` is not in the docstring" for name in sorted(missing)]
    if returns and not "".join(text.get("Returns", [])).strip():
        faults.append("no `Returns` in the docstring")
    example = [line.strip() for line in text.get("Examples", [])]
    if not any(line.startswith(">>> ") for line in example):
        faults.append("no example")
    if any("doctest: +SKIP" in line for line in example):
        faults.append("an example that is not run")
    return faults


def public(*layers: str) -> dict[str, Any]:
    """Everything public of some layers, by its name, such as "tl.fit_flow"."""
    modules = {layer: import_module(f"perturbflow.{layer}") for layer in layers}
    return {
        f"{layer}.{name}": getattr(module, name)
        for layer, module in modules.items()
        for name in module.__all__
        if hasattr(module, name)  # otherwise `test_public_names_resolve` fails
    }


def test_signatures():
    faults = {name: signature_faults(name.split(".")[1], function) for name, function in public(*LAYERS).items()}
    assert {name: some for name, some in faults.items() if some} == {}


def test_mudata_is_asked_for_its_modality(mdata):
    without = [name for name, function in public(*LAYERS).items() if not asks_for_modality(function, mdata)]
    assert without == []  # not decorated with `takes_modality`


def asks_for_modality(function, mdata) -> bool:
    """Whether a function says, before it looks at anything else, that the modality of a MuData is missing."""
    parameters = inspect.signature(function).parameters.values()
    required = {p.name: "anything" for p in parameters if p.default is p.empty} | {"adata": mdata}
    try:
        function(**required)
    except ValueError as error:
        return str(error).startswith("Expected `modality` to be one of ['rna', 'protein']")
    except AttributeError:
        return False
    return False


def test_functions_that_do_not_take_mudata_are_found(mdata):
    assert not asks_for_modality(good, mdata)


def test_documentation():
    faults = {
        name: documentation_faults(name.split(".")[1], thing)
        for name, thing in public(*LAYERS, *DOCUMENTED).items()
        if name not in CONSTANTS
    }
    assert {name: some for name, some in faults.items() if some} == {}


def test_only_functions_and_classes_are_documented_by_themselves():
    named = public(*LAYERS, *DOCUMENTED)
    assert {
        name for name, thing in named.items() if not (inspect.isroutine(thing) or inspect.isclass(thing))
    } == CONSTANTS


class AnnData: ...


class MuData: ...


def good(
    adata: AnnData | MuData, key: str, *, strict: bool = True, modality: str | None = None, copy: bool = False
) -> AnnData | MuData | None:
    """Do it.

    Parameters
    ----------
    adata
        Cells.
    key, strict, modality
        How.
    copy
        Where.

    Returns
    -------
    Nothing, or the copy.
    """


def no_adata(key: str, adata: AnnData | MuData, *, modality: str | None = None) -> None:
    """Do it.

    Parameters
    ----------
    key, adata, modality
        What.

    Returns
    -------
    Nothing.
    """


def four_positional(adata: AnnData | MuData, a: int, b: int, c: int, *, modality: str | None = None) -> None:
    """Do it.

    Parameters
    ----------
    adata, a, b, c, modality
        What.

    Returns
    -------
    Nothing.
    """


def positional_bool(
    adata: AnnData | MuData, strict: bool | None = None, copy: bool = False, *, modality: str | None = None
) -> AnnData | MuData | None:
    """Do it.

    Parameters
    ----------
    adata, strict, copy, modality
        What.

    Returns
    -------
    Nothing.
    """


def copy_without_return(adata: AnnData | MuData, *, modality: str | None = None, copy: bool = True) -> None:
    """Do it.

    Parameters
    ----------
    adata, modality, copy
        What.

    Returns
    -------
    Nothing.
    """


def anndata_only(adata: AnnData, modality: str) -> AnnData | None:
    """Do it.

    Parameters
    ----------
    adata, modality
        What.

    Returns
    -------
    Nothing.
    """


def wrong_parameters(adata: AnnData | MuData, key: str, *, modality: str | None = None) -> None:
    """Do it.

    Parameters
    ----------
    adata : AnnData
        What.
    keys, modality
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
        pytest.param(no_adata, ["first parameter is not `adata: AnnData | MuData`"], id="no_adata"),
        pytest.param(
            anndata_only,
            [
                "first parameter is not `adata: AnnData | MuData`",
                "no keyword-only `modality: str | None = None`",
            ],
            id="anndata_only",
        ),
        pytest.param(four_positional, ["more than three positional parameters"], id="four_positional"),
        pytest.param(
            positional_bool, ["`strict` is not keyword-only", "`copy` is not keyword-only"], id="positional_bool"
        ),
        pytest.param(
            copy_without_return,
            ["the default of `copy` is not False", "`copy` without the return annotation `AnnData | MuData | None`"],
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
                "first parameter is not `adata: AnnData | MuData`",
                "`adata` has no annotation",
                "`key` has no annotation",
                "no keyword-only `modality: str | None = None`",
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


def with_example(x: int) -> int:
    """Do it.

    Parameters
    ----------
    x
        A number.

    Returns
    -------
    The number.

    Examples
    --------
    >>> with_example(1)
    1
    """
    return x


def test_missing_documentation_is_found():
    class Generated:
        """Generated(x: int)"""

    class Documented:
        """Do it.

        Attributes
        ----------
        x
            A number.

        Examples
        --------
        >>> Documented(1)
        """

        def __init__(self, x: int, y: int = 0) -> None: ...

    class Options(TypedDict, total=False):
        """Do it.

        Attributes
        ----------
        x
            A number.

        Examples
        --------
        >>> Options(x=1)
        """

        x: int
        y: int

    def silent(x: int) -> int:
        """Do it, with ``>>>`` but no example."""
        return x

    def skipped() -> None:
        """Do it.

        Examples
        --------
        >>> skipped()  # doctest: +SKIP
        """

    assert documentation_faults("bare", bare) == ["no docstring"]
    assert documentation_faults("AnnData", AnnData) == ["no docstring"]
    assert documentation_faults("Generated", Generated) == ["no docstring"]
    assert documentation_faults("Documented", Documented) == ["`y` is not in the docstring"]
    assert documentation_faults("Options", Options) == ["`y` is not in the docstring"]
    assert documentation_faults("with_example", with_example) == []
    faults = ["`x` is not in the docstring", "no `Returns` in the docstring", "no example"]
    assert documentation_faults("silent", silent) == faults
    assert documentation_faults("skipped", skipped) == ["an example that is not run"]
