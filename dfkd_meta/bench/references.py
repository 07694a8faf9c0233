"""What a table refers to: the literature by numbers, machines it was made on by letters."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from dfkd_meta.bench.published import Fact
from dfkd_meta.bench.table import Line, Section


class Sources:
    """Numbers the sources in the order in which they are first cited."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def cite(self, fact: Fact) -> str:
        return f"[{self.numbers.setdefault(fact.citation, len(self.numbers) + 1)}]"

    def listed(self) -> list[str]:
        if not self.numbers:
            return []
        entries = [f"{number}. {text}" for text, number in self.numbers.items()]
        return ["## Sources", "", *entries]


class Machines:
    """Each combination of software and hardware that results were made with; several are lettered.

    A budget of seconds buys more steps on a faster machine.
    """

    def __init__(self, sections: Sequence[Section]) -> None:
        lines = [line for section in sections for line in section.lines]
        self.known = list(dict.fromkeys(text for line in lines for text in self._of(line)))
        self.several = len(self.known) > 1

    def letters(self, line: Line) -> str:
        """Those of one line, e.g. ``a`` or ``a, c``."""
        return ", ".join(self._letter(text) for text in self._of(line))

    def listed(self) -> list[str]:
        if not self.several:
            return ["", *(textwrap.fill(f"Made with {one}.", 100) for one in self.known)]
        hint = "Made on several machines (compare the seconds, and what they buy, on one of them):"
        entries = (f"* {self._letter(text)}: {text}" for text in self.known)
        return ["", hint, "", *(textwrap.fill(e, 100, subsequent_indent="  ") for e in entries)]

    def _letter(self, text: str) -> str:
        return chr(ord("a") + self.known.index(text))

    @staticmethod
    def _of(line: Line) -> list[str]:
        found = (record["machine"] for record in line.records)
        return list(dict.fromkeys(_software(one) + (one["gpu"] or _cores(one)) for one in found))


def _software(machine: dict[str, Any]) -> str:
    return f"dfkd-meta {machine['dfkd_meta']}, torch {machine['torch']}, "


def _cores(machine: dict[str, Any]) -> str:
    """E.g. AMD EPYC (family 25, model 17), 1 of 2 cores per run."""
    name = machine.get("processor", "a CPU that was not recorded")  # in the first journals
    return f"{name}, {machine['threads']} of {machine['cores']} cores per run"
