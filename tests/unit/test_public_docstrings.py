"""The docstring of everything in the public namespace is whole, as numpydoc reads it."""

from __future__ import annotations

import importlib
import inspect
import warnings

import pytest

import scvitune

validate = pytest.importorskip(
    "numpydoc.validate", reason="needs the extra `test`: pip install 'scvitune[test]'"
).validate

NOT_OURS = {
    "ES01": "a summary of one line may be enough",
    "EX01": "examples stand in the README and in examples/",
    "SA01": "related functions are named in the text",
    "PR04": "types live in annotations",
    "RT01": "'Return ...' in the summary says it where there is no more to say",
    "YD01": "a context manager yields to the block, as its summary says",
    "RT03": "the same: what follows 'Returns' is the description, for the type is annotated",
    "RT04": "a description may begin with a shape, or with a name",
}
BESIDE = {"scvitune.judging": ("TrainedModel",)}
"""Public beside what `scvitune` lists: what functions of the user's own are given."""


def members(module):
    """Yield the public names of a module with what they stand for."""
    listed = getattr(module, "__all__", None)
    for name in listed if listed is not None else vars(module):
        value = getattr(module, name)
        own = getattr(value, "__module__", "") == module.__name__
        if not name.startswith("_") and (listed is not None or own):
            yield f"{module.__name__}.{name}", value


def public_names() -> list[str]:
    names = []
    modules = [getattr(scvitune, name) for name in scvitune.__all__]
    modules = [scvitune, *(module for module in modules if inspect.ismodule(module))]
    found = [pair for module in modules for pair in members(module)]
    for place, own in BESIDE.items():
        module = importlib.import_module(place)
        found += [(f"{place}.{name}", getattr(module, name)) for name in own]
    for name, value in found:
        if inspect.isfunction(value) or inspect.isclass(value):
            names.append(name)
        if inspect.isclass(value):
            names += [f"{name}.{method}" for method in methods(value)]
    return sorted(set(names))


def methods(of: type) -> list[str]:
    """Return a class's own public methods and properties, those of its bases here among them."""
    found = []
    for base in of.__mro__:
        if base.__module__.startswith("scvitune"):
            found += [
                name
                for name, value in vars(base).items()
                if not name.startswith("_")
                and (inspect.isfunction(value) or isinstance(value, property))
            ]
    return found


def documented_fields(name: str) -> set[str]:
    from numpydoc.docscrape import ClassDoc
    from numpydoc.validate import Validator

    listed = ClassDoc(Validator._load_obj(name))["Attributes"]
    return {field.strip() for attribute in listed for field in attribute.name.split(",")}


def faults(name: str) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = validate(name)
    errors = [(code, words) for code, words in found["errors"] if code not in NOT_OURS]
    if found["type"] in ("type", "class") and errors:
        # A dataclass says what its fields are once, as attributes; they are its parameters too.
        fields = documented_fields(name)
        errors = [
            (code, words)
            for code, words in errors
            if code != "PR01" or not all(part in fields for part in _quoted(words))
        ]
    return [f"{code} {words}" for code, words in errors]


def _quoted(words: str) -> list[str]:
    return words.split("'")[1::2]


NAMES = public_names()


def test_the_namespace_is_looked_through():
    assert len(NAMES) > 80
    wanted = {"scvitune.tune", "scvitune.resume", "scvitune.Study.best_model"}
    wanted |= {"scvitune.Study.plot", "scvitune.spaces.ordered", "scvitune.judging.TrainedModel"}
    assert wanted <= set(NAMES)


def test_a_docstring_that_lacks_a_parameter_would_be_found(monkeypatch):
    text = scvitune.load.__doc__
    monkeypatch.setattr(scvitune.load, "__doc__", text.replace("path\n", "folder\n", 1))
    assert [fault[:4] for fault in faults("scvitune.load")] == ["PR01", "PR02"]


@pytest.mark.parametrize("name", NAMES)
def test_docstring(name):
    assert faults(name) == []
