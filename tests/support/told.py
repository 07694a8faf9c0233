"""A listener that remembers what a command reported."""

from __future__ import annotations

from dfkd_meta.progress import Silent


class Told(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def step(self, message: str) -> None:
        self.steps.append(message)

    def warn(self, message: str) -> None:
        self.steps.append(f"WARNING: {message}")
