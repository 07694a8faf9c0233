"""Where a module comes from: one file per ``teacher.source`` of the standard.

A source turns a request into a module with its weights loaded. Only ``local`` and ``hub_mixin``
run code that is not installed, and only code that the caller named; a file can never name any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue
from torch import nn

from dfkd_meta.registry import Registry


@dataclass(frozen=True)
class SourceRequest:
    """What to build: ``files`` are all files the source may open (digests checked by then)."""

    architecture: str
    arguments: dict[str, JsonValue]
    files: tuple[Path, ...] = ()
    factory: str | None = None

    @property
    def weights(self) -> Path | None:
        """The safetensors file if there is exactly one, or the only file, whatever its kind."""
        found = [path for path in self.files if path.suffix == ".safetensors"] or self.files
        return found[0] if len(found) == 1 else None

    @property
    def where(self) -> str:
        """What an error names: the weight file, else the architecture."""
        return str(self.weights or self.architecture)


sources: Registry[Callable[[SourceRequest], nn.Module]] = Registry(
    "teacher source", "dfkd_meta.teachers.sources"
)
