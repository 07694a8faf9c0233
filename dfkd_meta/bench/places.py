"""What a text in a grid stands for on this machine: variables, and paths beside the TOML file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkd_meta.errors import UsageError

VARIABLE = re.compile(r"\$\{(\w+)\}")
PATHS = ("data", "test", "weights", "model", "published")


@dataclass(frozen=True)
class Places:
    """Where a grid lies (``folder``) and what its variables stand for.

    The grid itself keeps the texts as they were typed, so that its results carry no path of the
    machine they were made on and stay valid on another one.
    """

    folder: Path
    environment: Mapping[str, str]

    def expand(self, value: Any, key: str = "") -> Any:
        """``value`` with ``${NAME}`` replaced in every text, at any depth.

        A text under one of the keys ``PATHS`` that names something beside the grid becomes its
        path. Raises UsageError when a variable is not set.
        """
        if isinstance(value, Mapping):
            # The values of ``published = {full = "..."}`` are paths as the bare text would be.
            return {
                name: self.expand(item, key if key == "published" else str(name))
                for name, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.expand(item, key) for item in value]
        if not isinstance(value, str):
            return value
        text = VARIABLE.sub(lambda match: self._variable(match[1], value), value)
        return self._beside(text) if key in PATHS else text

    def _variable(self, name: str, value: str) -> str:
        if not self.environment.get(name):
            raise UsageError(
                f"{value!r} needs the environment variable {name}, which is not set",
                where=str(self.folder),
                hint=f"{name}=/path/to/it dfkd-meta bench ...",
            )
        return self.environment[name]

    def _beside(self, text: str) -> str:
        path, mark, split = text.partition("#")
        beside = self.folder / path
        return f"{beside}{mark}{split}" if path and beside.exists() else text
