"""How numbers, names, code and paths are set in the report."""

from __future__ import annotations

import re
import shlex

from markupsafe import Markup, escape

from scvitune.results._run_directory import Run

MINUS = "\u2212"
ADVISED_TOP_K, ADVISED_SEEDS = 3, 5
"""Of a confirmation, where one is advised."""
_CODE = re.compile(r"`([^`]+)`")
_ERROR = re.compile(r" (± \S+)$")
_NEGATIVE = re.compile(r"(?<![\w.)\]/-])-(?=\d)")


def set_minus(text: str) -> str:
    """Return text with a minus sign before negative numbers, as the figures' axes have it.

    Ranges (1-3), options (``--seed``), paths and exponents as they are typed (1e-05) stay.
    """
    return _NEGATIVE.sub(MINUS, text)


def breakable(name: str) -> Markup:
    """Return a name, escaped, that may go on in another line after each underscore."""
    return escape(name).replace("_", Markup("_<wbr>"))


def with_code(text: str) -> Markup:
    """Return text, escaped, with what stands between backticks set as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def with_small_error(value: str) -> Markup:
    """Return a mean with its standard error, escaped, the error set smaller."""
    return Markup(_ERROR.sub(r" <small>\1</small>", str(escape(value))))


def whole_path(run: Run) -> str:
    """Return the run directory as it holds from any working directory: reports are read elsewhere.

    It is where the directory lay when the report was written.
    """
    return str(run.layout.root.resolve())


def confirm_with(run: Run) -> str:
    """Return the shell command that trains the best few and the default with fresh seeds."""
    few = f"--set confirm.top_k={ADVISED_TOP_K} --set confirm.seeds={ADVISED_SEEDS}"
    return f"{resume_with(run)} {few}"


def resume_with(run: Run, num_samples: int | None = None) -> str:
    """Return the shell command that carries the run on, to so many samples."""
    more = "" if num_samples is None else f" --num-samples {num_samples}"
    return f"scvitune resume {shlex.quote(whole_path(run))}{more}"
