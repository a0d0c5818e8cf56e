"""YAML text to plain values, with errors that name the line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from scvitune._config._numbers import number_if_exponent, unwrap_scalar
from scvitune.errors import Faults, InputError

_DEEPEST = 16


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first_lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag.endswith(":merge"):
                continue
            line = key_node.start_mark.line + 1
            if key_node.value in first_lines:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"the key {key_node.value!r} is there twice, first in line "
                    f"{first_lines[key_node.value]}: remove one",
                    key_node.start_mark,
                )
            first_lines[key_node.value] = line
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str, *, origin: str) -> Any:
    """Return the value of one YAML document.

    Parameters
    ----------
    text
        The document.
    origin
        What to call it in errors: a path, or ``--set KEY=VALUE``.

    Raises
    ------
    scvitune.errors.InputError
        If it is not YAML, or a key stands twice; the message names the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{origin} is not valid YAML{_place_and_problem(text, error)}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{origin} is not valid YAML: {error}.") from error
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError) as error:
        # PyYAML does not check what it makes of a value by a tag.
        raise InputError(
            f"{origin} is not valid YAML: a tag (such as !!bool or !!timestamp) stands before a "
            f"value that it does not fit ({type(error).__name__}: {error}). Leave tags out."
        ) from error


def _place_and_problem(text: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(getattr(error, "reason", error))
    if mark is None:
        return f": {problem}."
    lines = text.splitlines()
    written = lines[mark.line] if mark.line < len(lines) else ""
    indent = written[: len(written) - len(written.lstrip())]
    if "\t" in indent or problem.startswith("found character '\\t'"):
        problem = "it is indented by a tab; YAML allows spaces only"
    return f", line {mark.line + 1}, column {mark.column + 1}: {problem}."


def read_yaml_mapping(path: Path) -> dict[Any, Any]:
    """Return the mapping in a YAML file.

    Raises
    ------
    scvitune.errors.InputError
        If there is no such file, it cannot be read, or does not hold a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"There is no file {str(path)!r}. Check the path.") from None
    except IsADirectoryError:
        raise InputError(f"{str(path)!r} is a directory; give the YAML file in it.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is not a text file in UTF-8 ({error.reason}).") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}.") from error
    value = parse_yaml(text, origin=str(path))
    if value is None:
        raise InputError(f"{path} is empty. Write at least `model:` and `data: {{path: ...}}`.")
    if not isinstance(value, dict):
        raise InputError(
            f"{path}, line 1: the file must hold keys with values (`model: SCVI`), "
            f"but holds a {type(value).__name__}."
        )
    return value


def plain_value(value: Any, *, where: str, faults: Faults, depth: int = 0) -> Any:
    """Return a value as JSON can hold it; every part that it cannot hold is a fault.

    Text that only YAML 1.2 reads as a number, such as ``1e-4``, becomes that number.
    """
    value = number_if_exponent(unwrap_scalar(value))
    if depth > _DEEPEST and isinstance(value, (list, tuple, Mapping)):
        faults.add(f"{where} is nested more than {_DEEPEST} levels deep. Write it flat.")
        return None
    if isinstance(value, float) and not math.isfinite(value):
        faults.add(f"{where} must be finite, but is {value}.")
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [
            plain_value(part, where=f"{where}[{i}]", faults=faults, depth=depth + 1)
            for i, part in enumerate(value)
        ]
    if isinstance(value, Mapping):
        plain = {}
        for key, part in value.items():
            if not isinstance(key, str):
                faults.add(f"The key {key!r:.80} in {where} must be text. Put it in quotes.")
                continue
            plain[key] = plain_value(
                part, where=f"{where}.{key:.80}", faults=faults, depth=depth + 1
            )
        return plain
    faults.add(
        f"{where} is a {type(value).__name__} ({value!r:.80}); allowed are numbers, text, "
        "true, false, null, lists and mappings. Text that looks like a date needs quotes."
    )
    return None
