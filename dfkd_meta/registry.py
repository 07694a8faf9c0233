"""One registry for all that is looked up by name: statistics, methods, architectures, losses.

A registry is filled by decorators. The modules of its home package are imported on the first
look-up, then installed plug-ins (entry points of the same group), so adding an entry means adding
one file, and importing the package costs nothing.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from dfkd_meta.errors import UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to objects, e.g. ``methods = Registry("method", "dfkd_meta.synthesis.methods")``."""

    def __init__(self, what: str, package: str) -> None:
        self.what = what
        self.package = package
        self._entries: dict[str, T] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds an object; a name taken twice is a programming error (ValueError)."""

        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.what} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> T:
        """The entry of that name. Raises UsageError that lists the nearest names."""
        self._discover()
        if name not in self._entries:
            near = difflib.get_close_matches(name, self._entries, n=3)
            raise UsageError(
                f"there is no {self.what} named {name!r}",
                hint=("did you mean " + " or ".join(near) + "?")
                if near
                else "known: " + ", ".join(self.names()),
            )
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, sorted."""
        self._discover()
        return sorted(self._entries)

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True  # first: a module may look names up while it is being imported
        try:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
            for plugin in entry_points(group=self.package):
                plugin.load()
        except BaseException:
            self._discovered = False  # so that the next look-up fails for the same reason
            raise
