"""Sentences of the methods paragraph, and what they cite, as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scvitune.results._run_directory import Run
from scvitune.results.methods._citations import REFERENCES


@dataclass
class Writer:
    """Collects sentences, and citations in the order in which they are made."""

    run: Run
    sentences: list[str] = field(default_factory=list)
    cited: dict[str, str] = field(default_factory=dict)

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def cite(self, *keys: str, before: str = "") -> str:
        """Return citations in brackets, after something else that belongs there."""
        for key in keys:
            self.cited[key] = REFERENCES[key]
        inside = "; ".join(part for part in (before, *keys) if part)
        return f" ({inside})" if inside else ""

    def version(self, package: str) -> str:
        versions = self.run.settings.get("versions")
        known = versions.get(package) if isinstance(versions, Mapping) else None
        return f"{package} {known}" if known else package


def count_things(number: int, thing: str) -> str:
    """Return a number of things in words."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
