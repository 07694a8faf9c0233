"""One registry for all that is looked up by name: statistics, methods, architectures, losses.

A registry is filled by decorators. The modules of its home package are imported on the first
look-up, then installed plug-ins (entry points of the same group), so adding an entry means adding
one file, and importing the package costs nothing. A plug-in that cannot be loaded is left out, and
named to whoever asks for what is not there.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from dfkd_meta.errors import UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to objects, e.g. ``methods = Registry("method", "dfkd_meta.synthesis.methods")``."""

    def __init__(self, what: str, package: str) -> None:
        self.what = what
        self.package = package
        self.broken: dict[str, str] = {}
        """Plug-ins that could not be loaded, by name, and why."""
        self._entries: dict[str, T] = {}
        self._discovered = False
        self._failure: Exception | None = None

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
            hint = (
                f"did you mean {' or '.join(near)}?"
                if near
                else f"known: {', '.join(self.names())}"
            )
            lost = "; ".join(f"{plugin}: {why}" for plugin, why in self.broken.items())
            raise UsageError(
                f"there is no {self.what} named {name!r}",
                hint=f"{hint}; installed, but not to be loaded: {lost}" if lost else hint,
            )
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, sorted."""
        self._discover()
        return sorted(self._entries)

    def _discover(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._discovered:
            return
        self._discovered = True  # first: a module may look names up while it is being imported
        try:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
            for plugin in entry_points(group=self.package):
                self._load(plugin)
        except Exception as error:
            # The next look-up fails for the same reason: in a second import the names that a
            # module registered before it failed would be taken.
            self._failure = error
            raise
        except BaseException:  # Ctrl-C
            self._discovered = False
            raise

    def _load(self, plugin: EntryPoint) -> None:
        try:
            plugin.load()
        except Exception as error:  # somebody else's code must not stop what does not need it
            self.broken[plugin.name] = f"{type(error).__name__}: {error}"
