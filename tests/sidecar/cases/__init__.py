"""The conformance cases as code. ``python -m tests.sidecar.make_cases`` writes them to schema/."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.sidecar.example import Edit, Example


@dataclass
class Case:
    """A sidecar and the codes that a validator must find in it, in any order.

    ``edits`` bend the example before its tensor file is sealed, ``after`` afterwards.
    """

    name: str
    codes: list[str]
    example: Example
    edits: list[Edit] = field(default_factory=list)
    after: list[Edit] = field(default_factory=list)
    sealed: bool = True

    def build(self) -> Example:
        for edit in self.edits:
            edit(self.example)
        if self.sealed:
            self.example.seal()
        for edit in self.after:
            edit(self.example)
        return self.example
